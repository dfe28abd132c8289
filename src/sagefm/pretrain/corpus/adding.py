"""Adding one file to a corpus: read it, split it into slides, align and write each."""

import glob
import hashlib
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from sagefm import __version__
from sagefm._errors import InputError
from sagefm.pp.aligned import AlignedSlide
from sagefm.pp.counts import coordinates
from sagefm.pp.detection import DetectionTally
from sagefm.pp.read import read
from sagefm.pp.sections import Section, sections_of
from sagefm.pp.slide_record import noted
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
    """Name of a slide or of the file → facts that the user gave about it."""
    layer: str | None
    slide_key: str | None
    patient_key: str
    overwrite: bool

    def read(self) -> "AnnData":
        """Read the file."""
        return read(self.path, layer=self.layer, slide_key=self.slide_key)

    @cached_property
    def stamp(self) -> str:
        """Digest of names, sizes and times of the files and of the options to read them with.

        It changes when a file changes, without reading it. A copy or a touched file has another
        one, and then the content decides.
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
        """Get the facts that the user gave about a slide of the file."""
        return self.facts.get(self.name, {}) | self.facts.get(slide, {})


@dataclass(frozen=True)
class AddOutcome:
    """The outcome for a slide."""

    name: str
    state: Literal["added", "skipped", "failed"]
    message: str = ""
    """About a slide that was read, or why it failed."""
    written: Path | None = None
    """Where a slide that was added lies, beside its place."""
    has_patient: bool = True


class WritingError(Exception):
    """The corpus cannot be written to."""


def tally(job: Job) -> DetectionTally:
    """Count the genes of a file."""
    counted = DetectionTally()
    counted.add(job.read())
    return counted


def add(job: Job) -> list[AddOutcome]:
    """Write the slides of a file beside their places in the corpus.

    What is incomplete is left there; the build removes it at the end.

    Raises
    ------
    InputError
        Nothing in the file can be used.
    WritingError
        The disk is full, or cannot be written to.
    """
    header = Header.read(job.corpus)
    slide = job.read()
    sections = _sections(job, slide)
    outcomes = []
    for name, section in sections.items():
        try:
            aligned = AlignedSlide.of(slide[section.rows], header.vocabulary, header.n_neighbors)
            kept = aligned.fraction_of_counts
            content = _content(section, aligned)
            record = _record(job, name, section, content, list(sections))
            outcome = _there(job, name, record)
            if outcome is None:
                message = f"{len(section.rows):,} spots; "
                message += _described(aligned, kept)
                written = beside(place_of(job.corpus, name))
                write(written, content, header.vocabulary, record)
                known = "patient" in job.given(name) or job.patient_key in slide.obs
                outcome = AddOutcome(name, "added", message, written, known)
        except InputError as error:
            outcome = AddOutcome(name, "failed", str(error))
        except OSError as error:
            raise WritingError(error.strerror or str(error)) from error
        outcomes.append(outcome)
    return outcomes


def _sections(job: Job, slide: "AnnData") -> dict[str, Section]:
    """Split a file into slides, by section and by patient."""
    owner = job.given(job.name).get("patient")
    sections: dict[str, Section] = {}
    for section in sections_of(
        {job.name: slide},
        slide_key=job.slide_key,
        patient_key=job.patient_key,
        patients={job.name: owner} if owner else None,
    ):
        if (name := folder_name(section.name)) in sections:
            raise InputError(f"two of its slides would be called {name!r}; rename one")
        sections[name] = section
    return sections


def _there(job: Job, name: str, record: Record) -> AddOutcome | None:
    """Decide about a slide whose place is taken."""
    place = place_of(job.corpus, name)
    if job.overwrite or not place.exists():
        return None
    try:
        there = Record.read(place)
    except (DamagedError, OSError) as error:
        why = f"is there already, but damaged ({error}); add --overwrite"
        return AddOutcome(name, "failed", why)
    if there.facts["checksum"] != record.facts["checksum"]:
        why = "is there already with other content; add --overwrite, or name it otherwise"
        return AddOutcome(name, "failed", why)
    return same_or_clash(job, name, there)


def same_or_clash(job: Job, name: str, there: Record) -> AddOutcome:
    """Skip a slide that is in the corpus, unless its facts there differ from those given."""
    for key, value in job.given(name).items():
        if there.facts[key] != value:
            was = f"its {key} there is {there.facts[key]!r}, and now {value!r}"
            why = f"is there already, but {was}; add --overwrite to replace it"
            return AddOutcome(name, "failed", why)
    return AddOutcome(name, "skipped")


def _content(section: Section, aligned: AlignedSlide) -> Content:
    """Convert a slide to the types that are stored."""
    counts = aligned.counts
    counts.eliminate_zeros()
    highest = counts.data.max(initial=0)
    if highest >= 2**32:
        raise InputError(f"has a count of {highest:.4g}; give raw counts")
    counts.data = counts.data.astype(np.uint16 if highest < 2**16 else np.uint32)
    counts = counts.tocsc().tocsr()  # sorts the genes of each spot, faster than sorting them
    return Content(
        counts=counts,
        spatial=coordinates(section.slide)[section.rows],
        neighbors=aligned.neighbors.astype(np.int32),
        row=section.rows,
        barcodes=section.slide.obs_names.to_numpy(dtype=object)[section.rows],
        measured=aligned.measured,
        detected=np.bincount(counts.indices, minlength=counts.shape[1]),
    )


def _record(job: Job, name: str, section: Section, content: Content, sections: list[str]) -> Record:
    given = job.given(name)
    known = {key: given.get(key) or noted(section.slide, section.rows, key) for key in FACTS[1:]}
    facts = {
        "patient": given.get("patient") or section.patient,
        **known,
        "source": known["source"] or _file_name(job.path),
        "spots": content.counts.shape[0],
        "depth": float(np.median(np.asarray(content.counts.sum(axis=1)))),
        "genes": int(content.measured.sum()),
        "nonzeros": content.counts.nnz,
        "checksum": content.checksum(),
    }
    return Record(facts, job.name, job.stamp, sections, __version__)


def _described(aligned: AlignedSlide, kept: float) -> str:
    lost = int((aligned.alignment.columns < 0).sum()) if aligned.alignment else 0
    left = f"; {lost:,} genes with {1 - kept:.1%} of the counts are left out" if kept < 1 else ""
    return aligned.summary + left


def folder_name(slide: str) -> str:
    """Turn the name of a slide into that of a folder."""
    name = re.sub(r"[/\\\0\n]", "-", slide).lstrip(".")
    if not name or len(name.encode()) > 200:
        raise InputError(f"{slide[:40]!r} cannot name a folder; give the slide another name")
    return name


def _file_name(path: Path) -> str:
    place = path.resolve()
    return f"{place.parent.name}/{place.name}" if place.name == "outs" else place.name
