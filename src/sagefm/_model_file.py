"""Read and write model files."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch

from sagefm import __version__
from sagefm._difference import KIND, Difference
from sagefm._errors import InputError
from sagefm._validate import Range, read_as, require_declared, short
from sagefm.nn import NETWORKS, Network, Published, checkpoint
from sagefm.pp.gene_lists import read_genes
from sagefm.pp.gene_names import known_gene_names
from sagefm.pp.pseudonyms import without_names
from sagefm.pp.vocabulary import Vocabulary
from sagefm.stats.reference import ReferenceSpots

MAX_WIDTH, MAX_WIDTHS = 65536, 64
"""Of layers, and of how many of them: beyond it is no network that anyone could use."""
_TRAINED_ON = "trained_on."
"""Prefix of the arrays in a model file that hold a sample of the training spots."""


@dataclass(frozen=True)
class Config:
    """Architecture of a network.

    Raises
    ------
    InputError
        There is no such network, or it cannot have such widths or neighborhoods.
    """

    network: str = "published"
    """Name in :data:`sagefm.nn.NETWORKS`."""
    widths: tuple[Annotated[int, Range(1, MAX_WIDTH)], ...] = Published.PUBLISHED_WIDTHS
    """Widths of its layers."""
    n_neighbors: Annotated[int, Range(1, 1000)] = 15
    """Spots in a neighborhood, the center included."""

    def __post_init__(self) -> None:
        try:
            require_declared(self)
        except ValueError as error:
            raise InputError(f"config: {error}; give another value") from error
        if self.network not in NETWORKS:
            raise InputError(
                f"config: there is no network {short(self.network)} in this version "
                f"({', '.join(NETWORKS)}); name another, or upgrade sagefm"
            )
        kind, n_widths = NETWORKS[self.network], len(self.widths)
        if not kind.MIN_WIDTHS <= n_widths <= MAX_WIDTHS:
            raise InputError(
                f"config: the network {self.network} has {kind.MIN_WIDTHS} to {MAX_WIDTHS} widths, "
                f"not {n_widths}; give another number of them"
            )
        if self.n_neighbors < kind.MIN_NEIGHBORS:
            raise InputError(
                f"config: n_neighbors is {self.n_neighbors}, but the network {self.network} needs "
                f"neighborhoods of at least {kind.MIN_NEIGHBORS} spots; give more"
            )


@dataclass(frozen=True)
class _ModelHeader:
    """What a model file says about its weights."""

    format: int
    config: Config
    symbols: tuple[str, ...]
    ensembl: tuple[str, ...]
    provenance: dict[str, Any]


class StoredModel(NamedTuple):
    """The contents of a model file; see :class:`sagefm.SageFM`."""

    network: Network
    vocabulary: Vocabulary
    config: Config
    provenance: dict[str, Any]
    trained_on: ReferenceSpots | None = None


def fingerprint(model: StoredModel) -> str:
    """Compute the sha256 of all that an embedding depends on; see :class:`sagefm.SageFM`."""
    described = [asdict(model.config), model.vocabulary.symbols, model.vocabulary.ensembl]
    digest = hashlib.sha256(json.dumps(described).encode())
    for name, weights in sorted(model.network.state_dict().items()):
        digest.update(name.encode())
        digest.update(weights.cpu().numpy().ravel().data)
    return digest.hexdigest()


def read(path: Path) -> StoredModel | Difference:
    """Read a model file, or the difference of an adapted model from another.

    Raises
    ------
    InputError
        The file is missing, damaged, not a model of sagefm, or of a newer version.
    """
    weights, header = checkpoint.read(path, checkpoint.MODEL, KIND)
    if "kind" in header:
        return Difference.of(path, weights, header)
    sample = {
        name.removeprefix(_TRAINED_ON): weights.pop(name)
        for name in list(weights)
        if name.startswith(_TRAINED_ON)
    }
    if "progress" in header:
        raise InputError(
            f"{path}: is the state of a run; give best.safetensors, the model that lies beside it"
        )
    try:
        described = read_as(_ModelHeader, header)
        vocabulary, config = Vocabulary(described.symbols, described.ensembl), described.config
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except ValueError as error:
        raise InputError(f"{path}: its header is damaged ({error}); copy it again") from error
    network = checkpoint.fill(path, weights, config.network, len(vocabulary), config.widths)
    width = network.embedding_width(config.widths)
    trained_on = _trained_on(path, sample, width) if sample else None
    return StoredModel(network, vocabulary, config, described.provenance, trained_on)


def with_difference(path: Path, stored: Difference, base: StoredModel, found: str) -> StoredModel:
    """Make an adapted model from its base, which has the fingerprint `found`, and the difference.

    Raises
    ------
    InputError
        It is a difference from another model, or damaged.
    """
    if stored.base != found:
        raise InputError(
            f"{path}: is a difference from the model with the fingerprint "
            f"{short(stored.base[:16])}, not from that with {found[:16]!r}; give the model "
            "that was adapted as base"
        )
    weights, config = stored.added_to(path, base.network.state_dict()), base.config
    n_genes = len(base.vocabulary)
    network = checkpoint.fill(path, weights, config.network, n_genes, config.widths)
    return StoredModel(network, base.vocabulary, config, stored.provenance)


def read_published(path: str | Path, genes: str | Path) -> StoredModel:
    """Read the checkpoint of the paper and its gene list; see :meth:`SageFM.from_published`."""
    weights, facts = checkpoint.read_published(path)
    vocabulary = read_genes(genes)
    widths = (
        weights["first"].shape[-1],
        *(weights[f"encoder.{layer}.weight"].shape[0] for layer in range(4)),
    )
    try:
        config = Config(widths=widths)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    network = checkpoint.fill(path, weights, config.network, len(vocabulary), widths)
    provenance = {
        "weights": "published checkpoint",
        "source": Path(path).name,
        "genes": Path(genes).name,
        "checkpoint": facts,
        "gene_names": known_gene_names().version,
        "sagefm": __version__,
    }
    return StoredModel(network, vocabulary, config, provenance)


def write(path: str | Path, model: StoredModel, *, half: bool) -> None:
    """Write a model file; see :meth:`SageFM.save`."""
    header = {
        "config": asdict(model.config),
        "symbols": model.vocabulary.symbols,
        "ensembl": model.vocabulary.ensembl,
        "provenance": without_names(model.provenance),
    }
    weights = model.network.state_dict()
    if half:
        weights = {name: _halved(path, name, values) for name, values in weights.items()}
    if model.trained_on is not None:
        weights |= {
            _TRAINED_ON + name: torch.from_numpy(values)
            for name, values in model.trained_on.arrays().items()
        }
    checkpoint.write(path, weights, header)


def _halved(path: str | Path, name: str, values: torch.Tensor) -> torch.Tensor:
    """Round weights to half precision; raise an error if one is too large."""
    rounded = values.half()
    if (torch.isinf(rounded) & torch.isfinite(values)).any():
        raise InputError(
            f"{path}: {name} has weights beyond {torch.finfo(torch.half).max:,.0f}, too large for "
            "half precision; save it without"
        )
    return rounded


def _trained_on(path: str | Path, arrays: dict[str, torch.Tensor], width: int) -> ReferenceSpots:
    """Get the sample of the spots that a model was trained on."""
    try:
        return ReferenceSpots.from_arrays({n: a.numpy() for n, a in arrays.items()}, width)
    except (TypeError, ValueError) as error:  # numpy lacks some types of torch
        raise InputError(
            f"{path}: its sample of training spots is damaged ({short(error)}); copy it again"
        ) from error
