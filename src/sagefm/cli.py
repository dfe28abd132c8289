"""The command. Every verb reads files, calls one public function and writes what it gives."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sagefm._errors import InputError, logger
from sagefm._files import replacing, require_writable, write_slide

if TYPE_CHECKING:
    from anndata import AnnData

    from sagefm.pp import Finding

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    help="A lightweight, interpretable foundation model for spatial transcriptomics.",
    epilog="Add --debug to any command to see the whole traceback of an error.",
)

SlidePath = Annotated[
    str, typer.Argument(metavar="SLIDE", help="Space Ranger folder, .h5ad or .zarr.")
]
SlidePaths = Annotated[
    list[str], typer.Argument(metavar="SLIDES...", help="Space Ranger folders, .h5ad or .zarr.")
]
ModelPath = Annotated[str, typer.Option("--model", "-m", help="Model file (.safetensors).")]
Out = Annotated[Path, typer.Option("--out", "-o", help="Where the result goes.")]
Layer = Annotated[
    str | None, typer.Option(help="Where the raw counts are, if not in X or layers['counts'].")
]
SlideKey = Annotated[
    str | None, typer.Option(help="obs column that tells slides apart inside one file.")
]
Seed = Annotated[int, typer.Option(min=0, help="Source of all chance.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, …; the best there is if not given.")]
Method = Literal["gmm", "kmeans", "leiden"]


@app.command()
def check(
    slide: SlidePath,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Also count the genes of this model.")
    ] = None,
    layer: Layer = None,
    slide_key: SlideKey = None,
) -> None:
    """Say what a file holds, what is wrong with it and how many model genes it has."""
    import sagefm

    loaded = sagefm.SageFM.load(model, device="cpu") if model else None
    logger.setLevel("ERROR")  # what reading tells is printed below, with the rest
    try:
        found = sagefm.read(slide, layer=layer, slide_key=slide_key)
    except InputError:  # say all that is wrong with it, not only what stopped the reading
        _echo_findings(
            sagefm.pp.check(sagefm.pp.open_slide(slide), layer=layer, slide_key=slide_key)
        )
        raise
    for name, value in sagefm.pp.summarize(found).items():
        typer.echo(f"{name.replace('_', ' '):<16} {_spelled(value)}")
    size = loaded.config.n_neighbors if loaded else 15
    findings = sagefm.pp.check(found, slide_key=slide_key, n_neighbors=size)
    told = found.uns["sagefm"]["read"]["told"]
    for line in [t for t in told if t not in {finding.message for finding in findings}]:
        typer.echo(f"{'told':<16} {line}")
    _echo_findings(findings)
    errors = [finding for finding in findings if finding.level == "error"]
    if errors:
        raise InputError(f"{slide}: {errors[0].message}")
    if loaded:
        typer.echo(f"{'model':<16} {loaded}")
        try:
            prepared = loaded.prepare(found, slide_key=slide_key)
        except InputError as error:
            raise InputError(_placed(slide, error)) from error
        typer.echo(f"{'model genes':<16} {prepared.summary}")


@app.command()
def embed(
    slides: SlidePaths,
    model: ModelPath,
    out: Out,
    layer: Layer = None,
    slide_key: SlideKey = None,
    device: Device = None,
) -> None:
    """Embed every spot: writes .h5ad with obsm["X_sagefm"]; for several slides OUT is a folder."""
    import sagefm

    targets = _targets(slides, out)
    for target in targets.values():
        require_writable(target)
    loaded = sagefm.SageFM.load(model, device=device)
    failures = []
    for path, target in targets.items():
        try:
            slide = sagefm.read(path, layer=layer, slide_key=slide_key)
            sagefm.tl.embed(slide, loaded)
            _require_nothing_lost(path, target, slide)
            write_slide(slide, target)
        except InputError as error:
            if len(targets) == 1:
                raise InputError(_placed(path, error)) from error
            failures.append(_placed(path, error))
            typer.echo(f"failed: {failures[-1]}", err=True)
            continue
        genes = slide.uns["sagefm"]["embed"]["genes"]
        typer.echo(f"{target}: {slide.n_obs:,} spots × {loaded.width}; {genes}")
    if failures:
        raise InputError(
            f"{len(failures)} of {len(targets)} slides failed and are not in {out}; "
            f"the first: {failures[0]}"
        )


@app.command()
def domains(
    slide: SlidePath,
    n_domains: Annotated[int, typer.Option("--n-domains", "-n", help="How many to find.")],
    out: Out,
    plot: Annotated[Path | None, typer.Option(help="Also draw them (.png, .pdf, .svg).")] = None,
    method: Annotated[Method, typer.Option(help="How to cluster.")] = "gmm",
    use_rep: Annotated[str, typer.Option(help="obsm key to cluster.")] = "X_sagefm",
    smooth: Annotated[int, typer.Option(min=0, help="Rounds of voting among neighbors.")] = 0,
    seed: Seed = 0,
    layer: Layer = None,
    slide_key: SlideKey = None,
) -> None:
    """Find tissue domains in an embedded slide: writes .h5ad with obs["sagefm_domain"]."""
    import sagefm

    _require_suffix(out, [".h5ad"])
    if plot is not None:
        _require_suffix(plot, [".png", ".pdf", ".svg"])
    found = sagefm.read(slide, layer=layer, slide_key=slide_key)
    try:
        sagefm.tl.domains(
            found, n_domains, method=method, use_rep=use_rep, smooth=smooth, seed=seed,
            slide_key=slide_key,
        )  # fmt: skip
    except InputError as error:
        raise InputError(_placed(slide, error)) from error
    _require_nothing_lost(slide, out, found)
    if plot is not None:
        sagefm.pl.spatial(found, save=plot)
    write_slide(found, out)
    sizes = found.obs["sagefm_domain"].value_counts()
    typer.echo(f"{out}: " + ", ".join(f"domain {d}: {n:,} spots" for d, n in sizes.items()))


@app.command()
def pretrain(
    slides: SlidePaths,
    out: Out,
    recipe: Annotated[
        str, typer.Option(help="published, small, or the path of a TOML file.")
    ] = "published",
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="ENTRY=VALUE", help="Replace an entry of the recipe."),
    ] = None,
    patients: Annotated[
        Path | None, typer.Option(help="CSV with columns slide and patient.")
    ] = None,
    patient_key: Annotated[
        str | None, typer.Option(help="obs column with the patient (data.patient_key).")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Source of all chance (train.seed).")
    ] = None,
    slide_key: SlideKey = None,
    device: Device = None,
    overwrite: Annotated[bool, typer.Option(help="Replace OUT if it is there.")] = False,
) -> None:
    """Train a model on slides: writes OUT, and its loss curve beside it as .csv and .png."""
    import sagefm

    _require_suffix(out, [".safetensors"])
    table = _patients(patients) if patients else None
    curve, picture = out.with_suffix(".csv"), out.with_suffix(".png")
    for path in (out, curve, picture):
        require_writable(path)
        if path.exists() and (not overwrite or (patients and path.samefile(patients))):
            raise InputError(f"{path}: is there already; choose another OUT, or add --overwrite")
    changes = list(overrides or [])
    changes += [f"data.patient_key='{patient_key}'"] if patient_key else []
    changes += [f"train.seed={seed}"] if seed is not None else []
    loaded = sagefm.pretrain.Recipe.load(recipe, changes)
    names = _names(slides)
    read = {name: sagefm.read(path, slide_key=slide_key) for path, name in names.items()}
    watched = sys.stderr.isatty()
    logger.setLevel("WARNING" if watched else "INFO")  # a bar, or in a log a line per epoch
    result = sagefm.pretrain.fit(
        read, loaded, patients=table, slide_key=slide_key, device=device, progress=watched
    )
    result.model.save(out)
    with replacing(curve) as beside:
        result.history.to_csv(beside, index=False)
    sagefm.pl.training(result.history, save=picture)
    told = result.model.provenance
    typer.echo(
        f"{out}: {result.model}; best epoch {told['best_epoch']} of {len(result.history)}, "
        f"validation loss {told['validation_loss']:.4f} "
        f"(neighbor mean {told['neighbor_mean_loss']:.4f}, "
        f"gene mean {told['gene_mean_loss']:.4f}); curve in {curve.name} and {picture.name}"
    )


@app.command()
def convert(
    published: Annotated[str, typer.Argument(metavar="PUBLISHED.pt")],
    genes: Annotated[str, typer.Option(help="Its genes, in order: .txt or the published .npy.")],
    out: Out,
) -> None:
    """Turn the published checkpoint and its gene list into one model file."""
    import sagefm

    _require_suffix(out, [".safetensors"])
    model = sagefm.SageFM.from_published(published, genes=genes, device="cpu")
    model.save(out)
    typer.echo(f"{out}: {model}")


@app.command()
def info(model: Annotated[str, typer.Argument(metavar="MODEL")]) -> None:
    """Say what a model is and where it comes from."""
    import json

    import sagefm

    loaded = sagefm.SageFM.load(model, device="cpu")
    with_ids = sum(map(bool, loaded.vocabulary.ensembl))
    typer.echo(f"{loaded}")
    typer.echo(f"widths: {', '.join(map(str, loaded.config.widths))}")
    typer.echo(f"parameters: {sum(p.numel() for p in loaded.network.parameters()):,}")
    typer.echo(f"genes with Ensembl id: {with_ids:,} of {len(loaded.vocabulary):,}")
    typer.echo(f"provenance: {json.dumps(loaded.provenance, indent=2)}")


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for everything.")] = Path("demo"),
    seed: Seed = 0,
) -> None:
    """Simulate slides, train, embed, find domains: pictures and a table, in a few minutes."""
    import sagefm.demo

    sagefm.demo.run(out, seed=seed, tell=typer.echo)


def main() -> None:
    """Run the command: status 0 on success, 2 on a usage or input error with one line on stderr."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    _tell_on_stderr()
    try:
        status = app(arguments or ["--help"], prog_name="sagefm", standalone_mode=False)
    except (Exception, KeyboardInterrupt) as error:
        if "--debug" in sys.argv:
            raise
        status = _explain(error)
    sys.exit(status)


