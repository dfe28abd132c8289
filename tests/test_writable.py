import datetime
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.sparse import csr_matrix

from sagefm._writable import make_writable
from sagefm.pp.writing import write_slide

N = 8
NAMES = [f"spot{i}" for i in range(N)]


def a_table(**columns):
    return pd.DataFrame(columns, index=NAMES)


def a_slide(obs=None, **slots):
    obs = a_table() if obs is None else obs
    genes = pd.DataFrame(index=["TP53", "CD3E"])
    return AnnData(csr_matrix(np.ones((N, 2), np.float32)), obs=obs, var=genes, **slots)


def written(slide, tmp_path):
    write_slide(slide, tmp_path / "o.h5ad")
    return anndata.read_h5ad(tmp_path / "o.h5ad")


def test_what_fits_is_not_touched():
    slide = a_slide(a_table(label=["a", "b"] * 4, n=range(N)))
    slide.obs["kind"] = pd.Categorical([1, 2] * 4)
    slide.uns["settings"] = {"n": 3, "names": ["a", "b"], "x": np.ones(3), "path": "p", "on": True}
    slide.obsm["table"] = a_table(a=np.ones(N))
    obs, uns, table = slide.obs, slide.uns["settings"], slide.obsm["table"]
    assert make_writable(slide) == []
    assert slide.uns["settings"] is uns
    assert slide.obsm["table"] is table
    pd.testing.assert_frame_equal(slide.obs, obs)
    slide.obs["gap"] = ["a", None] * 4
    assert make_writable(slide) == []  # anndata makes categories of it, as ever


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("_index", "index_"), ("CD4/CD8", "CD4_CD8"), ("", "unnamed"), (".", "_"), ("a\0b", "ab"),
     (3, "3"), (("t", 1), "t_1")],
)  # fmt: skip
def test_names_that_a_file_cannot_hold_are_changed_and_that_is_told(tmp_path, caplog, name, wanted):
    obs = a_table()
    obs[name] = np.arange(N)
    slide = a_slide(obs)
    again = written(slide, tmp_path)
    assert list(again.obs) == [wanted]
    assert list(again.obs[wanted]) == list(range(N))
    shown = "ab" if name == "a\0b" else wanted
    assert f"renamed, so that it can be written: obs['{name}'] is '{shown}'" in caplog.text


def test_names_stay_different(tmp_path):
    obs = pd.DataFrame(np.arange(N * 4).reshape(N, 4), NAMES, ["a_b", "a/b", "c", "c"])
    again = written(a_slide(obs), tmp_path)
    assert list(again.obs) == ["a_b", "a_b_1", "c", "c_1"]
    np.testing.assert_array_equal(again.obs.to_numpy(), obs.to_numpy())


def test_the_name_of_an_index_gives_way_to_a_column(tmp_path):
    obs = a_table(barcode=range(N))
    obs.index.name = "barcode"
    slide = a_slide(obs)
    slide.var.index.name = "genes/names"
    again = written(slide, tmp_path)
    assert list(again.obs["barcode"]) == list(range(N))
    assert list(again.obs_names) == NAMES


DAYS = pd.date_range("2020-01-01", periods=N)
VALUES = {
    "nullable text": pd.array(["a", None] * 4, dtype="string"),
    "unique nullable text": pd.array(NAMES, dtype="string"),
    "nullable integers": pd.array([1, None] * 4, dtype="Int64"),
    "nullable numbers": pd.array([1.5, None] * 4, dtype="Float64"),
    "mixed": ["a", 1] * 4,
    "gaps": [*NAMES[1:], None],
    "nothing": [None] * N,
    "pairs": [(1, 2)] * N,
    "lists": [[1], [2, 3]] * 4,
    "flags": pd.Series([True, None] * 4, dtype=object).tolist(),
    "large": [1, 2**70] * 4,
    "days": DAYS,
    "days with a zone": DAYS.tz_localize("UTC"),
    "day": [datetime.date(2020, 1, 1)] * N,
    "periods": DAYS.to_period(),
    "spans": pd.to_timedelta(range(N), unit="h"),
    "ranges": pd.cut(np.arange(N), 3),
    "mixed categories": pd.Categorical(["1", 1] * 4),
    "categories of days": pd.Categorical(DAYS),
    "sparse": pd.arrays.SparseArray([0, 1] * 4),
    "null byte": ["a\0b", "c"] * 4,
}


@pytest.mark.parametrize("kind", VALUES)
def test_columns_of_every_type_are_written(tmp_path, kind):
    obs = a_table()
    obs["column"] = VALUES[kind]
    slide = a_slide(obs)
    slide.obsm["table"] = obs.copy()
    missing = obs["column"].isna()
    again = written(slide, tmp_path)
    for table in (again.obs, again.obsm["table"]):
        assert list(table["column"].isna()) == list(missing)
        assert table["column"].nunique() == obs["column"].astype(str)[~missing].nunique() or (
            kind == "mixed categories"
        )
    anndata.read_h5ad(tmp_path / "o.h5ad").write_h5ad(tmp_path / "again.h5ad")


def test_categories_that_look_the_same_stay_apart(tmp_path):
    obs = a_table()
    obs["column"] = VALUES["mixed categories"]
    again = written(a_slide(obs), tmp_path)
    assert list(again.obs["column"].cat.codes) == list(obs["column"].cat.codes)


def test_uns_of_every_type_is_written_or_left_out_by_name(tmp_path, caplog):
    slide = a_slide()
    loop = {}
    loop["loop"] = loop
    slide.uns.update(
        {
            "set": {2, 1}, "pair": (1, "a"), "mixed": [1, "a"], "day": datetime.date(2020, 1, 1),
            "path": Path("a"), "large": 2**80, "series": pd.Series([1, 2]), "a/b": {"": {3: 4}},
            "function": lambda: 3, "object": object(), "loop": loop, "ragged": [[1], [2, 3]],
            "table": pd.DataFrame({"_index": [1], "a/b": ["x"]}),
        }
    )  # fmt: skip
    again = written(slide, tmp_path)
    assert list(again.uns["set"]) == [1, 2]
    assert list(again.uns["pair"]) == ["1", "a"]
    assert again.uns["day"] == "2020-01-01"
    assert again.uns["large"] == str(2**80)
    assert again.uns["a_b"]["unnamed"]["3"] == 4
    assert list(again.uns["table"]) == ["index_", "a_b"]
    assert not {"function", "object"} & set(again.uns)
    assert "left out, because it cannot be written: uns['function'], uns['object']" in caplog.text


def test_keys_and_arrays_of_every_slot_are_written(tmp_path):
    slide = a_slide()
    slide.obsm["words"] = np.array([["a", 1]] * N, dtype=object)
    slide.obsm["gaps"] = np.array([[1, None]] * N, dtype=object)
    slide.obsm["days"] = np.array([["2020-01-01"]] * N, dtype="M8[D]")
    slide.layers["a/b"] = slide.X
    slide.obsp["a/b"] = csr_matrix(np.eye(N))
    slide.varm[""] = np.ones((2, 3))
    raw = slide.var.assign(_index=1)
    slide.raw = AnnData(slide.X, obs=slide.obs, var=raw)
    again = written(slide, tmp_path)
    assert set(again.layers) - {None} == set(again.obsp) == {"a_b"}
    assert list(again.varm) == ["unnamed"]
    assert list(again.raw.var) == ["index_"]
    np.testing.assert_array_equal(again.obsm["gaps"], [[1, np.nan]] * N)
    assert again.obsm["days"][0, 0] == "2020-01-01"
