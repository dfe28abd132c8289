"""Rare populations, planted and not, and the score against plain loops."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm, rankdata, wilcoxon

import sagefm
from sagefm import InputError, SageFM
from sagefm.model import Config
from sagefm.pp.plant import plant
from sagefm.pp.simulate import simulate
from sagefm.pp.vocabulary import Vocabulary
from sagefm.tl.rarity import _score as _rare_score
from sagefm.tl.rarity._counts import Expected, count, expect


@pytest.fixture(scope="module")
def whole():
    """A slide of a biology that the score was not chosen on."""
    return simulate(400, seed=100_009, biology_seed=100)


@pytest.fixture(scope="module")
def untrained(whole):
    return SageFM.new(Vocabulary(tuple(whole.var_names)), Config(widths=(16,) * 5), seed=2)


@pytest.fixture(scope="module")
def planted(whole):
    return plant(whole, 0.02, fold=15, seed=1)


@pytest.fixture(scope="module")
def found(planted):
    held = planted.copy()
    return held, sagefm.tl.rare(held)


def recall(slide):
    """Share of the planted spots among the top 2 %."""
    score, truth = slide.obs["sagefm_rare_score"].to_numpy(), slide.obs["planted"].to_numpy()
    return truth[np.argsort(-score)[: round(0.02 * len(score))]].sum() / truth.sum()


@pytest.mark.parametrize("scattered", [True, False])
def test_a_planted_population_of_one_percent_is_found(scattered):
    slide = plant(simulate(1000, seed=100_004, biology_seed=100), 0.01, scattered=scattered, seed=1)
    spots, genes = sagefm.tl.rare(slide)
    assert recall(slide) >= 0.8
    first = spots[spots["population"] == "1"]
    assert slide.obs.loc[first.index, "planted"].mean() >= 0.8
    top = genes.loc[genes["population"] == "1", "gene"].head(15)
    assert top.isin(slide.uns["planted"]["genes"]).mean() >= 0.8


@pytest.mark.parametrize("biology", [100, 101, 102])
def test_nothing_planted_is_not_reported(biology):
    slide = simulate(400, seed=7 + biology, biology_seed=biology)
    spots, genes = sagefm.tl.rare(slide)
    assert len(spots) == 8
    assert set(spots["population"]) == {"-"}
    assert set(genes["population"]) == {"listed"}
    assert slide.uns["sagefm"]["rare"]["n_beyond_noise"] == 0


def test_depth_alone_makes_no_spot_rare(whole):
    """An eighth of the spots keeps a fifth of its counts: listed as often as the others."""
    slide, chance = whole.copy(), np.random.default_rng(1)
    thin = chance.permutation(slide.n_obs) < 50
    rows = np.repeat(thin, np.diff(slide.X.indptr))
    slide.X.data[rows] = chance.binomial(slide.X.data[rows].astype(int), 0.2)
    slide.X.eliminate_zeros()
    spots, _ = sagefm.tl.rare(slide, share=0.1)
    score = slide.obs["sagefm_rare_score"]
    assert 1 <= thin[slide.obs_names.get_indexer(spots.index)].sum() <= 11  # 5 by chance
    assert abs(score[thin].mean() - score[~thin].mean()) < 0.5
    assert slide.uns["sagefm"]["rare"]["n_beyond_noise"] == 0


def test_two_populations_are_told_apart(whole):
    one = plant(whole, 0.02, fold=20, seed=1)
    both = plant(one, 0.02, fold=20, seed=2)
    first = one.obs["planted"].to_numpy() & ~both.obs["planted"].to_numpy()
    second = both.obs["planted"].to_numpy() & ~one.obs["planted"].to_numpy()
    spots, _ = sagefm.tl.rare(both, share=0.04)
    kinds = both.obs["sagefm_rare"]
    assert {"1", "2"} <= set(spots["population"])
    for truth, other in ((first, second), (second, first)):
        most = kinds[truth].value_counts().idxmax()
        assert (kinds[truth] == most).sum() >= 6
        assert (kinds[other] == most).sum() <= 1


def likeness(residuals):
    """Do what `_likeness` does, one spot at a time."""
    shared, widespread, alike = [], [], []
    for i, own in enumerate(residuals):
        products = residuals @ own
        products[i] = -np.inf
        near = np.argsort(-products)[:5]
        profile = residuals[near].mean(axis=0)
        profile[np.argsort(-profile)[30:]] = 0
        profile = np.maximum(profile, 0)
        profile /= np.linalg.norm(profile)
        projected = residuals @ profile
        shared.append(projected[i])
        widespread.append(np.sort(projected)[int(0.95 * (len(residuals) - 1))])
        alike.append(sorted(near))
    return shared, widespread, alike


def test_likeness_is_that_of_a_plain_loop(monkeypatch):
    residuals = np.random.default_rng(0).normal(size=(90, 70)).astype(np.float32)
    monkeypatch.setattr(_rare_score, "_BLOCK", 32)
    shared, widespread, alike = _rare_score._compare(residuals)
    wanted = likeness(residuals.astype(np.float64))
    np.testing.assert_allclose(shared, wanted[0], atol=1e-4)
    np.testing.assert_allclose(widespread, wanted[1], atol=1e-4)
    np.testing.assert_array_equal(np.sort(alike, axis=1), wanted[2])


def test_false_discovery_rate():
    noise = np.zeros(12)
    noise[:3] = 4.0, 2.5, 2.5
    q = _rare_score._false_discovery(np.array([1.0, 5.0, 3.0, 2.0]), noise)
    # Three draws: a third of (scores of noise as high, and one), over the spots as high or higher.
    own = {5.0: 1 / 3 / 1, 3.0: 2 / 3 / 2, 2.0: 4 / 3 / 3, 1.0: 4 / 3 / 4}
    wanted = [min(share for other, share in own.items() if other <= s) for s in (1, 5, 3, 2)]
    assert q == pytest.approx(wanted)
    assert q[2] == pytest.approx(1 / 3)
    assert (_rare_score._false_discovery(np.zeros(4), noise) == 1).all()


def test_groups_are_chains_of_chosen_spots():
    alike = np.array([[1], [0], [1], [4], [3], [6], [7], [8], [8]])
    chosen = np.array([1, 1, 1, 1, 1, 1, 1, 1, 1], dtype=bool)
    assert _rare_score.group(chosen, alike).tolist() == [2, 2, 2, 0, 0, 1, 1, 1, 1]
    chosen[1] = False
    assert _rare_score.group(chosen, alike).tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 1]
    assert not _rare_score.group(np.zeros(9, dtype=bool), alike).any()


def test_what_is_expected_has_the_depth_of_spots_and_genes(whole, untrained):
    for model in (None, untrained):
        counted = count(whole, model, None, None)
        seen = expect(counted, np.arange(whole.n_obs), np.random.default_rng(0))
        np.testing.assert_allclose(seen.rates.sum(axis=0), seen.counts.sum(axis=0), rtol=1e-3)
        np.testing.assert_allclose(seen.rates.sum(axis=1), seen.library_size, rtol=0.05)
        assert (seen.counts > 0).sum(axis=0).min() >= 10


def test_a_gene_is_expected_where_the_model_does_not_see_it(whole, untrained):
    counted = count(whole, untrained, None, None)
    seen = expect(counted, np.arange(whole.n_obs), np.random.default_rng(6))
    kept = np.flatnonzero(np.asarray((whole.X > 0).sum(axis=0)).ravel() >= 10)
    counts = whole.X[:, kept].toarray()
    np.testing.assert_array_equal(seen.counts, counts)
    rates = np.empty(counts.shape)
    for part in np.array_split(np.random.default_rng(6).permutation(len(kept)), 10):
        hidden = np.zeros((whole.n_obs, whole.n_vars), dtype=bool)
        hidden[:, kept[part]] = True
        genes = [whole.var_names[i] for i in kept[part]]
        rates[:, part] = np.expm1(untrained.predict(whole, hidden=hidden, genes=genes))
    rates += 0.05 * counts.mean(axis=0)
    for _ in range(2):
        rates *= counts.sum(axis=0) / rates.sum(axis=0)
        wanted, rates = rates, rates * (counts.sum(axis=1) / rates.sum(axis=1))[:, None]
    np.testing.assert_allclose(seen.rates, wanted, rtol=2e-3, atol=1e-5)


def test_with_a_model_only_its_genes_count(planted, model):
    held = planted.copy()
    spots, genes = sagefm.tl.rare(held, model)
    assert set(genes["gene"]) <= set(model.vocabulary)
    known = [gene for gene in model.vocabulary if gene in planted.var_names]
    depth = np.asarray(planted[spots.index, known].X.sum(axis=1)).ravel()
    np.testing.assert_allclose(spots["depth"], depth)
    assert held.uns["sagefm"]["rare"]["fingerprint"] == model.fingerprint


def test_noise_has_the_variance_of_the_counts():
    chance = np.random.default_rng(0)
    rates = np.full((4000, 3), (0.5, 5.0, 40.0), dtype=np.float32)
    dispersion = np.array([0.1, 0.3, 0.05], dtype=np.float32)
    residuals = Expected(rates, rates, dispersion).of_noise(chance)
    np.testing.assert_allclose(residuals.mean(axis=0), 0, atol=0.06)
    np.testing.assert_allclose(residuals.var(axis=0), 1, atol=0.1)


def test_tables_and_slots(found, planted):
    held, (spots, genes) = found
    assert len(spots) == 8
    assert spots["score"].is_monotonic_decreasing
    assert spots["q"].is_monotonic_increasing
    assert (spots["beyond_noise"] == (spots["q"] <= 0.1)).all()
    score = held.obs["sagefm_rare_score"]
    assert spots["score"].tolist() == score[spots.index].tolist()
    assert score.nlargest(8).index.equals(spots.index)
    assert held.obs["sagefm_rare"].notna().sum() == 8
    assert (held.obs["sagefm_rare"][spots.index] == spots["population"]).all()
    depth = np.asarray(planted.X.sum(axis=1)).ravel()
    rows = planted.obs_names.get_indexer(spots.index)
    np.testing.assert_allclose(spots["depth"], depth[rows])
    assert (spots["domain"] == planted.obs["domain"].astype(str)[spots.index]).all()
    made = held.uns["sagefm"]["rare"]
    assert made["n_beyond_noise"] >= spots["beyond_noise"].sum() >= 6
    pd.testing.assert_frame_equal(made["spots"], spots)
    pd.testing.assert_frame_equal(made["genes"], genes)
    assert (held.X != planted.X).nnz == 0


def test_genes_are_compared_with_others_and_with_neighbors(found, planted):
    held, (_, genes) = found
    row = genes[genes["population"] == "1"].iloc[0]
    chosen = (held.obs["sagefm_rare"] == "1").to_numpy()
    depth = np.asarray(planted.X.sum(axis=1)).ravel()
    values = np.asarray(planted[:, row["gene"]].X.todense()).ravel() / depth * 1e4
    fold = np.log2((values[chosen].mean() + 0.1) / (values[~chosen].mean() + 0.1))
    assert row["log2_fold"] == pytest.approx(fold, rel=1e-4)
    near = sagefm.pp.nearest(planted.obsm["spatial"])[chosen, 1:]
    fold = np.log2((values[chosen].mean() + 0.1) / (values[near].mean() + 0.1))
    assert row["log2_fold_neighbors"] == pytest.approx(fold, rel=1e-4)
    assert row["share"] == pytest.approx((values[chosen] > 0).mean())
    assert row["share_others"] == pytest.approx((values[~chosen] > 0).mean())
    ranks = rankdata(values)[chosen].sum()
    n, m = chosen.sum(), len(chosen)
    z = (ranks - n * (m + 1) / 2) / np.sqrt(n * (m - n) * (m + 1) / 12)
    assert row["p"] == pytest.approx(2 * norm.sf(abs(z)), rel=1e-3)
    around = np.log1p(values)[near].mean(axis=1)
    test = wilcoxon(np.log1p(values[chosen]) - around, method="approx")
    assert row["p_neighbors"] == pytest.approx(test.pvalue, rel=1e-3)
    assert (genes["q"] >= genes["p"] - 1e-12).all()
    assert (genes["log2_fold"] > 0).all()


def test_the_seed_decides(planted):
    one, same, other = (planted.copy() for _ in range(3))
    a, b, c = (sagefm.tl.rare(s, seed=n).spots for s, n in ((one, 3), (same, 3), (other, 4)))
    pd.testing.assert_frame_equal(a, b)
    assert not np.allclose(one.obs["sagefm_rare_score"], other.obs["sagefm_rare_score"])
    assert len(set(a.index) & set(c.index)) >= 6


def test_it_survives_a_file(found, tmp_path):
    held, (spots, genes) = found
    held.write_h5ad(tmp_path / "r.h5ad")
    back = ad.read_h5ad(tmp_path / "r.h5ad")
    made = back.uns["sagefm"]["rare"]
    pd.testing.assert_frame_equal(made["spots"], spots, check_dtype=False, check_names=False)
    pd.testing.assert_frame_equal(made["genes"], genes, check_dtype=False)
    assert back.obs["sagefm_rare"].tolist() == held.obs["sagefm_rare"].tolist()


def test_spots_without_counts_are_never_listed(planted):
    slide = planted.copy()
    matrix = slide.X.tolil()
    matrix[[3, 50]] = 0
    slide.X = matrix.tocsr()
    spots, _ = sagefm.tl.rare(slide)
    empty = slide.obs_names[[3, 50]]
    assert slide.obs["sagefm_rare_score"][empty].isna().all()
    assert slide.obs["sagefm_rare_score"].notna().sum() == slide.n_obs - 2
    assert not spots.index.isin(empty).any()


def test_every_slide_is_scored_on_its_own(planted, slide):
    both = ad.concat({"a": planted, "b": slide}, label="lane", index_unique="-")
    alone = planted.copy()
    sagefm.tl.rare(both, slide_key="lane")
    sagefm.tl.rare(alone)
    np.testing.assert_allclose(
        both.obs["sagefm_rare_score"][:400], alone.obs["sagefm_rare_score"], atol=1e-3
    )
    with pytest.raises(InputError, match="several slides"):
        sagefm.tl.rare(ad.concat([planted, slide], label="batch", index_unique="-"))


def test_mistakes_are_named(planted, slide, model):
    for share in (0.0, 0.3, -1, float("nan")):
        with pytest.raises(InputError, match=f"share={share}: give a number above 0"):
            sagefm.tl.rare(planted.copy(), share=share)
    with pytest.raises(InputError, match="99 spots with counts on a slide are too few"):
        sagefm.tl.rare(planted[:99].copy())
    with pytest.raises(InputError, match="only 4 genes are detected in 10 spots or more"):
        common = np.argsort(-np.asarray(planted.X.sum(axis=0)).ravel())[:4]
        sagefm.tl.rare(planted[:, common].copy())
    logs = planted.copy()
    logs.X = logs.X.log1p()
    for model_or_none in (None, model):
        with pytest.raises(InputError, match="not raw counts"):
            sagefm.tl.rare(logs, model_or_none)
    for bad in (logs, planted[:99].copy()):
        with pytest.raises(InputError):
            sagefm.tl.rare(bad)
        assert "sagefm_rare_score" not in bad.obs
