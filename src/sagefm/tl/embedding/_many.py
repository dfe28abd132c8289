"""Embed many slides that are not embedded yet, in several processes or on a cluster."""

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path

from sagefm._errors import InputError
from sagefm._fetch import local_copy
from sagefm._keys import PROVENANCE
from sagefm._progress import stage
from sagefm._text import numbered
from sagefm._workers import default_workers, each
from sagefm.model import SageFM, pick_device
from sagefm.tl.embedding._embed import embed
from sagefm.tl.embedding._jobs import EmbeddingJob, Source, make_jobs


@dataclass
class Done:
    """Result of :func:`embed_many`: each slide, by the file to write, in one of three groups."""

    finished: dict[Path, str] = field(default_factory=dict)
    """Embedded: number of spots, width, and how many genes of the model the slide has."""
    skipped: list[Path] = field(default_factory=list)
    """Not touched: embedded before, with the same model and from the same source."""
    failed: dict[Path, str] = field(default_factory=dict)
    """Not embedded: the reason, in a line that names the slide."""
    errors: dict[Path, Exception] = field(default_factory=dict)
    """The exception of each that failed, with its traceback."""

    def __str__(self) -> str:
        """Count them in one line."""
        text = f"{len(self.finished):,} embedded, {len(self.skipped):,} already there"
        return text + (f", {len(self.failed):,} failed" if self.failed else "")


def embed_many(
    slides: Mapping[str, Source] | Mapping[Path, Source],
    model: str | Path,
    *,
    adapt: bool = False,
    seed: int = 0,
    layer: str | None = None,
    slide_key: str | None = None,
    device: str | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    again: bool = False,
    overwrite: bool = False,
    progress: Callable[[str], object] | None = None,
) -> Done:
    """Embed slides on disk, and write each to a file.

    A slide that cannot be embedded does not stop the others. Finished files are kept if the call is
    interrupted, and the same call embeds only the slides that are missing: a complete result of the
    same model, options and source is not computed again.

    Parameters
    ----------
    slides
        The ``.h5ad`` to write → the slide: anything that :func:`sagefm.read` takes, or the path of
        a corpus and the name of a slide in it.
    model
        A model file, or its address as for :meth:`sagefm.SageFM.load`.
    adapt, seed
        Whether to adapt the model to each slide first, as :func:`sagefm.tl.embed` does: then the
        embeddings of different slides cannot be compared.
    layer
        Where the raw counts are, if not in ``X`` or ``layers["counts"]``.
    slide_key
        ``obs`` column with the section of each spot, if a file holds several.
    device
        As in :meth:`sagefm.SageFM.load`. All workers share it.
    workers
        Processes to start on this machine: by default half as many as it has cores (one without
        the extra ``cluster``), and never more than there are slides. One means this process. A
        script that starts several must do so under ``if __name__ == "__main__":``.
    scheduler
        Address of a running dask cluster to use instead, such as ``tcp://10.0.0.1:8786``. Its
        workers need sagefm, and access to all files under the same paths.
    again
        Embed slides again that are already embedded.
    overwrite
        Replace files that were not made from their slide.
    progress
        Called with a line for every slide that is finished or fails.

    Returns
    -------
    Which slides are finished, which were already embedded, and which failed and why.

    Raises
    ------
    InputError
        Before any slide is read: no such model, corpus, device or scheduler; a result that cannot
        be written, or that would replace another slide of the same call.

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
    jobs = make_jobs(slides, layer, slide_key, seed if adapt else None)
    model = local_copy(model)
    loaded = SageFM.load(model, device="cpu")
    # Workers on other machines check their device themselves.
    here = None if scheduler else str(pick_device(device))
    done, todo = Done(), []
    for job in jobs:
        if not again and job.is_done(loaded.fingerprint):
            done.skipped.append(job.out)
        else:
            todo.append(job)
    if not todo:
        return done
    n_workers = min(len(todo), workers or default_workers())
    if here and n_workers == 1:
        function = partial(_embed, loaded.to(here), overwrite)
    else:
        function = partial(_embed_remotely, model.absolute(), device, overwrite)
    stage("embedding %s, %s", numbered(len(todo), "slide"), f"{n_workers} at a time")
    results = each(function, todo, n_workers, scheduler=scheduler)
    with closing(results):
        for number, (job, result) in enumerate(results, start=1):
            stage("embedding slides: %d of %d are done", number, len(todo))
            line = _record(done, job, result)
            if progress:
                progress(line)
    return done


def _record(done: Done, job: EmbeddingJob, result: str | Exception) -> str:
    """Record the result of a job, and return it as a line."""
    if isinstance(result, str):
        done.finished[job.out] = result
        return f"{job.out}: {result}"
    reason = job.describe(result)
    done.failed[job.out] = reason
    if isinstance(result, InputError):
        named = InputError(reason)
        named.__cause__ = result
        result = named
    done.errors[job.out] = result
    return f"failed: {reason}"


def _embed_remotely(path: Path, device: str | None, overwrite: bool, job: EmbeddingJob) -> str:
    """Embed a slide in a worker, which loads the model once."""
    state = path.stat() if path.exists() else None
    model = _load(path, device, state and (state.st_size, state.st_mtime_ns))
    return _embed(model, overwrite, job)


@lru_cache(maxsize=1)
def _load(path: Path, device: str | None, version: object) -> SageFM:
    return SageFM.load(path, device=device)


def _embed(model: SageFM, overwrite: bool, job: EmbeddingJob) -> str:
    slide = job.read()
    job.require_own(slide, overwrite=overwrite)
    embed(slide, model, adapt=job.seed is not None, seed=job.seed or 0)
    genes = slide.uns[PROVENANCE]["embed"]["genes"]
    job.write(slide)
    return f"{slide.n_obs:,} spots × {model.width}; {genes}"
