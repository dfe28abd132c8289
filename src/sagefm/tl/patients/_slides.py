"""Go through the slides of patients one at a time, and keep of each only what is needed."""

import hashlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import pandas as pd

from sagefm._errors import InputError, logger
from sagefm._progress import logger as progress_logger
from sagefm._types import Floats, Positions, Singles
from sagefm.pp.labels import text_of
from sagefm.pp.read import read
from sagefm.pp.sections import Section, sections_of
from sagefm.stats.sums import column_sums

if TYPE_CHECKING:
    from anndata import AnnData

    from sagefm.model import SageFM
    from sagefm.pp.aligned import AlignedSlide

    SlideOrPath: TypeAlias = AnnData | str | os.PathLike[str]
    Slides: TypeAlias = Mapping[str, SlideOrPath] | Sequence[SlideOrPath] | SlideOrPath
else:
    Slides = object

_NAME = "slide"
"""``obs`` column that names a slide, and what one without a name is called."""


@dataclass(frozen=True)
class PatientSlide:
    """One section of one patient."""

    name: str
    number: int
    """Its place among the slides, from 1 on: what log lines call it, for names may be a patient's.
    """
    patient: str
    slide: "AnnData"
    """Its spots alone."""
    section: Section
    """Its rows of the object that holds it."""
    layer: str | None
    slide_key: str | None
    in_memory: bool
    """Whether the object is the user's own, and not read from a file."""

    @property
    def rows(self) -> Positions:
        """The rows of its spots in the object that holds it."""
        return np.sort(self.section.rows)

    def align(self, model: "SageFM") -> "AlignedSlide":
        """Align the slide to the genes of a model; an error names the slide."""
        try:
            return model.prepare(self.slide, layer=self.layer, slide_key=self.slide_key)
        except InputError as error:
            raise InputError(f"{self.name}: {error}") from error


@dataclass(frozen=True)
class SlideSource:
    """Slides as a user gives them; each pass over them has one slide at a time in memory."""

    slides: Slides
    layer: str | None
    slide_key: str | None
    patient_key: str
    patients: Mapping[str, str] | None

    def __post_init__(self) -> None:
        if isinstance(self.slides, Mapping | Sequence) and not self.slides:
            raise InputError("slides: is empty; give slides of patients")
        if not isinstance(self.patients, Mapping | pd.Series | None):
            raise InputError("patients: give a mapping from slides to patients")

    def __iter__(self) -> Iterator[PatientSlide]:
        """Yield each section of each patient."""
        names: set[str] = set()
        for name, value in self._named():
            from_file = isinstance(value, str | os.PathLike)
            slide = value
            if isinstance(slide, str | os.PathLike):
                slide = self._read(slide, len(names) + 1)
            if not hasattr(slide, "obsm"):
                what = f"{name or 'slides'}: is a {type(slide).__name__}"
                raise InputError(f"{what}; give slides (AnnData) or paths")
            for section in sections_of(
                {name: slide},
                slide_key=self.slide_key,
                patient_key=self.patient_key,
                patients=self.patients,
            ):
                own_name = section.name
                if not name:  # one object, which has no name
                    own_name = own_name.removeprefix("_") or _NAME
                if own_name in names:
                    raise InputError(f"a second slide called {own_name!r}; rename one of them")
                names.add(own_name)
                whole = len(section.rows) == slide.n_obs
                yield PatientSlide(
                    own_name, len(names), section.patient,
                    slide if whole else slide[np.sort(section.rows)].copy(), section,
                    None if from_file else self.layer, self.slide_key, not from_file,
                )  # fmt: skip

    def aligned(self, model: "SageFM") -> "Iterator[tuple[PatientSlide, AlignedSlide]]":
        """Yield each slide, and the same aligned to the genes of a model.

        Raises
        ------
        InputError
            Two slides are the same.
        """
        known: dict[str, str] = {}
        for one in self:
            aligned = one.align(model)
            twin = known.setdefault(_digest(aligned), one.name)
            if twin != one.name:
                raise InputError(f"{one.name}: is the same slide as {twin}; leave one of them out")
            yield one, aligned

    def with_patients(self, patients: Mapping[str, str]) -> "SlideSource":
        """Take the patients of slides from a mapping, if it has some of their names.

        Else those of a cohort are the ones that it knows, and others are in ``obs``.
        """
        names: set[str] = set()
        if isinstance(self.slides, Mapping):
            names = set(self.slides)
        elif isinstance(self.slides, str | os.PathLike | Sequence):
            names = {name for name, _ in self._named()}
        if names & set(patients):
            return replace(self, patients=patients)
        if callable(known := getattr(self.slides, "patient", None)):
            return replace(self, patients={name: known(name) for name in names})
        return self

    def _named(self) -> "Iterator[tuple[str, SlideOrPath]]":
        if isinstance(self.slides, Mapping):
            yield from self.slides.items()
        elif isinstance(self.slides, str | os.PathLike):
            yield _name_of(self.slides, 1), self.slides
        elif isinstance(self.slides, Sequence):
            names = [_name_of(one, number) for number, one in enumerate(self.slides, start=1)]
            again = {name for name in names if names.count(name) > 1}
            for number, (name, one) in enumerate(zip(names, self.slides, strict=True), start=1):
                yield f"{name} {number}" if name in again else name, one
        else:
            yield "", self.slides

    def _read(self, path: "str | os.PathLike[str]", number: int) -> "AnnData":
        with _unnamed(path, number):
            return read(path, layer=self.layer, slide_key=self.slide_key)


