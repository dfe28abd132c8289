"""Plot what all pairs of ligand and target say together, by evidence and direction."""

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from sagefm._errors import InputError
from sagefm._text import few, numbered, probability
from sagefm.pl._style import COLUMN, NOT_SIGNIFICANT, SIGNIFICANT, finish, journal, wrapped

_NUMBERS = ["n_pairs", "n_ligands", "auroc", "low", "high", "z", "p", "p_ligands"]
_DIRECTIONS = {
    "forward": "forward: ligand in the neighbors",
    "reversed": "reversed: target in the neighbors",
}
_BESIDE = {
    "auroc": ("AUROC", 4), "p": ("p: matched\ngenes", 34), "p_ligands": ("p: other\nligands", 72)
}  # fmt: skip
"""Columns of numbers beside the plot: head, and distance from the plot in points."""


def perturbation_sets(
    table: pd.DataFrame,
    *,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> Axes:
    """Compare how far the pairs as a set stand above their null, for each kind of evidence.

    Parameters
    ----------
    table
        Of :func:`sagefm.tl.perturb`, or its ``attrs["sets"]``: a row per evidence and direction.
    ax
        Axes to draw on.
    show, save
        As in scanpy; `save` is a file name.

    Returns
    -------
    The Axes. A row per evidence, in the order of the table: the area under the ROC curve of the
    pairs against those with matched genes, with its 95 % interval. Filled: the ligand in the
    neighbors, the target in the center; hollow: reversed. A tick: what pairs with shuffled targets
    have. Dots are in color, and the number
    is bold, where p < 0.05. The title says whether the model is above its null.

    Raises
    ------
    InputError
        The table holds no sets, lacks a column, or has two rows of one evidence and direction.
    """
    sets = _checked(table)
    evidence = list(dict.fromkeys(sets["evidence"]))
    judged = _rows(sets, "model" if "model" in evidence else evidence[0])[0]
    labels = [_label(_rows(sets, name)[0], judged) for name in evidence]
    with journal():
        if ax is None:
            height = max(0.32, 0.06 + 0.1 * max(label.count("\n") + 1 for label in labels))
            size = (COLUMN + 0.6, 1.4 + height * max(len(evidence), 2))
            _, ax = plt.subplots(figsize=size, layout="constrained")
        for i, name in enumerate(evidence):
            rows = _rows(sets, name)
            for row, at in zip(rows, (i - 0.18, i + 0.18) if len(rows) > 1 else (i,), strict=True):
                _draw_row(ax, at, row)
        ax.axvline(0.5, color="#888888", lw=0.6, zorder=0)
        ax.set_yticks(range(len(evidence)), labels)
        ax.set_ylim(len(evidence) - 0.4, -0.6)
        ax.use_sticky_edges = False
        ax.locator_params(axis="x", nbins=5)
        ax.tick_params(axis="y", length=0)
        ax.spines[["top", "right", "left"]].set_visible(False)
        ax.set_xlabel(
            "area under the ROC curve, pairs against matched\n"
            "genes, and 95 % interval (0.5: no difference)",
            loc="right",
            ma="left",
        )
        for head, away in _BESIDE.values():
            ax.annotate(head, (1, 1), (away, 2), xycoords="axes fraction", fontsize=6,
                        textcoords="offset points", va="bottom")  # fmt: skip
        n_lines = _add_legend(ax, sets)
        # Titles end at the right border: to the left, over the labels, there is room.
        ax.set_title(wrapped(_title(judged), 42), x=1, ha="right", pad=6 + 11 * n_lines)
        finish([ax], show, save)
    return ax


def _checked(table: pd.DataFrame) -> pd.DataFrame:
    """Get the sets of a table of pairs, or the table itself."""
    sets = table.attrs.get("sets") if isinstance(table, pd.DataFrame) else None
    sets = table if sets is None else sets
    needed = ["evidence", "direction", *_NUMBERS]
    if missing := [name for name in needed if name not in sets]:
        raise InputError(
            f"{missing[0]!r}: no such column; give a table of sagefm.tl.perturb with its "
            "attrs['sets'], which a CSV does not keep, or the sets alone"
        )
    if sets.empty:
        raise InputError("the table of sets is empty; there is nothing to draw")
    sets = sets.reindex(columns=[*needed, "auroc_shuffled"]).reset_index(drop=True)
    if unknown := set(sets["direction"]) - set(_DIRECTIONS):
        raise InputError(f"direction {few(unknown)}: choose of {', '.join(_DIRECTIONS)}")
    if (twice := sets[sets.duplicated(["evidence", "direction"])]).size:
        found = " ".join(twice.iloc[0][["evidence", "direction"]].astype(str))
        raise InputError(f"{found}: has several rows; draw the sets of one table at a time")
    for name in _NUMBERS:
        try:
            sets[name] = pd.to_numeric(sets[name]).astype(float)
        except (TypeError, ValueError) as error:
            raise InputError(f"{name!r}: holds what is no number ({error})") from error
    sets["evidence"] = sets["evidence"].astype(str)
    return sets


def _rows(sets: pd.DataFrame, evidence: str) -> list[dict[Hashable, Any]]:
    """Return the rows of one kind of evidence, forward before reversed."""
    records: list[dict[Hashable, Any]] = sets[sets["evidence"] == evidence].to_dict("records")
    return sorted(records, key=lambda row: row["direction"] == "reversed")


def _draw_row(ax: Axes, at: float, row: dict[Hashable, Any]) -> None:
    color = SIGNIFICANT if row["p"] < 0.05 else NOT_SIGNIFICANT
    fill = "white" if row["direction"] == "reversed" else color
    ax.plot([row["low"], row["high"]], [at, at], "-", color=color, lw=1, solid_capstyle="butt")
    ax.plot(row["auroc_shuffled"], at, "|", color="#888888", ms=8, mew=0.9)
    ax.plot(row["auroc"], at, "o", color=color, mfc=fill, mew=0.9, ms=4)
    for name, (_, away) in _BESIDE.items():
        text = f"{row[name]:.3f}" if name == "auroc" else probability("", row[name]).strip("= ")
        ax.annotate(text if np.isfinite(row[name]) else "n/a", (1, at), (away, 0), va="center",
                    xycoords=ax.get_yaxis_transform(), textcoords="offset points", fontsize=6,
                    weight="bold" if name != "auroc" and row[name] < 0.05 else None)  # fmt: skip


def _label(row: dict[Hashable, Any], judged: dict[Hashable, Any]) -> str:
    """Name a kind of evidence, with the number of pairs where it is not that of the title."""
    n = row["n_pairs"]
    other = np.isfinite(n) and n != judged["n_pairs"]
    return wrapped(row["evidence"] + (f"\n({numbered(int(n), 'pair')})" if other else ""), 26)


def _title(row: dict[Hashable, Any]) -> str:
    """Say what the set is, and whether it stands above its null."""
    counts = [numbered(int(row[f"n_{noun}s"]), noun) if np.isfinite(row[f"n_{noun}s"]) else ""
              for noun in ("pair", "ligand")]  # fmt: skip
    whole = f"set of {counts[0] or 'pairs'}" + (f" ({counts[1]})" if counts[1] else "")
    p = probability("p", row["p"])
    if np.isnan(row["p"]):
        verdict = "not tested against a null"
    elif row["p"] >= 0.05:
        verdict = f"not above its null ({p})"
    elif row["p_ligands"] >= 0.05:
        verdict = f"above matched genes ({p}),\nnot above other ligands"
    else:
        verdict = f"above its null ({p})"
    return f"{whole}\n{row['evidence']}: {verdict}"


def _add_legend(ax: Axes, sets: pd.DataFrame) -> int:
    """Explain directions and colors above the plot, in as many lines as are returned."""
    entries = [
        Line2D([], [], marker="o", ls="", ms=4, mew=0.9, color=NOT_SIGNIFICANT, label=label,
               mfc="white" if name == "reversed" else NOT_SIGNIFICANT)
        for name, label in _DIRECTIONS.items() if (sets["direction"] == name).any()
    ]  # fmt: skip
    if (sets["p"] < 0.05).any():
        entries.append(Line2D([], [], marker="s", ls="", ms=4, color=SIGNIFICANT, label="p < 0.05"))
    if (sets["p"] >= 0.05).any():
        label = "p ≥ 0.05"
        entries.append(Line2D([], [], marker="s", ls="", ms=4, color=NOT_SIGNIFICANT, label=label))
    if sets["auroc_shuffled"].notna().any():
        label = "shuffled pairs"
        entries.append(Line2D([], [], marker="|", ls="", ms=8, color="#888888", label=label))
    ax.legend(handles=entries, ncols=2, frameon=False, loc="lower right", bbox_to_anchor=(1.0, 1.0),
              borderaxespad=0.2)  # fmt: skip
    return -(-len(entries) // 2)
