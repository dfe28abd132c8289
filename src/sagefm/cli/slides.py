"""The commands ``sagefm embed`` and ``sagefm domains``."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sagefm._errors import InputError
from sagefm._extras import require
from sagefm._fetch import DEFAULT
from sagefm._files import require_free, require_own, require_writable, write_slide
from sagefm.cli._messages import for_command
from sagefm.cli._options import (
    Device,
    Layer,
    ModelPath,
    Out,
    Overwrite,
    Seed,
    SlideKey,
    SlidePath,
    is_corpus,
    placed,
    require_suffix,
    slide_names,
)

if TYPE_CHECKING:
    from sagefm.tl import Source

Method = Literal["gmm", "kmeans", "leiden"]


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
    seed: Seed = 0,
    layer: Layer = None,
    slide_key: SlideKey = None,
    device: Device = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Processes on this machine; half its cores if not given."),
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="A dask cluster to use instead: tcp://host:8786."),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Embed every spot: writes .h5ad with obsm["X_sagefm"]; for several slides OUT is a folder.

    obsm["X_sagefm_spot"] has the same of each spot alone, for scanpy's graph of neighbors. Slides
    that are already embedded in OUT by the same model and reference are skipped.
    """
    import sagefm

    targets = _targets(slides, out)

    def print_result(line: str) -> None:
        if not line.startswith("failed: "):
            typer.echo(line)
        elif len(targets) > 1:  # the error of one is printed at the end
            typer.echo(for_command(line), err=True)

    done = sagefm.tl.embed_many(
        targets, model, reference=reference, adapt=adapt, seed=seed, layer=layer,
        slide_key=slide_key, device=device, workers=workers, scheduler=scheduler,
        again=out in targets, overwrite=overwrite, progress=print_result,
    )  # fmt: skip
    if len(targets) == 1 and done.errors:
        raise done.errors.popitem()[1]
    if len(targets) > 1 or done.skipped:
        typer.echo(str(done))
    if done.failed:
        raise InputError(
            f"{len(done.failed)} of {len(targets)} slides failed and are not in {out}; fix the "
            "errors above and run the same command again: it embeds only the missing slides"
        )


def domains(
    slide: SlidePath,
    n_domains: Annotated[int, typer.Option("--n-domains", "-n", min=1, help="Number of domains.")],
    out: Out,
    plot: Annotated[Path | None, typer.Option(help="Also draw them (.png, .pdf, .svg).")] = None,
    method: Annotated[Method, typer.Option(help="Clustering method.")] = "gmm",
    use_rep: Annotated[str, typer.Option(help="obsm key of the embedding.")] = "X_sagefm",
    smooth: Annotated[
        int, typer.Option(min=0, max=100, help="Rounds of majority votes among neighbors.")
    ] = 0,
    seed: Seed = 0,
    layer: Layer = None,
    slide_key: SlideKey = None,
    overwrite: Overwrite = False,
) -> None:
    """Find tissue domains in an embedded slide: writes .h5ad with obs["sagefm_domain"]."""
    import sagefm

    require_suffix(out, [".h5ad"])
    require_writable(out)
    if plot is not None:
        require_suffix(plot, [".png", ".pdf", ".svg"])
        require_writable(plot)
    require_writable(out)
    require_free(plot, overwrite=overwrite)
    if method == "leiden":
        require("igraph", "leiden", "Leiden clustering")
    loaded = sagefm.read(slide, layer=layer, slide_key=slide_key)
    require_own(loaded, slide, out, overwrite=overwrite)
    try:
        sagefm.tl.domains(
            loaded, n_domains, method=method, use_rep=use_rep, smooth=smooth, seed=seed,
            slide_key=slide_key,
        )  # fmt: skip
    except InputError as error:
        raise InputError(placed(slide, error)) from error
    if plot is not None:
        sagefm.pl.spatial(loaded, save=plot)
    write_slide(loaded, out)
    sizes = loaded.obs["sagefm_domain"].value_counts()
    typer.echo(f"{out}: " + ", ".join(f"domain {d}: {n:,} spots" for d, n in sizes.items()))


def _targets(slides: Sequence[str], out: Path) -> "dict[Path, Source]":
    """Choose the file of each result."""
    corpora = [path for path in slides if is_corpus(path)]
    if out.suffix == ".h5ad" and len(slides) == 1 and not corpora:
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
