"""Plot the stability of numbers of domains."""

from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from sagefm._colors import colors
from sagefm._errors import InputError
from sagefm._keys import PROVENANCE
from sagefm.pl._style import COLUMN, finish, journal

if TYPE_CHECKING:
    from anndata import AnnData

_DASHES = "-", "--", ":"


def stability(
    slide: "AnnData",
    *,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> Axes:
    """Plot how well clusterings agree for each number of domains.

    Parameters
    ----------
    slide
        After :func:`sagefm.tl.domains` has chosen the number.
    ax
        Axes to draw on.
    show, save
        As in scanpy; `save` is a file name.

    Returns
    -------
    The Axes.

    Raises
    ------
    InputError
        The number of domains of the slide was given, and not chosen.
    """
    settings = slide.uns.get(PROVENANCE, {}).get("domains", {})
    table = settings.get("stability")
    if table is None or len(table) < 2:
        raise InputError(
            "the number of domains was not chosen; run sagefm.tl.domains without n_domains first"
        )
    chosen = int(settings["n_domains"])
    numbers = np.asarray(table["n_domains"])
    shades = colors(4)
    with journal():
        own = ax is None
        if ax is None:
            _, ax = plt.subplots(figsize=(COLUMN, 2.6), layout="constrained")
        lines = {"views": "views", "counts": "half of the counts, each view",
                 "consensus": "half of the counts, consensus"}  # fmt: skip
        for (name, label), shade, dash in zip(lines.items(), shades[1:], _DASHES, strict=True):
            ax.plot(numbers, table[name], color=shade, lw=0.9, ls=dash, label=label)
        ax.plot(numbers, table["score"], color=shades[0], lw=1.6, marker="o", ms=3,
                label="mean, less the prior")  # fmt: skip
        ax.axvline(chosen, color="0.6", ls=":", zorder=0)
        ax.set(xlabel="number of domains", ylabel="agreement\n(adjusted Rand index)",
               title=f"{chosen} domains are chosen")  # fmt: skip
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.spines[["top", "right"]].set_visible(False)
        if own:
            ax.figure.legend(loc="outside lower center", ncols=2, frameon=False)
        else:
            ax.legend(frameon=False)
        finish([ax], show, save)
    return ax
