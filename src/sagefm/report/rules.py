"""When a slide is good enough for a model, and when not: every threshold, once, with its reason."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from sagefm.pp.check import LOW_DEPTH

Grade = Literal["good", "care", "bad", "unknown"]

EMBEDDING, PREDICTION = "embedding and domains", "imputation and perturbation"
USES = (EMBEDDING, PREDICTION)
"""What a slide is judged for."""
VERDICTS = {"good": "trust", "care": "with care", "bad": "do not"}
NOVEL = 0.95
"""Novelty above which a spot counts as unlike what was trained on."""
_BEYOND = {
    EMBEDDING: "Run sagefm evaluate to see whether it beats principal components.",
    PREDICTION: "Run sagefm impute to see how far each gene can be trusted.",
}
"""What a good verdict does not say."""
_WORST = ("good", "care", "bad")


@dataclass(frozen=True)
class Rule:
    """How one number about a slide is graded, and what the grade says.

    Attributes
    ----------
    name, what
        Key of the fact, and what it is called in tables.
    good, care
        The bounds: at least `good` is good, at least `care` is care, the rest is bad (at most,
        where `less`).
    less
        Whether less is better.
    why
        Reason of the bounds.
    said
        A sentence for each grade.
    uses
        Which verdicts it counts for.
    form
        How the number is written.
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
        """Write the two bounds for people; empty where there is no such bound."""
        side = "at most" if self.less else "at least"
        good, care = (
            f"{side} {self.form.format(bound)}" if np.isfinite(bound) else "always"
            for bound in (self.good, self.care)
        )
        return good, care


_NOTHING = "No gene is detected in more than 10 % of the spots: nothing to score."
_SHARE, _RATIO, _R = "{:.0%}", "{:.2f} ×", "{:+.2f}"

RULES = (
    Rule(
        "spots", "spots", 200, 50,
        "the standard error of a correlation is 0.07 over 200 spots and 0.14 over 50",
        {
            "good": "Enough spots for correlations within the slide.",
            "care": "Few spots: correlations within the slide are rough.",
            "bad": "Too few spots: correlations within the slide say nothing.",
        },
    ),
    Rule(
        "counts", "counts per spot (median)", 1000, LOW_DEPTH,
        f"Visium slides have thousands; below {LOW_DEPTH} a spot is mostly counting noise",
        {
            "good": "Deep enough.",
            "care": "Shallow: much of what a spot shows is counting noise.",
            "bad": "Very shallow: most of what a spot shows is counting noise.",
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
        "at a quarter most of the input is missing; the published network takes it as zero",
        {
            "good": "The slide has most of the model's genes.",
            "care": "Many of the model's genes were not measured.",
            "bad": "Most of the model's genes were not measured.",
        },
        form=_SHARE,
    ),
    Rule(
        "model_counts", "counts that the model sees", 0.7, 0.4,
        "counts on genes that the model does not know are lost to it",
        {
            "good": "The model sees most of the counts.",
            "care": "A good part of the counts lies on genes that the model does not know.",
            "bad": "Most of the counts lie on genes that the model does not know.",
        },
        form=_SHARE,
    ),
    Rule(
        "novelty", "novelty (median)", 0.9, NOVEL,
        "0.5 is as far as training patients lie from each other; a patient that was only "
        "validated on had up to 0.66. Near does not prove known",
        {
            "good": "No farther from the training spots than their patients from each other.",
            "care": "Most spots are farther from the training spots than these from each other.",
            "bad": "Most spots are unlike anything that the model was trained on.",
            "unknown": "The model file does not say what the model was trained on.",
        },
        less=True, form="{:.2f}",
    ),
    Rule(
        "novel", f"spots of novelty above {NOVEL}", 0.3, 0.5,
        "5 % of the training spots; a patient that was only validated on had up to 28 %",
        {
            "good": "Few spots are unlike what the model was trained on.",
            "care": "Some regions are unlike anything that the model was trained on: see the map.",
            "bad": "Most spots are unlike anything that the model was trained on.",
            "unknown": "The model file does not say what the model was trained on.",
        },
        less=True, form=_SHARE,
    ),
    Rule(
        "error_gene_mean", "error on masked genes, against the gene mean", 1.0, 2.0,
        "the gene's mean over this slide knows nothing of the spot",
        {
            "good": "The model predicts masked genes better than one number per gene.",
            "care": "The model predicts masked genes worse than one number per gene: it is off in "
            "the level of this slide.",
            "bad": "The model predicts masked genes far worse than one number per gene: it does "
            "not know this kind of slide.",
            "unknown": _NOTHING,
        },
        less=True, form=_RATIO,
    ),
    Rule(
        "error_neighbor_mean", "error on masked genes, against the neighbor mean", 1.0, 1.02,
        "the mean of the neighbors needs no model; within 2 % the two are the same",
        {
            "good": "The model predicts masked genes better than the mean of the neighbors.",
            "care": "The mean of the neighbors predicts masked genes as well.",
            "bad": "Do not rely on predictions: the mean of the neighbors predicts masked genes "
            "better here.",
            "unknown": _NOTHING,
        },
        less=True, uses=(PREDICTION,), form=_RATIO,
    ),
    Rule(
        "error_best", "error on masked genes, against the best simple method", 1.0, np.inf,
        "a method that needs no training and is better is the one to use",
        {
            "good": "No simple method predicts masked genes better.",
            "care": "A simple method predicts masked genes better: {best}.",
            "unknown": _NOTHING,
        },
        less=True, uses=(PREDICTION,), form=_RATIO,
    ),
    Rule(
        "r_neighbor_mean", "correlation on masked genes, above the neighbor mean", 0.0, -0.05,
        "the pattern over spots; compared with an r of 0.2 to 0.6, 0.05 is little",
        {
            "good": "The model follows the pattern of masked genes better than the neighbors do.",
            "care": "The mean of the neighbors follows the pattern of masked genes a bit better.",
            "bad": "The mean of the neighbors follows the pattern of masked genes better.",
            "unknown": _NOTHING,
        },
        uses=(PREDICTION,), form=_R,
    ),
    Rule(
        "r_depth", "correlation on masked genes, above depth alone", 0.0, -0.05,
        "the slide's mean profile, scaled to the visible counts of a spot, knows no biology of it",
        {
            "good": "The model follows the pattern of masked genes better than depth alone.",
            "care": "Depth alone follows the pattern of masked genes a bit better.",
            "bad": "Depth alone (the slide's mean profile, scaled to the counts of the spot) "
            "follows the pattern of masked genes better.",
            "unknown": _NOTHING,
        },
        uses=(PREDICTION,), form=_R,
    ),
)  # fmt: skip
RULE = {rule.name: rule for rule in RULES}


def verdict(use: str, graded: Mapping[str, tuple[Grade, str]]) -> tuple[str, str]:
    """Judge a slide for a use: by the worst of its grades, an unknown one counted as care.

    Parameters
    ----------
    use
        One of :data:`USES`.
    graded
        Name of a rule → grade and sentence.

    Returns
    -------
    trust, with care, or do not; and the sentences that say why.
    """
    own = {name: found for name, found in graded.items() if use in RULE[name].uses}
    levels = {name: "care" if grade == "unknown" else grade for name, (grade, _) in own.items()}
    worst = max(levels.values(), key=_WORST.index)
    if worst == "good":
        return VERDICTS[worst], f"All that is checked is good. {_BEYOND[use]}"
    why: Sequence[str] = [said for name, (_, said) in own.items() if levels[name] == worst]
    return VERDICTS[worst], " ".join(dict.fromkeys(why))
