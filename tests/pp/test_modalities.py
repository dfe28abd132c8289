import gzip

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

import sagefm
from sagefm import InputError
from sagefm._uns import texts
from sagefm.pp import add_counts, aggregate, read, simulate
from sagefm.pp.modalities import modality, modality_names

FEATURES = list("abcde")


@pytest.fixture(scope="module")
def original():
    return simulate(60, seed=1, n_couplings=2)


@pytest.fixture
def slide(original):
    return original.copy()


@pytest.fixture(scope="module")
def table(original):
    counts = np.random.default_rng(0).poisson(5, (60, 5))
    return pd.DataFrame(counts, index=original.obs_names, columns=FEATURES)


def cells(xy, **slots):
    counts = csr_matrix(np.random.default_rng(1).poisson(1, (len(xy), 5)))
    obs = pd.DataFrame(index=[f"cell_{i}" for i in range(len(xy))])
    var = pd.DataFrame(index=FEATURES)
    return ad.AnnData(counts, obs=obs, var=var, obsm={"spatial": xy}, **slots)


def refused(slide, name, table):
    before = set(slide.obsm)
    with pytest.raises(InputError) as caught:
        add_counts(slide, name, table)
    assert set(slide.obsm) == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_counts_are_a_modality(slide, table):
    add_counts(slide, "genera", table.sample(frac=1, random_state=1))
    found = modality(slide, "genera")
    assert (found.name, found.key, found.kind) == ("genera", "genera", "counts")
    pd.testing.assert_frame_equal(found.counts, table.astype(np.float64))
    pd.testing.assert_frame_equal(found.normalized(), np.log1p(table))
    assert found.measured.all()
    assert found.controls.shape == (60, 0)
    assert modality_names(slide) == ["genera"]


def test_spots_without_a_row_are_not_measured(slide, table, caplog):
    rest = pd.concat([table[20:], table[:2].set_axis(["other1", "other2"])])
    add_counts(slide, "genera", rest)
    found = modality(slide, "genera")
    assert found.measured.sum() == 40
    assert found.counts[:20].isna().all(axis=None)
    assert found.normalized()[:20].isna().all(axis=None)
    assert found.counts[20:].notna().all(axis=None)
    assert "20 of 60 spots have no counts in the table and are not measured" in caplog.text
    assert "2 rows of no spot of the slide left out" in caplog.text


@pytest.mark.parametrize(
    "named",
    [
        lambda name: name.removesuffix("-1"),
        lambda name: name.replace("-", "."),
        lambda name: f"sample_{name}",
        lambda name: f"{name}_sample",
        lambda name: f"sample#{name[:-2]}",
    ],
)
def test_names_may_have_more_or_less_than_the_barcode(slide, table, named, caplog):
    add_counts(slide, "genera", table.rename(index=named)[::-1])
    assert (slide.obsm["genera"] == table).all(axis=None)
    assert "rows are matched by barcode" in caplog.text


def test_the_slide_may_have_the_longer_names(slide, table):
    slide.obs_names = "s1_" + slide.obs_names
    add_counts(slide, "genera", table)
    assert (slide.obsm["genera"].to_numpy() == table.to_numpy()).all()


def test_another_sample_is_not_matched_by_barcodes_that_all_slides_share(slide, table):
    slide.obs_names = "s1_" + slide.obs_names
    assert "another sample" in refused(slide, "x", table.rename(index="s2_{}".format))
    both = pd.concat(
        [table[:30].rename(index="a_{}".format), table[30:].rename(index="b_{}".format)]
    )
    slide.obs_names = slide.obs_names.str.removeprefix("s1_")
    assert "of several samples" in refused(slide, "x", both)


def test_rows_of_another_sample_are_left_out_where_this_one_is_named(slide, table):
    other = table.rename(index=lambda name: name.replace("-1", "-2"))
    add_counts(slide, "genera", pd.concat([other, table[10:]]))
    assert modality(slide, "genera").measured.sum() == 50
    assert (slide.obsm["genera"][10:] == table[10:]).all(axis=None)


