"""How well genes are recovered where they are hidden, and what that says of genes never seen."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.spatial import cKDTree

from sagefm._types import Floats, Positions, Singles
from sagefm.nn import EncodedSlide, MaskedGenes
from sagefm.pp.neighborhood import average

if TYPE_CHECKING:
    from sagefm.model import SageFM
    from sagefm.pp.aligned import AlignedSlide

Where = Literal["center", "neighborhood", "slide"]

GUESSES = ("model", "neighbor_mean", "depth")
"""What is compared with the truth: the model, and two guesses that need none."""
_TRUTH = "truth"
_SPOTS = 4096
"""Spots whose predictions stand in memory together."""
_CONSTANT = 1e-10
"""A variance below this share of the mean square is none: what rounding leaves of a constant."""
_SIMILAR = 50
"""Measured genes that speak for one that was not measured."""


@dataclass(frozen=True)
class Block:
    """Genes that were hidden in some spots: what was predicted there, and what is there.

    Spots × genes, log1p counts, if nothing else is said.
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
    """(spots) counts of each center, but those of the hidden genes."""


class HiddenGenes:
    """A slide whose genes are hidden, some at a time, and predicted.

    Parameters
    ----------
    model, prepared
        The model, and the slide as it sees it.
    depth
        Counts of each spot of the slide, over all of its genes.
    """

    def __init__(self, model: "SageFM", prepared: "AlignedSlide", depth: Floats) -> None:
        self._model, self._prepared, self._depth = model, prepared, depth
        self._expression, self._neighbors = prepared.log1p, prepared.neighbors

    @cached_property
    def _reading(self) -> EncodedSlide:
        return self._model.encode(self._prepared)

    def predict(
        self, spots: Positions, genes: Positions, parts: Sequence[Positions], *, where: Where
    ) -> Iterator[Block]:
        """Hide the genes of one part after the other, and predict them.

        Parameters
        ----------
        spots
            Rows of the slide.
        genes
            Positions in the vocabulary.
        parts
            Which of `genes` are hidden together.
        where
            Whether they are hidden in the ``"center"`` only, in the ``"neighborhood"``, or in the
            whole ``"slide"``, as if it had not measured them.
        """
        for part in parts:
            columns = self._expression[:, genes[part]]
            if where == "slide":
                reading, hidden = self._model.encode(self._prepared.without(genes[part])), None
            else:
                reading = self._reading
                hidden = MaskedGenes(genes[part], None, where == "neighborhood")
            for start in range(0, len(spots), _SPOTS):
                rows = slice(start, start + _SPOTS)
                neighbors = self._neighbors[spots[rows]]
                with torch.inference_mode():
                    centers = reading.centers(neighbors, hidden)
                    predicted = centers.predict(self._at(genes[part])).cpu().numpy()
                yield self._block(rows, neighbors, part, columns, predicted)

    def _at(self, genes: Positions) -> torch.Tensor:
        return torch.from_numpy(genes).to(self._model.device)

    def _block(
        self,
        rows: slice,
        neighbors: Positions,
        part: Positions,
        columns: csr_matrix,
        predicted: Singles,
    ) -> Block:
        """Put beside what was predicted what is there; `columns` are the log1p counts of `part`."""
        truth = columns[neighbors[:, 0]].toarray()
        unseen = np.rint(np.expm1(truth.astype(np.float64))).sum(axis=1)
        around = average(neighbors, center=False, n_spots=len(self._neighbors)) @ columns
        return Block(
            spots=rows,
            genes=part,
            predicted=predicted,
            truth=truth,
            around=around.toarray(),
            visible=np.maximum(self._depth[neighbors[:, 0]] - unseen, 0.0),
        )


