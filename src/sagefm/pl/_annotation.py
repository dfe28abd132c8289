"""Plot an annotated slide, and the calibration of its annotator."""

from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from sagefm._colors import colors
from sagefm._errors import InputError
from sagefm._keys import LABEL
from sagefm.evaluate.metrics.classes import calibration_error
from sagefm.pl._canvas import canvases
from sagefm.pl._maps import arrange, column_of, draw_maps
from sagefm.pl._scales import classes, numbers
from sagefm.pl._scorecard import confusion, confusion_size
from sagefm.pl._style import finish, journal
from sagefm.tl.annotation import UNKNOWN

if TYPE_CHECKING:
    from anndata import AnnData

    from sagefm.tl import Annotator
    from sagefm.tl.annotation import HeldOutPredictions

_N_BINS = 10
_MIN_SPOTS = 20
"""Spots in a bin that is drawn."""


def annotation(
    slide: "AnnData",
    key: str = LABEL,
    *,
    show: bool | None = None,
    save: str | Path | None = None,
) -> list[Axes]:
    """Draw labels, their confidence and the novelty of spots on the tissue.

    Parameters
    ----------
    slide
        With the result of :func:`sagefm.tl.annotate`.
    key
        Its `key_added`.
    show, save
        As in scanpy; `save` is a file name.

    Returns
    -------
    Three Axes for each section. Unknown spots are gray in the first.

    Raises
    ------
    InputError
        No such result, or the sections of the object are not known.
    """
    names = [key, f"{key}_confidence", f"{key}_novelty"]
    if missing := [name for name in names if name not in slide.obs]:
        raise InputError(f"obs[{missing[0]!r}]: no such column; run sagefm.tl.annotate first")
    labels = slide.obs[key].astype(object)
    known = [name for name in slide.obs[key].cat.categories if name != UNKNOWN]
    column = pd.Series(pd.Categorical(labels.where(labels != UNKNOWN), categories=known))
    unknown = int((labels == UNKNOWN).sum())
    title = f"label ({unknown:,} unknown)" if unknown else "label"
    drawn = canvases(slide)
    parts = [column.iloc[canvas.rows] for canvas in drawn]
    scale = classes(drawn, key, parts, colors(len(known)), None)
    columns = [column_of(drawn, parts, scale, title)]
    for name, heading in zip(names[1:], ("confidence", "novelty"), strict=True):
        parts = [slide.obs[name].iloc[canvas.rows] for canvas in drawn]
        columns.append(column_of(drawn, parts, numbers(parts, low=0, high=1), heading))
    with journal():
        panels = draw_maps(arrange(columns))
        finish(panels, show, save)
    return panels


def annotator(
    annotator: "Annotator", *, show: bool | None = None, save: str | Path | None = None
) -> list[Axes]:
    """Draw the predictions of an annotator for held-out spots: confusion and calibration.

    Parameters
    ----------
    annotator
        From :func:`sagefm.tl.learn_annotator` or :func:`sagefm.tl.annotate`.
    show, save
        As in scanpy; `save` is a file name.

    Returns
    -------
    Two Axes: a confusion matrix, and a calibration curve (fraction of correct labels against
    confidence) of all held-out spots (thick) and of each held-out group (thin). Of ten bins, those
    with at least 20 spots are drawn. The title has the expected calibration error.
    """
    held_out = annotator.held_out
    names = np.array(annotator.classes)
    spots = pd.DataFrame({"truth": names[held_out.truth], "predicted": names[held_out.predicted]})
    counts = spots.value_counts().rename("n").reset_index()
    width, height = confusion_size(counts)
    with journal():
        _, (top, below) = plt.subplots(
            2, 1, figsize=(width, height + 2.2), height_ratios=(height, 2.2), layout="constrained"
        )
        confusion(counts, title=f"{held_out.unit}s held out", ax=top, show=False)
        _calibration(held_out, below)
        finish([top, below], show, save)
    return [top, below]


def _calibration(held_out: "HeldOutPredictions", panel: Axes) -> None:
    correct = held_out.truth == held_out.predicted
    panel.plot([0, 1], [0, 1], color="#999999", lw=0.8, ls=":")
    for group in np.unique(held_out.groups):
        members = held_out.groups == group
        panel.plot(*_curve(correct[members], held_out.confidence[members]), color="#BBBBBB", lw=0.7)
    panel.plot(*_curve(correct, held_out.confidence), color=colors(1)[0], lw=1.6, marker="o", ms=3)
    error = calibration_error(correct, held_out.confidence)
    panel.set_title(f"expected calibration error {error:.2f}")
    panel.set(xlabel="confidence", ylabel="fraction of correct labels", xlim=(0, 1), ylim=(0, 1))
    panel.set_aspect("equal")
    panel.spines[["top", "right"]].set_visible(False)


def _curve(correct: np.ndarray, confidence: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute mean confidence and fraction of correct labels in each bin."""
    bins = np.minimum((confidence * _N_BINS).astype(int), _N_BINS - 1)
    sizes = np.bincount(bins, minlength=_N_BINS)
    kept = sizes >= _MIN_SPOTS
    confidences, fractions = (
        np.bincount(bins, weights=values, minlength=_N_BINS)[kept] / sizes[kept]
        for values in (confidence, correct)
    )
    return confidences, fractions
