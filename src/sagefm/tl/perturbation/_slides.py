"""Slides that are ready to be perturbed."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_matrix

from sagefm._errors import InputError
from sagefm._types import Positions
from sagefm.nn import EncodedSlide
from sagefm.pp.selection import selected_spots
from sagefm.tl.perturbation._perturber import GeneFacts

if TYPE_CHECKING:
    from anndata import AnnData

    from sagefm.model import SageFM
    from sagefm.pp.aligned import AlignedSlide


@dataclass(frozen=True)
class PerturbedSlide:
    """A slide, ready to be perturbed."""

    name: str
    prepared: "AlignedSlide"
    spots: Positions
    by_gene: csc_matrix
    """Log1p counts, for access by columns."""
    facts: GeneFacts
    encoded: EncodedSlide

    def draw(self, n: int, seed: int) -> Positions:
        """Draw at most `n` of the spots."""
        chance = np.random.default_rng(seed)
        return np.sort(chance.choice(self.spots, min(n, len(self.spots)), replace=False))

    def checksum(self) -> str:
        """Summarize the counts, the neighborhoods and the chosen spots."""
        x = self.prepared.log1p
        parts = (x.indptr, x.indices, x.data, self.prepared.neighbors, self.spots)
        digest = hashlib.sha256()
        for part in parts:
            digest.update(np.ascontiguousarray(part).tobytes())
        return digest.hexdigest()


def prepare_slides(
    slide: "AnnData | Mapping[str, AnnData]",
    model: "SageFM",
    region: "NDArray[np.bool_] | str | None",
    *,
    layer: str | None,
    slide_key: str | None,
) -> list[PerturbedSlide]:
    """Prepare one slide, or several by name."""
    slides = cast("Mapping[str, AnnData]", slide if isinstance(slide, Mapping) else {"": slide})
    ready = []
    for name, one in slides.items():
        try:
            prepared = model.prepare(one, layer=layer, slide_key=slide_key)
            spots = np.flatnonzero(selected_spots(one, region))
        except InputError as error:
            raise InputError(f"{name}: {error}" if name else str(error)) from error
        by_gene = prepared.log1p.tocsc()
        facts = GeneFacts.of(prepared, by_gene)
        ready.append(PerturbedSlide(name, prepared, spots, by_gene, facts, model.encode(prepared)))
    return ready
