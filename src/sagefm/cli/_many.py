"""Let a verb for one slide take many: in workers, resumable, failures listed at the end."""

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import typer

from sagefm._errors import InputError
from sagefm._fetch import DEFAULT
from sagefm._files import require_free
from sagefm._many import (
    Done,
    cached_model,
    in_a_line,
    require_apart,
    require_workers,
    source_state,
)
from sagefm._owner import making
from sagefm._progress import stage
from sagefm._text import numbered
from sagefm.cli._messages import for_command
from sagefm.cli._options import (
    Scheduler,
    SlidePaths,
    Workers,
    by_name,
)
from sagefm.cli._parsing import sources_of
from sagefm.cli._records import Record

Row = dict[str, Any]
Summary = Callable[[Mapping[str, Row], Mapping[str, str], Path], str]
"""Write a file about all slides, and say in a line what is in it: of name → row of those that are
done, name → reason of those that failed, and the path."""

_HOW = {"workers", "scheduler", "overwrite", "device", "model", "slide", "slides"}
"""Parameters that do not change a result, or are recorded in another way."""
_UNREAD = (None, "none")
"""What stands for no model."""


@dataclass(frozen=True)
class _Current:
    """The slide that a worker has in hand."""

    command: Sequence[str]
    lines: list[str]


_current: ContextVar[_Current | None] = ContextVar("current", default=None)


def say(line: str) -> None:
    """Print a line; for one of many slides the first one is returned to the command instead."""
    if current := _current.get():
        current.lines.append(line)
    else:
        typer.echo(line)


def print_progress(line: str) -> None:
    """Print a line of progress on stderr, unless it is about one of many slides."""
    if not is_one_of_many():
        typer.echo(for_command(line), err=True)
    stage(line)


def is_one_of_many() -> bool:
    """Whether this is one of many slides."""
    return _current.get() is not None


def command_line() -> Sequence[str]:
    """Get the words of the command that was typed."""
    current = _current.get()
    return current.command if current else ["sagefm", *sys.argv[1:]]


@dataclass(frozen=True)
class PerSlide:
    """How a verb for one slide takes many."""

    verb: Callable[..., Row | None]
    result: str
    """The parameter with the file to write; a folder for many slides."""
    suffixes: tuple[str, ...]
    """Of the result, and of files that are written beside it."""
    also: Mapping[str, str]
    """Parameters with further files (folders for many slides) → their suffix; none for a folder."""
    alone: Mapping[str, str]
    """Parameters that are for one slide only → what to do instead."""
    entry: str
    """Where an .h5ad records that this verb made it."""
    folder: Path | None
    """Where the results of many slides go if nothing is given."""
    summary: tuple[str, Summary] | None
    """The name of a file about all slides, and what writes it."""

    @property
    def name(self) -> str:
        """Name of the verb."""
        return self.verb.__name__

    def targets(self, name: str, params: Mapping[str, Any]) -> dict[str, Path]:
        """Choose the files of a slide: parameter → file."""
        suffixes = {self.result: self.suffixes[0], **self.also}
        return {
            option: Path(params[option]) / f"{name}{suffix}"
            for option, suffix in suffixes.items()
            if params[option] is not None
        }

    def beside(self, target: Path) -> list[Path]:
        """List the files that may be written beside a result."""
        return [target.with_suffix(suffix) for suffix in self.suffixes[1:]]


@dataclass(frozen=True)
class VerbJob:
    """A slide for a verb, and all that a worker needs to know."""

    out: Path
    name: str
    """The slide, as the user gave it."""
    verb: Callable[..., None]
    params: Mapping[str, Any]
    """Of the verb for this slide; the paths are those that a worker finds."""
    record: Record | None
    """None if the result is not recorded: one slide, or none is written."""
    made_of: Row
    command: Sequence[str]
    given: Mapping[str, str]
    """Paths that a worker finds → as the user gave them."""

    def describe(self, error: Exception) -> str:
        """Write an error as one line that names the slide once, as the user gave it."""
        text = self.as_given(in_a_line(error))
        return text if text.startswith(self.name) else f"{self.name}: {text}"

    def as_given(self, text: str) -> str:
        """Write paths in a text as the user gave them."""
        for path, given in self.given.items():
            text = text.replace(path, given)
        return text


