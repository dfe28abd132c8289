"""Whether a prediction may say where patients come from, rather than their outcome."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from sagefm._text import few, probability
from sagefm._types import Bools, Codes, Floats
from sagefm.stats.outcomes.crossval import (
    CrossValidation,
    concordance_interval,
    cross_validate,
    draw_folds,
)
from sagefm.stats.outcomes.evaluation import FeatureSet, p_value
from sagefm.stats.outcomes.kinds import ClassTarget
from sagefm.stats.outcomes.targets import N_COMPONENTS, Target

LEAST_OF_SITE = 3
"""Minimum number of patients of a site; the patients of smaller ones are left out."""
_PATIENTS_PER_COMPONENT = 10
_SIGNIFICANT = 0.05
_COLUMNS = ["check", "set", "site", "n_patients", "value", "low", "high", "p"]
OUTCOME, SITE = "site against outcome", "site predicted"
WITHIN, LEFT_OUT = "within sites", "site left out"


def confounding(
    target: Target,
    sites: "pd.Series[str]",
    sets: Sequence[FeatureSet],
    *,
    n_permutations: int = 199,
    seed: int = 0,
) -> tuple[pd.DataFrame, list[str]]:
    """Check whether outcome and features depend on the site that patients come from.

    Parameters
    ----------
    target
        The outcome.
    sites
        Site (or batch, or center) of each patient of the table, missing where it is unknown.
    sets
        Sets of features.
    n_permutations, seed
        As for :func:`evaluate_sets`.

    Returns
    -------
    A table with the columns check, set, site, n_patients, value, low, high and p, and warnings.

    - ``site against outcome``: the fraction of the variance of outcomes (their ranks, for survival
      the scores of a Gehan test) that is between sites, from 0 to 1; p by permutation.
    - ``site predicted``: the concordance of predictions of the site from a set.
    - ``within sites``: the concordance of out-of-fold predictions of the outcome, where only
      patients of the same site are compared; p by permutation within sites.
    - ``site left out``: the same for fits to all other sites, for each site and all together.

    Empty if there are not two sites of at least 3 patients.
    """
    codes, names = pd.factorize(pd.Series(np.asarray(sites, dtype=object)), sort=True)
    sizes = np.bincount(codes[target.known & (codes >= 0)], minlength=len(names))
    large = np.append(sizes >= LEAST_OF_SITE, False)[codes]
    target = target.subset(large)
    of_known = np.asarray(codes[target.known], dtype=np.int64)
    present = np.unique(of_known)
    if len(present) < 2 or not target.signs.any():
        return pd.DataFrame(columns=_COLUMNS), []
    rows = [_association(target, of_known, n_permutations, seed)]
    site = ClassTarget(
        str(sites.name or "site"), target.known, [str(names[code]) for code in present],
        np.searchsorted(present, of_known),
    )  # fmt: skip
    for one in sets:
        rows.append(_site_predicted(site, one, n_permutations, seed))
        rows += _outcome_within(target, site, one, n_permutations, seed)
    table = pd.DataFrame(rows, columns=_COLUMNS)
    return table, _warnings(table)


def _association(target: Target, sites: Codes, n_permutations: int, seed: int) -> dict[str, object]:
    """Compute the fraction of the variance of outcomes that is between sites."""
    scores = target.signs.sum(axis=2, dtype=np.float64).T  # patients × outputs, sum zero
    orders = target.permuted(n_permutations, seed)
    between = np.zeros(len(orders))
    for code in np.unique(sites):
        rows = sites == code
        between += (scores[orders[:, rows]].sum(axis=1) ** 2).sum(axis=1) / rows.sum()
    fractions = between / (scores**2).sum()
    return _row(OUTCOME, "", "", len(sites), float(fractions[0]), p=p_value(fractions))


def _site_predicted(
    site: ClassTarget, one: FeatureSet, n_permutations: int, seed: int
) -> dict[str, object]:
    n_components = int(np.clip(site.n_patients // _PATIENTS_PER_COMPONENT, 2, N_COMPONENTS))

    def reduce(training: Bools) -> Floats:
        return one.fold(training, n_components).features

    orders = site.permuted(n_permutations, seed)
    result = cross_validate(site, reduce, orders, draw_folds(site.n_patients, seed))
    return _scored(SITE, one, "", site, result, seed)


def _outcome_within(
    target: Target, site: ClassTarget, one: FeatureSet, n_permutations: int, seed: int
) -> list[dict[str, object]]:
    """Score predictions of the outcome between patients of the same site."""
    orders = target.permuted(n_permutations, seed, site.codes)
    reduce = one.reducer(target)
    folds = draw_folds(target.n_patients, seed)
    result = cross_validate(target, reduce, orders, folds, site.codes)
    left_out = cross_validate(target, reduce, orders, site.codes[None])
    rows = [
        _scored(WITHIN, one, "", target, result, seed),
        _scored(LEFT_OUT, one, "", target, left_out, seed),
    ]
    for code, name in enumerate(site.classes):
        members = np.where(site.codes == code, 0, -1 - np.arange(len(site.codes)))
        pairs = left_out.pairs.within(members)
        low, high = concordance_interval(target, pairs, seed, left_out.widening)
        n_patients = int((site.codes == code).sum())
        rows.append(_row(LEFT_OUT, one.name, name, n_patients, pairs.concordance, low, high))
    return rows


def _scored(
    check: str, one: FeatureSet, site: str, target: Target, result: CrossValidation, seed: int
) -> dict[str, object]:
    value = float(result.concordance[0])
    low, high = result.interval(target, seed)
    p = np.nan if np.isnan(value) else p_value(result.concordance)
    return _row(check, one.name, site, target.n_patients, value, low, high, p)


def _row(
    check: str,
    name: str,
    site: str,
    n_patients: int,
    value: float,
    low: float = np.nan,
    high: float = np.nan,
    p: float = np.nan,
) -> dict[str, object]:
    values: Sequence[ArrayLike] = (check, name, site, n_patients, value, low, high, p)
    return dict(zip(_COLUMNS, values, strict=True))


def _warnings(table: pd.DataFrame) -> list[str]:
    """Say in words what the table means."""
    by_check = dict(list(table[table["site"] == ""].groupby("check", sort=False)))
    p = float(by_check[OUTCOME]["p"].iloc[0])
    predicted = by_check.get(SITE, table.iloc[:0])
    predicted = predicted[predicted["p"] < _SIGNIFICANT]
    if p >= _SIGNIFICANT or predicted.empty:
        return []
    texts = []
    for name in predicted["set"]:
        inner, outer = (_of_set(by_check[check], name) for check in (WITHIN, LEFT_OUT))
        texts.append(f"{name} {inner} ({outer})")
    return [
        f"confounded by site: the outcome differs by site ({probability('p', p)}), and the site "
        f"can be told from the features; concordance within sites (and of sites that were left "
        f"out): {few(texts, 10)}"
    ]


def _of_set(table: pd.DataFrame, name: str) -> str:
    value = float(table.loc[table["set"] == name, "value"].iloc[0])
    return "none to compare" if np.isnan(value) else f"{value:.2f}"
