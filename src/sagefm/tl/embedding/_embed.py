"""Embed the spots of a slide."""

import json
from typing import TYPE_CHECKING

from sagefm import __version__
from sagefm._keys import EMBEDDING
from sagefm._uns import record
from sagefm.pp.gene_names import known_gene_names
from sagefm.pp.slide_record import without_records

if TYPE_CHECKING:
    from anndata import AnnData

    from sagefm.model import SageFM


def embed(
    slide: "AnnData",
    model: "SageFM",
    *,
    adapt: bool = False,
    seed: int = 0,
    key_added: str = EMBEDDING,
    layer: str | None = None,
    slide_key: str | None = None,
) -> None:
    """Embed every spot from its own counts and those of its neighbors.

    Parameters
    ----------
    slide
        Raw counts and ``obsm["spatial"]``.
    model
        A model.
    adapt, seed
        Whether to adapt the model to the slide first: see :meth:`sagefm.SageFM.adapt`. Embeddings
        of slides that are adapted apart cannot be compared; adapt the model to all of them instead.
    key_added
        Where in ``obsm`` the embedding goes.
    layer
        Where the raw counts are, if not in ``X`` or ``layers["counts"]``.
    slide_key
        ``obs`` column with the section of each spot, if the object holds several.

    Returns
    -------
    Nothing. Sets ``obsm["X_sagefm"]`` (spots × width, float32) and ``uns["sagefm"]["embed"]`` (the
    model, its fingerprint and provenance, and how many of its genes the slide has).

    Raises
    ------
    InputError
        No raw counts, no coordinates, too few spots, or too few genes in common; or the network
        cannot be adapted.
    """
    aligned = model.prepare(slide, layer=layer, slide_key=slide_key)
    shipped = model
    if adapt:
        model = model.adapt(aligned, seed=seed)
    slide.obsm[key_added] = model.embed(aligned)
    record(slide, "embed", {
        "key": key_added,
        "model": repr(model),
        "fingerprint": model.fingerprint,
        **({"base": shipped.fingerprint} if adapt else {}),
        "model_provenance": json.dumps(without_records(model.provenance)),
        "genes": aligned.summary,
        "gene_names": known_gene_names().version,
        "sagefm": __version__,
    })  # fmt: skip
