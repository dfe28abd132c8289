"""Which spots are out of distribution: their expression is unlike that of all reference spots."""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix

from sagefm._types import Bools, Codes, Floats, Singles
from sagefm.stats.reference import balanced_sample
from sagefm.tl._tissue import Tissue

_N_SPOTS = 15
"""Spots whose mean is compared."""
_N_NEAREST = 5
_MAX_SPOTS = 1000
"""Reference spots that are compared with."""
_TAIL = 0.99
_OTHER_PATIENT = 2.0
"""How much less alike another patient may be than strips of one section are."""
_N_STRIPS = 4
_BLOCK = 256


@dataclass(frozen=True)
class Unlikeness:
    """How unlike spots are to the reference: 1 - correlation of genes, between 0 and 2.

    Attributes
    ----------
    values
        Of each new spot, to its 5 most similar reference spots.
    limit
        What is beyond it is out of distribution.
    """

    values: Floats
    limit: float

    @property
    def is_out(self) -> Bools:
        """Which spots are out of distribution."""
        return self.values > self.limit

    @property
    def is_foreign(self) -> bool:
        """Whether the section as a whole is out of distribution."""
        return bool(np.median(self.values) > self.limit)


def measure_unlikeness(tissue: Tissue, codes: Codes, patients: Codes) -> Unlikeness:
    """Compare the first batch of a tissue with the labeled spots.

    The limit is what 99 % of the labeled spots keep to the spots of other patients. With one
    patient, they are compared with other strips of the sections (spots are sorted by section and
    place), and twice as much is tolerated.

    Parameters
    ----------
    tissue
        The new section, batch 0, and the reference sections.
    codes
        The label of each spot of the tissue; -1 where it has none.
    patients
        The patient of each spot of the tissue.
    """
    labeled = np.flatnonzero(codes >= 0)
    kept = labeled[balanced_sample(codes[labeled], np.random.default_rng(0), _MAX_SPOTS)]
    means = csr_matrix(tissue.mean(0, _N_SPOTS))
    sample = _standardized(means[kept], tissue.expression)
    groups, tolerated = patients[kept], 1.0
    if len(np.unique(groups)) == 1:
        groups, tolerated = np.arange(len(kept)) * _N_STRIPS // len(kept), _OTHER_PATIENT
    between = [
        _unlike(sample[groups == code] @ sample[groups != code].T) for code in np.unique(groups)
    ]
    limit = tolerated * float(np.quantile(np.concatenate(between), _TAIL))
    new = np.flatnonzero(tissue.batches == 0)
    values = [
        _unlike(_standardized(means[new[at : at + _BLOCK]], tissue.expression) @ sample.T)
        for at in range(0, len(new), _BLOCK)
    ]
    return Unlikeness(np.concatenate(values), limit)


def _standardized(operator: csr_matrix, expression: csr_matrix) -> Singles:
    """Average expression, and scale it to mean 0 and length 1 over the genes."""
    means = np.asarray((operator @ expression).toarray(), dtype=np.float32)
    means -= means.mean(axis=1, keepdims=True)
    return np.asarray(means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12))


def _unlike(correlations: Singles) -> Floats:
    """Compute 1 - the mean of the largest correlations of each row."""
    n_nearest = min(_N_NEAREST, correlations.shape[1])
    largest = np.partition(correlations, -n_nearest, axis=1)[:, -n_nearest:]
    return np.asarray(1 - largest.mean(axis=1), dtype=np.float64)
