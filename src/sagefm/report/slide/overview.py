"""The first sections of a report: what may be concluded, and maps of the tissue."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sagefm._errors import InputError
from sagefm._text import numbered
from sagefm.pl import journal
from sagefm.pp.counts import find_counts
from sagefm.pp.pseudonyms import is_among
from sagefm.pp.slide_record import TRAINED_SLIDES, described, noted
from sagefm.report.drawing import grid, has_tissue_image, image_map, number_map
from sagefm.report.judge import quality
from sagefm.report.rendering import figure_png
from sagefm.report.rules import GRADES, VERDICTS
from sagefm.report.slide.organ import marker_groups
from sagefm.report.slide.subject import Section, Subject, sentence
from sagefm.report.words import remarks

if TYPE_CHECKING:
    from numpy.typing import NDArray

_OF_SLIDE = ("spots", "counts", "genes")
"""Facts about a slide, whatever the model."""
_ORDER = ("bad", "care", "unknown", "good")
_VERDICT_OF_SLIDE = {
    "good": "The slide: enough spots, counts and genes",
    "care": "The slide: usable with care",
    "bad": "The slide: too little was measured",
}
_COLORS = 256
_MUCH = 30
_PANEL = 5000
"""Genes below which the fraction of one family is a matter of which genes were chosen."""


def judged(subject: Subject) -> Section:
    """Judge the slide, and what it shows of the model; first in a report."""
    slide, model = subject.slide, subject.model
    try:
        found = quality(slide, model, seed=subject.seed, compare_unadapted=True, **subject.how)
    except InputError as error:
        if model is None:
            raise
        subject.model, subject.no_model = None, sentence(str(error))
        found = quality(slide, None, seed=subject.seed, **subject.how)
    seen = seen_in_training(subject)
    if seen:
        found = replace(found, verdicts=of_a_known_slide(found.verdicts))
    subject.quality = found
    organ = noted(slide, np.flatnonzero(subject.codes == 0), "organ")
    if not subject.groups:
        subject.groups, subject.why_groups = marker_groups(organ, found)
    facts = found.facts
    own = facts.loc[list(_OF_SLIDE)]
    worst = next(grade for grade in _ORDER if grade in set(own["grade"]))
    doubts = facts[facts["grade"].isin(["bad", "care"])]
    return {
        "slide": {
            "grade": worst, "heading": _VERDICT_OF_SLIDE[worst],
            "reason": " ".join(own["said"]) if worst == "good" else
            " ".join(own.loc[own["grade"] != "good", "said"]),
        },
        "verdicts": [
            {"use": use, "grade": GRADES[row["verdict"]], **row}
            for use, row in found.verdicts.iterrows()
        ],
        "doubts": doubts.to_dict("records"),
        "remarks": [(level, sentence(text)) for level, text in remarks(slide, **subject.how)],
        "no_model": subject.no_model,
        "seen": seen,
    }  # fmt: skip


def of_a_known_slide(verdicts: pd.DataFrame) -> pd.DataFrame:
    """Withdraw what is supported: numbers of a slide that was trained on are no evidence."""
    supported = verdicts["verdict"] == VERDICTS["good"]
    changed = verdicts.copy()
    changed.loc[supported, "verdict"] = VERDICTS["unknown"]
    changed.loc[supported, "reason"] = (
        "The name of this slide is among the training slides: its numbers are no evidence."
    )
    return changed


def seen_in_training(subject: Subject) -> str:
    """Say so if the model has been trained on this slide, as far as names show it."""
    provenance = {} if subject.model is None else subject.model.provenance
    recorded = provenance.get(TRAINED_SLIDES) or provenance.get("slides")
    if isinstance(recorded, Mapping) and is_among(subject.name, recorded):
        return (
            f"The model was trained on a slide called {subject.name}. If it is this one, all "
            "numbers about the model are better here than they are on a new slide."
        )
    return ""


def numbers(subject: Subject) -> list[tuple[str, str]]:
    """Describe the slide in the few numbers of the title."""
    facts = described(subject.slide, np.flatnonzero(subject.codes == 0))
    raw = find_counts(subject.slide, subject.layer).matrix
    sums = np.asarray(raw.sum(axis=1), dtype=np.float64).ravel()
    detected = np.asarray((raw > 0).getnnz(axis=1), dtype=np.float64)
    shown = [
        ("organ", str(facts.get("organ", ""))), ("disease", str(facts.get("disease", ""))),
        ("technology", str(facts.get("technology") or facts.get("array", ""))),
        ("sections", str(subject.n_sections) if subject.n_sections > 1 else ""),
        ("spots", f"{raw.shape[0]:,}"), ("genes measured", f"{raw.shape[1]:,}"),
        ("counts per spot", f"{np.median(sums):,.0f}"),
        ("genes per spot", f"{np.median(detected):,.0f}"),
        ("between spots", f"{facts['pitch_um']:.4g} µm" if facts.get("pitch_um") else ""),
    ]  # fmt: skip
    return [(name, value) for name, value in shown if value]


def tissue(subject: Subject) -> Section:
    """Draw the image, counts, genes, and mitochondrial fraction."""
    raw = find_counts(subject.slide, subject.layer)
    sums = np.asarray(raw.matrix.sum(axis=1), dtype=np.float64).ravel()
    detected = np.asarray((raw.matrix > 0).getnnz(axis=1), dtype=np.float64)
    mitochondrial = raw.var.index.astype(str).str.upper().str.startswith("MT-")
    columns: dict[str, NDArray[Any]] = {"counts": sums, "genes": detected}
    lines = []
    if mitochondrial.any():
        own = np.asarray(raw.matrix[:, np.flatnonzero(mitochondrial)].sum(axis=1)).ravel()
        columns["mitochondrial"] = 100 * own / np.where(sums > 0, sums, np.nan)
        lines.append(
            _about_mitochondria(
                columns["mitochondrial"], int(mitochondrial.sum()), raw.matrix.shape[1]
            )
        )
    else:
        lines.append(
            "No mitochondrial gene was measured, so that their fraction, a sign of damaged tissue, "
            "is not known."
        )
    if empty := int((sums == 0).sum()):
        lines.append(f"{sentence(numbered(empty, 'spot') + ' without any count')} They are gray.")
    drawn = subject.drawn(columns)
    has_image = has_tissue_image(drawn)
    titles = {
        "counts": ("counts per spot", "counts"),
        "genes": ("genes per spot", "genes detected"),
        "mitochondrial": ("mitochondrial counts", "% of the counts"),
    }
    with journal():
        n = len(columns) + has_image
        figure, axes = grid(subject.points, n, 2 if n in (2, 4) else 3)
        if has_image:
            image_map(drawn, "tissue image", axes.pop(0))
        for (column, (title, unit)), ax in zip(
            [(c, titles[c]) for c in columns], axes, strict=True
        ):
            number_map(drawn, column, title, unit, ax, scale_bar=column == "counts")
    what = ["the tissue image"] if has_image else []
    what += [titles[column][0] for column in columns]
    caption = (
        f"{sentence(', '.join(what))[:-1]}. Colors span the 1st to the 99th percentile."
        f"{subject.which}"
    )
    if not has_image:
        lines.append("The file has no tissue image that lies under the spots.")
    return {"picture": figure_png(figure, caption, colors=_COLORS), "lines": lines}


def _about_mitochondria(percent: "NDArray[np.float64]", n: int, n_genes: int) -> str:
    median, high = np.nanmedian(percent), float(np.nanmean(percent > _MUCH))
    if n_genes < _PANEL:
        return (
            f"Only {n_genes:,} genes were measured, {n} of them mitochondrial, so that their "
            f"fraction ({median:.0f}% in the median spot) cannot be compared with that of other "
            "slides; regions of the slide can be compared."
        )
    return (
        f"Mitochondrial genes ({n} measured) have {median:.1f}% of the counts of the median spot; "
        f"{high:.0%} of the spots have more than {_MUCH}%. What is usual depends on the tissue: "
        "heart, liver and brain have many. A region that stands out may be damaged."
    )
