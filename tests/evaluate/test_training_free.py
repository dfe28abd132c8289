"""The methods that learn from no other slide, and what they leave to a model, by hand."""

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.sparse import csr_matrix

from sagefm.evaluate import Cohort, recovery
from sagefm.evaluate.baselines import training_free
from sagefm.evaluate.baselines.masked import MaskedSpots, PanelSlide
from sagefm.evaluate.baselines.training_free import (
    NEIGHBOR_MEAN,
    NEIGHBOR_PROFILE,
    SHRINKAGES,
    SLIDE_PROFILE,
    TRAINING_FREE,
)
from sagefm.evaluate.protocols.excess import Excess
from sagefm.evaluate.protocols.masks import random_masks
from sagefm.model import Config, SageFM
from sagefm.nn.masking import Masks
from sagefm.pp import nearest
from sagefm.pp.simulate import simulate
from sagefm.pp.vocabulary import Vocabulary
from sagefm.stats.poisson import log1p_mean


def grid(n_side):
    return np.array([(x, y) for y in range(n_side) for x in range(n_side)], dtype=float)


def whole(counts, masks, n_side):
    """All spots of a square slide."""
    counts = csr_matrix(counts.astype(np.float32))
    log = csr_matrix(np.log1p(counts.toarray()))
    n_spots, n_genes = counts.shape
    neighbors = nearest(grid(n_side), 15)
    slide = PanelSlide(None, counts, log, neighbors, np.ones(n_genes, dtype=bool), None)
    return MaskedSpots(slide, "center", np.arange(n_spots), masks, np.arange(n_genes))


def moments(rate):
    """Mean and variance of log1p(Poisson(rate)), by a sum over every count that can happen."""
    reach = 15 * np.sqrt(rate) + 30
    k = np.arange(max(0, int(rate - reach)), int(rate + reach))
    p = stats.poisson.pmf(k, rate)
    mean = p @ np.log1p(k)
    return mean, p @ (np.log1p(k) - mean) ** 2


def case(counts, seed=0):
    masks = random_masks(len(counts), counts.shape[1], np.random.default_rng(seed))
    return whole(counts, masks, int(np.sqrt(len(counts))))


@pytest.fixture(scope="module")
def domains():
    """Two halves with other profiles, and a library size for each spot."""
    rng = np.random.default_rng(0)
    profiles = rng.gamma(0.3, 1, (2, 40))
    half = grid(12)[:, 0] >= 6
    rates = profiles[half.astype(int)] * rng.gamma(9, 0.5, (144, 1))
    return rng.poisson(rates)


def test_predictions_by_hand():
    """Four genes on 16 spots: every spot but the farthest is a neighbor."""
    rng = np.random.default_rng(1)
    counts = rng.poisson(3, (16, 4))
    masked = np.zeros((16, 4), dtype=bool)
    masked[np.arange(16), np.arange(16) % 4] = True
    masks = Masks(torch.arange(4), torch.arange(5), torch.from_numpy(masked))
    spots = whole(counts, masks, 4)
    found = {method.name: method(spots) for method in training_free.training_free(spots, 0)}
    shrinkage = training_free.choose_shrinkage(spots, 0)
    for i, neighbors in enumerate(spots.slide.neighbors):
        assert neighbors[0] == i
        visible = ~masked[i]
        slide = np.delete(counts, i, axis=0).sum(axis=0)
        near = counts[neighbors[1:]].sum(axis=0) + shrinkage * slide / slide.sum()
        for name, profile in ((SLIDE_PROFILE, slide), (NEIGHBOR_PROFILE, near)):
            rate = profile * counts[i, visible].sum() / profile[visible].sum()
            np.testing.assert_allclose(found[name].rate[i], rate, rtol=1e-5)
            expected = [moments(one)[0] for one in rate]
            np.testing.assert_allclose(found[name].log1p[i], expected, atol=2e-5)
        mean = np.log1p(counts[neighbors[1:]]).mean(axis=0)
        np.testing.assert_allclose(found[NEIGHBOR_MEAN].log1p[i], mean, rtol=1e-5)


def test_the_shrinkage_is_the_best_for_visible_genes(domains):
    """It is chosen by predicting visible genes as if they were masked, one spot at a time."""
    spots = case(domains)
    errors, rng = np.zeros(len(SHRINKAGES)), np.random.default_rng(3)
    again = (rng.random(domains.shape, dtype=np.float32) < 0.3) & ~spots.mask
    for i, neighbors in enumerate(spots.slide.neighbors):
        shown = ~(spots.mask[i] | again[i])
        slide = np.delete(domains, i, axis=0).sum(axis=0)
        for at, shrinkage in enumerate(SHRINKAGES):
            profile = domains[neighbors[1:]].sum(axis=0) + shrinkage * slide / slide.sum()
            rate = profile * domains[i, shown].sum() / profile[shown].sum()
            off = log1p_mean(rate[again[i]]) - np.log1p(domains[i, again[i]])
            errors[at] += off @ off
    best = SHRINKAGES[errors.argmin()]
    assert training_free.choose_shrinkage(spots, 3) == best
    assert SHRINKAGES[-1] < best < SHRINKAGES[0]


