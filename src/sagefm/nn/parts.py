"""Encode a slide that is not in memory as a whole, part by part."""

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sagefm._types import Bools, Floats, Positions, Singles
from sagefm.nn.base import EncodedSlide, Network
from sagefm.nn.context import Context, ContextSlide, WholeSlide
from sagefm.nn.published import Published, PublishedSlide

if TYPE_CHECKING:
    from sagefm.pp.aligned import AlignedSlide
    from sagefm.pp.streamed import StreamedSlide


class SlideParts:
    """Encodes parts of a slide whose counts stay on disk, as if it were in memory.

    Parameters
    ----------
    network
        The network.
    slide
        Aligned to its genes.
    profile
        As in :class:`~sagefm.nn.context.ContextSlide`.
    """

    def __init__(
        self, network: Network, slide: "StreamedSlide", profile: Tensor | None = None
    ) -> None:
        self._network, self._slide, self._profile = network, slide, profile
        self._whole = lru_cache(self._whole_of)

    def needed(self, section: int) -> Positions:
        """Find the spots that every part of a section needs: its landmarks."""
        if not isinstance(self._network, Context):
            return np.arange(0)
        return self._rows(section)[self._whole(section).landmarks]

    def encode(self, tile: "AlignedSlide", rows: Positions) -> EncodedSlide:
        """Encode some spots of a section.

        Parameters
        ----------
        tile
            Their counts, with those that are :meth:`needed`.
        rows
            Their numbers in the slide, in ascending order.
        """
        if isinstance(self._network, Published):
            return PublishedSlide(self._network, tile)
        section = int(self._slide.sections[rows[0]])
        place = np.searchsorted(self._rows(section), rows)
        part_of = self._whole(section), place
        return ContextSlide(self._context, tile, part_of=part_of)

    def embed(self, projected: Singles, rows: Positions, neighbors: Positions) -> Tensor:
        """Embed centers of a section from projected spots.

        Parameters
        ----------
        projected
            Log1p counts times the first-layer weights of some spots.
        rows
            Their numbers in the slide.
        neighbors
            Centers × neighborhood, rows of `projected`, or centers × 1 for spots alone.
        """
        network = self._network
        spots = torch.from_numpy(projected).to(network.device)
        members = torch.from_numpy(neighbors).to(network.device)
        if isinstance(network, Published):
            return network.embed(network.pool(spots, members))
        whole = self._whole(int(self._slide.sections[rows[0]]))
        size = self._slide.sums.size[rows].astype(np.float32)
        residuals = whole.residuals(spots, torch.from_numpy(size).to(network.device))
        return F.embedding_bag(members, self._context.embed(residuals), mode="mean")

    @property
    def _context(self) -> Context:
        if not isinstance(self._network, Context):
            raise TypeError(f"no way to encode parts with a {type(self._network).__name__}")
        return self._network

    def _rows(self, section: int) -> Positions:
        return np.flatnonzero(self._slide.sections == section)

    def _whole_of(self, section: int) -> WholeSlide:
        slide, rows = self._slide, self._rows(section)
        neighbors = slide.neighbors
        if len(rows) < len(slide):
            neighbors = np.searchsorted(rows, neighbors[rows])

        def totals(chosen: Bools) -> Floats:
            of_slide = np.zeros((len(chosen), len(slide)), dtype=bool)
            of_slide[:, rows] = chosen
            return slide.totals(of_slide)

        return WholeSlide(
            self._context, slide.sums.size[rows], slide.sums.total[section],
            neighbors, slide.rank[rows], totals, self._profile, one_by_one=False,
        )  # fmt: skip
