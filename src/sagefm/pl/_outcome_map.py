"""Draw where in the tissue a prediction of an outcome comes from."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from sagefm._errors import InputError
from sagefm._keys import OUTCOME
from sagefm.pl._canvas import Canvas, canvases
from sagefm.pl._marks import Look, draw_scale_bar, draw_spots, draw_tissue
from sagefm.pl._outcome_words import (
    GRAY_SET,
    LEVEL,
    Row,
    called,
    how_significant,
    row_of,
    write_note,
)
from sagefm.pl._scales import Numbers, numbers
from sagefm.pl._style import SIGNIFICANT, SMALL, finish, journal, wrapped

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.collections import EllipseCollection

    from sagefm.tl.outcomes import Outcome

_EVERY = "all"
"""What rows of all patients are called."""
_FADED = 0.3
"""Opacity of a spot that is not significant."""
_EACH = 2.5
"""Width of a map in inches."""
_MOST = 12
"""Domains with a bar."""
_UNITS = {"classes": "log odds", "survival": "log hazard"}


def outcome_map(
    slides: "AnnData | Sequence[AnnData] | Mapping[str, AnnData]",
    result: "Outcome",
    *,
    image: bool = False,
    show: bool | None = None,
    save: str | Path | None = None,
) -> list[Axes]:
    """Draw what each spot contributes to the predicted outcome of its patient.

    Parameters
    ----------
    slides
        Slides with the contributions that :func:`sagefm.tl.outcome` has written; or name → slide,
        with the names that it was given.
    result
        Of :func:`sagefm.tl.outcome`.
    image
        Whether to draw the tissue image, where a slide has one; its colors are easily taken for
        those of spots.
    show, save
        As in scanpy; `save` is a file name.

    Returns
    -------
    The Axes: a map of each section, and the contributions of domains where slides have domains. All
    sections of the result have one scale. Spots whose contribution is not larger than with permuted
    patients (p < 0.05) are pale; by chance, 5 % of the spots are not. Bars are means over patients
    with 95 % intervals, in color where q < 0.05. The title says if the features that are drawn do
    not predict the outcome. No picture has the name of a slide or a patient.

    Raises
    ------
    InputError
        A slide has no contributions.
    """
    tables = [_contributions(name, slide, result) for name, slide in _named(slides).items()]
    unnamed = dict(zip(map(str, range(len(tables))), _named(slides).values(), strict=True))
    drawn = [
        (canvas, table.iloc[canvas.rows])
        for (number, slide), table in zip(unnamed.items(), tables, strict=True)
        for canvas in canvases({number: slide}, image=image)
    ]
    scale = _scale(result, [table["contribution"] for _, table in drawn])
    bars = result.domains.query("slide == @_EVERY") if len(result.domains) else result.domains
    with journal():
        panels, beside = _new_axes(drawn, n_bars=min(len(bars), _MOST))
        for i, (panel, (canvas, table)) in enumerate(zip(panels, drawn, strict=True)):
            spots = _draw_map(panel, canvas, table, scale)
            panel.set_title(_heading(table, i if len(drawn) > 1 else None))
        figure: Any = panels[0].figure
        bar = figure.colorbar(spots, ax=panels, shrink=0.7, pad=0.02, aspect=18,
                              extend=scale.beyond, extendfrac=0.04)  # fmt: skip
        bar.set_label(scale.label, fontsize=SMALL)
        bar.outline.set_linewidth(0.4)
        if beside is not None:
            _draw_bars(beside, bars, result)
        whole = figure.figure
        row = row_of(result, mapped_set(result))
        title = f"contribution of spots to {called(result)}\n{row['set']}: {how_significant(row)}"
        whole.suptitle(wrapped(title, int(whole.get_size_inches()[0] / 0.068)), fontsize=8)
        write_note(whole, result.note)
        axes = panels if beside is None else [*panels, beside]
        finish(axes, show, save)
    return axes


def mapped_set(result: "Outcome") -> str:
    """Get the name of the feature set whose contributions are mapped: mean embeddings."""
    names = [str(name) for name in result.scores["set"]]
    return "embedding mean" if "embedding mean" in names else result.best


def _named(
    slides: "AnnData | Sequence[AnnData] | Mapping[str, AnnData]",
) -> "dict[str | int, AnnData]":
    """Give slides without a name a number."""
    if isinstance(slides, Mapping):
        return {str(name): slide for name, slide in slides.items()}
    listed = list(slides) if isinstance(slides, list | tuple) else [slides]
    return dict(enumerate(listed))


def _contributions(name: str | int, slide: "AnnData", result: "Outcome") -> pd.DataFrame:
    """Get contribution and p of the spots of a slide: of the result by its name, or in obs."""
    if isinstance(name, str):
        table = result.spots[result.spots["slide"] == name].set_index("spot")
        if len(table):
            spots = slide.obs_names.astype(str)
            return table.reindex(index=spots, columns=["contribution", "p"])
    columns = [OUTCOME, f"{OUTCOME}_p"]
    if any(column not in slide.obs for column in columns):
        raise InputError(
            f"obs[{OUTCOME!r}]: is missing; run sagefm.tl.outcome, or give slides by the names "
            "that it was given"
        )
    values = slide.obs[columns].to_numpy(dtype=float)
    return pd.DataFrame(values, slide.obs_names, ["contribution", "p"])


def _scale(result: "Outcome", drawn: "Sequence[pd.Series[float]]") -> Numbers:
    """Choose one range of colors for all sections of a result, symmetric around 0."""
    parts = [result.spots["contribution"]] if len(result.spots) else list(drawn)
    sizes = pd.concat(parts).abs().dropna()
    limit = (float(np.percentile(sizes, 99)) if len(sizes) else 0.0) or 1.0
    unit = _UNITS.get(result.kind, "predicted value")
    return numbers(parts, low=-limit, high=limit, cmap="RdBu_r", label=f"contribution to {unit}")


def _new_axes(
    drawn: Sequence[tuple[Canvas, pd.DataFrame]], n_bars: int
) -> tuple[list[Axes], Axes | None]:
    """Make a figure with a panel for each map, and one for the bars beside them."""
    across = 2 if len(drawn) == 4 else min(len(drawn), 3)
    down = -(-len(drawn) // across)
    high = down * (0.35 + _EACH * max(canvas.aspect for canvas, _ in drawn))
    wide = across * _EACH + 0.7
    size = wide + (3.0 if n_bars else 0), max(high, 0.7 + 0.16 * n_bars) + 0.85
    figure: Any = plt.figure(figsize=size, layout="constrained")
    left, right = figure, None
    if n_bars:
        left, right = figure.subfigures(1, 2, width_ratios=(wide, 3.0))
        right = right.subplots()
    panels = left.subplots(down, across, squeeze=False).ravel().tolist()
    for panel in panels[len(drawn) :]:
        panel.remove()
    return panels[: len(drawn)], right


def _draw_map(
    panel: Axes, canvas: Canvas, table: pd.DataFrame, scale: Numbers
) -> "EllipseCollection":
    """Draw a section: what is not significant is pale and lies below the rest."""
    draw_tissue(panel, canvas, Look())
    pale = (table["p"] >= LEVEL).to_numpy()
    spots = []
    for chosen, look in ((pale, Look(alpha=_FADED)), (~pale, Look(alpha=1.0))):
        some = replace(canvas, points=canvas.points[chosen])
        spots.append(draw_spots(panel, some, table["contribution"][chosen], scale, look))
    draw_scale_bar(panel, canvas)
    return spots[-1]


def _heading(table: pd.DataFrame, number: int | None) -> str:
    """Say how many spots are significant."""
    tested = table["p"].notna().sum()
    section = "" if number is None else f"section {number + 1}: "
    if not tested:
        return f"{section}not tested"
    fraction = (table["p"] < LEVEL).sum() / tested
    return (
        f"{section}{100 * fraction:.0f} % of spots with\np < {LEVEL} (by chance 5 %), others pale"
    )


def _draw_bars(ax: Axes, bars: pd.DataFrame, result: "Outcome") -> None:
    """Draw the contributions of domains over all patients, with interval and q."""
    shown = bars.sort_values("p", kind="stable").head(_MOST)
    rows: list[Row] = shown.sort_values("contribution", kind="stable").to_dict("records")
    for i, row in enumerate(rows):
        color = SIGNIFICANT if row["q"] < LEVEL else GRAY_SET
        ax.barh(i, row["contribution"], 0.66, color=color, lw=0, alpha=0.75)
        ax.plot([row["low"], row["high"]], [i, i], color="black", lw=0.8)
        ax.annotate(f"p {row['p']:.2g}, q {row['q']:.2g}", (1, i), (3, 0), va="center",
                    xycoords=ax.get_yaxis_transform(), textcoords="offset points", fontsize=SMALL,
                    color="black" if row["q"] < LEVEL else "#777777")  # fmt: skip
    ax.axvline(0, color="#888888", lw=0.6)
    ax.set_yticks(range(len(rows)), [wrapped(str(row["domain"]), 18, 1) for row in rows])
    figure: Any = ax.figure
    spare = max(0.0, 2.4 * figure.figure.get_size_inches()[1] - len(rows)) / 2
    ax.set_ylim(-0.7 - spare, len(rows) - 0.3 + spare)
    ax.use_sticky_edges = False
    ax.locator_params(axis="x", nbins=4)
    ax.tick_params(axis="y", length=0)
    ax.spines[["top", "right", "left"]].set_visible(False)
    n_found = int((bars["q"] < LEVEL).sum())
    of_all = f" ({len(rows)} of {len(bars)}, by p)" if len(bars) > len(rows) else ""
    found = f"{n_found} with q < {LEVEL}" if n_found else "none significant"
    ax.set_title(wrapped(f"domains{of_all}, all patients: {found}", 40))
    higher = "the earlier event" if result.kind == "survival" else "the higher outcome"
    ax.set_xlabel(f"added to the score of the patient\nwith {higher}, against others")
