"""Embed many slides that are not embedded yet, in several processes or on a cluster."""

from collections.abc import Callable, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, get_args

from sagefm._errors import InputError
from sagefm._fetch import local_copy
from sagefm._keys import PROVENANCE
from sagefm._many import Done, cached_model, require_workers
from sagefm._progress import stage
from sagefm._text import numbered
from sagefm._workers import default_workers, each
from sagefm.model import SageFM, pick_device
from sagefm.pp.read import read
from sagefm.tl.embedding._embed import described, embed, say_choice, store
from sagefm.tl.embedding._jobs import EmbeddingJob, Source, compared, make_jobs
from sagefm.tl.embedding._joint import join_files, require_name
from sagefm.tl.embedding._reference import (
    CommonProfile,
    Reference,
    Spread,
    Totals,
    choose,
    embed_with,
    obstacle,
    require_reference,
    settled,
)

T = TypeVar("T")


def embed_many(
    slides: Mapping[str, Source] | Mapping[Path, Source],
    model: str | Path,
    *,
    reference: Reference | str | Path | None = None,
    adapt: bool = False,
    seed: int = 0,
    with_: str | None = None,
    tables: Mapping[str, str | Path] | None = None,
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
    reference
        As in :func:`sagefm.tl.embed`; a slide is given by its path. A common profile is computed
        first, from all slides that can be read, each time: another slide changes it, and then all
        are embedded again.
    adapt, seed
        Whether to adapt the model to each slide first, as :func:`sagefm.tl.embed` does with the
        reference ``"slide"``: then the embeddings of different slides cannot be compared.
    with_
        As in :func:`sagefm.tl.embed`: slides are joined with a second modality after all are
        embedded, together with those that were embedded before.
    tables
        Tables of counts that each slide gets before it is joined: name → as in
        :func:`sagefm.pp.add_counts`.
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
    require_workers(workers, scheduler)
    if with_ is not None:
        require_name(with_)
    jobs = make_jobs(slides, layer, slide_key, seed if adapt else None)
    model = local_copy(model)
    loaded = SageFM.load(model, device="cpu")
    # Workers on other machines check their device themselves.
    here = None if scheduler else str(pick_device(device))
    if isinstance(reference, str) and reference not in get_args(Reference):
        reference = Path(reference)
    require_reference(loaded, reference)
    if isinstance(reference, Path) and not reference.exists():
        raise InputError(
            f"reference: there is no slide {reference}; give slide, shared, model or a path"
        )
    if adapt and reference not in (None, "slide"):
        raise InputError(
            "adapt: is for each slide by itself here, and then a common reference is of no use; to "
            "adapt to all together, give the slides to sagefm.tl.embed"
        )
    reference = "slide" if adapt else settled(loaded, reference, len(jobs))

    def on_each(function: Callable[[SageFM, EmbeddingJob], T], n_jobs: int) -> Any:
        if here and min(n_jobs, workers or default_workers()) == 1:
            return partial(function, loaded.to(here))
        return partial(_with_model, function, model.absolute(), device)

    how: dict[str, Any] = {"workers": workers, "scheduler": scheduler, "progress": progress}
    done, todo = Done(), []
    jobs, common, facts = _compare(jobs, loaded, reference, on_each, done, how)
    for job in jobs:
        if not again and job.is_done(loaded.fingerprint):
            done.skipped.append(job.out)
        else:
            todo.append(job)
    if todo:
        function = on_each(partial(_embed, overwrite, common, facts), len(todo))
        done.collect(function, todo, "embedding", **how)
    if with_ is not None:
        embedded = {*done.finished, *done.skipped}
        paths = [path for path in map(Path, slides) if path in embedded]
        join_files(paths, with_, slide_key, tables or {})
    return done


def _compare(
    jobs: list[EmbeddingJob],
    model: SageFM,
    reference: str | Path | None,
    on_each: Callable[..., Any],
    done: Done,
    how: Mapping[str, Any],
) -> tuple[list[EmbeddingJob], CommonProfile | None, dict[str, Any]]:
    """Compute the profile that all slides are compared with, if they are.

    Returns
    -------
    The jobs of the slides that can be read, the profile, and what to record.
    """
    if reference == "slide":
        return jobs, None, {}

    def collect(function: Callable[[SageFM, EmbeddingJob], T], what: str) -> dict[Path, T]:
        stage("%s of %s", what, numbered(len(jobs), "slide"))
        found = {}
        n_workers = how["workers"] or default_workers()
        call = on_each(function, len(jobs))
        with closing(each(call, jobs, n_workers, scheduler=how["scheduler"])) as results:
            for job, result in results:
                if not isinstance(result, Exception):
                    found[job.out] = result
                    continue
                line = done.record(job, result)
                if progress := how["progress"]:
                    progress(line)
        jobs[:] = [job for job in jobs if job.out in found]
        return found

    jobs = list(jobs)
    totals = list(collect(_totals, "reading the profiles").values())
    if not totals:
        return jobs, None, {}
    common, reason = None, obstacle(totals) if reference is None else ""
    if not reason:
        given = _of_file(model, reference) if isinstance(reference, Path) else reference
        common = CommonProfile.of(model, given or "shared", totals)
    if reference is None and common is not None:
        spreads = collect(partial(_spread, common), "comparing the embeddings")
        shared, reason = choose(spreads.values()) if len(spreads) > 1 else (False, "one is left")
        common = common if shared else None
    if reference is None:
        say_choice(common, reason)
    if common is not None:
        jobs = [compared(job, common.digest) for job in jobs]
    return jobs, common, described(common, len(totals), reason)


def _of_file(model: SageFM, path: Path) -> Totals:
    slide = read(path)
    try:
        return Totals.of(model.prepare(slide))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _totals(model: SageFM, job: EmbeddingJob) -> Totals:
    return Totals.of(model.open(job.read(backed=True)))


def _spread(common: CommonProfile, model: SageFM, job: EmbeddingJob) -> Spread:
    return Spread.of(embed_with(model, model.open(job.read(backed=True)), common)[0])


def _with_model(
    function: Callable[[SageFM, EmbeddingJob], T],
    path: Path,
    device: str | None,
    job: EmbeddingJob,
) -> T:
    """Do a job in a worker, which loads the model once."""
    return function(cached_model(path, device), job)


def _embed(
    overwrite: bool,
    common: CommonProfile | None,
    facts: Mapping[str, Any],
    model: SageFM,
    job: EmbeddingJob,
) -> str:
    slide = job.read(backed=job.seed is None)
    job.require_own(slide, overwrite=overwrite)
    if job.seed is not None:
        embed(slide, model, adapt=True, seed=job.seed)
        slide.uns[PROVENANCE]["embed"] |= facts
        job.write(slide)
    else:
        opened = model.open(slide)
        with job.unfinished(opened, model.fingerprint, common) as folder:
            both = embed_with(model, opened, common, folder)
            store(slide, model, opened, both, facts or described(None, 1))
            job.write(slide)
    genes = slide.uns[PROVENANCE]["embed"]["genes"]
    return f"{slide.n_obs:,} spots × {model.width}; {genes}"
