"""The evidence of a slide itself for pairs: correlations over its spots, without a model.

All are of log1p counts scaled to the median library size, which depend on the library size less
than log1p counts do, and all are partial correlations given the logarithm of the library size of
the spot and its mean over the neighbors. Each is returned as a z score: Fisher's z times the root
of the degrees of freedom, standard normal where two genes have nothing to do with each other and
spots are independent. They are not where tissue is smooth. Given 30 principal components of the
expression of 15-spot means too (domain and composition), pairs of random genes have a standard
deviation of 1.00 to 1.10 (see docs/RESULTS.md).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csc_matrix, csr_matrix

from sagefm._types import Floats, Positions, Singles
from sagefm.pp.expression import normalize
from sagefm.pp.neighborhood import average
from sagefm.stats.components import project, shared_axes

if TYPE_CHECKING:
    from sagefm.pp.aligned import AlignedSlide

SAME_SPOT, NEIGHBORS, COMPONENTS = "same spot", "neighbors", "given components"
N_COMPONENTS = 30
_SPOTS_PER_COMPONENT = 4
"""On a slide of few spots fewer components are held, so that degrees of freedom are left."""
_GENES = 512
"""Genes whose expression is dense at a time."""
_CONSTANT, _ROUNDING = 1e-6, 1e-4
"""Fractions below which covariates depend on each other, and nothing is left of a gene."""


@dataclass(frozen=True)
class Coexpression:
    """A slide, ready for correlations of its genes.

    Attributes
    ----------
    expression
        Spots × vocabulary, normalized, by columns.
    around
        The operator that averages over the neighbors.
    library, components
        Spots × covariates, orthonormal: what is held.
    """

    expression: csc_matrix
    around: csr_matrix
    library: Singles
    components: Singles

    @classmethod
    def of(cls, prepared: "AlignedSlide") -> "Coexpression":
        """Normalize a slide and find its components."""
        [expression] = normalize([prepared.counts])
        around = average(prepared.neighbors, center=False)
        size = np.log(np.maximum(prepared.counts.sum(axis=1, dtype=np.float64), 1)).reshape(-1)
        size = np.asarray(size).ravel()
        n_spots = len(size)
        n_components = min(N_COMPONENTS, n_spots // _SPOTS_PER_COMPONENT)
        whole = average(prepared.neighbors, center=True)
        axes = shared_axes([expression], [whole], n_components)
        sections = np.eye(prepared.sections.max() + 1)[prepared.sections]
        library = np.column_stack([sections, size, around @ size])
        both = np.column_stack([library, whole @ project(expression, axes)])
        return cls(expression.tocsc(), around, orthonormal(library), orthonormal(both))

    def correlate(self, raised: Positions, predicted: Positions) -> Mapping[str, Floats]:
        """Correlate genes with the genes in the center: evidence → raised × predicted, z scores.

        ``"same spot"`` has both in the center; the other two have `raised` around it. Missing for a
        gene that does not vary.
        """
        held = {SAME_SPOT: self.library, NEIGHBORS: self.library, COMPONENTS: self.components}
        return self.correlate_with(raised, self.expression[:, predicted].toarray(), held)

    def correlate_with(
        self,
        raised: Positions,
        centers: Singles,
        held: Mapping[str, Singles],
        spots: Positions | slice = slice(None),
    ) -> Mapping[str, Floats]:
        """Correlate genes with numbers of the center: evidence → raised × columns, z scores.

        Parameters
        ----------
        centers
            Spots × columns.
        held
            Evidence → spots × covariates, orthonormal.
        spots
            Those of `centers` and `held`, if not all.
        """
        of_centers = {name: unit(centers, basis) for name, basis in held.items()}
        found = {name: np.empty((len(raised), centers.shape[1])) for name in held}
        for start in range(0, len(raised), _GENES):
            rows = slice(start, start + _GENES)
            own = self.expression[:, raised[rows]].toarray()
            around = np.asarray(self.around @ own, dtype=np.float32)
            for name, basis in held.items():
                r = unit((own if name == SAME_SPOT else around)[spots], basis).T @ of_centers[name]
                r = r.astype(np.float64)
                degrees = max(len(centers) - basis.shape[1] - 2, 1)
                found[name][rows] = np.arctanh(np.clip(r, -0.999, 0.999)) * np.sqrt(degrees)
        return found


def orthonormal(covariates: Floats) -> Singles:
    """Find an orthonormal basis of the covariates, those that depend on others left out."""
    lengths = np.linalg.norm(covariates, axis=0)
    left, sizes, _ = np.linalg.svd(covariates / np.maximum(lengths, 1e-12), full_matrices=False)
    return np.asarray(left[:, sizes > _CONSTANT * sizes[0]], dtype=np.float32)


def unit(values: Singles, basis: Singles) -> Singles:
    """Subtract what the covariates explain, scale columns to length 1; constant ones are NaN."""
    left = values - basis @ (basis.T @ values)
    length = np.linalg.norm(left, axis=0)
    varies = length > _ROUNDING * np.maximum(np.linalg.norm(values, axis=0), 1e-12)
    scale = np.where(varies, 1 / np.maximum(length, 1e-30), np.nan)
    return np.asarray(left * scale, dtype=np.float32)


def correlate_slides(
    slides: "Sequence[Coexpression]", raised: Positions, predicted: Positions
) -> dict[str, Floats]:
    """Add up z scores of independent slides, each gene over the slides in which it varies."""
    per_slide = [one.correlate(raised, predicted) for one in slides]
    return {name: combine([one[name] for one in per_slide]) for name in per_slide[0]}


def combine(per_slide: "list[Floats]") -> Floats:
    """Add up z scores of independent slides, without those of genes that a slide lacks."""
    known = ~np.isnan(per_slide)
    n = known.sum(axis=0)
    total = np.where(known, per_slide, 0.0).sum(axis=0)
    return np.asarray(np.where(n > 0, total / np.sqrt(np.maximum(n, 1)), np.nan))
