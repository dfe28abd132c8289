"""Plot an annotated slide, and the calibration of its annotator."""

from pathlib import Path
from typing import TYPE_CHECKING

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from sagefm._colors import colors
from sagefm._errors import InputError
from sagefm._keys import LABEL, SPATIAL
from sagefm.evaluate.metrics.classes import calibration_error
from sagefm.pl._scorecard import confusion
from sagefm.pl._spatial import require_one_slide, spatial
from sagefm.pl._style import finish, journal
from sagefm.pp.counts import coordinates
from sagefm.pp.image import image_of
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
    Three Axes. Unknown spots are gray in the first.

    Raises
    ------
    InputError
        No such result, or the object holds several slides.
    """
    names = [key, f"{key}_confidence", f"{key}_novelty"]
    if missing := [name for name in names if name not in slide.obs]:
        raise InputError(f"obs[{missing[0]!r}]: no such column; run sagefm.tl.annotate first")
    require_one_slide(slide)
    labels = slide.obs[key].astype(object)
    classes = [name for name in slide.obs[key].cat.categories if name != UNKNOWN]
    points = coordinates(slide)
    drawn = ad.AnnData(
        obs=pd.DataFrame(
            {
                "label": pd.Categorical(labels.where(labels != UNKNOWN), categories=classes),
                "confidence": slide.obs[names[1]].to_numpy(),
                "novelty": slide.obs[names[2]].to_numpy(),
            },
            index=slide.obs_names,
        ),
        uns=image_of(slide, points),
        obsm={SPATIAL: points},
    )
    unknown = int((labels == UNKNOWN).sum())
    first = f"label ({unknown:,} unknown)" if unknown else "label"
    axes = spatial(
        drawn, ["label", "confidence", "novelty"], title=[first, "confidence", "novelty"],
        show=False,
    )  # fmt: skip
    panels = axes if isinstance(axes, list) else [axes]
    for panel in panels[1:]:
        panel.collections[-1].set_clim(0, 1)
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
    side = 1.6 + 0.4 * len(names)
    with journal():
        _, (left, right) = plt.subplots(
            1, 2, figsize=(2 * side + 1.2, max(side, 2.6)), layout="constrained"
        )
        confusion(counts, title=f"{held_out.unit}s held out", ax=left, show=False)
        _calibration(held_out, right)
        finish([left, right], show, save)
    return [left, right]


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
