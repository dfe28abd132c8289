"""Slides with masked genes, and the interface of the methods that predict these genes."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from sagefm._keys import BEST_PREDICTION
from sagefm._types import Singles, Where
from sagefm.evaluate.baselines.embedding import Kind
from sagefm.nn.masking import Masks
from sagefm.pp.aligned import AlignedSlide
from sagefm.pp.neighborhood import average
from sagefm.pp.vocabulary import Vocabulary

if TYPE_CHECKING:
    from anndata import AnnData

N_NEIGHBORS = 15
_LEAST_COUNTS = 1e-6


@dataclass(frozen=True)
class PanelSlide:
    """A slide aligned to the panel: the genes of all predictors together."""

    source: "AnnData"
    counts: csr_matrix
    """Spots × panel, raw counts."""
    log: csr_matrix
    """Spots × panel, log1p counts."""
    neighbors: NDArray[np.int64]
    """Spots × 15, the center first."""
    measured: NDArray[np.bool_]
    """For each gene of the panel whether the slide has it."""
    best: NDArray[np.float32] | None
    """Spots × panel, the best possible prediction (log1p counts) of a simulated slide."""

    @classmethod
    def of(cls, slide: "AnnData", panel: Vocabulary) -> "PanelSlide":
        """Align a slide to the panel and find its neighborhoods.

        Raises
        ------
        InputError
            As :meth:`sagefm.SageFM.prepare`.
        """
        aligned = AlignedSlide.of(slide, panel, N_NEIGHBORS)
        best = None
        if BEST_PREDICTION in slide.layers and aligned.alignment is not None:
            columns = aligned.alignment.columns
            best = np.zeros(aligned.counts.shape, dtype=np.float32)
            kept = columns >= 0
            best[:, columns[kept]] = np.asarray(slide.layers[BEST_PREDICTION])[:, kept]
        return cls.of_aligned(slide, aligned, best)

    @classmethod
    def of_aligned(
        cls, source: "AnnData", aligned: AlignedSlide, best: Singles | None = None
    ) -> "PanelSlide":
        """Use a slide that is already aligned to the panel."""
        return cls(source, aligned.counts, aligned.log1p, aligned.neighbors, aligned.measured, best)

    @cached_property
    def total(self) -> NDArray[np.float64]:
        """Counts of each gene of the panel over the slide."""
        return np.asarray(self.counts.sum(axis=0, dtype=np.float64)).ravel()

    @cached_property
    def detected(self) -> NDArray[np.float64]:
        """Fraction of the spots with a count, for each gene of the panel."""
        n = np.bincount(self.counts.indices[self.counts.data > 0], minlength=len(self.measured))
        return n / self.counts.shape[0]


class Prediction(NamedTuple):
    """A prediction, spots × genes."""

    log1p: NDArray[np.float32]
    """Log1p counts."""
    rate: NDArray[np.float32] | None = None
    """Expected counts; what `log1p` implies if not given."""


@dataclass(frozen=True)
class MaskedSpots:
    """Some spots of which a fraction of the genes is masked."""

    slide: PanelSlide
    where: Where
    spots: NDArray[np.int64]
    masks: Masks
    """The genes that are masked in each spot, among the measured genes of the panel."""
    genes: NDArray[np.int64]
    """Positions in the panel of the genes to predict, all of them measured."""

    def of(self, rows: slice | NDArray[np.int64]) -> "MaskedSpots":
        """Keep some of the spots."""
        masks = self.masks._replace(masked=self.masks.masked[rows])
        return replace(self, spots=self.spots[rows], masks=masks)

    @cached_property
    def mask(self) -> NDArray[np.bool_]:
        """Spots × panel: whether a gene is masked."""
        mask = np.zeros((len(self.spots), len(self.slide.measured)), dtype=bool)
        mask[:, self.slide.measured] = self.masks.dense().numpy()
        return mask

    @cached_property
    def counts(self) -> NDArray[np.float32]:
        """Spots × panel: the true counts, those of masked genes included."""
        return np.asarray(self.slide.counts[self.spots].toarray())

    @cached_property
    def visible(self) -> csr_matrix:
        """Spots × panel: log1p counts of the genes that are not masked, else 0."""
        return zeroed(self.slide.log[self.spots], self.mask)

    @cached_property
    def library_size(self) -> NDArray[np.float64]:
        """Counts of each center without its masked genes."""
        return np.asarray(self.counts.sum(axis=1, where=~self.mask, dtype=np.float64))

    @cached_property
    def operator(self) -> csr_matrix:
        """Averages over the 14 neighbors of each center: spots × all spots."""
        neighbors = self.slide.neighbors[self.spots]
        return average(neighbors, center=False, n_spots=len(self.slide.neighbors))

    def neighbor_mean(self, values: csr_matrix) -> csr_matrix:
        """Average over the 14 neighbors, without what is masked there: spots × panel."""
        mean = self.operator @ values
        return mean if self.where == "center" else zeroed(mean, self.mask)

    def scaled(self, profile: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scale a profile to the library size of each spot: expected counts, spots × genes.

        Parameters
        ----------
        profile
            Spots × panel, or one row for all; any scale.
        """
        shown = (~self.mask).astype(np.float32)
        if profile.ndim == 1:
            visible = shown @ profile
            return np.outer(
                self.library_size / np.maximum(visible, _LEAST_COUNTS), profile[self.genes]
            )
        visible = np.einsum("ij,ij->i", profile, shown)
        per_spot = (self.library_size / np.maximum(visible, _LEAST_COUNTS)).astype(np.float32)
        return np.asarray(profile[:, self.genes] * per_spot[:, None])


def zeroed(values: csr_matrix, mask: NDArray[np.bool_]) -> csr_matrix:
    """Set the masked entries of a sparse matrix of the same shape to zero."""
    rows = np.repeat(np.arange(values.shape[0]), np.diff(values.indptr))
    kept = values.copy()
    kept.data = np.where(mask[rows, kept.indices], np.float32(0), kept.data)
    return kept


class Predictor(Protocol):
    """A method that predicts masked genes."""

    @property
    def name(self) -> str:
        """Its name in tables."""
        ...

    @property
    def kind(self) -> Kind:
        """As for :class:`~sagefm.evaluate.baselines.embedding.Embedding`."""
        ...

    def __call__(self, masked: MaskedSpots) -> Prediction | None:
        """Predict `masked.genes`; None if the method does not apply to these masks."""
        ...


@dataclass(frozen=True)
class Baseline:
    """A predictor without a network."""

    name: str
    predict: Callable[[MaskedSpots], Prediction | None]
    kind: Kind = "baseline"

    def __call__(self, masked: MaskedSpots) -> Prediction | None:
        """Predict `masked.genes`; None if the method does not apply to these masks."""
        return self.predict(masked)