def test_the_shrinkage_does_not_see_the_masked_counts_of_a_center(domains):
    changed, spots = domains.copy(), case(domains)
    changed[spots.mask] += 50  # neighbors of others too: one spot at a time
    for i in (0, 70):
        hidden = domains.copy()
        hidden[i, spots.mask[i]] = changed[i, spots.mask[i]]
        alone = [case(one).of(np.array([i])) for one in (domains, hidden)]
        assert len({training_free.choose_shrinkage(one, 0) for one in alone}) == 1


def test_slides_choose_for_themselves(domains):
    """Where all spots are the same, neighbors are noise; where halves differ, they are not."""
    rng = np.random.default_rng(2)
    same = rng.poisson(np.tile(rng.gamma(0.3, 5, (1, 40)), (144, 1)))
    flat, halves = (training_free.choose_shrinkage(case(one), 0) for one in (same, domains))
    assert halves < 300 < 3000 < flat


def test_without_counts_the_slide_is_taken():
    assert training_free.choose_shrinkage(case(np.zeros((16, 20))), 0) == SHRINKAGES[0]


def test_what_is_left_of_the_best_excess():
    errors = {NEIGHBOR_PROFILE: 0.30, SLIDE_PROFILE: 0.34, NEIGHBOR_MEAN: 0.28, "gene mean": 0.1}
    noise = {NEIGHBOR_PROFILE: 0.18, SLIDE_PROFILE: 0.20}
    excess = Excess.of(errors, noise)
    assert (excess.best, excess.floor) == (NEIGHBOR_MEAN, 0.18)  # the mean predicts no rates
    assert excess.left(0.28) == 1
    assert excess.left(0.23) == pytest.approx(0.5)
    assert np.isnan(Excess.of({"model": 0.3}, {}).left(0.3))
    assert np.isnan(Excess.of({SLIDE_PROFILE: 0.2}, {SLIDE_PROFILE: 0.21}).left(0.2))


def test_the_tables_name_the_best_method_and_what_is_left_of_it():
    """Floor and errors are computed again, entry by entry, from the slides."""
    genes = simulate(15).var_names[:60]
    slides = {f"s{i}": simulate(64, genes=genes, seed=i, patient=f"p{i % 4}") for i in range(5)}
    result = recovery(Cohort(slides), {})
    scores = result.details["recovery"]
    for (_, task), rows in scores.groupby(["slide", "task"]):
        own = rows.set_index("method")
        [best] = own["best_training_free"].unique()
        assert best == own["mse"].loc[list(TRAINING_FREE)].idxmin()
        left = (own["mse"] - own["floor"]) / (own["mse"] - own["floor"])[best]
        np.testing.assert_allclose(own["share_left"], left, rtol=1e-9)
        assert any(task in note and best in note for note in result.notes)
    for caption, table in result.summary.items():
        own = scores[caption.partition(": ")[2] == scores["task"]].assign(
            patient=lambda rows: rows["slide"].map({s: f"p{int(s[1]) % 4}" for s in slides})
        )
        per_patient = own.groupby(["method", "patient"])["share_left"].mean()
        for row in table.itertuples():
            assert row.share_left == pytest.approx(per_patient[row.method].mean())
            assert row.share_left_low <= row.share_left <= row.share_left_high
            worst = own.loc[own["method"] == row.method, "share_left"].max()
            assert row.share_left_worst == worst >= row.share_left


def test_the_floor_is_the_variance_at_the_rates_of_the_best_profile():
    slide = simulate(36, genes=simulate(15).var_names[:40], seed=4)
    model = SageFM.new(Vocabulary(tuple(slide.var_names)), Config(widths=(8, 8, 8, 8, 8)))
    scores = recovery(Cohort({"s": slide}), {"net": model}).details["recovery"]
    own = scores[scores["task"] == "random genes of the center"].set_index("method")
    drawn = random_masks(36, 40, np.random.default_rng([0, False]))
    aligned = PanelSlide.of(slide, model.vocabulary)
    spots = MaskedSpots(aligned, "center", np.arange(36), drawn, np.arange(40))
    best = own["mse"].loc[[NEIGHBOR_PROFILE, SLIDE_PROFILE]].idxmin()
    [rate] = [m(spots).rate for m in training_free.training_free(spots, 0) if m.name == best]
    mean, variance = np.array([moments(one) for one in rate[spots.mask]], dtype=float).T
    error = np.square(mean - np.log1p(slide.X.toarray()[spots.mask])).mean()
    assert own["floor"].nunique() == 1
    assert own["floor"].iloc[0] == pytest.approx(variance.mean(), abs=1e-5)
    assert own.loc[best, "mse"] == pytest.approx(error, abs=1e-5)
    assert own["n_entries"].iloc[0] == spots.mask.sum()
