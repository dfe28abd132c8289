"""What is kept of each slide to learn from: one slide stands in memory, where they are read."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sagefm._errors import InputError
from sagefm._keys import PROVENANCE
from sagefm._text import few
from sagefm._types import Floats
from sagefm.pp import sections as pp_sections
from sagefm.tl.subtyping._samples import label, label_of

if TYPE_CHECKING:
    from anndata import AnnData

    from sagefm.model import SageFM
    from sagefm.pp.aligned import AlignedSlide


@dataclass(frozen=True)
class PatientSection:
    """A slide, and what is kept of it."""

    name: str
    patient: str
    subtype: str | None
    z: NDArray[np.float32]
    """Its embedding, spots × width; or the mean, one row."""
    sums: "pd.Series[float]"
    """Counts of the model's genes that it has, by their position, summed over spots."""
    means: Floats
    """Mean log1p counts of each of the model's genes."""


@dataclass(frozen=True)
class Given:
    """Slides as a user gives them: gone through as often as is needed, one at a time."""

    slides: "Mapping[str, AnnData]"
    single: bool
    """Whether it was one object, without a name."""
    layer: str | None
    slide_key: str | None
    patient_key: str
    patients: Mapping[str, str] | None

    def __iter__(self) -> "Iterator[tuple[str, pp_sections.Section, AnnData]]":
        """Give each slide with its name and its place in the object that holds it."""
        for piece in pp_sections.sections_of(
            self.slides,
            slide_key=self.slide_key,
            patient_key=self.patient_key,
            patients=self.patients,
        ):
            name = piece.name.removeprefix("_") or "slide" if self.single else piece.name
            whole = len(piece.rows) == piece.slide.n_obs
            yield name, piece, piece.slide if whole else piece.slide[np.sort(piece.rows)].copy()

    def prepare(self, model: "SageFM", name: str, slide: "AnnData") -> "AlignedSlide":
        """Prepare a slide; name it where that fails."""
        try:
            return model.prepare(slide, layer=self.layer, slide_key=self.slide_key)
        except InputError as error:
            raise InputError(f"{name}: {error}") from error

    def fill(
        self, read: "Callable[[str, AnnData], Floats]", key: str, facts: Mapping[str, Any]
    ) -> None:
        """Write a number per spot into ``obs``, and how it was made into ``uns``."""
        held: AnnData | None = None
        for name, piece, slide in self:
            if piece.slide is not held:
                held, column = piece.slide, np.full(piece.slide.n_obs, np.nan)
            column[np.sort(piece.rows)] = read(name, slide)
            held.obs[key] = column
            held.uns.setdefault(PROVENANCE, {})["subtype"] = dict(facts)


def given_as(
    slides: "Mapping[str, AnnData] | AnnData",
    layer: str | None,
    slide_key: str | None,
    patient_key: str,
    patients: Mapping[str, str] | None,
) -> Given:
    """Take slides by name, or one object of several."""
    named = slides if isinstance(slides, Mapping) else {"": slides}
    if not named:
        raise InputError("slides: there is none; give some of patients with a subtype")
    return Given(named, named is not slides, layer, slide_key, patient_key, patients)


def patient_sections(
    given: Given,
    model: "SageFM",
    key: str | Mapping[str, str | None],
    *,
    whole: bool,
    progress: Callable[[str], object],
) -> list[PatientSection]:
    """Embed each slide and keep what is needed of it.

    Parameters
    ----------
    given
        The slides.
    model
        A model.
    key
        ``obs`` column with the subtype, or slide → subtype.
    whole
        Whether to keep the embedding of every spot.
    progress
        Called with a line per slide.

    Raises
    ------
    InputError
        No slide has a subtype, one has several, or two are the same.
    """
    sections: list[PatientSection] = []
    seen: dict[str, str] = {}
    lacking: list[str] = []
    for name, piece, slide in given:
        known = None
        if not isinstance(key, str):
            known = label(key.get(name))
        elif key in slide.obs:
            known = label_of(name, slide, key)
        else:
            lacking.append(few(slide.obs.columns, 20) or "nothing")
        prepared = given.prepare(model, name, slide)
        twin = seen.setdefault(_digest(prepared), name)
        if twin != name:
            raise InputError(f"{name}: is the same slide as {twin}; leave one of them out")
        progress(f"{name}: {slide.n_obs:,} spots")
        sections.append(_section(name, piece.patient, known, model, prepared, whole))
    if all(one.subtype is None for one in sections):
        if len(lacking) == len(sections):
            raise InputError(f"obs[{key!r}]: no slide has such a column; there is {lacking[0]}")
        where = f"obs[{key!r}]" if isinstance(key, str) else "subtypes"
        raise InputError(
            f"{where}: no slide has a value there; fill in the subtypes that are known"
        )
    return sections


def _section(
    name: str,
    patient: str,
    subtype: str | None,
    model: "SageFM",
    prepared: "AlignedSlide",
    whole: bool,
) -> PatientSection:
    z = model.embed(prepared)
    measured = np.flatnonzero(prepared.measured)
    sums = np.asarray(prepared.counts.sum(axis=0, dtype=np.float64)).ravel()
    return PatientSection(
        name, patient, subtype,
        z if whole else z.mean(axis=0, keepdims=True, dtype=np.float64).astype(np.float32),
        pd.Series(sums[measured], measured),
        np.asarray(prepared.log1p.mean(axis=0, dtype=np.float64)).ravel(),
    )  # fmt: skip


def _digest(prepared: "AlignedSlide") -> str:
    """Tell slides apart by what the model sees of them."""
    digest = hashlib.sha256()
    for part in (prepared.log1p.data, prepared.log1p.indices, prepared.neighbors):
        digest.update(np.ascontiguousarray(part).data)
    return digest.hexdigest()