def per_slide(
    result: str,
    *suffixes: str,
    also: Mapping[str, str] | None = None,
    alone: Mapping[str, str] | None = None,
    entry: str = "",
    folder: str | None = None,
    summary: tuple[str, Summary] | None = None,
) -> Callable[[Callable[..., Row | None]], Callable[..., None]]:
    """Let a verb with a parameter ``slide`` take several, and do them in workers.

    A verb with a parameter ``slides`` does them together if the result is a file. The parameters
    are the fields of :class:`PerSlide`.
    """

    def decorate(verb: Callable[..., Row | None]) -> Callable[..., None]:
        how = PerSlide(
            verb, result, suffixes, also or {}, alone or {}, entry,
            Path(folder) if folder else None, summary,
        )  # fmt: skip

        @wraps(verb)
        def command(
            slides: list[str], workers: int | None, scheduler: str | None, **params: Any
        ) -> None:
            require_workers(workers, scheduler)
            out = params[result]
            in_folder = out is not None and not out.suffix and not out.is_file()
            single = len(slides) == 1 and not in_folder
            together = "slides" in _parameters(verb) and not in_folder
            if (single and scheduler is None) or together:
                if together and scheduler is not None:
                    raise InputError(
                        f"{out}: is made of all slides together, in this process; leave "
                        "--scheduler out, or name a folder for slides by themselves"
                    )
                verb(**_slides_as(verb, slides), **params)
                return
            if single:
                _elsewhere(how, command, slides[0], scheduler, params)
            else:
                _many(how, command, slides, workers, scheduler, params)

        command.how = how  # type: ignore[attr-defined]
        _advertise(command, how)
        return command

    return decorate


def _parameters(verb: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(verb).parameters


def _slides_as(verb: Callable[..., Any], slides: Sequence[str]) -> dict[str, Any]:
    return {"slides": list(slides)} if "slides" in _parameters(verb) else {"slide": slides[0]}


def _advertise(command: Callable[..., None], how: PerSlide) -> None:
    """Give the command the options of the verb, several slides, and those of workers."""
    *first, last = [f"--{option}" for option in (how.result, *how.also)]
    folders = f"{', '.join(first)} and {last} are folders" if first else f"{last} is a folder"
    command.__doc__ = (
        f"{inspect.cleandoc(command.__doc__ or '')}\n\nFor several slides {folders}; results that "
        "are there already are skipped."
    )
    verb = how.verb
    signature = inspect.signature(verb)
    options = [p for name, p in signature.parameters.items() if name not in ("slide", "slides")]
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    *others, last = options  # --overwrite
    parameters = [
        inspect.Parameter("slides", kind, annotation=SlidePaths), *others,
        inspect.Parameter("workers", kind, annotation=Workers, default=None),
        inspect.Parameter("scheduler", kind, annotation=Scheduler, default=None), last,
    ]  # fmt: skip
    command.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=parameters, return_annotation=None
    )
    command.__annotations__ = {p.name: p.annotation for p in parameters} | {"return": None}


def _elsewhere(
    how: PerSlide,
    command: Callable[..., None],
    slide: str,
    scheduler: str | None,
    params: Mapping[str, Any],
) -> None:
    """Do one slide on a cluster."""
    out = Path(params[how.result] or slide)
    job = _job(how, command, out, slide, params, None, {}, found=Path.absolute)
    done = Done()
    done.collect(do, [job], how.name, workers=None, scheduler=scheduler, progress=None)
    for error in done.errors.values():
        raise error
    typer.echo("\n".join(done.finished.values()))


def _many(
    how: PerSlide,
    command: Callable[..., None],
    slides: Sequence[str],
    workers: int | None,
    scheduler: str | None,
    params: dict[str, Any],
) -> None:
    """Do many slides, write the file about all, print what failed, and raise an error if any."""
    for option, advice in how.alone.items():
        if params[option]:
            raise InputError(f"--{option} {advice}")
    params[how.result] = folder = params[how.result] or how.folder
    jobs = _jobs(how, command, slides, params, found=Path.absolute if scheduler else Path)
    if how.summary and folder:
        _require_summary(how, folder, overwrite=params["overwrite"])
    done, todo = Done(verb="done"), []
    for job in jobs:
        if job.record and job.record.is_done(job.made_of, _files(how, job.params)):
            done.skipped.append(job.out)
        else:
            todo.append(job)

    def progress(line: str) -> None:
        if not line.startswith("failed: "):  # they are listed at the end
            typer.echo(line)

    if todo:
        done.collect(do, todo, how.name, workers=workers, scheduler=scheduler, progress=progress)
    if how.summary and folder:
        _summarize(how, folder, jobs, done)
    explain(done, f"{folder}" if folder else "")


def explain(done: Done, out: str) -> None:
    """Print how many slides are done, and list those that failed; then raise an error.

    Raises
    ------
    InputError
        A slide failed.
    """
    typer.echo(str(done))
    for reason in done.failed.values():
        typer.echo(for_command(f"failed: {reason}"), err=True)
    if done.failed:
        n = len(done.finished) + len(done.skipped) + len(done.failed)
        place = f" and are not in {out}" if out else ""
        again = ": only the missing slides are done" if out else ""
        raise InputError(
            f"{len(done.failed)} of {numbered(n, 'slide')} failed{place}; fix the errors above and "
            f"run the same command again{again}"
        )