def test_other_names_may_have_a_prefix(slide, table):
    slide.obs_names = [f"{i}x{i + 3}" for i in range(60)]
    add_counts(slide, "r", table.set_axis([f"X{name}" for name in slide.obs_names]))
    add_counts(slide, "p", table.set_axis([f"A1_{name}" for name in slide.obs_names]))
    for key in "rp":
        assert (slide.obsm[key].to_numpy() == table.to_numpy()).all()


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".csv.gz", ".h5ad"])
def test_files(slide, table, tmp_path, suffix):
    path = tmp_path / f"t{suffix}"
    if suffix == ".h5ad":
        ad.AnnData(table.astype(np.float32)).write_h5ad(path)
    else:
        text = table.to_csv(sep="\t" if "tsv" in suffix else ",")
        path.write_bytes(gzip.compress(text.encode()) if "gz" in suffix else text.encode())
    add_counts(slide, "genera", path)
    assert (slide.obsm["genera"] == table).all(axis=None)


def test_tables_of_other_shapes(slide, table, caplog):
    add_counts(slide, "turned", table.T)
    add_counts(slide, "indexed", table.reset_index())
    assert (slide.obsm["turned"] == table).all(axis=None)
    assert (slide.obsm["indexed"] == table).all(axis=None)
    assert "a column per spot" in caplog.text


def missing(table, *places):
    values = table.astype(np.float64)
    for place in places:
        values.iloc[place] = np.nan
    return values


ODD = {
    "no row (such as": lambda t: t.set_axis(range(60)),
    "is empty": lambda t: t.iloc[:0],
    "60 rows more than once": lambda t: pd.concat([t, t]),
    "5 features more than once": lambda t: pd.concat([t, t], axis=1),
    "negative": lambda t: -t,
    "log-normalized": np.log1p,
    "1 row with missing values beside counts": lambda t: missing(t, (3, 2)),
    "all values are missing": lambda t: missing(t, slice(None)),
    "NaN or infinite": lambda t: t.replace(3, np.inf),
    "column 'kind' has values that are no numbers": lambda t: t.assign(kind="x"),
    "column 'day'": lambda t: t.assign(day=pd.Timestamp("2020-01-01")),
    "names of several levels": lambda t: t.set_index(["a", "b"]),
    "no count is above": lambda t: t * 10**12,
    "ndarray is no table": lambda t: t.to_numpy(),
    "NoneType is no table": lambda t: None,
    "does not exist": lambda t: "nowhere.csv",
    "X holds values": lambda t: ad.AnnData(np.log1p(t)),
}


@pytest.mark.parametrize("fault", ODD)
def test_what_is_no_table_of_counts_is_refused_in_a_line(slide, table, fault):
    assert fault in refused(slide, "genera", ODD[fault](table))


@pytest.mark.parametrize(
    ("content", "fault"), [("", "cannot be read"), ("a\nb\n", "one column"), ("a,b\n", "empty")]
)
def test_texts_that_are_no_table(slide, tmp_path, content, fault):
    (tmp_path / "t.csv").write_text(content)
    assert fault in refused(slide, "genera", tmp_path / "t.csv")


@pytest.mark.parametrize(
    "name", ["spatial", "X_pca", "sagefm_x", "a/b", ".", "_index", "", "a=b", 3, None]
)
def test_names_that_cannot_be_given(slide, table, name):
    assert "name" in refused(slide, name, table)


def test_a_name_that_is_taken(slide, table):
    add_counts(slide, "adt", table)
    assert "already (obsm['adt'])" in refused(slide, "adt", table)
    assert "already (obsm['adt'])" in refused(slide, "protein", table)


def test_names_that_cannot_be_written_are_changed(slide, table, tmp_path):
    add_counts(slide, "genera", table.set_axis(["a/b", "a_b", "_index", "", 5], axis=1))
    slide.write_h5ad(tmp_path / "s.h5ad")
    assert set(read(tmp_path / "s.h5ad").obsm["genera"]) >= {"a_b", "index_", "5"}


