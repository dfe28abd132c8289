"""Score the sets of features of a cohort, beyond clinical columns and beyond the site."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd

from sagefm._errors import InputError
from sagefm._text import numbered
from sagefm.stats.outcomes import Evaluation, FeatureSet, Target, evaluate_sets
from sagefm.tl.outcomes._confounding import CHECKS, check_site
from sagefm.tl.outcomes._features import CLINICAL, MEAN, PSEUDOBULK

_BEYOND = ("beyond_clinical", "beyond_low", "beyond_high", "beyond_p")


@dataclass(frozen=True)
class How:
    """How sets of features are tested."""

    n_permutations: int
    seed: int
    progress: Callable[[str], object]


@dataclass(frozen=True)
class Evaluated:
    """Scores of all sets of features, and what was checked."""

    evaluation: Evaluation
    scores: pd.DataFrame
    best: str
    curve: pd.DataFrame
    confounding: pd.DataFrame
    notes: list[str]


def evaluate(
    target: Target, sets: Sequence[FeatureSet], sites: "pd.Series[str] | None", how: How
) -> Evaluated:
    """Score all sets.

    Raises
    ------
    InputError
        There are too few patients with slides.
    """
    strata = None if sites is None else pd.factorize(sites)[0]
    try:
        target.require_enough()
    except InputError as error:
        raise InputError(
            f"{numbered(len(target.known), 'patient')} with slides: {error}"
        ) from error
    evaluation = evaluate_sets(
        target, sets, strata=strata, n_permutations=how.n_permutations, seed=how.seed,
        progress=how.progress,
    )  # fmt: skip
    concordance = evaluation.scores.set_index("set")["concordance"]
    best = str(concordance.drop([CLINICAL, PSEUDOBULK], errors="ignore").idxmax())
    by_name = {one.name: one for one in sets}
    scores = evaluation.scores
    curve = pd.DataFrame(columns=["set", "n_patients", "concordance", "low", "high"])
    confounding = pd.DataFrame(columns=CHECKS)
    notes: list[str] = []
    if sites is not None:
        confounding, notes = check_site(
            target, sites, by_name[MEAN], by_name[best], evaluation,
            n_permutations=how.n_permutations, seed=how.seed, progress=how.progress,
        )  # fmt: skip
    return Evaluated(evaluation, scores, best, curve, confounding, notes)
