"""Whether the pairs of a call stand out as a set: by the model, and by the slide itself."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sagefm._types import Floats
from sagefm.tl.perturbation._coexpression import COMPONENTS, NEIGHBORS, SAME_SPOT
from sagefm.tl.perturbation._plan import Direction
from sagefm.tl.perturbation._set_test import set_test

MODEL, BEYOND = "model", "beyond co-expression"
LEAST_DETECTED = 0.03
"""Fraction of spots: pairs with a gene below it are left out of the test of a set."""
_POWER = 0.25
"""z of a set, by the root of its ligands, for a shift of 0.2 standard deviations."""


def power(n_ligands: int) -> float:
    """Compute the z to be expected of a set whose pairs are shifted by 0.2 standard deviations.

    That is what ligands and their receptors show on tissue. The pairs of a ligand are not
    independent, so that ligands count, not pairs: 3 for 150 ligands, 5 for 350, 2 for 60.
    """
    return float(_POWER * np.sqrt(n_ligands))


def testable(direction: Direction, detected: Floats) -> NDArray[np.bool_]:
    """Tell which pairs have two genes, both in enough spots; all pairs, where none has."""
    seen = np.minimum(detected[direction.source], detected[direction.target]) >= LEAST_DETECTED
    seen &= direction.source != direction.target
    return seen if seen.any() else np.ones(len(seen), dtype=bool)


def sets_table(
    directions: Sequence[Direction],
    effects: Mapping[str, Floats],
    correlations: Mapping[str, Mapping[str, Floats]],
    detected: Floats,
    seed: int,
) -> pd.DataFrame:
    """Test the set of all pairs by each evidence, in each direction.

    Parameters
    ----------
    directions
        Forward and reversed.
    effects
        Direction → raised genes × columns: effects of the model.
    correlations
        Direction → evidence → raised genes × columns: z scores of the slide.
    detected
        (genes) fraction of spots with a count, mean over slides.
    seed
        Of the draws.

    Returns
    -------
    A row per evidence and direction: evidence, direction, and the fields of :class:`SetTest`.
    Correlations in the same spot have no direction: they have one row.
    """
    rows = []
    for direction in directions:
        itself = direction.raised[:, None] == direction.columns
        # What a gene says of itself belongs to no pair.
        of_model, *others = (
            np.where(itself, np.nan, one)
            for one in (effects[direction.name], *correlations[direction.name].values())
        )
        of_slide = dict(zip(correlations[direction.name], others, strict=True))
        scores = {
            MODEL: of_model,
            NEIGHBORS: of_slide[NEIGHBORS],
            SAME_SPOT: of_slide[SAME_SPOT],
            BEYOND: beyond(of_model, [of_slide[SAME_SPOT], of_slide[NEIGHBORS]]),
            COMPONENTS: of_slide[COMPONENTS],
        }
        if direction is not directions[0]:
            del scores[SAME_SPOT]
        for evidence, values in scores.items():
            row = set_row(direction, values, detected, seed)
            rows.append({"evidence": evidence, "direction": direction.name, **row})
    order = {name: place for place, name in enumerate([MODEL, NEIGHBORS, SAME_SPOT, BEYOND])}
    table = pd.DataFrame(rows)
    place = table["evidence"].map(order).fillna(len(order))
    return table.iloc[np.argsort(place, kind="stable")].reset_index(drop=True)


def set_row(direction: Direction, scores: Floats, detected: Floats, seed: int) -> dict[str, float]:
    """Test the set of the pairs that are in enough spots: the fields of :class:`SetTest`."""
    swaps = direction.swaps().of(np.flatnonzero(testable(direction, detected)))
    return set_test(filled(scores), swaps, seed)._asdict()


def filled(scores: Floats) -> Floats:
    """Replace missing scores by the mean of their column."""
    known = np.isfinite(scores)
    means = np.nansum(scores, axis=0) / np.maximum(known.sum(axis=0), 1)
    return np.where(known, scores, means)


def beyond(effects: Floats, correlations: Sequence[Floats]) -> Floats:
    """Subtract from effects what correlations over the same slide explain, by least squares.

    All raised genes and columns are fitted together, each column scaled to standard deviation 1.
    """
    known = np.isfinite([effects, *correlations]).all(axis=0)
    x = np.stack([scaled(one)[known] for one in correlations], axis=1)
    y = scaled(effects)
    left = y[known] - x @ np.linalg.lstsq(x, y[known])[0]
    residuals = np.full(effects.shape, np.nan)
    residuals[known] = left
    return residuals


def scaled(values: Floats) -> Floats:
    """Center each column and scale it to standard deviation 1."""
    spread = np.nanstd(values, axis=0)
    scale = np.divide(1, spread, out=np.zeros_like(spread), where=spread > 1e-12)
    return np.asarray((values - np.nanmean(values, axis=0)) * scale)
