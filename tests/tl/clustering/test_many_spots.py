"""Domains of many spots, by way of a sample: the limit is lowered here, so that few are many."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix
from sklearn.metrics import adjusted_rand_score

import sagefm
from sagefm.stats import sampling
from sagefm.tl._large_tissue import LargeTissue
from sagefm.tl._large_views import LargeViews
from sagefm.tl._tissue import Tissue
from sagefm.tl._views import VIEWS, Views


def layered(seed, n_genes=120, shift=0.0):
    """Four layers of a grid of 16 × 24 spots, each with markers of its own."""
    rng = np.random.default_rng(seed)
    row, column = np.divmod(np.arange(384), 24)
    layer = column // 6
    profiles = np.tile(np.random.default_rng(0).gamma(2.0, 1.0, size=n_genes), (4, 1))
    for one in range(4):
        profiles[one, 15 * one : 15 * one + 15] *= 2.5
    depth = rng.lognormal(0, 0.3, size=384)
    rates = depth[:, None] * profiles[layer] * np.exp(shift * rng.normal(size=n_genes))
    embedding = np.eye(4)[layer] * 3 + rng.normal(size=(384, 4)) * 0.4
    return ad.AnnData(
        csr_matrix(rng.poisson(rates).astype(np.float32)),
        obs=pd.DataFrame({"layer": layer.astype(str)}, index=[f"spot{i}" for i in range(384)]),
        var=pd.DataFrame(index=[f"gene{i:03}" for i in range(n_genes)]),
        obsm={"spatial": np.c_[column, row] * 100.0, "X_sagefm": embedding.astype(np.float32)},
    )


@pytest.fixture(scope="module")
def slide():
    return layered(0)


@pytest.fixture
def many(monkeypatch):
    monkeypatch.setattr(sampling, "MANY", 100)
    monkeypatch.setattr("sagefm.stats.mixture._SAMPLE", 200)
    monkeypatch.setattr("sagefm.tl.clustering._methods._SAMPLE", 200)
    monkeypatch.setattr("sagefm.tl._spot_counts._BLOCK", 50)
    monkeypatch.setattr("sagefm.tl._large_views._MOST_CENTERS", 150)
    monkeypatch.setattr("sagefm.tl._large_views._CENTERS", 40)
    monkeypatch.setattr("sagefm.tl.clustering._consensus.N_STARTS", 5)


def agreement(one, other):
    return adjusted_rand_score(np.asarray(one, dtype=str), np.asarray(other, dtype=str))


@pytest.mark.parametrize("method", ["consensus", "pca15", "gmm", "kmeans", "leiden"])
def test_domains_by_way_of_a_sample_are_those_of_all_spots(slide, many, method):
    if method == "leiden":
        pytest.importorskip("igraph")
    found = slide.copy()
    sagefm.tl.domains(found, 4, method=method)
    assert found.obs["sagefm_domain"].nunique() == 4
    assert agreement(found.obs["sagefm_domain"], slide.obs["layer"]) > 0.9


@pytest.mark.parametrize("method", ["consensus", "gmm", "kmeans", "leiden"])
def test_the_order_of_many_spots_and_genes_changes_nothing(slide, many, method):
    if method == "leiden":
        pytest.importorskip("igraph")
    rng = np.random.default_rng(1)
    one, other = slide.copy(), slide[rng.permutation(384)][:, rng.permutation(120)].copy()
    for each in (one, other):
        sagefm.tl.domains(each, 4, method=method)
    columns = [name for name in one.obs if name.startswith("sagefm")]
    pd.testing.assert_frame_equal(other.obs.loc[one.obs_names, columns], one.obs[columns])


def test_several_slides_are_joined_and_their_batches_compared(many):
    slides = {"a": layered(1, shift=0.3), "b": layered(2, 110, shift=0.3)[:, ::-1].copy()}
    sagefm.tl.domains(slides, 4)
    settings = slides["a"].uns["sagefm"]["domains"]
    assert settings["centered"]
    assert settings["stability"]["n_domains"].tolist() == [4]
    found, truth = (
        np.concatenate([one.obs[key].astype(str) for one in slides.values()])
        for key in ("sagefm_domain", "layer")
    )
    assert agreement(found, truth) > 0.85


@pytest.mark.parametrize("name", VIEWS)
def test_views_of_many_spots_span_those_of_few(slide, many, monkeypatch, name):
    monkeypatch.setattr("sagefm.tl._large_views._MOST_CENTERS", 384)
    monkeypatch.setattr("sagefm.tl._large_views._N_AXES", 100)
    none = np.zeros(384, dtype=np.int64)
    small, large = Tissue.of([slide], none), LargeTissue.of([slide], none)
    few = Views(small, centered=False)(name)[np.argsort(small.order)][:, :3]
    found = LargeViews(large, centered=False)(name)[np.argsort(large.order)][:, :3]
    few, found = (np.linalg.qr(one - one.mean(axis=0))[0] for one in (few, found))
    assert np.linalg.svd(few.T @ found, compute_uv=False).min() > 0.99


def test_a_part_has_the_surroundings_that_its_spots_need(slide):
    tissue = LargeTissue.of([slide], np.zeros(384, dtype=np.int64))
    spots = np.array([7, 100, 380])
    part, at = tissue.around(spots)
    assert len(part) < 250
    np.testing.assert_array_equal(part.order[at], tissue.order[spots])
    near = part.order[part.neighbors[at, :25]]
    np.testing.assert_array_equal(near, tissue.order[tissue.neighbors[spots, :25]])
    counts = part.counts.take(part.rows[at]).toarray()
    np.testing.assert_array_equal(counts, slide.X[tissue.order[spots]].toarray())


def test_counts_are_read_in_blocks_without_a_copy(slide, many):
    tissue = LargeTissue.of([slide], np.zeros(384, dtype=np.int64))
    assert np.shares_memory(tissue.counts.sources[0].data, slide.X.data)
    seen = np.concatenate([at for at, _ in tissue.blocks()])
    np.testing.assert_array_equal(np.sort(seen), np.arange(384))
    for at, counts in tissue.blocks():
        assert counts.shape[0] <= 50
        np.testing.assert_array_equal(counts.toarray(), slide.X[tissue.order[at]].toarray())


def test_counts_on_disk_give_the_same_domains(slide, many, tmp_path, monkeypatch):
    monkeypatch.setattr("sagefm.pp.on_disk.BLOCK", 2000)
    slide.write_h5ad(tmp_path / "s.h5ad")
    other = layered(1)[:, 5:].copy()
    other.write_h5ad(tmp_path / "other.h5ad")
    for n_slides in (1, 2):
        labels = []
        for backed in (True, False):
            slides = [sagefm.read(tmp_path / f"{n}.h5ad", backed=backed) for n in ("s", "other")]
            sagefm.tl.domains(slides[:n_slides], 4)
            labels.append([slide.obs["sagefm_domain"].tolist() for slide in slides[:n_slides]])
            assert all((slide.X is None) == backed for slide in slides)
        assert labels[0] == labels[1]
