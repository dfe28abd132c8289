"""What all pictures share: sizes for a journal column, colors for every eye, how to finish."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from sagefm._files import replacing

COLUMN = 3.4
"""Width of a journal column, inches."""

# Okabe and Ito (2008), in the order that keeps neighbors in the list apart, then tints of Paul
# Tol's schemes for more than eight classes.
_OKABE_ITO = [
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#D55E00",
    "#F0E442",
    "#000000",
]
_MORE = ["#882255", "#999933", "#44AA99", "#332288", "#661100", "#6699CC", "#AA4499", "#DDCC77"]


def colors(n: int) -> list[str]:
    """Colors for n classes, told apart also without red-green vision up to eight of them."""
    listed = _OKABE_ITO + _MORE
    if n <= len(listed):
        return listed[:n]
    from scanpy.plotting.palettes import default_102

    return [default_102[i % len(default_102)] for i in range(n)]


@contextmanager
def journal() -> Iterator[None]:
    """Set type and lines for a journal column."""
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
        yield


def finish(axes: Sequence[Axes], show: bool | None, save: str | Path | None) -> None:
    """Save and show a figure, as scanpy does.

    `save` is written beside and renamed. `show` None means: show, unless the axes were saved. A
    figure that was only saved is closed: it takes no more of pyplot's memory.
    """
    figure: Any = axes[0].figure
    if save is not None:
        with replacing(save) as beside:
            figure.savefig(beside, bbox_inches="tight")
    if show or (show is None and save is None and plt.isinteractive()):
        plt.show()
    elif save is not None:
        plt.close(figure)
