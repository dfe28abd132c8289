"""Copy results of aggregated spots to the bins or cells inside them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy.sparse import issparse

from sagefm._errors import InputError
from sagefm._text import few
from sagefm._types import Positions
from sagefm._uns import provenance, texts
from sagefm.pp.aggregate import N_AGGREGATED, OF_BINS, STEP, array_of
from sagefm.pp.counts import coordinates
from sagefm.pp.labels import text_of
from sagefm.pp.sections import find_slide_key
from sagefm.pp.tiling import Frame, Tiling, located


def disaggregate(
    aggregated: AnnData,
    slide: AnnData,
    keys: Sequence[str] | None = None,
    *,
    slide_key: str | None = None,
) -> pd.DataFrame:
    """Copy labels, values and embeddings of aggregated spots to the bins or cells inside them.

    Spots are found by coordinates: `slide` may be what was aggregated, a part of it, or other bins
    or cells of the same sections in the same coordinates, such as cells for hexagons of bins.

    Parameters
    ----------
    aggregated
        A result of :func:`aggregate`, or some of its spots, with results of any program.
    slide
        The bins or cells; the copies are written into it. They have no value outside all spots.
    keys
        Columns of ``obs`` or keys of ``obsm``; the columns of ``obs`` that `slide` lacks if not
        given. Numbers are copied, not divided.
    slide_key
        ``obs`` column with the section of each bin, if the object holds several.

    Returns
    -------
    A row per key: slot, n_spots (bins or cells with a value) and n_missing.

    Raises
    ------
    InputError
        `aggregated` is no result of :func:`aggregate`, or not of these sections; or it lacks a key.
    """
    where = _spot_of(aggregated, slide, slide_key)
    if keys is None:
        keys = [key for key in aggregated.obs if key not in slide.obs and key not in OF_BINS]
        if not keys:
            raise InputError(
                "the aggregated slide has no column of obs that the slide lacks; name one in keys"
            )
    missing = [key for key in keys if key not in aggregated.obs and key not in aggregated.obsm]
    if missing or isinstance(keys, str):
        raise InputError(
            f"keys: the aggregated slide has no {few(missing) or repr(keys)}; list some of: "
            f"{few([*aggregated.obs, *aggregated.obsm], 20)}"
        )
    rows = []
    for key in keys:
        if key in aggregated.obs:
            slide.obs[key] = _copied_column(aggregated.obs[key], where).set_axis(slide.obs_names)
            if (colors := f"{key}_colors") in aggregated.uns:
                slide.uns[colors] = aggregated.uns[colors]
        else:
            slide.obsm[key] = _copied_table(key, aggregated.obsm[key], where, slide.obs_names)
        n_missing = int((where < 0).sum())
        slot = f"{'obs' if key in aggregated.obs else 'obsm'}['{key}']"
        rows.append({"key": key, "slot": slot, "n_spots": slide.n_obs - n_missing,
                     "n_missing": n_missing})  # fmt: skip
    return pd.DataFrame(rows).set_index("key")


def _spot_of(aggregated: AnnData, slide: AnnData, slide_key: str | None) -> Positions:
    """Find the row of the aggregated slide that each bin lies in; -1 for none."""
    entry = provenance(aggregated, STEP, to=str, frames=np.ndarray)
    array, frames = array_of(aggregated.obs), entry.get("frames", np.empty(0))
    if array is None or N_AGGREGATED not in aggregated.obs or frames.shape[1:] != (3, 2):
        raise InputError(
            "the aggregated slide has no record of its grid; give a result of sagefm.pp.aggregate"
        )
    tiling, points = Tiling.of(entry["to"]), coordinates(slide)
    key = find_slide_key(slide, slide_key)
    codes, names = np.zeros(slide.n_obs, dtype=np.int64), texts(entry.get("sections"))
    of_spot = np.zeros(aggregated.n_obs, dtype=np.int64)
    if (own := str(entry.get("slide_key", ""))) and len(names) > 1:
        if key is None:
            raise InputError("the aggregated slide has several sections; pass slide_key=")
        codes = pd.Index(names).get_indexer(pd.Index(text_of(slide.obs[key])))
        of_spot = pd.Index(names).get_indexer(pd.Index(text_of(aggregated.obs[own])))
    placed = located(points, codes, dict(enumerate(map(Frame, frames))), tiling)
    tiles = pd.MultiIndex.from_arrays(list(placed.T))
    spots = pd.MultiIndex.from_arrays([of_spot, *array.astype(np.int64).T])
    if not spots.is_unique:
        raise InputError("the aggregated slide has a spot twice; give a result of one slide")
    where = spots.get_indexer(tiles).astype(np.int64)
    size = np.bincount(where[where >= 0], minlength=aggregated.n_obs)
    same = slide.n_obs == entry.get("n_bins")
    if (where < 0).all() or (same and (size != aggregated.obs[N_AGGREGATED]).any()):
        raise InputError(
            "the bins are not those of the aggregated slide: their places differ; give the slide "
            "that was aggregated, with its coordinates"
        )
    return where


def _copied_column(values: pd.Series, where: Positions) -> pd.Series:
    """Take the value of the spot of each bin; missing where there is none."""
    if values.dtype == bool and (where < 0).any():
        values = values.astype("boolean")
    array = values.to_numpy() if isinstance(values.dtype, np.dtype) else values.array
    return pd.Series(pd.api.extensions.take(array, where, allow_fill=True))


def _copied_table(key: str, values: Any, where: Positions, names: pd.Index) -> Any:
    if isinstance(values, pd.DataFrame):
        columns = {name: _copied_column(values[name], where) for name in values}
        return pd.DataFrame(columns).set_axis(names)
    if issparse(values) or not isinstance(values, np.ndarray) or values.dtype.kind not in "biuf":
        raise InputError(f"keys: obsm['{key}'] is no table of numbers; convert it to an array")
    array = values if values.dtype.kind == "f" else values.astype(np.float64)
    copied: NDArray[Any] = array[where]
    copied[where < 0] = np.nan
    return copied
