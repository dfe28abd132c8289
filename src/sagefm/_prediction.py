"""The one loop that masks genes and predicts them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from sagefm import _adaptation as adaptation
from sagefm._errors import InputError
from sagefm._progress import counted
from sagefm._types import Bools, Positions, Singles, Where
from sagefm.nn import EncodedSlide, MaskedGenes, Network, encode
from sagefm.pp.aligned import AlignedSlide

BLOCK = 4096
"""Spots whose hidden layers are in memory together."""


class MaskedPrediction(NamedTuple):
    """Predictions of a group of genes in a block of spots, while genes are masked."""

    spots: slice | Positions
    """Which of the spots that are predicted."""
    group: int
    """Which of the groups of genes."""
    log1p: Singles
    """Spots × genes of the group, log1p counts."""
    slide: AlignedSlide
    """What was in memory: the slide, or the part of it with these spots."""
    neighbors: Positions
    """Spots × neighborhood, rows of `slide`, the spot first."""


def predict_masked(
    network: Network,
    aligned: AlignedSlide,
    groups: Sequence[Positions],
    *,
    mask: NDArray[np.bool_] | csr_matrix | Callable[[slice], Bools] | None,
    where: Where | None,
    spots: Positions | None,
    block_size: int,
    fingerprint: str | None,
    seed: int,
) -> Iterator[MaskedPrediction]:
    """Predict genes while genes are masked; see :meth:`sagefm.SageFM.predict_masked`.

    Parameters
    ----------
    fingerprint
        Of the model, if it is to be adapted.
    """
    require_where(where, mask)
    neighbors = aligned.neighbors if spots is None else aligned.neighbors[spots]
    encoded = None if where == "slide" else _encode(network, aligned)
    fitted = None
    if fingerprint and encoded and any(aligned.measured[group].any() for group in groups):
        fitted = adaptation.encode_cross_fitted(network, fingerprint, aligned, seed)
    blocks = list(blocks_of(len(neighbors), block_size))
    for number, group in enumerate(groups):
        used = encoded or _encode(network, aligned.without(group))
        parts = adaptation.by_measured(fitted, used, aligned.measured[group])
        what = f"predicting, group {number + 1} of {len(groups)}, block"
        for block in counted(blocks, what):
            rows = None if mask is None else rows_of_mask(mask, block)
            masked = masked_genes(where, group, rows, len(network.first))
            log1p = predict_group(network, parts, group, neighbors[block], masked)
            yield MaskedPrediction(block, number, log1p, aligned, neighbors[block])


def require_where(where: str | None, mask: object) -> None:
    """Raise an error if genes cannot be masked there."""
    if where not in (None, "center", "neighborhood", "slide"):
        raise InputError(f"where={where!r}: choose center, neighborhood or slide")
    if where == "slide" and mask is not None:
        raise InputError("mask: does not go with where='slide', which masks whole groups")


def masked_genes(
    where: Where | None, group: Positions, rows: Bools | None, n_genes: int
) -> MaskedGenes | None:
    """Say what is masked while a group of genes is predicted, in centers or neighborhoods."""
    if where not in ("center", "neighborhood"):
        return None
    genes = group if rows is None else np.arange(n_genes)
    return MaskedGenes(genes, rows, where == "neighborhood")


@torch.inference_mode()
def _encode(network: Network, slide: AlignedSlide) -> EncodedSlide:
    return encode(network, slide)


@torch.inference_mode()
def predict_group(
    network: Network,
    parts: list[tuple[EncodedSlide, Positions]],
    group: Positions,
    neighbors: Positions,
    masked: MaskedGenes | None,
) -> Singles:
    """Predict each part of the genes of a group by what knows them."""
    log1p = np.empty((len(neighbors), len(group) if len(parts) > 1 else 0), dtype=np.float32)
    for encoded, columns in parts:
        genes = group[columns]
        is_vocabulary = np.array_equal(genes, np.arange(len(network.first)))
        positions = None if is_vocabulary else torch.from_numpy(genes).to(network.device)
        some: Singles = encoded.centers(neighbors, masked).predict(positions).cpu().numpy()
        if len(parts) == 1:
            return some
        log1p[:, columns] = some
    return log1p


def gathered(blocks: Iterable[MaskedPrediction], n_spots: int, n_genes: int) -> Singles:
    """Put the blocks of one group together: spots × genes."""
    result = np.empty((n_spots, n_genes), dtype=np.float32)
    for block in blocks:
        result[block.spots] = block.log1p
    return result


@torch.inference_mode()
def embed_all(encoded: EncodedSlide, neighbors: Positions, width: int) -> Singles:
    """Embed centers, a block at a time: centers × width."""
    result = np.empty((len(neighbors), width), dtype=np.float32)
    for block in counted(list(blocks_of(len(result), BLOCK)), "embedding, block"):
        result[block] = encoded.embed(neighbors[block]).cpu().numpy()
    return result


def blocks_of(n_spots: int, size: int) -> Iterator[slice]:
    """Divide spots into blocks of at most `size`."""
    return (slice(start, start + size) for start in range(0, n_spots, size))


def rows_of_mask(mask: Any, block: slice | Positions) -> Bools:
    """Get the mask of some spots."""
    rows: Any = mask(block) if callable(mask) else mask[block]
    return np.asarray(rows.toarray() if hasattr(rows, "toarray") else rows, dtype=np.bool_)


def require_shape(hidden: Any, n_spots: int, n_genes: int) -> None:
    """Refuse a mask that is not spots × vocabulary.

    Raises
    ------
    InputError
        It has another shape.
    """
    if hidden is not None and hidden.shape != (n_spots, n_genes):
        raise InputError(
            f"hidden is {' × '.join(map(str, hidden.shape))}, but the slide has "
            f"{n_spots} spots and the model {n_genes} genes; "
            "give one row per spot and one column per gene of the vocabulary"
        )
