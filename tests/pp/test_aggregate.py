"""Bins and cells are summed exactly, and results go back to where they came from."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

import sagefm
from sagefm.pp import aggregate, disaggregate

TO = st.sampled_from(["16um", "24um", "32um", "spots", "hexagons"])


def bins_of(seed, *, n=400, side=24, bin_um=8.0, turned=0.02, mirrored=True):
    """Bins of an array that is turned and mirrored in the image, 4 pixels to a micrometer."""
    rng = np.random.default_rng(seed)
    at = rng.choice(side**2, n, replace=False)
    row, column = at // side, at % side
    um = bin_um * (np.column_stack([column, row]) + 0.5)
    turn = np.array([[np.cos(turned), np.sin(turned)], [-np.sin(turned), np.cos(turned)]])
    turn = turn * [1, -1 if mirrored else 1]
    counts = csr_matrix(rng.poisson(0.2, (n, 7)).astype(np.float32))
    names = [f"s_{bin_um:03.0f}um_{r:05d}_{c:05d}-1" for r, c in zip(row, column, strict=True)]
    obs = pd.DataFrame({"array_row": row, "array_col": column, "slide": "a"}, index=names)
    factors = {
        "microns_per_pixel": 0.25,
        "bin_size_um": bin_um,
        "spot_diameter_fullres": 4 * bin_um,
    }
    return ad.AnnData(
        counts, obs=obs, var=pd.DataFrame(index=[f"G{i}" for i in range(7)]),
        obsm={"spatial": 4 * um @ turn + [900, 5000]},
        uns={"spatial": {"a": {"images": {}, "scalefactors": factors}}},
    )  # fmt: skip


def cells_of(seed, n=300):
    rng = np.random.default_rng(seed)
    return ad.AnnData(
        csr_matrix(rng.poisson(0.5, (n, 5)).astype(np.float32)),
        obs=pd.DataFrame(index=[f"cellid_{i:09d}-1" for i in range(n)]),
        obsm={"spatial": rng.uniform(0, 1500, (n, 2))},
        uns={"spatial": {"a": {"images": {}, "scalefactors": {"microns_per_pixel": 0.25}}}},
    )


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10**6), to=TO, cells=st.booleans())
def test_every_count_is_kept_or_said_to_lie_outside(seed, to, cells):
    slide = cells_of(seed) if cells else bins_of(seed)
    result = aggregate(slide, to)
    entry = result.uns["sagefm"]["aggregate"]
    assert entry["counts"] == result.X.sum()
    assert entry["counts"] + entry["counts_outside"] == slide.X.sum()
    assert result.obs["n_aggregated"].sum() + entry["n_outside"] == slide.n_obs
    assert entry["n_outside"] == 0 or to == "spots"
    slide.obs["at"] = np.arange(slide.n_obs)
    result.obs["spot"] = result.obs_names
    disaggregate(result, slide, ["spot"])
    for name, own in slide.obs.groupby("spot", observed=True)["at"]:
        assert (slide.X[own].sum(axis=0) == result[name].X.toarray()).all()


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10**6), to=TO, cells=st.booleans())
def test_the_order_of_the_bins_does_not_matter(seed, to, cells):
    slide = cells_of(seed) if cells else bins_of(seed)
    order = np.random.default_rng(seed).permutation(slide.n_obs)
    one, two = aggregate(slide, to), aggregate(slide[order].copy(), to)
    assert one.obs_names.equals(two.obs_names)
    assert (one.X != two.X).nnz == 0
    pd.testing.assert_frame_equal(one.obs, two.obs)
    np.testing.assert_array_equal(one.obsm["spatial"], two.obsm["spatial"])


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10**6), to=TO)
def test_labels_that_are_the_same_in_a_spot_come_back(seed, to):
    slide = bins_of(seed)
    spots = aggregate(slide, to)
    rng = np.random.default_rng(seed)
    spots.obs["label"] = pd.Categorical(rng.choice(["x", "y"], spots.n_obs))
    spots.obs["score"] = rng.random(spots.n_obs)
    spots.obsm["z"] = rng.random((spots.n_obs, 2), dtype=np.float32)
    table = disaggregate(spots, slide, ["label", "score", "z"])
    inside = slide.obs["label"].notna().to_numpy()
    assert (table["n_missing"] == (~inside).sum()).all()
    assert np.isnan(slide.obsm["z"][~inside]).all()
    assert slide.obs["score"].notna().to_numpy().tolist() == inside.tolist()
    by_spot = slide.obs[inside].groupby(slide.obsm["z"][inside, 0])
    assert (by_spot[["label", "score"]].nunique() == 1).all(axis=None)
    back = slide[inside].obs[["label", "score"]].drop_duplicates()
    assert len(back) == spots.n_obs


def test_larger_bins_are_those_of_space_ranger():
    slide = bins_of(1, n=576)
    result = aggregate(slide, "16um")
    expected = slide.obs.groupby([slide.obs["array_row"] // 2, slide.obs["array_col"] // 2]).size()
    assert (expected == 4).all()
    assert list(zip(result.obs["array_row"], result.obs["array_col"], strict=True)) == [
        *expected.index
    ]
    assert result.obs_names[0] == "s_016um_00000_00000-1"
    four = (slide.obs["array_row"] < 2) & (slide.obs["array_col"] < 2)
    np.testing.assert_allclose(
        result.obsm["spatial"][0], slide[four.to_numpy()].obsm["spatial"].mean(axis=0)
    )
    factors = result.uns["spatial"]["a"]["scalefactors"]
    assert factors["bin_size_um"] == result.uns["spot_pitch_um"] == 16
    assert factors["spot_diameter_fullres"] == pytest.approx(64)
    assert result.obs["slide"].tolist() == ["a"] * result.n_obs
    again = aggregate(result, 32)
    direct = aggregate(slide, 32)
    assert (again.X != direct.X).nnz == 0
    np.testing.assert_allclose(again.obsm["spatial"], direct.obsm["spatial"])


@pytest.mark.parametrize("turned", [0.0, 0.3, 1.5])
def test_bins_without_rows_and_columns_are_found_by_their_places(turned):
    slide = bins_of(2, n=500, turned=turned)
    del slide.obs["array_row"], slide.obs["array_col"]
    slide.obs_names = [f"b{i}" for i in range(slide.n_obs)]
    result = aggregate(slide, "16um")
    assert result.obs["n_aggregated"].max() == 4
    assert result.uns["sagefm"]["aggregate"]["bin_um"] == 8
    assert result.n_obs <= 13 * 13


def test_spots_are_circles_and_hexagons_leave_nothing_out():
    slide = bins_of(3, n=10_000, side=100)
    spots, hexagons = aggregate(slide, "spots"), aggregate(slide, "hexagons")
    um = np.abs(slide.obsm["spatial"][:, None] - spots.obsm["spatial"]) / 4
    within = np.hypot(*um.transpose(2, 0, 1)) <= 27.5 + 1e-9
    assert (within.sum(axis=0) == spots.obs["n_aggregated"]).all()
    assert within.any(axis=1).sum() == spots.obs["n_aggregated"].sum()
    assert hexagons.obs["n_aggregated"].sum() == slide.n_obs
    distance = np.linalg.norm(hexagons.obsm["spatial"][:, None] - slide.obsm["spatial"], axis=2)
    hexagons.obs["spot"] = np.arange(hexagons.n_obs)
    disaggregate(hexagons, slide, ["spot"])
    own = distance[slide.obs["spot"], np.arange(slide.n_obs)]
    np.testing.assert_allclose(own, distance.min(axis=0), atol=1e-3)
    assert sagefm.pp.check(hexagons, n_neighbors=15) is not None
    assert spots.uns["spatial"]["a"]["scalefactors"]["spot_diameter_fullres"] == pytest.approx(220)
    parity = hexagons.obs["array_row"] % 2 == hexagons.obs["array_col"] % 2
    assert parity.all()


def test_domains_of_hexagons_reach_cells_of_the_same_section():
    slide, cells = bins_of(4, turned=0, mirrored=False), cells_of(4)
    cells.obsm["spatial"] = cells.obsm["spatial"] / 2 + [900, 5000]
    hexagons = aggregate(slide, "hexagons")
    hexagons.obs["domain"] = pd.Categorical(["left", "right"] * hexagons.n_obs)[: hexagons.n_obs]
    hexagons.uns["domain_colors"] = ["#000000", "#ffffff"]
    table = disaggregate(hexagons, cells)
    assert table.index.tolist() == ["slide", "domain"]
    assert table.loc["domain", "n_spots"] > 250
    assert list(cells.obs["domain"].cat.categories) == ["left", "right"]
    assert cells.uns["domain_colors"] == ["#000000", "#ffffff"]


def test_sections_stay_apart():
    parts = [bins_of(i) for i in range(2)]
    both = ad.concat(dict(zip("pq", parts, strict=True)), label="section", index_unique="-")
    both.uns["spot_pitch_um"] = 8.0
    result = aggregate(both, "hexagons", slide_key="section")
    for name, part in zip("pq", parts, strict=True):
        own = result[result.obs["section"] == name]
        assert (own.X != aggregate(part, "hexagons").X).nnz == 0
    result.obs["of"] = result.obs["section"].astype(str)
    disaggregate(result, both, ["of"], slide_key="section")
    assert (both.obs["of"] == both.obs["section"].astype(str)).all()


def test_other_types_come_back_too():
    slide = bins_of(5)
    spots = aggregate(slide, "spots")
    spots.obs["n"], spots.obs["yes"] = 3, True
    spots.obs["text"] = "a"
    spots.obsm["table"] = pd.DataFrame({"p": 1.0, "q": "b"}, index=spots.obs_names)
    disaggregate(spots, slide, ["n", "yes", "text", "table"])
    outside = slide.obs["n"].isna()
    assert 0 < outside.sum() < slide.n_obs
    for column in ("yes", "text"):
        assert (slide.obs[column].isna() == outside).all()
    assert slide.obs["yes"].dropna().all()
    assert (slide.obsm["table"]["q"].isna() == outside).all()


def test_a_written_result_works_as_well(tmp_path):
    slide = bins_of(6)
    spots = aggregate(slide, "hexagons")
    spots.obs["domain"] = pd.Categorical(["1"] * spots.n_obs)
    spots.write_h5ad(tmp_path / "spots.h5ad")
    disaggregate(sagefm.read(tmp_path / "spots.h5ad"), slide, ["domain"])
    assert (slide.obs["domain"] == "1").all()
    slide.write_h5ad(tmp_path / "bins.h5ad")


def test_bins_are_told_from_spots_and_shallow_ones_are_to_be_aggregated():
    (shallow,) = (f for f in sagefm.pp.check(bins_of(0)) if "µm apart" in f.message)
    assert shallow.level == "warning"
    assert "bins or cells 8 µm apart, with 1 counts" in shallow.message
    assert "sagefm.pp.aggregate, such as to='128um'" in shallow.message
    deep = bins_of(0)
    deep.X = deep.X * 1000
    (deep,) = (f for f in sagefm.pp.check(deep) if "µm apart" in f.message)
    assert deep.level == "note"
    hexagons = aggregate(bins_of(0), "hexagons")
    assert not [f for f in sagefm.pp.check(hexagons) if "µm apart" in f.message]


WRONG = {
    "20um": "no whole multiple of the bins of 8 µm; choose 16um or 24um",
    "8um": "8 µm apart already",
    4: "8 µm apart already",
    "big": "give the side of larger bins",
    "-16um": "give the side of larger bins",
    float("nan"): "give the side of larger bins",
}


@pytest.mark.parametrize("to", WRONG)
def test_a_size_that_does_not_fit_is_refused(to):
    with pytest.raises(sagefm.InputError, match=WRONG[to]):
        aggregate(bins_of(7), to)


def test_a_slide_without_scale_is_refused():
    slide = bins_of(8)
    slide.uns = {}
    with pytest.raises(sagefm.InputError, match=r"uns\['spot_pitch_um'\]"):
        aggregate(slide, "hexagons")
    slide.uns["spot_pitch_um"] = 8
    assert aggregate(slide, 16).uns["sagefm"]["aggregate"]["bin_um"] == 8


def test_results_of_another_slide_are_refused():
    slide = bins_of(9)
    spots = aggregate(slide, "hexagons")
    spots.obs["domain"] = "1"
    with pytest.raises(sagefm.InputError, match="not those of the aggregated slide"):
        disaggregate(spots, bins_of(10))
    far = slide.copy()
    far.obsm["spatial"] += 1e5
    with pytest.raises(sagefm.InputError, match="not those of the aggregated slide"):
        disaggregate(spots, far[:-1].copy())
    with pytest.raises(sagefm.InputError, match="no record of its grid"):
        disaggregate(slide, slide)
    with pytest.raises(sagefm.InputError, match="has no nothing"):
        disaggregate(spots, slide, ["nothing"])
    disaggregate(spots, slide)
    with pytest.raises(sagefm.InputError, match="no column of obs that the slide lacks"):
        disaggregate(spots, slide)


def test_the_bins_of_a_real_folder(shared):
    pytest.importorskip("pyarrow")
    folder = shared / "fixtures" / "seurat_visium_hd" / "binned_outputs" / "square_016um"
    if not folder.is_dir():
        pytest.skip("no fixture of Visium HD")
    slide = sagefm.read(folder)
    result = aggregate(slide, "32um")
    rows = slide.obs[["array_row", "array_col"]] // 2
    assert result.n_obs == len(rows.drop_duplicates())
    assert result.X.sum() == slide.X.sum()
    np.testing.assert_array_equal(
        result.obs[["array_row", "array_col"]], rows.drop_duplicates().sort_values([*rows])
    )
