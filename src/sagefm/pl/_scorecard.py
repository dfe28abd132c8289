"""Plot a scorecard: scores of methods, maps of domains, confusion of classes."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from sagefm._colors import colors
from sagefm._errors import InputError
from sagefm._text import few
from sagefm.pl._domain_maps import SPOT_COLUMNS, domain_maps
from sagefm.pl._evaluation import calibration, gene_scatter, method_intervals, only
from sagefm.pl._style import COLUMN, finish, journal, wrapped

if TYPE_CHECKING:
    from sagefm.evaluate.result import Result

_N_MAPS = 4
_WITH_NUMBERS = 10
"""Classes of a confusion matrix whose cells have room for a number."""
_N_SCATTERED = 2
"""Models with a scatter plot of genes."""
_TOGETHER = "Slides together: "
_ANNOTATION = re.compile(r"(.+, (\w+) probe), (.+)$")

Drawing = tuple[str, Callable[..., Any]]
"""A file name without suffix, and the function that draws and saves the file."""


def confusion(
    table: pd.DataFrame,
    *,
    group: str | None = None,
    method: str | None = None,
    probe: str | None = None,
    title: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> Axes:
    """Plot the confusion matrix of an annotation.

    Parameters
    ----------
    table
        Table ``annotation_confusion`` of a result: group, method, probe, truth, predicted, n.
    group, method, probe
        Which of them, if the table holds several.
    title
        Title; the method if not given.
    ax
        Axes to draw on.
    show, save
        As in scanpy; `save` is a file name.

    Returns
    -------
    The Axes. Rows are true classes, colored by fractions; numbers, with up to ten classes, are
    counts of spots.

    Raises
    ------
    InputError
        The table lacks the group, method or probe, or has several and none is given.
    """
    table = only(table, group=group, method=method, probe=probe)
    n = _matrix(table)
    fractions = n.div(n.sum(axis=1), axis=0).to_numpy()
    labels = [wrapped(str(name), 22, 2) for name in n.index], [wrapped(str(c), 22, 2) for c in n]
    with journal():
        if ax is None:
            _, ax = plt.subplots(figsize=confusion_size(table), layout="constrained")
        cells = ax.imshow(np.reshape(fractions, n.shape), cmap="Blues", vmin=0, vmax=1)
        for (i, j), count in np.ndenumerate(n.to_numpy()):
            if count and max(n.shape) <= _WITH_NUMBERS:
                number = str(count) if count < 1000 else f"{count / 1000:.2g}k"
                shade = "white" if fractions[i, j] > 0.6 else "black"
                ax.text(j, i, number, ha="center", va="center", fontsize=5.5, color=shade)
        ax.set_xticks(range(n.shape[1]), labels[1], rotation=45, ha="right", rotation_mode="anchor")
        ax.set_yticks(range(n.shape[0]), labels[0])
        ax.set(xlabel="predicted", ylabel="truth")
        ax.tick_params(length=0)
        ax.set_title(wrapped(title if title is not None else few(table["method"].unique()), 50, 3))
        figure: Any = ax.figure
        figure.colorbar(cells, ax=ax, shrink=0.7, pad=0.03, label="fraction of the true class")
        finish([ax], show, save)
    return ax


def _matrix(table: pd.DataFrame) -> pd.DataFrame:
    """Count spots: true classes × predicted ones."""
    n = table.groupby(["truth", "predicted"])["n"].sum().unstack(fill_value=0)
    n = n.reindex(columns=sorted({*n.index, *n.columns}), fill_value=0)
    return n[n.sum(axis=1) > 0]


def confusion_size(table: pd.DataFrame) -> tuple[float, float]:
    """Get the inches of a confusion matrix: a column of a journal, if the classes are few."""
    n = _matrix(table)
    label = 0.048 * min(max((len(str(name)) for name in n.columns), default=1), 22) + 0.2
    cell = max((COLUMN - label - 0.7) / max(n.shape[1], 3), 0.11)
    cell = min(cell, 0.34)
    return label + 0.7 + cell * max(n.shape[1], 3), label * 0.8 + 0.5 + cell * max(n.shape[0], 3)


def scorecard(
    results: "Sequence[Result] | Mapping[str, Result]", folder: Path
) -> dict[str, list[Path]]:
    """Plot the results of protocols.

    Parameters
    ----------
    results
        Results of protocols; as name → result if there are several of one protocol.
    folder
        Where the pictures go, in a folder per result; it is created if needed.

    Returns
    -------
    Protocol (or name) → files. Plots of tables that a result lacks are left out.

    Raises
    ------
    InputError
        Two results of the same protocol have no names.
    """
    if not isinstance(results, Mapping):
        named = {one.protocol: one for one in results}
        if len(named) < len(results):
            raise InputError("several results of one protocol; give them as name → result")
        results = named
    tables = [table for one in results.values() for table in one.summary.values()]
    models = dict.fromkeys(name for table in tables for name in _of_kind(table, "model"))
    palette = dict(zip(models, colors(len(models)), strict=True))
    return {
        name: _Pictures(result, palette).write(Path(folder) / _plain(name))
        for name, result in results.items()
    }


@dataclass(frozen=True)
class _Pictures:
    """The plots of one result."""

    result: "Result"
    palette: dict[str, str] = field(default_factory=dict)
    """Model → color, the same in all plots."""

    def write(self, folder: Path) -> list[Path]:
        """Draw all plots, and return the files."""
        files: dict[Path, None] = {}
        for name, draw in self._drawings():
            path, n = folder / f"{name}.png", 1
            while path in files:  # long names can be equal after they are shortened
                n += 1
                path = folder / f"{name}_{n}.png"
            draw(save=path, show=False)
            files[path] = None
        return list(files)

    def _drawings(self) -> Iterator[Drawing]:
        match self.result.protocol:
            case "recovery" | "imputation":
                for i, (caption, table) in enumerate(self.result.summary.items()):
                    yield from self._task(f"task{i + 1}", caption, table)
            case "domains":
                yield from self._domains()
            case "annotation":
                yield from self._annotation()
            case "subtype":
                for caption, table in self.result.summary.items():
                    yield from self._intervals("auroc", caption, table, "auroc")

    def _detail(self, name: str, **chosen: str) -> pd.DataFrame:
        """Select rows of a detail table; empty if it is missing."""
        table = self.result.details.get(name, pd.DataFrame())
        for column, value in chosen.items():
            table = table[table[column] == value] if column in table else table.iloc[:0]
        return table

    def _intervals(
        self,
        name: str,
        title: str,
        table: pd.DataFrame,
        metric: str,
        detail: str = "",
        **chosen: str,
    ) -> Iterator[Drawing]:
        if not {"method", "kind", metric} <= set(table) or table[metric].isna().all():
            return
        scores = self._detail(detail or self.result.protocol, **chosen)
        yield name, partial(
            method_intervals, table, metric, scores if len(scores) else None, title=title,
            palette=self.palette,
        )  # fmt: skip

    def _task(self, name: str, caption: str, table: pd.DataFrame) -> Iterator[Drawing]:
        """Plot errors, genes and calibration of one task of recovery or imputation."""
        # It loads torch, which other plots do not need.
        from sagefm.evaluate.protocols.recovery import TASKS

        protocol, task = self.result.protocol, caption.partition(": ")[2]
        yield from self._intervals(f"{name}_mse", caption, table, "mse", task=task)
        models, yardstick = _of_kind(table, "model"), TASKS[protocol][0].yardstick
        genes = self._detail(f"{protocol}_genes", task=task)
        for model in models[:_N_SCATTERED]:
            for value in ("r_within", "mse"):
                if value in genes and {model, yardstick} <= set(genes["method"]):
                    yield (
                        f"{name}_genes_{value}_{_plain(model)}",
                        partial(gene_scatter, genes, model, yardstick, value, title=caption),
                    )
        bins = self._detail(f"{protocol}_calibration", task=task)
        candidates = dict.fromkeys([*models, yardstick, *_best_baseline(table, "mse")])
        if methods := [name for name in candidates if len(bins) and name in set(bins["method"])]:
            others = [name for name in methods if name not in self.palette]
            shades = colors(len(self.palette) + len(others))[len(self.palette) :]
            palette = self.palette | dict(zip(others, shades, strict=True))
            yield (
                f"{name}_calibration",
                partial(calibration, bins, methods, title=caption, palette=palette),
            )

    def _domains(self) -> Iterator[Drawing]:
        groups = 0
        for caption, table in self.result.summary.items():
            yield from self._intervals("ari", caption, table, "ari")
            if caption.startswith(_TOGETHER):
                groups += 1
                title = f"Labels carried between slides:\n{caption.removeprefix(_TOGETHER)}"
                yield from self._intervals(
                    f"group{groups}_macro_f1", title, table, "macro_f1", "domains_transfer",
                    group=caption.removeprefix(_TOGETHER),
                )  # fmt: skip
        spots = self._detail("domains_spots")
        if not len(spots):
            return
        labeled = spots.get("label", pd.Series(None, index=spots.index, dtype=object)).notna()
        ranked = labeled.groupby(spots["slide"], sort=False).agg(["sum", "size"])
        ranked = ranked.sort_values(["sum", "size"], ascending=False, kind="stable")
        methods = [c for c in spots if c not in SPOT_COLUMNS]
        for slide in ranked.index[:_N_MAPS]:
            of_slide = spots[spots["slide"] == slide]
            if of_slide[methods].notna().any(axis=None):
                yield f"map_{_plain(str(slide))}", partial(domain_maps, of_slide)

    def _annotation(self) -> Iterator[Drawing]:
        groups: dict[str, int] = {}
        for caption, table in self.result.summary.items():
            match = _ANNOTATION.search(caption)
            if match is None:
                continue
            readout, probe, group = match.groups()
            name = f"group{groups.setdefault(group, len(groups) + 1)}_{_plain(probe)}"
            yield from self._intervals(
                f"{name}_balanced_accuracy", f"{readout}\n{group}", table, "balanced_accuracy",
                group=group, probe=probe,
            )  # fmt: skip
            first = [*_of_kind(table, "model"), *_best_baseline(table, "balanced_accuracy")][:1]
            for method in first if probe == "linear" else []:
                counts = self._detail(
                    "annotation_confusion", group=group, method=method, probe=probe
                )
                if len(counts):
                    title = f"{method}, {probe} probe\n{group}"
                    yield f"{name}_confusion", partial(confusion, counts, title=title)


def _of_kind(table: pd.DataFrame, kind: str) -> list[str]:
    return list(table.loc[table["kind"] == kind, "method"]) if "kind" in table else []


def _best_baseline(table: pd.DataFrame, metric: str) -> list[str]:
    """Get the name of the best baseline, if there is one."""
    if not {"kind", "method", metric} <= set(table):
        return []
    values = table[table["kind"] == "baseline"].set_index("method")[metric].dropna()
    if values.empty:
        return []
    return [str(values.idxmin() if metric == "mse" else values.idxmax())]


def _plain(text: str, length: int = 32) -> str:
    """Make a short file name that is valid on every system."""
    return re.sub(r"[^a-z0-9]+", "_", text.lower())[:length].strip("_") or "unnamed"
