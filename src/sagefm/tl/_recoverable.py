"""How well genes are recovered where they were hidden, and what that says of genes never seen."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.spatial import cKDTree

from sagefm.nn import SparseRows
from sagefm.pp.neighborhood import average

if TYPE_CHECKING:
    from sagefm.model import Prepared, SageFM

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Positions = NDArray[np.int64]

_SPOTS = 1024
"""Spots whose predictions stand in memory together."""
_GENES = 2048
"""Genes that are predicted together, at most."""
_CONSTANT = 1e-10
"""A variance below this share of the mean square is none: what rounding leaves of a constant."""
_SIMILAR = 50
"""Measured genes that speak for one that was not measured."""


@dataclass(frozen=True)
class Block:
    """Some genes that were hidden in some spots: what was predicted, and what is there.

    Arrays are spots × genes, log1p counts, if nothing else is said.
    """

    spots: slice
    """Which of the spots that were asked for."""
    genes: Positions
    """Which of the genes that were asked for."""
    predicted: Singles
    truth: Singles
    around: Singles
    """The mean of the neighbors of each spot."""
    visible: Floats
    """(spots) counts that the center shows, of the genes of the model."""


class HiddenGenes:
    """A slide whose genes are hidden, some at a time, and predicted.

    Parameters
    ----------
    model, prepared
        The model, and the slide as it sees it.
    """

    def __init__(self, model: "SageFM", prepared: "Prepared") -> None:
        self._network, self._device = model.network, model.device
        self._expression, self._neighbors = prepared.expression, prepared.neighbors
        counts = self._expression.copy()
        counts.data = np.expm1(counts.data.astype(np.float64))
        self._depth = np.asarray(counts.sum(axis=1), dtype=np.float64).ravel()
        with torch.inference_mode():
            self._projected = self._network.project(
                SparseRows.from_scipy(self._expression, self._device)
            )

    def predict(
        self, spots: Positions, genes: Positions, together: list[Positions], *, around: bool
    ) -> Iterator[Block]:
        """Predict genes while they are hidden.

        Parameters
        ----------
        spots
            Rows of the slide.
        genes
            Positions in the vocabulary.
        together
            Parts of `genes` (numbers of its entries); the genes of a part are hidden together.
        around
            Whether they are hidden in the neighbors too, or in the center only.

        Yields
        ------
        Blocks, until every gene was predicted in every spot once.
        """
        for part in together:
            for start in range(0, len(spots), _SPOTS):
                rows = slice(start, min(start + _SPOTS, len(spots)))
                yield self._block(spots[rows], rows, genes[part], part, around)

    @torch.inference_mode()
    def _block(
        self, spots: Positions, rows: slice, genes: Positions, part: Positions, around: bool
    ) -> Block:
        network, neighbors = self._network, self._neighbors[spots]
        near = self._expression[neighbors.ravel()][:, genes]
        ...
