"""The commands ``sagefm convert``, ``sagefm info`` and ``sagefm demo``."""

from pathlib import Path
from typing import Annotated

import typer

from sagefm._fetch import DEFAULT, local_copy, sha256
from sagefm._files import require_free, require_writable
from sagefm.cli._options import Layer, Out, Overwrite, Seed, SlideKey, require_suffix, slide_names


def convert(
    published: Annotated[str, typer.Argument(metavar="PUBLISHED.pt")],
    genes: Annotated[str, typer.Option(help="Its genes, in order: .txt or the published .npy.")],
    out: Out,
    overwrite: Overwrite = False,
) -> None:
    """Convert the published checkpoint and its gene list to a model file."""
    import sagefm

    require_suffix(out, [".safetensors"])
    require_writable(out)
    require_free(out, overwrite=overwrite)
    model = sagefm.SageFM.from_published(published, genes=genes, device="cpu")
    model.save(out)
    typer.echo(f"{out}: {model}")


def info(
    model: Annotated[
        str, typer.Argument(metavar="[MODEL]", help="Model file, its address, or default.")
    ] = DEFAULT,
) -> None:
    """Describe a model and its provenance; by default the model of the package."""
    import json

    import sagefm
    from sagefm.pp.slide_record import kinds_of, records_of, without_records

    path = local_copy(model)
    loaded = sagefm.SageFM.load(path, device="cpu")
    with_ids = sum(map(bool, loaded.vocabulary.ensembl))
    typer.echo(f"{loaded}")
    typer.echo(f"widths: {', '.join(map(str, loaded.config.widths))}")
    typer.echo(f"parameters: {sum(p.numel() for p in loaded.network.parameters()):,}")
    typer.echo(f"genes with Ensembl id: {with_ids:,} of {len(loaded.vocabulary):,}")
    sample = loaded.trained_on
    text = f"{len(sample.spots):,} spots of {sample.n_groups}" if sample else "none"
    typer.echo(f"sample of the training spots (patients or slides): {text}")
    typer.echo(f"file: {path}")
    typer.echo(f"sha256: {sha256(path)}")
    if records := records_of(loaded.provenance):
        typer.echo("trained on:")
        typer.echo(kinds_of(records).to_string(index=False))
    else:
        typer.echo("trained on: the file does not record organ, technology and genes of its slides")
    typer.echo(f"provenance: {json.dumps(without_records(loaded.provenance), indent=2)}")


def demo(
    slide: Annotated[
        str | None,
        typer.Argument(metavar="[SLIDE]", help="A slide of yours; simulated tissue if not given."),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the results.")] = Path("demo"),
    label_key: Annotated[
        str | None,
        typer.Option(help="obs column with labels of the spots, to compare domains with."),
    ] = None,
    seed: Seed = 0,
    layer: Layer = None,
    slide_key: SlideKey = None,
    overwrite: Overwrite = False,
) -> None:
    """Compare the default model with simple methods and random weights: one page.

    On simulated human tissue it takes about a minute and a half.
    """
    import sagefm
    from sagefm.demo import run

    if slide is None:
        run(out, seed=seed, overwrite=overwrite, progress=typer.echo)
        return
    loaded = sagefm.read(slide, layer=layer, slide_key=slide_key)
    [name] = slide_names([slide]).values()
    run(out, loaded, name=name, label_key=label_key, seed=seed, overwrite=overwrite,
        progress=typer.echo)  # fmt: skip
