"""Draw the pictures of the demo, and render its page."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from sagefm._keys import DOMAIN, IMPUTED, MAPPED
from sagefm.demo.comparisons import MAPPING, MethodComparison
from sagefm.pl import journal, predicted, spatial
from sagefm.report.rendering import figure_png, template

if TYPE_CHECKING:
    from anndata import AnnData

_COLORS = 192
"""Colors of a picture, which keeps the page small."""
_LARGER = 1.9


@dataclass(frozen=True)
class ComparedSlide:
    """The comparisons on one slide."""

    name: str
    slide: "AnnData"
    genes: list[str]
    label_key: str | None
    comparisons: list[MethodComparison]


def render(chapters: list[ComparedSlide], n_genes: int, *, simulated: bool, seed: int) -> str:
    """Render the page: what wins in short, then each slide with its maps and tables."""
    return template("demo.html.jinja").render(
        simulated=simulated, n_genes=f"{n_genes:,}", seed=seed,
        summary=[_summarize(c.name, each) for c in chapters for each in c.comparisons],
        chapters=[_render_chapter(chapter) for chapter in chapters],
    )  # fmt: skip


def _summarize(slide: str, comparison: MethodComparison) -> list[str]:
    """Make a row of the summary."""
    values = [comparison.ours, comparison.baseline, comparison.random]
    return [
        f"{comparison.question}, {slide}", comparison.measure,
        *("none" if value is None else f"{value[1]:.3f}" for value in values),
        comparison.winner,
    ]  # fmt: skip


def _render_chapter(chapter: ComparedSlide) -> dict[str, Any]:
    return {
        "name": chapter.name.replace("_", " "),
        "n_spots": f"{chapter.slide.n_obs:,}",
        "n_genes": f"{chapter.slide.n_vars:,}",
        "tissue": _draw_tissue(chapter),
        "comparisons": [
            {
                "question": each.question, "note": each.note,
                "header": ["method", each.measure, *_more_columns(each.table)],
                "rows": _rows(each),
                "kinds": ["own" if own else "" for own in each.table["own"]],
                "picture": _draw(chapter, each),
            }
            for each in chapter.comparisons
        ],
    }  # fmt: skip


def _more_columns(table: pd.DataFrame) -> list[str]:
    return [name.replace("_", " ") for name in table.columns.drop(["value", "own", "random"])]


def _rows(comparison: MethodComparison) -> list[list[str]]:
    table = comparison.table.drop(columns=["own", "random"])
    return [[str(name), *(f"{value:.3f}" for value in row)]
            for name, row in zip(table.index, table.to_numpy(), strict=True)]  # fmt: skip


def _draw_tissue(chapter: ComparedSlide) -> dict[str, object]:
    """Draw what is known of the slide, and the domains that were found, in the same colors."""
    drawn, keys, titles = chapter.slide.copy(), [DOMAIN], ["domains (no model)"]
    if (key := chapter.label_key) is not None:
        drawn.obs[DOMAIN] = _renamed(drawn.obs[DOMAIN], drawn.obs[key])
        keys, titles = [key, DOMAIN], ["true regions", *titles]
    drawn.uns.pop(f"{DOMAIN}_colors", None)
    caption = "The tissue, and the domains that were found without labels, in matching colors."
    return _figure(spatial(drawn, keys, title=titles, show=False), caption)


def _renamed(domains: "pd.Series[str]", truth: "pd.Series[str]") -> "pd.Series[str]":
    """Rename domains after the true regions so that as many spots as possible agree."""
    from scipy.optimize import linear_sum_assignment

    both = pd.crosstab(domains, truth)
    rows, columns = linear_sum_assignment(-both.to_numpy())
    names = dict(zip(both.index[rows], both.columns[columns], strict=True))
    return pd.Series(
        pd.Categorical(domains.astype(str).map(names), truth.cat.categories), index=domains.index
    )


def _figure(axes: Any, caption: str) -> dict[str, object]:
    while isinstance(axes, list):
        axes = axes[0]
    return figure_png(axes.figure, caption, colors=_COLORS, larger=_LARGER)


def _draw(chapter: ComparedSlide, comparison: MethodComparison) -> dict[str, object] | None:
    if "r_true" in comparison.details:
        return _draw_expected(comparison.details)
    if len(comparison.details):
        axes = predicted(
            chapter.slide, {"predicted": chapter.slide.obsm[IMPUTED]}, chapter.genes,
            neighbor_mean=True, show=False,
        )  # fmt: skip
        return _figure(axes, "Each gene is masked while it is predicted. One scale for each gene; "
                       "library sizes are removed, so that the maps show the tissue.")  # fmt: skip
    if comparison.table.index[0] == MAPPING and chapter.label_key is not None:
        titles = ["true regions", "carried over"]
        maps = spatial(chapter.slide, [chapter.label_key, MAPPED], title=titles, show=False)
        return _figure(maps, "Regions of this patient, and those that were carried over.")
    return None


def _draw_expected(table: pd.DataFrame) -> dict[str, object]:
    """Compare the correlation that was expected of each gene with the true one."""
    with journal():
        _, ax = plt.subplots(figsize=(3.4, 3.0), layout="constrained")
        low, high = table["r_expected_low"], table["r_expected_high"]
        ax.vlines(table["r_expected"], low, high, color="0.85", lw=0.8, zorder=0,
                  label="80 % interval")  # fmt: skip
        inside = table["inside"].to_numpy(dtype=bool)
        for chosen, color, marker, label in (
            (inside, "#0072B2", "o", "true, inside"), (~inside, "#D55E00", "x", "true, outside"),
        ):  # fmt: skip
            ax.scatter(table["r_expected"][chosen], table["r_true"][chosen], s=9, c=color,
                       marker=marker, lw=0.8, label=label)  # fmt: skip
        ends = [0, float(np.nanmax(table[["r_expected", "r_true"]].to_numpy()) + 0.05)]
        ax.plot(ends, ends, color="0.5", lw=0.8, ls=":")
        ax.set(xlabel="expected correlation, before the truth is seen", ylabel="true correlation")
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(frameon=False, loc="upper left")
    return _figure(ax, "Genes that were taken out of the slide: each dot is a gene.")
