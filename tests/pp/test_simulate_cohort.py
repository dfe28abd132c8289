import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from sagefm import InputError
from sagefm.pp import nearest, simulate, simulate_cohort
from sagefm.pp.cohort_slide import DOMAINS, FROM_SLIDES, interface_length

GENES = [f"G{number}" for number in range(120)]
NULL = {"genes": GENES, "effects": {}, "n_spots": 60}


@pytest.fixture(scope="module")
def null():
    return simulate_cohort(60, **NULL, seed=3)


@pytest.fixture(scope="module")
def measured(null):
    """What the slides of the patients show of each trait."""
    rows = []
    for slide in null.slides.values():
        domain = slide.obs["domain"].cat.codes.to_numpy().astype(np.int64)
        neighbors = nearest(slide.obsm["spatial"], 7)
        totals = np.asarray(slide.X.sum(axis=0)).ravel()
        program = totals[slide.var_names.get_indexer(null.program)].sum() / totals.sum()
        immune = (domain == DOMAINS.index("immune")).mean()
        rows.append((immune, program, interface_length(domain, neighbors)))
    return pd.DataFrame(rows, columns=list(FROM_SLIDES), index=null.truth.index)


def same(one, other):
    return (
        (one.X != other.X).nnz == 0
        and one.obs.equals(other.obs)
        and np.array_equal(one.obsm["spatial"], other.obsm["spatial"])
    )


def test_slides_are_visium_slides_with_raw_counts(null):
    assert list(null.slides) == null.table["patient"].tolist()
    slide = null.slides["P07"]
    assert slide is null.slides["P07"]  # what is written to a slide stays
    assert slide.shape == (60, 120)
    assert slide.X.dtype == np.float32
    assert (slide.X.data == np.round(slide.X.data)).all()
    assert slide.obs_names.is_unique
    assert set(slide.obs["patient"]) == set(slide.obs["slide"]) == {"P07"}
    assert list(slide.obs["domain"].cat.categories) == list(DOMAINS)


def test_the_same_seed_gives_the_same_bits_in_any_order(null):
    again = simulate_cohort(60, **NULL, seed=3)
    assert again.table.equals(null.table)
    assert again.truth.equals(null.truth)
    for name in ("P60", "P01"):
        assert same(again.slides[name], null.slides[name])
    other = simulate_cohort(60, **NULL, seed=4)
    assert not same(other.slides["P01"], null.slides["P01"])


def test_effects_change_outcomes_and_not_slides(null):
    strong = simulate_cohort(60, **{**NULL, "effects": {"fraction": 2}}, seed=3)
    assert same(strong.slides["P05"], null.slides["P05"])
    columns = ["patient", "site", "age", "sex", "stage"]
    assert strong.table[columns].equals(null.table[columns])
    assert not strong.table["score"].equals(null.table["score"])


def test_domain_profiles_are_those_of_simulate(null):
    profiles = simulate(15, n_domains=4, genes=GENES, n_couplings=0).uns["simulation"]
    expected = profiles["domain_profiles"][DOMAINS.index("tumor")]
    tumor = sum(
        np.asarray(slide.X[(slide.obs["domain"] == "tumor").to_numpy()].sum(axis=0)).ravel()
        for slide in null.slides.values()
    )
    assert spearmanr(tumor, expected).statistic > 0.95


def test_slides_show_each_trait_and_only_that(measured, null):
    between = pd.DataFrame(
        {
            trait: [spearmanr(measured[shown], null.truth[trait])[0] for shown in FROM_SLIDES]
            for trait in FROM_SLIDES
        }
    ).to_numpy()
    assert (np.diag(between) > 0.7).all()
    assert np.abs(between - np.diag(np.diag(between))).max() < 0.35


def test_without_effects_nothing_carries_the_outcome(null):
    assert (null.truth["linear_predictor"] == 0).all()
    for target in ("response", "grade", "score", ("time", "event")):
        assert null.oracle(target) == 0.5


def test_effects_are_those_that_were_asked_for():
    cohort = simulate_cohort(4000, effects={"interface": 1.0, "age": -0.5}, genes=GENES)
    truth, table = cohort.truth, cohort.table
    assert np.allclose(truth["linear_predictor"], truth["interface"] - 0.5 * truth["age"])
    design = np.column_stack([truth[list(cohort.effects)], np.ones(len(truth))])
    slopes = np.linalg.lstsq(design, table["score"], rcond=None)[0]
    assert np.abs(slopes[:5] - [0, 0, 1, -0.5, 0]).max() < 0.06
    # An exponential hazard: its logarithm is -log(time) up to chance that has no mean slope.
    uncensored = simulate_cohort(
        4000, effects={"interface": 1.0, "age": -0.5}, genes=GENES, censoring=0
    )
    months = np.log(uncensored.table["time"])
    slopes = np.linalg.lstsq(design, -months, rcond=None)[0]
    assert np.abs(slopes[:5] - [0, 0, 1, -0.5, 0]).max() < 0.08
    assert uncensored.table["event"].all()