@dataclass(frozen=True)
class SummarizedSlide:
    """A slide of a patient, summarized."""

    name: str
    patient: str
    z: Singles
    """Its embedding, spots × width; or the mean over spots, one row."""
    sums: "pd.Series[float]"
    """Counts summed over spots, of the model's genes that the slide has, by position."""
    means: Floats
    """Mean log1p counts of each of the model's genes."""


def summarize(
    one: PatientSlide, model: "SageFM", aligned: "AlignedSlide", *, keep_spots: bool
) -> SummarizedSlide:
    """Embed a slide and summarize it, with the embedding of every spot or only their mean."""
    z = model.embed(aligned)
    measured = np.flatnonzero(aligned.measured)
    sums = column_sums(aligned.counts)
    return SummarizedSlide(
        one.name, one.patient,
        z if keep_spots else z.mean(axis=0, keepdims=True, dtype=np.float64).astype(np.float32),
        pd.Series(sums[measured], measured),
        np.asarray(aligned.log1p.mean(axis=0, dtype=np.float64)).ravel(),
    )  # fmt: skip


def _name_of(one: "SlideOrPath", number: int) -> str:
    """Name a slide of a list: by its file, by the one value of ``obs["slide"]``, or by number."""
    if isinstance(one, str | os.PathLike):
        place = Path(one).resolve()
        place = place.parent if place.name == "outs" else place
        return place.name.removesuffix(".h5ad").removesuffix(".zarr")
    own = list(text_of(one.obs[_NAME]).unique()) if _NAME in one.obs else []
    return str(own[0]) if len(own) == 1 and own[0] is not None else f"{_NAME} {number}"


@contextmanager
def _unnamed(path: "str | os.PathLike[str]", number: int) -> Iterator[None]:
    """Log the number of a slide in place of its name, which may be that of a patient."""
    names = {str(path), Path(path).name}

    def rename(record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(
                f"slide {number}" if str(value) in names else value for value in record.args
            )
        return True

    loggers = (logger, progress_logger)
    for one in loggers:
        one.addFilter(rename)
    try:
        yield
    finally:
        for one in loggers:
            one.removeFilter(rename)


def _digest(aligned: "AlignedSlide") -> str:
    """Compute a checksum of the input of a network."""
    digest = hashlib.sha256()
    for array in (aligned.counts.data, aligned.counts.indices, aligned.neighbors):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
