"""The frame of all pages, and pictures inside them."""

import base64
import io
import re
from functools import cache
from typing import IO, TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from sagefm import __version__

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARKS = {"good": "●", "care": "▲", "bad": "✕", "unknown": "?"}
"""Every grade has a mark, so that it can be read without colors."""
_DPI = 200
_LARGER = 1.3
"""Size of a figure on a page, which is read on a screen, relative to a journal."""
_CSS_PER_INCH = 96
_SECTION = re.compile(r'<section id="([^"]+)"[^>]*>\s*<h2>(.*?)</h2>', re.DOTALL)


@cache
def template(name: str) -> Template:
    """Load a template; what it is given is escaped."""
    environment = Environment(
        loader=PackageLoader("sagefm.report"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    environment.globals |= {"marks": MARKS, "version": __version__}
    environment.filters |= {"sections": _sections, "anchor": anchor}
    return environment.get_template(name)


def anchor(title: str) -> str:
    """Get the id of a section from its title."""
    return re.sub(r"[^a-z0-9]+", "-", title.casefold()).strip("-") or "section"


def _sections(content: str) -> list[tuple[str, Markup]]:
    """List the id and the title of each section of a page, for its table of contents."""
    return [(name, Markup(title)) for name, title in _SECTION.findall(str(content))]


def picture(
    png: bytes, caption: str, *, alt: str = "", pixels_per_inch: float | None = None
) -> dict[str, object]:
    """Encode a PNG for a page that includes it.

    Parameters
    ----------
    png
        The file.
    caption
        What the page writes below it.
    alt
        What it says in place of the picture; the caption if not given.
    pixels_per_inch
        Resolution on the page; as wide as its column if not given.
    """
    from PIL import Image  # matplotlib needs it

    size: tuple[int, ...] = ()
    if pixels_per_inch is not None:
        with Image.open(io.BytesIO(png)) as drawn:
            size = tuple(round(n * _CSS_PER_INCH / pixels_per_inch) for n in drawn.size)
    return _encoded(png, "png", caption, alt, size)


def figure_png(
    figure: "Figure", caption: str, *, alt: str = "", colors: int | None = None
) -> dict[str, object]:
    """Encode a figure as PNG for a page, and close it.

    Parameters
    ----------
    figure
        A figure of matplotlib, for a journal: a page draws it larger by a third.
    caption, alt
        As for :func:`picture`.
    colors
        Colors of a palette, which makes the page smaller; all colors if not given.
    """
    buffer = io.BytesIO()
    _save(figure, buffer, "png")
    png = buffer.getvalue() if colors is None else with_palette(buffer, colors)
    return picture(png, caption, alt=alt, pixels_per_inch=_DPI / _LARGER)


def figure_svg(figure: "Figure", caption: str, *, alt: str = "") -> dict[str, object]:
    """Encode a figure of lines and text as SVG for a page, and close it.

    Parameters
    ----------
    figure, caption, alt
        As for :func:`figure_png`.
    """
    import matplotlib as mpl

    buffer = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "sagefm"}):  # the same ids in each run
        _save(figure, buffer, "svg", metadata={"Date": None})
    points = re.findall(r'(?:width|height)="([0-9.]+)pt"', buffer.getvalue()[:2000].decode())
    size = tuple(round(float(value) / 72 * _CSS_PER_INCH * _LARGER) for value in points[:2])
    return _encoded(buffer.getvalue(), "svg+xml", caption, alt, size)


def with_palette(png: IO[bytes], colors: int) -> bytes:
    """Encode a picture in few colors, which makes it several times smaller."""
    from PIL import Image

    buffer = io.BytesIO()
    with Image.open(png) as drawn:
        drawn.convert("RGB").quantize(colors).save(buffer, format="png", optimize=True)
    return buffer.getvalue()


def _save(figure: "Figure", file: IO[bytes], form: str, **options: Any) -> None:
    import matplotlib.pyplot as plt

    figure.savefig(file, format=form, dpi=_DPI, bbox_inches="tight", **options)
    plt.close(figure)


def _encoded(
    content: bytes, kind: str, caption: str, alt: str, size: tuple[int, ...]
) -> dict[str, object]:
    width, height = size or ("", "")
    source = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    return {"source": source, "caption": caption, "alt": alt or caption, "width": width,
            "height": height}  # fmt: skip
