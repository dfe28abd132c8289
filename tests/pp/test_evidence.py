import anndata as ad
import numpy as np
import pandas as pd
import pytest

from sagefm import InputError, read
from sagefm.pp import check, simulate
from sagefm.pp.aligned import AlignedSlide
from sagefm.pp.evidence import find_evidence
from sagefm.pp.grid import Grid
from sagefm.pp.sections import find_slide_key, section_codes
from sagefm.pp.vocabulary import Vocabulary

GENES = [f"GENE{i}" for i in range(9)]
UNUSUAL = ("tumor", "condition", "x1", "fov", "patient", "image", "site", "who")


@pytest.fixture(scope="module")
def originals():
    return [simulate(n, seed=n, genes=GENES, n_couplings=1) for n in (150, 260, 150)]


@pytest.fixture
def slides(originals):
    """Slides with nothing but labels and random groups in obs, and names without a barcode."""
    copies = [slide.copy() for slide in originals]
    for number, slide in enumerate(copies):
        slide.obs = slide.obs[["domain"]].assign(group=np.arange(slide.n_obs) % 5)
        slide.obs_names = [f"spot{number}x{i}of" for i in range(slide.n_obs)]
        slide.uns.clear()
    return copies


def moved(slide, *, by=(0, 0), angle=0.0, scale=1.0):
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    middle = slide.obsm["spatial"].mean(axis=0)
    slide.obsm["spatial"] = (slide.obsm["spatial"] - middle) @ turn.T * scale + middle + by
    return slide


def merged(slides, label="who", **how):
    return ad.concat(dict(zip("abc", slides, strict=False)), label=label, **how)


def refused(slide, key):
    with pytest.raises(InputError, match="several slides in one object") as caught:
        section_codes(slide)
    message = str(caught.value)
    assert f"pass slide_key={key!r}" in message
    assert "\n" not in message
    assert len(np.unique(section_codes(slide, key))) > 1
    return message


MOVES = {
    "onto the same places": {},
    "over the other, shifted": {"by": (37, 11)},
    "partly over the other": {"by": (1990, 333)},
    "beside the other": {"by": (7123, 45)},
    "over the other, turned": {"angle": 0.4},
    "over the other, larger": {"scale": 1.3, "by": (31, 5)},
    "far from the other on one grid": {"by": (20000, 0)},
}


@pytest.mark.parametrize("how", MOVES)
@pytest.mark.parametrize("label", UNUSUAL[:3])
def test_slides_are_told_apart_by_their_places_whatever_the_column_is_called(slides, how, label):
    both = merged([slides[0], moved(slides[1], **MOVES[how])], label)
    refused(both, label)


def test_three_slides(slides):
    three = merged([slides[0], moved(slides[1], by=(53, 41)), moved(slides[2], by=(-5321, 87))])
    assert "3 values: a, b, c" in refused(three, "who")


@pytest.mark.parametrize("label", UNUSUAL)
def test_shared_positions_of_the_array_are_proof(originals, slides, label):
    for slide, original in zip(slides, originals, strict=True):
        slide.obs[["array_row", "array_col"]] = original.obs[["array_row", "array_col"]].to_numpy()
    both = merged([slides[0], moved(slides[1], by=(9000, 0))], label)
    assert "share their array_row and array_col" in refused(both, label)


@pytest.mark.parametrize("ending", ["-{}", "_{}", "-1-{}", "-1_{}"])
def test_endings_of_barcodes_are_proof(originals, ending):
    parts = [slide.copy() for slide in originals[:2]]
    for number, slide in enumerate(parts):
        slide.obs = slide.obs[["domain"]].copy()
        slide.obs_names = slide.obs_names.str.removesuffix("-1") + ending.format(number)
    both = merged([parts[0], moved(parts[1], by=(9000, 0))])
    message = refused(both, "who")
    assert f"{ending.format(0)}, {ending.format(1)}" in message
    del both.obs["who"]
    with pytest.raises(InputError, match="no column of obs tells the slides apart; add one"):
        section_codes(both)


def test_prefixes_of_barcodes_and_barcodes_that_occur_twice_are_proof(originals):
    parts = [slide.copy() for slide in originals[:2]]
    parts[1] = moved(parts[1], by=(9000, 0))
    for slide in parts:
        slide.obs = slide.obs[["domain"]].copy()
    with pytest.warns(UserWarning, match="names are not unique"):
        twice = merged(parts)
    assert "share their barcode" in refused(twice, "who")
    for name, slide in zip("ab", parts, strict=True):
        slide.obs_names = f"{name}_" + slide.obs_names
    assert "a_…-1, b_…-1" in refused(merged(parts), "who")


def test_a_third_coordinate_is_proof(slides):
    for number, slide in enumerate(slides):
        slide.obsm["spatial"] = np.c_[slide.obsm["spatial"], np.full(slide.n_obs, 10.0 * number)]
    assert "third coordinate" in refused(merged(slides), "who")
    assert find_slide_key(slides[1]) is None


def test_the_region_of_spatialdata_names_the_column(slides):
    both = merged([slides[0], moved(slides[1], by=(3000, 0))], "anything")
    both.uns["spatialdata_attrs"] = {"region": ["a", "b"], "region_key": "anything"}
    assert "the region of SpatialData" in refused(both, "anything")
    one = both[both.obs["anything"] == "b"].copy()
    assert find_slide_key(one) is None


def test_a_column_of_libraries_is_named(slides):
    slide = slides[0]
    slide.obs["where"] = np.where(np.arange(slide.n_obs) < 70, "one", "two")
    slide.uns["spatial"] = {"one": {"images": {}}, "two": {"images": {}}}
    assert "2 libraries (one, two)" in refused(slide, "where")
    assert find_slide_key(slide[:60]) is None