def test_features_are_called_as_a_file_has_them(slide, table):
    slide.obsm["genera"] = table.set_axis(["a/b", "a_b", "1", 1, "c"], axis=1)
    assert set(modality(slide, "genera").counts) == {"a_b_1", "a_b", "1", "1_1", "c"}


def test_gaps_survive_writing(slide, table, tmp_path):
    add_counts(slide, "genera", table[:50])
    slide.write_h5ad(tmp_path / "s.h5ad")
    again = modality(read(tmp_path / "s.h5ad"), "genera")
    pd.testing.assert_frame_equal(again.counts, modality(slide, "genera").counts)
    assert again.measured.sum() == 50


def test_other_coordinates_are_noted(slide, table, caplog):
    other = ad.AnnData(table.astype(np.float32), obsm={"spatial": 0.1 * slide.obsm["spatial"]})
    add_counts(slide, "same", other)
    assert "coordinates" not in caplog.text
    other.obsm["spatial"] = other.obsm["spatial"][::-1].copy()
    add_counts(slide, "other", other)
    assert "the coordinates of the table are not those of the slide" in caplog.text


@pytest.mark.parametrize(("pitch_um", "radius"), [(100.0, 27.5), (200.0, 50.0)])
def test_cells_are_pooled_in_the_spot_that_they_lie_in(slide, pitch_um, radius, caplog):
    xy = slide.obsm["spatial"]
    slide.uns["spot_pitch_um"] = pitch_um
    places = np.random.default_rng(2).uniform(xy.min(axis=0), xy.max(axis=0), (2000, 2))
    some = cells(places)
    add_counts(slide, "xenium", some)
    distance = np.hypot(*(places[:, None] - xy).transpose(2, 0, 1)) * pitch_um / 200  # pixels → µm
    expected = (distance < radius).T @ some.X.toarray()
    np.testing.assert_array_equal(slide.obsm["xenium"].to_numpy(), expected)
    assert "of 2,000 cells lie within a spot" in caplog.text


def test_spots_far_from_all_cells_are_not_measured(slide):
    xy = slide.obsm["spatial"]
    places = np.random.default_rng(2).uniform(xy.min(axis=0), xy.max(axis=0), (3000, 2))
    middle = np.median(xy[:, 0])
    add_counts(slide, "xenium", cells(places[places[:, 0] < middle]))
    measured = modality(slide, "xenium").measured
    assert measured[xy[:, 0] < middle].all()
    assert not measured[xy[:, 0] > middle + 200].any()


def test_cells_elsewhere_and_other_spots_are_refused(slide):
    xy = slide.obsm["spatial"]
    rng = np.random.default_rng(3)
    places = rng.uniform(xy.min(axis=0), xy.max(axis=0), (500, 2))
    assert "lie on the slide" in refused(slide, "x", cells(places + 1e6))
    assert "as far from each other as spots" in refused(slide, "x", cells(xy + 3.0))
    two = slide.copy()
    two.obs["slide"] = pd.Categorical(["a", "b"] * 30)
    assert "one section only" in refused(two, "x", cells(places))


def test_proteins_by_any_usual_name(slide, table):
    for key in ("antibody_capture", "prot", "ADT"):
        own = slide.copy()
        add_counts(own, key, table.set_axis(["CD3", "CD4", "IgG1_control", "x", "y"], axis=1))
        found = modality(own, "protein")
        assert (found.key, found.kind) == (key, "protein")
        assert list(found.counts) == ["CD3", "CD4", "x", "y"]
        assert list(found.controls) == ["IgG1_control"]
        assert found.normalized().shape == (60, 4)
        assert modality_names(own) == ["protein"]


