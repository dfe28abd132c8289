"""Write one page about a slide, with everything that its owner wants to know."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np

from sagefm._fetch import DEFAULT
from sagefm._keys import DOMAIN
from sagefm._progress import stage
from sagefm.model import SageFM
from sagefm.pl import journal
from sagefm.pp.markers import marker_sets
from sagefm.report.drawing import class_map, number_map, shades_of
from sagefm.report.rendering import figure_png, template
from sagefm.report.slide.findings import domains, rare
from sagefm.report.slide.genes import imputable, recovered
from sagefm.report.slide.made import how, limits
from sagefm.report.slide.overview import judged, numbers, tissue
from sagefm.report.slide.subject import Section, Subject

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.figure import Figure

_COLORS = 64
_PREVIEW = 1.1
"""Width of the small map of an index, inches."""


@dataclass(frozen=True)
class SlideReport:
    """A report of a slide, and what an index of several shows of it."""

    name: str
    page: str
    """The page: HTML that includes all pictures."""
    grade: str
    """Of the slide itself: good, care or bad."""
    verdicts: dict[str, str] = field(default_factory=dict)
    """Use → verdict on the model; empty without one."""
    spots: int = 0
    counts: float = 0.0
    """Median per spot."""
    genes: float = 0.0
    """Median per spot."""
    n_domains: int | None = None
    preview: dict[str, object] | None = None
    """A small map of the domains, or of the counts."""


def slide_report(
    slide: "AnnData",
    model: "SageFM | str | Path | None" = DEFAULT,
    *,
    name: str = "slide",
    n_domains: int | None = None,
    names: Sequence[str] | None = None,
    seed: int = 0,
    layer: str | None = None,
    slide_key: str | None = None,
    copy: bool = True,
    command: str = "",
    path: str = "SLIDE",
    model_path: str = DEFAULT,
) -> SlideReport:
    """Report on a slide: quality and verdict, maps, domains, genes, rare spots, and how.

    What one section cannot show, such as domains of twenty spots, it says in a line; the other
    sections are made.

    Parameters
    ----------
    slide
        Raw counts and ``obsm["spatial"]``.
    model
        A model, its path or address; None leaves out what needs one.
    name
        Name of the slide on the page.
    n_domains
        How many domains; chosen by :func:`sagefm.tl.domains` if not given.
    names
        Groups of :func:`sagefm.pp.marker_sets` that domains are named by, such as ``["general",
        "breast"]``; those of the organ if not given.
    seed
        Seed of all random numbers.
    layer, slide_key
        As for :meth:`sagefm.SageFM.prepare`. Maps show the first section.
    copy
        Whether to work on a copy. Otherwise the results of :func:`sagefm.report.quality`,
        :func:`sagefm.tl.domains` and :func:`sagefm.tl.rare` are in the slide afterwards.
    command, path, model_path
        The command line and the files, for the page to say how it was made.

    Returns
    -------
    The page, and its main results.

    Raises
    ------
    InputError
        There are no raw counts or no coordinates, no such model, or no such group of markers.

    Examples
    --------
    >>> import sagefm
    >>> slide = sagefm.pp.simulate(60, seed=0)
    >>> found = sagefm.report.slide_report(slide, None, name="my slide")
    >>> found.grade
    'care'
    """
    if isinstance(model, str | Path):
        model = SageFM.load(model)
    if names is not None:
        marker_sets(names)
    subject = Subject(
        slide.copy() if copy else slide, name, model, n_domains, seed, layer, slide_key,
        groups=list(names or ()),
    )  # fmt: skip
    quality = subject.judge(judged)
    sections = {
        "tissue": subject.attempt("tissue", tissue),
        "domains": subject.attempt("domains", domains),
        "recovery": subject.attempt("masked genes", recovered),
        "imputable": subject.attempt("imputation", imputable),
        "rare": subject.attempt("rare spots", rare),
    }
    stage("report of %s: writing the page", name)
    page = template("slide.html.jinja").render(
        name=name, numbers=numbers(subject), short=_in_short(quality, sections), quality=quality,
        limits=limits(subject), how=how(subject, command, path, model_path), **sections,
    )  # fmt: skip
    assert subject.quality is not None
    value = subject.quality.facts["value"]
    found = sections["domains"].get("rows")
    return SlideReport(
        name, page, quality["slide"]["grade"],
        {str(use): str(row["verdict"]) for use, row in subject.quality.verdicts.iterrows()},
        int(value["spots"]), float(value["counts"]), float(value["genes"]),
        None if found is None else len(found), _preview(subject, found is not None),
    )  # fmt: skip


def _in_short(quality: Section, sections: dict[str, Section]) -> list[str]:
    """Summarize the results in a few lines."""
    lines = []
    if quality["slide"]["grade"] == "bad":
        lines.append("Too little was measured: do not rely on the domains and genes below.")
    if rows := sections["domains"].get("rows"):
        named = [f"{row['domain']} ({row['name']})" for row in rows if row["name"]]
        what = f"{len(rows)} tissue domains" if len(rows) > 1 else "One tissue domain"
        lines.append(what + (f"; suggested names: {', '.join(named)}." if named else "."))
    if levels := sections["imputable"].get("levels"):
        n = next(n for level, n, _ in levels if level.startswith("0.3"))
        lines.append(
            f"{n} genes that were not measured can be predicted with an expected correlation of "
            "0.3 or more."
        )
    if about := sections["rare"].get("about"):
        lines.append(about.split(" (false")[0] + ".")
    return lines


def _preview(subject: Subject, has_domains: bool) -> dict[str, object]:
    """Draw a small map."""
    assert subject.quality is not None
    with journal():
        figure: Figure
        figure, ax = plt.subplots(figsize=(_PREVIEW, _PREVIEW), layout="constrained")
        if has_domains:
            labels = subject.slide.obs[DOMAIN]
            shades = shades_of(len(labels.cat.categories))
            class_map(subject.drawn({DOMAIN: labels}), DOMAIN, shades, ax, scale_bar=False)
            for text in list(ax.texts):
                text.remove()
        else:
            counts = np.log1p(subject.quality.spots["counts"].to_numpy())
            number_map(subject.drawn({"counts": counts}), "counts", "", "", ax)
            for bar in filter(None, [spots.colorbar for spots in ax.collections]):
                bar.remove()
    what = "domains" if has_domains else "counts per spot"
    return figure_png(figure, "", alt=f"Map of {subject.name}: {what}", colors=_COLORS)
