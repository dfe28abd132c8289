"""The test of proportional hazards, against truths that are known."""

import numpy as np
import pandas as pd

from sagefm.stats.outcomes import proportional_hazards, target_of


def test_an_effect_that_changes_with_time_is_found():
    rng = np.random.default_rng(0)
    group = np.arange(400) % 2
    steady = rng.exponential(np.where(group, 1.0, 3.0))
    # Weibull shapes of 3 and 0.5: the hazard of one group rises, that of the other falls.
    crossing = np.where(group, rng.weibull(3, 400), rng.weibull(0.5, 400))
    for times, low, high in ((steady, 0.05, 1), (crossing, 0, 1e-6)):
        target = target_of(pd.DataFrame({"t": times, "e": 1}), ("t", "e"))
        same, constant = proportional_hazards(target, np.column_stack([group, group * 0.0]))
        assert low <= same <= high
        assert np.isnan(constant)


def test_unknown_patients_do_not_count():
    table = pd.DataFrame({"t": [1.0, 2, 3, 4, 5, None], "e": [1, 1, 0, 1, 1, 1]})
    target = target_of(table, ("t", "e"))
    x = np.array([[0.1], [2], [1], [np.nan], [3], [9]])
    [p] = proportional_hazards(target, x)
    [same] = proportional_hazards(target, np.where(np.arange(6)[:, None] == 5, -4, x))
    assert p == same


def test_without_lifelines_there_is_no_test(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert proportional_hazards(None, None) is None