def _explain(error: BaseException) -> int:
    """Print an error as one line; give the exit status."""
    if isinstance(error, InputError):
        typer.echo(f"error: {error}", err=True)
        return 2
    if hasattr(error, "format_message"):  # a usage error of click, wherever typer keeps click
        typer.echo(f"error: {error.format_message()} (see sagefm --help)", err=True)
        return 2
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        typer.echo("interrupted", err=True)
        return 130
    typer.echo(f"error: {type(error).__name__}: {error} (--debug shows where)", err=True)
    return 1


def _tell_on_stderr() -> None:
    import logging

    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("note: %(message)s"))
    logger.handlers = [handler]
    logger.propagate = False


def _echo_findings(findings: "Sequence[Finding]") -> None:
    for finding in findings:
        typer.echo(f"{finding.level:<16} {finding.message}")


def _spelled(value: object) -> str:
    """Write a value of a table for people."""
    if value is None or isinstance(value, bool):
        return {None: "unknown", True: "yes", False: "no"}[value]
    return f"{value:,.6g}" if isinstance(value, int | float) else str(value)


def _placed(path: str, error: InputError) -> str:
    """Name the slide in an error, once."""
    named = str(error).startswith((path, str(Path(path))))
    return str(error) if named else f"{path}: {error}"


