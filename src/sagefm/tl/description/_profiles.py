"""Counts summed over the spots of a domain, and how many spots have a gene."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy.sparse import csr_matrix

from sagefm._types import Codes, Floats
from sagefm.tl.description._sections import DomainSection, LabeledSections

PER = 1e4
"""Rates are counts per 10,000 counts."""
_PRIOR = 0.5
"""Counts that are added to a sum of average depth before its logarithm."""

_SPREAD = 0.3
"""Log2 fold changes differ by this much even between groups of spots without any noise."""


@dataclass(frozen=True)
class Profiles:
    """Sums per group of spots."""

    counts: Floats
    """Groups × genes."""
    spots: Floats
    """Groups × genes: spots with the gene."""
    n_spots: Floats
    """Spots of each group."""

    @classmethod
    def of(cls, counts: csr_matrix, codes: Codes, n_groups: int) -> Self:
        """Sum the spots of each group; spots with a negative code are in none."""
        inside = np.flatnonzero(codes >= 0)
        shape = (n_groups, len(codes))
        groups = csr_matrix((np.ones(len(inside)), (codes[inside], inside)), shape=shape)
        present = csr_matrix((counts.data > 0, counts.indices, counts.indptr), counts.shape)
        n_spots = np.bincount(codes[inside], minlength=n_groups).astype(np.float64)
        sums, spots = (
            (groups @ matrix.astype(np.float64)).toarray() for matrix in (counts, present)
        )
        return cls(sums, spots, n_spots)

    @classmethod
    def total(cls, profiles: "Sequence[Profiles]") -> "Profiles":
        """Add the sums of several sections."""
        return cls(
            *(sum(getattr(p, name) for p in profiles) for name in ("counts", "spots", "n_spots"))
        )

    @property
    def library_size(self) -> Floats:
        """Counts of each group."""
        return np.asarray(self.counts.sum(axis=1))

    def others(self) -> "Profiles":
        """Sum all groups but one, for each."""
        return Profiles(*(s.sum(axis=0) - s for s in (self.counts, self.spots, self.n_spots)))

    def log2_rates(self) -> Floats:
        """Compute log2 of counts per 10,000; a prior keeps rates of few counts from extremes.

        The prior is a rate, the same for every group, so that a shallow group without a gene does
        not have more of it than a deep one.
        """
        size = self.library_size
        prior = _PRIOR / max(float(size[size > 0].mean()) if (size > 0).any() else 1.0, 1.0)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(np.log2(PER * (self.counts / size[:, None] + prior)))

    def fractions(self) -> Floats:
        """Compute the fraction of spots with each gene."""
        with np.errstate(invalid="ignore"):
            return np.asarray(self.spots / self.n_spots[:, None])


def of_section(section: DomainSection, n_domains: int) -> Profiles:
    """Sum the spots of each domain of a section."""
    return Profiles.of(section.counts, section.codes, n_domains)


def by_patient(labeled: LabeledSections) -> dict[str, Profiles]:
    """Sum the spots of each domain over the sections of each patient."""
    n = len(labeled.domains)
    return {
        patient: Profiles.total([of_section(s, n) for s in labeled.of_patient(patient)])
        for patient in labeled.patients
    }


def log2_folds(profiles: Mapping[str, Profiles]) -> Floats:
    """Compute log2 fold changes of each domain against the others: patients × domains × genes.

    NaN where a patient has not both.
    """
    folds = []
    for own in profiles.values():
        both = Profiles(*(np.concatenate([getattr(own, f), getattr(own.others(), f)])
                          for f in ("counts", "spots", "n_spots")))  # fmt: skip
        rates = both.log2_rates()
        n = len(own.n_spots)
        folds.append(rates[:n] - rates[n:])
    return np.stack(folds)


def mean_fold(folds: Floats) -> Floats:
    """Average fold changes over the patients that have the domain; 0 where none has."""
    known = ~np.isnan(folds)
    n = known.sum(axis=0)
    mean = np.zeros(folds.shape[1:])
    np.divide(np.nansum(folds, axis=0), n, out=mean, where=n > 0)
    return mean


def counting_noise(total: Profiles) -> Floats:
    """Compute the standard deviation of log2 fold changes by counting noise, were there no fold."""
    size = total.library_size / max(total.library_size.sum(), 1.0)
    inside = size[:, None] * total.counts.sum(axis=0)
    outside = (1 - size)[:, None] * total.counts.sum(axis=0)
    squared = (1 / (inside + 1) + 1 / (outside + 1)) / np.log(2) ** 2
    return np.asarray(np.sqrt(squared + _SPREAD**2))
