"""Ridge regression of masked genes on principal components of the other genes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csr_matrix

from sagefm._types import Singles
from sagefm.evaluate.baselines.masked import MaskedSpots, zeroed
from sagefm.evaluate.baselines.reference import Reference, SlideSummary
from sagefm.nn.masking import Masks

PENALTIES = (1e0, 1e1, 1e2, 1e3, 1e4)
_EVERY = 4
"""The penalty is chosen on one of four blocks of genes."""


@dataclass(frozen=True)
class Ridge:
    """Coefficients of every measured gene, for one kind of mask."""

    loadings: Singles
    """Panel × components; rows of genes that the slide lacks are zero."""
    coefficients: Singles
    """Features and a constant × panel."""
    neighbors: bool

    def predict(self, masked: MaskedSpots) -> Singles:
        """Predict `masked.genes`: spots × genes, log1p counts, never below 0."""
        features = masked.visible @ self.loadings
        if self.neighbors:
            features = np.hstack([features, masked.neighbor_mean(masked.slide.log) @ self.loadings])
        prediction = _with_constant(features) @ self.coefficients[:, masked.genes]
        return np.asarray(np.maximum(prediction, 0.0), dtype=np.float32)


def fit(reference: Reference, masked: MaskedSpots, *, neighbors: bool, seed: int) -> Ridge:
    """Fit a regression of the masked genes on the other genes, on spots of other patients.

    Genes of the reference are masked in the same way as in `masked` (the same modules, the same
    missing genes), and only genes that the slide has are used. The penalty is the best on the
    slides of one half of the patients after fitting to the other half.

    Parameters
    ----------
    reference
        Slides of other patients.
    masked
        Which genes are masked, and where.
    neighbors
        Whether the components of the mean of the 14 neighbors are features too.
    seed
        Of the masks.
    """
    summaries = reference.like(masked.slide.measured)
    center = sparse.vstack([summary.center for summary in summaries], format="csr")
    loadings = reference.loadings * masked.slide.measured[:, None]
    drawn = np.random.default_rng(seed).integers(len(masked.spots), size=center.shape[0])
    masks = masked.masks._replace(masked=masked.masks.masked[drawn])
    mask = np.zeros(center.shape, dtype=bool)
    mask[:, masked.slide.measured] = masks.dense().numpy()
    features = [zeroed(center, mask) @ loadings]
    if neighbors:
        means = sparse.vstack([summary.neighbor_mean for summary in summaries], format="csr")
        features.append((means if masked.where == "center" else zeroed(means, mask)) @ loadings)
    x = _with_constant(np.hstack(features))
    blocks = list(_blocks(center, masks, np.flatnonzero(masked.slide.measured)))
    first = _first_half(summaries)
    errors = np.zeros(len(PENALTIES))
    for rows, _, truth in blocks[::_EVERY]:
        learn, test = first[rows], ~first[rows]
        dense = truth[test].toarray()
        for i, solved in enumerate(_solve(x[rows[learn]], truth[learn], PENALTIES)):
            errors[i] += ((x[rows[test]] @ solved - dense) ** 2).sum(dtype=np.float64)
    best = [PENALTIES[int(errors.argmin())]]
    coefficients = np.zeros((x.shape[1], len(masked.slide.measured)), dtype=np.float32)
    for rows, columns, truth in blocks:
        coefficients[:, columns] = next(_solve(x[rows], truth, best))
    return Ridge(loadings, coefficients, neighbors)


def _blocks(
    center: csr_matrix, masks: Masks, measured: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], csr_matrix]]:
    """Yield for each block of genes the rows that mask it, its columns, and the truth there."""
    by_column = center.tocsc()
    order, ends, block_mask = (array.numpy() for array in masks)
    for block, (start, stop) in enumerate(pairwise(ends)):
        rows = np.flatnonzero(block_mask[:, block])
        if len(rows):
            columns = measured[order[start:stop]]
            yield rows, columns, by_column[:, columns].tocsr()[rows]


def _solve(x: Singles, y: csr_matrix, penalties: Sequence[float]) -> Iterator[Singles]:
    """Solve the normal equations for each penalty; the constant is not penalized."""
    gram = x.T.astype(np.float64) @ x
    cross = (y.T @ x).T
    free = np.ones(len(gram))
    free[-1] = 1e-6
    for penalty in penalties:
        yield np.linalg.inv(gram + np.diag(penalty * free)).astype(np.float32) @ cross


def _first_half(summaries: Sequence[SlideSummary]) -> NDArray[np.bool_]:
    """Split the sampled spots by patient, by slide of a single patient, else in the middle."""
    patients = sorted({summary.patient for summary in summaries})
    sizes = [summary.center.shape[0] for summary in summaries]
    if len(patients) > 1:
        flags = [patients.index(summary.patient) % 2 == 0 for summary in summaries]
    elif len(summaries) > 1:
        flags = [i % 2 == 0 for i in range(len(summaries))]
    else:
        return np.arange(sizes[0]) < sizes[0] // 2
    return np.repeat(flags, sizes)


def _with_constant(features: Singles) -> Singles:
    return np.hstack([features, np.ones((len(features), 1), dtype=np.float32)])
