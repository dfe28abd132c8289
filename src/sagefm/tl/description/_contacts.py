"""Test which domains touch more, or less, than where one of them is moved at random."""

from itertools import combinations

import numpy as np
import pandas as pd

from sagefm._types import Bools, Floats, Positions
from sagefm.stats.resampling import LEAST_UNITS, benjamini_hochberg
from sagefm.tl.description._motions import motions
from sagefm.tl.description._sections import DomainSection, LabeledSections
from sagefm.tl.description._shapes import touching
from sagefm.tl.description._tests import one_sample_p

N_MOTIONS = 499
_PSEUDO = 0.5


def section_contacts(
    section: DomainSection, n_domains: int, rng: np.random.Generator, n_motions: int
) -> tuple[Floats, Floats]:
    """Count contacts of domains, as they are and after random motions.

    One domain stays where it is. The others are moved together: mirrored or not, rotated by a
    random angle, and shifted, with the section repeated in all directions. A spot beside the domain
    then has the label of the spot outside it that is nearest to where the motion takes it. So
    sizes, shapes and borders of the other domains stay, and only their place changes.

    Returns
    -------
    Contacts: domains × domains, symmetric. And those of motions: domain that stays × motions ×
    other domain.
    """
    edges = touching(section.points)
    both = np.concatenate([edges, edges[:, ::-1]])
    pairs = section.codes[both]
    observed = np.zeros((n_domains, n_domains))
    np.add.at(observed, (pairs[:, 0], pairs[:, 1]), 1)
    np.fill_diagonal(observed, 0)
    moved = np.full((n_domains, n_motions, n_domains), 0.0)
    for code in range(n_domains):
        outside = section.codes != code
        beside = both[(section.codes[both[:, 0]] == code) & outside[both[:, 1]], 1]
        if len(beside) and len(np.unique(section.codes[outside])) > 1:
            moved[code] = _moved(section, outside, beside, n_domains, n_motions, rng)
        else:
            moved[code] = observed[code]
    return observed, moved


def _moved(
    section: DomainSection,
    outside: Bools,
    beside: Positions,
    n_domains: int,
    n_motions: int,
    rng: np.random.Generator,
) -> Floats:
    """Count the labels beside a domain after each motion."""
    labels = section.codes[outside]
    places, weights = np.unique(beside, return_counts=True)
    nearest = motions(section.points, places, outside, n_motions, rng)
    return np.stack([np.bincount(labels[at], weights, minlength=n_domains) for at in nearest])


def contact_table(labeled: LabeledSections, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Test every two domains over all sections, and tabulate them per section.

    Returns
    -------
    A row per pair: domain, other, contacts, expected, log2_ratio, z (standard deviations of the
    motions), p (two-sided), q, unit and n_units. With three patients or more that have both, p is
    of their log2 ratios (t test against 0), else of the motions. And a row per pair and section.
    """
    n = len(labeled.domains)
    found = [
        section_contacts(s, n, np.random.default_rng([seed, i]), N_MOTIONS)
        for i, s in enumerate(labeled.sections)
    ]
    rows, per_section = [], []
    for first, second in combinations(range(n), 2):
        pair = {"domain": labeled.domains[first], "other": labeled.domains[second]}
        observed, nulls = 0.0, np.zeros((2, N_MOTIONS))
        ratios: dict[str, list[float]] = {}
        for section, (contacts, moved) in zip(labeled.sections, found, strict=True):
            if not (section.codes == first).any() or not (section.codes == second).any():
                continue
            own = np.stack([moved[first][:, second], moved[second][:, first]])
            observed += contacts[first, second]
            nulls += own
            ratio = _log2_ratio(contacts[first, second], own.mean())
            ratios.setdefault(section.patient, []).append(ratio)
            per_section.append({
                "section": section.name, "patient": section.patient,
                "condition": section.condition, **pair, "contacts": int(contacts[first, second]),
                "expected": own.mean(), "log2_ratio": ratio,
            })  # fmt: skip
        if ratios:
            rows.append(pair | _tested(observed, nulls, ratios))
    columns = [
        "domain", "other", "contacts", "expected", "log2_ratio", "z", "p", "q", "unit", "n_units",
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=columns)
    table["q"] = benjamini_hochberg(table["p"].astype(float))
    columns = ["section", "patient", "condition", *columns[:5]]
    return table, pd.DataFrame(per_section, columns=columns)


def _log2_ratio(observed: float, expected: float) -> float:
    return float(np.log2((observed + _PSEUDO) / (expected + _PSEUDO)))


def _tested(observed: float, nulls: Floats, ratios: dict[str, list[float]]) -> dict[str, object]:
    """Test one pair over patients, or against the motions of either domain."""
    means = np.array([np.mean(values) for values in ratios.values()])
    expected, spread = float(nulls.mean()), float(nulls.std(axis=1).mean())
    over_patients = len(means) >= LEAST_UNITS
    if over_patients:
        p = float(one_sample_p(means[:, None])[0])
    else:
        above = (1 + (nulls >= observed).sum(axis=1)) / (1 + nulls.shape[1])
        below = (1 + (nulls <= observed).sum(axis=1)) / (1 + nulls.shape[1])
        p = float(min(1.0, 2 * min(above.mean(), below.mean())))
    return {
        "contacts": int(observed), "expected": expected,
        "log2_ratio": float(means.mean()) if over_patients else _log2_ratio(observed, expected),
        "z": (observed - expected) / spread if spread > 0 else 0.0,
        "p": p, "q": np.nan, "unit": "patient" if over_patients else "motion",
        "n_units": len(means) if over_patients else nulls.shape[1],
    }  # fmt: skip
