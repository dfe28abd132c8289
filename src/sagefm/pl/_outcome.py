"""Plot what slides say of patients: one figure of panels."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from sagefm.pl._outcome_panels import (
    draw_curve,
    draw_forest,
    draw_scores,
    forest_height,
)
from sagefm.pl._outcome_risks import draw_calibration, draw_risks
from sagefm.pl._outcome_words import row_of, size, verdict, write_note
from sagefm.pl._style import finish, journal, wrapped
from sagefm.pl._survival import draw_kaplan_meier

if TYPE_CHECKING:
    from sagefm.tl.outcomes import Outcome

_WIDTH = 7.1
"""Width of a page of a journal, in inches."""
_LETTERS = 95


def outcome(
    result: "Outcome",
    *,
    suppress_below: int = 0,
    show: bool | None = None,
    save: str | Path | None = None,
) -> list[Axes]:
    """Plot what slides say of the outcome of patients, and whether to believe it.

    Parameters
    ----------
    result
        Of :func:`sagefm.tl.outcome`.
    suppress_below
        Numbers of patients from 1 to below this are written as ``<5``, and groups of the
        calibration hold at least as many.
    show, save
        As in scanpy; `save` is a file name.

    Returns
    -------
    The Axes of five panels; the title says whether the slides predict the outcome.

    - The score of every feature set with its interval, on a band of what permutations of the
      patients have. Squares: clinical columns and pseudobulk, which must be beaten. Gray: not
      significant after the correction over all sets.
    - The effects of the features of the best set, as :func:`forest`.
    - The predictions of that set for patients that were left out: :func:`kaplan_meier` of risk
      groups, a strip for each class, or observed against predicted numbers.
    - Their calibration, as :func:`outcome_calibration`.
    - The learning curve, as :func:`learning_curve`.
    """
    heights = _heights(result)
    with journal():
        figure: Any = plt.figure(figsize=(_WIDTH, sum(heights) + 1.1), layout="constrained")
        top, middle, bottom = figure.subfigures(3, 1, height_ratios=heights)
        panels = [top.subplots(), *middle.subplots(1, 2), *bottom.subplots(1, 2)]
        draw_scores(panels[0], result)
        draw_forest(panels[1], result, None)
        if result.kind == "survival":
            draw_kaplan_meier(panels[2], result, suppress_below)
        else:
            draw_risks(panels[2], result)
        draw_calibration(panels[3], result, suppress_below)
        draw_curve(panels[4], result)
        for panel, letter in zip(panels, "abcde", strict=True):
            title = panel.get_title()
            panel.set_title("")
            pad = 20 if letter == "a" else 6  # below it is the legend
            panel.set_title(rf"$\mathbf{{{letter}}}$   {title}", loc="left", pad=pad)
        title = f"{verdict(result)}\n{size(result, row_of(result, None), suppress_below)}"
        figure.suptitle(wrapped(title, _LETTERS), fontsize=9)
        write_note(figure, result.note, *result.warnings)
        finish(panels, show, save)
    return panels


def _heights(result: "Outcome") -> tuple[float, float, float]:
    """Choose the heights of the rows of panels, in inches."""
    return 1.1 + 0.2 * len(result.scores), max(2.5, 1.0 + forest_height(result, None)), 2.4
