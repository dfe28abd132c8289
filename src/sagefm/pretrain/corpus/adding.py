"""What is done with one file: read it, tell its slides apart, align them, write them."""

import glob
import hashlib
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy.sparse import csr_matrix

from sagefm import __version__
from sagefm._errors import InputError
from sagefm._keys import GENE_IDS
from sagefm.pp.counts import coordinates, counts
from sagefm.pp.detection import DetectionTally
from sagefm.pp.neighborhood import nearest
from sagefm.pp.read import read
from sagefm.pp.sections import Section, sections_of
from sagefm.pp.vocabulary import Alignment
from sagefm.pretrain.corpus.facts import FACTS
from sagefm.pretrain.corpus.folder import Header, beside, place_of
from sagefm.pretrain.corpus.stored import Content, DamagedError, Record, write

if TYPE_CHECKING:
    from anndata import AnnData


@dataclass(frozen=True)
class Job:
    """A file to add."""

    name: str
    path: Path
    corpus: Path
    facts: dict[str, dict[str, str]]
    """Slide name, or that of the file → what the user says about it."""
    layer: str | None
    slide_key: str | None
    patient_key: str
    overwrite: bool

    def read(self) -> "AnnData":
        """Read the file."""
        return read(self.path, layer=self.layer, slide_key=self.slide_key)

    @cached_property
    def stamp(self) -> str:
        """Tell one state of a file or a folder from another without reading it.

        By the names, sizes and times of the files, and by what is asked of them. A copy or a
        touched file counts as another, and then what is in it decides.
        """
        if self.path.is_dir():
            root, files = self.path, self.path.rglob("*")
        else:  # a file, or the beginning of several (loose GEO files)
            root = self.path.parent
            files = root.glob(f"{glob.escape(self.path.name)}*")
        states = [repr((self.name, self.layer, self.slide_key, self.patient_key))]
        for file in sorted(file for file in files if file.is_file()):
            about = file.stat()
            states.append(f"{file.relative_to(root)} {about.st_size} {about.st_mtime_ns}")
        return hashlib.sha256("\n".join(states).encode()).hexdigest()

    def given(self, slide: str) -> dict[str, str]:
        """Give what the user says about a slide of the file."""
        return self.facts.get(self.name, {}) | self.facts.get(slide, {})


@dataclass(frozen=True)
class Outcome:
    """What became of a slide."""

    name: str
    state: Literal["added", "skipped", "failed"]
    told: str = ""
    """About a slide that was read; or why it failed."""
    written: Path | None = None
    """Where a slide lies that was added, beside its place."""
    has_patient: bool = True


class WritingError(Exception):
    """The corpus cannot be written to."""


def tally(job: Job) -> DetectionTally:
    """Count the genes of a file."""
    counted = DetectionTally()
    counted.add(job.read())
    return counted


def add(job: Job) -> list[Outcome]:
    """Write the slides of a file beside their places in the corpus.

    Whatever comes to nothing is left there; the build removes it in the end.

    Raises
    ------
    InputError
        Nothing in the file can be used.
    WritingError
        The disk is full, or cannot be written to.
    """
    header = Header.read(job.corpus)
    slide = job.read()
    found = counts(slide)
    ids = found.var[GENE_IDS].astype(str).tolist() if GENE_IDS in found.var else None
    alignment = header.vocabulary.align(found.var.index.astype(str).tolist(), ids)
    pieces = _pieces(job, slide)
    outcomes = []
    for name, piece in pieces.items():
        try:
            matrix = found.matrix[piece.rows]
            content = _content(piece, matrix, alignment, header.n_neighbors)
            record = _record(job, name, piece, content, list(pieces))
            outcome = _there(job, name, record)
            if outcome is None:
                told = f"{len(piece.rows):,} spots of {record.facts['patient']}; "
                told += _described(alignment, matrix, content)
                written = beside(place_of(job.corpus, name))
                write(written, content, header.vocabulary, record)
                known = "patient" in job.given(name) or job.patient_key in slide.obs
                outcome = Outcome(name, "added", told, written, known)
        except InputError as error:
            outcome = Outcome(name, "failed", str(error))
        except OSError as error:
            raise WritingError(error.strerror or str(error)) from error
        outcomes.append(outcome)
    return outcomes


