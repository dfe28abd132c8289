import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from sagefm import InputError
from sagefm.evaluate import pca
from sagefm.pp import nearest, simulate


@pytest.fixture(scope="module")
def original():
    return simulate(201, seed=1)


@pytest.fixture
def slide(original):
    return original.copy()


def coherence(slide, z):
    """One less the distance to the first ring, in units of the distance to any spot."""
    near = nearest(slide.obsm["spatial"], 7)[:, 1:]
    shuffled = np.random.default_rng(0).permutation(len(z))
    to_ring = np.linalg.norm(z[near] - z[:, None], axis=2).mean()
    return 1 - to_ring / np.linalg.norm(z[shuffled] - z, axis=1).mean()


def test_spots_by_components(slide):
    z = pca(slide)
    assert isinstance(z, np.ndarray)
    assert z.dtype == np.float32
    assert z.shape == (201, 50)
    spread = z.std(axis=0)
    assert (np.diff(spread) <= 1e-4).all()  # leading components first
    assert spread[0] > 1.2 * spread[10]
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=1e-3)


@pytest.mark.parametrize("smooth", [1, 7])
def test_deterministic_and_leaves_the_slide_alone(slide, original, smooth):
    np.random.seed(1)  # noqa: NPY002
    first = pca(slide, smooth=smooth)
    np.random.seed(2)  # noqa: NPY002
    assert np.array_equal(pca(slide, smooth=smooth), first)
    assert (slide.X != original.X).nnz == 0
    pd.testing.assert_frame_equal(slide.obs, original.obs)
    pd.testing.assert_frame_equal(slide.var, original.var)
    for slot in ("obsm", "varm", "layers", "uns"):
        assert list(getattr(slide, slot)) == list(getattr(original, slot))


def test_smoothing_makes_neighbors_alike(slide):
    plain, ring, two_rings = (coherence(slide, pca(slide, smooth=n)) for n in (1, 7, 19))
    assert ring > plain + 0.2
    assert two_rings > ring


def test_components_and_genes_are_limited(slide):
    assert pca(slide, n_components=7).shape == (201, 7)
    assert pca(slide[:40].copy()).shape == (40, 39)
    assert pca(slide, n_genes=30).shape == (201, 29)


def test_only_the_most_variable_genes_count(slide):
    """Ten genes tell two halves apart, among genes of the same mean."""
    rng = np.random.default_rng(0)
    half = np.arange(201) % 2
    mean = np.tile(rng.lognormal(1.5, 0.5, 300), (201, 1))
    mean[:, :10] *= np.where(half, 1.8, 0.2)[:, None]
    halves = ad.AnnData(sparse.csr_matrix(rng.poisson(mean).astype(np.float32)))
    every, few = (pca(halves, n_components=5, n_genes=n) for n in (300, 10))
    share = [z[:, 0].var() / z.var(axis=0).sum() for z in (every, few)]
    assert share[1] > share[0]
    assert abs(np.corrcoef(few[:, 0], half)[0, 1]) > 0.95


def test_depth_of_a_spot_does_not_matter(slide):
    depth = slide.X.sum(axis=1).A1
    deep = int(depth.argmax())  # the median stays what it is
    times = np.ones(201, dtype=np.float32)
    times[deep] = 3
    before = pca(slide, n_components=10)
    slide.X = sparse.csr_matrix(slide.X.multiply(times[:, None]))
    np.testing.assert_allclose(np.abs(pca(slide, n_components=10)), np.abs(before), atol=2e-3)


@pytest.mark.parametrize(("place", "layer"), [("counts", None), ("umi", "umi")])
def test_counts_from_a_layer(slide, place, layer):
    wanted = pca(slide, n_components=10)
    slide.layers[place] = slide.X.copy()
    slide.X = slide.X.log1p()
    assert np.array_equal(pca(slide, n_components=10, layer=layer), wanted)


def test_neighbors_are_of_the_same_slide(slide):
    slide.obs["slide"] = np.repeat(["a", "b"], [100, 101])
    slide.obsm["spatial"] += np.random.default_rng(0).uniform(-9, 9, (201, 2))  # no ties
    with pytest.raises(InputError, match="pass slide_key='slide'"):
        pca(slide, smooth=7)
    together = pca(slide, smooth=7, slide_key="slide", n_components=10)
    slide.obsm["spatial"][100:] += 1_000_000
    apart = pca(slide, smooth=7, slide_key="slide", n_components=10)
    np.testing.assert_allclose(together, apart, atol=1e-4)


def test_spots_without_counts_get_finite_numbers(slide):
    empty = slide.X.tolil()
    empty[3] = 0
    slide.X = empty.tocsr()
    assert np.isfinite(pca(slide, smooth=7)).all()


def test_what_cannot_be_done_is_refused(slide):
    with pytest.raises(InputError, match="has 201 spots, but a neighborhood needs 202"):
        pca(slide, smooth=202)
    bare = slide.copy()
    del bare.obsm["spatial"]
    assert pca(bare).shape == (201, 50)  # plain PCA needs no coordinates
    with pytest.raises(InputError, match="put x and y of each spot"):
        pca(bare, smooth=7)
    slide.X = slide.X.log1p()
    with pytest.raises(InputError, match="not raw counts"):
        pca(slide)
