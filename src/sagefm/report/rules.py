"""The rules for grading a slide and a model on it: every threshold with its reason."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from sagefm.pp.check import LOW_DEPTH

Grade = Literal["good", "care", "bad", "unknown"]

IMPUTATION, EMBEDDING, PERTURBATION = "imputation", "embedding and domains", "perturbation"
USES = (IMPUTATION, EMBEDDING, PERTURBATION)
"""The uses that a slide is judged for."""
VERDICTS: dict[Grade, str] = {
    "good": "supported", "care": "with care", "bad": "do not", "unknown": "not shown"
}  # fmt: skip
GRADES: dict[str, Grade] = {word: grade for grade, word in VERDICTS.items()}
NOVEL = 0.95
"""Novelty above which a spot counts as unlike the training spots."""
_SUPPORTED = (
    "No simple method predicts masked genes of this slide better. Run sagefm impute for the "
    "correlation of each gene."
)
_NOT_MEASURED = {
    EMBEDDING: "No number here shows that the embedding is better than principal components: "
    "compare both on labels (sagefm evaluate).",
    PERTURBATION: "No number here shows that a predicted response is right: masked genes are "
    "no experiment.",
}
"""Uses that predicted masked genes are no evidence for, and why."""
_WORST = ("good", "care", "bad")


@dataclass(frozen=True)
class Rule:
    """The rule by which one number about a slide is graded.

    Attributes
    ----------
    name, what
        Key of the fact, and its name in tables.
    good, care
        The bounds: at least `good` is good, at least `care` is care, the rest is bad (at most,
        where `less`).
    less
        Whether smaller values are better.
    why
        Reason of the bounds.
    said
        A sentence for each grade.
    uses
        The uses whose verdict depends on it.
    form
        Format of the number.
    required
        Whether a missing value counts as care.
    """

    name: str
    what: str
    good: float
    care: float
    why: str
    said: Mapping[Grade, str]
    less: bool = False
    uses: tuple[str, ...] = USES
    form: str = "{:,.0f}"
    required: bool = True

    def grade(self, value: float) -> Grade:
        """Grade a value; a missing one is unknown."""
        if np.isnan(value):
            return "unknown"
        sign = -1 if self.less else 1
        if sign * value >= sign * self.good:
            return "good"
        return "care" if sign * value >= sign * self.care else "bad"

    @property
    def bounds(self) -> tuple[str, str]:
        """Format the two bounds as text."""
        side = "at most" if self.less else "at least"
        good, care = (
            f"{side} {self.form.format(bound)}" if np.isfinite(bound) else "always"
            for bound in (self.good, self.care)
        )
        return good, care


_NOTHING = "No gene is detected in more than 10 % of the spots: nothing to score."
_PERCENT, _RATIO, _R = "{:.0%}", "{:.2f} ×", "{:+.2f}"

RULES = (
    Rule(
        "spots", "spots", 200, 50,
        "the standard error of a correlation is 0.07 over 200 spots and 0.14 over 50",
        {
            "good": "Enough spots for correlations within the slide.",
            "care": "Few spots: correlations within the slide are imprecise.",
            "bad": "Too few spots: correlations within the slide are meaningless.",
        },
    ),
    Rule(
        "counts", "counts per spot (median)", 1000, LOW_DEPTH,
        f"Visium slides have thousands; below {LOW_DEPTH} a spot is mostly counting noise",
        {
            "good": "Enough counts per spot.",
            "care": "Few counts per spot: much of the variation is counting noise.",
            "bad": "Very few counts per spot: most of the variation is counting noise.",
        },
    ),
    Rule(
        "genes", "genes per spot (median)", 500, 200,
        "spots with fewer than 200 genes are usually left out before any analysis",
        {
            "good": "Enough genes are detected.",
            "care": "Few genes are detected.",
            "bad": "So few genes are detected that such spots are usually left out.",
        },
    ),
    Rule(
        "model_genes", "genes of the model that the slide has", 0.8, 0.25,
        "below a quarter most of the input is missing, which the published network treats as zero",
        {
            "good": "The slide has most of the model's genes.",
            "care": "Many of the model's genes were not measured.",
            "bad": "Most of the model's genes were not measured.",
        },
        form=_PERCENT,
    ),
    Rule(
        "model_counts", "counts that the model uses", 0.7, 0.4,
        "the model cannot use counts of genes that are not in its vocabulary",
        {
            "good": "The model uses most of the counts.",
            "care": "Many counts are of genes that are not in the vocabulary of the model.",
            "bad": "Most counts are of genes that are not in the vocabulary of the model.",
        },
        form=_PERCENT,
    ),
    Rule(
        "novelty", "novelty (median)", 0.9, NOVEL,
        "0.5 is as far as training patients are from each other; a patient of the validation "
        "set had up to 0.66. A small distance does not prove that predictions are right",
        {
            "good": "Not farther from the training spots than their patients are from each other.",
            "care": "Most spots are farther from them than training patients are from each other.",
            "bad": "Most spots are unlike anything that the model was trained on.",
            "unknown": "The model file does not say what the model was trained on.",
        },
        less=True, form="{:.2f}",
    ),
    Rule(
        "novel", f"spots of novelty above {NOVEL}", 0.3, 0.5,
        "5 % of the training spots; a patient of the validation set had up to 28 %",
        {
            "good": "Few spots are unlike the training spots.",
            "care": "Some regions of the slide are unlike all training spots: see the map.",
            "bad": "Most spots are unlike anything that the model was trained on.",
            "unknown": "The model file does not say what the model was trained on.",
        },
        less=True, form=_PERCENT,
    ),
    Rule(
        "recorded", "training slides that the model records", 1, -np.inf,
        "without records nothing is known of the technology, genes and depth that it has seen",
        {
            "good": "Organs of the training slides: {organs}.",
            "care": "The model file does not record the kinds of slides it was trained on: "
            "technology, genes and depth cannot be compared with them.",
        },
        uses=(),
    ),
    Rule(
        "nearest_slide", "distance of the nearest training slide, as a rank", 0.9, np.inf,
        "the fraction of training slides that are nearer to one of another patient, by their mean "
        "embeddings; every patient counts the same",
        {
            "good": "Nearest training slides: {nearest}.",
            "care": "Unlike the training slides, in tissue, technology or depth; the nearest are "
            "{nearest}.",
            "unknown": "The model file does not say where its training slides lie.",
        },
        less=True, form="{:.2f}", required=False,
    ),
    Rule(
        "same_array", "training slides of the same technology", 1, -np.inf,
        "inferred from barcodes, grid and pitch of the spots, for both; what a technology changes "
        "can only be learned from slides of it",
        {
            "good": "Technology, as barcodes and grid show it: {array}, that of {same_array}.",
            "care": "Technology, as barcodes and grid show it: {array}, that of no training slide.",
            "unknown": "Its technology is unknown: barcodes, grid and pitch do not show it.",
        },
        required=False,
    ),
    Rule(
        "same_gene_set", "training slides with such a set of genes", 1, -np.inf,
        "probes, panels and whole transcriptomes have other library sizes and leave out other "
        "genes",
        {
            "good": "Genes: {gene_set}, as in {same_gene_set}; which ones is not compared.",
            "care": "Genes: {gene_set}, as in no training slide.",
        },
        required=False,
    ),
    Rule(
        "range_counts", "counts per spot, relative to the range of the training slides", 2.0,
        np.inf, "sections of one patient differ by a factor of 2",
        {
            "good": "{counts} counts per spot are within or near the range of the training slides.",
            "care": "{counts} counts per spot are far outside the range of the training slides.",
        },
        less=True, form=_RATIO, required=False,
    ),
    Rule(
        "range_measured", "genes measured, relative to the range of the training slides", 1.1,
        np.inf, "1 is within; sections of one study differ by less than 10 %",
        {
            "good": "{measured} of the vocabulary was measured, within the range of the training "
            "slides.",
            "care": "{measured} of the vocabulary was measured, outside the range of the training "
            "slides.",
        },
        less=True, form=_RATIO, required=False,
    ),
    Rule(
        "range_pitch_um", "pitch of the spots, relative to the range of the training slides", 1.1,
        np.inf, "1 is within; at another pitch a neighborhood holds other cells",
        {
            "good": "Spots {pitch_um} apart, within the range of the training slides.",
            "care": "Spots {pitch_um} apart, outside the range of the training slides.",
            "unknown": "The slide does not say how far its spots are apart in micrometers.",
        },
        less=True, form=_RATIO, required=False,
    ),
    Rule(
        "error_gene_mean", "error on masked genes, relative to the gene mean", 1.0, 2.0,
        "the mean of the gene over this slide is the same for all spots",
        {
            "good": "The model predicts masked genes better than one number per gene.",
            "care": "The model predicts masked genes worse than one number per gene: it does not "
            "predict the level of expression on this slide.",
            "bad": "The model predicts masked genes far worse than one number per gene: this kind "
            "of slide was not in its training data.",
            "unknown": _NOTHING,
        },
        less=True, form=_RATIO,
    ),
    Rule(
        "error_neighbor_mean", "error on masked genes, relative to the neighbor mean", 1.0, 1.02,
        "the mean of the neighbors needs no model; within 2 % the two are the same",
        {
            "good": "The model predicts masked genes better than the mean of the neighbors.",
            "care": "The mean of the neighbors predicts masked genes as well.",
            "bad": "Do not rely on predictions: the mean of the neighbors predicts masked genes "
            "better here.",
            "unknown": _NOTHING,
        },
        less=True, uses=(IMPUTATION, PERTURBATION), form=_RATIO,
    ),
    Rule(
        "error_best", "error on masked genes, relative to the best simple method", 1.0, np.inf,
        "if a method without training is better, use that method",
        {
            "good": "No simple method predicts masked genes better.",
            "care": "A simple method predicts masked genes better: {best}.",
            "unknown": _NOTHING,
        },
        less=True, uses=(IMPUTATION, PERTURBATION), form=_RATIO,
    ),
    Rule(
        "r_neighbor_mean", "correlation on masked genes, minus that of the neighbor mean", 0.0,
        -0.05,
        "the pattern over spots; 0.05 is little compared with a usual r of 0.2 to 0.6",
        {
            "good": "The model follows the pattern of masked genes better than the neighbors do.",
            "care": "The mean of the neighbors follows the pattern of masked genes a bit better.",
            "bad": "The mean of the neighbors follows the pattern of masked genes better.",
            "unknown": _NOTHING,
        },
        uses=(IMPUTATION, PERTURBATION), form=_R,
    ),
    Rule(
        "r_depth", "correlation on masked genes, minus that of library size", 0.0, -0.05,
        "the mean profile of the slide, scaled to the counts of a spot, has no biology of the spot",
        {
            "good": "The model follows the pattern of masked genes better than library size does.",
            "care": "Library size alone follows the pattern of masked genes a bit better.",
            "bad": "Library size alone (the mean profile of the slide, scaled to the counts of the "
            "spot) follows the pattern of masked genes better.",
            "unknown": _NOTHING,
        },
        uses=(IMPUTATION, PERTURBATION), form=_R,
    ),
)  # fmt: skip
RULE = {rule.name: rule for rule in RULES}


def verdict(use: str, graded: Mapping[str, tuple[Grade, str]]) -> tuple[str, str]:
    """Judge a slide for a use by the worst of its grades.

    An unknown grade counts as care where the rule requires a value, and not at all elsewhere.

    A slide and its masked genes can show that a model fails. That it works they show for
    imputation only: other uses are at best not shown.

    Parameters
    ----------
    use
        One of :data:`USES`.
    graded
        Name of a rule → grade and sentence.

    Returns
    -------
    supported, with care, not shown, or do not; and the reasons, as sentences.
    """
    relevant = {name: pair for name, pair in graded.items() if use in RULE[name].uses}
    missing: dict[bool, Grade] = {True: "care", False: "good"}
    levels = {
        name: missing[RULE[name].required] if grade == "unknown" else grade
        for name, (grade, _) in relevant.items()
    }
    worst = max(levels.values(), key=_WORST.index)
    why = [said for name, (_, said) in relevant.items() if levels[name] == worst != "good"]
    if worst != "bad" and use in _NOT_MEASURED:
        return VERDICTS["unknown"], " ".join(dict.fromkeys([_NOT_MEASURED[use], *why]))
    return VERDICTS[worst], " ".join(dict.fromkeys(why)) or _SUPPORTED
