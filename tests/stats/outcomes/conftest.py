import numpy as np
import pytest

from sagefm.stats.outcomes import (
    ClassTarget,
    FeatureSet,
    NumberTarget,
    OrdinalTarget,
    SurvivalTarget,
)

N_PATIENTS = 40


@pytest.fixture(scope="package")
def factors():
    return np.random.default_rng(1).normal(size=(N_PATIENTS, 3))


@pytest.fixture(scope="package")
def targets(factors):
    """An outcome of each kind that grows with the first factor."""
    rng = np.random.default_rng(2)
    signal = 2 * factors[:, 0]
    everyone = np.ones(N_PATIENTS, dtype=bool)
    noisy = signal + rng.logistic(size=N_PATIENTS)
    times = rng.exponential(np.exp(-signal))
    ends = rng.exponential(2 * np.exp(-signal))
    ranks = noisy.argsort().argsort()
    return {
        "classes": ClassTarget("grade", everyone, ["low", "high"], (ranks >= 20).astype(int)),
        "three classes": ClassTarget("type", everyone, ["a", "b", "c"], ranks * 3 // N_PATIENTS),
        "ordinal": OrdinalTarget("stage", everyone, ranks * 4.0 // N_PATIENTS, list("wxyz")),
        "number": NumberTarget("dose", everyone, noisy),
        "survival": SurvivalTarget(
            "t, e", everyone, np.minimum(times, ends), times <= ends, "t", "e"
        ),
    }


@pytest.fixture(scope="package")
def informative(factors):
    rng = np.random.default_rng(3)
    values = factors @ rng.normal(size=(3, 12)) + 0.3 * rng.normal(size=(N_PATIENTS, 12))
    return FeatureSet("informative", [f"f{i}" for i in range(12)], values)


@pytest.fixture(scope="package")
def noise():
    values = np.random.default_rng(4).normal(size=(N_PATIENTS, 6))
    return FeatureSet("noise", [f"n{i}" for i in range(6)], values)