class Agreement:
    """Sums of truth and guesses of hidden genes, over the spots of each slide.

    Guesses are the ``"model"``, the ``"neighbor_mean"``, and the ``"depth"`` of a spot: log1p of
    its visible counts, the same for all genes that are hidden together.

    Parameters
    ----------
    slides
        For each spot the number of its slide.
    n_genes
        How many genes.
    """

    def __init__(self, slides: NDArray[np.int64], n_genes: int) -> None:
        self._slides, self._n = slides, np.bincount(slides)[:, None].astype(np.float64)
        pairs = [(name, other) for name in (_TRUTH, *GUESSES) for other in (name, _TRUTH)]
        pairs += [(name, "") for name in (_TRUTH, *GUESSES)] + [("model", "depth")]
        self._sums = {pair: np.zeros((len(self._n), n_genes)) for pair in pairs}
        self._detected = np.zeros(n_genes)

    def add(self, block: Block) -> None:
        """Add a block; every gene of every spot is added once."""
        depth = np.log1p(block.visible)[:, None]
        values = {
            _TRUTH: block.truth.astype(np.float64),
            "model": block.predicted.astype(np.float64),
            "neighbor_mean": block.around.astype(np.float64),
            "depth": np.broadcast_to(depth, block.truth.shape),
        }
        self._detected[block.genes] += (block.truth > 0).sum(axis=0)
        slides = self._slides[block.spots]
        for slide in np.unique(slides):
            here = slides == slide
            part = {name: held[here] for name, held in values.items()}
            part[""] = np.ones_like(part[_TRUTH])
            for (name, other), sums in self._sums.items():
                sums[slide, block.genes] += np.einsum("ij,ij->j", part[name], part[other])

    @property
    def detected(self) -> Floats:
        """Share of the spots with a count of each gene."""
        return self._detected / len(self._slides)

    def mean(self, guess: str) -> Floats:
        """Mean of a guess over all spots, per gene."""
        return np.asarray(self._sums[guess, ""].sum(axis=0) / len(self._slides))

    def varies(self, guess: str) -> NDArray[np.bool_]:
        """Say of each gene whether a guess varies within a slide."""
        return np.asarray((self._variation(guess) > 0).any(axis=0))

    def error(self, guess: str) -> Floats:
        """Mean squared error of a guess, per gene."""
        pairs = ((_TRUTH, _TRUTH), (guess, guess), (guess, _TRUTH))
        truth, square, product = (self._sums[pair].sum(axis=0) for pair in pairs)
        return np.asarray(np.maximum(truth - 2 * product + square, 0) / len(self._slides))

    def pearson(self, guess: str) -> Floats:
        """Correlation of truth and guess, per gene: the mean over slides on which the truth varies.

        NaN where it varies on none. A guess that does not vary where the truth does has 0.
        """
        return self._over_slides(self._correlation(guess, _TRUTH))

    def beyond_depth(self) -> Floats:
        """Correlation of truth and model after depth is taken out of both; NaN and 0 as above."""
        truth, model = self._correlation("depth", _TRUTH), self._correlation("model", "depth")
        left = (1 - truth**2) * (1 - model**2)
        shared = self._correlation("model", _TRUTH) - truth * model
        r = np.divide(shared, np.sqrt(left), out=np.zeros_like(left), where=left > _CONSTANT)
        return self._over_slides(np.where(self._variation("model") > 0, r, 0.0))

    def _over_slides(self, r: Floats) -> Floats:
        varies = self._variation(_TRUTH) > 0
        total, n_slides = np.where(varies, np.clip(r, -1, 1), 0.0).sum(axis=0), varies.sum(axis=0)
        unknown = np.full_like(total, np.nan)
        return np.asarray(np.divide(total, n_slides, out=unknown, where=n_slides > 0))

    def _variation(self, name: str) -> Floats:
        """Sum of squared deviations within each slide, exactly 0 where only rounding is left."""
        square = self._sums[name, name]
        varied = square - self._sums[name, ""] ** 2 / np.maximum(self._n, 1)
        return np.asarray(np.where(varied > _CONSTANT * square, varied, 0.0))

    def _correlation(self, name: str, other: str) -> Floats:
        """Slides × genes, 0 where one of the two does not vary."""
        scale = np.sqrt(self._variation(name) * self._variation(other))
        means = self._sums[name, ""] * self._sums[other, ""] / np.maximum(self._n, 1)
        shared = self._sums[name, other] - means
        return np.asarray(np.divide(shared, scale, out=np.zeros_like(shared), where=scale > 0))


def of_similar(mean: Floats, known_mean: Floats, known: Floats) -> Floats:
    """Guess a value for genes from the known genes that are predicted to be as common.

    Parameters
    ----------
    mean
        Mean prediction of each gene, log1p counts.
    known_mean
        The same of each known gene.
    known
        The value of each known gene; those without one (NaN) do not count.

    Returns
    -------
    For each gene the median of the 50 known genes that are nearest; NaN where there is none.
    """
    there = np.isfinite(known)
    if not there.any():
        return np.full(len(mean), np.nan)
    n_similar = min(_SIMILAR, int(there.sum()))
    tree = cKDTree(known_mean[there][:, None])
    _, nearest = tree.query(mean[:, None], np.arange(1, n_similar + 1))
    return np.asarray(np.median(known[there][nearest], axis=1), dtype=np.float64)
