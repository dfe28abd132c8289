"""The profile that the spots of several slides are compared with."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, Self, TypeVar, get_args

import numpy as np
import torch

from sagefm._errors import InputError
from sagefm._prediction import embed_all
from sagefm._streaming import embed_in_memory, embed_streamed
from sagefm._types import Bools, Floats, Singles
from sagefm.nn import Context
from sagefm.pp.aligned import AlignedSlide
from sagefm.pp.streamed import AnyAligned, StreamedSlide
from sagefm.stats.sums import column_sums

if TYPE_CHECKING:
    from sagefm.model import SageFM

Reference = Literal["slide", "shared", "model"]
R = TypeVar("R")
MINIMUM_GENES = 100
"""Genes that all slides must have for a common profile."""
_MOST_APART = 1.0
"""Variance between slides, relative to that within them, above which each keeps its own profile.
On labeled slides, in pairs: 0.02 to 0.6 between hearts and cortices, where a common profile carries
more labels over or as many; 2.6 to 9 between breast cancer patients, where it carries over less."""


class Totals(NamedTuple):
    """What a slide contributes to a common profile."""

    measured: Bools
    """Genes of the vocabulary."""
    counts: Floats
    """Sections × genes: counts over all spots."""

    @classmethod
    def of(cls, slide: AnyAligned) -> Self:
        """Sum the counts of each section: whole numbers, whatever the order of the spots."""
        if isinstance(slide, StreamedSlide):
            return cls(slide.measured, slide.sums.total)
        sections = [slide.sections == number for number in np.unique(slide.sections)]
        return cls(slide.measured, np.stack([column_sums(slide.counts, own) for own in sections]))


class Spread(NamedTuple):
    """Where the embedding of a slide lies, and how far it extends."""

    mean: Floats
    variance: float

    @classmethod
    def of(cls, embedding: Singles) -> Self:
        """Summarize spots × width."""
        values = embedding.astype(np.float64)
        return cls(values.mean(axis=0), float(values.var(axis=0).sum()))


@dataclass(frozen=True)
class CommonProfile:
    """A profile that the spots of several slides are compared with.

    Attributes
    ----------
    name
        ``"shared"``, ``"model"``, or ``"given"`` for that of a slide.
    profile
        Genes of the vocabulary: fractions of counts.
    measured
        The genes that all slides have; embeddings are computed of these only.
    """

    name: str
    profile: Floats
    measured: Bools

    @classmethod
    def of(cls, model: "SageFM", reference: str | Totals, slides: Sequence[Totals]) -> Self:
        """Compute the profile.

        Every section has the same weight; the order of slides and spots changes nothing.

        Parameters
        ----------
        reference
            ``"shared"``, ``"model"``, or the totals of a slide.
        slides
            Those that will be embedded.

        Raises
        ------
        InputError
            The slides have too few genes in common, or the model has no profile.
        """
        given = [reference] if isinstance(reference, Totals) else []
        measured = np.all([one.measured for one in [*slides, *given]], axis=0)
        n_genes = int(measured.sum())
        if n_genes < MINIMUM_GENES:
            raise InputError(
                f"reference: the slides have {n_genes:,} genes of the model in common, and "
                f"{MINIMUM_GENES} are needed; leave out the slide with the fewest genes, or give "
                "reference='slide'"
            )
        if reference == "model":
            return cls("model", _usual(model, measured), measured)
        rows = np.vstack([one.counts for one in given or slides]) * measured
        rows = rows[rows.sum(axis=1) > 0]
        if not len(rows):
            raise InputError("reference: no gene that all slides have shows a count")
        fractions = np.sort(rows / rows.sum(axis=1, keepdims=True), axis=0)
        return cls("given" if given else "shared", fractions.mean(axis=0), measured)

    @property
    def digest(self) -> str:
        """Checksum of all that an embedding depends on."""
        parts = self.profile.tobytes() + self.measured.tobytes()
        return hashlib.sha256(parts).hexdigest()


def _usual(model: "SageFM", measured: Bools) -> Floats:
    network = model.network
    if not isinstance(network, Context) or not bool(network.usual.any()):
        raise InputError("reference: this model has no profile of its own; give 'shared'")
    usual = network.usual_profile(torch.from_numpy(measured).to(network.device))
    return np.asarray(usual.cpu(), dtype=np.float64) * measured


def require_reference(model: "SageFM", reference: object) -> None:
    """Raise an error if a model cannot use a reference."""
    from anndata import AnnData

    named = isinstance(reference, str)
    if reference is None or (named and reference == "slide"):
        return
    if reference not in get_args(Reference) if named else not isinstance(reference, AnnData | Path):
        raise InputError(
            f"reference={reference!r}: is none of {', '.join(get_args(Reference))}, nor a slide"
        )
    if not isinstance(model.network, Context):
        raise InputError(
            f"reference: the network {model.config.network} compares spots with no profile; leave "
            "it out, or give 'slide'"
        )


def settled(model: "SageFM", reference: R, n_slides: int) -> R | Literal["slide"]:
    """Leave nothing to choose for one slide, nor for a network that uses no profile."""
    no_choice = n_slides == 1 or not isinstance(model.network, Context)
    return "slide" if reference is None and no_choice else reference


def obstacle(slides: Sequence[Totals]) -> str:
    """Tell why each slide has to keep its own profile; empty if it does not have to."""
    common = int(np.all([one.measured for one in slides], axis=0).sum())
    if common < MINIMUM_GENES:
        return f"the slides have only {common:,} genes of the model in common"
    return ""


def choose(spreads: Iterable[Spread]) -> tuple[bool, str]:
    """Choose between a shared profile and that of each slide; tell why.

    With a shared profile, slides that differ in what tissue they hold overlap where they have the
    same. Slides that differ in how they were made lie apart as a whole, and only their own profiles
    make them comparable.
    """
    means, variances = zip(*spreads, strict=True)
    between = np.sort(np.stack(means), axis=0).var(axis=0, ddof=1).sum()
    ratio = float(between / max(np.mean(variances), 1e-12))
    shared = ratio <= _MOST_APART
    relation = "no more" if shared else "more"
    return shared, (
        f"slides differ {relation} than the spots within them (variance between slides "
        f"{ratio:.2f} of that within)"
    )


def embed_by_model(model: "SageFM", slide: AlignedSlide) -> Singles:
    """Embed spots compared with the profile of the model, not with that of their own slide.

    So the mean over a slide depends on what tissue it holds, which its own profile takes away, and
    on no other slide. A network that compares spots with no profile embeds them as ever.
    """
    network = model.network
    if not isinstance(network, Context) or not bool(network.usual.any()):
        return model.embed(slide)
    usual = _usual(model, slide.measured).astype(np.float32)
    with torch.inference_mode():
        encoded = model.encode(slide, profile=torch.from_numpy(usual).to(model.device))
        return embed_all(encoded, slide.neighbors, model.width)


def embed_with(
    model: "SageFM",
    slide: AnyAligned,
    common: CommonProfile | None,
    folder: Path | None = None,
) -> tuple[Singles, Singles]:
    """Embed all spots in one way.

    Parameters
    ----------
    folder
        Where the embeddings of a slide on disk are written as they come: then what is returned is
        read from there. In memory if not given.

    Returns
    -------
    The embedding of spots with their neighborhoods, and that of the spots alone.
    """
    profile = None
    if common is not None:
        slide = slide.without(np.flatnonzero(~common.measured))
        profile = torch.from_numpy(common.profile.astype(np.float32)).to(model.device)
    if isinstance(slide, StreamedSlide):
        if folder is None:
            return embed_in_memory(model.network, slide, model.width, profile)
        both = embed_streamed(model.network, slide, model.width, folder, profile)
        return both[0].array(mapped=True), both[1].array(mapped=True)
    encoded = model.encode(slide, profile=profile)
    neighbors = slide.neighbors
    return (
        embed_all(encoded, neighbors, model.width),
        embed_all(encoded, neighbors[:, :1], model.width),
    )
