"""The sections of a report on masked genes, and on genes that the slide lacks."""

from typing import TYPE_CHECKING

from sagefm import tl
from sagefm._errors import InputError
from sagefm._keys import IMPUTED
from sagefm._text import numbered
from sagefm.pl import imputed
from sagefm.report.drawing import bars
from sagefm.report.recovery import MODEL, NEIGHBOR_MEAN, UNADAPTED
from sagefm.report.rendering import figure_png, figure_svg
from sagefm.report.rules import GRADES, IMPUTATION
from sagefm.report.slide.organ import some_of_each, well_known
from sagefm.report.slide.subject import Section, Subject

if TYPE_CHECKING:
    from sagefm.report.judge import Quality

_COLORS = 256
_MARKERS = 15
_DRAWN = 3
_GOOD = 0.3
_LEVELS = (0.5, 0.4, 0.3, 0.2)
_NO_MODEL = "No model was given: nothing is predicted."
_UNUSABLE = "The model cannot be used on this slide: see the verdict."
_OWN = {MODEL: "model, adapted to the slide", UNADAPTED: "model, as it is"}


def recovered(subject: Subject) -> Section:
    """Compare the model with simple methods on masked genes."""
    found = subject.quality
    if subject.model is None or found is None:
        return {"why": _UNUSABLE if subject.no_model else _NO_MODEL}
    if found.methods.empty:
        return {"why": "No gene is detected in more than 10% of the spots: nothing to score."}
    names = dict(_OWN) if UNADAPTED in found.methods.index else {MODEL: "model"}
    methods = found.methods.rename(index=names)
    rows = [
        (str(name), f"{row['error']:.4f}", f"{row['r']:.3f}") for name, row in methods.iterrows()
    ]
    r = methods["r"].sort_values(ascending=False, kind="stable")
    return {
        "about": _about(found),
        "rows": rows,
        "kinds": ["model" if row[0] in names.values() else "" for row in rows],
        "picture": figure_svg(
            bars(r, list(names.values()), "correlation with the masked counts (median over genes)"),
            "Correlation of predicted and measured expression over the spots, the median over "
            "genes. Hatched: the model.",
        ),
        "markers": _measured_markers(found, subject.groups),
    }


def _about(found: "Quality") -> list[str]:
    """Say what was done, and who wins."""
    n = found.genes["gene"].nunique()
    wide = found.genes.pivot(index="gene", columns="method", values="r_within")
    ahead = float((wide[MODEL] > wide[NEIGHBOR_MEAN]).mean())
    simple = found.methods.drop([MODEL, UNADAPTED], errors="ignore")
    best, own = str(simple["error"].idxmin()), found.methods["error"]
    ratio = float(own[MODEL] / own[best])
    outcome = (
        f"The model has the smallest error, {1 - ratio:.0%} below that of the best simple method "
        f"({best})."
        if ratio < 0.995 else
        f"The model is no better than a simple method, {best}, whose error is "
        f"{'the same' if ratio < 1.005 else f'{1 - 1 / ratio:.0%} smaller'}: use that."
    )  # fmt: skip
    return [
        f"{found.made['mask_fraction']:.0%} of the measured genes of each spot were masked, and "
        f"predicted from the other genes and the neighbors. Scored are the {n:,} genes that are "
        "detected in more than 10% of the spots.",
        f"{outcome} For {ahead:.0%} of the genes it follows the pattern over the tissue better "
        "than the mean of the neighbors.",
    ]


def _measured_markers(found: "Quality", groups: list[str]) -> list[tuple[str, ...]]:
    """Tabulate well-known markers that were measured: how well they were predicted."""
    wide = found.genes.pivot(index="gene", columns="method", values="r_within")
    detected = found.genes.groupby("gene")["detected"].first()
    known = well_known(groups)
    wide = wide[wide.index.isin(list(known))].sort_values(MODEL, ascending=False, kind="stable")
    shown = some_of_each(list(wide.index), groups, _MARKERS)
    own, neighbors = wide[MODEL].to_dict(), wide[NEIGHBOR_MEAN].to_dict()
    return [
        (gene, known[gene], f"{detected[gene]:.0%}", f"{own[gene]:.2f}", f"{neighbors[gene]:.2f}")
        for gene in shown
    ]


def imputable(subject: Subject) -> Section:
    """Say which genes that the slide lacks can be predicted."""
    if subject.model is None:
        return {"why": _UNUSABLE if subject.no_model else _NO_MODEL}
    if subject.quality is not None and len(subject.quality.verdicts):
        row = subject.quality.verdicts.loc[IMPUTATION]
        if GRADES[str(row["verdict"])] == "bad":
            return {"why": f"Do not impute genes of this slide with this model. {row['reason']}"}
    try:
        table = tl.impute(subject.slide, subject.model, seed=subject.seed, **subject.how)
    except InputError as error:
        if "has all genes of the model" in str(error):
            return {"why": "The slide has all genes of the model: there is none to impute."}
        raise
    r = table["r_expected"]
    if r.isna().all():
        return {"why": "No measured gene varies enough to say how well others are predicted."}
    known = well_known(subject.groups)
    markers = table[table.index.isin(list(known))].sort_values(
        "r_expected", ascending=False, kind="stable"
    )
    good = markers[markers["r_expected"] >= _GOOD]
    shown = some_of_each(list(map(str, good.index)), subject.groups, _MARKERS)
    section: Section = {
        "about": (
            f"The slide lacks {numbered(len(table), 'gene')} of the model. How well each can be "
            "predicted is estimated from measured genes that were predicted as if the slide lacked "
            "them too."
        ),
        "levels": [
            (f"{level:.1f} or more", f"{int((r >= level).sum()):,}",
             f"{(r >= level).mean():.0%}") for level in _LEVELS
        ],
        "markers": [
            (str(gene), known[str(gene)], f"{row.r_expected:.2f}",
             f"{row.r_expected_low:.2f} to {row.r_expected_high:.2f}", f"{row.p_good:.0%}")
            for gene, row in good.loc[shown].iterrows()
        ],
        "n_markers": len(markers),
        "n_good": len(good),
        "picture": _maps(subject, shown[:_DRAWN]),
    }  # fmt: skip
    del subject.slide.obsm[IMPUTED]  # spots × thousands of genes
    return section


def _maps(subject: Subject, genes: list[str]) -> dict[str, object] | None:
    if not genes:
        return None
    slide = subject.slide
    first = slide[subject.codes == 0].copy() if subject.n_sections > 1 else slide
    rows = imputed(first, genes, layer=subject.layer, show=False)
    caption = f"Predicted, not measured: {', '.join(genes)}.{subject.which}"
    return figure_png(rows[0][0].figure, caption, colors=_COLORS)  # type: ignore[arg-type]
