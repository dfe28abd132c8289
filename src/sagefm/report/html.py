"""A slide on one page of HTML that needs nothing but itself."""

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes
from numpy.typing import NDArray

from sagefm._keys import QUALITY, SPATIAL
from sagefm.pl import gene_scatter, journal
from sagefm.pl import quality as draw
from sagefm.pp.counts import coordinates, section_codes
from sagefm.report.judge import Quality
from sagefm.report.recovery import MODEL, NEIGHBOR_MEAN
from sagefm.report.rules import EMBEDDING, PREDICTION, RULES, VERDICTS
from sagefm.report.words import contents, remarks

_DPI = 120
_MARKS = {"good": "●", "care": "▲", "bad": "✕", "unknown": "?"}
"""A grade is told by its word and its mark; its color says the same once more."""
_GRADES = {said: grade for grade, said in VERDICTS.items()}
_MAPPED = {
    "counts": "counts",
    "genes": "detected genes",
    "novelty": "novelty (distance from the training spots, as a share of these that lie nearer to "
    "other patients)",
    "error": "error of the model on hidden genes, and how far it is above that of the mean of the "
    "neighbors (orange: the model is better; purple: the neighbors are)",
}
"""What the maps show, by column of the spots."""
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 62rem;
  margin: 0 auto; padding: 1.5rem 1rem; }
