"""The command ``sagefm report``."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sagefm._errors import InputError
from sagefm._fetch import DEFAULT
from sagefm._files import replacing, require_free, require_writable
from sagefm._many import cached_model
from sagefm._text import numbered
from sagefm.cli._jobs import Row, command_line, say
from sagefm.cli._many import per_slide
from sagefm.cli._messages import for_command
from sagefm.cli._options import (
    Device,
    Layer,
    ModelPath,
    Overwrite,
    Seed,
    SlideKey,
    SlidePath,
    by_name,
    listed,
    placed,
    require_suffix,
)

if TYPE_CHECKING:
    from sagefm.report import SlideReport

_NO_MODEL = "none"


def _write_index(rows: Mapping[str, Row], failed: Mapping[str, str], path: Path) -> str:
    from sagefm.report import SlideReport, index_page

    made = [SlideReport(page="", **row) for row in rows.values()]
    _write(path, index_page(made, failed, command=shlex.join(command_line())))
    return numbered(len(made), "slide")


@per_slide("out", ".html", folder="report", summary=("index.html", _write_index))
def report(
    slide: SlidePath,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="The page (.html), or a folder for several slides; SLIDE.html, or report.",
        ),
    ] = None,
    model: ModelPath = DEFAULT,
    n_domains: Annotated[
        int | None,
        typer.Option("--n-domains", "-n", min=1, help="Number of domains; chosen if not given."),
    ] = None,
    names: Annotated[
        str | None,
        typer.Option(
            metavar="A,B", help="Groups of marker sets, such as general,breast; those of the organ."
        ),
    ] = None,
    seed: Seed = 0,
    layer: Layer = None,
    slide_key: SlideKey = None,
    device: Device = None,
    overwrite: Overwrite = False,
) -> Row:
    """Report on slides: quality, domains, predicted genes and rare spots on one page for each.

    Several slides have a page each, and index.html. A page takes about a minute for 900 spots and
    13,000 genes. With -m none, what needs a model is left out.
    """  # fmt: skip
    import sagefm
    from sagefm.report import slide_report

    [name] = by_name([slide])
    page = out or Path(f"{name}.html")
    require_suffix(page, [".html"])
    require_writable(page)
    groups = listed(names)
    if groups is not None:
        sagefm.pp.marker_sets(groups)
    require_free(page, overwrite=overwrite)
    loaded = None if model == _NO_MODEL else cached_model(model, device)
    try:
        made = slide_report(
            sagefm.read(slide, layer=layer, slide_key=slide_key), loaded, name=name,
            n_domains=n_domains, names=groups, seed=seed, slide_key=slide_key, copy=False,
            command=shlex.join(command_line()), path=slide, model_path=model,
        )  # fmt: skip
    except InputError as error:
        raise InputError(for_command(placed(slide, error))) from error
    _write(page, made.page)
    say(f"{page}: {_summary(made)}")
    return {name: value for name, value in vars(made).items() if name != "page"}


def _write(page: Path, text: str) -> None:
    with replacing(page) as beside:
        beside.write_text(text, encoding="utf-8")


def _summary(made: "SlideReport") -> str:
    """Say the main results in a line."""
    found = [f"the slide: {made.grade}"]
    found += [f"{use}: {verdict}" for use, verdict in made.verdicts.items()]
    if made.n_domains is not None:
        found.append(numbered(made.n_domains, "domain"))
    return "; ".join(found)
