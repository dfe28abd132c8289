"""The slides of other patients that baselines are fitted to, summarized one at a time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csr_matrix

from sagefm.evaluate.baselines.masked import PanelSlide
from sagefm.pp.neighborhood import average

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
