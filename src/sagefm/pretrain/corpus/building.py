"""Building a corpus: in any order, in parallel, and again after a kill."""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from sagefm._errors import InputError, logger
from sagefm._text import few, numbered
from sagefm._workers import each
from sagefm.pp.detection import DetectionTally
from sagefm.pp.gene_lists import read_genes
from sagefm.pretrain.corpus.adding import (
    AddOutcome,
    Job,
    WritingError,
    add,
    folder_name,
    same_or_clash,
    tally,
)
from sagefm.pretrain.corpus.facts import by_slide
from sagefm.pretrain.corpus.folder import FILE, Header, only_one, place_of, places, put_in_place
from sagefm.pretrain.corpus.stored import DamagedError, Record

_N_NEIGHBORS = 15


@dataclass
class Built:
    """The outcome for all slides of a build."""

    added: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    """In the corpus already, and the same."""
    failed: dict[str, str] = field(default_factory=dict)
    """Slide → why, in one line."""

    def __str__(self) -> str:
        """Summarize in one line."""
        counted = f"{numbered(len(self.added), 'slide')} added, {len(self.skipped):,} there already"
        return counted + (f", {len(self.failed):,} failed" if self.failed else "")


def build(
    slides: Mapping[str, str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    genes: str | os.PathLike[str] | int | None = None,
    facts: pd.DataFrame | None = None,
    slide_key: str | None = None,
    patient_key: str = "patient",
    layer: str | None = None,
    n_neighbors: int | None = None,
    workers: int = 1,
    overwrite: bool = False,
    progress: Callable[[str], object] | None = None,
) -> Built:
    """Make a corpus of slides, or add slides to one.

    A slide is in the corpus completely or not at all, and one that cannot be used does not stop
    the others. Slides that are in the corpus already and have not changed are skipped, so that the
    same call continues one that was killed. Several sections in one file become slides of their
    own (``NAME_SECTION``), and so do the patients of one section (``…_PATIENT``): no slide has two
    patients.

    Parameters
    ----------
    slides
        Name → file or folder, whatever :func:`sagefm.read` reads.
    out
        The folder of the corpus.
    genes
        Of a new corpus: a gene list file, or how many of the most detected genes to keep; all genes
        of all slides if not given. An existing corpus keeps its own.
    facts
        A row per slide: columns slide, patient, dataset, organ, disease, technology, license,
        source, of which only slide is required. It takes precedence over the files (``obs`` or
        ``uns``). A slide without a patient counts as a patient of its own, with a warning.
    slide_key
        ``obs`` column with the section of each spot, where a file holds several.
    patient_key
        ``obs`` column with the patient.
    layer
        Where the raw counts are, if not in ``X`` or ``layers["counts"]``.
    n_neighbors
        Spots in a neighborhood of a new corpus, the center included; 15 by default.
    workers
        Number of processes; more than one needs dask and, in a script,
        ``if __name__ == "__main__":``.
    overwrite
        Replace slides that are in the corpus.
    progress
        Called with a line about every slide that was read.

    Returns
    -------
    The slides that were added, skipped, and left out, with reasons.

    Raises
    ------
    InputError
        Another build is adding to the corpus; the disk is full (the corpus stays as it was);
        `genes` or `n_neighbors` are not those of the corpus; no slide can be read.
    """
    folder = Path(out)
    _require_arguments(slides, workers)
    try:
        given = {} if facts is None else by_slide(facts)
    except InputError as error:
        raise InputError(f"the table of slides {error}") from error
    with only_one(folder):
        work = _Work(folder, workers, progress or (lambda _: None))
        jobs = [
            Job(
                name=name,
                path=Path(path),
                corpus=folder,
                facts={slide: row for slide, row in given.items() if slide.startswith(name)},
                layer=layer,
                slide_key=slide_key,
                patient_key=patient_key,
                overwrite=overwrite,
            )
            for name, path in slides.items()
        ]
        if (folder / FILE).exists():
            _require_same(folder, genes, n_neighbors)
        else:
            jobs = work.begin(jobs, genes, n_neighbors or _N_NEIGHBORS)
        work.add(jobs)
    _warn_of_unused(given, slides, work.built)
    return work.built


def _require_arguments(slides: Mapping[str, Any], workers: int) -> None:
    if not slides:
        raise InputError("no slides to build a corpus of; name at least one")
    if workers < 1:
        raise InputError(f"workers is {workers}; give 1 or more")
    names: dict[str, str] = {}
    for slide in slides:
        other = names.setdefault(folder_name(slide), slide)
        if other != slide:
            raise InputError(f"{slide!r} and {other!r} would share a folder; rename one")


def _require_same(
    folder: Path, genes: str | os.PathLike[str] | int | None, n_neighbors: int | None
) -> None:
    """Refuse genes or a size of neighborhoods that are not those of the corpus."""
    header = Header.read(folder)
    size = len(header.vocabulary)
    remedy = "leave --genes out, or build another corpus"
    if isinstance(genes, int):
        if genes not in (size, header.most_detected):
            raise InputError(f"{folder}: has {size:,} genes, not {genes:,}; {remedy}")
    elif genes is not None and read_genes(os.fspath(genes)).symbols != header.vocabulary.symbols:
        raise InputError(f"{folder}: has {size:,} genes that are not those of {genes}; {remedy}")
    if n_neighbors not in (None, header.n_neighbors):
        raise InputError(
            f"{folder}: has neighborhoods of {header.n_neighbors} spots, not {n_neighbors}; "
            "build another corpus"
        )


@dataclass
class _Work:
    """A build in progress."""

    folder: Path
    workers: int
    report: Callable[[str], object]
    built: Built = field(default_factory=Built)
    without_patient: list[str] = field(default_factory=list)

    def begin(
        self, jobs: Sequence[Job], genes: str | os.PathLike[str] | int | None, n_neighbors: int
    ) -> list[Job]:
        """Choose the vocabulary of a new corpus; return the jobs whose files can be read."""
        if genes is not None and not isinstance(genes, int):
            Header(read_genes(os.fspath(genes)), n_neighbors).write(self.folder)
            return list(jobs)
        counted, left = DetectionTally(), set()
        with closing(each(tally, jobs, self.workers, quiet=True)) as results:
            for job, result in results:
                if isinstance(result, Exception):
                    self._fail(job, job.name, result)
                else:
                    counted.merge(result)
                    left.add(job.name)
                    self.report(f"{job.name}: genes counted")
        if not left:
            name, reason = next(iter(self.built.failed.items()))
            raise InputError(f"{self.folder}: no slide can be read; the first: {name}: {reason}")
        Header(counted.vocabulary(genes), n_neighbors, most_detected=genes).write(self.folder)
        return [job for job in jobs if job.name in left]

    def add(self, jobs: Sequence[Job]) -> None:
        """Add the slides that are not in the corpus."""
        there = {}
        for name, place in places(self.folder).items():
            with suppress(DamagedError, OSError):
                there[name] = Record.read(place)
        todo = [job for job in jobs if not self._is_there(job, there)]
        with closing(each(add, todo, self.workers)) as results:
            for job, result in results:
                if isinstance(result, WritingError):
                    raise self._unwritable(str(result)) from result
                if isinstance(result, Exception):
                    self._fail(job, job.name, result)
                    continue
                for outcome in result:
                    self._settle(job, outcome)
        if self.without_patient:
            logger.warning(
                "%d of %d slides name no patient and count as a patient each (%s)",
                len(self.without_patient), len(self.built.added), few(self.without_patient),
            )  # fmt: skip

    def _is_there(self, job: Job, there: Mapping[str, Record]) -> bool:
        """Whether all slides of a file are in the corpus, without reading the file."""
        stamp = job.stamp  # as it is before the file is read
        slides = {name: record for name, record in there.items() if record.stamp == stamp}
        all_slides = {name for record in slides.values() for name in record.pieces}
        if job.overwrite or not slides or all_slides - slides.keys():
            return False
        for name, record in slides.items():
            self._settle(job, same_or_clash(job, name, record))
        return True

    def _settle(self, job: Job, outcome: AddOutcome) -> None:
        """Put a slide in its place, or record why not."""
        name = outcome.name
        if outcome.state == "failed":
            self._fail(job, name, outcome.message)
        elif outcome.written is None:
            self.built.skipped.append(name)
        elif name in self.built.added:
            self._fail(job, name, "is the name of two slides; rename one")
        else:
            try:
                put_in_place(outcome.written, place_of(self.folder, name))
            except OSError as error:
                raise self._unwritable(error.strerror) from error
            self.built.added.append(name)
            self.without_patient += [] if outcome.has_patient else [name]
            self.report(f"{name}: {outcome.message}")

    def _fail(self, job: Job, name: str, why: str | Exception) -> None:
        """Record a slide that failed, and warn; the traceback is logged for debugging."""
        reason = " ".join(str(why).split())
        if isinstance(why, Exception):
            reason = reason if isinstance(why, InputError) else f"{type(why).__name__}: {reason}"
            logger.debug("%s", name, exc_info=why)
        reason = reason.removeprefix(f"{job.path}: ").removeprefix(f"{job.name}: ")
        self.built.failed[name] = reason
        logger.warning("%s: left out: %s", name, reason)

    def _unwritable(self, why: str | None) -> InputError:
        return InputError(
            f"{self.folder}: cannot be written ({why}); the slides in it are intact: make room and "
            "run the command again"
        )


def _warn_of_unused(facts: Mapping[str, Any], slides: Mapping[str, Any], built: Built) -> None:
    """Warn of rows that match no slide: a slide with a misspelled name has no patient."""
    used = {*slides, *built.added, *built.skipped, *built.failed}
    unused = [slide for slide in facts if slide not in used]
    if unused:
        logger.warning(
            "%d of %d rows of the table match no slide (%s)",
            len(unused), len(facts), few(unused),
        )  # fmt: skip
