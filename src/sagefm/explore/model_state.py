"""The model of the explorer, and what it says of the slide."""

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sagefm._errors import InputError
from sagefm._keys import EMBEDDING, SPOT_SUFFIX
from sagefm.explore.coloring import SpotValues
from sagefm.explore.opening import OpenedSlide
from sagefm.explore.shared import SharedResults

if TYPE_CHECKING:
    from sagefm.model import SageFM
    from sagefm.nn import EncodedSlide
    from sagefm.pp.aligned import AlignedSlide
    from sagefm.tl.perturbation import BesideMatched, WhatIf

_STEPS = 32
"""Of the path along which an embedding is attributed to genes; the context network needs none."""
_SIMILAR = 20
_DRIVERS = 12


class ModelState:
    """A model that is loaded when it is first needed, in a thread that may wait.

    Every method raises InputError if the slide is not one that the model can be applied to.
    """

    def __init__(
        self,
        opened: OpenedSlide,
        shared: SharedResults,
        model: "SageFM | str | None",
        device: str | None,
    ) -> None:
        self._opened, self._shared, self._given, self._device = opened, shared, model, device
        self._network, self._sliding = threading.Lock(), threading.Lock()
        self.fault = opened.fault
        """Why there is no model, as far as is known."""
        if not self.fault and model is None:
            self.fault = "no model was chosen"

    @property
    def is_ready(self) -> bool:
        """Whether the model is loaded and fits the slide."""
        return "aligned" in self._shared

    def load(self) -> "SageFM":
        """Load the model and align the slide to it."""
        if self.fault:
            raise InputError(self.fault)
        try:
            model = self._shared.once("model", self._loaded)
            self._shared.once("aligned", lambda: self._aligned(model))
        except InputError as error:
            self.fault = str(error)
            raise
        return model

    def _loaded(self) -> "SageFM":
        from sagefm.model import SageFM

        given = self._given
        if isinstance(given, SageFM):
            return given
        return SageFM.load(str(given), device=self._device)

    def _aligned(self, model: "SageFM") -> "AlignedSlide":
        return model.prepare(self._opened.bare(), slide_key=self._opened.slide_key)

    @property
    def genes(self) -> tuple[str, ...]:
        """Genes of the model, once it is ready."""
        return self.load().vocabulary.symbols if self.is_ready else ()

    def aligned(self) -> "AlignedSlide":
        """Get the slide as the model has it."""
        model = self.load()
        return self._shared.once("aligned", lambda: self._aligned(model))

    def _encoded(self) -> "EncodedSlide":
        return self._shared.once("encoded", lambda: self.load().encode(self.aligned()))

    def knows(self, gene: str) -> bool:
        """Whether the model has a gene, in any of its names."""
        return self.load().vocabulary.find([gene])[0] is not None

    def predicted(self, gene: str) -> SpotValues:
        """Predict a gene: a measured one while it is masked, else impute it."""
        model, aligned = self.load(), self.aligned()
        [position] = model.vocabulary.positions([gene])
        measured = bool(aligned.measured[position])

        def compute() -> NDArray[Any]:
            where: Any = "center" if measured else None
            with self._network:
                blocks = list(model.predict_masked(aligned, [np.array([position])], where=where))
            values = np.empty(len(aligned.neighbors))
            for block in blocks:
                values[block.spots] = block.log1p[:, 0]
            return values

        values = self._shared.once(("predicted", int(position)), compute)
        detail = "predicted while masked in the spot" if measured else "imputed: not measured here"
        return SpotValues(gene, f"{detail}, log1p counts", "number", values)

    def _both(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Embed neighborhoods, and single spots, as :func:`sagefm.tl.embed` does."""
        from sagefm.tl import embed

        bare = self._opened.bare()
        with self._network:
            embed(bare, self.load(), slide_key=self._opened.slide_key)
        return bare.obsm[EMBEDDING], bare.obsm[EMBEDDING + SPOT_SUFFIX]

    def embeddings(self) -> dict[str, NDArray[Any]]:
        """Get the embeddings that were computed: of neighborhoods, and of single spots."""
        if "embedding" not in self._shared:
            return {}
        whole, spot = self._shared.once("embedding", self._both)
        return {"": whole, "spot": spot}

    def embedding(self) -> NDArray[Any]:
        """Embed the neighborhoods of all spots."""
        return self._shared.once("embedding", self._both)[0]

    def novelty(self) -> NDArray[np.float64]:
        """Compute the fraction of training spots that are less unusual than each spot."""
        model = self.load()
        if model.trained_on is None:
            raise InputError("the model file has no sample of training spots to compare with")
        with self._network:
            z = model.embed(self.aligned())
        return np.asarray(model.trained_on.novelty(z), dtype=np.float64)

    def similar(self, row: int) -> tuple[NDArray[np.int64], NDArray[Any]]:
        """Find the spots whose embedding is most similar, of those that share no neighbor with it.

        Neighborhoods of near spots overlap, so that these are similar anyway.

        Returns
        -------
        Rows, and cosine similarities.
        """
        z = self.embedding()
        length = np.maximum(np.linalg.norm(z, axis=1), 1e-12)
        cosine = z @ z[row] / (length * length[row])
        neighbors = self.aligned().neighbors
        overlap = np.isin(neighbors, neighbors[row]).any(axis=1)
        cosine[overlap] = -np.inf
        best = np.argsort(-cosine, kind="stable")[: min(_SIMILAR, int((~overlap).sum()))]
        return best, cosine[best]

    def drivers(self, row: int) -> pd.DataFrame:
        """Attribute the embedding of a spot to genes, as :func:`sagefm.tl.explain` does."""
        import torch

        model, neighbors = self.load(), self.aligned().neighbors

        def compute() -> pd.DataFrame:
            with self._network, torch.inference_mode():
                center, around = self._encoded().explain(neighbors[row], neighbors, _STEPS)
            total = center + around
            order = np.argsort(-np.abs(total), kind="stable")[:_DRIVERS]
            order = order[total[order] != 0]
            genes = np.asarray(model.vocabulary.symbols, dtype=object)[order]
            return pd.DataFrame({"gene": genes, "total": total[order], "center": center[order]})

        return self._shared.once(("drivers", row), compute)

    def what_if(self) -> "WhatIf":
        """Prepare questions of what happens if a gene changes."""
        from sagefm.tl import WhatIf

        model = self.load()
        return self._shared.once("what if", lambda: WhatIf(self.aligned(), model))

    def respond(self, gene: str, target: str, amount: float) -> NDArray[np.float32]:
        """Predict how a target changes in every spot; see :class:`sagefm.tl.WhatIf`."""
        what_if = self.what_if()
        with self._sliding:
            return what_if.respond(gene, target, amount)

    def compare(self, gene: str, target: str) -> "BesideMatched":
        """Test the effect of a gene against those of matched genes."""
        what_if = self.what_if()
        return self._shared.once(("compared", gene, target), lambda: what_if.compare(gene, target))
