"""Embed and predict slides whose counts stay on disk.

To embed a slide, its counts are read once. To predict its genes, they are read a second time, a
tile with the neighborhoods of its spots at a time.
"""

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sagefm._files import replacing
from sagefm._prediction import (
    MaskedPrediction,
    blocks_of,
    masked_genes,
    predict_group,
    require_where,
    rows_of_mask,
)
from sagefm._progress import stage
from sagefm._row_file import RowFile
from sagefm._types import Positions, Singles, Where
from sagefm.nn import EncodedSlide, Network, SlideParts, project_log1p
from sagefm.pp.aligned import AlignedSlide
from sagefm.pp.streamed import SlideSums, StreamedSlide

_SAVED_EVERY = 10.0
"""Seconds of work that a killed run loses at most."""


@torch.inference_mode()
def embed_streamed(
    network: Network,
    slide: StreamedSlide,
    width: int,
    folder: Path,
    profile: torch.Tensor | None = None,
) -> tuple[RowFile, RowFile]:
    """Embed all spots with their neighborhoods, and alone.

    Log1p counts are multiplied by the first-layer weights as they are read, which is all that an
    embedding needs of them.

    Parameters
    ----------
    folder
        Where the results go. What a killed run has left there is not computed again: it must be of
        the same slide and network.
    profile
        As in :class:`~sagefm.nn.context.ContextSlide`.
    """
    projected = _project(network, slide, folder)
    parts, n_spots = SlideParts(network, slide, profile), len(slide)
    names = ("embedding", "embedding_spot")
    both = (
        RowFile(folder / f"{names[0]}.npy", n_spots, width),
        RowFile(folder / f"{names[1]}.npy", n_spots, width),
    )
    done = 0
    for centers in slide.tiles():
        stage("embedding: %s of %s spots", f"{done:,}", f"{n_spots:,}")
        rows, place = np.unique(slide.neighbors[centers], return_inverse=True)
        neighbors, values = place.reshape(len(centers), -1), projected.read(rows)
        for file, members in zip(both, (neighbors, neighbors[:, :1]), strict=True):
            file.write(centers, parts.embed(values, rows, members).cpu().numpy())
        done += len(centers)
    return both


def embed_in_memory(
    network: Network, slide: StreamedSlide, width: int, profile: torch.Tensor | None = None
) -> tuple[Singles, Singles]:
    """Embed as :func:`embed_streamed`, and load the results."""
    with tempfile.TemporaryDirectory(prefix="sagefm-") as folder:
        both = embed_streamed(network, slide, width, Path(folder), profile)
        return both[0].array(mapped=False), both[1].array(mapped=False)


def predict_streamed(
    network: Network,
    slide: StreamedSlide,
    groups: Sequence[Positions],
    *,
    mask: Any,
    where: Where | None,
    spots: Positions | None,
    size: int,
) -> Iterator[MaskedPrediction]:
    """Predict as :func:`~sagefm._prediction.predict_masked` does, one tile after the other."""
    require_where(where, mask)
    chosen = np.arange(len(slide)) if spots is None else spots
    place = np.full(len(slide), -1)
    place[chosen] = np.arange(len(chosen))
    slides = slide.without_each(groups) if where == "slide" else [slide] * len(groups)
    parts = [SlideParts(network, slides[0])] * len(groups)
    if where == "slide":
        parts = [SlideParts(network, one) for one in slides]
    done = 0
    for centers in slide.tiles(chosen):
        stage("predicting: %s of %s spots", f"{done:,}", f"{len(chosen):,}")
        section = int(slide.sections[centers[0]])
        tile, rows = slide.tile(centers, parts[0].needed(section))
        for number, group in enumerate(groups):
            if number == 0 or where == "slide":
                part = tile.without(group) if where == "slide" else tile
                encoded = _encode_part(parts[number], part, rows)
            for block in blocks_of(len(centers), size):
                at, neighbors = place[centers[block]], tile.neighbors[block]
                of_spots = None if mask is None else rows_of_mask(mask, at)
                masked = masked_genes(where, group, of_spots, len(network.first))
                whole = [(encoded, np.arange(len(group)))]
                log1p = predict_group(network, whole, group, neighbors, masked)
                yield MaskedPrediction(at, number, log1p, tile, neighbors)
        done += len(centers)


@torch.inference_mode()
def _encode_part(parts: SlideParts, tile: AlignedSlide, rows: Positions) -> EncodedSlide:
    return parts.encode(tile, rows)


def _project(network: Network, slide: StreamedSlide, folder: Path) -> RowFile:
    """Multiply log1p counts by the first-layer weights, and sum the counts."""
    first = network.first
    place, state = folder / "projected.npy", folder / "sums.npy"
    sums, n_done = SlideSums(slide.sections, len(first)), 0
    if place.exists() and state.exists():
        with suppress(ValueError, EOFError):  # it is damaged: all is computed again
            n_done = sums.load(np.load(state))
    projected = RowFile(place, len(slide), first.shape[1])
    n_spots, n_read, saved = len(slide), int((sums.library_size > 0).sum()), time.monotonic()
    for number, block in enumerate(slide.blocks(n_done), start=n_done + 1):
        stage("reading the counts: %s of %s spots", f"{n_read:,}", f"{n_spots:,}")
        sums.add(block)
        projected.write(block.spots, project_log1p(block.counts, first).cpu().numpy())
        n_read += len(block.spots)
        if time.monotonic() - saved > _SAVED_EVERY:
            _save(sums, number, state, projected)
            saved = time.monotonic()
    _save(sums, slide.n_blocks, state, projected)
    slide.settle(sums)
    return projected


def _save(sums: SlideSums, n_done: int, state: Path, projected: RowFile) -> None:
    projected.sync()
    with replacing(state) as beside:
        np.save(beside, sums.save(n_done))
