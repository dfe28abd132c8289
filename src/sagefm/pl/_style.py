"""Sizes and saving that all plots share."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from sagefm._errors import InputError
from sagefm._files import replacing

COLUMN = 3.4
"""Width of a journal column, inches."""

SIGNIFICANT, NOT_SIGNIFICANT = "#D55E00", "#444444"
"""Colors of what a test tells from chance, and of what it does not."""


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
            "axes.titlesize": 8,
            "axes.labelsize": 7,
            "xtick.labelsize": 6,
            "ytick.labelsize": 6,
            "legend.fontsize": 6.5,
            "axes.linewidth": 0.6,
            "lines.linewidth": 1.2,
            "pdf.fonttype": 42,
            "savefig.dpi": 300,
        }
    ):
        try:
            yield
        finally:
            interactive = mpl.is_interactive()
    mpl.interactive(interactive)  # the first figure of a notebook turns it on


def finish(axes: Sequence[Axes], show: bool | None, save: str | Path | None) -> None:
    """Save and show a figure, as scanpy does.

    If `show` is not given, the figure is shown in interactive mode unless it is saved. A figure
    that is only saved is closed, to free its memory.
    """
    figure: Any = axes[0].figure
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
