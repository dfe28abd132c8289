"""An embedding computed in the plainest way, to hold successes against.

Files are read with h5py alone, sparse matrices are filled in entry by entry, neighbors are found by
comparing all distances: no code of the package takes part.
"""

import itertools
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from safetensors.numpy import load_file

N_NEIGHBORS = 15


@dataclass(frozen=True)
class Plain:
    """What a slide holds: counts by gene name, and places."""

    spots: list[str]
    genes: list[str]
    counts: np.ndarray
    places: np.ndarray


def read_plainly(path: Path) -> Plain:
    with h5py.File(path) as file:
        genes, spots = _names(file["var"]), _names(file["obs"])
        node = file["X"]
        counts = np.zeros((len(spots), len(genes)))
        if isinstance(node, h5py.Dataset):
            counts += node[:]
        else:
            _fill(counts, node)
        return Plain(spots, genes, counts, np.asarray(file["obsm/spatial"][:, :2], dtype=float))


def _names(group: h5py.Group) -> list[str]:
    return [str(name) for name in group[group.attrs["_index"]].asstr()[:]]


def _fill(counts: np.ndarray, node: h5py.Group) -> None:
    data, indices, indptr = (node[name][:] for name in ("data", "indices", "indptr"))
    by_row = str(node.attrs["encoding-type"]).startswith("csr")
    assert indptr[0] == 0 and indptr[-1] == len(data) == len(indices)
    for i, (start, stop) in enumerate(itertools.pairwise(indptr)):
        for at in range(start, stop):
            assert indices[at] >= 0
            row, column = (i, indices[at]) if by_row else (indices[at], i)
            counts[row, column] += data[at]


def neighborhoods(places: np.ndarray, k: int = N_NEIGHBORS) -> np.ndarray:
    away = ((places[:, None] - places[None]) ** 2).sum(-1)
    np.fill_diagonal(away, -1)
    return np.argsort(away, axis=1, kind="stable")[:, :k]


def has_ties(places: np.ndarray, k: int = N_NEIGHBORS) -> bool:
    """Whether a neighborhood could as well have another spot: there are rules for that."""
    away = np.sort(((places[:, None] - places[None]) ** 2).sum(-1), axis=1)
    return bool((away[:, k] <= away[:, k - 1] * (1 + 1e-6)).any())


def embedding(plain: Plain, model: Path, symbols: list[str]) -> np.ndarray:
    """The published network: the mean over neighborhoods, then a multilayer perceptron."""
    weights = {name: values.astype(float) for name, values in load_file(model).items()}
    position = {symbol: i for i, symbol in enumerate(symbols)}
    aligned = np.zeros((len(plain.spots), len(symbols)))
    for gene, column in zip(plain.genes, plain.counts.T, strict=True):
        if gene in position:
            aligned[:, position[gene]] += column
    hidden = np.log1p(aligned)[neighborhoods(plain.places)].mean(axis=1) @ weights["first"]
    hidden += weights["first_bias"]
    for layer in range(4):
        hidden = np.where(hidden > 0, hidden, 0.01 * hidden)
        hidden = hidden @ weights[f"encoder.{layer}.weight"].T + weights[f"encoder.{layer}.bias"]
    return hidden


def differs(got: np.ndarray, expected: np.ndarray) -> str:
    """Say how an embedding differs from what is expected; empty if it does not."""
    if got.shape != expected.shape:
        return f"shape {got.shape} instead of {expected.shape}"
    off = np.abs(got - expected).max() / np.abs(expected).max()
    return "" if off < 1e-4 else f"off by {off:.2g} of the largest number"
