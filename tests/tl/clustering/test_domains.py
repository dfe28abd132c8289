import logging
import random

import anndata as ad
import igraph
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import special_ortho_group
from sklearn.metrics import adjusted_rand_score

import sagefm
from sagefm import InputError
from sagefm.pp import nearest

METHODS = ("gmm", "kmeans", "leiden")


def assert_same(one, other):
    pd.testing.assert_frame_equal(one.obs, other.obs)
    pd.testing.assert_frame_equal(one.var, other.var)
    for slot in ("obsm", "layers", "uns"):
        assert list(getattr(one, slot)) == list(getattr(other, slot))
    for key in one.obsm:
        assert np.array_equal(one.obsm[key], other.obsm[key])


def hexagons(rows, columns):
    row, column = np.divmod(np.arange(rows * columns), columns)
    return np.c_[column + 0.5 * (row % 2), row * np.sqrt(0.75)] * 100


def a_slide(embedding, key="X_sagefm"):
    """Twelve rows of spots, left to right and top to bottom."""
    slide = ad.AnnData(
        obs=pd.DataFrame(index=[f"spot{i}" for i in range(len(embedding))]),
        obsm={"spatial": hexagons(12, len(embedding) // 12), key: embedding},
    )
    return slide


def blobs(sizes, seed=0):
    """Well separated groups of spots, and which spot is in which."""
    truth = np.repeat(np.arange(len(sizes)), sizes)
    noise = np.random.default_rng(seed).normal(size=(len(truth), 8))
    return (20 * np.eye(len(sizes), 8)[truth] + noise).astype(np.float32), truth


@pytest.fixture
def noise():
    return a_slide(np.random.default_rng(0).normal(size=(144, 30)).astype(np.float32))


@pytest.fixture
def told(caplog):
    """What the logger of sagefm says, whether or not it hands it on."""
    logger = logging.getLogger("sagefm")
    logger.addHandler(caplog.handler)
    with caplog.at_level(logging.WARNING, "sagefm"):
        yield caplog
    logger.removeHandler(caplog.handler)


@pytest.mark.parametrize("method", ["gmm", "kmeans"])
@pytest.mark.parametrize("n_domains", [1, 2, 7, 13])
def test_exactly_as_many_as_asked_for_by_falling_size(noise, told, method, n_domains):
    sagefm.tl.domains(noise, n_domains, method=method)
    found = noise.obs["sagefm_domain"]
    assert list(found.cat.categories) == [str(i) for i in range(1, n_domains + 1)]
    sizes = found.value_counts(sort=False).to_numpy()
    assert sizes.min() >= 1
    assert (np.diff(sizes) <= 0).all()
    assert not told.records


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("sizes", [[100, 44], [40, 24, 60, 20], [18, 24, 30, 20, 28, 24]])
def test_separate_groups_are_found(told, method, sizes):
    embedding, truth = blobs(sizes)
    slide = a_slide(embedding)
    sagefm.tl.domains(slide, len(sizes), method=method)
    found = slide.obs["sagefm_domain"]
    assert adjusted_rand_score(truth, found) == 1
    assert found.value_counts(sort=False).tolist() == sorted(sizes, reverse=True)
    assert not told.records


@pytest.mark.parametrize("n_domains", [4, 12, 30])
def test_leiden_finds_a_resolution_for_few_and_for_many(noise, told, n_domains):
    sagefm.tl.domains(noise, n_domains, method="leiden")
    assert noise.obs["sagefm_domain"].nunique() == n_domains
    assert not told.records


@pytest.mark.parametrize("n_domains", [1, 3])
def test_leiden_tells_the_nearest_number_where_none_fits(told, n_domains):
    embedding, truth = blobs([30, 30, 30, 30, 24])
    slide = a_slide(embedding)
    sagefm.tl.domains(slide, n_domains, method="leiden")
    assert adjusted_rand_score(truth, slide.obs["sagefm_domain"]) == 1  # no community spans two
    (message,) = set(told.messages)
    assert f"{n_domains} domains requested, 5 found by leiden" in message
    assert "choose another method" in message


@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_gives_the_same_domains_whatever_else_is_random(noise, method):
    results = []
    for state in (1, 2):
        random.seed(state)
        np.random.seed(state)  # noqa: NPY002
        sagefm.tl.domains(noise, 6, method=method, seed=3)
        results.append(noise.obs["sagefm_domain"].tolist())
    assert results[0] == results[1]


@pytest.mark.parametrize("method", METHODS)
def test_the_seed_has_a_say(noise, method):
    results = set()
    for seed in range(4):
        sagefm.tl.domains(noise, 6, method=method, seed=seed)
        results.add(tuple(noise.obs["sagefm_domain"]))
    assert len(results) > 1


@pytest.mark.parametrize("method", METHODS)
def test_global_random_state_stays_as_it_was(noise, method):
    def of_igraph():
        random.seed(7)
        return igraph.Graph.Erdos_Renyi(20, 0.3).get_edgelist()

    drawn = of_igraph()
    before = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    sagefm.tl.domains(noise, 4, method=method)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before  # noqa: NPY002
    assert of_igraph() == drawn


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.floats(1e-3, 1e3), method=st.sampled_from(METHODS))
def test_turning_scaling_and_shuffling_change_nothing(seed, scale, method):
    embedding, truth = blobs([60, 48, 36])
    rng = np.random.default_rng(seed)
    turned = scale * (embedding @ special_ortho_group.rvs(8, random_state=rng))
    order = rng.permutation(144)
    slide = a_slide((turned + scale * rng.normal(scale=50, size=8))[order])
    sagefm.tl.domains(slide, 3, method=method)
    assert adjusted_rand_score(truth[order], slide.obs["sagefm_domain"]) == 1


@pytest.mark.parametrize(("n_components", "all_four"), [(1, False), (2, True)])
def test_only_leading_components_count(n_components, all_four):
    rng = np.random.default_rng(1)
    big, small = rng.integers(2, size=(2, 144))
    slide = a_slide(np.c_[20 * big, 10 * small, small] + rng.normal(size=(144, 3)))
    sagefm.tl.domains(slide, 4, method="kmeans", n_components=n_components)
    agreement = adjusted_rand_score(2 * big + small, slide.obs["sagefm_domain"])
    assert (agreement == 1) == all_four
    assert slide.uns["sagefm"]["domains"]["n_components"] == n_components


def speckled():
    """A slide of two halves, of which a seventh of the spots look like the other half."""
    halves = (np.arange(288) % 24 >= 12).astype(int)
    wrong = np.random.default_rng(0).random(288) < 1 / 7
    return a_slide(blobs([1, 1])[0][halves ^ wrong]), halves


def share_of_like_neighbors(slide):
    found = slide.obs["sagefm_domain"].to_numpy()
    near = nearest(slide.obsm["spatial"], 7)
    return (found[near[:, 1:]] == found[:, None]).mean()


@pytest.mark.parametrize("method", ["gmm", "kmeans"])
def test_smoothing_removes_speckles(method):
    slide, halves = speckled()
    slide.obsm["X_sagefm"] = slide.obsm["X_sagefm"] + np.random.default_rng(1).normal(size=(288, 8))
    likeness, agreement = [], []
    for smooth in (0, 1, 3):
        sagefm.tl.domains(slide, 2, method=method, smooth=smooth)
        likeness.append(share_of_like_neighbors(slide))
        agreement.append(adjusted_rand_score(halves, slide.obs["sagefm_domain"]))
        assert set(slide.obs["sagefm_domain"]) == {"1", "2"}
    assert likeness[0] < 0.8
    assert likeness[1] > likeness[0] + 0.1
    assert likeness[2] >= likeness[1]
    assert agreement[0] < 0.6
    assert min(agreement[1:]) > 0.8


def test_smoothing_never_gives_a_label_that_no_neighbor_had(noise):
    sagefm.tl.domains(noise, 5, method="kmeans")
    before = noise.obs["sagefm_domain"].to_numpy(dtype=str)
    sagefm.tl.domains(noise, 5, method="kmeans", smooth=1, key_added="smooth")
    after = noise.obs["smooth"]
    # Sizes decide the names: give the smooth domains the names that they had.
    near = nearest(noise.obsm["spatial"], 7)
    old = {new: pd.Series(before[near[after == new]].ravel()).mode()[0] for new in set(after)}
    assert len(set(old.values())) == len(old)
    seen = [old[label] in before[row] for label, row in zip(after, near, strict=True)]
    assert all(seen)


def test_a_tie_leaves_a_spot_its_own_domain():
    """Seven spots see each other: three, three and one. Only the single one changes."""
    embedding, truth = blobs([3, 3, 1])
    slide = ad.AnnData(obsm={"X_sagefm": embedding, "spatial": hexagons(1, 7)})
    sagefm.tl.domains(slide, 3, method="kmeans", smooth=1)
    assert adjusted_rand_score(truth[:6], slide.obs["sagefm_domain"][:6]) == 1
    assert slide.obs["sagefm_domain"].nunique() == 2


def test_a_domain_that_smoothing_swallows_is_told(told):
    embedding, _ = blobs([72, 71, 1])
    slide = a_slide(embedding)
    sagefm.tl.domains(slide, 3, method="kmeans", smooth=1)
    assert list(slide.obs["sagefm_domain"].cat.categories) == ["1", "2"]
    assert "3 domains requested, 2 found by kmeans and 1 rounds of smoothing" in told.text


def test_smoothing_does_not_cross_slides():
    """Spots of two slides lie on the same places, row by row: each only counts its own."""
    embedding, truth = blobs([60, 84])
    slide = a_slide(embedding)
    one, other = hexagons(6, 10), hexagons(7, 12)
    slide.obsm["spatial"] = np.r_[one, other]
    slide.obs["section"] = np.where(truth == 0, "left", "right")
    with pytest.raises(InputError, match="pass slide_key='section'"):
        sagefm.tl.domains(slide, 2, smooth=2, method="gmm")
    assert "sagefm_domain" not in slide.obs
    sagefm.tl.domains(slide, 2, smooth=2, slide_key="section", method="gmm")
    assert adjusted_rand_score(truth, slide.obs["sagefm_domain"]) == 1


def test_leaves_the_rest_alone_and_says_what_it_did(noise):
    before = noise.copy()
    noise.uns["sagefm"] = {"embed": {"key": "X_sagefm"}}
    sagefm.tl.domains(noise, 3, method="kmeans", smooth=2, seed=5, key_added="mine")
    told = noise.uns.pop("sagefm")
    assert told.pop("embed") == {"key": "X_sagefm"}
    assert told == {
        "domains": {
            "key": "mine",
            "n_domains": 3,
            "method": "kmeans",
            "use_rep": "X_sagefm",
            "n_components": 20,
            "smooth": 2,
            "n_sections": 1,
            "seed": 5,
            "sagefm": sagefm.__version__,
        }
    }
    assert list(noise.obs) == ["mine"]
    del noise.obs["mine"]
    assert_same(noise, before)


def test_a_file_keeps_domains_in_order_and_provenance(noise, tmp_path):
    sagefm.tl.domains(noise, 11, method="kmeans")
    noise.write_h5ad(tmp_path / "slide.h5ad")
    again = ad.read_h5ad(tmp_path / "slide.h5ad")
    assert list(again.obs["sagefm_domain"].cat.categories) == [str(i) for i in range(1, 12)]
    pd.testing.assert_series_equal(again.obs["sagefm_domain"], noise.obs["sagefm_domain"])
    assert again.uns["sagefm"]["domains"] == noise.uns["sagefm"]["domains"]


def test_any_embedding_can_be_clustered():
    embedding, truth = blobs([72, 72])
    slide = a_slide(embedding, key="X_pca")
    sagefm.tl.domains(slide, 2, use_rep="X_pca", method="gmm")
    assert adjusted_rand_score(truth, slide.obs["sagefm_domain"]) == 1
    assert slide.uns["sagefm"]["domains"]["n_components"] == 8


def with_value(value):
    def spoil(slide):
        slide.obsm["X_sagefm"][5, 2] = value

    return spoil


def constant(slide):
    slide.obsm["X_sagefm"][:] = 1


@pytest.mark.parametrize(
    ("spoil", "wanted", "message"),
    [
        (lambda slide: slide.obsm.pop("X_sagefm"), {}, "has spatial; run sagefm.tl.embed first"),
        (None, {"use_rep": "X_pca"}, "'X_pca'.*which has spatial, X_sagefm; choose one"),
        (None, {"method": "louvain"}, "choose one of consensus, gmm, kmeans, leiden, pca7"),
        (None, {"n_domains": 145}, "the slide has 144 spots; request 1 to 144"),
        (None, {"n_domains": 0}, "request 1 to 144"),
        (None, {"n_domains": None}, "give n_domains; only the consensus chooses it"),
        (None, {"method": "consensus"}, "give a slide with raw counts"),
        (with_value(np.nan), {}, "NaN or infinite.*embed the slide again"),
        (with_value(np.inf), {}, "NaN or infinite.*embed the slide again"),
        (constant, {}, "same in every spot; choose another"),
        (lambda slide: slide.obsm.pop("spatial"), {"smooth": 1}, "put x and y of each spot"),
    ],
)
def test_what_cannot_be_clustered_is_refused_with_the_remedy(noise, spoil, wanted, message):
    if spoil:
        spoil(noise)
    with pytest.raises(InputError, match=message) as raised:
        sagefm.tl.domains(noise, **{"n_domains": 7, "method": "gmm"} | wanted)
    assert "\n" not in str(raised.value)
    assert "sagefm_domain" not in noise.obs
    assert "sagefm" not in noise.uns


@pytest.mark.parametrize("option", [{"smooth": -1}, {"n_components": 0}])
def test_numbers_out_of_range_are_refused(option):
    slide = sagefm.pp.simulate(60, seed=1)
    slide.obsm["X_sagefm"] = slide.obsm["spatial"]
    (name,) = option
    with pytest.raises(InputError, match=f"{name}=.*whole number"):
        sagefm.tl.domains(slide, 3, **option, method="gmm")


@pytest.mark.parametrize("n_domains", [1, 3, 6, 9])
def test_leiden_of_many_spots_finds_the_number_too(noise, told, monkeypatch, n_domains):
    monkeypatch.setattr("sagefm.stats.sampling.MANY", 100)
    sagefm.tl.domains(noise, n_domains, method="leiden")
    assert noise.obs["sagefm_domain"].nunique() == n_domains
    assert not told.records
