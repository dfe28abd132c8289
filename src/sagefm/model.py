"""The one public object: a network with its vocabulary, its neighborhoods and its provenance."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, issparse

from sagefm import __version__
from sagefm._errors import InputError
from sagefm._fetch import local_copy
from sagefm.nn import NETWORKS, EncodedSlide, MaskedGenes, Network, Published, build, checkpoint
from sagefm.nn import encode as encode_by
from sagefm.pp.aligned import AlignedSlide
from sagefm.pp.gene_lists import read_genes
from sagefm.pp.vocabulary import Vocabulary
from sagefm.stats.reference import ReferenceSpots

if TYPE_CHECKING:
    from anndata import AnnData

_BLOCK = 4096
"""Spots whose hidden layers stand in memory together."""
_KNOWN = "trained_on."
"""What the names of arrays begin with that tell what a model was trained on."""


@dataclass(frozen=True)
class Config:
    """What a network is made of."""

    network: str = "published"
    """Name in :data:`sagefm.nn.NETWORKS`."""
    widths: tuple[int, ...] = Published.PUBLISHED_WIDTHS
    """Widths of its layers."""
    n_neighbors: int = 15
    """Spots in a neighborhood, the center included."""


@dataclass
class SageFM:
    """A model: load it, give it slides, read embeddings and predictions.

    Parameters
    ----------
    network
        The torch module.
    vocabulary
        Its genes, in the order of its inputs and outputs.
    config
        What the network is made of.
    provenance
        Where the weights come from: data, seed, versions.
    trained_on
        A sample of the spots that it was trained on, as it embeds them; None where it is not known.

    Examples
    --------
    >>> model = SageFM.load("default")  # doctest: +SKIP
    >>> model.embed(sagefm.read("outs/")).shape  # doctest: +SKIP
    (3639, 352)
    """

    network: Network
    vocabulary: Vocabulary
    config: Config
    provenance: dict[str, Any] = field(default_factory=dict)
    trained_on: ReferenceSpots | None = None

    def __post_init__(self) -> None:
        self.network.eval()

    def __repr__(self) -> str:
        return (
            f"SageFM({self.config.network}, {len(self.vocabulary):,} genes, "
            f"embedding of {self.width}, neighborhoods of {self.config.n_neighbors} spots)"
        )

    @property
    def width(self) -> int:
        """Width of the embedding."""
        return self.network.embedding_width(self.config.widths)

    @property
    def device(self) -> torch.device:
        """Where the network computes."""
        return self.network.device

    @cached_property
    def fingerprint(self) -> str:
        """Sha256 of all that an embedding depends on: weights, vocabulary and config.

        It is computed when it is first asked for, and does not follow weights that change later.
        """
        described = [asdict(self.config), self.vocabulary.symbols, self.vocabulary.ensembl]
        digest = hashlib.sha256(json.dumps(described).encode())
        for name, weights in sorted(self.network.state_dict().items()):
            digest.update(name.encode())
            digest.update(weights.cpu().numpy().ravel().data)
        return digest.hexdigest()

    @classmethod
    def new(cls, vocabulary: Vocabulary, config: Config | None = None, *, seed: int = 0) -> Self:
        """Make an untrained model with weights drawn from `seed`."""
        config = config or Config()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = build(config.network, len(vocabulary), config.widths)
        return cls(network, vocabulary, config, {"weights": "random", "seed": seed})

    @classmethod
    def load(cls, path: str | Path, *, device: str | None = None) -> Self:
        """Load a model file, or the model that comes with the package.

        Parameters
        ----------
        path
            ``"default"``, the model of the package: see ``docs/model_card.md``. Or a safetensors
            file that :meth:`save` wrote, or its address: ``https://…`` or
            ``hf://owner/repository/file``, with ``#sha256=…`` behind it. A file of yours that is
            called default is ``"./default"``.
        device
            ``"cpu"``, ``"cuda"``, …; a CUDA device if there is one when not given.

        Raises
        ------
        InputError
            The file is missing, damaged, or not a model of sagefm; or cannot be fetched; or the
            model of the package is not what it was.
        """
        path = local_copy(path)
        weights, header = checkpoint.read(path)
        known = {
            name.removeprefix(_KNOWN): weights.pop(name)
            for name in list(weights)
            if name.startswith(_KNOWN)
        }
        try:
            vocabulary = Vocabulary(tuple(header["symbols"]), tuple(header["ensembl"]))
            config = Config(**header["config"] | {"widths": tuple(header["config"]["widths"])})
            provenance = dict(header["provenance"])
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path}: its header is damaged ({error}); copy it again") from error
        if config.network not in NETWORKS:
            raise InputError(
                f"{path}: holds a network {config.network!r} that this version does not know "
                f"({', '.join(NETWORKS)}); upgrade sagefm"
            )
        network = checkpoint.fill(path, weights, config.network, len(vocabulary), config.widths)
        width = network.embedding_width(config.widths)
        trained_on = _trained_on(path, known, width) if known else None
        return cls(network.to(pick_device(device)), vocabulary, config, provenance, trained_on)

    @classmethod
    def from_published(
        cls, path: str | Path, *, genes: str | Path, device: str | None = None
    ) -> Self:
        """Load the checkpoint of the paper (arXiv 2601.15504).

        Parameters
        ----------
        path
            The ``.pt`` file. It is read as weights only: a file that would run code is refused.
        genes
            Its gene list, in order: ``.txt`` or the published ``.npy``.
        device
            As in :meth:`load`.

        Raises
        ------
        InputError
            A file is missing, damaged or hostile, or the two do not belong together.
        """
        weights, facts = checkpoint.read_published(path)
        vocabulary = read_genes(genes)
        widths = (
            weights["first"].shape[-1],
            *(weights[f"encoder.{layer}.weight"].shape[0] for layer in range(4)),
        )
        config = Config(widths=widths)
        network = checkpoint.fill(path, weights, config.network, len(vocabulary), widths)
        provenance = {
            "weights": "published checkpoint",
            "source": Path(path).name,
            "genes": Path(genes).name,
            "checkpoint": facts,
            "sagefm": __version__,
        }
        return cls(network.to(pick_device(device)), vocabulary, config, provenance)

    def save(self, path: str | Path, *, half: bool = False) -> None:
        """Write the model to one safetensors file (beside it first, then renamed).

        Parameters
        ----------
        path
            The file.
        half
            Whether to round the weights to half precision, in a file of half the size: 11 bits,
            within 65,504. It is loaded in single precision, rounded as it is, so that its
            :attr:`fingerprint` is another. What the model was trained on is not rounded: distances
            are read against each other.

        Raises
        ------
        InputError
            The file cannot be written, or a weight is too large for half precision.
        """
        header = {
            "config": asdict(self.config),
            "symbols": self.vocabulary.symbols,
            "ensembl": self.vocabulary.ensembl,
            "provenance": self.provenance,
        }
        weights = self.network.state_dict()
        if half:
            weights = {name: _halved(path, name, values) for name, values in weights.items()}
        if self.trained_on is not None:
            found = self.trained_on.arrays()
            weights |= {_KNOWN + name: torch.from_numpy(values) for name, values in found.items()}
        checkpoint.write(path, weights, header)

    def to(self, device: str) -> Self:
        """Move the network to a device."""
        self.network.to(pick_device(device))
        return self

    def prepare(
        self, slide: "AnnData", *, layer: str | None = None, slide_key: str | None = None
    ) -> AlignedSlide:
        """Align a slide to the vocabulary and find its neighborhoods.

        Parameters
        ----------
        slide
            Raw counts and ``obsm["spatial"]``. It is not changed.
        layer
            Where the raw counts are, if not in ``X`` or ``layers["counts"]``.
        slide_key
            ``obs`` column that tells the slides apart, if the object holds several; neighborhoods
            never cross slides.

        Raises
        ------
        InputError
            No raw counts, no coordinates, too few spots, or hardly a gene in common.
        """
        size = self.config.n_neighbors
        return AlignedSlide.of(slide, self.vocabulary, size, layer=layer, slide_key=slide_key)

    @torch.inference_mode()
    def embed(self, slide: "AnnData | AlignedSlide") -> NDArray[np.float32]:
        """Embed every spot: spots × width, nothing hidden.

        Raises
        ------
        InputError
            As :meth:`prepare`.
        """
        prepared = self._prepared(slide)
        encoded = self.encode(prepared)
        result = np.empty((len(prepared.neighbors), self.width), dtype=np.float32)
        for block in _blocks(len(result)):
            result[block] = encoded.embed(prepared.neighbors[block]).cpu().numpy()
        return result

    @torch.inference_mode()
    def predict(
        self,
        slide: "AnnData | AlignedSlide",
        *,
        hidden: NDArray[np.bool_] | csr_matrix | None = None,
        hidden_around: bool = False,
        genes: Sequence[str] | None = None,
    ) -> NDArray[np.float32]:
        """Predict the expression of every spot from its neighborhood.

        Parameters
        ----------
        slide
            A slide, or what :meth:`prepare` made of it.
        hidden
            Spots × vocabulary, boolean, dense or sparse: what the center does not show.
        hidden_around
            Whether its neighbors do not show it either.
        genes
            Symbols or Ensembl ids to predict; the whole vocabulary if not given.

        Returns
        -------
        Spots × genes, log1p counts.

        Raises
        ------
        InputError
            As :meth:`prepare`; a gene is not in the vocabulary; `hidden` has another shape.
        """
        prepared = self._prepared(slide)
        n_spots, n_genes = len(prepared.neighbors), len(self.vocabulary)
        _require_shape(hidden, n_spots, n_genes)
        columns = None if genes is None else self.positions(genes)
        n_wanted = n_genes if columns is None else len(columns)
        encoded, every = self.encode(prepared), np.arange(n_genes)
        result = np.empty((n_spots, n_wanted), dtype=np.float32)
        for block in _blocks(n_spots):
            part = None
            if hidden is not None:
                mask = hidden[block].toarray() if issparse(hidden) else hidden[block]
                part = MaskedGenes(every, np.asarray(mask, dtype=bool), hidden_around)
            centers = encoded.centers(prepared.neighbors[block], part)
            result[block] = centers.predict(columns).cpu().numpy()
        return result

    @torch.inference_mode()
    def encode(self, slide: "AnnData | AlignedSlide") -> EncodedSlide:
        """Encode a slide once; :class:`sagefm.nn.EncodedSlide` says what it can then be asked."""
        return encode_by(self.network, self._prepared(slide))

    def positions(self, genes: Sequence[str]) -> torch.Tensor:
        """Find genes, by symbol or Ensembl id, where the network computes."""
        return torch.from_numpy(self.vocabulary.positions(genes)).to(self.device)

    def _prepared(self, slide: "AnnData | AlignedSlide") -> AlignedSlide:
        return slide if isinstance(slide, AlignedSlide) else self.prepare(slide)


def pick_device(name: str | None) -> torch.device:
    """Choose where to compute: CUDA if there is one, where no name is given.

    Raises
    ------
    InputError
        There is no such device on this machine.
    """
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"device {name!r}: is not on this machine; leave it out, or cpu"
        ) from error
    return device


def _blocks(n_spots: int) -> Iterator[slice]:
    return (slice(start, start + _BLOCK) for start in range(0, n_spots, _BLOCK))


def _require_shape(hidden: Any, n_spots: int, n_genes: int) -> None:
    if hidden is not None and hidden.shape != (n_spots, n_genes):
        raise InputError(
            f"hidden is {' × '.join(map(str, hidden.shape))}, but the slide has "
            f"{n_spots} spots and the model {n_genes} genes; "
            "give one row per spot and one column per gene of the vocabulary"
        )


def _halved(path: str | Path, name: str, values: torch.Tensor) -> torch.Tensor:
    """Round weights to half precision, if it reaches as far as they do."""
    rounded = values.half()
    if (torch.isinf(rounded) & torch.isfinite(values)).any():
        raise InputError(
            f"{path}: {name} has weights beyond {torch.finfo(torch.half).max:,.0f}, too large for "
            "half precision; save it without"
        )
    return rounded


def _trained_on(path: str | Path, known: dict[str, torch.Tensor], width: int) -> ReferenceSpots:
    """Read the sample of spots that a model was trained on."""
    try:
        return ReferenceSpots.from_arrays({n: values.numpy() for n, values in known.items()}, width)
    except (KeyError, ValueError) as error:
        raise InputError(
            f"{path}: what it says of the spots it was trained on is damaged ({error}); copy it "
            "again"
        ) from error
