"""Score whole signatures from a matrix of single genes: raised genes × signatures.

For a value v(g, t) of a raised gene g on a gene t, an effect or a correlation, and a signature of
genes t with weights w::

    x(g, t)     = v(g, t), centered and scaled to sd 1 over the raised genes; 0 for g = t
    y(g, S)     = sum over t of w(t) x(g, t) / root of the sum of w(t)²
    score(g, S) = y(g, S) - mean of y(g, R) over 100 replicas R of S

A replica has another gene of the same expression in the place of each gene of the signature, with
its weight. Replicas take away what g does to genes in general, and what a sum of many genes does
where their weights have one sign. Signatures and their replicas are tested as targets and the genes
matched to them are (see ``_significance.py`` and ``_set_test.py``).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy.sparse import csr_matrix

from sagefm._types import Floats, Positions
from sagefm.tl.perturbation._evidence import scaled
from sagefm.tl.perturbation._plan import Direction

N_REPLICAS = 100


@dataclass(frozen=True)
class Signature:
    """A signature of genes that the model and the slides have."""

    name: str
    genes: Positions
    """Each once, sorted."""
    weights: Floats


@dataclass(frozen=True)
class SignatureReadout:
    """Signatures whose genes are masked and predicted together."""

    signatures: Sequence[Signature]
    direction: Direction
    """Of single genes: each ligand with each gene."""
    weights: csr_matrix
    """A row for each signature and, after it, each of its replicas × columns of the direction."""

    @classmethod
    def of(cls, signatures: Sequence[Signature], direction: Direction, seed: int) -> Self:
        """Draw the replicas."""
        targets, controls = direction.targets, direction.controls
        columns, values = [], []
        for one in signatures:
            at = np.searchsorted(targets, one.genes)
            # The same for the same genes, whatever else is asked and however they are weighted.
            chance = np.random.default_rng([seed, *one.genes.tolist()])
            drawn = np.searchsorted(controls, _drawn(direction.matched_targets[at], chance))
            columns.append(np.column_stack([at, len(targets) + drawn]).T.ravel())
            values.append(np.tile(one.weights, 1 + N_REPLICAS))
        sizes = [len(one.genes) for one in signatures for _ in range(1 + N_REPLICAS)]
        rows = np.repeat(np.arange(len(sizes)), sizes)
        shape = len(sizes), len(direction.columns)
        entries = np.concatenate(values), (rows, np.concatenate(columns))
        return cls(signatures, direction, csr_matrix(entries, shape=shape))

    def scores(self, values: Floats) -> Floats:
        """Compute scores: signatures × (itself, replicas) × raised genes."""
        direction = self.direction
        itself = direction.raised[:, None] == direction.columns
        x = np.nan_to_num(scaled(np.where(itself, np.nan, values)))
        length = np.sqrt([np.sum(one.weights**2) for one in self.signatures])
        y = np.asarray(self.weights @ x.T).reshape(len(length), 1 + N_REPLICAS, -1)
        scores = (y - y[:, 1:].mean(axis=1, keepdims=True)) / length[:, None, None]
        # What no gene changes is not to change because its replicas do.
        return np.asarray(np.where(y.any(axis=2, keepdims=True), scores, 0.0))

    def effects(self, values: Floats) -> Floats:
        """Average effects by weight: signatures × (itself, replicas) × ligands, log1p counts."""
        direction = self.direction
        rows = np.searchsorted(direction.raised, direction.sources)
        others = (direction.sources[:, None] != direction.columns).astype(np.float64)
        known = np.where(others > 0, values[rows], 0.0)
        total = np.asarray(self.weights @ known.T)
        weight = np.asarray(abs(self.weights) @ others.T)
        averaged = np.divide(total, weight, out=np.full_like(total, np.nan), where=weight > 0)
        return np.asarray(averaged.reshape(len(self.signatures), 1 + N_REPLICAS, -1))


def _drawn(matched: Positions, chance: np.random.Generator) -> Positions:
    """Draw a matched gene for each gene in each replica, each equally often: genes × replicas."""
    n_genes, n_matched = matched.shape
    n_rounds = -(-N_REPLICAS // n_matched)
    rounds = np.broadcast_to(matched[:, None, :], (n_genes, n_rounds, n_matched))
    shuffled = chance.permuted(rounds, axis=2).reshape(n_genes, -1)
    return np.asarray(shuffled[:, :N_REPLICAS])


def collapsed(
    readouts: Sequence[SignatureReadout], pairs: tuple[Positions, Positions], n: int
) -> Direction:
    """Make the signatures targets, and their replicas the genes matched to them.

    Parameters
    ----------
    readouts
        All of the same ligands, raised genes and genes matched to ligands.
    pairs
        Of each pair, the position of the ligand and the number of the signature.
    n
        Genes of the vocabulary: the positions of signatures and replicas follow them.
    """
    genes = readouts[0].direction
    n_signatures = sum(len(one.signatures) for one in readouts)
    replicas = n + n_signatures + np.arange(n_signatures * N_REPLICAS)
    return Direction(
        name="forward", source=pairs[0], target=n + pairs[1], sources=genes.sources,
        targets=n + np.arange(n_signatures), matched=genes.matched, coexpressed=genes.coexpressed,
        matched_targets=replicas.reshape(n_signatures, N_REPLICAS), raised=genes.raised,
        controls=replicas,
    )  # fmt: skip


def collapse(readouts: Sequence[SignatureReadout], values: Sequence[Floats]) -> Floats:
    """Score all signatures: raised genes × columns of :func:`collapsed`.

    Parameters
    ----------
    values
        Of each readout, raised genes × columns of its direction.
    """
    scores = np.concatenate([one.scores(v) for one, v in zip(readouts, values, strict=True)])
    n_raised = scores.shape[2]
    return np.concatenate([scores[:, 0], scores[:, 1:].reshape(-1, n_raised)]).T
