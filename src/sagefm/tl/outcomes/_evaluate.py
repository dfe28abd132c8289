"""Score the sets of features of a cohort, beyond clinical columns and beyond the site."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd

from sagefm._errors import InputError
from sagefm._text import numbered
from sagefm._types import Codes
from sagefm.stats.outcomes import (
    Evaluation,
    FeatureSet,
    Target,
    beyond,
    evaluate_sets,
    learning_curve,
)
from sagefm.tl.outcomes._confounding import CHECKS, check_site
from sagefm.tl.outcomes._features import CLINICAL, MEAN, PSEUDOBULK


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
    if CLINICAL in by_name:
        gains = [
            _beyond(target, by_name[CLINICAL], one, strata, how)
            for one in sets
            if one.name != CLINICAL
        ]
        scores = scores.merge(pd.DataFrame(gains), how="left", on="set")
    how.progress("learning curve")
    curve = learning_curve(target, by_name[best], seed=how.seed, strata=strata)
    needed = curve.attrs.pop("needed")
    curve.attrs["needed"] = needed.pop("n_patients")
    curve.attrs |= {f"needed_{name}": value for name, value in needed.items()}
    confounding = pd.DataFrame(columns=CHECKS)
    notes: list[str] = []
    if sites is not None:
        confounding, notes = check_site(
            target, sites, by_name[MEAN], by_name[best], evaluation,
            n_permutations=how.n_permutations, seed=how.seed, progress=how.progress,
        )  # fmt: skip
    return Evaluated(evaluation, scores, best, curve, confounding, notes)


def _beyond(
    target: Target, clinical: FeatureSet, added: FeatureSet, strata: Codes | None, how: How
) -> dict[str, object]:
    how.progress(f"beyond clinical: {added.name}")
    gain = beyond(
        target, clinical, added, strata=strata, n_permutations=how.n_permutations, seed=how.seed
    )
    return {
        "set": added.name, "with_clinical": gain.concordance, "beyond_clinical": gain.gain,
        "beyond_low": gain.low, "beyond_high": gain.high, "beyond_p": gain.p,
    }  # fmt: skip
