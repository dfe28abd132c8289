"""A verb for one slide as a job: what a worker needs to know, and how it does it."""

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from sagefm._errors import InputError
from sagefm._fetch import DEFAULT
from sagefm._many import cached_model, in_a_line, require_apart, source_state
from sagefm._owner import making
from sagefm._progress import stage
from sagefm.cli._messages import for_command
from sagefm.cli._options import by_name, is_spatialdata
from sagefm.cli._parsing import sources_of
from sagefm.cli._records import ResultRecord

Row = dict[str, Any]
Summary = Callable[[Mapping[str, Row], Mapping[str, str], Path], str]
"""Write a file about all slides, and say in a line what is in it: of name → row of those that are
done, name → reason of those that failed, and the path."""

_HOW = {"workers", "scheduler", "overwrite", "device", "model", "slide", "slides"}
"""Parameters that do not change a result, or are recorded in another way."""
_UNREAD = (None, "none")
"""What stands for no model."""
_PATHS = {"model", "pairs", "known", "reference"}
"""Parameters that are texts and can be paths; other texts, as names of layers, never are."""
_TABLES = "counts"
"""The parameter with texts NAME=PATH."""
_NAMES = {DEFAULT, "none", "liana", "cellphonedb", "cellchat"}
"""What these can be instead."""


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
    record: ResultRecord | None
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


def make_jobs(
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
        if folder is not None and (folder.suffix or folder.is_file() or is_spatialdata(folder)):
            raise InputError(f"{folder}: name a folder for {len(named)} slides (no suffix)")
    targets = {name: how.targets(name, params) for name in named}
    files = {path: named[name] for name, some in targets.items() for path in some.values()}
    resolved = require_apart([path for some in targets.values() for path in some.values()], files)
    model = params.get("model")
    fingerprint = None if model in _UNREAD else cached_model(model, "cpu").fingerprint
    made_of = {
        name: _state_of(name, value) for name, value in params.items()
        if name not in (_HOW | {how.result, *how.also})
    }  # fmt: skip
    jobs = []
    for name, path in named.items():
        folder = params[how.result]
        record = ResultRecord.of(found(folder), how.name, name, how.entry) if folder else None
        state = {
            "model": fingerprint, "slide": source_state(Path(path).absolute(), resolved), **made_of
        }  # fmt: skip
        out = targets[name].get(how.result, Path(path))
        jobs.append(make_job(how, command, out, path, params | targets[name], record, state, found))
    return jobs


def make_job(
    how: PerSlide,
    command: Callable[..., None],
    out: Path,
    slide: str,
    params: Mapping[str, Any],
    record: ResultRecord | None,
    made_of: Row,
    found: Callable[[Path], Path],
) -> VerbJob:
    """Make a job of a slide, with paths that its worker finds."""
    given: dict[str, str] = {}

    def place(value: Any) -> Any:
        if isinstance(value, list):
            return [place(item) for item in value]
        there = type(value)(found(Path(value)))
        if str(there) != str(value):
            given[str(there)] = str(value)
        return there

    placed = {
        name: place(value) if _is_path(name, value) else value for name, value in params.items()
    }
    if tables := params.get(_TABLES):
        placed[_TABLES] = [f"{name}={place(path)}" for name, path in map(_named_path, tables)]
    placed |= slides_as(how.verb, [place(slide)])
    longest = sorted(given, key=len, reverse=True)
    return VerbJob(
        out, slide, command, placed, record, made_of, command_line(),
        {path: given[path] for path in longest},
    )  # fmt: skip


def _is_path(name: str, value: Any) -> bool:
    """Whether a value of a parameter is a path, or paths."""
    if isinstance(value, list):
        return name in _PATHS
    named = isinstance(value, str) and name in _PATHS and value not in _NAMES
    return isinstance(value, Path) or (named and Path(value).exists())


def _named_path(text: str) -> tuple[str, str]:
    name, _, path = text.partition("=")
    return name, path


def _state_of(name: str, value: Any) -> Any:
    """Describe an option so that another value, or another content of a file, is noticed."""
    if name == _TABLES and value:
        return [[item, source_state(Path(_named_path(item)[1]))] for item in value]
    if not _is_path(name, value):
        return value
    if isinstance(value, list):
        return [source_state(Path(item)) for item in value]
    return source_state(Path(value))


def files_of(how: PerSlide, params: Mapping[str, Any]) -> list[Path]:
    """List the files that are asked for."""
    chosen = (params[option] for option in (how.result, *how.also))
    return [Path(path) for path in chosen if path is not None]


def do(job: VerbJob) -> str:
    """Do a slide in a worker, and return the first line that the verb prints (all for one)."""
    how: PerSlide = job.verb.how  # type: ignore[attr-defined]
    record, params = job.record, dict(job.params)
    files = files_of(how, params)
    every = [path for file in files[:1] for path in how.beside(file)] + files
    if record:
        params["overwrite"] = params["overwrite"] or record.owns(every)
        record.claim(every)
    current = _Current(job.command, [])
    token = _current.set(current)
    try:
        with making(how.name, sources_of(params)):
            row = how.verb(**params)
    except Exception:
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


def parameters_of(verb: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """List the parameters of a verb."""
    return inspect.signature(verb).parameters


def slides_as(verb: Callable[..., Any], slides: Sequence[str]) -> dict[str, Any]:
    """Name slides as a verb does: ``slide``, or ``slides``."""
    return {"slides": list(slides)} if "slides" in parameters_of(verb) else {"slide": slides[0]}
