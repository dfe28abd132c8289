import anndata as ad
import numpy as np
import pandas as pd
import pytest

from sagefm import InputError
from sagefm.cli._jobs import _state_of
from sagefm.cli._options import add_tables
from sagefm.pp import read, simulate
from sagefm.pp.modalities import modality
from sagefm.pp.writing import write_slide


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A slide, and a table of its spots."""
    folder = tmp_path_factory.mktemp("tables")
    slide = simulate(40, seed=1, n_couplings=2)
    counts = np.random.default_rng(0).poisson(5, (40, 3))
    table = pd.DataFrame(counts, slide.obs_names, ["CD3", "CD4", "IgG1_control"])
    slide.write_h5ad(folder / "s.h5ad")
    table.to_csv(folder / "a=b.csv")
    return folder, table


@pytest.mark.parametrize("backed", [False, True])
def test_tables_are_added_and_written(files, tmp_path, backed):
    folder, table = files
    slide = read(folder / "s.h5ad", backed=backed)
    add_tables({"s": slide}, folder / "a=b.csv", [f"other={folder / 'a=b.csv'}"])
    write_slide(slide, tmp_path / "out.h5ad")
    again = read(tmp_path / "out.h5ad")
    pd.testing.assert_frame_equal(modality(again, "protein").counts, table[["CD3", "CD4"]] * 1.0)
    pd.testing.assert_frame_equal(modality(again, "other").counts, table * 1.0)
    assert ad.read_h5ad(tmp_path / "out.h5ad").X.sum() > 0


def test_no_table_is_added(files):
    slide = read(files[0] / "s.h5ad")
    add_tables({"s": slide}, None, None)
    assert list(slide.obsm) == ["spatial"]


@pytest.mark.parametrize("option", ["table.csv", "=table.csv", "name=", " =x"])
def test_a_table_without_a_name(files, option):
    with pytest.raises(InputError, match="write NAME=TABLE"):
        add_tables({"s": read(files[0] / "s.h5ad")}, None, [option])


def test_two_tables_of_a_name(files):
    tables = [f"x={files[0] / 'a=b.csv'}"] * 2
    with pytest.raises(InputError, match="a second table called 'x'"):
        add_tables({"s": read(files[0] / "s.h5ad")}, None, tables)


def test_verbs_take_tables(files, model, run):
    folder, table = files
    model.save("m.safetensors")
    words = ["embed", folder / "s.h5ad", "-m", "m.safetensors", "-o", "e.h5ad"]
    words += ["--protein", folder / "a=b.csv"]
    status, _, err = run(*words)
    assert (status, err) == (2, "error: protein: is not used; add --with protein\n")
    for _ in range(2):  # the second time the result is there, with its table
        assert run(*words, "--with", "protein")[0] == 0
        slide = read("e.h5ad")
        assert (slide.obsm["protein"] == table).all(axis=None)
        assert "X_sagefm_joint" in slide.obsm
    words = ["domains", folder / "s.h5ad", "-n", 2, "-o", "d.h5ad", "--method", "pca7"]
    status, _, err = run(*words, "--counts", f"x={folder / 'none.csv'}", "--with", "x")
    assert status == 2
    assert "none.csv: does not exist" in err


def test_a_table_that_changes_is_noticed(files):
    path = files[0] / "other.csv"
    path.write_text("a")
    before = _state_of("counts", [f"x={path}"])
    assert _state_of("counts", [f"x={path}"]) == before
    assert _state_of("counts", [f"y={path}"]) != before
    path.write_text("ab")
    assert _state_of("counts", [f"x={path}"]) != before
    assert _state_of("counts", None) is None
