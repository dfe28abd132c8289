"""The verb check."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sagefm._errors import InputError, logger
from sagefm._files import replacing, require_free, require_writable
from sagefm._many import cached_model
from sagefm._text import numbered
from sagefm.cli._jobs import Row, is_one_of_many, say
from sagefm.cli._many import per_slide
from sagefm.cli._messages import for_command
from sagefm.cli._options import (
    Adapt,
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
    from sagefm.model import SageFM
    from sagefm.report import Quality


def _write_table(rows: Mapping[str, Row], failed: Mapping[str, str], path: Path) -> str:
    import pandas as pd

    results = {**rows, **{name: {"slide": "errors", "reason": failed[name]} for name in failed}}
    table = pd.DataFrame.from_dict(results, orient="index").rename_axis("name")
    with replacing(path) as beside:
        table.to_csv(beside)
    return f"{numbered(len(rows), 'slide')} can be used, {len(failed)} cannot"


@per_slide("page", ".html", summary=("check.csv", _write_table))
def check(
    slide: SlidePath,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Also judge what the slide shows of this model."),
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option(
            "--page", "--out", "-o", metavar="HTML",
            help="Also write all results as one page; for several slides a folder, and a table.",
        ),
    ] = None,
    adapt: Adapt = True,
    seed: Seed = 0,
    layer: Layer = None,
    slide_key: SlideKey = None,
    device: Device = None,
    overwrite: Overwrite = False,
) -> Row:  # fmt: skip
    """Summarize and check a slide, and judge what it shows of a model.

    Imputation is supported by masked genes that the model predicts (or with care, or do not);
    embedding, domains and perturbation are not shown, or do not. The facts are printed.
    """
    if page is not None:
        require_suffix(page, [".html"])
        require_writable(page)
        require_free(page, overwrite=overwrite)
    loaded = cached_model(model, device) if model else None
    with _without_notes():  # those of reading are printed below
        return _check(slide, loaded, page, adapt=adapt, seed=seed, layer=layer, slide_key=slide_key)


@contextmanager
def _without_notes() -> Iterator[None]:
    before = logger.level
    logger.setLevel("ERROR")
    try:
        yield
    finally:
        logger.setLevel(before)


def _check(
    slide: str,
    model: "SageFM | None",
    page: Path | None,
    *,
    adapt: bool,
    seed: int,
    layer: str | None,
    slide_key: str | None,
) -> Row:
    """Print what is found in a slide, and return the main results."""
    import sagefm

    try:
        backed = None if model is None and page is None else False  # to judge loads the counts
        loaded_slide = sagefm.read(slide, layer=layer, slide_key=slide_key, backed=backed)
    except InputError as error:  # print all findings, not only the first error
        opened = sagefm.pp.open_slide(slide)
        findings = sagefm.pp.check(opened, layer=layer, slide_key=slide_key)
        found = [(finding.level, finding.message) for finding in findings]
        raise InputError(_echo_slide(slide, {}, found, str(error))) from error
    from sagefm import report

    size = model.config.n_neighbors if model else 15
    remarks = report.remarks(loaded_slide, slide_key=slide_key, n_neighbors=size)
    quality, fault = None, ""
    if (model or page) and not any(level == "error" for level, _ in remarks):
        try:
            quality = report.quality(
                loaded_slide, model, adapt=adapt, seed=seed, slide_key=slide_key
            )
        except InputError as error:
            fault = placed(slide, error)
    verdicts = {}
    for use, row in quality.verdicts.iterrows() if quality else ():
        verdicts[str(use)] = str(row["verdict"])
        _echo("verdict", f"{use}: {row['verdict']}. {row['reason']}")
    contents = report.contents(loaded_slide, slide_key=slide_key)
    if fault := _echo_slide(slide, contents, remarks, fault):
        raise InputError(fault)
    warnings = [message for level, message in remarks if level == "warning"]
    if is_one_of_many():
        say(_in_a_line(contents, verdicts, warnings))
    if quality and model:
        _echo_quality(quality)
    if quality and page:
        (name,) = slide_names([slide]).values()
        text = report.page(loaded_slide, quality, name=name, slide_key=slide_key)
        with replacing(page) as beside:
            beside.write_text(text, encoding="utf-8")
        _echo("page", str(page))
    state = "warnings" if warnings else "ok"
    return {"slide": state, **contents, **verdicts, "reason": "; ".join(warnings)}


def _echo_slide(
    slide: str, contents: dict[str, str], remarks: Sequence[tuple[str, str]], fault: str
) -> str:
    """Print whether a slide can be used, what it holds, and what was noticed.

    Parameters
    ----------
    fault
        Why the slide cannot be used, if that is known beyond the remarks.

    Returns
    -------
    Why the slide cannot be used: its only error, or how many are printed. Empty if it can.
    """
    errors = [f"{slide}: {message}" for level, message in remarks if level == "error"]
    errors = [fault] if fault and len(errors) < 2 else errors
    n_warnings = sum(level == "warning" for level, _ in remarks)
    if errors:
        _echo("errors", f"{slide} cannot be used: {numbered(len(errors), 'error')}")
    elif n_warnings:
        warnings = numbered(n_warnings, "warning")
        _echo("warnings", f"{slide} can be used, but read the {warnings} below")
    else:
        _echo("ok", f"{slide} can be used")
    for name, value in contents.items():
        _echo(name, value)
    for level, message in remarks:
        if level != "error" or len(errors) > 1:  # the only one is printed on stderr
            _echo(level, message)
    if len(errors) > 1 and is_one_of_many():
        return "; ".join(error.removeprefix(f"{slide}: ") for error in errors)
    if len(errors) > 1:
        return f"{slide}: has {len(errors)} errors, which are listed above; mend all of them"
    return "".join(errors)


def _in_a_line(
    contents: Mapping[str, str], verdicts: Mapping[str, str], warnings: Sequence[str]
) -> str:
    """Summarize one of many slides."""
    found = [f"{contents[name]} {name}" for name in ("spots", "genes") if name in contents]
    found += [f"{use}: {verdict}" for use, verdict in verdicts.items()]
    found.append(
        f"{numbered(len(warnings), 'warning')}: {'; '.join(warnings)}" if warnings else "ok"
    )
    return for_command("; ".join(found))


def _echo_quality(quality: "Quality") -> None:
    _echo("model", quality.made["model"])
    _echo("model genes", quality.made["matched"])
    for _, fact in quality.facts.iterrows():
        _echo(fact["grade"], f"{fact['what']}: {fact['shown']}. {fact['said']}")


def _echo(name: str, value: str) -> None:
    """Print a finding; one of many slides has a line only."""
    if is_one_of_many():
        return
    typer.echo(f"{name:<16} {for_command(value)}")
