"""Calibration and power of the engine behind ``sagefm.tl.outcome``, on features without slides.

python benchmarks/outcome_engine.py null      # how often p <= 0.05 without any effect
python benchmarks/outcome_engine.py sets      # the same for p adjusted over 8 correlated sets
python benchmarks/outcome_engine.py power     # how often with an effect, and patients needed
"""

import sys
import time

import numpy as np
import pandas as pd

from sagefm import InputError
from sagefm.stats.outcomes import (
    ClassTarget,
    FeatureSet,
    NumberTarget,
    SurvivalTarget,
    evaluate_sets,
    learning_curve,
)

KINDS = [
    "classes 50:50",
    "classes 20:80",
    "survival 30 % censored",
    "survival 70 % censored",
    "number",
]
GRID = [(kind, n, p) for kind in KINDS for n in (20, 40, 80) for p in (5, 30, 300)]
N_PERMUTATIONS = 99
N_FACTORS = 5


def outcome(kind, signal, rng):
    """Make an outcome of patients that grows with a signal, which may be zero."""
    n = len(signal)
    everyone = np.ones(n, dtype=bool)
    if kind.startswith("classes"):
        n_positive = n // 2 if "50:50" in kind else n // 5
        codes = np.zeros(n, dtype=np.int64)
        codes[np.argsort(-(signal + rng.logistic(size=n)))[:n_positive]] = 1
        return ClassTarget("response", everyone, ["no", "yes"], codes)
    if kind == "number":
        return NumberTarget("value", everyone, signal + rng.normal(size=n))
    times = rng.exponential(np.exp(-signal))
    ends = rng.exponential(np.exp(-signal) * (7 / 3 if "30" in kind else 3 / 7))
    return SurvivalTarget(
        "time, event", everyone, np.minimum(times, ends), times <= ends, "time", "event"
    )


def features(factors, n_features, rng):
    """Make features with five common factors and noise, as embeddings and expression have."""
    loadings = rng.normal(size=(factors.shape[1], n_features))
    return factors @ loadings + rng.normal(size=(len(factors), n_features))


def feature_set(name, values):
    return FeatureSet(name, [str(i) for i in range(values.shape[1])], values)


def cohort(kind, n, n_features, effect, seed, n_sets=1):
    rng = np.random.default_rng((seed, n, n_features))
    factors = rng.normal(size=(n, N_FACTORS))
    target = outcome(kind, effect * factors[:, 0], rng)
    sets = [feature_set(f"set {i}", features(factors, n_features, rng)) for i in range(n_sets)]
    return target, sets


def null(grid=GRID, n_cohorts=500):
    rows = []
    for kind, n, n_features in grid:
        start, values = time.process_time(), []
        for seed in range(n_cohorts):
            target, sets = cohort(kind, n, n_features, 0.0, seed)
            try:
                result = evaluate_sets(target, sets, n_permutations=N_PERMUTATIONS, seed=seed)
            except InputError:  # too few events
                continue
            values.append(result.scores.iloc[0])
        if len(values) < n_cohorts / 2:
            continue
        table = pd.DataFrame(values)
        rows.append(
                {"kind": kind, "n": n, "features": n_features, "cohorts": len(table),
                 "p <= 0.05": (table["p"] <= 0.05).mean(),
                 "concordance": table["concordance"].mean(),
                 "interval has 0.5": ((table["low"] <= 0.5) & (table["high"] >= 0.5)).mean(),
                 "seconds": time.process_time() - start}
            )  # fmt: skip
        print(pd.DataFrame(rows[-1:]).round(3).to_string(header=len(rows) == 1), flush=True)


def sets(kinds=KINDS[::2], n_cohorts=300, n_sets=8):
    for kind in kinds:
        reached = []
        for seed in range(n_cohorts):
            target, tried = cohort(kind, 40, 30, 0.0, seed, n_sets)
            scores = evaluate_sets(target, tried, n_permutations=N_PERMUTATIONS, seed=seed).scores
            reached.append((scores[["p", "p_adjusted"]] <= 0.05).any())
        print(kind, "any of 8 sets:", pd.DataFrame(reached).mean().round(3).to_dict(), flush=True)


def power(kinds=KINDS, sizes=((60, 0.5), (60, 1.0), (120, 0.5)), n_cohorts=100):
    for kind in kinds:
        for n, effect in sizes:
            found, needed, scores = [], [], []
            for seed in range(n_cohorts):
                target, tried = cohort(kind, n, 30, effect, seed)
                try:
                    result = evaluate_sets(target, tried, n_permutations=N_PERMUTATIONS, seed=seed)
                except InputError:
                    continue
                scores.append(result.scores["concordance"].iloc[0])
                found.append(result.scores["p"].iloc[0] <= 0.05)
                if seed < 30:
                    curve = learning_curve(target, tried[0], seed=seed)
                    needed.append(curve.attrs["needed"]["n_patients"])
            print(
                f"{kind}, n {n}, effect {effect}: concordance {np.mean(scores):.2f}, found "
                f"{np.mean(found):.2f}; needed: {np.nanmedian([*needed, np.nan]):.0f} (median), "
                f"cannot be said {np.isnan(needed).mean():.2f}",
                flush=True,
            )


if __name__ == "__main__":
    {"null": null, "sets": sets, "power": power}[sys.argv[1]]()
