"""Whether a hazard ratio holds all the time."""

import importlib.util
import warnings

import numpy as np
import pandas as pd

from sagefm._types import Bools, Floats
from sagefm.stats.outcomes.kinds import SurvivalTarget


def proportional_hazards(target: SurvivalTarget, features: Floats) -> Floats | None:
    """Test of each feature alone that its hazard ratio does not change with time.

    Parameters
    ----------
    target
        The outcome.
    features
        Patients of the table × features, NaN where unknown.

    Returns
    -------
    p of the scaled Schoenfeld residuals against the rank of time, NaN where no Cox regression can
    be fitted; None if lifelines is not installed.
    """
    if importlib.util.find_spec("lifelines") is None:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pandas; and of fits that do not converge
        return np.array([_p(target, column) for column in features[target.known].T])


def _p(target: SurvivalTarget, values: Floats) -> float:
    import lifelines
    from lifelines.exceptions import ConvergenceError
    from lifelines.statistics import proportional_hazard_test

    known: Bools = np.isfinite(values)
    rows = pd.DataFrame(
        {"time": target.times[known], "event": target.events[known], "feature": values[known]}
    )
    if len(rows) < 3 or (spread := rows["feature"].std()) < 1e-12 or rows["event"].sum() < 3:
        return np.nan
    rows["feature"] = (rows["feature"] - rows["feature"].mean()) / spread
    try:
        fit = lifelines.CoxPHFitter().fit(rows, "time", "event")
        found = proportional_hazard_test(fit, rows, time_transform="rank")
    except (ConvergenceError, ValueError, np.linalg.LinAlgError):
        return np.nan
    return float(np.ravel(found.p_value)[0])
