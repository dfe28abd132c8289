"""What the pictures of an outcome say of it: which sets count, what is significant, the note."""

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from sagefm._errors import InputError
from sagefm._text import numbered, or_below, probability
from sagefm.pl._style import SMALL, wrapped

if TYPE_CHECKING:
    from sagefm.tl.outcomes import Outcome

LEVEL = 0.05
BASELINES = ("clinical", "pseudobulk")
"""What the feature sets of slides must be better than: names begin with one of these."""
GRAY_SET, BASELINE_SET = "#8C8C8C", "#000000"
"""Colors of a set that is not above chance, and of a baseline that is."""

Row = dict[Hashable, Any]


def is_baseline(name: str) -> bool:
    """Whether a set is what the others must be better than."""
    return name.startswith(BASELINES) and not is_combined(name)


def is_combined(name: str) -> bool:
    """Whether a set adds features of slides to the clinical ones."""
    return "clinical" in name and "+" in name


def called(result: "Outcome") -> str:
    """Name the outcome in a title."""
    return f"survival ({result.target})" if result.kind == "survival" else result.target


def row_of(result: "Outcome", name: str | None) -> Row:
    """Get the scores of a set; the best one of the slides if no name is given.

    Raises
    ------
    InputError
        There is no such set.
    """
    name = result.best if name is None else name
    rows: list[Row] = result.scores[result.scores["set"] == name].to_dict("records")
    if not rows:
        listed = ", ".join(map(str, result.scores["set"]))
        raise InputError(f"{name!r}: no such feature set; there are {listed}")
    return rows[0]


def is_significant(row: Row) -> bool:
    """Whether a set orders patients better than chance, after the correction over all sets."""
    return bool(row["p_adjusted"] < LEVEL)


def how_significant(row: Row) -> str:
    """Write the p of a set after the correction, and in words if it is not significant."""
    adjusted = f"adjusted {probability('p', row['p_adjusted'])}"
    return adjusted if is_significant(row) else f"not significant ({adjusted})"


def target_columns(result: "Outcome") -> list[str]:
    """List the columns of the patients that hold the outcome: time and event, or one."""
    columns = list(map(str, result.patients.columns))
    return columns[: columns.index("n_slides")]


def known_patients(result: "Outcome", name: str) -> pd.DataFrame:
    """Get the patients whose outcome is known, and that a set predicts."""
    needed = [*target_columns(result), *risk_columns(result, name)]
    return result.patients.dropna(subset=needed)


def risk_columns(result: "Outcome", name: str) -> list[str]:
    """List the columns with the out-of-fold prediction of a set: one, or one for each class."""
    columns = [str(c) for c in result.patients]
    exact = f"risk_{name}"
    found = [exact] if exact in columns else [c for c in columns if c.startswith(f"{exact}_")]
    if not found:
        raise InputError(f"patients have no column {exact!r}; give a result of sagefm.tl.outcome")
    return found


def measure(result: "Outcome") -> str:
    """Name the score: the probability that two patients are in the right order."""
    if result.kind != "classes":
        return "concordance"
    return "AUROC" if n_classes(result) == 2 else "AUROC, mean of each class against the rest"


def n_classes(result: "Outcome") -> int:
    """Count the classes of the outcome."""
    return int(result.patients[target_columns(result)[0]].dropna().astype(str).nunique())


def size(result: "Outcome", row: Row, suppress_below: int) -> str:
    """Say how many patients there are, and of which outcome."""
    text = numbered(int(row["n_patients"]), "patient")
    if result.kind == "survival":
        return f"{text}, {numbered(int(row['n_events']), 'event')}"
    if result.kind == "number":
        return text
    known = result.patients[target_columns(result)[0]].dropna()
    sizes = known.astype(str).value_counts().sort_index()
    listed = [f"{or_below(n, suppress_below)} {name}" for name, n in sizes.items() if n]
    return f"{text}: {', '.join(listed)}" if len(listed) <= 6 else text


def interval(row: Row) -> str:
    """Write the score of a set with its interval."""
    ends = [row["low"], row["high"]]
    around = f" ({ends[0]:.2f} to {ends[1]:.2f})" if np.isfinite(ends).all() else ""
    return f"{row['concordance']:.2f}{around}"


def verdict(result: "Outcome") -> str:
    """Say in a sentence or two whether slides predict the outcome, and more than baselines do."""
    rows: list[Row] = result.scores.to_dict("records")
    of_slides = [r for r in rows if not is_baseline(r["set"]) and not is_combined(r["set"])]
    of_slides = of_slides or rows
    best = min(of_slides, key=lambda r: (_worst(r["p_adjusted"]), -r["concordance"]))
    if not is_significant(best):
        tried = probability("p", best["p_adjusted"])
        return f"no feature set of the slides predicts {called(result)} (best adjusted {tried})"
    score = "AUROC" if result.kind == "classes" else "concordance"
    lines = [
        f"{called(result)} is predicted by {best['set']}{_but_not_better(best, rows)}",
        f"{score} {interval(best)}, adjusted {probability('p', best['p_adjusted'])}",
        _against_clinical(best),
    ]
    return "\n".join(filter(None, lines))


def _but_not_better(best: Row, rows: list[Row]) -> str:
    """Say so if a baseline is as good as a set."""
    simple = [r for r in rows if is_baseline(r["set"]) and r["concordance"] >= best["concordance"]]
    if not simple:
        return ""
    first = max(simple, key=lambda r: r["concordance"])
    return f", but no better than by {first['set']} ({first['concordance']:.2f})"


def _against_clinical(best: Row) -> str:
    """Say whether a set adds to the clinical columns, if there are some."""
    p = float(best.get("beyond_p", np.nan))
    if np.isnan(p):
        return ""
    more = "more than clinical columns alone" if p < LEVEL else "no more than clinical columns"
    return f"{more} ({probability('p', p)})"


def _worst(p: float) -> float:
    return float(p) if np.isfinite(p) else 1.0


def tidy(ax: Axes) -> None:
    """Remove the lines that say nothing."""
    ax.spines[["top", "right"]].set_visible(False)


def say_nothing(ax: Axes, why: str) -> None:
    """Write into an empty panel why there is nothing."""
    ax.set_axis_off()
    ax.text(0.5, 0.5, why, ha="center", va="center", transform=ax.transAxes, color="0.4")


def write_note(figure: Any, text: str, *warnings: str) -> None:
    """Write warnings and the note below all panels of a figure, in small print."""
    width = int(figure.get_size_inches()[0] / 0.043)
    lines = [wrapped(f"! {warning}", width) for warning in warnings]
    written = "\n".join([*lines, wrapped(text, width)])
    figure.supxlabel(written, fontsize=SMALL - 0.5, color="#555555", x=0.01, ha="left", ma="left")