def test_the_oracle_is_the_concordance_of_the_truth():
    cohort = simulate_cohort(200, effects={"fraction": 1.5, "stage": 1.0}, genes=GENES)
    risk, table = cohort.truth["linear_predictor"].to_numpy(), cohort.table
    no = (table["response"] == "no").to_numpy()
    auroc = (risk[no][:, None] > risk[~no]).mean()
    assert cohort.oracle("response") == pytest.approx(auroc)
    for target in ("response", "grade", "score", ("time", "event")):
        assert 0.65 < cohort.oracle(target, "from_slides") < cohort.oracle(target) < 0.97


def test_the_oracle_knows_survival_as_lifelines_does():
    lifelines = pytest.importorskip("lifelines.utils")
    cohort = simulate_cohort(100, censoring=0.5, genes=GENES)
    table = cohort.table
    expected = lifelines.concordance_index(
        table["time"], -cohort.truth["linear_predictor"], table["event"]
    )
    assert cohort.oracle(("time", "event")) == pytest.approx(expected, abs=0.01)


def test_outcomes_have_the_numbers_of_patients_that_were_asked_for():
    table = simulate_cohort(41, censoring=0.4, n_sites=3, genes=GENES).table
    assert sorted(table["response"].value_counts()) == [20, 21]
    assert (table["event"] == 0).sum() == 16
    assert table["site"].value_counts().between(13, 14).all()
    assert table["stage"].isin([1, 2, 3, 4]).all()
    assert (table["time"] > 0).all()


@pytest.mark.parametrize("confounding", [0.0, 0.7, 1.0])
def test_site_follows_the_outcome_as_far_as_it_is_confounded(confounding):
    cohort = simulate_cohort(400, genes=GENES, effects={}, confounding=confounding)
    table = cohort.table
    agree = ((table["response"] == "no") == (table["site"] == "site B")).mean()
    # Of two normal variables cut at the median.
    expected = 0.5 + np.arcsin(confounding) / np.pi
    assert agree == pytest.approx(expected, abs=0.06)


def test_sites_differ_by_the_site_effect():
    def between(site_effect):
        cohort = simulate_cohort(12, **NULL, site_effect=site_effect)
        shares = pd.DataFrame(
            [np.asarray(slide.X.sum(axis=0)).ravel() for slide in cohort.slides.values()]
        )
        logs = np.log(shares.div(shares.sum(axis=1), axis=0) + 1e-4)
        means = logs.groupby(cohort.table["site"]).mean()
        return float((means.iloc[0] - means.iloc[1]).std())

    assert between(0.8) > 2 * between(0.0)


def test_sections_of_a_patient_resemble_each_other():
    cohort = simulate_cohort(30, **NULL, n_slides=2)
    assert list(cohort.slides)[:3] == ["P01_1", "P01_2", "P02_1"]
    immune = np.array([(s.obs["domain"] == "immune").mean() for s in cohort.slides.values()])
    one, other = immune.reshape(-1, 2).T
    assert 0.5 < np.corrcoef(one, other)[0, 1] < 0.99
    assert cohort.slides["P01_1"].obs["patient"].iloc[0] == "P01"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_patients": 1}, "n_patients is 1; give a whole number from 2"),
        ({"n_patients": 4.5}, "n_patients is 4.5"),
        ({"n_patients": True}, "n_patients is True"),
        ({"n_patients": "forty"}, "n_patients is 'forty'"),
        ({"n_spots": 14}, "n_spots is 14"),
        ({"n_slides": 0}, "n_slides is 0"),
        ({"n_sites": None}, "n_sites is None"),
        ({"depth": float("nan")}, "depth is nan"),
        ({"confounding": 1.1}, "confounding is 1.1; give a number from 0 to 1"),
        ({"censoring": 1.0}, "censoring is 1.0"),
        ({"site_effect": -1}, "site_effect is -1"),
        ({"seed": -1}, "seed is -1"),
        ({"effects": {"grade": 1.0}}, "effects has 'grade': choose of fraction, program"),
        ({"effects": {"age": float("inf")}}, "the effect of age is inf"),
        ({"effects": {"age": "high"}}, "the effect of age is 'high'"),
        ({"effects": ["fraction"]}, "give a dictionary such as"),
        ({"genes": ["A", "B"]}, "at least 20 names"),
        ({"genes": "TP53"}, "at least 20 names"),
        ({"genes": ["A"] * 30}, "more than once"),
    ],
)
def test_arguments_out_of_range_are_named(arguments, message):
    with pytest.raises(InputError, match=message):
        simulate_cohort(**arguments)


def test_the_oracle_names_what_it_does_not_know():
    cohort = simulate_cohort(4, genes=GENES)
    with pytest.raises(InputError, match="choose of response, grade"):
        cohort.oracle("stage")
    with pytest.raises(InputError, match="part 'age2': choose of fraction"):
        cohort.oracle("score", "age2")
    with pytest.raises(KeyError):
        cohort.slides["P99"]


@pytest.mark.parametrize("n_patients", [2, 3])
def test_the_smallest_cohorts_are_simulated(n_patients):
    cohort = simulate_cohort(n_patients, genes=GENES[:20], n_spots=15, censoring=0.95)
    assert len(cohort.slides) == len(cohort.table) == n_patients
    assert next(iter(cohort.slides.values())).n_obs == 15
