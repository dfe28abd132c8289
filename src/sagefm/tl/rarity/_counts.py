"""Compute expected counts of each spot, and the residuals of the measured counts."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from sagefm._errors import InputError
from sagefm._types import Floats, Positions, Singles
from sagefm.pp.counts import coordinates, find_counts, sum_duplicates
from sagefm.pp.neighborhood import nearest
from sagefm.pp.sections import section_codes

if TYPE_CHECKING:
    from anndata import AnnData

    from sagefm.model import SageFM
    from sagefm.pp.aligned import AlignedSlide


NEIGHBORHOOD = 15
"""Spots in a neighborhood, the center included, if there is no model."""
_GROUPS = 10
"""Number of groups of genes; those of a group are masked together."""
_DETECTED = 10
"""Genes that are detected in fewer spots are left out."""
_FLOOR = 0.05
"""Fraction of the mean of a gene that is added to its prediction, so that it is never zero."""
_LEAST_RATE = 1e-3
_CLIP = 6.0
"""Maximum absolute residual, so that a single unexpected count does not dominate."""


@dataclass(frozen=True)
class Counted:
    """Counts of the genes that are used, and neighborhoods."""

    matrix: csr_matrix
    """Spots × genes, counts."""
    genes: NDArray[np.str_]
    neighbors: Positions
    """Spots × neighborhood, the center first."""
    sections: Positions
    """For each spot the number of its section."""
    model: "SageFM | None"
    aligned: "AlignedSlide | None"
    """The slide aligned to the vocabulary of the model; None where there is no model."""
    positions: Positions
    """Of the genes in the vocabulary of the model."""
    summary: str


def count(
    slide: "AnnData", model: "SageFM | None", layer: str | None, slide_key: str | None
) -> Counted:
    """Get the counts: of the genes of the model, or of all genes where there is no model."""
    if model is None:
        sections = section_codes(slide, slide_key)
        raw = sum_duplicates(find_counts(slide, layer))
        names = raw.var.index.to_numpy(dtype=str)
        neighbors = nearest(coordinates(slide), NEIGHBORHOOD, sections)
        summary = f"{len(names):,} genes of the slide"
        return Counted(raw.matrix, names, neighbors, sections, None, None, np.arange(0), summary)
    aligned = model.prepare(slide, layer=layer, slide_key=slide_key)
    positions = np.flatnonzero(aligned.measured)
    names = np.array([model.vocabulary[i] for i in positions.tolist()], dtype=str)
    return Counted(
        aligned.counts[:, positions], names, aligned.neighbors, aligned.sections, model, aligned,
        positions, aligned.summary,
    )  # fmt: skip


@dataclass(frozen=True)
class Expected:
    """Counts of some spots and their expected rates."""

    counts: Singles
    """Spots × genes."""
    rates: Singles
    """Spots × genes; sums over spots and over genes are (nearly) those of the counts."""
    dispersion: Singles
    """Per gene: the variance of a count is rate + dispersion × rate²."""

    @property
    def library_size(self) -> Floats:
        """Counts of each spot."""
        return np.asarray(self.counts.sum(axis=1, dtype=np.float64))

    def residuals(self) -> Singles:
        """Compute Pearson residuals of negative binomial counts: spots × genes, from -6 to 6."""
        return self._residuals(self.counts)

    def of_noise(self, rng: np.random.Generator) -> Singles:
        """Compute residuals of counts that are drawn from the rates, as a null distribution."""
        burst = np.maximum(self.dispersion, 1e-3)
        rates = rng.standard_gamma(1 / burst, self.rates.shape, dtype=np.float32)
        rates *= burst * self.rates
        return self._residuals(rng.poisson(rates).astype(np.float32))

    def _residuals(self, counts: Singles) -> Singles:
        spread = np.sqrt(np.maximum(self.rates, _LEAST_RATE) + self.dispersion * self.rates**2)
        return np.asarray(np.clip((counts - self.rates) / spread, -_CLIP, _CLIP), dtype=np.float32)


def expect(counted: Counted, spots: Positions, rng: np.random.Generator) -> Expected:
    """Compute the expected counts of the spots of one section.

    With a model, each gene is predicted while it is masked in the center, a tenth of the genes at
    a time. Its prediction is a mean of log1p counts, and follows the library sizes of the
    neighborhood; so each spot is scaled to its own, and each gene to its sum over the section.
    Without a model, the profile of the whole section is expected everywhere.

    Raises
    ------
    InputError
        Too few genes are detected in ten spots.
    """
    matrix = counted.matrix[spots]
    kept = np.flatnonzero(matrix.getnnz(axis=0) >= _DETECTED)
    if len(kept) < _DETECTED:
        raise InputError(
            f"only {len(kept)} genes are detected in {_DETECTED} spots or more; "
            "use a slide, and a model, with more genes"
        )
    counts = matrix[:, kept].toarray().astype(np.float32, copy=False)
    mean = counts.mean(axis=0)
    rates = np.broadcast_to(mean, counts.shape).copy()
    if counted.model is not None and counted.aligned is not None:
        genes = counted.positions[kept]
        groups = np.array_split(rng.permutation(len(genes)), _GROUPS)
        for block in counted.model.predict_masked(
            counted.aligned, [genes[group] for group in groups], spots=spots
        ):
            rates[block.spots, groups[block.group]] = np.expm1(np.maximum(block.log1p, 0))
        rates += _FLOOR * mean
    library_size, total = counts.sum(axis=1), counts.sum(axis=0)
    rates *= total / rates.sum(axis=0)
    rates *= (library_size / rates.sum(axis=1))[:, None]
    rates *= total / rates.sum(axis=0)
    excess = np.square(counts - rates).sum(axis=0) - total
    dispersion = np.maximum(excess / np.square(rates).sum(axis=0), 0.01)
    return Expected(counts, rates, dispersion.astype(np.float32))
