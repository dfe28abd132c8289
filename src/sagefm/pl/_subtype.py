"""Plot predicted subtypes: probabilities of patients, and the evidence of spots."""

from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from sagefm._colors import colors
from sagefm._errors import InputError
from sagefm._keys import SUBTYPE_EVIDENCE
from sagefm.pl._canvas import canvases
from sagefm.pl._maps import arrange, column_of, draw_maps
from sagefm.pl._scales import numbers
from sagefm.pl._style import COLUMN, finish, journal, wrapped

if TYPE_CHECKING:
    from anndata import AnnData

    from sagefm.tl.subtyping import Subtypes

_PROBABILITY = "probability_"
_UNKNOWN = "no subtype"


def subtype(
    subtypes: "Subtypes",
    *,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> Axes:
    """Plot the probability of each class for each patient, grouped by the true class.

    Parameters
    ----------
    subtypes
        Result of :func:`sagefm.tl.subtype`.
    ax
        Axes to draw on.
    show, save
        As in scanpy; `save` is a file name.

    Returns
    -------
    The Axes. A stacked bar per patient, sorted within each true class by its probability. Patients
    with a subtype were held out; those without come last. An asterisk marks a wrong prediction.
    """
    table = _sort(subtypes.patients)
    columns = [str(name) for name in table if str(name).startswith(_PROBABILITY)]
    classes = [name.removeprefix(_PROBABILITY) for name in columns]
    gaps = (table["group"] != table["group"].shift()).cumsum().to_numpy() - 1
    rows = np.arange(len(table)) + 0.8 * gaps
    with journal():
        if ax is None:
            height = 0.9 + 0.15 * (rows[-1] + 1)
            _, ax = plt.subplots(figsize=(COLUMN, height), layout="constrained")
        left = np.zeros(len(table))
        for name, color in zip(classes, colors(len(classes)), strict=True):
            width = table[_PROBABILITY + name].to_numpy()
            ax.barh(rows, width, 0.8, left, color=color, label=wrapped(name, 16, 2))
            left += width
        wrong = table["truth"].notna() & (table["truth"] != table["predicted"])
        names = [wrapped(str(name), 20, 1) for name in table.index]
        ax.set_yticks(rows, [f"{n} *" if w else n for n, w in zip(names, wrong, strict=True)])
        for group in table["group"].unique():
            middle = rows[(table["group"] == group).to_numpy()].mean()
            ax.annotate(
                wrapped(str(group), 16, 2), (1.0, middle), xytext=(6, 0),
                xycoords=ax.get_yaxis_transform(), textcoords="offset points", va="center",
            )  # fmt: skip
        ax.set(xlim=(0, 1), ylim=(rows[-1] + 0.6, -0.6), xlabel="predicted probability")
        ax.legend(
            ncols=3, frameon=False, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2
        )
        ax.spines[["top", "right", "left"]].set_visible(False)
        ax.tick_params(axis="y", length=0)
        finish([ax], show, save)
    return ax


def _sort(patients: pd.DataFrame) -> pd.DataFrame:
    """Sort patients by true class, then by its probability; those without a class last."""
    probability = [
        row[_PROBABILITY + (row["predicted"] if pd.isna(row["truth"]) else row["truth"])]
        for _, row in patients.iterrows()
    ]
    group = patients["truth"].fillna(_UNKNOWN)
    table = patients.assign(group=group, last=patients["truth"].isna(), probability=probability)
    return table.sort_values(
        ["last", "group", "probability"], ascending=[True, True, False], kind="stable"
    )


def subtype_evidence(
    slide: "AnnData",
    *,
    key: str = SUBTYPE_EVIDENCE,
    title: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> Axes:
    """Plot how much each spot supports the predicted class of its patient.

    Parameters
    ----------
    slide
        A slide with the evidence that :func:`sagefm.tl.subtype` has written.
    key
        Column of ``obs`` with the evidence.
    title
        Of the panel; the key if not given.
    ax
        Axes to draw on.
    show, save
        As in scanpy; `save` is a file name.

    Returns
    -------
    The Axes. Red spots support the class, blue spots contradict it. The color scale is symmetric
    around 0 and ends at the 99th percentile of absolute values, so that outliers do not dominate.

    Raises
    ------
    InputError
        There is no such column, or the object holds several sections.
    """
    if key not in slide.obs:
        raise InputError(f"obs[{key!r}]: is missing; run sagefm.tl.subtype first")
    drawn = canvases(slide, image=False)
    if ax is not None and len(drawn) > 1:
        raise InputError(f"ax holds one panel, not {len(drawn)}; draw one section at a time")
    values = slide.obs[key].astype(float)
    sizes = values.abs().dropna()
    limit = (float(np.percentile(sizes, 99)) if len(sizes) else 0.0) or 1.0
    parts = [values.iloc[canvas.rows] for canvas in drawn]
    scale = numbers(
        parts, low=-limit, high=limit, cmap="RdBu_r", label="contribution to the log-odds"
    )
    with journal():
        panels = draw_maps(arrange([column_of(drawn, parts, scale, title or key)]), ax=ax)
        finish(panels, show, save)
    return panels[0]
