"""The slides of an evaluation: opened one at a time, with patient, labels and checksum."""

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

    Given: TypeAlias = AnnData | str | os.PathLike[str]


@dataclass(frozen=True)
class _Section:
    """Where one slide comes from."""

    source: "Given"
    rows: tuple[int, ...] | None
    """Its spots, where the source holds several slides."""


class Cohort(Mapping[str, "AnnData"]):
    """Slides by name. Each is read again whenever it is asked for: one stands in memory.

    Parameters
    ----------
    slides
        Name → slide, or where to read it. A source with several slides, or patients, becomes
        several.
    facts
        A row per slide (the index) with columns of your own, such as patient or subtype. They go
        before those of ``obs``.
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
        A slide cannot be read, a name stands twice, or `facts` lacks a slide.
    """

    def __init__(
        self,
        slides: "Mapping[str, Given]",
        *,
        facts: pd.DataFrame | None = None,
        patient_key: str = "patient",
        layer: str | None = None,
        slide_key: str | None = None,
    ) -> None:
        if not slides:
            raise InputError("no slides to evaluate on; name at least one")
        self.layer, self.slide_key = layer, slide_key
        self._sections: dict[str, _Section] = {}
        patients = None
        if facts is not None and "patient" in facts:
            patients = {str(name): str(patient) for name, patient in facts["patient"].items()}
        rows = {}
        for given, source in slides.items():
            slide = self._read(source)
            pieces = list(
                sections_of(
                    {given: slide}, slide_key=slide_key, patient_key=patient_key, patients=patients
                )
            )
            for piece in pieces:
                if piece.name in rows:
                    raise InputError(f"a second slide called {piece.name!r}; rename one of them")
                alone = None if len(pieces) == 1 else tuple(np.sort(piece.rows).tolist())
                self._sections[piece.name] = _Section(source, alone)
                own = slide if alone is None else slide[list(alone)]
                rows[piece.name] = {"patient": piece.patient, **_facts(own)}
                if facts is not None:
                    rows[piece.name] |= _facts_of(facts, given)
        self.table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("slide")

    def __getitem__(self, name: str) -> "AnnData":
        section = self._sections[name]
        slide = self._read(section.source)
        return slide if section.rows is None else slide[list(section.rows)].copy()

    def __iter__(self) -> Iterator[str]:
        return iter(self._sections)

    def __len__(self) -> int:
        return len(self._sections)

    def _read(self, source: "Given") -> "AnnData":
        if isinstance(source, str | os.PathLike):
            return read(source, layer=self.layer, slide_key=self.slide_key)
        return source if self.layer is None else _with_counts(source, self.layer)

    def only(self, names: Iterable[str]) -> "Cohort":
        """Keep some of the slides."""
        part = object.__new__(Cohort)
        part.layer, part.slide_key = self.layer, self.slide_key
        part._sections = {name: self._sections[name] for name in names}
        part.table = self.table.loc[list(part._sections)]
        return part

    def labeled(self, key: str) -> list[str]:
        """List the slides that have labels in a column of ``obs``."""
        return [name for name, slide in self.items() if key in slide.obs
                and labels_of(slide, key).notna().any()]  # fmt: skip

    def patient(self, name: str) -> str:
        """Whose a slide is."""
        return str(self.table.loc[name, "patient"])


def _with_counts(slide: "AnnData", layer: str) -> "AnnData":
    """Do for a slide in memory what reading one does: put its counts into ``X``."""
    from anndata import AnnData

    found = counts(slide, layer)
    return AnnData(
        found.matrix, obs=slide.obs, var=found.var, uns=dict(slide.uns), obsm=dict(slide.obsm)
    )


def _facts(slide: "AnnData") -> dict[str, object]:
    found = counts(slide)
    digest = hashlib.sha256()
    for part in (found.matrix.indptr.astype(np.int64), found.matrix.indices.astype(np.int64)):
        digest.update(part.data)
    digest.update(found.matrix.data.data)
    digest.update("\n".join(found.var.index.astype(str)).encode())
    digest.update(np.ascontiguousarray(coordinates(slide)).data)
    digest.update(slide.obs.astype(str).to_csv().encode())
    for key in sorted(slide.obsm):
        digest.update(key.encode() + np.ascontiguousarray(slide.obsm[key]).tobytes())
    return {
        "spots": slide.n_obs,
        "genes": found.matrix.shape[1],
        "counts": float(np.median(found.matrix.sum(axis=1).A1)),
        "checksum": digest.hexdigest(),
    }


def _facts_of(facts: pd.DataFrame, name: str) -> dict[str, object]:
    if name not in facts.index:
        raise InputError(f"{name}: is not in the table of slides; add a row for it")
    return {str(key): value for key, value in facts.loc[name].items() if key != "patient"}