def _pieces(job: Job, slide: "AnnData") -> dict[str, Section]:
    """Tell the slides of a file apart: by section and by patient."""
    owner = job.given(job.name).get("patient")
    pieces: dict[str, Section] = {}
    for piece in sections_of(
        {job.name: slide},
        slide_key=job.slide_key,
        patient_key=job.patient_key,
        patients={job.name: owner} if owner else None,
    ):
        if (name := folder_name(piece.name)) in pieces:
            raise InputError(f"two of its slides would be called {name!r}; rename one")
        pieces[name] = piece
    return pieces


def _there(job: Job, name: str, record: Record) -> Outcome | None:
    """Say what becomes of a slide whose place is taken."""
    place = place_of(job.corpus, name)
    if job.overwrite or not place.exists():
        return None
    try:
        there = Record.read(place)
    except (DamagedError, OSError) as error:
        why = f"is there already, but damaged ({error}); add --overwrite"
        return Outcome(name, "failed", why)
    if there.facts["checksum"] != record.facts["checksum"]:
        why = "is there already with other content; add --overwrite, or name it otherwise"
        return Outcome(name, "failed", why)
    return same_or_clash(job, name, there)


def same_or_clash(job: Job, name: str, there: Record) -> Outcome:
    """Leave a slide alone that is there, unless what is given about it is not what is there."""
    for key, value in job.given(name).items():
        if there.facts[key] != value:
            was = f"its {key} there is {there.facts[key]!r}, and now {value!r}"
            why = f"is there already, but {was}; add --overwrite to replace it"
            return Outcome(name, "failed", why)
    return Outcome(name, "skipped")


def _content(piece: Section, matrix: csr_matrix, alignment: Alignment, n_neighbors: int) -> Content:
    """Align a slide whose counts lie along the curve, and find its neighborhoods."""
    row = np.sort(piece.rows)
    order = np.searchsorted(row, piece.rows)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    points = coordinates(piece.slide)[row]
    # Ties among neighbors go by row: found in the order of the source, as a model finds them.
    neighbors = place[nearest(points, n_neighbors)[order]]
    aligned = alignment.apply(matrix)
    aligned.eliminate_zeros()
    highest = aligned.data.max(initial=0)
    if highest >= 2**32:
        raise InputError(f"has a count of {highest:.4g}; give raw counts")
    aligned.data = aligned.data.astype(np.uint16 if highest < 2**16 else np.uint32)
    aligned = aligned.tocsc().tocsr()  # sorts the genes of each spot, faster than sorting them
    return Content(
        counts=aligned,
        spatial=points[order],
        neighbors=neighbors.astype(np.int32),
        row=piece.rows,
        barcodes=piece.slide.obs_names.to_numpy(dtype=object)[piece.rows],
        measured=alignment.measured,
        detected=np.bincount(aligned.indices, minlength=aligned.shape[1]),
    )


def _record(job: Job, name: str, piece: Section, content: Content, pieces: list[str]) -> Record:
    given = job.given(name)
    known = {key: given.get(key) or _noted(piece, key) for key in FACTS[1:]}
    facts = {
        "patient": given.get("patient") or piece.patient,
        **known,
        "source": known["source"] or _file_name(job.path),
        "spots": content.counts.shape[0],
        "depth": float(np.median(np.asarray(content.counts.sum(axis=1)))),
        "genes": int(content.measured.sum()),
        "nonzeros": content.counts.nnz,
        "checksum": content.checksum(),
    }
    return Record(facts, job.name, job.stamp, pieces, __version__)


def _noted(piece: Section, key: str) -> str:
    """Find a fact in the slide itself: in a column that says the same of all spots, or in uns."""
    if key in piece.slide.obs:
        values = piece.slide.obs[key].iloc[piece.rows].dropna().unique()
        return str(values[0]) if len(values) == 1 else ""
    value = piece.slide.uns.get(key, "")
    return value if isinstance(value, str) else ""


def _described(alignment: Alignment, matrix: csr_matrix, content: Content) -> str:
    lost = int((alignment.columns < 0).sum())
    kept = content.counts.sum() / matrix.sum(dtype=np.float64)
    left = f"; {lost:,} genes with {1 - kept:.1%} of the counts are left out" if kept < 1 else ""
    return alignment.describe(matrix) + left


def folder_name(slide: str) -> str:
    """Make a name fit for a folder."""
    name = re.sub(r"[/\\\0\n]", "-", slide).lstrip(".")
    if not name or len(name.encode()) > 200:
        raise InputError(f"{slide[:40]!r} cannot name a folder; give the slide another name")
    return name


def _file_name(path: Path) -> str:
    place = path.resolve()
    return f"{place.parent.name}/{place.name}" if place.name == "outs" else place.name
