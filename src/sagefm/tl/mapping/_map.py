"""Map sections onto annotated ones: carry their labels over, where the tissue is alike."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd

from sagefm import __version__
from sagefm._as_model import as_model
from sagefm._errors import InputError, logger
from sagefm._keys import MAPPED, UNKNOWN
from sagefm._progress import stage
from sagefm._types import Codes, Floats, Singles
from sagefm._uns import record
from sagefm.pp.sections import section_codes
from sagefm.tl._tissue import Tissue
from sagefm.tl.mapping._distribution import measure_unlikeness
from sagefm.tl.mapping._reference import ReferenceSections
from sagefm.tl.mapping._vote import vote

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData

    from sagefm.model import SageFM

    Slides: TypeAlias = AnnData | Sequence[AnnData] | Mapping[str, AnnData]

_FEW_GENES = 100


def map(
    slides: "Slides",
    reference_slides: "Slides",
    model: "SageFM | str | Path | None" = None,
    key: str = "label",
    *,
    patient_key: str = "patient",
    layer: str | None = None,
    slide_key: str | None = None,
    key_added: str = MAPPED,
) -> pd.DataFrame:
    """Carry the labels or domains of annotated slides over to others.

    The 15 nearest labeled spots vote, in five views of the expression of a neighborhood (those of
    :func:`sagefm.tl.domains`). Spots that are unlike all labeled ones are ``"unknown"``. Each
    section is mapped by itself, on the genes that it and all reference slides measured, so what
    else is mapped does not matter.

    Parameters
    ----------
    slides
        A slide or several: raw counts and ``obsm["spatial"]``.
    reference_slides
        Annotated slides: the same, and labels.
    model
        If given, its embedding is one more view; none is needed.
    key
        ``obs`` column with the labels of the reference, such as ``"sagefm_domain"``. Spots without
        a label do not vote; reference slides without any are left out, with a note.
    patient_key
        ``obs`` column with the patient; a reference slide without it is a patient of its own.
    layer, slide_key
        As in :func:`sagefm.tl.embed`.
    key_added
        Key in ``obs`` for the labels.

    Returns
    -------
    A row for each section: its number of spots, the fraction of them that is mapped and that is
    unknown, the mean confidence of those that are mapped, the number of genes in common, and
    whether genes were centered. Sets in every slide ``obs["sagefm_mapped"]`` (categorical, with
    ``"unknown"``), ``obs["sagefm_mapped_confidence"]`` (fraction of the votes for this label; 0 for
    unknown spots) and ``uns["sagefm"]["map"]``.

    Raises
    ------
    InputError
        No raw counts, no gene in common, no such column in any reference slide, fewer than two
        labels, or a slide that is given twice.

    Notes
    -----
    The mean of its section is subtracted from each gene, which removes what laboratory and patient
    add, unless the section seems to lack some of the domains: it then varies less than 0.6 times as
    much as the reference sections do and its votes are more unanimous without, or these are more
    unanimous by 0.2 in any case.

    A spot is unlike the labeled ones if 1 - the correlation over genes of its 15-spot mean with the
    5 most similar labeled ones is larger than for 99 % of labeled spots and those of other
    patients. If all labeled slides are of one patient, spots are compared with those elsewhere on
    the sections, and twice as much is tolerated.
    """
    model = None if model is None else as_model(model)
    targets, given = _named(slides, "slides"), _named(reference_slides, "reference_slides")
    every = [*targets.values(), *given.values()]
    if len({id(slide) for slide in every}) < len(every):
        raise InputError("slides: the same slide is given twice; give each once")
    reference = ReferenceSections.of(
        given, key, model, patient_key=patient_key, layer=layer, slide_key=slide_key
    )
    rows, results = [], []
    for name, slide in targets.items():
        sections = section_codes(slide, slide_key)
        embedding = None if model is None else model.embed(slide)
        mapped = np.empty(slide.n_obs, dtype=np.int64)
        confidence = np.empty(slide.n_obs, dtype=np.float32)
        facts = []
        for code in np.unique(sections):
            spots = sections == code
            title = f"{name}, section {code + 1}" if sections.max() else name
            stage("mapping %s", title)
            own = None if embedding is None else embedding[spots]
            mapped[spots], confidence[spots], fact = _map_section(
                slide[spots], own, reference, layer
            )
            _warn(title, fact)
            facts.append({"section": title, **fact})
        results.append((slide, mapped, confidence, facts))
        rows += facts
    for slide, mapped, confidence, facts in results:  # all or none
        slide.obs[key_added] = pd.Categorical.from_codes(
            mapped, pd.Index([*reference.names, UNKNOWN])
        )
        slide.obs[f"{key_added}_confidence"] = confidence
        record(slide, "map", {
            "key": key_added, "reference_key": key, "n_reference_sections": len(reference.slides),
            "centered": [fact["centered"] for fact in facts],
            "n_genes": [fact["n_genes"] for fact in facts],
            "fingerprint": "none" if model is None else model.fingerprint, "sagefm": __version__,
        })  # fmt: skip
    return pd.DataFrame(rows).set_index("section").drop(columns="foreign")


def _named(slides: "Slides", what: str) -> "dict[str, AnnData]":
    if hasattr(slides, "n_obs"):
        return {"slide 1": slides}
    if isinstance(slides, Mapping):
        given = dict(slides)
    else:
        given = {f"slide {number}": slide for number, slide in enumerate(slides, start=1)}
    if not given:
        raise InputError(f"{what}: there are none; give one at least")
    return given


def _map_section(
    section: "AnnData", embedding: Singles | None, reference: ReferenceSections, layer: str | None
) -> tuple[Codes, Floats, dict[str, Any]]:
    """Get the label of each spot (that after the last is unknown), confidence, and what is told."""
    slides = [section, *reference.slides]
    batches = np.repeat(np.arange(len(slides)), [slide.n_obs for slide in slides])
    tissue = Tissue.of(slides, batches, layer=layer)
    tissue = replace(tissue, batches=batches[tissue.order])  # 0 is the new section
    unlabeled = np.full(section.n_obs, -1)
    codes = np.concatenate([unlabeled, *reference.codes])[tissue.order]
    patients = np.unique(["", *reference.patients], return_inverse=True)[1][tissue.batches]
    embeddings = None
    if embedding is not None:
        embeddings = np.concatenate([embedding, *reference.embeddings])[tissue.order]
    votes = vote(tissue, codes, embeddings, len(reference.names))
    unlike = measure_unlikeness(tissue, codes, patients)
    rows = tissue.order[tissue.batches == 0]
    mapped, confidence = np.empty(len(rows), dtype=np.int64), np.empty(len(rows))
    mapped[rows] = np.where(unlike.is_out, len(reference.names), votes.fractions.argmax(axis=1))
    confidence[rows] = np.where(unlike.is_out, 0, votes.fractions.max(axis=1))
    is_mapped = confidence > 0
    return mapped, confidence, {
        "n_spots": len(rows), "mapped": float(is_mapped.mean()),
        UNKNOWN: float(unlike.is_out.mean()),
        "confidence": float(confidence[is_mapped].mean()) if is_mapped.any() else np.nan,
        "n_genes": tissue.counts.shape[1], "centered": votes.centered, "foreign": unlike.is_foreign,
    }  # fmt: skip


def _warn(title: str, fact: Mapping[str, Any]) -> None:
    if fact["foreign"]:
        logger.warning(
            "out of distribution: %s is less like the reference slides than these are like each "
            "other; %.0f %% of its spots are unknown", title, 100 * fact[UNKNOWN],
        )  # fmt: skip
    if fact["n_genes"] < _FEW_GENES:
        logger.warning(
            "%s and the reference slides have only %d genes in common; expect more errors",
            title, fact["n_genes"],
        )  # fmt: skip
    logger.info("%s: genes are %scentered", title, "" if fact["centered"] else "not ")
