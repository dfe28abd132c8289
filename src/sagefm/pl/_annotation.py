"""Pictures of an annotated slide, and of how far its annotator can be trusted."""

from pathlib import Path
from typing import TYPE_CHECKING

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from sagefm._errors import InputError
from sagefm._keys import LABEL, SPATIAL
from sagefm.evaluate.metrics.classes import calibration_error
from sagefm.pl._scorecard import confusion
from sagefm.pl._spatial import require_one_slide, spatial
from sagefm.pl._style import colors, finish, journal
from sagefm.pp.counts import coordinates
from sagefm.tl.annotation import UNKNOWN

if TYPE_CHECKING:
    from anndata import AnnData

    from sagefm.tl import Annotator
    from sagefm.tl.annotation import HeldOut

_BINS = 10
_LEAST = 20
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
        raise InputError(f"obs[{missing[0]!r}]: is not there; run sagefm.tl.annotate first")
    require_one_slide(slide)
    labels = slide.obs[key].astype(object)
    classes = [name for name in slide.obs[key].cat.categories if name != UNKNOWN]
    drawn = ad.AnnData(
        obs=pd.DataFrame(
            {
                "label": pd.Categorical(labels.where(labels != UNKNOWN), categories=classes),
                "confidence": slide.obs[names[1]].to_numpy(),
                "novelty": slide.obs[names[2]].to_numpy(),
            },
            index=slide.obs_names,
        ),
        uns={name: slide.uns[name] for name in (SPATIAL,) if name in slide.uns},
        obsm={SPATIAL: coordinates(slide)},
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
    """Draw what an annotator said of held-out spots: which classes it confuses, and how sure.

    Parameters
    ----------
    annotator
        Of :func:`sagefm.tl.learn_annotator`.
    show, save
        As in scanpy; `save` is a file name.

    Returns
    -------
    Two Axes. A confusion matrix, and a calibration curve: the fraction of right labels against the
    confidence, all held-out spots together (thick) and for each held-out group (thin), in ten bins
    of which those with 20 spots at least are drawn; its title has the expected calibration error.
    """
    held = annotator.held_out
    names = np.array(annotator.classes)
    spots = pd.DataFrame({"truth": names[held.truth], "predicted": names[held.predicted]})
    counts = spots.value_counts().rename("n").reset_index()
    side = 1.6 + 0.4 * len(names)
    with journal():
        _, (left, right) = plt.subplots(
            1, 2, figsize=(2 * side + 1.2, max(side, 2.6)), layout="constrained"
        )
        confusion(counts, title=f"{held.unit}s held out", ax=left, show=False)
        _calibration(held, right)
        finish([left, right], show, save)
    return [left, right]


def _calibration(held: "HeldOut", panel: Axes) -> None:
    right = held.truth == held.predicted
    panel.plot([0, 1], [0, 1], color="#999999", lw=0.8, ls=":")
    for group in np.unique(held.groups):
        own = held.groups == group
        panel.plot(*_curve(right[own], held.confidence[own]), color="#BBBBBB", lw=0.7)
    panel.plot(*_curve(right, held.confidence), color=colors(1)[0], lw=1.6, marker="o", ms=3)
    error = calibration_error(right, held.confidence)
    panel.set_title(f"expected calibration error {error:.2f}")
    panel.set(xlabel="confidence", ylabel="fraction of right labels", xlim=(0, 1), ylim=(0, 1))
    panel.set_aspect("equal")
    panel.spines[["top", "right"]].set_visible(False)


def _curve(right: np.ndarray, confidence: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute mean confidence and fraction of right labels in each bin."""
    bins = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    sizes = np.bincount(bins, minlength=_BINS)
    kept = sizes >= _LEAST
    sums = [np.bincount(bins, weights=w, minlength=_BINS)[kept] for w in (confidence, right)]
    return sums[0] / sizes[kept], sums[1] / sizes[kept]
