"""The verb check."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sagefm._errors import InputError, logger
from sagefm._files import replacing, require_free, require_writable
from sagefm.cli._options import (
    Device,
    Layer,
    Overwrite,
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
        typer.Option("--model", "-m", help="Also judge what the slide shows of this model."),
    ] = None,
    page: Annotated[
        Path | None, typer.Option(metavar="HTML", help="Also write all results as one page.")
    ] = None,
    seed: Seed = 0,
    layer: Layer = None,
    slide_key: SlideKey = None,
    device: Device = None,
    overwrite: Overwrite = False,
) -> None:
    """Summarize and check a slide, and judge what it shows of a model.

    Imputation is supported by masked genes that the model predicts (or with care, or do not);
    embedding, domains and perturbation are not shown, or do not. The facts are printed.
    """
    import sagefm

    if page is not None:
        require_suffix(page, [".html"])
        require_writable(page)
        require_free(page, overwrite=overwrite)
    loaded = sagefm.SageFM.load(model, device=device) if model else None
    logger.setLevel("ERROR")  # notes of reading are printed below
    try:
        loaded_slide = sagefm.read(slide, layer=layer, slide_key=slide_key)
    except InputError:  # print all findings, not only the first error
        opened = sagefm.pp.open_slide(slide)
        for finding in sagefm.pp.check(opened, layer=layer, slide_key=slide_key):
            _echo(finding.level, finding.message)
        raise
    from sagefm import report

    for name, value in report.contents(loaded_slide, slide_key=slide_key).items():
        _echo(name, value)
    size = loaded.config.n_neighbors if loaded else 15
    remarks = report.remarks(loaded_slide, slide_key=slide_key, n_neighbors=size)
    for level, message in remarks:
        _echo(level, message)
    if errors := [message for level, message in remarks if level == "error"]:
        raise InputError(f"{slide}: {errors[0]}")
    if loaded is None and page is None:
        return
    try:
        quality = report.quality(loaded_slide, loaded, seed=seed, slide_key=slide_key)
    except InputError as error:
        raise InputError(placed(slide, error)) from error
    if loaded is not None:
        _echo_quality(quality)
    if page is not None:
        (name,) = slide_names([slide]).values()
        text = report.page(loaded_slide, quality, name=name, slide_key=slide_key)
        with replacing(page) as beside:
            beside.write_text(text, encoding="utf-8")
        _echo("page", str(page))


def _echo_quality(quality: "Quality") -> None:
    _echo("model", quality.made["model"])
    _echo("model genes", quality.made["matched"])
    for _, fact in quality.facts.iterrows():
        _echo(fact["grade"], f"{fact['what']}: {fact['shown']}. {fact['said']}")
    for use, row in quality.verdicts.iterrows():
        _echo("verdict", f"{use}: {row['verdict']}. {row['reason']}")


def _echo(name: str, value: str) -> None:
    typer.echo(f"{name:<16} {value}")