def _names(slides: Sequence[str]) -> dict[str, str]:
    """Name each slide after its file, or after its sample folder."""
    names: dict[str, str] = {}
    for path in slides:
        place = Path(path).resolve()
        if place.name == "outs":
            place = place.parent
        name = place.name.removesuffix(".h5ad").removesuffix(".zarr")
        if name in names.values():
            raise InputError(
                f"{path}: a second slide called {name!r}; give every slide a name of its own"
            )
        names[path] = name
    return names


def _targets(slides: Sequence[str], out: Path) -> dict[str, Path]:
    """Say where the result of each slide goes."""
    if out.suffix == ".h5ad" and len(slides) == 1:
        return {slides[0]: out}
    if out.suffix or out.is_file():
        raise InputError(
            f"{out}: name a folder for {len(slides)} slides (no suffix), or a .h5ad file for one"
        )
    return {path: out / f"{name}.h5ad" for path, name in _names(slides).items()}


def _require_nothing_lost(path: str, target: Path, slide: "AnnData") -> None:
    """Refuse to write over a slide of which reading had to leave something out."""
    lost = slide.uns["sagefm"]["read"]["lost"]
    if lost and target.exists() and Path(path).exists() and target.samefile(path):
        raise InputError(f"{path}: is not written over, for {lost[0]}; choose another OUT")


def _require_suffix(path: Path, suffixes: Sequence[str]) -> None:
    if path.suffix not in suffixes:
        raise InputError(f"{path}: give it a name that ends with {' or '.join(suffixes)}")


def _patients(path: Path) -> dict[str, str]:
    """Read a table of patients: slide → patient."""
    import pandas as pd

    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as a CSV table ({error})") from error
    if not {"slide", "patient"} <= set(table.columns):
        raise InputError(
            f"{path}: has columns {', '.join(table.columns)}; it needs slide and patient"
        )
    table = table[["slide", "patient"]].drop_duplicates()
    bad = table[table["slide"].duplicated() | (table["patient"].str.strip() == "")]
    if len(bad):
        raise InputError(
            f"{path}: slide {bad['slide'].iloc[0]!r} has no patient, or two; give each slide one"
        )
    return dict(zip(table["slide"], table["patient"], strict=True))
