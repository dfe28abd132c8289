"""Render a self-contained HTML page about a slide."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from anndata import AnnData
from matplotlib.axes import Axes
from numpy.typing import NDArray

from sagefm._keys import QUALITY
from sagefm.pl import gene_scatter, journal
from sagefm.pl import quality as draw_quality
from sagefm.pp.sections import section_codes
from sagefm.report.drawing import one_section
from sagefm.report.judge import Quality
from sagefm.report.recovery import MODEL, NEIGHBOR_MEAN
from sagefm.report.rendering import figure_png, template
from sagefm.report.rules import GRADES, RULES, USES
from sagefm.report.words import contents, remarks

_COLORS = 256
_MAPPED = {
    "counts": "counts",
    "genes": "detected genes",
    "novelty": "novelty (distance from the training spots, as the fraction of these that are "
    "nearer to other patients)",
    "error": "error of the model on masked genes, and how far it is above that of the mean of the "
    "neighbors (orange: the model is better; purple: the neighbors are)",
}
"""Captions of the maps, by column of the spots."""


def page(
    slide: AnnData,
    quality: Quality,
    *,
    name: str,
    layer: str | None = None,
    slide_key: str | None = None,
) -> str:
    """Render a page about a slide: the verdict, the facts behind it, and maps of the tissue.

    Parameters
    ----------
    slide
        The slide that was judged, with the result in ``obsm``.
    quality
        Result of :func:`sagefm.report.quality`.
    name
        Name of the slide on the page.
    layer, slide_key
        As for :func:`sagefm.report.quality`. The maps show the first section.

    Returns
    -------
    HTML that includes all pictures.
    """
    codes = section_codes(slide, slide_key)
    return template("quality.html.jinja").render(
        name=name, made=quality.made,
        verdicts=[
            {"use": use, "grade": GRADES[row["verdict"]], **row}
            for use, row in quality.verdicts.iterrows()
        ],
        facts=quality.facts.to_dict("records"),
        maps=_maps(slide, quality, codes),
        genes=_genes(quality) if len(quality.genes) else None,
        recovery=_recovery(quality) if len(quality.methods) else "",
        methods=[
            (str(method), f"{row['error']:.4f}", f"{row['r']:.3f}")
            for method, row in quality.methods.iterrows()
        ],
        contents=list(contents(slide, layer=layer, slide_key=slide_key).items()),
        remarks=remarks(slide, layer=layer, slide_key=slide_key),
        rules=_rules(quality),
        how=[(key.replace("_", " "), value) for key, value in quality.made.items()
             if key != "matched"],
    )  # fmt: skip


def _maps(slide: AnnData, quality: Quality, codes: NDArray[np.int64]) -> dict[str, object]:
    """Draw maps of the first section."""
    n_sections = int(codes.max()) + 1
    first = one_section(slide, codes == 0, {})
    first.obsm[QUALITY] = slide.obsm[QUALITY].loc[codes == 0]
    which = f" The first of {n_sections} slides is drawn." if n_sections > 1 else ""
    filled = quality.spots.columns[quality.spots.notna().any()]
    captions = ", ".join(text for column, text in _MAPPED.items() if column in filled)
    return _figure(draw_quality(first, show=False), f"Maps of the spots: {captions}.{which}")


def _genes(quality: Quality) -> dict[str, object]:
    """Compare the model with the mean of the neighbors, gene by gene."""
    with journal():
        _, axes = plt.subplots(1, 2, figsize=(7.6, 3.1), layout="constrained")
        for value, ax in zip(("r_within", "mse"), axes, strict=True):
            gene_scatter(quality.genes, MODEL, NEIGHBOR_MEAN, value, ax=ax, show=False)
    return _figure(
        list(axes),
        "Every gene that is detected in more than 10 % of the spots, while it is masked: the model "
        "compared with the mean of the neighbors, correlation (left) and error (right).",
    )


def _figure(axes: Sequence[Axes], caption: str) -> dict[str, object]:
    """Include the figure of some axes."""
    figure: Any = axes[0].figure
    return figure_png(figure, caption, colors=_COLORS)


def _recovery(quality: Quality) -> str:
    return (
        f"{quality.made['mask_fraction']:.0%} of the measured genes of each spot were masked and "
        f"predicted. Scored over the {quality.genes['gene'].nunique():,} genes that are detected "
        "in more than 10 % of the spots: mean squared error on log1p counts, and the median over "
        "genes of the correlation within the slide."
    )


def _rules(quality: Quality) -> dict[str, Any]:
    """List the rules that were applied; without a model there is no verdict."""
    judged = len(quality.verdicts) > 0
    rows = []
    for rule in RULES:
        if rule.name in quality.facts.index:
            uses = "all" if rule.uses == USES else ", ".join(rule.uses) or "none"
            rows.append((rule.what, *rule.bounds, *([uses] if judged else []), rule.why))
    caption = (
        "The verdict on a use is the worst grade of the facts that count for it. A fact that is "
        "not known counts as care, except those that compare the slide with the training slides. "
        "Only imputation can be supported: masked genes are no evidence "
        "for another use, which is at best not shown."
    )
    header = ["fact", "good", "care", *(["counts for"] if judged else []), "why"]
    return {"caption": caption if judged else "", "header": header, "rows": rows}
