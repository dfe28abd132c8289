"""The one public object: a network with its vocabulary, its neighborhoods and its provenance."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, issparse

from sagefm import __version__
from sagefm._errors import InputError
from sagefm._familiar import Familiar
from sagefm._fetch import local_copy
from sagefm._keys import GENE_IDS
from sagefm.nn import NETWORKS, Network, SparseRows, build, checkpoint
from sagefm.pp.counts import coordinates, counts, slide_codes
from sagefm.pp.gene_lists import read_genes
from sagefm.pp.neighborhood import average, nearest
from sagefm.pp.vocabulary import Alignment, Vocabulary

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
    widths: tuple[int, ...] = Network.PUBLISHED_WIDTHS
    """Widths of the encoder's layers; the last is that of the embedding."""
    n_neighbors: int = 15
    """Spots in a neighborhood, the center included."""


@dataclass(frozen=True)
class Prepared:
    """A slide as a network sees it."""

    expression: csr_matrix
    """Spots × vocabulary, log1p counts, float32."""
    neighbors: NDArray[np.int64]
    """Spots × `n_neighbors` row numbers of `expression`, the center first."""
    alignment: Alignment
    """How the genes of the slide map to the vocabulary."""
    summary: str
    """One line about the alignment."""

    def at(self, spots: slice | NDArray[np.int64]) -> "Prepared":
        """Keep some centers; their neighbors stay at hand."""
        return replace(self, neighbors=self.neighbors[spots])


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
    >>> model = SageFM.load("model.safetensors")  # doctest: +SKIP
    >>> model.embed(sagefm.read("outs/")).shape  # doctest: +SKIP
    (3639, 1024)
    """

    network: Network
    vocabulary: Vocabulary
    config: Config
    provenance: dict[str, Any] = field(default_factory=dict)
    trained_on: Familiar | None = None

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
        return self.config.widths[-1]

    @property
    def device(self) -> torch.device:
        """Where the network computes."""
        return self.network.first.device

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
        """Load a model file.

        Parameters
        ----------
        path
            A safetensors file that :meth:`save` wrote, or its address: ``https://…`` or
            ``hf://owner/repository/file``, with ``#sha256=…`` behind it.
        device
            ``"cpu"``, ``"cuda"``, …; a CUDA device if there is one when not given.

        Raises
        ------
        InputError
            The file is missing, damaged, or not a model of sagefm; or cannot be fetched.
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
        trained_on = _trained_on(path, known, config.widths[-1]) if known else None
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

    def save(self, path: str | Path) -> None:
        """Write the model to one safetensors file (beside it first, then renamed).

        Raises
        ------
        InputError
            The file cannot be written.
        """
        header = {
            "config": asdict(self.config),
            "symbols": self.vocabulary.symbols,
            "ensembl": self.vocabulary.ensembl,
            "provenance": self.provenance,
        }
        weights = self.network.state_dict()
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
    ) -> Prepared:
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
        return prepare(
            slide, self.vocabulary, self.config.n_neighbors, layer=layer, slide_key=slide_key
        )

    def embed(self, slide: "AnnData | Prepared") -> NDArray[np.float32]:
        """Embed every spot: spots × width, nothing hidden.

        Raises
        ------
        InputError
            As :meth:`prepare`.
        """
        return self._over_blocks(slide, self.width, lambda z: z)

    def predict(
        self,
        slide: "AnnData | Prepared",
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
        part = None if hidden is None else _hidden_part(prepared, hidden, hidden_around)
        if genes is None:
            return self._over_blocks(prepared, len(self.vocabulary), self.network.decode, part)
        columns = torch.from_numpy(self.vocabulary.positions(genes)).to(self.device)
        return self._over_blocks(
            prepared, len(columns), lambda z: self.network.decode(z, columns), part
        )

    def _prepared(self, slide: "AnnData | Prepared") -> Prepared:
        return slide if isinstance(slide, Prepared) else self.prepare(slide)

    @torch.inference_mode()
    def _over_blocks(
        self,
        slide: "AnnData | Prepared",
        width: int,
        read: Callable[[torch.Tensor], torch.Tensor],
        hidden: csr_matrix | None = None,
    ) -> NDArray[np.float32]:
        """Embed block by block and keep what `read` makes of the embeddings: spots × width."""
        prepared = self._prepared(slide)
        n_spots = len(prepared.neighbors)
        result = np.empty((n_spots, width), dtype=np.float32)
        projected = self.network.project(SparseRows.from_scipy(prepared.expression, self.device))
        for start in range(0, n_spots, _BLOCK):
            block = slice(start, start + _BLOCK)
            neighbors = torch.from_numpy(prepared.neighbors[block]).to(self.device)
            part = None if hidden is None else SparseRows.from_scipy(hidden[block], self.device)
            z = self.network.embed(self.network.pool(projected, neighbors, part))
            result[block] = read(z).cpu().numpy()
        return result


def prepare(
    slide: "AnnData",
    vocabulary: Vocabulary,
    n_neighbors: int,
    *,
    layer: str | None = None,
    slide_key: str | None = None,
) -> Prepared:
    """Do what :meth:`SageFM.prepare` does, for any vocabulary and size of neighborhoods."""
    found = counts(slide, layer)
    ids = found.var[GENE_IDS].astype(str).tolist() if GENE_IDS in found.var else None
    alignment = vocabulary.align(found.var.index.astype(str).tolist(), ids)
    expression = alignment.apply(found.matrix)
    np.log1p(expression.data, out=expression.data)
    neighbors = nearest(coordinates(slide), n_neighbors, slide_codes(slide, slide_key))
    return Prepared(expression, neighbors, alignment, alignment.describe(found.matrix))


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


def _hidden_part(
    prepared: Prepared, hidden: NDArray[np.bool_] | csr_matrix, around: bool
) -> csr_matrix:
    """Keep the log1p counts that are hidden, of centers or summed over their neighborhoods."""
    n_spots, n_genes = prepared.expression.shape
    centers = prepared.neighbors if around else prepared.neighbors[:, :1]
    if hidden.shape != (len(centers), n_genes):
        raise InputError(
            f"hidden is {' × '.join(map(str, hidden.shape))}, but the slide has "
            f"{len(centers)} spots and the model {n_genes} genes; "
            "give one row per spot and one column per gene of the vocabulary"
        )
    part = (average(centers, n_spots=n_spots) * centers.shape[1]) @ prepared.expression
    if issparse(hidden):
        return csr_matrix(part.multiply(hidden.astype(bool)))
    rows = np.repeat(np.arange(len(centers)), np.diff(part.indptr))
    part.data *= np.asarray(hidden, dtype=bool)[rows, part.indices]
    return csr_matrix(part)


def _trained_on(path: str | Path, known: dict[str, torch.Tensor], width: int) -> Familiar:
    """Read the sample of spots that a model was trained on."""
    try:
        return Familiar.from_arrays({n: values.numpy() for n, values in known.items()}, width)
    except (KeyError, ValueError) as error:
        raise InputError(
            f"{path}: what it says of the spots it was trained on is damaged ({error}); copy it "
            "again"
        ) from error
