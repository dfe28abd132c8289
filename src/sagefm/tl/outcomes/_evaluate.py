"""Score the sets of features of a cohort, beyond clinical columns and beyond the site."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from sagefm._errors import InputError
from sagefm._text import numbered, probability
from sagefm._types import Codes, Floats
from sagefm.stats.outcomes import (
    Evaluation,
    FeatureSet,
    SurvivalTarget,
    Target,
    beyond,
    confounding,
    effects,
    evaluate_sets,
    learning_curve,
    proportional_hazards,
)
from sagefm.stats.resampling import benjamini_hochberg
from sagefm.tl.outcomes._features import CLINICAL, MEAN, PSEUDOBULK

EFFECTS = ["set", "feature", "effect", "low", "high", "p", "q"]
CHECKS = ["check", "set", "site", "n_patients", "value", "low", "high", "p"]
_SIGNIFICANT = 0.05
_N_CHECKS = 199
"""Permutations for the checks of the site, at most."""


@dataclass(frozen=True)
class Procedure:
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
    target: Target, sets: Sequence[FeatureSet], sites: "pd.Series[str] | None", procedure: Procedure
) -> Evaluated:
    """Score all sets.

    Raises
    ------
    InputError
        There are too few patients with slides.
    """
    strata = strata_of(sites)
    try:
        target.require_enough()
    except InputError as error:
        raise InputError(
            f"{numbered(len(target.known), 'patient')} with slides: {error}"
        ) from error
    evaluation = evaluate_sets(
        target, sets, strata=strata, n_permutations=procedure.n_permutations, seed=procedure.seed,
        progress=procedure.progress,
    )  # fmt: skip
    concordance = evaluation.scores.set_index("set")["concordance"]
    best = str(concordance.drop([CLINICAL, PSEUDOBULK], errors="ignore").idxmax())
    by_name = {one.name: one for one in sets}
    scores = evaluation.scores
    if CLINICAL in by_name:
        gains = [
            _beyond(target, by_name[CLINICAL], one, strata, procedure)
            for one in sets
            if one.name != CLINICAL
        ]
        scores = scores.merge(pd.DataFrame(gains), how="left", on="set")
    procedure.progress("learning curve")
    curve = learning_curve(target, by_name[best], seed=procedure.seed, strata=strata)
    needed = curve.attrs.pop("needed")
    curve.attrs["needed"] = needed.pop("n_patients")
    curve.attrs |= {f"needed_{name}": value for name, value in needed.items()}
    checks = pd.DataFrame(columns=CHECKS)
    notes: list[str] = []
    if sites is not None and strata is not None:
        notes += _about(sites)
        procedure.progress("site")
        checked = [by_name[name] for name in dict.fromkeys([best, MEAN])]
        n_permutations = min(procedure.n_permutations, _N_CHECKS)
        checks, found = confounding(
            target, sites, checked, n_permutations=n_permutations, seed=procedure.seed
        )
        notes += found or _site_decides(target, strata, checks)
    return Evaluated(evaluation, scores, best, curve, checks, notes)


def _about(sites: "pd.Series[str]") -> list[str]:
    """Say where the site says little."""
    notes = []
    if n := int(sites.isna().sum()):
        notes.append(f"{numbered(n, 'patient')} without a site: they count as one site")
    if sites.nunique(dropna=False) < 2:
        notes.append("all patients are of one site: it cannot be told what is due to it")
    return notes


def _site_decides(target: Target, strata: Codes, checks: pd.DataFrame) -> list[str]:
    """Warn where the outcome depends on the site, also if the slides do not show it."""
    sites = strata[target.known]
    if not (target.signs.any(axis=0) & (sites[:, None] == sites)).any():
        return [
            "all patients of a site have the same outcome: what slides say cannot be told from the "
            "site, and p is 1"
        ]
    if len(checks) and (p := float(checks["p"].iloc[0])) < _SIGNIFICANT:
        return [
            f"the outcome differs by site ({probability('p', p)}): patients are permuted within "
            "sites; read the concordance within sites in `confounding`"
        ]
    return []


def effect_table(
    target: Target, sets: Sequence[FeatureSet], sites: "pd.Series[str] | None"
) -> pd.DataFrame:
    """Compute the effect of each feature that has a meaning of its own; q is over all of them."""
    tables = [effects(target, one, strata=strata_of(sites)) for one in sets if one.scaled]
    if not tables:
        return pd.DataFrame(columns=EFFECTS)
    table = pd.concat(tables, ignore_index=True)
    table["q"] = benjamini_hochberg(table["p"])
    table.attrs.update(tables[0].attrs)
    return table if len(target.outputs) > 1 else table.drop(columns="class")


def with_hazards(
    target: Target, table: pd.DataFrame, names: Sequence[str], values: Floats
) -> tuple[pd.DataFrame, list[str]]:
    """Add p of the test of proportional hazards to the first rows of a table; and warnings.

    Parameters
    ----------
    target
        The outcome; nothing is added if it is no survival.
    table
        Its first rows are the features.
    names
        What warnings call them.
    values
        Patients × features.
    """
    if not isinstance(target, SurvivalTarget):
        return table, []
    found = proportional_hazards(target, values)
    if found is None:
        return table, []
    p = np.full(len(table), np.nan)
    p[: len(found)] = found
    notes = [
        f"{name}: its hazard ratio changes with time ({probability('p', one)} for proportional "
        "hazards): what is said of it is an average over time"
        for name, one in zip(names, found, strict=True)
        if one * len(found) < _SIGNIFICANT
    ]
    return table.assign(p_proportional=p), notes


def strata_of(sites: "pd.Series[str] | None") -> Codes | None:
    """Give each site, an unknown one too, a number: patients are permuted within them."""
    if sites is None:
        return None
    return pd.factorize(sites, use_na_sentinel=False)[0].astype(np.int64)


def _beyond(
    target: Target,
    clinical: FeatureSet,
    added: FeatureSet,
    strata: Codes | None,
    procedure: Procedure,
) -> dict[str, object]:
    procedure.progress(f"beyond clinical: {added.name}")
    gain = beyond(
        target,
        clinical,
        added,
        strata=strata,
        n_permutations=procedure.n_permutations,
        seed=procedure.seed,
    )
    return {
        "set": added.name, "with_clinical": gain.concordance, "beyond_clinical": gain.gain,
        "beyond_low": gain.low, "beyond_high": gain.high, "beyond_p": gain.p,
    }  # fmt: skip
