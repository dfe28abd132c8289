"""Why a spot has the embedding it has: the share of each gene in it, by integrated gradients."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from sagefm._errors import InputError
from sagefm._text import few, numbered

if TYPE_CHECKING:
    from anndata import AnnData

    from sagefm.model import SageFM

Floats = NDArray[np.float32]


def explain(
    slide: "AnnData",
    model: "SageFM",
    spots: str | Sequence[str],
    *,
    against: Sequence[str] | None = None,
    steps: int = 64,
    top: int | None = 20,
    layer: str | None = None,
    slide_key: str | None = None,
) -> pd.DataFrame:
    """Find the genes that set the embedding of a spot apart from that of a baseline.

    Integrated gradients (Sundararajan, Taly and Yan 2017): the path leads straight from the
    baseline, the mean neighborhood of the slide or of `against`, to the neighborhood of the spot,
    and what is explained is how far the embedding moves in the direction from its first to its
    last place. Within each step the slope of a unit is its rise over its run (the rescale rule of
    DeepLIFT, Shrikumar, Greenside and Kundaje 2017), so that the attributions of all genes add up
    to that distance, to rounding, however few the steps.

    With the context network a gene counts by how it departs from a random draw of the spot's depth
    from its slide, the baseline is a spot of the mean of these departures, and no steps are needed.

    Parameters
    ----------
    slide
        Raw counts and ``obsm["spatial"]``.
    model
        A model.
    spots
        Names of spots.
    against
        Names of the spots whose mean neighborhood is the baseline; all spots if not given. Of
        several slides in one object, a network that reads each by itself, ``context``, takes those
        of the slide of the spot.
    steps
        Into how many steps the path is cut.
    top
        How many genes to keep per spot, by the size of their total; all that are not zero if None.
    layer
        Where the raw counts are, if not in ``X`` or ``layers["counts"]``.
    slide_key
        ``obs`` column that tells the slides apart, if the object holds several.

    Returns
    -------
    A row per spot and gene, the largest total first: spot, gene, center and neighbors (the parts of
    its counts there) and total, their sum; units of the embedding. A gene of positive total moved
    the embedding from the baseline to where it is: it is more (or, if the model turns on its
    absence, less) expressed than in the baseline. One of negative total held it back.

    Raises
    ------
    InputError
        No spot, or one that is not in the slide; `against` leaves a spot no baseline; a number is
        out of its range; or the slide cannot be prepared.
    """
    for name, value in (("steps", steps), ("top", 1 if top is None else top)):
        if value < 1:
            raise InputError(f"{name}={value}: give a whole number from 1 on")
    rows = _rows(slide, spots, "spots")
    baseline = np.arange(slide.n_obs) if against is None else _rows(slide, against, "against")
    prepared = model.prepare(slide, layer=layer, slide_key=slide_key)
    reading, neighbors = model.encode(prepared), prepared.neighbors
    with torch.inference_mode():
        found = [reading.explain(neighbors[row], neighbors[baseline], steps) for row in rows]
    parts = [_of_one(model, one, top) for one in found]
    names = np.repeat(slide.obs_names[rows].astype(str), [len(part) for part in parts])
    table = pd.concat(parts, ignore_index=True)
    table.insert(0, "spot", names)
    return table


def _rows(slide: "AnnData", names: str | Sequence[str], what: str) -> NDArray[np.int64]:
    """Find spots by name."""
    wanted = [names] if isinstance(names, str) else list(names)
    if not wanted:
        raise InputError(f"{what}: names no spot; name some of the slide")
    known = pd.Index(slide.obs_names.astype(str))
    if not known.is_unique:
        raise InputError("spots share their names; run slide.obs_names_make_unique() first")
    rows = np.asarray(known.get_indexer(wanted), dtype=np.int64)
    absent = [name for name, row in zip(wanted, rows, strict=True) if row < 0]
    if absent:
        raise InputError(
            f"{what}: {numbered(len(absent), 'name')} not in the slide ({few(absent)}); its spots "
            f"are named like {few(known, 2)}"
        )
    return rows


def _of_one(model: "SageFM", parts: tuple[Floats, Floats], top: int | None) -> pd.DataFrame:
    """Tell the genes of one spot, the strongest first."""
    center, neighbors = parts
    total = center + neighbors
    order = np.argsort(-np.abs(total), kind="stable")[:top]
    order = order[total[order] != 0]
    return pd.DataFrame(
        {
            "gene": np.asarray(model.vocabulary.symbols, dtype=object)[order],
            "center": center[order],
            "neighbors": neighbors[order],
            "total": total[order],
        }
    )