def test_proteins_in_an_array_are_named_by_uns(slide, table):
    slide.obsm["protein_expression"] = table.to_numpy()
    slide.uns["protein_names"] = np.array(["CD3", "CD4", "CD8", "CD19", "CD20"])
    assert list(modality(slide, "protein").counts)[:2] == ["CD3", "CD4"]


def test_a_modality_that_is_not_there(slide, table):
    with pytest.raises(InputError, match="no second modality 'protein' \\(it has none\\)"):
        modality(slide, "protein")
    slide.obsm["sagefm_imputed"] = table
    slide.obsm["fractions"] = table / 7
    slide.obsm["genera"] = table
    assert modality_names(slide) == ["genera"]
    assert modality(slide, "Genera").key == "genera"
    with pytest.raises(InputError, match="it has genera"):
        modality(slide, "protein")
    with pytest.raises(InputError, match="obsm\\['fractions'\\] has values that are no whole num"):
        modality(slide, "fractions")


def with_antibodies(slide, table):
    """An AnnData in which antibodies stand among the genes, as of CytAssist."""
    counts = table.to_numpy(np.float32) * [8, 8, 1, 1, 0]
    var = pd.DataFrame({"feature_types": ["Gene Expression"] * slide.n_vars}, slide.var_names)
    names = ["CD3E.1", "CD8A.1", "CD4.1", "mouse_IgG1k.1", "rat_IgG2a.1"]
    proteins = pd.DataFrame({"feature_types": ["Antibody Capture"] * 5}, names)
    both = csr_matrix(np.hstack([slide.X.toarray(), counts]))
    return ad.AnnData(both, obs=slide.obs, var=pd.concat([var, proteins]), obsm=slide.obsm)


@pytest.mark.parametrize("backed", [False, True])
def test_proteins_of_a_file_are_kept_and_described(slide, table, tmp_path, backed):
    with_antibodies(slide, table).write_h5ad(tmp_path / "s.h5ad")
    again = read(tmp_path / "s.h5ad", backed=backed)
    found = modality(again, "protein")
    np.testing.assert_array_equal(found.counts["CD3E.1"], 8 * table["a"])
    assert list(found.controls) == ["mouse_IgG1k.1", "rat_IgG2a.1"]
    assert again.n_vars == slide.n_vars
    notes = "\n".join(texts(again.uns["sagefm"]["read"]["told"]))
    assert "3 proteins and 2 isotype controls; the background is 5 counts" in notes
    assert "1 do not exceed it: CD4.1" in notes
    assert found.background() == ["CD4.1"]


def test_proteins_of_a_whole_file_are_a_table(slide, table):
    add_counts(slide, "protein", with_antibodies(slide, table))
    assert list(modality(slide, "protein").counts) == ["CD3E.1", "CD8A.1", "CD4.1"]


def test_check_names_them(slide, table, tmp_path, run):
    add_counts(slide, "genera", table[:50])
    add_counts(slide, "protein", table.set_axis([*FEATURES[:4], "IgG1_control"], axis=1))
    slide.write_h5ad(tmp_path / "s.h5ad")
    status, out, _ = run("check", tmp_path / "s.h5ad")
    assert status == 0
    assert "obsm['genera'] (5 features in 50 spots)" in out
    assert "obsm['protein'] (4 proteins and 1 isotype control)" in out
    assert "the background is" in out


def test_counts_follow_spots_and_are_summed_with_them(slide, table):
    add_counts(slide, "genera", table[:50])
    half = slide[slide.obs_names[::2]].copy()
    assert modality(half, "genera").measured.sum() == 25
    summed = aggregate(slide, "400um")
    found = modality(summed, "genera")
    assert 1 < summed.n_obs < 60
    assert found.counts.sum().to_list() == table[:50].sum().to_list()
    slide.obsm["protein"] = table / 7  # is no table of counts
    assert list(aggregate(slide, "400um").obsm) == ["spatial", "genera"]
    assert sagefm.pp.summarize(summed)["other_counts"].startswith("obsm['genera'] (5 features")
