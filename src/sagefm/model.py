"""The one public object: a network with its vocabulary, its neighborhoods and its provenance."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from sagefm import __version__
from sagefm._errors import InputError
from sagefm._fetch import local_copy
from sagefm._types import Bools, Positions, Singles, Where
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
_TRAINED_ON = "trained_on."
"""Prefix of the arrays in a model file that hold a sample of the training spots."""


@dataclass(frozen=True)
class Config:
    """What a network is made of."""

    network: str = "published"
    """Name in :data:`sagefm.nn.NETWORKS`."""
    widths: tuple[int, ...] = Published.PUBLISHED_WIDTHS
    """Widths of its layers."""
    n_neighbors: int = 15
    """Spots in a neighborhood, the center included."""


class MaskedPrediction(NamedTuple):
    """Predictions of a group of genes in a block of spots, while genes are masked."""

    spots: slice
    """Which of the spots that are predicted."""
    group: int
    """Which of the groups of genes."""
    log1p: Singles
    """Spots × genes of the group, log1p counts."""


@dataclass
class SageFM:
    """A model: load it, and embed and predict the spots of slides.

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
        """Device of the network."""
        return self.network.device

    @cached_property
    def fingerprint(self) -> str:
        """Sha256 of all that an embedding depends on: weights, vocabulary and config.

        It is computed once, and does not follow weights that change later.
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
        sample = {
            name.removeprefix(_TRAINED_ON): weights.pop(name)
            for name in list(weights)
            if name.startswith(_TRAINED_ON)
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
        trained_on = _trained_on(path, sample, width) if sample else None
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
            :attr:`fingerprint` is another. The sample of training spots is not rounded, because
            distances to it are compared with each other.

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
            weights |= {
                _TRAINED_ON + name: torch.from_numpy(values)
                for name, values in self.trained_on.arrays().items()
            }
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
            ``obs`` column with the section of each spot, if the object holds several;
            neighborhoods never cross sections.

        Raises
        ------
        InputError
            No raw counts, no coordinates, too few spots, or hardly a gene in common.
        """
        size = self.config.n_neighbors
        return AlignedSlide.of(slide, self.vocabulary, size, layer=layer, slide_key=slide_key)

    @torch.inference_mode()
    def embed(self, slide: "AnnData | AlignedSlide") -> NDArray[np.float32]:
        """Embed every spot, no gene masked: spots × width.

        Raises
        ------
        InputError
            As :meth:`prepare`.
        """
        aligned = self._aligned(slide)
        encoded = self.encode(aligned)
        result = np.empty((len(aligned.neighbors), self.width), dtype=np.float32)
        for block in _blocks(len(result), _BLOCK):
            result[block] = encoded.embed(aligned.neighbors[block]).cpu().numpy()
        return result

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
            Spots × vocabulary, boolean, dense or sparse: the genes that are masked in each center.
        hidden_around
            Whether they are masked in its neighbors too.
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
        aligned = self._aligned(slide)
        n_spots, n_genes = len(aligned.neighbors), len(self.vocabulary)
        _require_shape(hidden, n_spots, n_genes)
        columns = np.arange(n_genes) if genes is None else self.vocabulary.positions(genes)
        where: Where | None = "neighborhood" if hidden_around else "center"
        blocks = self.predict_masked(
            aligned, [columns], mask=hidden, where=None if hidden is None else where
        )
        result = np.empty((n_spots, len(columns)), dtype=np.float32)
        for block in blocks:
            result[block.spots] = block.log1p
        return result

    def predict_masked(
        self,
        slide: "AnnData | AlignedSlide",
        groups: Sequence[Positions],
        *,
        mask: NDArray[np.bool_] | csr_matrix | Callable[[slice], Bools] | None = None,
        where: Where | None = "center",
        spots: Positions | None = None,
        block_size: int = _BLOCK,
    ) -> Iterator[MaskedPrediction]:
        """Predict genes while genes are masked, one block of spots at a time.

        Parameters
        ----------
        slide
            A slide, or what :meth:`prepare` made of it.
        groups
            Positions in the vocabulary of the genes to predict. The genes of a group are predicted
            together, and masked together in all spots if `mask` is not given.
        mask
            Spots × vocabulary, boolean, dense or sparse: the genes that are masked in each of
            `spots`. Or a function that returns these rows for a slice of `spots`.
        where
            Whether genes are masked in the ``"center"`` of each neighborhood, in the whole
            ``"neighborhood"``, or in the whole ``"slide"`` as if it had not measured them (without
            `mask` only). None masks nothing.
        spots
            Rows of the slide to predict; all if not given.
        block_size
            Spots that are predicted together.

        Yields
        ------
        Log1p counts, a block of spots after the other, and a group of genes after the other.

        Raises
        ------
        InputError
            As :meth:`prepare`.
        """
        aligned = self._aligned(slide)
        neighbors = aligned.neighbors if spots is None else aligned.neighbors[spots]
        vocabulary = np.arange(len(self.vocabulary))
        encoded = None if where == "slide" else self.encode(aligned)
        for number, group in enumerate(groups):
            used = encoded or self.encode(aligned.without(group))
            whole = np.array_equal(group, vocabulary)
            wanted = None if whole else torch.from_numpy(group).to(self.device)
            for block in _blocks(len(neighbors), block_size):
                masked = None
                if where in ("center", "neighborhood"):
                    own = None if mask is None else _rows(mask, block)
                    genes = group if mask is None else vocabulary
                    masked = MaskedGenes(genes, own, where == "neighborhood")
                with torch.inference_mode():
                    centers = used.centers(neighbors[block], masked)
                    log1p = centers.predict(wanted).cpu().numpy()
                yield MaskedPrediction(block, number, log1p)

    @torch.inference_mode()
    def encode(self, slide: "AnnData | AlignedSlide") -> EncodedSlide:
        """Encode a slide once, for all that :class:`sagefm.nn.EncodedSlide` computes from it."""
        return encode_by(self.network, self._aligned(slide))

    def positions(self, genes: Sequence[str]) -> torch.Tensor:
        """Find genes, by symbol or Ensembl id: positions on the device of the network."""
        return torch.from_numpy(self.vocabulary.positions(genes)).to(self.device)

    def _aligned(self, slide: "AnnData | AlignedSlide") -> AlignedSlide:
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


def _blocks(n_spots: int, size: int) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(0, n_spots, size))


def _rows(mask: Any, block: slice) -> Bools:
    """Get the mask of a block of spots."""
    rows: Any = mask(block) if callable(mask) else mask[block]
    return np.asarray(rows.toarray() if hasattr(rows, "toarray") else rows, dtype=np.bool_)


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


def _trained_on(path: str | Path, arrays: dict[str, torch.Tensor], width: int) -> ReferenceSpots:
    """Get the sample of the spots that a model was trained on."""
    try:
        return ReferenceSpots.from_arrays({n: a.numpy() for n, a in arrays.items()}, width)
    except (KeyError, ValueError) as error:
        raise InputError(
            f"{path}: its sample of training spots is damaged ({error}); copy it again"
        ) from error
