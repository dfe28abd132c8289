"""Predict the subtype of patients from the spots of their slides."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

import numpy as np
import pandas as pd
from scipy.special import softmax

from sagefm import __version__
from sagefm._as_model import as_model
from sagefm._errors import InputError
from sagefm._keys import SUBTYPE_EVIDENCE
from sagefm._types import Codes, Floats
from sagefm._uns import record
from sagefm.pp.gene_names import known_gene_names
from sagefm.pp.slide_record import without_records
from sagefm.stats.outcomes.folds import (
    MIN_PATIENTS,
    N_PERMUTATIONS,
    PSEUDOBULK,
    Fold,
    Samples,
    class_sizes,
    classes_of_patients,
    describe_sizes,
    out_of_fold,
    permute,
    pseudobulk,
)
from sagefm.stats.outcomes.score import evaluate, scores
from sagefm.tl.patients import PatientSlide, Readout, SlideSource
from sagefm.tl.subtyping._evidence import contrasts, gene_slopes, spot_evidence
from sagefm.tl.subtyping._readouts import Pooling, fit_readouts
from sagefm.tl.subtyping._slides import SubtypedSlide, embed_slides

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData

    from sagefm.model import SageFM

MOST_FREQUENT = "most frequent class"
_SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Subtypes:
    """Result of :func:`subtype`; as text, a summary."""

    patients: pd.DataFrame
    """A row per patient: n_slides, truth (missing where unknown), predicted, probability_<class>,
    log_odds and its intercept (of the predicted class against the mean of the others),
    held_out (whether the patient was left out of the fit that predicts it)."""
    score: "pd.Series[float]"
    """n_patients, auroc with auroc_low and auroc_high, accuracy, balanced_accuracy, p,
    n_permutations; its name is the pooling."""
    baseline: pd.DataFrame
    """The same for pseudobulk PCA and the most frequent class."""
    genes: pd.DataFrame
    """A row per class and gene: class, gene, weight, slope, spread, measured."""
    evidence: pd.DataFrame
    """A row per spot: slide, spot, evidence."""

    def __str__(self) -> str:
        """Summarize the scores of the model and the baselines, a line each."""
        truth = self.patients["truth"].dropna()
        sizes = describe_sizes(class_sizes(truth))
        lines = [f"{len(truth)} patients ({sizes}), one left out at a time"]
        if n_unknown := len(self.patients) - len(truth):
            lines[0] += f"; {n_unknown} without a subtype predicted"
        for row in (self.score, *(row for _, row in self.baseline.iterrows())):
            lines.append(f"{row.name}: {_describe(row)}")
        if self.score["auroc"] <= self.baseline["auroc"][PSEUDOBULK]:
            lines.append(f"{PSEUDOBULK}, which needs no model, does as well or better")
        return "\n".join(lines)


def subtype(
    slides: "Mapping[str, AnnData] | AnnData",
    model: "SageFM | str | Path",
    key: str | Mapping[str, str | None],
    *,
    pooling: Pooling = "mean",
    patient_key: str = "patient",
    patients: Mapping[str, str] | None = None,
    n_permutations: int = N_PERMUTATIONS,
    seed: int = 0,
    layer: str | None = None,
    slide_key: str | None = None,
    key_added: str = SUBTYPE_EVIDENCE,
    progress: Callable[[str], object] | None = None,
) -> Subtypes:
    """Predict the subtype of patients from slides, and score and explain the predictions.

    A patient is one observation: the features of its slides are averaged. Each patient in turn is
    left out, and everything (components and probe) is fitted to the others. The probe is a logistic
    regression (C = 1, balanced classes) on at most 10 principal components of standard deviation 1.
    Patients without a subtype are predicted by a fit to all others.

    Parameters
    ----------
    slides
        Name → slide with raw counts and ``obsm["spatial"]``, or one object with several slides.
        They are iterated over twice; a mapping that reads its slides from disk, such as
        :class:`sagefm.evaluate.Cohort`, keeps one at a time in memory. In addition, ``"mean"``
        keeps a row per slide and ``"quantiles"`` the embedding of every spot.
    model
        A model, or its path or address; ``"default"`` is that of the package.
    key
        ``obs`` column, the same in all spots of a slide; or slide → subtype. Slides without a value
        are not trained on. A patient none of whose slides has one is predicted.
    pooling
        How the spots of a slide become features. ``"mean"``: the mean embedding. ``"quantiles"``:
        for each of 10 principal components of spots (fitted to 128 spots of each slide) the mean of
        the lowest, the middle and the highest fifth of the spots, in place of the quantiles at 10,
        50 and 90 %; they capture what only some spots have.
    patient_key, patients
        ``obs`` column with the patient; or slide → patient. A slide without the column is a
        patient of its own.
    n_permutations
        Permutations of the subtypes over patients, each with the whole leave-one-out.
    seed
        Of all random numbers.
    layer, slide_key
        As for :meth:`sagefm.SageFM.prepare`.
    key_added
        Where in ``obs`` the evidence goes.
    progress
        Called with a line per slide.

    Returns
    -------
    A :class:`Subtypes`.

    - `patients`: a patient with a subtype is predicted by the fit that left it out.
    - `score`: area under the ROC curve (each class against all others, averaged) with a bootstrap
      interval over patients (95 %, resampled within classes), accuracy, balanced accuracy, and p of
      the area by permutation. Without any signal the area of a leave-one-out lies below 0.5:
      compare it with the permutations (p), not with 0.5.
    - `baseline`: the same for principal components of pseudobulk (log1p of counts per million of
      the model's genes that all slides have) with the same probe and permutations, and for
      predicting the most frequent class for all patients.
    - `evidence`: what each spot adds to the log-odds of the predicted class against the mean of
      the other classes. Summed over the spots of a patient, it is exactly `log_odds` minus
      `intercept`.
    - `genes`: `slope`, the increase of the log-odds of a class against the mean of the others per
      unit of log1p counts, if the gene is raised in all spots (the derivative through network and
      pooling in the fit to all patients, averaged over patients with a subtype); `spread`, the
      standard deviation between these patients of its mean log1p counts; `weight`, slope × spread;
      `measured`, the fraction of their slides that measured the gene: below 1, a gene that was not
      measured cannot be distinguished from one that is not expressed. Sorted by class and size of
      weight.

    Sets ``obs["sagefm_subtype_evidence"]`` and ``uns["sagefm"]["subtype"]`` of each object.

    Raises
    ------
    InputError
        A class has fewer than 3 patients, or there is one class only; no slide has a subtype; a
        slide or a patient has several; a slide is duplicated; an option is out of range; or as
        :meth:`sagefm.SageFM.prepare`.

    Notes
    -----
    A slope describes the prediction, not the biology of the subtype. With few patients, other genes
    that are correlated with these would serve the probe as well.
    """
    model = as_model(model)
    if pooling not in get_args(Pooling):
        raise InputError(f"pooling={pooling!r}: choose one of {', '.join(get_args(Pooling))}")
    if n_permutations < 1:
        raise InputError(f"n_permutations={n_permutations}: give a whole number from 1 on")
    source = SlideSource(slides, layer, slide_key, patient_key, patients)
    report = progress or (lambda _: None)
    embedded = embed_slides(source, model, key, keep_spots=pooling != "mean", progress=report)
    label = key if isinstance(key, str) else "subtypes"
    training = [one for one in embedded if one.subtype is not None]
    samples = _samples(label, training)
    labelings = permute(samples.truth, n_permutations, seed)
    report(f"{pooling} pooling: {len(samples.names)} patients, {n_permutations} permutations")
    owners = np.array([samples.names.index(one.patient) for one in training])
    probabilities, readouts = fit_readouts(
        [one.z for one in training], owners, samples, labelings, pooling, seed
    )
    table = _patients(embedded, samples, readouts)
    facts = {
        "key": key_added, "subtype_key": key if isinstance(key, str) else "", "pooling": pooling,
        "seed": seed, "predicted": table["predicted"].to_dict(), "model": repr(model),
        "fingerprint": model.fingerprint,
        "model_provenance": json.dumps(without_records(model.provenance)),
        "gene_names": known_gene_names().version, "sagefm": __version__,
    }  # fmt: skip
    evidence, slopes = [], []
    current: AnnData | None = None
    for one, of_spots, of_genes in _explain(source, model, embedded, samples, readouts, table):
        report(f"slide {one.number}: evidence")
        evidence.append(of_spots)
        if of_genes is not None:
            slopes.append(of_genes)
        if one.section.slide is not current:
            current, column = one.section.slide, np.full(one.section.slide.n_obs, np.nan)
            record(current, "subtype", facts)
        column[one.rows] = of_spots["evidence"]
        current.obs[key_added] = column
    return Subtypes(
        table,
        _score(f"{pooling} pooling", probabilities, labelings, seed),
        _baseline(training, samples, labelings, seed),
        _genes(model, training, slopes, owners, samples),
        pd.concat(evidence, ignore_index=True),
    )


def _samples(label: str, training: Sequence[SubtypedSlide]) -> Samples:
    """Make a sample of each patient with a subtype."""
    subtypes = {one.name: str(one.subtype) for one in training}
    classes = classes_of_patients(label, subtypes, [one.patient for one in training])
    sizes = class_sizes(classes)
    if len(sizes) < 2 or sizes.min() < MIN_PATIENTS:
        raise InputError(
            f"{label}: two classes or more, each of at least {MIN_PATIENTS} patients, are needed, "
            f"but there is {describe_sizes(sizes)}; add patients, or leave the subtype of a rare "
            "class empty: such patients are predicted only"
        )
    names = [str(name) for name in sizes.index]
    truth = pd.Categorical(classes, categories=names).codes.astype(np.int64)
    return Samples([str(name) for name in classes.index], np.arange(len(truth)), truth, names)


def _patients(
    embedded: Sequence[SubtypedSlide], samples: Samples, readouts: Sequence[Readout]
) -> pd.DataFrame:
    """Predict every patient by the fit that left it out, or by the fit to all."""
    rows = {}
    for patient in dict.fromkeys(one.patient for one in embedded):
        held_out = patient in samples.names
        number = samples.names.index(patient) if held_out else -1
        slides = [
            one.z for one in embedded
            if one.patient == patient and (one.subtype is not None or not held_out)
        ]  # fmt: skip
        logits = readouts[number].logits(slides)
        p, code = softmax(logits), int(logits.argmax())
        contrast = contrasts(len(logits))[code]
        rows[patient] = {
            "n_slides": len(slides),
            "truth": samples.classes[samples.truth[number]] if held_out else None,
            "predicted": samples.classes[code],
            **{f"probability_{name}": x for name, x in zip(samples.classes, p, strict=True)},
            "log_odds": contrast @ logits,
            "intercept": contrast @ readouts[number].intercepts,
            "held_out": held_out,
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("patient")


def _explain(
    source: SlideSource,
    model: "SageFM",
    embedded: Sequence[SubtypedSlide],
    samples: Samples,
    readouts: Sequence[Readout],
    table: pd.DataFrame,
) -> Iterator[tuple[PatientSlide, pd.DataFrame, Floats | None]]:
    """Yield for each slide the evidence of its spots, and slopes of genes if it was trained on."""
    subtypes = {one.name: one.subtype for one in embedded}
    for one in source:
        patient = table.loc[one.patient].to_dict()
        number = samples.names.index(one.patient) if patient["held_out"] else -1
        code = samples.classes.index(patient["predicted"])
        aligned = one.align(model)
        z = model.embed(aligned)
        values = spot_evidence(z, readouts[number], code) / patient["n_slides"]
        spots = one.slide.obs_names.astype(str)
        slopes = None
        if subtypes[one.name] is not None:
            slopes = gene_slopes(model, aligned, z, readouts[-1])
        yield one, pd.DataFrame({"slide": one.name, "spot": spots, "evidence": values}), slopes


def _genes(
    model: "SageFM",
    training: Sequence[SubtypedSlide],
    slopes: Sequence[Floats],
    owners: Codes,
    samples: Samples,
) -> pd.DataFrame:
    """Average slopes over patients, and weigh genes by how much they differ between patients."""
    owned = owners == np.arange(len(samples.names))[:, None]
    over_slides = owned / owned.sum(axis=1, keepdims=True)  # patients × slides
    mean_slopes = np.einsum("ps,skg->pkg", over_slides, np.stack(slopes)).mean(axis=0)
    spread = (over_slides @ np.stack([one.means for one in training])).std(axis=0, ddof=1)
    measured = np.zeros(len(spread))
    for one in training:
        measured[one.sums.index] += 1
    tables = []
    for name, slope in zip(samples.classes, mean_slopes, strict=True):
        columns = {
            "class": name, "gene": np.asarray(model.vocabulary.symbols, dtype=object),
            "weight": slope * spread, "slope": slope, "spread": spread,
            "measured": measured / len(training),
        }  # fmt: skip
        order = np.argsort(-np.abs(slope * spread), kind="stable")
        tables.append(pd.DataFrame(columns).iloc[order])
    return pd.concat(tables, ignore_index=True)


def _score(name: str, probabilities: Floats, labelings: Codes, seed: int) -> "pd.Series[float]":
    """Score predictions of labelings × patients × classes, of which the first is the truth."""
    row, _ = evaluate(labelings, probabilities, seed)
    facts = {"n_patients": labelings.shape[1], **row, "n_permutations": len(labelings) - 1}
    return pd.Series(facts, name=name, dtype=object).infer_objects()


def _baseline(
    training: Sequence[SubtypedSlide], samples: Samples, labelings: Codes, seed: int
) -> pd.DataFrame:
    """Score what needs no model: pseudobulk with the same probe, and one class for all."""
    sums = [
        pd.concat([one.sums for one in training if one.patient == patient], axis=1, join="inner")
        for patient in samples.names
    ]
    features = pseudobulk([table.sum(axis=1) for table in sums], samples.training)
    folds = [Fold.fit(*pair) for pair in zip(samples.training, features, strict=True)]
    row = _score(PSEUDOBULK, out_of_fold(samples, folds, labelings), labelings, seed)
    frequency = np.bincount(samples.truth) / len(samples.truth)
    constant = np.broadcast_to(frequency, (1, len(samples.truth), len(frequency)))
    facts = {"n_patients": len(samples.truth), **scores(labelings[:1], constant).iloc[0].to_dict()}
    return pd.DataFrame([row, pd.Series(facts, name=MOST_FREQUENT)])


def _describe(row: "pd.Series[float]") -> str:
    """Write a row of scores as text."""
    text = f"AUROC {row['auroc']:.3f}"
    if not np.isnan(row["auroc_low"]):
        text += f" ({row['auroc_low']:.3f} to {row['auroc_high']:.3f})"
    text += f", accuracy {row['accuracy']:.3f} (balanced {row['balanced_accuracy']:.3f})"
    if np.isnan(row["p"]):
        return text
    verdict = "more than chance" if row["p"] < _SIGNIFICANT else "no more than chance"
    p = f"p = {row['p']:.2g} ({row['n_permutations']:.0f} permutations)"
    return f"{text}; {verdict}: {p}"
