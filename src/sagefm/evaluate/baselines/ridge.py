"""Ridge regression of hidden genes on principal components of what is visible."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csr_matrix

from sagefm._types import Singles
from sagefm.evaluate.baselines.reference import Reference, SlideSummary
from sagefm.evaluate.baselines.shown import Shown, zeroed
from sagefm.nn.masking import Masks

PENALTIES = (1e0, 1e1, 1e2, 1e3, 1e4)
_EVERY = 4
"""Of four blocks of genes one decides on the penalty."""


@dataclass(frozen=True)
class Ridge:
    """Coefficients of every measured gene, for one kind of mask."""

    loadings: Singles
    """Panel × components; rows of genes that the slide lacks are zero."""
    coefficients: Singles
    """Features and a constant × panel."""
    neighbors: bool

    def predict(self, shown: Shown) -> Singles:
        """Predict the genes that are asked for: spots × genes, log1p counts, never below 0."""
        features = shown.visible @ self.loadings
        if self.neighbors:
            features = np.hstack([features, shown.around(shown.view.log) @ self.loadings])
        guess = _with_constant(features) @ self.coefficients[:, shown.genes]
        return np.asarray(np.maximum(guess, 0.0), dtype=np.float32)


def fit(reference: Reference, shown: Shown, *, neighbors: bool, seed: int) -> Ridge:
    """Learn from other patients' spots what a slide's hidden genes are, given its visible ones.

    The reference hides genes in the same way as `shown` (the same modules, the same missing
    genes), and shows no more genes than the slide has. The penalty is the best on the slides of one
    half of the patients after learning from the other half.

    Parameters
    ----------
    reference
        Slides of other patients.
    shown
        What is hidden, and where.
    neighbors
        Whether the components of the 14 neighbors' mean are features besides those of the center.
    seed
        Of the masks.
    """
    pieces = reference.like(shown.view.measured)
    center = sparse.vstack([piece.center for piece in pieces], format="csr")
    loadings = reference.loadings * shown.view.measured[:, None]
    drawn = np.random.default_rng(seed).integers(len(shown.spots), size=center.shape[0])
    masks = shown.masks._replace(hides=shown.masks.hides[drawn])
    hidden = np.zeros(center.shape, dtype=bool)
    hidden[:, shown.view.measured] = masks.dense().numpy()
    features = [zeroed(center, hidden) @ loadings]
    if neighbors:
        around = sparse.vstack([piece.around for piece in pieces], format="csr")
        features.append((around if shown.where == "center" else zeroed(around, hidden)) @ loadings)
    x = _with_constant(np.hstack(features))
    blocks = list(_blocks(center, masks, np.flatnonzero(shown.view.measured)))
    first = _first_half(pieces)
    errors = np.zeros(len(PENALTIES))
    for rows, _, truth in blocks[::_EVERY]:
        learn, test = first[rows], ~first[rows]
        dense = truth[test].toarray()
        for i, solved in enumerate(_solve(x[rows[learn]], truth[learn], PENALTIES)):
            errors[i] += ((x[rows[test]] @ solved - dense) ** 2).sum(dtype=np.float64)
    best = [PENALTIES[int(errors.argmin())]]
    coefficients = np.zeros((x.shape[1], len(shown.view.measured)), dtype=np.float32)
    for rows, columns, truth in blocks:
        coefficients[:, columns] = next(_solve(x[rows], truth, best))
    return Ridge(loadings, coefficients, neighbors)


def _blocks(
    center: csr_matrix, masks: Masks, measured: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], csr_matrix]]:
    """Give for each block of genes the rows that hide it, its columns, and the truth there."""
    by_column = center.tocsc()
    order, ends, hides = (part.numpy() for part in masks)
    for block, (start, stop) in enumerate(pairwise(ends)):
        rows = np.flatnonzero(hides[:, block])
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


def _first_half(pieces: Sequence[SlideSummary]) -> NDArray[np.bool_]:
    """Split the sampled spots by patient, by slide of a single patient, else in the middle."""
    patients = sorted({piece.patient for piece in pieces})
    sizes = [piece.center.shape[0] for piece in pieces]
    if len(patients) > 1:
        flags = [patients.index(piece.patient) % 2 == 0 for piece in pieces]
    elif len(pieces) > 1:
        flags = [i % 2 == 0 for i in range(len(pieces))]
    else:
        return np.arange(sizes[0]) < sizes[0] // 2
    return np.repeat(flags, sizes)


def _with_constant(features: Singles) -> Singles:
    return np.hstack([features, np.ones((len(features), 1), dtype=np.float32)])
