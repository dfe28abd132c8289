"""Let a verb for one slide take many: in workers, resumable, failures listed at the end."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

import typer

from sagefm._errors import InputError
from sagefm._files import require_free
from sagefm._many import Done, require_workers
from sagefm._text import numbered
from sagefm.cli._jobs import (
    PerSlide,
    Row,
    Summary,
    VerbJob,
    do,
    files_of,
    make_job,
    make_jobs,
    parameters_of,
    slides_as,
)
from sagefm.cli._messages import for_command
from sagefm.cli._options import Scheduler, SlidePaths, Workers
from sagefm.cli._records import ResultRecord


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
            single = len(slides) == 1
            together = not single and "slides" in parameters_of(verb) and out.suffix
            if together or (single and scheduler is None):
                if scheduler is not None:
                    raise InputError(
                        f"{out}: is made of all slides together, in this process; leave "
                        "--scheduler out, or name a folder for slides by themselves"
                    )
                verb(**slides_as(verb, slides), **params)
                return
            if not single and (params.get("protein") or params.get("counts")):
                # Slides share barcodes: the table of one would match the spots of another.
                raise InputError(
                    "--protein, --counts: a table is of one slide; do slides one by one, or add "
                    "the table of each to it by sagefm.pp.add_counts"
                )
            if single:
                _elsewhere(how, command, slides[0], scheduler, params)
            else:
                _many(how, command, slides, workers, scheduler, params)

        command.how = how  # type: ignore[attr-defined]
        _advertise(command, how)
        return command

    return decorate


def _advertise(command: Callable[..., None], how: PerSlide) -> None:
    """Give the command the options of the verb, several slides, and those of workers."""
    *first, final = [f"--{option}" for option in (how.result, *how.also)]
    folders = f"{', '.join(first)} and {final} are folders" if first else f"{final} is a folder"
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
    job = make_job(how, command, out, slide, params, None, {}, found=Path.absolute)
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
    jobs = make_jobs(how, command, slides, params, found=Path.absolute if scheduler else Path)
    if how.summary and folder:
        _require_summary(how, folder, overwrite=params["overwrite"])
    done, todo = Done(verb="done"), []
    for job in jobs:
        if job.record and job.record.is_done(job.made_of, files_of(how, job.params)):
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


def _require_summary(how: PerSlide, folder: Path, *, overwrite: bool) -> None:
    name = how.summary[0] if how.summary else ""
    ours = ResultRecord.of(folder, how.name, "").owns([folder / name])
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
    record = ResultRecord.of(folder, how.name, "")
    record.claim([folder / name])
    line = write(rows, failed, folder / name)
    record.finish({}, [folder / name], line, None)
    typer.echo(f"{folder / name}: {line}")
