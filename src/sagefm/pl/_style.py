"""Sizes, names and saving that all plots share."""

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from sagefm._errors import InputError
from sagefm._files import replacing

COLUMN = 3.35
"""Width of a journal column, 85 mm, in inches."""

SIGNIFICANT, NOT_SIGNIFICANT = "#D55E00", "#444444"
"""Colors of what a test tells from chance, and of what it does not."""
GRAY = "#DDDDDD"
"""Color of a spot without a value."""
SMALL = 6
"""Points of the smallest text."""


@contextmanager
def journal() -> Iterator[None]:
    """Set the sizes of text and lines for a journal column, as all plots of the package do.

    Use it to draw several plots into one figure of yours.

    Examples
    --------
    >>> with sagefm.pl.journal():
    ...     _, (left, right) = plt.subplots(1, 2, layout="constrained")
    ...     sagefm.pl.spatial(slide, "COL1A1", ax=left, show=False)
    ...     sagefm.pl.spatial(slide, "CD74", ax=right, save="genes.pdf")
    """
    with mpl.rc_context(
        {
            "font.size": 7,
            "axes.titlesize": 7.5,
            "axes.labelsize": 7,
            "xtick.labelsize": SMALL,
            "ytick.labelsize": SMALL,
            "legend.fontsize": 6.5,
            "legend.title_fontsize": 6.5,
            "axes.linewidth": 0.6,
            "lines.linewidth": 1.2,
            "pdf.fonttype": 42,
            "figure.dpi": 200,  # a column is small on a screen
            "savefig.dpi": 300,
        }
    ):
        try:
            yield
        finally:
            interactive = mpl.is_interactive()
    mpl.interactive(interactive)  # the first figure of a notebook turns it on


def wrapped(text: str, width: int, at_most: int | None = None) -> str:
    """Break a name into lines, and escape what matplotlib would typeset as a formula.

    What needs more lines than `at_most` is cut, and ends with an ellipsis.
    """
    lines = [
        part
        for line in text.splitlines()
        for part in textwrap.wrap(line, width, break_on_hyphens=False)
    ]
    if at_most is not None and len(lines) > at_most:
        lines = [*lines[: at_most - 1], lines[at_most - 1][: width - 1] + "…"]
    return "\n".join(lines).replace("$", r"\$")


def finish(axes: Sequence[Axes], show: bool | None, save: str | Path | None) -> None:
    """Save and show a figure, as scanpy does.

    If `show` is not given, the figure is shown in interactive mode unless it is saved. A figure
    that is only saved is closed, to free its memory.
    """
    figure: Any = axes[0].figure
    figure = figure.figure  # that of a subfigure is the whole
    if save is not None:
        with replacing(save) as beside:
            try:
                figure.savefig(beside, bbox_inches="tight")
            except (ValueError, RuntimeError) as error:  # of a format or a size
                reason = " ".join(str(error).split())
                raise InputError(f"{save}: cannot be saved ({reason}); choose another") from error
    if show or (show is None and save is None and plt.isinteractive()):
        plt.show()
    elif save is not None:
        plt.close(figure)
