import numpy as np
import pytest
from scipy import sparse

from sagefm import InputError
from sagefm.evaluate.baselines.pca import joint_pca, pca, ring_means, variable_genes
from sagefm.pp import nearest, simulate


@pytest.fixture(scope="module")
def one():
    return simulate(150, seed=1)


@pytest.fixture(scope="module")
def other():
    return simulate(120, seed=2)


def same(a, b, atol=1e-3):
    """Equal up to the signs of components."""
    signs = np.sign((a * b).sum(axis=0))
    np.testing.assert_allclose(a, b * signs, atol=atol)


@pytest.mark.parametrize("smooth", [1, 7])
def test_what_one_slide_teaches_is_the_pca_of_that_slide(one, other, smooth):
    alone = pca(one, n_components=10, n_genes=400, smooth=smooth)
    z, projected = joint_pca(
        [one, other], [True, False], n_components=10, n_genes=400, smooth=smooth
    )
    same(z, alone)
    assert projected.shape == (120, 10)
    assert projected.dtype == np.float32


def test_the_same_spots_get_the_same_numbers_also_unlearned(one):
    z, again = joint_pca([one, one[40:90].copy()], [True, False], n_components=8)
    np.testing.assert_allclose(again, z[40:90], atol=1e-4)


def test_what_is_not_learned_from_changes_nothing(one, other):
    strange = other.copy()
    strange.X = sparse.csr_matrix(strange.X[:, ::-1] * 5)
    a, b = (joint_pca([one, x], [True, False], n_genes=300)[0] for x in (other, strange))
    np.testing.assert_array_equal(a, b)
    together = joint_pca([one, other], [True, True], n_genes=300)[0]
    assert not np.allclose(np.abs(together), np.abs(a), atol=0.1)


def test_it_is_scanpys_recipe(one):
    import anndata as ad
    import scanpy as sc

    work = ad.AnnData(one.X.copy())
    sc.pp.filter_genes(work, min_cells=1)
    sc.pp.normalize_total(work)
    sc.pp.log1p(work)
    sc.pp.highly_variable_genes(work, n_top_genes=200)
    work = work[:, work.var["highly_variable"]].copy()
    np.testing.assert_allclose(
        variable_genes([one], [True], 200)[0].toarray(), work.X.toarray(), rtol=1e-5
    )
    sc.pp.pca(work, n_comps=10, random_state=0)
    same(pca(one, n_components=10, n_genes=200), work.obsm["X_pca"])


def test_spots_are_averaged_within_their_slide(one, other):
    plain = variable_genes([one, other], [True, True], 100)
    wide = joint_pca([one, other], [True, True], n_genes=100, n_components=5, smooth=7)
    near = [nearest(s.obsm["spatial"], 7) for s in (one, other)]
    means = np.concatenate([p.toarray()[n].mean(1) for p, n in zip(plain, near, strict=True)])
    means -= means.mean(axis=0)
    exact = means @ np.linalg.svd(means, full_matrices=False)[2][:5].T
    same(np.concatenate(wide), exact)


def test_genes_are_those_of_all_slides_by_name(one, other):
    fewer = other[:, ::-2].copy()
    kept = one[:, one.var_names.isin(fewer.var_names)].copy()
    a, b = (joint_pca([x, fewer], [True, True], n_components=6) for x in (one, kept))
    np.testing.assert_allclose(a[0], b[0], atol=1e-5)
    np.testing.assert_allclose(a[1], b[1], atol=1e-5)


def test_spots_without_counts_are_zero(one, other):
    empty = other.copy()
    rows = empty.X.tolil()
    rows[3] = 0
    empty.X = rows.tocsr()
    first, second = variable_genes([one, empty], [True, True], 50)
    assert second[3].nnz == 0
    assert first.shape[1] == second.shape[1] == 50
    assert np.isfinite(np.concatenate(joint_pca([one, empty], [True, True]))).all()


def test_all_genes_are_kept_if_no_number_is_given(one):
    detected = one[:, one.X.getnnz(axis=0) > 0].copy()
    every, few = (pca(detected, n_components=5, n_genes=n, smooth=7) for n in (None, 100))
    same(every, pca(detected, n_components=5, n_genes=detected.n_vars, smooth=7), atol=1e-5)
    assert not np.allclose(np.abs(every), np.abs(few), atol=0.1)


def test_centered_slides_have_mean_zero_and_their_shift_is_lost(one):
    """The same tissue with one gene that the library of the second slide has doubled."""
    shifted = one.copy()
    boost = np.ones(one.n_vars)
    boost[np.asarray(one.X.sum(axis=0)).argmax()] = 8
    shifted.X = sparse.csr_matrix(one.X.multiply(boost))
    together = {
        center: joint_pca([one, shifted], [True, True], n_components=5, center=center, smooth=7)
        for center in (True, False)
    }
    for z in together[True]:
        np.testing.assert_allclose(z.mean(axis=0), 0, atol=1e-4)
    gap = {
        center: np.linalg.norm(a.mean(axis=0) - b.mean(axis=0))
        for center, (a, b) in together.items()
    }
    assert gap[False] > 1
    assert gap[True] < 1e-3


def test_rings_are_means_of_the_components_around_a_spot(one):
    [rings] = ring_means([one], [True])
    [own] = joint_pca([one], [True], n_genes=None)
    near = nearest(one.obsm["spatial"], 37)
    np.testing.assert_array_equal(rings[:, :50], own)
    for i, (start, stop) in enumerate(((1, 7), (7, 19), (19, 37)), start=1):
        wanted = own[near[:, start:stop]].mean(axis=1)
        np.testing.assert_allclose(rings[:, 50 * i : 50 * (i + 1)], wanted, atol=1e-5)


def test_expression_without_differences_has_no_components(one):
    few = one[:25].copy()
    with pytest.raises(InputError, match="the same in every spot"):
        pca(few, smooth=25)
    with pytest.raises(InputError, match=r"1 spots, .* need two each"):
        pca(one[:1].copy())


def test_slides_that_cannot_go_together_are_refused(one, other):
    strange = other.copy()
    strange.var_names = [f"X{i}" for i in range(strange.n_vars)]
    with pytest.raises(InputError, match="no gene that is measured in all of them"):
        joint_pca([one, strange], [True, True])
    with pytest.raises(InputError, match="is False for all slides"):
        joint_pca([one, other], [False, False])
