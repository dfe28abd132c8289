import numpy as np
import pytest

import sagefm
from sagefm import InputError
from sagefm.pp import simulate_tissue
from sagefm.pp.tissue import load_profiles

MARKERS = {
    "cortex": {"MBP": "white matter", "PCP4": "L5", "GFAP": "white matter", "HPCAL1": "L2"},
    "breast": {
        "COL11A1": "invasive carcinoma", "KRT5": "ducts", "CCL19": "lymphoid infiltrate",
        "MGP": "stroma", "S100A7": "carcinoma in situ",
    },
}  # fmt: skip


@pytest.fixture(scope="module", params=["cortex", "breast"])
def tissue(request):
    return request.param


@pytest.fixture(scope="module")
def slide(tissue):
    return simulate_tissue(tissue, 500, seed=1)


def fractions(slide):
    counts = np.asarray(slide.X.sum(axis=1)).ravel()
    return slide.to_df().div(counts, axis=0).groupby(slide.obs["region"], observed=True).mean()


def test_a_slide_is_what_every_verb_takes(slide):
    assert slide.n_obs == 500
    assert not [finding for finding in sagefm.pp.check(slide) if finding.level == "error"]
    assert (slide.X.data > 0).all() and (slide.X.data == slide.X.data.round()).all()
    assert np.isclose(np.median(np.asarray(slide.X.sum(axis=1))), 4000, rtol=0.05)
    known = sagefm.SageFM.load("default").vocabulary
    assert set(slide.var_names) <= set(known.symbols)


def test_markers_are_highest_in_their_region(tissue):
    """In the tissue as it was learned; a patient differs."""
    learned = load_profiles(tissue)
    for gene, region in MARKERS[tissue].items():
        column = learned.profiles[:, learned.genes.index(gene)]
        assert learned.regions[column.argmax()] == region, gene


def test_regions_differ_on_a_slide_as_they_were_learned(slide, tissue):
    learned = load_profiles(tissue)
    found = np.log(fractions(slide) + 1e-6)
    expected = learned.profiles[[learned.regions.index(r) for r in found.index]]
    often = learned.profiles.max(axis=0) > np.log(2e-4)
    a, b = found.to_numpy()[:, often], expected[:, often]
    r = np.corrcoef((a - a.mean(axis=0)).ravel(), (b - b.mean(axis=0)).ravel())[0, 1]
    assert r > 0.4


def test_a_seed_gives_the_same_slide_and_another_one_another(slide, tissue):
    again = simulate_tissue(tissue, 500, seed=1)
    assert (again.X != slide.X).nnz == 0 and again.obs.equals(slide.obs)
    other = simulate_tissue(tissue, 500, seed=2, image=False)
    assert not np.array_equal(
        other.obs["region"].value_counts(), slide.obs["region"].value_counts()
    )
    assert "spatial" not in other.uns


def test_slides_of_one_patient_are_more_alike_than_those_of_two(tissue):
    def profile(patient, seed):
        slide = simulate_tissue(tissue, 300, patient=patient, seed=seed, image=False)
        return np.log(fractions(slide).mean() + 1e-5)

    first = profile(1, 0)
    assert first.corr(profile(1, 1)) > first.corr(profile(2, 1)) + 0.02


def test_the_image_lies_under_the_spots(slide):
    [library] = slide.uns["spatial"].values()
    picture, scale = library["images"]["hires"], library["scalefactors"]["tissue_hires_scalef"]
    columns, rows = np.rint(slide.obsm["spatial"] * scale).astype(int).T
    under, everywhere = picture[rows, columns].mean(), picture.mean()
    assert under < everywhere - 10  # the glass beside the tissue is bright
    assert picture[0, 0].min() > 235


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tissue": "liver"}, "tissue 'liver': choose of cortex, breast"),
        ({"n_spots": 10}, "n_spots is 10; give a number from 100 to 131072"),
        ({"depth": 0}, "depth is 0"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_numbers_out_of_range_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        simulate_tissue(**arguments)


def test_bins_lie_on_a_square_array_without_gaps():
    slide = simulate_tissue("cortex", 400, bin_um=8, depth=60, image=False)
    steps = slide.obs[["array_col", "array_row"]].to_numpy()
    np.testing.assert_allclose(
        slide.obsm["spatial"] - slide.obsm["spatial"][0], 16 * (steps - steps[0])
    )
    assert slide.uns["spot_pitch_um"] == 8
    assert 40 < np.median(slide.X.sum(axis=1).A1) < 90
    side = np.sqrt(400)
    assert (np.ptp(steps, axis=0) < 1.5 * side).all()
    with pytest.raises(InputError, match="bin_um is 1"):
        simulate_tissue("cortex", 400, bin_um=1)
