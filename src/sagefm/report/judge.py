"""Judge what a slide shows of a model: facts, grades, and verdicts with reasons."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sagefm import __version__
from sagefm._adaptation import can_adapt
from sagefm._errors import InputError
from sagefm._keys import QUALITY
from sagefm._uns import record
from sagefm.pp.counts import find_counts
from sagefm.report.recovery import (
    GENE_MEAN,
    LIBRARY_SIZE,
    MODEL,
    NEIGHBOR_MEAN,
    UNADAPTED,
    Recovery,
    recover,
)
from sagefm.report.rules import NOVEL, RULE, USES, Grade, verdict
from sagefm.report.training_slides import Comparison, compare

if TYPE_CHECKING:
    from anndata import AnnData

    from sagefm.model import SageFM
    from sagefm.pp.aligned import AlignedSlide

_DISTANCES = ("novelty", "novel")


@dataclass(frozen=True)
class Quality:
    """Facts about a slide and about a model on it, and the verdicts that follow from them."""

    facts: pd.DataFrame
    """A row per fact: what, value, shown (the value as text), expected (from the training data, if
    known), grade (good, care, bad, unknown), said (one sentence)."""
    verdicts: pd.DataFrame
    """A row per use: verdict (supported, with care, not shown, do not) and reason. Empty without a
    model."""
    methods: pd.DataFrame
    """A row per method that predicts masked genes, the best first: error (mean squared, log1p
    counts) and r (median over genes of the correlation within the slide). Empty without a model."""
    genes: pd.DataFrame
    """A row per gene for the model and for the neighbor mean: gene, method, detected (fraction of
    spots), mse, r_within. Empty without a model."""
    spots: pd.DataFrame
    """A row per spot: counts, genes, and with a model novelty, error and error_neighbor_mean (mean
    squared, over its masked genes). NaN if not known."""
    made: dict[str, Any]
    """How: model, fingerprint, matched genes, mask_fraction, seed, version."""


def quality(
    slide: "AnnData",
    model: "SageFM | None" = None,
    *,
    mask_fraction: float = 0.3,
    adapt: bool = True,
    seed: int = 0,
    layer: str | None = None,
    slide_key: str | None = None,
    compare_unadapted: bool = False,
) -> Quality:
    """Judge what a slide shows of a model: where it works, fails, or nothing is known.

    The facts are the library sizes and genes of the slide, how many of the genes of the model it
    has, its distance from the training spots, how its technology, set of genes, depth and pitch
    compare with those of the training slides that the model records, and how well the model
    predicts masked genes, compared with the simple methods of :func:`sagefm.evaluate.recovery` that
    need no other slide.
    The rules are :data:`sagefm.report.rules.RULES`. Masked genes are evidence for imputation only.
    For embedding, domains and perturbation the verdict is *not shown*, or *do not* where a fact
    speaks against the model.

    Parameters
    ----------
    slide
        Raw counts and ``obsm["spatial"]``.
    model
        A model; without one only library sizes and genes are graded, and there is no verdict.
    mask_fraction
        Fraction of the measured genes to mask in each spot: 0.3 as in the paper.
    adapt
        Whether masked genes are predicted as :func:`sagefm.tl.impute` does, by weights that were
        adapted to the slide on other spots, where the network can be adapted.
    seed
        Seed of the masks, and of the adaptation.
    layer, slide_key
        As for :meth:`sagefm.SageFM.prepare`. Several slides in one object are judged together, each
        with its own neighbors and its own mean.
    compare_unadapted
        Whether `methods` has the model without adaptation too, if it is adapted.

    Returns
    -------
    The facts and the verdict. Sets ``obsm["sagefm_quality"]`` (DataFrame, `spots`) and
    ``uns["sagefm"]["quality"]`` (the other tables, and how they were made).

    Raises
    ------
    InputError
        `mask_fraction` is not between 0 and 1, or as :meth:`sagefm.SageFM.prepare`.
    """
    if not 0 < mask_fraction < 1:
        raise InputError(f"mask_fraction={mask_fraction}: give a fraction above 0 and below 1")
    matrix = find_counts(slide, layer).matrix
    counts = np.asarray(matrix.sum(axis=1), dtype=np.float64).ravel()
    n_genes = np.asarray((matrix > 0).getnnz(axis=1), dtype=np.float64)
    spots = pd.DataFrame({"counts": counts, "genes": n_genes}, index=slide.obs_names)
    values = {
        "spots": float(len(counts)), "counts": float(np.median(counts)),
        "genes": float(np.median(n_genes)),
    }  # fmt: skip
    made: dict[str, Any] = {"mask_fraction": mask_fraction, "seed": seed, "sagefm": __version__}
    trained, recovery = Comparison(), None
    if model is not None:
        prepared = model.prepare(slide, layer=layer, slide_key=slide_key)
        values["model_genes"] = float(prepared.measured.mean())
        values["model_counts"] = prepared.fraction_of_counts
        spots["novelty"], profile = _placed(model, prepared)
        values["novelty"] = float(np.median(spots["novelty"]))
        values["novel"] = _fraction_above(spots["novelty"], NOVEL)
        trained = compare(slide, model, prepared, profile)
        values |= trained.values
        recovery = recover(
            slide, model, prepared, mask_fraction=mask_fraction, seed=seed, layer=layer,
            slide_key=slide_key, adapt=adapt and can_adapt(model.network),
            compare_unadapted=compare_unadapted,
        )  # fmt: skip
        compared, trained.words["best"] = _compared(recovery)
        values |= compared
        for column, name in (("error", MODEL), ("error_neighbor_mean", NEIGHBOR_MEAN)):
            spots[column] = np.nan if recovery is None else recovery.errors[name]
        made |= {
            "model": repr(model), "fingerprint": model.fingerprint, "matched": prepared.summary,
        }  # fmt: skip
    judged = _judged(values, trained, model, spots, recovery, made)
    _store(slide, judged)
    return judged


def _placed(model: "SageFM", prepared: "AlignedSlide") -> tuple[Any, Any]:
    """Compute the novelty of each spot and the mean of their embeddings.

    NaN and None if the model file has no sample of training spots.
    """
    if model.trained_on is None:
        return np.full(len(prepared.neighbors), np.nan), None
    z = model.embed(prepared)
    return model.trained_on.novelty(z), model.trained_on.reduce(z).mean(axis=0)


def _fraction_above(values: "pd.Series[float]", bound: float) -> float:
    return float((values > bound).mean()) if values.notna().all() else float("nan")


def _compared(recovery: Recovery | None) -> tuple[dict[str, float], str]:
    """Compare the model with the simple methods, and get the name of the best of these."""
    if recovery is None:
        names = ("error_gene_mean", "error_neighbor_mean", "error_best", "r_neighbor_mean",
                 "r_depth")  # fmt: skip
        return dict.fromkeys(names, float("nan")), ""
    error, r = recovery.methods["error"], recovery.methods["r"]
    best = str(error.drop([MODEL, UNADAPTED], errors="ignore").idxmin())
    others = {"gene_mean": GENE_MEAN, "neighbor_mean": NEIGHBOR_MEAN, "best": best}
    compared = {
        f"error_{key}": float(error[MODEL] / max(float(error[name]), 1e-12))
        for key, name in others.items()
    }
    for key, name in (("neighbor_mean", NEIGHBOR_MEAN), ("depth", LIBRARY_SIZE)):
        compared[f"r_{key}"] = float(r[MODEL] - r[name])
    return compared, best


def _judged(
    values: dict[str, float], trained: Comparison, model: "SageFM | None", spots: pd.DataFrame,
    recovery: Recovery | None, made: dict[str, Any],
) -> Quality:  # fmt: skip
    """Grade every value, and judge the slide for every use."""
    expected = _expected(model) | trained.expected
    rows, graded = {}, dict[str, tuple[Grade, str]]()
    for name, value in values.items():
        rule = RULE[name]
        grade = rule.grade(value)
        if name in _DISTANCES and grade == "bad" and _of_one_group(model):
            grade = "care"  # compared with distances within one slide, all other slides are far
        said = rule.said[grade].format(**trained.words)
        graded[name] = grade, said
        shown = "not known" if np.isnan(value) else rule.form.format(value)
        rows[name] = [rule.what, value, shown, expected.get(name, ""), grade, said]
    columns = ["what", "value", "shown", "expected", "grade", "said"]
    facts = pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("fact")
    judged = {use: verdict(use, graded) for use in USES if model is not None}
    verdicts = pd.DataFrame.from_dict(judged, orient="index", columns=["verdict", "reason"])
    methods = pd.DataFrame(columns=["error", "r"]) if recovery is None else recovery.methods
    genes = pd.DataFrame(columns=["gene", "method", "detected", "mse", "r_within"])
    if recovery is not None:
        kept = recovery.genes["method"].isin([MODEL, NEIGHBOR_MEAN])
        genes = recovery.genes.loc[kept, genes.columns].reset_index(drop=True)
    return Quality(facts, verdicts.rename_axis("use"), methods, genes, spots, made)


def _of_one_group(model: "SageFM | None") -> bool:
    return bool(model and model.trained_on and model.trained_on.n_groups == 1)


def _expected(model: "SageFM | None") -> dict[str, str]:
    """Describe the values of the training data, as far as the model file has them."""
    expected: dict[str, str] = {}
    if model is None:
        return expected
    if (reference := model.trained_on) is not None:
        where = (
            "within its one slide"
            if reference.n_groups == 1
            else f"between its own {reference.n_groups} patients or slides"
        )
        expected["novelty"], expected["novel"] = f"0.50 {where}", f"{1 - NOVEL:.0%} {where}"
    loss = model.provenance.get("validation_loss")
    for name in ("gene_mean", "neighbor_mean"):
        other = model.provenance.get(f"{name}_loss")
        if isinstance(loss, float) and isinstance(other, float) and other:
            expected[f"error_{name}"] = f"{loss / other:.2f} × in its validation, over all genes"
    return expected


def _store(slide: "AnnData", judged: Quality) -> None:
    """Store the result in the slide."""
    tables = {"facts": judged.facts, "verdicts": judged.verdicts, "methods": judged.methods,
              "genes": judged.genes}  # fmt: skip
    slide.obsm[QUALITY] = judged.spots.copy()
    record(slide, "quality", {
        **{name: table.copy() for name, table in tables.items() if len(table)}, **judged.made,
    })  # fmt: skip
