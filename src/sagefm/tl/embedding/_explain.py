"""Attribute the embedding of a spot to genes, by integrated gradients."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from sagefm._as_model import as_model
from sagefm._errors import InputError
from sagefm._text import few, numbered
from sagefm._types import Positions, Singles

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData

    from sagefm.model import SageFM


def explain(
    slide: "AnnData",
    model: "SageFM | str | Path",
    spots: str | Sequence[str],
    *,
    against: Sequence[str] | None = None,
    steps: int = 64,
    top: int | None = 20,
    layer: str | None = None,
    slide_key: str | None = None,
) -> pd.DataFrame:
    """Attribute the difference between the embedding of a spot and a baseline to genes.

    Integrated gradients (Sundararajan, Taly and Yan 2017) along a straight path from the baseline,
    the mean neighborhood of the slide or of `against`, to the neighborhood of the spot. The
    explained quantity is the distance that the embedding moves along the line from its start to
    its end. Within each step the slope of a unit is the ratio of differences (the rescale rule of
    DeepLIFT, Shrikumar, Greenside and Kundaje 2017), so that the attributions of all genes add up
    to that distance, to rounding, for any number of steps.

    With the context network, the input is the residual of a gene from its expectation given the
    library size of the spot and the profile of the slide; the baseline is the mean residual, and
    no steps are needed.

    Parameters
    ----------
    slide
        Raw counts and ``obsm["spatial"]``.
    model
        A model, or its path or address; ``"default"`` is that of the package.
    spots
        Names of spots.
    against
        Names of the spots whose mean neighborhood is the baseline; all spots if not given. If the
        object holds several sections, the context network uses those in the section of the spot.
    steps
        Number of steps of the path.
    top
        How many genes to keep per spot, by absolute total; all that are not zero if None.
    layer
        Where the raw counts are, if not in ``X`` or ``layers["counts"]``.
    slide_key
        ``obs`` column with the section of each spot, if the object holds several.

    Returns
    -------
    A row per spot and gene, the largest absolute total first: spot, gene, center and neighbors (the
    attributions to its counts there) and total, their sum; in units of the embedding. A gene with a
    positive total moves the embedding from the baseline towards the spot, one with a negative total
    moves it back.

    Raises
    ------
    InputError
        No spot, or one that is not in the slide; `against` leaves a spot without a baseline; a
        number is out of range; or as :meth:`sagefm.SageFM.prepare`.
    """
    model = as_model(model)
    for name, value in (("steps", steps), ("top", 1 if top is None else top)):
        if value < 1:
            raise InputError(f"{name}={value}: give a whole number from 1 on")
    rows = _rows(slide, spots, "spots")
    baseline = np.arange(slide.n_obs) if against is None else _rows(slide, against, "against")
    aligned = model.prepare(slide, layer=layer, slide_key=slide_key)
    encoded, neighbors = model.encode(aligned), aligned.neighbors
    with torch.inference_mode():
        tables = [
            _table(model, *encoded.explain(neighbors[row], neighbors[baseline], steps), top)
            for row in rows
        ]
    names = np.repeat(slide.obs_names[rows].astype(str), [len(table) for table in tables])
    table = pd.concat(tables, ignore_index=True)
    table.insert(0, "spot", names)
    return table


def _rows(slide: "AnnData", names: str | Sequence[str], argument: str) -> Positions:
    """Find spots by name."""
    requested = [names] if isinstance(names, str) else list(names)
    if not requested:
        raise InputError(f"{argument}: is empty; name spots of the slide")
    index = pd.Index(slide.obs_names.astype(str))
    if not index.is_unique:
        raise InputError("names of spots are not unique; run slide.obs_names_make_unique() first")
    rows = np.asarray(index.get_indexer(requested), dtype=np.int64)
    absent = [name for name, row in zip(requested, rows, strict=True) if row < 0]
    if absent:
        raise InputError(
            f"{argument}: {numbered(len(absent), 'name')} not in the slide ({few(absent)}); its "
            f"spots are named like {few(index, 2)}"
        )
    return rows


def _table(model: "SageFM", center: Singles, neighbors: Singles, top: int | None) -> pd.DataFrame:
    """List the genes of one spot, the largest attribution first."""
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
