"""Embed many slides: those that are not done yet, in several processes or on a cluster."""

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path

from sagefm._errors import InputError
from sagefm._fetch import local_copy
from sagefm._keys import PROVENANCE
from sagefm._workers import each, half_the_cores
from sagefm.model import SageFM, pick_device
from sagefm.tl.embedding._embed import embed
from sagefm.tl.embedding._jobs import Job, Source, make_jobs


@dataclass
class Done:
    """What became of many slides. Each is in one of the three, by the path of its result."""

    finished: dict[Path, str] = field(default_factory=dict)
    """Embedded: how many spots, how wide, and how many genes of the model the slide has."""
    skipped: list[Path] = field(default_factory=list)
    """Left as they were: embedded before, by the same model and from the same source."""
    failed: dict[Path, str] = field(default_factory=dict)
    """Why, in a line that names the slide."""
    errors: dict[Path, Exception] = field(default_factory=dict)
    """What was raised for each that failed, with its traceback."""

    def __str__(self) -> str:
        """Count them in one line."""
        counted = f"{len(self.finished):,} embedded, {len(self.skipped):,} already there"
        return counted + (f", {len(self.failed):,} failed" if self.failed else "")


def embed_many(
    slides: Mapping[str, Source] | Mapping[Path, Source],
    model: str | Path,
    *,
    layer: str | None = None,
    slide_key: str | None = None,
    device: str | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    again: bool = False,
    progress: Callable[[str], object] | None = None,
) -> Done:
    """Embed slides on disk, each into a file of its own.

    A slide that cannot be embedded does not stop the others. What is finished stays, whatever comes
    after, and the same call again does only what is missing: a result that is there, whole, of the
    same model, options and source is left alone.

    Parameters
    ----------
    slides
        The ``.h5ad`` to write → the slide: anything that :func:`sagefm.read` takes, or the path of
        a corpus and the name of a slide in it.
    model
        A model file, or its address as for :meth:`sagefm.SageFM.load`.
    layer
        Where the raw counts are, if not in ``X`` or ``layers["counts"]``.
    slide_key
        ``obs`` column that tells the slides apart inside one file.
    device
        As in :meth:`sagefm.SageFM.load`. All workers share it.
    workers
        Processes to start on this machine: by default half as many as it has cores, and never more
        than there are slides. One means this process. A script that asks for several must do so
        under ``if __name__ == "__main__":``.
    scheduler
        Address of a dask cluster that runs already, such as ``tcp://10.0.0.1:8786``, instead. Its
        workers must have sagefm, and see all files under the same paths.
    again
        Embed what is there already, too.
    progress
        Called with a line for every slide that is finished or fails.

    Returns
    -------
    What is finished, what was there already, and what failed and why.

    Raises
    ------
    InputError
        Before any slide is touched: no such model, corpus, device or scheduler; a result that
        cannot be written, or that would replace another slide of the same call.

    Examples
    --------
    >>> done = sagefm.tl.embed_many(  # doctest: +SKIP
    ...     {"out/a.h5ad": "a/outs", "out/b.h5ad": "b.h5ad"}, "model.safetensors", workers=2
    ... )
    >>> print(done)  # doctest: +SKIP
    2 embedded, 0 already there
    """
    if scheduler and workers is not None:
        raise InputError("workers are started on this machine; leave them out with a scheduler")
    if workers is not None and workers < 1:
        raise InputError(f"workers is {workers}; give 1 or more")
    jobs = make_jobs(slides, layer, slide_key)
    model = local_copy(model)
    loaded = SageFM.load(model, device="cpu")
    # What is wrong with the device of workers elsewhere, they say themselves.
    here = None if scheduler else str(pick_device(device))
    done, todo = Done(), []
    for job in jobs:
        if not again and job.is_done(loaded.fingerprint):
            done.skipped.append(job.given)
        else:
            todo.append(job)
    if not todo:
        return done
    n_workers = min(len(todo), workers or half_the_cores())
    if here and n_workers == 1:
        function = partial(_embed, loaded.to(here))
    else:
        function = partial(_embed_there, model.absolute(), device)
    results = each(function, todo, n_workers, scheduler=scheduler)
    with closing(results):
        for job, result in results:
            line = _settle(done, job, result)
            if progress:
                progress(line)
    return done


def _settle(done: Done, job: Job, result: str | Exception) -> str:
    """Enter a result; say it in a line."""
    if isinstance(result, str):
        done.finished[job.given] = result
        return f"{job.given}: {result}"
    reason = job.reason(result)
    done.failed[job.given] = reason
    if isinstance(result, InputError):
        placed = InputError(reason)
        placed.__cause__ = result
        result = placed
    done.errors[job.given] = result
    return f"failed: {reason}"


def _embed_there(path: Path, device: str | None, job: Job) -> str:
    """Embed a slide in a worker, which has a model as long as it lives."""
    state = path.stat() if path.exists() else None
    return _embed(_load(path, device, state and (state.st_size, state.st_mtime_ns)), job)


@lru_cache(maxsize=1)
def _load(path: Path, device: str | None, version: object) -> SageFM:
    return SageFM.load(path, device=device)


def _embed(model: SageFM, job: Job) -> str:
    slide = job.read()
    embed(slide, model)
    genes = slide.uns[PROVENANCE]["embed"]["genes"]
    job.write(slide)
    return f"{slide.n_obs:,} spots × {model.width}; {genes}"
