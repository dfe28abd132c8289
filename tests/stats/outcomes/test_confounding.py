"""Sites that stand for the outcome."""

import numpy as np
import pandas as pd
import pytest

from sagefm.stats.outcomes import ClassTarget, FeatureSet, NumberTarget, confounding

N = 60
EVERYONE = np.ones(N, dtype=bool)
SITES = pd.Series(np.repeat(["north", "south", "west"], 20), name="hospital")


def of_site(seed):
    rng = np.random.default_rng(seed)
    codes = pd.factorize(SITES)[0]
    return FeatureSet("slides", ["a", "b"], 3 * np.eye(3)[codes][:, :2] + rng.normal(size=(N, 2)))


@pytest.fixture(scope="module")
def confounded():
    rng = np.random.default_rng(0)
    values = 2.0 * (SITES == "north").to_numpy() + rng.normal(size=N)
    return confounding(
        NumberTarget("dose", EVERYONE, values), SITES, [of_site(1)], n_permutations=49
    )


def test_an_outcome_that_differs_by_site_is_warned_of(confounded):
    table, warnings = confounded
    values = table.set_index(["check", "site"])
    assert values["p"]["site against outcome", ""] == 0.02
    assert 0.2 < values["value"]["site against outcome", ""] < 0.9
    assert values["value"]["site predicted", ""] > 0.85
    assert values["p"]["site predicted", ""] == 0.02
    assert values["p"]["within sites", ""] > 0.05
    assert values["p"]["site left out", ""] > 0.05
    assert len(warnings) == 1
    assert warnings[0].startswith("confounded by site: the outcome differs by site (p = 0.02)")
    assert f"slides {values['value']['within sites', '']:.2f} (" in warnings[0]


def test_each_site_is_left_out(confounded):
    table = confounded[0]
    of_sites = table[(table["check"] == "site left out") & (table["site"] != "")]
    assert of_sites["site"].tolist() == ["north", "south", "west"]
    assert of_sites["n_patients"].tolist() == [20, 20, 20]
    assert (of_sites["low"] <= of_sites["value"]).all()


def test_an_outcome_that_does_not_is_not():
    values = np.random.default_rng(0).normal(size=N)
    table, warnings = confounding(
        NumberTarget("dose", EVERYONE, values), SITES, [of_site(1)], n_permutations=49
    )
    assert table.set_index("check")["p"]["site against outcome"] > 0.05
    assert warnings == []


def test_nothing_can_be_compared_where_the_site_is_the_outcome():
    codes = (SITES == "north").to_numpy().astype(int)
    target = ClassTarget("grade", EVERYONE, ["low", "high"], codes)
    table, warnings = confounding(target, SITES, [of_site(1)], n_permutations=39)
    assert table.set_index("check")["value"]["site against outcome"] == pytest.approx(1)
    assert table.loc[table["check"] == "within sites", "value"].isna().all()
    assert "slides none to compare (none to compare)" in warnings[0]


def test_one_site_or_unknown_ones():
    target = NumberTarget("dose", EVERYONE, np.arange(N, dtype=float))
    for sites in (pd.Series(["one"] * N), pd.Series([None] * N), pd.Series(np.arange(N))):
        table, warnings = confounding(target, sites, [of_site(1)])
        assert table.empty
        assert warnings == []
    some = SITES.where(np.arange(N) % 5 != 0)
    table, _ = confounding(target, some, [of_site(1)], n_permutations=9)
    assert table["n_patients"].iloc[0] == 48
