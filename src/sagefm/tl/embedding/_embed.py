"""Embed the spots of slides."""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sagefm import __version__
from sagefm._as_model import as_model
from sagefm._errors import InputError, logger
from sagefm._fetch import DEFAULT
from sagefm._keys import EMBEDDING, SPOT_SUFFIX
from sagefm._types import Singles
from sagefm._uns import record
from sagefm.pp.gene_names import known_gene_names
from sagefm.pp.slide_record import without_records
from sagefm.pp.streamed import AnyAligned
from sagefm.tl._second_modality import SecondModality
from sagefm.tl.embedding._joint import join, require_name
from sagefm.tl.embedding._reference import (
    CommonProfile,
    Reference,
    Spread,
    Totals,
    choose,
    embed_with,
    obstacle,
    require_reference,
    settled,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from anndata import AnnData

    from sagefm.model import SageFM

Pair = tuple[Singles, Singles]


def embed(
    slides: "AnnData | Sequence[AnnData] | Mapping[str, AnnData]",
    model: "SageFM | str | Path" = DEFAULT,
    *,
    reference: "Reference | AnnData | None" = None,
    adapt: bool = False,
    seed: int = 0,
    with_: str | None = None,
    key_added: str = EMBEDDING,
    layer: str | None = None,
    slide_key: str | None = None,
) -> None:
    """Embed every spot from its own counts and those of its neighbors.

    The default network embeds how a spot differs from what its library size and a profile let
    expect: see `reference`.

    Parameters
    ----------
    slides
        One or several, with raw counts and ``obsm["spatial"]``.
    model
        A model, or its path or address; ``"default"`` is that of the package.
    reference
        The profile that spots are compared with. ``"slide"``: that of their own slide, so that only
        slides of the same composition can be compared. ``"shared"``: the mean profile of all
        `slides`, over the genes that all of them have; every section has the same weight.
        ``"model"``: that of the training slides of the model. Or a slide, for its profile. By
        default one slide has its own; of several, the embeddings with the shared profile are kept
        unless their variance between slides is larger than within, which says that the slides were
        made in different ways. What was chosen and why is logged.
    adapt, seed
        Whether to adapt the model first: see :meth:`sagefm.SageFM.adapt`. It is adapted to all
        slides together, but with the reference ``"slide"`` to each by itself, and then their
        embeddings cannot be compared.
    with_
        A second modality of the same spots, such as ``"protein"``: adds its coordinates and the
        joint embedding. Those of several slides are comparable, over the features that all have.
    key_added
        Where in ``obsm`` the embedding goes.
    layer
        Where the raw counts are, if not in ``X`` or ``layers["counts"]``.
    slide_key
        ``obs`` column with the section of each spot, if an object holds several.

    Returns
    -------
    Nothing. Sets ``obsm["X_sagefm"]`` (spots × width, float32), ``obsm["X_sagefm_spot"]``, the same
    of each spot alone, without its neighbors, and ``uns["sagefm"]["embed"]`` (the model, its
    fingerprint and provenance, how many of its genes the slide has, and the reference).

    With a second modality also ``obsm["X_sagefm_protein"]``, the leading principal components (20
    at most) of its normalized values averaged over the measured spots of the neighborhood, and
    ``obsm["X_sagefm_joint"]``, both beside each other, scaled to the same variance. A spot that was
    not measured has the coordinates of its neighbors; where none of them was, the mean (0), so that
    its expression alone decides, with a warning. ``obsm["X_sagefm"]`` is the same as without.

    Raises
    ------
    InputError
        No raw counts, no coordinates, too few spots, or too few genes in common; the network cannot
        be adapted, or uses no profile; a slide lacks the second modality.

    Notes
    -----
    Neighborhoods of nearby spots overlap, so that the nearest in ``X_sagefm`` are mostly the
    nearest on the slide. For a graph of neighbors as scanpy builds it, use ``X_sagefm_spot``.
    """
    model = as_model(model)
    require_reference(model, reference)
    several = _named(slides)
    second = None
    if with_ is not None:
        require_name(with_)
        for name, slide in several.items():
            _require_slide(name or "slides", slide)
        second = SecondModality.of(several, with_)
    opening = model.prepare if adapt else model.open  # to adapt needs all counts in memory
    aligned = {
        name: _opened(opening, slide, name if len(several) > 1 else "", layer, slide_key)
        for name, slide in several.items()
    }
    compared: str | Totals | None = (
        settled(model, reference, len(several))
        if reference is None or isinstance(reference, str)
        else Totals.of(_opened(model.open, reference, "reference", layer, slide_key))
    )
    shipped = model
    if adapt and compared != "slide":
        model = model.adapt(list(aligned.values()), seed=seed)
    common = None
    if compared is None:
        embedded, facts, common = _chosen(model, aligned)
    else:
        if compared != "slide":
            common = CommonProfile.of(model, compared, _totals(aligned))
        embedded, facts = {}, described(common, len(aligned))
    for name, slide in several.items():
        used = model.adapt(aligned[name], seed=seed) if adapt and compared == "slide" else model
        both = embedded.get(name) or embed_with(used, aligned[name], common)
        if adapt:
            facts = facts | {"base": shipped.fingerprint}
        store(slide, used, aligned[name], both, facts, key_added)
    if second is not None:
        join(several, second, key_added, slide_key)


def store(
    slide: "AnnData",
    model: "SageFM",
    aligned: AnyAligned,
    embeddings: Pair,
    facts: Mapping[str, Any],
    key: str = EMBEDDING,
) -> None:
    """Write the embeddings of a slide into it, and how they were made."""
    slide.obsm[key], slide.obsm[f"{key}{SPOT_SUFFIX}"] = embeddings
    record(slide, "embed", {
        "key": key,
        "model": repr(model),
        "fingerprint": model.fingerprint,
        "model_provenance": json.dumps(without_records(model.provenance)),
        "genes": aligned.summary,
        "gene_names": known_gene_names().version,
        "sagefm": __version__,
        **facts,
    })  # fmt: skip


def described(common: CommonProfile | None, n_slides: int, reason: str = "") -> dict[str, Any]:
    """Say in entries of ``uns`` what spots were compared with."""
    facts: dict[str, Any] = {"reference": "slide" if common is None else common.name}
    if common is not None:
        facts |= {
            "reference_slides": n_slides,
            "reference_genes": int(common.measured.sum()),
            "reference_digest": common.digest,
        }
    return facts | ({"reference_reason": reason} if reason else {})


def _chosen(
    model: "SageFM", aligned: Mapping[str, AnyAligned]
) -> tuple[dict[str, Pair], dict[str, Any], CommonProfile | None]:
    """Embed with a shared profile, and keep that if the slides can be compared by it."""
    totals = _totals(aligned)
    reason = obstacle(totals)
    common, embedded = None, {}
    if not reason:
        common = CommonProfile.of(model, "shared", totals)
        embedded = {name: embed_with(model, one, common) for name, one in aligned.items()}
        shared, reason = choose(Spread.of(both[0]) for both in embedded.values())
        if not shared:
            common, embedded = None, {}
    say_choice(common, reason)
    return embedded, described(common, len(aligned), reason), common


def say_choice(common: CommonProfile | None, reason: str) -> None:
    """Log which reference was chosen, and why."""
    kind = "'slide', each slide its own profile" if common is None else "'shared', one profile"
    logger.info("reference %s: %s", kind, reason)


def _named(
    slides: "AnnData | Sequence[AnnData] | Mapping[str, AnnData]",
) -> "dict[Any, AnnData]":
    """Name the slides: by number, if they have no names."""
    from anndata import AnnData

    if isinstance(slides, AnnData):
        return {"": slides}
    named: dict[Any, Any]
    if isinstance(slides, Mapping):
        named = dict(slides)
    elif isinstance(slides, Sequence) and not isinstance(slides, str):
        named = {f"slide {i}": slide for i, slide in enumerate(slides, start=1)}
    else:
        named = {"slides": slides}
    if not named:
        raise InputError("slides: is empty; give one at least")
    return named


def _require_slide(name: object, slide: object) -> None:
    from anndata import AnnData

    if not isinstance(slide, AnnData):
        raise InputError(f"{name}: is a {type(slide).__name__}, no AnnData; use sagefm.read")


def _opened(
    opening: "Callable[..., AnyAligned]",
    slide: "AnnData",
    name: object,
    layer: str | None,
    slide_key: str | None,
) -> AnyAligned:
    _require_slide(name or "slides", slide)
    try:
        return opening(slide, layer=layer, slide_key=slide_key)
    except InputError as error:
        raise InputError(str(error) if name == "" else f"{name}: {error}") from error


def _totals(aligned: Mapping[str, AnyAligned]) -> list[Totals]:
    return [Totals.of(slide) for slide in aligned.values()]
