"""The verb embed."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sagefm._errors import InputError
from sagefm._fetch import DEFAULT
from sagefm.cli._many import explain
from sagefm.cli._options import (
    CountTables,
    Device,
    Layer,
    ModelPath,
    Out,
    Overwrite,
    Protein,
    Scheduler,
    Seed,
    SlideKey,
    With,
    Workers,
    is_corpus,
    is_spatialdata,
    require_used,
    slide_names,
    tables_of,
)

if TYPE_CHECKING:
    from sagefm.tl import Source


def embed(
    slides: Annotated[
        list[str],
        typer.Argument(metavar="SLIDES...", help="Space Ranger folders, .h5ad, .zarr, or corpora."),
    ],
    out: Out,
    model: ModelPath = DEFAULT,
    reference: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Profile that spots are compared with: slide (its own), shared (one of all "
            "slides), model, or the path of a slide; chosen by the data if not given.",
        ),
    ] = None,
    adapt: Annotated[
        bool,
        typer.Option(help="Adapt the model to each slide first; then slides cannot be compared."),
    ] = False,
    with_: With = None,
    protein: Protein = None,
    counts: CountTables = None,
    seed: Seed = 0,
    layer: Layer = None,
    slide_key: SlideKey = None,
    device: Device = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
    overwrite: Overwrite = False,
) -> None:
    """Embed every spot: writes .h5ad with obsm["X_sagefm"]; for several slides OUT is a folder.

    obsm["X_sagefm_spot"] has the same of each spot alone, for scanpy's graph of neighbors. With a
    second modality, obsm["X_sagefm_joint"] has both, comparable over the slides. Slides
    that are already embedded in OUT by the same model and reference are skipped.
    """
    import sagefm

    tables = tables_of(protein, counts)
    require_used(tables, with_)
    targets = _targets(slides, out)

    def print_result(line: str) -> None:
        if not line.startswith("failed: "):  # they are listed at the end
            typer.echo(line)

    done = sagefm.tl.embed_many(
        targets, model, reference=reference, adapt=adapt, seed=seed, with_=with_,
        tables=tables, layer=layer, slide_key=slide_key, device=device, workers=workers,
        scheduler=scheduler, again=out in targets, overwrite=overwrite, progress=print_result,
    )  # fmt: skip
    if len(targets) == 1 and done.errors:
        raise done.errors.popitem()[1]
    if len(targets) > 1 or done.skipped:
        explain(done, str(out))


def _targets(slides: Sequence[str], out: Path) -> "dict[Path, Source]":
    """Choose the file of each result."""
    corpora = [path for path in slides if is_corpus(path)]
    single = out.suffix == ".h5ad" or is_spatialdata(out)
    if single and len(slides) == 1 and not corpora:
        return {out: slides[0]}
    if out.suffix or out.is_file():
        many = "the slides of a corpus" if corpora else f"{len(slides)} slides"
        raise InputError(f"{out}: name a folder for {many} (no suffix), or a .h5ad file for one")
    files = slide_names([path for path in slides if path not in corpora])
    sources: dict[str, Source] = {name: path for path, name in files.items()}
    for path in corpora:
        from sagefm.pretrain.corpus import Corpus

        for name in Corpus.open(path).table.index:
            if name in sources:
                raise InputError(
                    f"{path}: a second slide called {name!r}; embed it into another OUT"
                )
            sources[name] = (path, name)
    return {out / f"{name}.h5ad": source for name, source in sources.items()}
