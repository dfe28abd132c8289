"""The verb check."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sagefm._errors import InputError, logger
from sagefm._files import replacing, require_writable
from sagefm.cli._options import (
    Device,
    Layer,
    Seed,
    SlideKey,
    SlidePath,
    placed,
    require_suffix,
    slide_names,
)

if TYPE_CHECKING:
    from sagefm.report import Quality


def check(
    slide: SlidePath,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Also say how far to trust this model on the slide."),
    ] = None,
    page: Annotated[
        Path | None, typer.Option(metavar="HTML", help="Also write all of it as one page.")
    ] = None,
    seed: Seed = 0,
    layer: Layer = None,
    slide_key: SlideKey = None,
    device: Device = None,
) -> None:
    """Say what a file holds, what is wrong with it, and how far to trust a model on it.

    Of a model: trust, with care or do not, for embedding and domains and for imputation and
    perturbation, with the facts behind it.
    """
    import sagefm

    if page is not None:
        require_suffix(page, [".html"])
        require_writable(page)
    loaded = sagefm.SageFM.load(model, device=device) if model else None
    logger.setLevel("ERROR")  # what reading tells is printed below, with the rest
    try:
        found = sagefm.read(slide, layer=layer, slide_key=slide_key)
    except InputError:  # say all that is wrong with it, not only what stopped the reading
        opened = sagefm.pp.open_slide(slide)
        for finding in sagefm.pp.check(opened, layer=layer, slide_key=slide_key):
            _echo(finding.level, finding.message)
        raise
    from sagefm import report

    for name, value in report.contents(found, slide_key=slide_key).items():
        _echo(name, value)
    size = loaded.config.n_neighbors if loaded else 15
    said = report.remarks(found, slide_key=slide_key, n_neighbors=size)
    for level, message in said:
        _echo(level, message)
    if errors := [message for level, message in said if level == "error"]:
        raise InputError(f"{slide}: {errors[0]}")
    if loaded is None and page is None:
        return
    try:
        quality = report.quality(found, loaded, seed=seed, slide_key=slide_key)
    except InputError as error:
        raise InputError(placed(slide, error)) from error
    if loaded is not None:
        _echo_quality(quality)
    if page is not None:
        (name,) = slide_names([slide]).values()
        text = report.page(found, quality, name=name, slide_key=slide_key)
        with replacing(page) as beside:
            beside.write_text(text, encoding="utf-8")
        _echo("page", str(page))


def _echo_quality(found: "Quality") -> None:
    _echo("model", found.made["model"])
    _echo("model genes", found.made["matched"])
    for _, fact in found.facts.iterrows():
        _echo(fact["grade"], f"{fact['what']}: {fact['shown']}. {fact['said']}")
    for use, row in found.verdicts.iterrows():
        _echo("verdict", f"{use}: {row['verdict']}. {row['reason']}")


def _echo(name: str, value: str) -> None:
    typer.echo(f"{name:<16} {value}")
