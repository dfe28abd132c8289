"""The slides of an evaluation, with patient, labels and checksum; read one at a time."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sagefm._errors import InputError
from sagefm.pp.counts import coordinates, counts
from sagefm.pp.labels import labels_of
from sagefm.pp.read import read
from sagefm.pp.sections import sections_of

if TYPE_CHECKING:
    from typing import TypeAlias

    from anndata import AnnData

    SlideOrPath: TypeAlias = AnnData | str | os.PathLike[str]


@dataclass(frozen=True)
class _Origin:
    """The source of a slide."""

    source: "SlideOrPath"
    rows: tuple[int, ...] | None
    """Its rows, if the source holds several slides."""


class Cohort(Mapping[str, "AnnData"]):
    """Slides by name, read from disk at each access, so that one at a time is in memory.

    Parameters
    ----------
    slides
        Name → slide, or its path. A source with several sections or patients becomes several
        slides.
    facts
        A row per slide (the index) with columns such as patient or subtype. They take precedence
        over those of ``obs``.
    patient_key
        ``obs`` column with the patient; a slide without one is a patient of its own.
    layer, slide_key
        As for :func:`sagefm.read`.

    Attributes
    ----------
    table
        A row per slide: patient, spots, genes, counts (of a median spot), checksum (sha256 of
        counts, gene names, coordinates, obs and obsm), and the columns of `facts`.

    Raises
    ------
    InputError
        A slide cannot be read, a name is duplicated, or `facts` lacks a slide.
    """

    def __init__(
        self,
        slides: "Mapping[str, SlideOrPath]",
        *,
        facts: pd.DataFrame | None = None,
        patient_key: str = "patient",
        layer: str | None = None,
        slide_key: str | None = None,
    ) -> None:
        if not slides:
            raise InputError("no slides to evaluate on; give at least one")
        self.layer, self.slide_key = layer, slide_key
        self._origins: dict[str, _Origin] = {}
        patients = None
        if facts is not None and "patient" in facts:
            patients = {str(name): patient for name, patient in facts["patient"].items()}
        rows = {}
        for key, source in slides.items():
            slide = self._read(source)
            sections = list(
                sections_of(
                    {key: slide}, slide_key=slide_key, patient_key=patient_key, patients=patients
                )
            )
            for section in sections:
                name = section.name
                if name in rows:
                    raise InputError(f"a second slide called {name!r}; rename one of them")
                spots = None if len(sections) == 1 else tuple(np.sort(section.rows).tolist())
                self._origins[name] = _Origin(source, spots)
                of_section = slide if spots is None else slide[list(spots)]
                rows[name] = {"patient": section.patient, **_facts(of_section)}
                if facts is not None:
                    rows[name] |= _facts_of(facts, key)
        self.table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("slide")

    def __getitem__(self, name: str) -> "AnnData":
        origin = self._origins[name]
        slide = self._read(origin.source)
        return slide if origin.rows is None else slide[list(origin.rows)].copy()

    def __iter__(self) -> Iterator[str]:
        return iter(self._origins)

    def __len__(self) -> int:
        return len(self._origins)

    def _read(self, source: "SlideOrPath") -> "AnnData":
        if isinstance(source, str | os.PathLike):
            return read(source, layer=self.layer, slide_key=self.slide_key)
        return source if self.layer is None else _with_counts(source, self.layer)

    def only(self, names: Iterable[str]) -> "Cohort":
        """Keep some of the slides."""
        subset = object.__new__(Cohort)
        subset.layer, subset.slide_key = self.layer, self.slide_key
        subset._origins = {name: self._origins[name] for name in names}
        subset.table = self.table.loc[list(subset._origins)]
        return subset

    def labeled(self, key: str) -> list[str]:
        """List the slides that have labels in a column of ``obs``."""
        return [name for name, slide in self.items() if key in slide.obs
                and labels_of(slide, key).notna().any()]  # fmt: skip

    def patient(self, name: str) -> str:
        """Get the patient of a slide."""
        return str(self.table.loc[name, "patient"])


def _with_counts(slide: "AnnData", layer: str) -> "AnnData":
    """Move the counts of a slide in memory to ``X``, as :func:`sagefm.read` does."""
    from anndata import AnnData

    raw = counts(slide, layer)
    return AnnData(
        raw.matrix, obs=slide.obs, var=raw.var, uns=dict(slide.uns), obsm=dict(slide.obsm)
    )


def _facts(slide: "AnnData") -> dict[str, object]:
    """Compute the size and a checksum of a slide."""
    raw = counts(slide)
    digest = hashlib.sha256()
    for indices in (raw.matrix.indptr, raw.matrix.indices):
        digest.update(indices.astype(np.int64).data)
    digest.update(raw.matrix.data.data)
    digest.update("\n".join(raw.var.index.astype(str)).encode())
    digest.update(np.ascontiguousarray(coordinates(slide)).data)
    digest.update(slide.obs.astype(str).to_csv().encode())
    for key in sorted(slide.obsm):
        digest.update(key.encode() + np.ascontiguousarray(slide.obsm[key]).tobytes())
    return {
        "spots": slide.n_obs,
        "genes": raw.matrix.shape[1],
        "counts": float(np.median(raw.matrix.sum(axis=1).A1)),
        "checksum": digest.hexdigest(),
    }


def _facts_of(facts: pd.DataFrame, name: str) -> dict[str, object]:
    if name not in facts.index:
        raise InputError(f"{name}: is not in the table of slides; add a row for it")
    return {str(key): value for key, value in facts.loc[name].items() if key != "patient"}
