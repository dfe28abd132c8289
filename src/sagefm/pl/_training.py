"""Plot the loss curve of a training run."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from sagefm._colors import colors
from sagefm.pl._style import COLUMN, finish, journal


def training(
    history: pd.DataFrame,
    *,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> Axes:
    """Plot the losses of a training run, with those of predictors without a network.

    Parameters
    ----------
    history
        The history in the result of :func:`sagefm.pretrain.fit`.
    ax
        Axes to draw on.
    show, save
        As in scanpy; `save` is a file name.

    Returns
    -------
    The Axes.
    """
    shades = colors(4)
    with journal():
        own = ax is None
        if ax is None:
            _, ax = plt.subplots(figsize=(COLUMN, 2.6), layout="constrained")
        few = "o" if len(history) == 1 else None
        ax.plot(history["epoch"], history["train_loss"], color=shades[0], ls=":", marker=few,
                label="training")  # fmt: skip
        if history["validation_loss"].notna().any():
            _held_out(ax, history, shades, few)
        ax.set(xlabel="epoch", ylabel="error of masked genes\n(mean squared, log1p counts)")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.spines[["top", "right"]].set_visible(False)
        if own:  # below, where it lies on no line
            ax.figure.legend(loc="outside lower center", ncols=2, frameon=False)
        else:
            ax.legend(framealpha=1, edgecolor="none")
        finish([ax], show, save)
    return ax


def _held_out(ax: Axes, history: pd.DataFrame, shades: Sequence[str], few: str | None) -> None:
    """Plot the loss on held-out patients, and that of two means."""
    ax.plot(history["epoch"], history["validation_loss"], color=shades[0], marker=few,
            label="validation")  # fmt: skip
    for name, shade, dash in (("gene_mean", shades[3], "-."), ("neighbor_mean", shades[1], "--")):
        ax.axhline(history[name].iloc[0], color=shade, ls=dash, lw=0.9,
                   label=f"{name.replace('_', ' ')} (validation)")  # fmt: skip
    best = history.iloc[int(history["validation_loss"].argmin())]
    ax.plot(best["epoch"], best["validation_loss"], "o", color=shades[0], ms=3.5)
