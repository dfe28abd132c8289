"""Recovery and imputation: what is hidden stays hidden, and every baseline is there."""

import numpy as np
import pytest

from sagefm.evaluate import Cohort, recovery
from sagefm.evaluate.baselines.masked import MaskedSpots, PanelSlide
from sagefm.evaluate.baselines.predictors import baselines
from sagefm.evaluate.baselines.reference import Reference, SlideSummary
from sagefm.evaluate.baselines.training_free import NEIGHBOR_MEAN
from sagefm.evaluate.protocols import masks
from sagefm.model import Config, SageFM
from sagefm.pp.aligned import AlignedSlide
from sagefm.pp.simulate import simulate
from sagefm.pp.vocabulary import Vocabulary
from sagefm.stats.poisson import log1p_mean


@pytest.fixture(scope="module")
def slides():
    genes = simulate(15).var_names[:400]
    return {
        f"s{i}": simulate(120, genes=genes, seed=i, biology_seed=1, patient=f"p{i}", slide=f"s{i}")
        for i in range(3)
    }


@pytest.fixture(scope="module")
def network(slides):
    genes = tuple(slides["s0"].var_names[:250])
    return SageFM.new(Vocabulary(genes), Config(widths=(16, 12, 12, 12, 14)), seed=1)


@pytest.fixture(scope="module")
def results(slides, network):
    cohort = Cohort(slides)
    return {p: recovery(cohort, {"net": network}, protocol=p) for p in ("recovery", "imputation")}


def test_every_task_has_all_methods_and_controls(results):
    for result in results.values():
        for table in result.summary.values():
            assert {
                "gene mean",
                "reference profile × library size",
                "ridge on the center",
                "net",
            } <= set(table["method"])
            assert "random weights" in set(table["method"])
            assert table["method"].str.endswith("spots permuted").any()
            assert (table["n_slides"] == 3).all()
            assert table["mse"].notna().all()
    for table in list(results["recovery"].summary.values()):
        assert NEIGHBOR_MEAN in set(table["method"])


def test_permuting_spots_loses(results):
    for table in results["recovery"].summary.values():
        mse = table.set_index("method")["mse"]
        assert mse[NEIGHBOR_MEAN] < mse[f"{NEIGHBOR_MEAN}, spots permuted"]


def test_the_same_seed_gives_the_same_numbers(slides, network, results):
    again = recovery(Cohort(slides), {"net": network})
    for caption, table in results["recovery"].summary.items():
        assert again.summary[caption].equals(table)


@pytest.mark.parametrize("where", ["center", "neighborhood", "slide"])
def test_no_baseline_sees_what_is_hidden(slides, network, where):
    """Changing the hidden counts (of everything that is hidden) changes no prediction."""
    panel = network.vocabulary
    pieces = {
        n: SlideSummary.of(PanelSlide.of(s, panel), n, 60, 0)
        for n, s in slides.items()
        if n != "s0"
    }
    known = Reference.without("s0", pieces, 0)
    view = PanelSlide.of(slides["s0"], panel)
    drawn = masks.random_masks(120, len(panel), np.random.default_rng(0))
    drawn = masks.same_in_all_spots(drawn) if where == "slide" else drawn
    spot = np.array([7])
    genes = np.flatnonzero(drawn.dense()[7].numpy())
    changed = slides["s0"].copy()
    lines = {"center": spot, "neighborhood": view.neighbors[7], "slide": np.arange(120)}[where]
    dense = changed.X.toarray()
    dense[np.ix_(lines, genes)] += 5
    changed.X = type(changed.X)(dense)
    shown = [
        MaskedSpots(v, where, spot, drawn._replace(masked=drawn.masked[7:8]), genes)
        for v in (view, PanelSlide.of(changed, panel))
    ]
    asked = 0
    for method in baselines(known, shown[0], 0):
        one, other = (method(s) for s in shown)
        if one is None:
            continue
        np.testing.assert_allclose(one.log1p, other.log1p, atol=2e-4, err_msg=method.name)
        asked += 1
    assert asked >= 4


@pytest.mark.parametrize("around", [False, True])
def test_hiding_is_the_same_as_having_no_counts(slides, network, around):
    slide = slides["s0"]
    prepared = network.prepare(slide)
    hidden = np.random.default_rng(0).random((120, len(network.vocabulary))) < 0.3
    found = network.predict(prepared, hidden=hidden, hidden_around=around)
    zeroed = prepared.counts.toarray()
    lines = prepared.neighbors[9] if around else [9]
    zeroed[np.ix_(lines, hidden[9])] = 0
    pooled = zeroed[prepared.neighbors[9]]
    alone = AlignedSlide.of_counts(
        type(prepared.counts)(pooled), np.arange(15)[None], prepared.measured
    )
    np.testing.assert_allclose(found[9], network.predict(alone)[0], atol=1e-5)


def test_modules_are_hidden_whole(slides):
    modules = masks.coexpression_modules(slides["s0"].X, 0)
    drawn = masks.module_masks(50, modules, np.random.default_rng(0)).dense().numpy()
    for module in np.unique(modules):
        own = drawn[:, modules == module]
        assert (own.all(axis=1) | ~own.any(axis=1)).all()
    assert 0.2 < drawn.mean() < 0.4


def test_the_best_possible_prediction_stands_beside(slides):
    """Counts are Poisson with known rates, so the mean log1p is the best that there is."""
    slide = slides["s0"][:, :300].copy()
    chance = np.random.default_rng(5)
    rate = chance.gamma(1, 3, (1, 300)) * chance.gamma(20, 0.05, (120, 1))
    slide.X = type(slide.X)(chance.poisson(rate).astype(np.float32))
    slide.layers["best_prediction"] = log1p_mean(rate)
    for protocol in ("recovery", "imputation"):
        for table in recovery(Cohort({"s": slide}), {}, protocol=protocol).summary.values():
            assert table["method"].iloc[0] == "best possible"
