"""What a predictor is shown of a slide, what it is asked for, and what it answers."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from sagefm._keys import BEST_PREDICTION
from sagefm.evaluate.baselines.embedding import Kind
from sagefm.nn.masking import Masks
from sagefm.pp.counts import coordinates, counts, section_codes
from sagefm.pp.neighborhood import average, nearest
from sagefm.pp.vocabulary import Vocabulary

if TYPE_CHECKING:
    from anndata import AnnData

Where = Literal["center", "neighborhood", "slide"]
"""Where the hidden genes are hidden: in the center alone, in its neighbors too, or in all spots."""

N_NEIGHBORS = 15
_DEPTH_FLOOR = 1e-6


@dataclass(frozen=True)
class View:
    """A slide on the panel: all the genes that any predictor knows."""

    slide: "AnnData"
    counts: csr_matrix
    """Spots × panel, raw counts."""
    log: csr_matrix
    """Spots × panel, log1p counts."""
    neighbors: NDArray[np.int64]
    """Spots × 15, the center first."""
    measured: NDArray[np.bool_]
    """For each gene of the panel whether the slide has it."""
    best: NDArray[np.float32] | None
    """Spots × panel, the best possible prediction (log1p counts), which a simulation knows."""

    @classmethod
    def of(cls, slide: "AnnData", panel: Vocabulary) -> "View":
        """Align a slide to the panel and find its neighborhoods.

        Raises
        ------
        InputError
            As :meth:`sagefm.SageFM.prepare`.
        """
        found = counts(slide)
        ids = found.var["gene_ids"].astype(str).tolist() if "gene_ids" in found.var else None
        alignment = panel.align(found.var.index.astype(str).tolist(), ids)
        aligned = alignment.apply(found.matrix)
        best = None
        if BEST_PREDICTION in slide.layers:
            best = np.zeros(aligned.shape, dtype=np.float32)
            kept = alignment.columns >= 0
            best[:, alignment.columns[kept]] = np.asarray(slide.layers[BEST_PREDICTION])[:, kept]
        neighbors = nearest(coordinates(slide), N_NEIGHBORS, section_codes(slide))
        return cls(slide, aligned, aligned.log1p(), neighbors, alignment.measured, best)

    @cached_property
    def total(self) -> NDArray[np.float64]:
        """Counts of each gene of the panel over the slide."""
        return np.asarray(self.counts.sum(axis=0, dtype=np.float64)).ravel()

    @cached_property
    def detected(self) -> NDArray[np.float64]:
        """Share of the spots with a count, for each gene of the panel."""
        n = np.bincount(self.counts.indices[self.counts.data > 0], minlength=len(self.measured))
        return n / self.counts.shape[0]


class Guess(NamedTuple):
    """What a predictor answers, spots × genes."""

    log1p: NDArray[np.float32]
    """Log1p counts."""
    rate: NDArray[np.float32] | None = None
    """Expected counts; what `log1p` implies if not given."""


@dataclass(frozen=True)
class Shown:
    """Some spots with a part of their genes hidden."""

    view: View
    where: Where
    spots: NDArray[np.int64]
    masks: Masks
    """What the spots hide, on the measured genes of the panel."""
    genes: NDArray[np.int64]
    """Positions in the panel that are asked for, all of them measured."""

    @cached_property
    def hidden(self) -> NDArray[np.bool_]:
        """Spots × panel."""
        spread = np.zeros((len(self.spots), len(self.view.measured)), dtype=bool)
        spread[:, self.view.measured] = self.masks.dense().numpy()
        return spread

    @cached_property
    def counts(self) -> NDArray[np.float32]:
        """Spots × panel: the truth, for scoring and for taking the hidden part out of sums."""
        return np.asarray(self.view.counts[self.spots].toarray())

    @cached_property
    def visible(self) -> csr_matrix:
        """Spots × panel: log1p counts that the centers show."""
        return zeroed(self.view.log[self.spots], self.hidden)

    @cached_property
    def depth(self) -> NDArray[np.float64]:
        """Visible counts of each center."""
        return np.asarray(self.counts.sum(axis=1, where=~self.hidden, dtype=np.float64))

    @cached_property
    def operator(self) -> csr_matrix:
        """Averages over the 14 neighbors of each center: spots × all spots."""
        neighbors = self.view.neighbors[self.spots]
        return average(neighbors, center=False, n_spots=len(self.view.neighbors))

    def around(self, values: csr_matrix) -> csr_matrix:
        """Average over the 14 neighbors, as far as they are shown: spots × panel."""
        mean = self.operator @ values
        return mean if self.where == "center" else zeroed(mean, self.hidden)

    def scaled_to_depth(self, profile: NDArray[np.float32]) -> NDArray[np.float32]:
        """Spread the visible depth as `profile` has it: expected counts, spots × genes.

        Parameters
        ----------
        profile
            Spots × panel, or one row for all; any scale.
        """
        shown = (~self.hidden).astype(np.float32)
        if profile.ndim == 1:
            visible = shown @ profile
            return np.outer(self.depth / np.maximum(visible, _DEPTH_FLOOR), profile[self.genes])
        visible = np.einsum("ij,ij->i", profile, shown)
        per_spot = (self.depth / np.maximum(visible, _DEPTH_FLOOR)).astype(np.float32)
        return np.asarray(profile[:, self.genes] * per_spot[:, None])


def zeroed(values: csr_matrix, hidden: NDArray[np.bool_]) -> csr_matrix:
    """Take what is hidden out of sparse values of the same shape."""
    rows = np.repeat(np.arange(values.shape[0]), np.diff(values.indptr))
    kept = values.copy()
    kept.data = np.where(hidden[rows, kept.indices], np.float32(0), kept.data)
    return kept


class Predictor(Protocol):
    """Anything that fills in hidden genes."""

    @property
    def name(self) -> str:
        """What tables call it."""
        ...

    @property
    def kind(self) -> Kind:
        """As for :class:`~sagefm.evaluate.baselines.embedding.Embedding`."""
        ...

    def __call__(self, shown: Shown) -> Guess | None:
        """Predict the genes that are asked for; None where it has nothing to go by."""
        ...
