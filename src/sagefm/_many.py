"""Do a verb to many slides: what is there already is skipped, what fails stops no other slide."""

import glob
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from sagefm._errors import InputError
from sagefm._fetch import local_copy
from sagefm._progress import stage
from sagefm._text import numbered
from sagefm._workers import default_workers, each

if TYPE_CHECKING:
    from sagefm.model import SageFM


class SlideJob(Protocol):
    """A slide, and the file that is made of it."""

    @property
    def out(self) -> Path:
        """The file to write, as the user gave it."""
        ...

    def describe(self, error: Exception) -> str:
        """Write an error as one line that names the slide once, as the user gave it."""
        ...


J = TypeVar("J", bound=SlideJob)


@dataclass
class Done:
    """Result of a verb for many slides: each, by the file to write, in one of three groups."""

    finished: dict[Path, str] = field(default_factory=dict)
    """What was made, in a line: of :func:`sagefm.tl.embed_many` the number of spots, the width, and
    how many genes of the model the slide has."""
    skipped: list[Path] = field(default_factory=list)
    """Not touched: made before, with the same model and from the same source."""
    failed: dict[Path, str] = field(default_factory=dict)
    """Not made: the reason, in a line that names the slide."""
    errors: dict[Path, Exception] = field(default_factory=dict)
    """The exception of each that failed, with its traceback."""
    verb: str = "embedded"
    """What is done to them."""

    def __str__(self) -> str:
        """Count them in one line."""
        text = f"{len(self.finished):,} {self.verb}, {len(self.skipped):,} already there"
        return text + (f", {len(self.failed):,} failed" if self.failed else "")

    def record(self, job: SlideJob, result: str | Exception) -> str:
        """Record the result of a job, and return it as a line."""
        if isinstance(result, str):
            self.finished[job.out] = result
            return f"{job.out}: {result}"
        reason = job.describe(result)
        self.failed[job.out] = reason
        if isinstance(result, InputError):
            named = InputError(reason)
            named.__cause__ = result
            result = named
        self.errors[job.out] = result
        return f"failed: {reason}"

    def collect(
        self,
        function: Callable[[J], str],
        jobs: Sequence[J],
        doing: str,
        *,
        workers: int | None,
        scheduler: str | None,
        progress: Callable[[str], object] | None,
    ) -> None:
        """Apply a function to each job in workers, and record the results, in the order of `jobs`.

        Parameters
        ----------
        function
            Returns the result in a line. Importable by name in other processes.
        doing
            What is done, as ``"embedding"``.
        workers, scheduler, progress
            As in :func:`sagefm.tl.embed_many`.
        """
        stage("%s %s", doing, numbered(len(jobs), "slide"))
        n_workers = workers or default_workers()
        with closing(each(function, jobs, n_workers, scheduler=scheduler)) as results:
            for number, (job, result) in enumerate(results, start=1):
                stage("%s slides: %d of %d are done", doing, number, len(jobs))
                line = self.record(job, result)
                if progress:
                    progress(line)
        for group in (self.finished, self.failed, self.errors):
            _sort(group, [job.out for job in jobs])


def _sort(group: dict[Path, Any], order: Sequence[Path]) -> None:
    """Move the results to the end that are in `order`, in this order."""
    for out in order:
        if out in group:
            group[out] = group.pop(out)


def require_workers(workers: int | None, scheduler: str | None) -> None:
    """Raise an error unless there are workers here, or a scheduler elsewhere."""
    if scheduler and workers is not None:
        raise InputError("workers are started on this machine; leave them out with a scheduler")
    if workers is not None and workers < 1:
        raise InputError(f"workers is {workers}; give 1 or more")


def require_apart(outs: Iterable[str | Path], sources: Mapping[Any, Any]) -> set[Path]:
    """Raise an error if two results are one file, or a result is the source of another.

    Parameters
    ----------
    outs
        The files to write.
    sources
        File to write → the path of its slide.

    Returns
    -------
    The files to write, resolved.
    """
    outs = list(outs)
    targets = {Path(out).resolve() for out in outs}
    if len(targets) < len(outs):
        raise InputError("two slides would be written to one file; give each its own")
    for out, source in sources.items():
        if Path(source).resolve() in targets - {Path(out).resolve()}:
            raise InputError(
                f"{Path(source)}: another slide would be written there; choose another OUT"
            )
    return targets


def in_a_line(error: Exception) -> str:
    """Write an error as one line; one that is not about the input has its type before it."""
    text = " ".join(str(error).split())
    return text if isinstance(error, InputError) else f"{type(error).__name__}: {text}"


def source_state(source: Path, targets: Iterable[Path] = ()) -> dict[str, str | int]:
    """Summarize sizes and times of a slide's files, to detect changes without reading them.

    Results that are written among them (`targets`, resolved) do not count.
    """
    files: Iterable[Path] = [source]
    if source.is_dir():
        # The folder of a sample can hold far more than what is read of it.
        inner = source / "outs"
        files = (inner if inner.is_dir() else source).rglob("*")
    elif not source.exists():  # the samples of a folder of loose files are called folder/PREFIX
        files = source.parent.glob(f"{glob.escape(source.name)}*")
    ours = set(targets)
    states = [path.stat() for path in files if path.is_file() and path.resolve() not in ours]
    return {
        "path": str(source.resolve()),
        "size": sum(state.st_size for state in states),
        "modified": max((state.st_mtime_ns for state in states), default=0),
    }


def cached_model(source: str | Path, device: str | None = None) -> "SageFM":
    """Load a model; a worker that does many slides loads it once, unless the file changes."""
    path = local_copy(source)
    state = path.stat() if path.exists() else None
    return _load(path.absolute(), device, state and (state.st_size, state.st_mtime_ns))


@lru_cache(maxsize=1)
def _load(path: Path, device: str | None, version: object) -> "SageFM":
    from sagefm.model import SageFM

    return SageFM.load(path, device=device)
