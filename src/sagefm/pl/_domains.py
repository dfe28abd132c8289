"""Plot the markers of domains, and which domains touch."""

from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.lines import Line2D

from sagefm._errors import InputError
from sagefm.pl._style import COLUMN, SMALL, finish, journal, wrapped

if TYPE_CHECKING:
    import pandas as pd

    from sagefm.tl.description import Description

_ROW, _CELL = 0.135, 0.16
"""Height of a gene, width of a domain, inches."""
_LARGEST = 45.0
"""Area of the largest dot, square points."""
_SIGNIFICANT = 0.05


def domain_markers(
    description: "Description",
    *,
    n_genes: int = 4,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> Axes:
    """Draw a dot plot of the markers of each domain.

    Parameters
    ----------
    description
        Result of :func:`sagefm.tl.describe`.
    n_genes
        Genes of each domain; one that marks several domains is drawn once.
    ax
        Axes to draw on.
    show, save
        As in scanpy; `save` is a file name.

    Returns
    -------
    The Axes. The area of a dot is the fraction of spots with the gene, its color the counts per
    10,000, scaled to the domain with most of the gene.

    Raises
    ------
    InputError
        There are no markers, or `n_genes` is below 1.
    """
    if n_genes < 1:
        raise InputError(f"n_genes={n_genes}: give a whole number from 1 on")
    top = description.markers.groupby("domain", sort=False).head(n_genes)
    genes = list(dict.fromkeys(top["gene"]))
    if not genes:
        raise InputError("there are no markers to draw: no gene is higher in a domain")
    domains = list(description.names["domain"])
    wide = description.expression.pivot(index="domain", columns="gene")
    rates, fractions = (
        wide[name].loc[domains, genes].fillna(0.0).to_numpy() for name in ("rate", "fraction")
    )
    shades = rates / np.maximum(rates.max(axis=0), 1e-12)
    largest = max(float(fractions.max()), 1e-12)
    steps = _steps(largest)
    with journal():
        if ax is None:
            size = (max(COLUMN, 1.8 + _CELL * len(domains)), 1.3 + _ROW * max(len(genes), 8))
            _, ax = plt.subplots(figsize=size, layout="constrained")
        y, x = np.meshgrid(np.arange(len(genes)), np.arange(len(domains)))
        dots = ax.scatter(
            x, y, s=_LARGEST * fractions / largest, c=shades, cmap="Reds", vmin=0, vmax=1,
            edgecolors="0.5", linewidths=0.3,
        )  # fmt: skip
        ax.set_yticks(range(len(genes)), [wrapped(gene, 24, 1) for gene in genes], style="italic")
        ax.set_xticks(range(len(domains)), _named(description.names), rotation=90)
        ax.set(xlim=(-0.7, len(domains) - 0.3), ylim=(len(genes) - 0.3, -0.7))
        ax.set_title("markers of domains")
        ax.tick_params(length=2)
        handles = [
            Line2D([], [], marker="o", linestyle="", color="0.6", label=f"{step:.0%}",
                   markersize=np.sqrt(_LARGEST * step / largest))
            for step in steps
        ]  # fmt: skip
        ax.legend(
            handles=handles, title="spots with\nthe gene", loc="upper left", frameon=False,
            bbox_to_anchor=(1, 1),
        )  # fmt: skip
        bar = ax.figure.colorbar(dots, ax=ax, shrink=0.5, anchor=(0, 0), pad=0.02, aspect=12)
        bar.set_label("counts per 10,000,\nrelative to the highest", fontsize=SMALL)
        finish([ax], show, save)
    return ax


def _steps(largest: float) -> list[float]:
    """Choose fractions for the legend up to the largest one."""
    return [step for step in (0.05, 0.1, 0.25, 0.5, 1.0) if step <= largest * 1.001][-4:] or [
        largest
    ]


def _named(names: "pd.DataFrame") -> list[str]:
    """Label each domain with the name that is suggested, if it is another word."""
    labels = []
    for domain, name in zip(names["domain"], names["name"], strict=True):
        same = name.casefold().replace(" ", "") == domain.casefold().replace(" ", "")
        label = domain if same else f"{domain}: {name}"
        labels.append(wrapped(label, 22, 2))
    return labels


def contacts(
    description: "Description",
    *,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> Axes:
    """Draw which domains touch more or less than after random motions.

    Parameters
    ----------
    description
        Result of :func:`sagefm.tl.describe`.
    ax
        Axes to draw on.
    show, save
        As in scanpy; `save` is a file name.

    Returns
    -------
    The Axes: log2 of contacts over those expected, from -3 to 3. An asterisk marks q ≤ 0.05, and
    other colors are pale; the title says so if there is none.
    """
    table, domains = description.contacts, list(description.names["domain"])
    place = {domain: i for i, domain in enumerate(domains)}
    values = np.full((len(domains), len(domains)), np.nan)
    opacity = np.full(values.shape, 0.35)
    names = [wrapped(name, 24, 1) for name in domains]
    with journal():
        if ax is None:
            longest = 0.05 * max(map(len, names))
            side = min(0.26 * max(len(domains), 4), max(COLUMN - longest - 0.8, 1.2))
            size = (side + longest + 0.8, side + longest + 0.3)
            _, ax = plt.subplots(figsize=size, layout="constrained")
        columns = (table[name] for name in ("domain", "other", "log2_ratio", "q"))
        for domain, other, ratio, q in zip(*columns, strict=True):
            i, j = place[domain], place[other]
            values[i, j] = values[j, i] = ratio
            if q <= _SIGNIFICANT:
                opacity[i, j] = opacity[j, i] = 1.0
                for x, y in ((i, j), (j, i)):
                    ax.text(x, y, "*", ha="center", va="center_baseline", fontsize=9)
        shades = plt.get_cmap("RdBu_r").with_extremes(bad="0.9")
        ax.imshow(values, cmap=shades, vmin=-3, vmax=3, alpha=opacity)
        image = ScalarMappable(Normalize(-3, 3), shades)
        ax.set_xticks(range(len(domains)), names, rotation=90)
        ax.set_yticks(range(len(domains)), names)
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        significant = bool((table["q"] <= _SIGNIFICANT).any())
        found = "* q ≤ 0.05; pale: not significant" if significant else "none significant"
        ax.set_title(f"contacts of domains\n({found})")
        bar = ax.figure.colorbar(image, ax=ax, shrink=0.8, pad=0.03)
        bar.set_label("log2 (contacts / expected)", fontsize=SMALL)
        finish([ax], show, save)
    return ax
