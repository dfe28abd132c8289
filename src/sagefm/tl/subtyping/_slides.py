"""Embed the slides of patients one at a time, and keep of each only what is needed."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sagefm._errors import InputError
from sagefm._text import few
from sagefm._types import Floats, Singles
from sagefm.pp.labels import labels_of, word_of
from sagefm.pp.sections import Section, sections_of
from sagefm.stats.sums import column_sums

if TYPE_CHECKING:
    from anndata import AnnData

    from sagefm.model import SageFM
    from sagefm.pp.aligned import AlignedSlide


@dataclass(frozen=True)
class PatientSlide:
    """A slide of a patient, summarized."""

    name: str
    patient: str
    subtype: str | None
    z: Singles
    """Its embedding, spots × width; or the mean over spots, one row."""
    sums: "pd.Series[float]"
    """Counts summed over spots, of the model's genes that the slide has, by position."""
    means: Floats
    """Mean log1p counts of each of the model's genes."""


@dataclass(frozen=True)
class SlideSource:
    """Slides as a user gives them; each pass over them has one slide at a time in memory."""

    slides: "Mapping[str, AnnData] | AnnData"
    layer: str | None
    slide_key: str | None
    patient_key: str
    patients: Mapping[str, str] | None

    def __post_init__(self) -> None:
        if isinstance(self.slides, Mapping) and not self.slides:
            raise InputError("slides: is empty; give slides of patients with a subtype")

    def __iter__(self) -> "Iterator[tuple[str, Section, AnnData]]":
        """Yield the name of each slide, its place in the object that holds it, and the slide."""
        slides = self.slides if isinstance(self.slides, Mapping) else {"": self.slides}
        for section in sections_of(
            slides,
            slide_key=self.slide_key,
            patient_key=self.patient_key,
            patients=self.patients,
        ):
            name = section.name
            if slides is not self.slides:  # one object, which has no name
                name = name.removeprefix("_") or "slide"
            is_object = len(section.rows) == section.slide.n_obs
            slide = section.slide if is_object else section.slide[np.sort(section.rows)].copy()
            yield name, section, slide

    def align(self, model: "SageFM", name: str, slide: "AnnData") -> "AlignedSlide":
        """Align a slide to the genes of a model; an error names the slide."""
        try:
            return model.prepare(slide, layer=self.layer, slide_key=self.slide_key)
        except InputError as error:
            raise InputError(f"{name}: {error}") from error


def embed_slides(
    source: SlideSource,
    model: "SageFM",
    key: str | Mapping[str, str | None],
    *,
    keep_spots: bool,
    progress: Callable[[str], object],
) -> list[PatientSlide]:
    """Embed each slide and summarize it.

    Parameters
    ----------
    source
        The slides.
    model
        A model.
    key
        ``obs`` column with the subtype, or slide → subtype.
    keep_spots
        Whether to keep the embedding of every spot, or only the mean.
    progress
        Called with a line per slide.

    Raises
    ------
    InputError
        No slide has a subtype, one has several, or two are the same.
    """
    embedded: list[PatientSlide] = []
    names: dict[str, str] = {}
    lacking: list[str] = []
    for name, section, slide in source:
        subtype = None
        if not isinstance(key, str):
            subtype = word_of(key.get(name))
        elif key in slide.obs:
            subtype = label_of_slide(name, slide, key)
        else:
            lacking.append(few(slide.obs.columns, 20) or "nothing")
        aligned = source.align(model, name, slide)
        twin = names.setdefault(_digest(aligned), name)
        if twin != name:
            raise InputError(f"{name}: is the same slide as {twin}; leave one of them out")
        progress(f"{name}: {slide.n_obs:,} spots")
        embedded.append(_summarize(name, section.patient, subtype, model, aligned, keep_spots))
    if all(one.subtype is None for one in embedded):
        where = f"obs[{key!r}]" if isinstance(key, str) else "subtypes"
        if len(lacking) == len(embedded):
            raise InputError(f"{where}: no slide has such a column; obs has {lacking[0]}")
        raise InputError(
            f"{where}: no slide has a value there; fill in the subtypes that are known"
        )
    return embedded


def label_of_slide(name: str, slide: "AnnData", key: str) -> str | None:
    """Get the one label of a slide from a column of ``obs``; None where no spot has one.

    Raises
    ------
    InputError
        There is no such column, or it has several values.
    """
    values = labels_of(slide, key).dropna().unique()
    if len(values) > 1:
        raise InputError(
            f"{name}: obs[{key!r}] has several values ({few(values)}); "
            "a slide has one subtype: give it the same in every spot"
        )
    return str(values[0]) if len(values) else None


def _summarize(
    name: str,
    patient: str,
    subtype: str | None,
    model: "SageFM",
    aligned: "AlignedSlide",
    keep_spots: bool,
) -> PatientSlide:
    z = model.embed(aligned)
    measured = np.flatnonzero(aligned.measured)
    sums = column_sums(aligned.counts)
    return PatientSlide(
        name, patient, subtype,
        z if keep_spots else z.mean(axis=0, keepdims=True, dtype=np.float64).astype(np.float32),
        pd.Series(sums[measured], measured),
        np.asarray(aligned.log1p.mean(axis=0, dtype=np.float64)).ravel(),
    )  # fmt: skip


def _digest(aligned: "AlignedSlide") -> str:
    """Compute a checksum of the input of a network."""
    digest = hashlib.sha256()
    for array in (aligned.counts.data, aligned.counts.indices, aligned.neighbors):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
