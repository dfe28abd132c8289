"""Sections with a domain per spot, from the objects that a user gives."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.sparse import csr_matrix

from sagefm._errors import InputError, logger
from sagefm._keys import DOMAIN, GENE_IDS, PITCH
from sagefm._text import few, numbered
from sagefm._types import Codes, Floats
from sagefm._uns import positive
from sagefm.pp.counts import coordinates, counts, sum_duplicates
from sagefm.pp.labels import labels_of
from sagefm.pp.sections import Section, sections_of
from sagefm.pp.vocabulary import Vocabulary

Slides: TypeAlias = AnnData | Sequence[AnnData] | Mapping[str, AnnData]
"""A slide, several, or name → slide."""

_PATIENT = "patient"


@dataclass(frozen=True)
class DomainSection:
    """The labeled spots of one section."""

    name: str
    patient: str
    condition: str | None
    codes: Codes
    """The domain of each spot."""
    points: Floats
    counts: csr_matrix
    """Spots × genes that all sections have."""
    pitch_um: float | None


@dataclass(frozen=True)
class LabeledSections:
    """Sections with one set of domains and of genes."""

    sections: tuple[DomainSection, ...]
    domains: tuple[str, ...]
    genes: tuple[str, ...]

    @property
    def patients(self) -> list[str]:
        """The patients, by first occurrence."""
        return list(dict.fromkeys(section.patient for section in self.sections))

    def of_patient(self, patient: str) -> list[DomainSection]:
        """Get the sections of a patient."""
        return [section for section in self.sections if section.patient == patient]


def labeled_sections(
    slides: Slides,
    key: str = DOMAIN,
    *,
    patient_key: str | None = None,
    condition_key: str | None = None,
    layer: str | None = None,
    slide_key: str | None = None,
) -> LabeledSections:
    """Split slides into sections, and leave out spots without a domain.

    Parameters
    ----------
    slides
        A slide, several, or name → slide.
    key
        ``obs`` column with the domain of each spot.
    patient_key
        ``obs`` column with the patient. If not given, ``"patient"`` where there is one, else every
        slide is a patient.
    condition_key
        ``obs`` column with the condition of each section.
    layer, slide_key
        As for :meth:`sagefm.SageFM.prepare`.

    Raises
    ------
    InputError
        A column is missing, there are fewer than two domains, sections share no genes, or a section
        has several conditions.
    """
    named = _named(slides)
    for name, slide in named.items():
        if patient_key is not None and patient_key not in slide.obs:
            columns = few(slide.obs.columns, 20) or "none"
            raise InputError(f"{name}: patient_key={patient_key!r}: obs has {columns}; choose one")
    labels = {name: _labels(name, slide, key) for name, slide in named.items()}
    domains = _domains(named, labels, key)
    if len(domains) < 2:
        what = few(domains) or "no domain"
        raise InputError(
            f"obs[{key!r}]: has only {what}; give slides with two domains or more, because each "
            "is compared with the others"
        )
    if condition_key is not None:
        labels_by_name = {n: _labels(n, slide, condition_key) for n, slide in named.items()}
    matrices, genes = _shared_genes(named, layer)
    number = {domain: code for code, domain in enumerate(domains)}
    sections = []
    names = {id(slide): name for name, slide in named.items()}
    for section in _sections(named, slide_key, patient_key or _PATIENT):
        name = names[id(section.slide)]
        rows = np.sort(section.rows)
        own = labels[name].iloc[rows]
        known = own.notna().to_numpy(dtype=bool)
        if not known.any():
            logger.warning("%s: no spot has a domain; it is left out", section.name)
            continue
        rows = rows[known]
        condition = None
        if condition_key is not None:
            condition = _only(section.name, condition_key, labels_by_name[name].iloc[rows])
        sections.append(
            DomainSection(
                section.name or "slide", section.patient or "slide", condition,
                np.array([number[label] for label in own[known]], dtype=np.int64),
                coordinates(section.slide)[rows], matrices[name][rows],
                positive(section.slide.uns.get(PITCH)),
            )
        )  # fmt: skip
    if not sections:
        raise InputError(f"obs[{key!r}]: no spot has a domain; run sagefm.tl.domains first")
    return LabeledSections(tuple(sections), domains, genes)


def _named(slides: Slides) -> dict[str, AnnData]:
    """Name slides: by their key, by the one value of ``obs["slide"]``, or by number."""
    if isinstance(slides, AnnData):
        return {"": slides}
    if isinstance(slides, Mapping):
        named = {str(name): slide for name, slide in slides.items()}
    else:
        listed = list(slides)
        own = [_own_name(slide) for slide in listed]
        if None in own or len(set(own)) < len(own):
            own = [f"slide {number}" for number in range(1, len(listed) + 1)]
        named = dict(zip(map(str, own), listed, strict=True))
    if not named:
        raise InputError("slides: is empty; give at least one slide with domains")
    for name, slide in named.items():
        if not isinstance(slide, AnnData):
            raise InputError(f"{name}: is {type(slide).__name__}, not an AnnData; read it first")
    if len({id(slide) for slide in named.values()}) < len(named):
        raise InputError("slides: one slide is given twice; give each once")
    return named


def _own_name(slide: AnnData) -> str | None:
    column = getattr(slide, "obs", {}).get("slide")
    values = [] if column is None else column.dropna().unique()
    return str(values[0]) if len(values) == 1 else None


def _labels(name: str, slide: AnnData, key: str) -> "pd.Series[str]":
    try:
        return labels_of(slide, key)
    except InputError as error:
        remedy = "; run sagefm.tl.domains first" if key == DOMAIN else ""
        raise InputError(f"{name}: {error}{remedy}" if name else f"{error}{remedy}") from error


def _domains(
    named: Mapping[str, AnnData], labels: Mapping[str, "pd.Series[str]"], key: str
) -> tuple[str, ...]:
    """List the domains that spots have: in the order of the categories, or sorted."""
    present = {label for column in labels.values() for label in column.dropna().unique()}
    ordered: dict[str, None] = {}
    for slide in named.values():
        column = slide.obs[key]
        if isinstance(column.dtype, pd.CategoricalDtype):
            ordered |= dict.fromkeys(str(category).strip() for category in column.cat.categories)
    missing = sum(int(column.isna().sum()) for column in labels.values())
    if missing and present:
        logger.warning("obs[%r]: %s without a domain left out", key, numbered(missing, "spot"))
    unordered = sorted(present - ordered.keys(), key=lambda name: (len(name), name))
    return tuple([name for name in ordered if name in present] + unordered)


def _shared_genes(
    named: Mapping[str, AnnData], layer: str | None
) -> tuple[dict[str, csr_matrix], tuple[str, ...]]:
    """Get the counts of the genes that all slides have, under the names of the first slide."""
    raw = {}
    for name, slide in named.items():
        try:
            raw[name] = sum_duplicates(counts(slide, layer))
        except InputError as error:
            raise InputError(f"{name}: {error}" if name else str(error)) from error
    first, *others = raw.values()
    if all(other.var.index.equals(first.var.index) for other in others):
        return {name: found.matrix for name, found in raw.items()}, tuple(map(str, first.var.index))
    vocabulary = Vocabulary(tuple(map(str, first.var.index)))
    kept = np.ones(len(vocabulary), dtype=bool)
    aligned = {}
    for name, found in raw.items():
        ids = found.var[GENE_IDS].astype(str).tolist() if GENE_IDS in found.var else None
        alignment = vocabulary.align(found.var.index.astype(str).tolist(), ids)
        kept &= alignment.measured
        aligned[name] = alignment.select(found.matrix)
    if not kept.any():
        raise InputError(
            "the slides have no gene in common; give slides of one species with the same names"
        )
    most = max(found.matrix.shape[1] for found in raw.values())
    logger.warning(
        "%s that all slides have are used; the slide with most has %s",
        numbered(int(kept.sum()), "gene"), f"{most:,}",
    )  # fmt: skip
    columns = np.flatnonzero(kept)
    genes = tuple(vocabulary[i] for i in columns.tolist())
    return {name: matrix[:, columns] for name, matrix in aligned.items()}, genes


def _sections(
    named: Mapping[str, AnnData], slide_key: str | None, patient_key: str
) -> list[Section]:
    """Split slides into sections; those of a single object carry no name of it."""
    sections = list(sections_of(named, slide_key=slide_key, patient_key=patient_key))
    return [replace(section, name=section.name.removeprefix("_")) for section in sections]


def _only(name: str, key: str, values: "pd.Series[str]") -> str | None:
    """Get the one condition of a section."""
    found = values.dropna().unique()
    if len(found) > 1:
        raise InputError(
            f"{name}: obs[{key!r}] has several values in one section ({few(found)}); a section "
            "has one condition"
        )
    if not len(found):
        logger.warning("%s: obs[%r] has no value; left out of the comparison", name, key)
        return None
    return str(found[0])
