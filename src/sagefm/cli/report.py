"""The command ``sagefm report``."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sagefm._errors import InputError
from sagefm._fetch import DEFAULT
from sagefm._files import replacing, require_free, require_writable
from sagefm._text import numbered
from sagefm.cli._messages import for_command
from sagefm.cli._options import (
    Device,
    Layer,
    ModelPath,
    Overwrite,
    Seed,
    SlideKey,
    SlidePaths,
    by_name,
    listed,
    placed,
    print_progress,
    require_suffix,
)

if TYPE_CHECKING:
    from sagefm.model import SageFM
    from sagefm.report import SlideReport

_NO_MODEL = "none"
_INDEX = "index"


def report(
    slides: SlidePaths,
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
) -> None:
    """Report on slides: quality, domains, predicted genes and rare spots on one page for each.

    For several slides OUT is a folder, with a page for each and index.html. A page takes about a
    minute for 900 spots and 13,000 genes. With -m none, what needs a model is left out.
    """  # fmt: skip
    import sagefm

    named = by_name(slides)
    pages = _pages(named, out)
    groups = listed(names)
    if groups is not None:
        sagefm.pp.marker_sets(groups)
    require_free(*pages.values(), overwrite=overwrite)
    loaded = None if model == _NO_MODEL else sagefm.SageFM.load(model, device=device)
    options = {"n_domains": n_domains, "names": groups, "seed": seed, "model_path": model}
    made: dict[str, SlideReport] = {}
    failed: dict[str, str] = {}
    for name, path in named.items():
        try:
            made[name] = _report(path, name, loaded, layer, slide_key, options)
        except InputError as error:
            failed[name] = for_command(placed(path, error))
            if len(named) == 1:
                raise InputError(failed[name]) from error
            print_progress(failed[name])
            continue
        _write(pages[name], made[name].page)
        typer.echo(f"{pages[name]}: {_summary(made[name])}")
    if _INDEX in pages and len(named) > 1:
        from sagefm.report import index_page

        text = index_page(list(made.values()), failed, command=_command())
        _write(pages[_INDEX], text)
        typer.echo(f"{pages[_INDEX]}: {numbered(len(made), 'slide')}")
    if failed:
        raise InputError(
            f"{numbered(len(failed), 'slide')} of {len(named)} without a report: "
            f"{next(iter(failed.values()))}"
        )


def _pages(named: dict[str, str], out: Path | None) -> dict[str, Path]:
    """Choose the file of each page, and that of the index."""
    if len(named) == 1:
        [name] = named
        pages = {name: out or Path(f"{name}.html")}
        require_suffix(pages[name], [".html"])
    else:
        folder = out or Path("report")
        if folder.suffix or folder.is_file():
            raise InputError(f"{folder}: name a folder for {len(named)} slides (no suffix)")
        if _INDEX in named:
            raise InputError(
                f"{named[_INDEX]}: a slide called index; rename it, or report it alone"
            )
        pages = {name: folder / f"{name}.html" for name in [*named, _INDEX]}
    for page in pages.values():
        require_writable(page)
    return pages


def _report(
    path: str,
    name: str,
    model: "SageFM | None",
    layer: str | None,
    slide_key: str | None,
    options: dict[str, Any],
) -> "SlideReport":
    import sagefm
    from sagefm.report import slide_report

    slide = sagefm.read(path, layer=layer, slide_key=slide_key)
    return slide_report(
        slide, model, name=name, slide_key=slide_key, copy=False, command=_command(), path=path,
        **options,
    )  # fmt: skip


def _command() -> str:
    return shlex.join(["sagefm", *sys.argv[1:]])


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
