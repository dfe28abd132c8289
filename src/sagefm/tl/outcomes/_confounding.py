"""Whether the site explains what slides say: scores of it, of slides for it, and within it."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from sagefm._errors import InputError
from sagefm._text import probability
from sagefm._types import Bools, Codes
from sagefm.stats.outcomes import Evaluation, FeatureSet, Target, evaluate_sets, target_of
from sagefm.stats.outcomes.crossval import concordance_interval, cross_validate
from sagefm.stats.outcomes.evaluation import p_value

OUTCOME_FROM_SITE, SITE_FROM_SLIDES = "outcome from site", "site from slides"
WITHIN_SITES, OTHER_SITES = "slides within sites", "slides of other sites"
_SIGNIFICANT = 0.05
CHECKS = ["check", "set", "n_patients", "concordance", "low", "high", "p"]


def check_site(
    target: Target,
    sites: "pd.Series[str]",
    means: FeatureSet,
    best: FeatureSet,
    evaluation: Evaluation,
    *,
    n_permutations: int,
    seed: int,
    progress: Callable[[str], object],
) -> tuple[pd.DataFrame, list[str]]:
    """Check whether the site of patients confounds what their slides say.

    Parameters
    ----------
    target
        The outcome.
    sites
        The site of each patient of the table.
    means
        The features of slides that the site is predicted from.
    best
        The features of slides that are compared within sites.
    evaluation
        Their evaluation, with permutations within sites.
    n_permutations, seed, progress
        As for :func:`sagefm.stats.outcomes.evaluate_sets`.

    Returns
    -------
    A row per check, and warnings.
    """
    codes = pd.factorize(sites, sort=True)[0]
    names = [str(name) for name in sorted(sites.unique())]
    one_hot = np.asarray(codes[:, None] == np.arange(len(names)), dtype=np.float64)
    progress("site")
    of_site = FeatureSet("site", names, one_hot)
    from_site = evaluate_sets(target, [of_site], n_permutations=n_permutations, seed=seed)
    rows = [{"check": OUTCOME_FROM_SITE, **from_site.scores.iloc[0]}]
    warnings = []
    try:
        site = target_of(pd.DataFrame({"site": sites}), "site", "classes")
        slides = evaluate_sets(site, [means], n_permutations=n_permutations, seed=seed)
    except InputError as error:
        warnings.append(f"whether slides show the site cannot be tested: {error}")
        rows.append({"check": SITE_FROM_SLIDES, "set": means.name})
    else:
        rows.append({"check": SITE_FROM_SLIDES, **slides.scores.iloc[0]})
    rows.append({"check": WITHIN_SITES, **_within(target, codes, best, evaluation, seed)})
    rows.append({"check": OTHER_SITES, **_of_other_sites(target, codes, best, evaluation)})
    table = pd.DataFrame(rows).reindex(columns=CHECKS)
    return table, [*_warnings(table), *warnings]


def _within(
    target: Target, sites: Codes, features: FeatureSet, evaluation: Evaluation, seed: int
) -> dict[str, object]:
    """Compare only patients of the same site; outcomes are permuted within sites."""
    result = cross_validate(
        target, features.reducer(target), evaluation.labelings, seed, groups=sites[target.known]
    )  # fmt: skip
    low, high = concordance_interval(target, result.pairs, seed)
    return {
        "set": features.name, "n_patients": target.n_patients,
        "concordance": result.concordance[0], "low": low, "high": high,
        "p": p_value(result.concordance) if np.isfinite(result.concordance[0]) else np.nan,
    }  # fmt: skip


def _of_other_sites(
    target: Target, sites: Codes, features: FeatureSet, evaluation: Evaluation
) -> dict[str, object]:
    """Predict each site from all others, and compare patients of the same site."""
    known = np.flatnonzero(target.known)
    own = sites[known]
    orders = evaluation.labelings
    agreement, compared = np.zeros((2, len(orders), len(target.outputs)))
    for site in np.unique(own):
        inner = own != site
        if inner.all() or not inner.any() or not _can_train(target, inner):
            continue
        training = np.zeros(len(target.known), dtype=bool)
        training[known[inner]] = True
        values = features.fold(training, target.n_components).features[known]
        predicted = target.ranked(target.fit(values[inner], orders[:, inner])(values[~inner]))
        for output, signs in enumerate(target.signs):
            held = orders[:, ~inner]
            true = signs[held[:, :, None], held[:, None, :]]
            one = predicted[:, :, output]
            in_order = true * np.sign(one[:, :, None] - one[:, None, :])
            agreement[:, output] += in_order.sum(axis=(1, 2))
            compared[:, output] += np.abs(true).sum(axis=(1, 2))
    with np.errstate(invalid="ignore"):
        concordance = 0.5 + 0.5 * (agreement / compared).mean(axis=1)
    return {
        "set": features.name, "n_patients": target.n_patients, "concordance": concordance[0],
        "p": p_value(concordance) if np.isfinite(concordance[0]) else np.nan,
    }  # fmt: skip


def _can_train(target: Target, inner: Bools) -> bool:
    """Whether the patients of other sites differ in their outcome."""
    return bool(target.signs[:, inner][:, :, inner].any())


def _warnings(table: pd.DataFrame) -> list[str]:
    p = table.set_index("check")["p"]
    found = []
    if p[OUTCOME_FROM_SITE] < _SIGNIFICANT:
        found.append(
            f"the site predicts the outcome ({probability('p', p[OUTCOME_FROM_SITE])}): what "
            "slides say may be the site; read the scores within sites"
        )
    if p[SITE_FROM_SLIDES] < _SIGNIFICANT:
        found.append(
            f"slides show their site ({probability('p', p[SITE_FROM_SLIDES])}): a batch effect"
        )
    return found
