"""Planted populations: the right spots, the right genes, and nothing else."""

import numpy as np
import pytest
from scipy import sparse

from sagefm import InputError
from sagefm.pp.plant import plant
from sagefm.pp.simulate import simulate


def depth(slide):
    return np.asarray(slide.X.sum(axis=1)).ravel()


def test_depth_and_the_other_spots_stay_as_they_were(slide):
    before = slide.copy()
    planted = plant(slide, 0.05, seed=4)
    chosen = planted.obs["planted"].to_numpy()
    assert chosen.sum() == 10
    np.testing.assert_array_equal(depth(planted), depth(slide))
    assert (planted.X[~chosen] != slide.X[~chosen]).nnz == 0
    assert (planted.X[chosen] != slide.X[chosen]).nnz > 0
    assert isinstance(planted.X, sparse.csr_matrix)
    assert planted.X.dtype == np.float32
    assert (slide.X != before.X).nnz == 0
    assert "planted" not in slide.obs
    assert "planted" not in slide.uns


def test_markers_are_raised_as_promised():
    slide = simulate(1500, seed=1)
    planted = plant(slide, 0.2, n_genes=30, fold=9, mixture=0.5, seed=2)
    chosen, made = planted.obs["planted"].to_numpy(), planted.uns["planted"]
    marker = planted.var_names.isin(made["genes"])
    mean = np.asarray(slide.X.mean(axis=0)).ravel()
    assert marker.sum() == 30
    assert mean[marker].min() >= 0.1
    assert mean[marker].max() <= 1
    more = (planted.X - slide.X)[chosen]
    # 0.5 × (9 - 1) times their share of the slide, less what was taken out again.
    added = 4 * mean[marker].sum() / mean.sum()
    share = np.asarray(slide.X[chosen][:, marker].sum(axis=1)).ravel() / depth(slide)[chosen]
    wanted = ((share + added) / (1 + added) - share) * depth(slide)[chosen]
    assert more[:, marker].sum() == pytest.approx(wanted.sum(), rel=0.06)
    assert more[:, ~marker].sum() == -more[:, marker].sum()


def test_a_nest_is_a_spot_and_those_nearest_and_scattered_spots_are_not(slide):
    nest = plant(slide, 0.05, scattered=False, seed=1)
    loose = plant(slide, 0.05, scattered=True, seed=1)
    spread = [np.ptp(s.obsm["spatial"][s.obs["planted"]], axis=0).max() for s in (nest, loose)]
    assert spread[0] <= 4 * 200  # pixels; ten spots of a hexagonal grid
    assert spread[1] > 2 * spread[0]


def test_the_seed_decides(slide):
    one, same, other = (plant(slide, 0.03, seed=seed) for seed in (5, 5, 6))
    assert (one.X != same.X).nnz == 0
    assert one.obs["planted"].equals(same.obs["planted"])
    assert (one.X != other.X).nnz > 0
    assert not one.obs["planted"].equals(other.obs["planted"])


def test_it_survives_a_file(slide, tmp_path):
    import anndata as ad

    planted = plant(slide)
    planted.write_h5ad(tmp_path / "p.h5ad")
    back = ad.read_h5ad(tmp_path / "p.h5ad")
    assert list(back.uns["planted"]["genes"]) == list(planted.uns["planted"]["genes"])
    assert back.obs["planted"].tolist() == planted.obs["planted"].tolist()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"share": 0.0}, "share=0.0: give a number above 0"),
        ({"share": 0.6}, "share=0.6"),
        ({"n_genes": 0}, "n_genes=0: give a number of 1 or more"),
        ({"n_genes": 5000}, r"n_genes=5000: only \d+ genes have 0.1 to 1 counts"),
        ({"fold": 1.0}, "fold=1.0: give a number above 1"),
        ({"fold": float("nan")}, "fold=nan"),
        ({"mixture": 1.5}, "mixture=1.5"),
    ],
)
def test_mistakes_are_named(slide, wrong, said):
    with pytest.raises(InputError, match=said):
        plant(slide, **wrong)
