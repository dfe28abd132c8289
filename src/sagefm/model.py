"""The model: a network with its vocabulary, size of neighborhoods and provenance."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from sagefm import _adaptation as adaptation
from sagefm import _difference
from sagefm import _model_file as model_file
from sagefm._device import pick_device
from sagefm._errors import InputError
from sagefm._fetch import local_copy
from sagefm._model_file import Config
from sagefm._prediction import (
    BLOCK,
    MaskedPrediction,
    embed_all,
    gathered,
    predict_masked,
    require_shape,
)
from sagefm._progress import stage
from sagefm._streaming import embed_in_memory, predict_streamed
from sagefm._types import Bools, Positions, Where
from sagefm.nn import EncodedSlide, Network, build
from sagefm.nn import encode as encode_by
from sagefm.pp.aligned import AlignedSlide
from sagefm.pp.streamed import AnyAligned, StreamedSlide
from sagefm.pp.vocabulary import Vocabulary
from sagefm.stats.reference import ReferenceSpots

if TYPE_CHECKING:
    from anndata import AnnData

__all__ = ["Config", "MaskedPrediction", "SageFM", "pick_device"]


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
        Architecture of the network.
    provenance
        Origin of the weights: data, seed, versions.
    trained_on
        Embeddings of a sample of the training spots; None if not known.
    base
        The model that it was adapted from; None for others, or if not known.

    """

    network: Network
    vocabulary: Vocabulary
    config: Config
    provenance: dict[str, Any] = field(default_factory=dict)
    trained_on: ReferenceSpots | None = None
    base: "SageFM | None" = field(default=None, compare=False)

    def __post_init__(self) -> None:
        self.network.eval()

    def __repr__(self) -> str:
        return (
            f"SageFM({self.config.network}, {len(self.vocabulary):,} genes, "
            f"embedding of {self.width}, neighborhoods of {self.config.n_neighbors} spots"
            f"{adaptation.described(self.provenance)})"
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
        """Sha256 of weights, vocabulary and config, computed once: later changes are not in it."""
        return model_file.fingerprint(self._stored)

    @classmethod
    def new(cls, vocabulary: Vocabulary, config: Config | None = None, *, seed: int = 0) -> Self:
        """Make an untrained model with weights drawn from `seed`."""
        config = config or Config()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = build(config.network, len(vocabulary), config.widths)
        return cls(network, vocabulary, config, {"weights": "random", "seed": seed})

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        base: "SageFM | str | Path | None" = None,
        device: str | None = None,
    ) -> Self:
        """Load a model file, or the model that comes with the package.

        Parameters
        ----------
        path
            ``"default"``, the model of the package; a safetensors file of :meth:`save`, or its
            address: ``https://…`` or ``hf://owner/repository/file``, followed by ``#sha256=…``.
        base
            The model that was adapted, or its path, where only the difference was saved and that is
            not the model of the package.
        device
            ``"cpu"``, ``"cuda"``, …; a CUDA device, if available, when not given.

        Raises
        ------
        InputError
            The file is missing, damaged, cannot be fetched, or is no model of sagefm; or it is a
            difference from another model than `base`.
        """
        stage("loading the model %s", path)
        stored = model_file.read(local_copy(path))
        if isinstance(stored, _difference.Difference):
            if not isinstance(base, SageFM):
                base = cls.load("default" if base is None else base, device=device)
            whole = model_file.with_difference(Path(path), stored, base._stored, base.fingerprint)
            return cls(*whole, base=base)
        if base is not None:
            raise InputError(f"{path}: is a whole model, which needs no base; leave base out")
        return cls(stored.network.to(pick_device(device)), *stored[1:])

    @classmethod
    def from_published(
        cls, path: str | Path, *, genes: str | Path, device: str | None = None
    ) -> Self:
        """Load the checkpoint of the paper (arXiv 2601.15504).

        Parameters
        ----------
        path
            The ``.pt`` file. Only weights are read: a file that would run code is refused.
        genes
            Its gene list, in order: ``.txt`` or the published ``.npy``.
        device
            As in :meth:`load`.

        Raises
        ------
        InputError
            A file is missing, damaged or would run code, or the two do not fit together.
        """
        stored = model_file.read_published(path, genes)
        return cls(stored.network.to(pick_device(device)), *stored[1:])

    def save(self, path: str | Path, *, half: bool = False, difference: bool = False) -> None:
        """Write the model to one safetensors file (a temporary file that is then renamed).

        Parameters
        ----------
        path
            The file.
        half
            Whether to round the weights to half precision (11 bits, up to 65,504), which halves the
            file and changes the :attr:`fingerprint`. The sample of training spots is not rounded.
        difference
            Whether to write only what :meth:`adapt` changed, rounded to 8 bits: a tenth of the
            file. Then :meth:`load` needs the model that was adapted: see its `base`.

        Raises
        ------
        InputError
            The file cannot be written, a weight is too large for half precision, or there is
            nothing that this model is a difference from.
        """
        if difference:
            if self.base is None or half:
                raise InputError("difference: is for a model of adapt, without half; leave it out")
            return _difference.write(
                path, self.network.state_dict(), self.base.network.state_dict(),
                self.base.fingerprint, self.provenance,
            )  # fmt: skip
        model_file.write(path, self._stored, half=half)

    @property
    def _stored(self) -> model_file.StoredModel:
        return model_file.StoredModel(
            self.network, self.vocabulary, self.config, self.provenance, self.trained_on
        )

    def to(self, device: str) -> Self:
        """Move the network to a device."""
        self.network.to(pick_device(device))
        return self

    def adapt(
        self,
        slides: "AnnData | AlignedSlide | Sequence[AnnData | AlignedSlide]",
        *,
        seed: int = 0,
    ) -> "SageFM":
        """Adapt to a slide, or to the slides of a study together, for embedding and domains.

        It takes 10 to 120 steps of training; the weights that predict 15 % of held-out spots best
        are kept. Embeddings of models that were adapted apart cannot be compared: adapt to all
        slides together. To predict measured genes, `adapt` of :meth:`predict` is cross-fitted.

        Parameters
        ----------
        slides
            One or several, or results of :meth:`prepare`. They are not changed.
        seed
            Of all draws.

        Returns
        -------
        Another model. Its :attr:`provenance` says under ``"adapted_to"`` what it was adapted to.

        Raises
        ------
        InputError
            As :meth:`prepare`; or the network is not ``context``.
        """
        several = slides if isinstance(slides, Sequence) else [slides]
        named = {f"slide {i}": self._aligned(one) for i, one in enumerate(several, start=1)}
        network, facts = adaptation.adapted_to(self.network, self.fingerprint, named, seed)
        provenance = self.provenance | {adaptation.ADAPTED_TO: facts}
        return SageFM(network, self.vocabulary, self.config, provenance, base=self)

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
            ``obs`` column with the section of each spot; neighborhoods never cross sections.

        Raises
        ------
        InputError
            No raw counts, no coordinates, too few spots, or too few genes in common.
        """
        size = self.config.n_neighbors
        return AlignedSlide.of(slide, self.vocabulary, size, layer=layer, slide_key=slide_key)

    def open(
        self, slide: "AnnData", *, layer: str | None = None, slide_key: str | None = None
    ) -> AnyAligned:
        """Align a slide as :meth:`prepare`, but leave its counts on disk if they are there."""
        where = {"layer": layer, "slide_key": slide_key}
        streamed = StreamedSlide.of(slide, self.vocabulary, self.config.n_neighbors, **where)
        return streamed or self.prepare(slide, **where)

    def embed(self, slide: "AnnData | AnyAligned") -> NDArray[np.float32]:
        """Embed every spot, no gene masked: spots × width; errors are those of :meth:`prepare`."""
        opened = self._opened(slide)
        if isinstance(opened, StreamedSlide):
            return embed_in_memory(self.network, opened, self.width)[0]
        with torch.inference_mode():
            return embed_all(self.encode(opened), opened.neighbors, self.width)

    def predict(
        self,
        slide: "AnnData | AlignedSlide",
        *,
        hidden: NDArray[np.bool_] | csr_matrix | None = None,
        hidden_around: bool = False,
        genes: Sequence[str] | None = None,
        adapt: bool = False,
        seed: int = 0,
    ) -> NDArray[np.float32]:
        """Predict the expression of every spot from its neighborhood.

        Parameters
        ----------
        slide
            A slide, or the result of :meth:`prepare`.
        hidden
            Spots × vocabulary, boolean, dense or sparse: the genes that are masked in each center.
        hidden_around
            Whether they are masked in the neighbors too.
        genes
            Symbols or Ensembl ids to predict; the whole vocabulary if not given.
        adapt, seed
            As for :meth:`predict_masked`.

        Returns
        -------
        Spots × genes, log1p counts.

        Raises
        ------
        InputError
            As :meth:`prepare`; a gene is not in the vocabulary; `hidden` has another shape; the
            network cannot be adapted.
        """
        opened = self._opened(slide, in_memory=adapt)
        n_spots, n_genes = len(opened.neighbors), len(self.vocabulary)
        require_shape(hidden, n_spots, n_genes)
        columns = np.arange(n_genes) if genes is None else self.vocabulary.positions(genes)
        where: Where | None = "neighborhood" if hidden_around else "center"
        blocks = self.predict_masked(
            opened, [columns], mask=hidden, where=None if hidden is None else where, adapt=adapt,
            seed=seed,
        )  # fmt: skip
        return gathered(blocks, n_spots, len(columns))

    def predict_masked(
        self,
        slide: "AnnData | AlignedSlide",
        groups: Sequence[Positions],
        *,
        mask: NDArray[np.bool_] | csr_matrix | Callable[[slice], Bools] | None = None,
        where: Where | None = "center",
        spots: Positions | None = None,
        block_size: int = BLOCK,
        adapt: bool = False,
        seed: int = 0,
    ) -> Iterator[MaskedPrediction]:
        """Predict genes while genes are masked, one block of spots at a time.

        Parameters
        ----------
        slide
            A slide, or the result of :meth:`prepare`.
        groups
            Positions in the vocabulary of the genes to predict. The genes of a group are predicted
            together, and masked together in all spots if `mask` is not given.
        mask
            `spots` × vocabulary, boolean: the genes that are masked; or a function of a slice.
        where
            Whether genes are masked in the ``"center"`` of each neighborhood, in the whole
            ``"neighborhood"``, or in the whole ``"slide"`` as if it had not measured them (without
            `mask` only). None masks nothing.
        spots
            Rows of the slide to predict; all if not given.
        block_size
            Spots that are predicted together.
        adapt
            Whether to adapt the network ``context`` to the slide first, by seconds of training on
            its own spots. It is cross-fitted: no spot is predicted by weights for which its counts
            were a target; unless neighbors are masked too, six views of it are weighed. Genes that
            the slide lacks, or with `where` ``"slide"``, keep the weights of the model.
        seed
            Of the adaptation. What was fitted is kept as long as the result of :meth:`prepare`.

        Yields
        ------
        Log1p counts, by group of genes and block of spots.

        Raises
        ------
        InputError
            As :meth:`prepare`; `where` does not go with `mask`; or the network cannot be adapted.
        """
        opened = self._opened(slide, in_memory=adapt or callable(mask))
        if isinstance(opened, StreamedSlide):
            return predict_streamed(
                self.network, opened, groups, mask=mask, where=where, spots=spots, size=block_size
            )
        return predict_masked(
            self.network, opened, groups, mask=mask, where=where, spots=spots,
            block_size=block_size, fingerprint=self.fingerprint if adapt else None, seed=seed,
        )  # fmt: skip

    @torch.inference_mode()
    def encode(
        self, slide: "AnnData | AlignedSlide", *, profile: torch.Tensor | None = None
    ) -> EncodedSlide:
        """Encode a slide once; a `profile` stands in for its own: see :func:`sagefm.nn.encode`."""
        return encode_by(self.network, self._aligned(slide), profile)

    def _aligned(self, slide: "AnnData | AnyAligned") -> AlignedSlide:
        opened = self._opened(slide, in_memory=True)
        if isinstance(opened, StreamedSlide):
            raise InputError("the counts of the slide are on disk; give the result of prepare")
        return opened

    def _opened(self, slide: "AnnData | AnyAligned", *, in_memory: bool = False) -> AnyAligned:
        if isinstance(slide, AlignedSlide | StreamedSlide):
            return slide
        return self.prepare(slide) if in_memory else self.open(slide)
