"""Domains of the expression and of a second modality together."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix
from sklearn.metrics import adjusted_rand_score

import sagefm
from sagefm import InputError


def quarters(seed, side=12):
    """Four quarters: genes tell left from right, proteins top from bottom."""
    rng = np.random.default_rng(seed)
    row, column = np.divmod(np.arange(side**2), side)
    right, top = (2 * column >= side).astype(int), (2 * row >= side).astype(int)
    rates = np.tile(np.random.default_rng(0).gamma(2.0, 1.0, size=60), (2, 1))
    rates[1, :15] *= 2
    proteins = np.tile(np.random.default_rng(1).gamma(5.0, 10.0, size=10), (2, 1))
    proteins[1, :3] *= 2
    names = [f"spot{i}" for i in range(side**2)]
    return ad.AnnData(
        csr_matrix(rng.poisson(rates[right]).astype(np.float32)),
        obs=pd.DataFrame({"domain": [f"{a}{b}" for a, b in zip(right, top, strict=True)]}, names),
        var=pd.DataFrame(index=[f"gene{i}" for i in range(60)]),
        obsm={
            "spatial": np.c_[column, row] * 100.0,
            "protein": pd.DataFrame(
                rng.poisson(proteins[top]).astype(float), names, [f"P{i}" for i in range(10)]
            ),
        },
    )


@pytest.fixture(scope="module", autouse=True)
def few_starts():
    """Of each clustering: these quarters are easy."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sagefm.tl.clustering._search.N_STARTS", 9)
        patch.setattr("sagefm.tl.clustering._number._N_STARTS", 2)
        yield


@pytest.fixture(scope="module")
def both():
    slide = quarters(0)
    sagefm.tl.domains(slide, 4, with_="protein")
    return slide


def test_what_each_modality_tells_apart_is_joined(both):
    assert adjusted_rand_score(both.obs["domain"], both.obs["sagefm_domain"]) > 0.8


def test_the_modalities_stand_beside_each_other(both, tmp_path):
    table = both.uns["sagefm"]["domains"]["modalities"].set_index("modality")
    assert list(table.index) == ["expression", "protein", "both"]
    assert table.loc["both", "agreement"] == 1
    assert (table.loc[["expression", "protein"], "agreement"] < 0.8).all()
    assert table["stability"].between(-0.5, 1).all()
    assert table.loc["both", "stability"] > table.loc["expression", "stability"]
    both.write_h5ad(tmp_path / "s.h5ad")
    stored = ad.read_h5ad(tmp_path / "s.h5ad").uns["sagefm"]["domains"]
    assert stored["with"] == "protein"


def test_the_order_of_spots_and_features_changes_nothing(both):
    shuffled = np.random.default_rng(0).permutation(both.n_obs)
    other = quarters(0)[shuffled].copy()
    other.obsm["protein"] = other.obsm["protein"].iloc[:, ::-1]
    sagefm.tl.domains(other, 4, with_="protein")
    assert list(other.obs["sagefm_domain"]) == list(both.obs["sagefm_domain"].iloc[shuffled])
    tables = [slide.uns["sagefm"]["domains"]["modalities"] for slide in (both, other)]
    pd.testing.assert_frame_equal(*tables)


def test_several_slides_share_their_domains_whatever_was_measured():
    slides = {name: quarters(seed, 8) for name, seed in (("a", 1), ("b", 2))}
    slides["b"].obsm["protein"] = slides["b"].obsm["protein"].iloc[:, ::-1]
    slides["a"].obsm["protein"].iloc[::7] = np.nan
    sagefm.tl.domains(slides, 4, with_="protein", centered=False)
    truth = [label for slide in slides.values() for label in slide.obs["domain"]]
    found = [label for slide in slides.values() for label in slide.obs["sagefm_domain"]]
    assert adjusted_rand_score(truth, found) > 0.6


def test_a_slide_without_the_modality_is_named():
    slides = {"a": quarters(1), "b": quarters(2)}
    del slides["b"].obsm["protein"]
    with pytest.raises(InputError, match=r"^b: .*protein"):
        sagefm.tl.domains(slides, 4, with_="protein")


def test_a_single_view_takes_no_second_modality():
    with pytest.raises(InputError, match="X_sagefm_joint"):
        sagefm.tl.domains(quarters(0), 4, method="gmm", with_="protein")
