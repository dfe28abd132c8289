"""What baselines may learn: a summary of slides of other patients, read one at a time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csr_matrix

from sagefm.evaluate.baselines.shown import View
from sagefm.nn.masking import draw_masks
from sagefm.pp.neighborhood import average
from sagefm.stats.poisson import log1p_mean

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

SHRINKAGES = (1e2, 1e3, 3e3, 1e4, 3e4, 1e5, 3e5, 1e6)
DEFAULT_SHRINKAGE = 1e5
"""Counts; used where there is no slide of another patient to choose it on."""
N_COMPONENTS = 50
SAMPLE = 3000
"""Spots of all slides together that regressions learn from."""
_SAMPLE_LEAST = 50
"""Spots of each slide, if it has them: many slides get less than they would have in a small set."""


@dataclass(frozen=True)
class SlideSummary:
    """What is kept of one slide."""

    patient: str
    n_spots: int
    measured: NDArray[np.bool_]
    log_total: NDArray[np.float64]
    """Per gene of the panel, log1p counts summed over all spots."""
    total: NDArray[np.float64]
    """Per gene of the panel, counts summed over all spots."""
    center: csr_matrix
    """Sampled spots × panel, log1p counts."""
    around: csr_matrix
    """The same spots, mean log1p counts of the 14 neighbors."""
    shrinkage_errors: NDArray[np.float64]
    """Squared errors of the shrunk neighbor profile per entry of :data:`SHRINKAGES`, summed."""

    @classmethod
    def of(cls, view: View, patient: str, n_sampled: int, seed: int) -> "SlideSummary":
        """Summarize a slide; `n_sampled` of its spots are drawn."""
        chance = np.random.default_rng(seed)
        n_spots = view.counts.shape[0]
        spots = np.sort(chance.choice(n_spots, min(n_sampled, n_spots), replace=False))
        operator = average(view.neighbors[spots], center=False, n_spots=n_spots)
        return cls(
            patient=patient,
            n_spots=n_spots,
            measured=view.measured,
            log_total=np.asarray(view.log.sum(axis=0, dtype=np.float64)).ravel(),
            total=view.total,
            center=view.log[spots],
            around=operator @ view.log,
            shrinkage_errors=_shrinkage_errors(view, spots, operator, chance),
        )


@dataclass(frozen=True)
class Reference:
    """Slides of other patients, summarized."""

    pieces: tuple[SlideSummary, ...]
    seed: int

    @classmethod
    def without(cls, patient: str, pieces: Mapping[str, SlideSummary], seed: int) -> "Reference":
        """Keep the slides of everyone but a patient."""
        return cls(tuple(p for p in pieces.values() if p.patient != patient), seed)

    def __bool__(self) -> bool:
        return bool(self.pieces)

    @cached_property
    def gene_mean(self) -> NDArray[np.float32]:
        """Mean log1p counts per gene over the spots of slides that measured it, else 0."""
        n = sum(piece.n_spots * piece.measured for piece in self.pieces)
        total = sum(piece.log_total for piece in self.pieces)
        return np.asarray(total / np.maximum(n, 1), dtype=np.float32)

    @cached_property
    def profile(self) -> NDArray[np.float32]:
        """Share of a gene in the counts of slides that measured it, averaged over patients."""
        patients = sorted({piece.patient for piece in self.pieces})
        shares, n = np.zeros((2, len(self.pieces[0].total)))
        for patient in patients:
            own = [piece for piece in self.pieces if piece.patient == patient]
            total = np.sum([piece.total for piece in own], axis=0)
            measured = np.any([piece.measured for piece in own], axis=0)
            shares += total / max(total.sum(), 1.0)
            n += measured
        return np.asarray(shares / np.maximum(n, 1), dtype=np.float32)

    @cached_property
    def shrinkage(self) -> float:
        """Counts of the slide's profile to mix into a neighborhood: the best on these slides."""
        if not self.pieces:
            return DEFAULT_SHRINKAGE
        errors = np.sum([piece.shrinkage_errors for piece in self.pieces], axis=0)
        return SHRINKAGES[int(errors.argmin())]

    @cached_property
    def loadings(self) -> NDArray[np.float32]:
        """Panel × 50: leading singular vectors of the sampled log1p counts."""
        from sklearn.decomposition import TruncatedSVD

        stacked = sparse.vstack([piece.center for piece in self.pieces], format="csr")
        n_components = min(N_COMPONENTS, *(size - 1 for size in stacked.shape))
        svd = TruncatedSVD(n_components, n_iter=4, random_state=self.seed).fit(stacked)
        return np.asarray(svd.components_.T, dtype=np.float32)

    def like(self, measured: NDArray[np.bool_]) -> Sequence[SlideSummary]:
        """Keep the slides that measured half at least of some genes; all where none did."""
        n_shared = [int((piece.measured & measured).sum()) for piece in self.pieces]
        enough = [p for p, n in zip(self.pieces, n_shared, strict=True) if 2 * n >= measured.sum()]
        return enough or self.pieces


def sample_size(n_slides: int) -> int:
    """Spots to draw from each of `n_slides` slides."""
    return max(_SAMPLE_LEAST, SAMPLE // n_slides)


def shrunk(around: "ArrayLike", profile: "ArrayLike", shrinkage: float) -> NDArray[np.float32]:
    """Mix counts of a neighborhood with the profile of the slide (which sums to 1)."""
    mixed = np.asarray(around, dtype=np.float32) + np.float32(shrinkage) * np.asarray(
        profile, dtype=np.float32
    )
    return np.asarray(mixed, dtype=np.float32)


def _shrinkage_errors(
    view: View, spots: NDArray[np.int64], operator: csr_matrix, chance: np.random.Generator
) -> NDArray[np.float64]:
    """Score each shrinkage on a slide with 30 % of the measured genes hidden."""
    measured = np.flatnonzero(view.measured)
    counts = view.counts[spots][:, measured].toarray()
    hidden = draw_masks(len(spots), len(measured), 0.3, chance).dense().numpy()
    depth = counts.sum(axis=1, where=~hidden)
    around = (operator @ view.counts)[:, measured].toarray() * (view.neighbors.shape[1] - 1)
    profile = view.total[measured] / max(view.total[measured].sum(), 1.0)
    truth = np.log1p(counts)
    errors = np.zeros(len(SHRINKAGES))
    for i, shrinkage in enumerate(SHRINKAGES):
        mixed = shrunk(around, profile, shrinkage)
        visible = np.maximum(mixed.sum(axis=1, where=~hidden), 1e-6)
        guess = log1p_mean(mixed * (depth / visible)[:, None])
        errors[i] = ((guess - truth) ** 2).sum(where=hidden, dtype=np.float64)
    return errors