@pytest.mark.parametrize("name", ["orig.ident", "Sample", "sample ID", "LibraryID", "capture_area"])
def test_usual_names_are_known_in_every_spelling(slides, name):
    slide = slides[0]
    slide.obs[name] = np.where(np.arange(slide.n_obs) < 70, "one", "two")
    refused(slide, name)


def test_names_of_slides_and_of_other_things_count_only_far_apart(slides):
    halves = moved(slides[0], scale=1.0)
    halves.obs["patient"] = np.where(np.arange(halves.n_obs) < 75, "one", "two")
    assert find_slide_key(halves) is None
    halves.obsm["spatial"][75:, 1] += 200 * np.sqrt(0.75) * 40
    assert "lie far from the others" in refused(halves, "patient")
    halves.obs = halves.obs.rename(columns={"patient": "tissue"})
    assert find_slide_key(halves) is None  # serial biopsies on one array


def labels(points):
    """Columns of one slide that follow its places, or do not."""
    x, y = np.floor((points - points.min(axis=0)) / np.ptp(points, axis=0) * 11.99).astype(int).T
    random = np.random.default_rng(0)
    return {
        "random": random.integers(0, 4, len(points)),
        "rare": (random.random(len(points)) < 0.05).astype(int),
        "half": (x > 5).astype(int),
        "blocks": x // 4 + 3 * (y // 4),
        "board": (x + y) % 2,
        "rows": np.unique(np.round(points[:, 1]), return_inverse=True)[1] % 3,
        "columns": np.unique(np.round(points[:, 0]), return_inverse=True)[1] % 2,
    }


@pytest.mark.parametrize("name", ["region", "tissue"])
def test_labels_of_one_slide_are_no_slides(originals, name):
    for original in originals[:2]:
        slide = original.copy()
        for values in labels(slide.obsm["spatial"]).values():
            slide.obs[name] = values
            assert find_evidence(slide) is None
            assert find_slide_key(slide) is None


def test_pieces_of_tissue_on_one_array_are_one_slide(slides):
    slide = slides[1]
    row = np.round(slide.obsm["spatial"][:, 1] / (200 * np.sqrt(0.75)))
    middle = np.median(row)
    slide.obsm["spatial"][:, 1] += (row > middle) * 200 * np.sqrt(0.75) * 12
    slide.obs["region"] = np.where(row > middle, "left", "right")
    assert find_slide_key(slide) is None


def test_cells_and_places_found_by_hand_are_no_grid():
    random = np.random.default_rng(1)
    cells = random.uniform(0, 5000, (800, 2))
    assert Grid.of(cells) is None
    square = np.stack(np.meshgrid(range(14), range(14)), axis=-1).reshape(-1, 2) * 100.0
    by_hand = Grid.of(square + random.normal(0, 8, square.shape))
    assert by_hand is None or not by_hand.exact
    slide = ad.AnnData(np.ones((196, 3), dtype="float32"), obsm={"spatial": square})
    slide.obs["label"] = random.integers(0, 3, 196).astype(str)
    assert find_slide_key(slide) is None
    assert Grid.of(square).exact
    assert Grid.of(square).pitch == 100


def test_a_grid_is_found_in_any_direction(originals):
    points = moved(originals[1].copy(), angle=0.3, scale=0.37).obsm["spatial"]
    grid = Grid.of(points)
    assert np.isclose(grid.pitch, 74)
    assert grid.hexagonal
    assert grid.holds(points, 0.01)
    assert grid.misses(points + np.array([20, 0]))


@pytest.mark.parametrize("scale", [1e-170, 1e-12, 1e12, 1e200])
def test_coordinates_of_any_size(slides, scale):
    slides[0].obsm["spatial"] *= scale
    assert find_slide_key(slides[0]) is None
    slides[0].obsm["spatial"][3] = 1e250
    assert find_slide_key(slides[0]) is None


def test_what_can_be_no_column_of_slides_is_passed_over(slides):
    both = merged([slides[0], moved(slides[1], by=(37, 11))])
    both.obs["lists"] = [[1]] * both.n_obs
    both.obs["gaps"] = both.obs["who"].astype(object).where(np.arange(both.n_obs) > 3)
    both.obs[7] = both.obs["who"].to_numpy()
    refused(both, "who")


def test_a_column_with_one_value_says_that_it_is_one_slide(slides):
    both = merged([slides[0], moved(slides[1], by=(37, 11))])
    both.obs["all"] = "one"
    assert not section_codes(both, "all").any()


def test_files_and_objects_are_refused_alike(slides, tmp_path):
    both = merged([slides[0], moved(slides[1], by=(37, 11))])
    both.write_h5ad(tmp_path / "both.h5ad")
    with pytest.raises(InputError, match=r"both\.h5ad: several slides.*pass slide_key='who'"):
        read(tmp_path / "both.h5ad")
    assert any("pass slide_key='who'" in found.message for found in check(both))
    genes = Vocabulary(tuple(GENES))
    with pytest.raises(InputError, match="pass slide_key='who'"):
        AlignedSlide.of(both, genes, 15)
    slide = read(tmp_path / "both.h5ad", slide_key="who")
    assert len(np.unique(section_codes(slide))) == 2


def test_the_real_slides_are_one_slide_each(shared):
    paths = sorted((shared / "slides").glob("*.h5ad"))[::6]
    for path in paths:
        slide = ad.read_h5ad(path)
        slide.obs = pd.DataFrame(index=slide.obs_names)
        for name, values in labels(np.asarray(slide.obsm["spatial"], dtype=float)).items():
            slide.obs[name] = values
        assert find_slide_key(slide) is None, path.name