h1 { font-size: 1.5rem; overflow-wrap: anywhere; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; margin: 0.5rem 0; }
caption { text-align: left; color: #444; padding-bottom: 0.3rem; }
th, td { text-align: left; vertical-align: top; padding: 0.3rem 0.6rem 0.3rem 0;
  border-bottom: 1px solid #ddd; overflow-wrap: break-word; }
img { max-width: 100%; height: auto; } figure { margin: 1rem 0; } figcaption { color: #444; }
.grade { white-space: nowrap; font-weight: 600; }
.good { color: #00517e; } .care { color: #7a4d00; } .bad { color: #8f2d00; }
.unknown { color: #444; }
.verdict { border-left: 0.4rem solid; padding: 0.4rem 0.8rem; margin: 0.6rem 0; }
.verdict p { color: #1a1a1a; margin: 0.2rem 0; } .verdict strong { font-size: 1.1rem; }
@media print { body { max-width: none; padding: 0; font-size: 11px; }
  figure, tr, .verdict { break-inside: avoid; } }
"""


def page(
    slide: AnnData,
    found: Quality,
    *,
    name: str,
    layer: str | None = None,
    slide_key: str | None = None,
) -> str:
    """Write a page about a slide: the verdict, the facts behind it, and where on the tissue.

    Parameters
    ----------
    slide
        As :func:`sagefm.report.quality` left it.
    found
        What that returned.
    name
        What the page calls the slide.
    layer, slide_key
        As for :func:`sagefm.report.quality`. Of several slides in one object the first is drawn.

    Returns
    -------
    HTML that refers to nothing outside itself: pictures are part of it.
    """
    title = f"Quality of {escape(name)}"
    parts = [
        f"<h1>{title}</h1>",
        *_verdicts(found),
        *_facts(found),
        *_pictures(slide, found, slide_key),
        *_methods(found),
        "<h2>What the file holds</h2>",
        _table("", ["what", "value"], contents(slide, layer=layer, slide_key=slide_key).items()),
        *_remarks(slide, layer, slide_key),
        *_rules(found),
        *_made(found),
    ]
    body = "\n".join(parts)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _verdicts(found: Quality) -> list[str]:
    if not len(found.verdicts):
        return [
            "<p>No model was given: there is no verdict, and what needs a model (its genes on this "
            "slide, the distance from its training, the recovery of hidden genes) is left out.</p>"
        ]
    boxes = []
    for use, row in found.verdicts.iterrows():
        grade = _GRADES[row["verdict"]]
        boxes.append(
            f'<div class="verdict {grade}"><strong>{_MARKS[grade]} {escape(str(use))}: '
            f"{escape(row['verdict'])}</strong><p>{escape(row['reason'])}</p></div>"
        )
    model, genes = found.made["model"], found.made["matched"]
    return [
        f"<p>May this slide be given to {escape(model)}? The slide {escape(genes)}.</p>",
        *boxes,
        "<p>The verdict says whether the slide is within what the model knows, and whether the "
        "model recovers hidden genes on it.</p>",
    ]


def _facts(found: Quality) -> list[str]:
    rows = [
        (
            row["what"],
            row["shown"],
            row["expected"],
            _Html(f'<span class="grade {row["grade"]}">{_MARKS[row["grade"]]} {row["grade"]}'
                  "</span>"),
            row["said"],
        )
        for _, row in found.facts.iterrows()
    ]  # fmt: skip
    header = ["fact", "value", "in training", "grade", "what it means"]
    return ["<h2>Facts</h2>", _table("", header, rows)]


def _pictures(slide: AnnData, found: Quality, slide_key: str | None) -> list[str]:
    codes = section_codes(slide, slide_key)
    several = bool(codes.max())
    first = _alone(slide, codes == 0, image=not several)
    which = f" The first of {codes.max() + 1} slides is drawn." if several else ""
    known = found.spots.columns[found.spots.notna().any()]
    what = ", ".join(_MAPPED[column] for column in _MAPPED if column in known)
    drawn = [
        "<h2>On the tissue</h2>",
        _figure(draw(first, show=False), f"Maps of the spots: {what}.{which}"),
    ]
    if len(found.genes):
        with journal():
            _, axes = plt.subplots(1, 2, figsize=(7.6, 3.1), layout="constrained")
            for value, ax in zip(("r_within", "mse"), axes, strict=True):
                gene_scatter(found.genes, MODEL, NEIGHBOR_MEAN, value, ax=ax, show=False)
        drawn += [
            "<h2>Gene by gene</h2>",
            _figure(
                list(axes),
                "Every gene that is detected in more than 10 % of the spots, while it is hidden: "
                "the model beside the mean of the neighbors, correlation (left) and error (right).",
            ),
        ]
    return drawn


def _alone(slide: AnnData, spots: NDArray[np.bool_], *, image: bool) -> AnnData:
    """Keep what is drawn of one slide, and no column that speaks of several."""
    uns = {key: slide.uns[key] for key in (SPATIAL,) if image and key in slide.uns}
    obsm = {SPATIAL: coordinates(slide)[spots], QUALITY: slide.obsm[QUALITY].loc[spots]}
    return AnnData(obs=pd.DataFrame(index=slide.obs_names[spots]), obsm=obsm, uns=uns)


def _figure(axes: Sequence[Axes], caption: str) -> str:
    """Put the figure of some axes into the page, and close it."""
    figure = axes[0].figure
    held = io.BytesIO()
    figure.savefig(held, format="png", dpi=_DPI, bbox_inches="tight")  # type: ignore[union-attr]
    plt.close(figure)  # type: ignore[arg-type]
    data = base64.b64encode(held.getvalue()).decode()
    return (
        f'<figure><img alt="{escape(caption)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _methods(found: Quality) -> list[str]:
    if not len(found.methods):
        return []
    rows = [
        (str(method), f"{row['error']:.4f}", f"{row['r']:.3f}")
        for method, row in found.methods.iterrows()
    ]
    n_genes = found.genes["gene"].nunique()
    return [
        "<h2>Recovery of hidden genes</h2>",
        _table(
            f"{found.made['mask_fraction']:.0%} of the measured genes of each spot were hidden and "
            f"predicted. Scored over the {n_genes:,} genes that are detected in more than 10 % of "
            "the spots: mean squared error on log1p counts, and the median over genes of the "
            "correlation within the slide.",
            ["method", "error", "correlation"], rows,
        ),
    ]  # fmt: skip


def _remarks(slide: AnnData, layer: str | None, slide_key: str | None) -> list[str]:
    rows = remarks(slide, layer=layer, slide_key=slide_key)
    if not rows:
        return ["<p>Nothing is wrong with it.</p>"]
    return [_table("What is to be said of it", ["level", "message"], rows)]


def _rules(found: Quality) -> list[str]:
    rows = []
    for rule in RULES:
        if rule.name in found.facts.index:
            uses = "both" if len(rule.uses) > 1 else rule.uses[0]
            rows.append((rule.what, *rule.bounds, uses, rule.why))
    if not len(found.verdicts):
        return ["<h2>Rules</h2>", _table("", ["fact", "good", "care", "why"],
                                         [(*row[:3], row[4]) for row in rows])]  # fmt: skip
    told = (
        f"The verdict on {EMBEDDING}, and that on {PREDICTION}, is the worst grade of the facts "
        "that count for it. What is not known counts as care."
    )
    return ["<h2>Rules</h2>", _table(told, ["fact", "good", "care", "counts for", "why"], rows)]


def _made(found: Quality) -> list[str]:
    rows = [
        (name.replace("_", " "), str(value))
        for name, value in found.made.items()
        if name != "matched"
    ]
    return ["<h2>How it was made</h2>", _table("", ["what", "value"], rows)]


class _Html(str):
    """Text that is HTML already."""


def _table(caption: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a table: the first cell of a row is its heading."""
    lines = ["<table>"]
    lines += [f"<caption>{escape(caption)}</caption>"] if caption else []
    heading = _row("".join(f'<th scope="col">{escape(cell)}</th>' for cell in header))
    lines += ["<thead>", heading, "</thead>", "<tbody>"]
    for first, *others in rows:
        cells = [f'<th scope="row">{escape(first)}</th>']
        cells += [
            f"<td>{cell if isinstance(cell, _Html) else escape(cell)}</td>" for cell in others
        ]
        lines.append(_row("".join(cells)))
    return "\n".join([*lines, "</tbody>", "</table>"])


def _row(cells: str) -> str:
    return f"<tr>{cells}</tr>"
