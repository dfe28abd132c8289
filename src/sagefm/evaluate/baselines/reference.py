"""The slides of other patients that baselines are fitted to, summarized one at a time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csr_matrix

from sagefm.evaluate.baselines.masked import PanelSlide
from sagefm.nn.masking import draw_masks
from sagefm.pp.neighborhood import average
from sagefm.stats.poisson import log1p_mean

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

SHRINKAGES = (1e2, 1e3, 3e3, 1e4, 3e4, 1e5, 3e5, 1e6)
DEFAULT_SHRINKAGE = 1e5
"""Counts; used if there is no slide of another patient to choose it on."""
N_COMPONENTS = 50
SAMPLE = 3000
"""Spots of all slides together that regressions are fitted to."""
_SAMPLE_LEAST = 50
"""Minimum number of spots of each slide, if it has as many."""


@dataclass(frozen=True)
class SlideSummary:
    """A summary of one slide."""

    patient: str
    n_spots: int
    measured: NDArray[np.bool_]
    log_total: NDArray[np.float64]
    """Per gene of the panel, log1p counts summed over all spots."""
    total: NDArray[np.float64]
    """Per gene of the panel, counts summed over all spots."""
    center: csr_matrix
    """Sampled spots × panel, log1p counts."""
    neighbor_mean: csr_matrix
    """The same spots, mean log1p counts of the 14 neighbors."""
    shrinkage_errors: NDArray[np.float64]
    """Squared errors of the shrunk neighbor profile per entry of :data:`SHRINKAGES`, summed."""

    @classmethod
    def of(cls, slide: PanelSlide, patient: str, n_sampled: int, seed: int) -> "SlideSummary":
        """Summarize a slide; `n_sampled` of its spots are drawn."""
        rng = np.random.default_rng(seed)
        n_spots = slide.counts.shape[0]
        spots = np.sort(rng.choice(n_spots, min(n_sampled, n_spots), replace=False))
        operator = average(slide.neighbors[spots], center=False, n_spots=n_spots)
        return cls(
            patient=patient,
            n_spots=n_spots,
            measured=slide.measured,
            log_total=np.asarray(slide.log.sum(axis=0, dtype=np.float64)).ravel(),
            total=slide.total,
            center=slide.log[spots],
            neighbor_mean=operator @ slide.log,
            shrinkage_errors=_shrinkage_errors(slide, spots, operator, rng),
        )


@dataclass(frozen=True)
class Reference:
    """Summaries of slides of other patients."""

    summaries: tuple[SlideSummary, ...]
    seed: int

    @classmethod
    def without(cls, patient: str, summaries: Mapping[str, SlideSummary], seed: int) -> "Reference":
        """Keep the slides of all patients but one."""
        return cls(tuple(p for p in summaries.values() if p.patient != patient), seed)

    def __bool__(self) -> bool:
        return bool(self.summaries)

    @cached_property
    def gene_mean(self) -> NDArray[np.float32]:
        """Mean log1p counts per gene over the spots of slides that measured it, else 0."""
        n = sum(summary.n_spots * summary.measured for summary in self.summaries)
        total = sum(summary.log_total for summary in self.summaries)
        return np.asarray(total / np.maximum(n, 1), dtype=np.float32)

    @cached_property
    def profile(self) -> NDArray[np.float32]:
        """Fraction of the counts of each gene, averaged over the patients that measured it."""
        patients = sorted({summary.patient for summary in self.summaries})
        fractions, n = np.zeros((2, len(self.summaries[0].total)))
        for patient in patients:
            of_patient = [summary for summary in self.summaries if summary.patient == patient]
            total = np.sum([summary.total for summary in of_patient], axis=0)
            measured = np.any([summary.measured for summary in of_patient], axis=0)
            fractions += total / max(total.sum(), 1.0)
            n += measured
        return np.asarray(fractions / np.maximum(n, 1), dtype=np.float32)

    @cached_property
    def shrinkage(self) -> float:
        """Pseudocounts from the profile of the slide that predict best on these slides."""
        if not self.summaries:
            return DEFAULT_SHRINKAGE
        errors = np.sum([summary.shrinkage_errors for summary in self.summaries], axis=0)
        return SHRINKAGES[int(errors.argmin())]

    @cached_property
    def loadings(self) -> NDArray[np.float32]:
        """Panel × 50: leading singular vectors of the sampled log1p counts."""
        from sklearn.decomposition import TruncatedSVD

        stacked = sparse.vstack([summary.center for summary in self.summaries], format="csr")
        n_components = min(N_COMPONENTS, *(size - 1 for size in stacked.shape))
        svd = TruncatedSVD(n_components, n_iter=4, random_state=self.seed).fit(stacked)
        return np.asarray(svd.components_.T, dtype=np.float32)

    def like(self, measured: NDArray[np.bool_]) -> Sequence[SlideSummary]:
        """Keep the slides that measured at least half of some genes; all slides if none did."""
        n_shared = [int((summary.measured & measured).sum()) for summary in self.summaries]
        enough = [
            p for p, n in zip(self.summaries, n_shared, strict=True) if 2 * n >= measured.sum()
        ]
        return enough or self.summaries


def sample_size(n_slides: int) -> int:
    """Get the number of spots to draw from each of `n_slides` slides."""
    return max(_SAMPLE_LEAST, SAMPLE // n_slides)


def shrunk(counts: "ArrayLike", profile: "ArrayLike", shrinkage: float) -> NDArray[np.float32]:
    """Add pseudocounts from the profile of the slide (which sums to 1) to neighborhood counts."""
    mixed = np.asarray(counts, dtype=np.float32) + np.float32(shrinkage) * np.asarray(
        profile, dtype=np.float32
    )
    return np.asarray(mixed, dtype=np.float32)


def _shrinkage_errors(
    slide: PanelSlide, spots: NDArray[np.int64], operator: csr_matrix, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Score each shrinkage on a slide with 30 % of the measured genes masked."""
    measured = np.flatnonzero(slide.measured)
    counts = slide.counts[spots][:, measured].toarray()
    mask = draw_masks(len(spots), len(measured), 0.3, rng).dense().numpy()
    library_size = counts.sum(axis=1, where=~mask)
    pooled = (operator @ slide.counts)[:, measured].toarray() * (slide.neighbors.shape[1] - 1)
    profile = slide.total[measured] / max(slide.total[measured].sum(), 1.0)
    truth = np.log1p(counts)
    errors = np.zeros(len(SHRINKAGES))
    for i, shrinkage in enumerate(SHRINKAGES):
        mixed = shrunk(pooled, profile, shrinkage)
        visible = np.maximum(mixed.sum(axis=1, where=~mask), 1e-6)
        prediction = log1p_mean(mixed * (library_size / visible)[:, None])
        errors[i] = ((prediction - truth) ** 2).sum(where=mask, dtype=np.float64)
    return errors