def _jobs(
    how: PerSlide,
    command: Callable[..., None],
    slides: Sequence[str],
    params: dict[str, Any],
    found: Callable[[Path], Path],
) -> list[VerbJob]:
    """Make a job of each slide."""
    named = by_name(slides)
    for option in (how.result, *how.also):
        folder = params[option]
        if folder is not None and (folder.suffix or folder.is_file()):
            raise InputError(f"{folder}: name a folder for {len(named)} slides (no suffix)")
    targets = {name: how.targets(name, params) for name in named}
    files = {path: named[name] for name, some in targets.items() for path in some.values()}
    resolved = require_apart([path for some in targets.values() for path in some.values()], files)
    model = params.get("model")
    fingerprint = None if model in _UNREAD else cached_model(model, "cpu").fingerprint
    made_of = {
        name: _state_of(value) for name, value in params.items()
        if name not in (_HOW | {how.result, *how.also})
    }  # fmt: skip
    jobs = []
    for name, path in named.items():
        folder = params[how.result]
        record = Record.of(found(folder), how.name, name, how.entry) if folder else None
        state = {
            "model": fingerprint, "slide": source_state(Path(path).absolute(), resolved), **made_of
        }  # fmt: skip
        out = targets[name].get(how.result, Path(path))
        jobs.append(_job(how, command, out, path, params | targets[name], record, state, found))
    return jobs


def _job(
    how: PerSlide,
    command: Callable[..., None],
    out: Path,
    slide: str,
    params: Mapping[str, Any],
    record: Record | None,
    made_of: Row,
    found: Callable[[Path], Path],
) -> VerbJob:
    """Make a job of a slide, with paths that its worker finds."""
    outputs = {how.result, *how.also}
    given: dict[str, str] = {}

    def place(value: Any, *, is_path: bool = False) -> Any:
        if isinstance(value, list):
            return [place(item, is_path=is_path) for item in value]
        if not isinstance(value, str | Path) or not (is_path or _is_path(value)):
            return value
        there = type(value)(found(Path(value)))
        if str(there) != str(value):
            given[str(there)] = str(value)
        return there

    placed = {name: place(value, is_path=name in outputs) for name, value in params.items()}
    placed |= _slides_as(how.verb, [place(slide, is_path=True)])
    longest = sorted(given, key=len, reverse=True)
    return VerbJob(
        out, slide, command, placed, record, made_of, command_line(),
        {path: given[path] for path in longest},
    )  # fmt: skip


def _is_path(value: str | Path) -> bool:
    """Whether a word is the path of something that exists; ``default`` is a model."""
    try:
        return value != DEFAULT and value != "" and Path(value).exists()
    except (OSError, ValueError):
        return False


def _state_of(value: Any) -> Any:
    """Describe an option so that another value, or another content of a file, is noticed."""
    if isinstance(value, list):
        return [_state_of(item) for item in value]
    if isinstance(value, str | Path):
        return source_state(Path(value)) if _is_path(value) else str(value)
    return value


def _files(how: PerSlide, params: Mapping[str, Any]) -> list[Path]:
    """List the files that are asked for."""
    chosen = (params[option] for option in (how.result, *how.also))
    return [Path(path) for path in chosen if path is not None]


def do(job: VerbJob) -> str:
    """Do a slide in a worker, and return the first line that the verb prints (all for one)."""
    how: PerSlide = job.verb.how  # type: ignore[attr-defined]
    record, params = job.record, dict(job.params)
    files = _files(how, params)
    every = [path for file in files[:1] for path in how.beside(file)] + files
    if record:
        params["overwrite"] = params["overwrite"] or record.owns(every)
        record.claim(every)
    current = _Current(job.command, [])
    token = _current.set(current)
    try:
        with making(how.name, sources_of(params)):
            row = how.verb(**params)
    except InputError:
        if record:
            record.release()
        raise
    finally:
        _current.reset(token)
    lines = [job.as_given(line) for line in current.lines]
    if record is None:
        return "\n".join(lines)
    line = (lines or [""])[0].removeprefix(f"{job.out}: ")
    record.finish(job.made_of, every, line, row)
    return line


def _require_summary(how: PerSlide, folder: Path, *, overwrite: bool) -> None:
    name = how.summary[0] if how.summary else ""
    ours = Record.of(folder, how.name, "").owns([folder / name])
    require_free(folder / name, overwrite=overwrite or ours)


def _summarize(how: PerSlide, folder: Path, jobs: Sequence[VerbJob], done: Done) -> None:
    """Write the file about all slides."""
    if how.summary is None:
        return
    name, write = how.summary
    rows, failed = {}, {}
    for job in jobs:
        title = job.out.name.removesuffix(how.suffixes[0])
        if job.out in done.failed:
            failed[title] = for_command(done.failed[job.out])
        elif job.record:
            rows[title] = job.record.load().get("row") or {}
    record = Record.of(folder, how.name, "")
    record.claim([folder / name])
    line = write(rows, failed, folder / name)
    record.finish({}, [folder / name], line, None)
    typer.echo(f"{folder / name}: {line}")
