"""Predict the subtype of a sample from its spots, as honestly as few patients allow."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, get_args

import numpy as np
import pandas as pd
from scipy.special import softmax

from sagefm import __version__
from sagefm._errors import InputError
from sagefm._keys import SUBTYPE_EVIDENCE
from sagefm._types import Codes, Floats
from sagefm.tl.subtyping._evidence import contrast, of_genes, of_spots
from sagefm.tl.subtyping._facts import Given, PatientSection, given_as, patient_sections
from sagefm.tl.subtyping._pooling import Bag, Pooling, Readout, learn
from sagefm.tl.subtyping._samples import (
    LEAST_PATIENTS,
    N_PERMUTATIONS,
    PSEUDOBULK,
    Samples,
    counted,
    evaluated,
    folds_of,
    labelings,
    listed,
    of_patients,
    out_of_fold,
    pseudobulk,
    scores,
)

if TYPE_CHECKING:
    from anndata import AnnData

    from sagefm.model import SageFM

MOST_FREQUENT = "most frequent class"
_PERMUTATIONS = {"mean": N_PERMUTATIONS, "quantiles": N_PERMUTATIONS, "attention": 50}
_SURE = 0.05


@dataclass(frozen=True)
class Subtypes:
    """What :func:`subtype` found; as text, a summary in plain words."""

    patients: pd.DataFrame
    """A row per patient: n_slides, truth (missing where it is only predicted), predicted,
    probability_<class>, log_odds and its part intercept (of the predicted class against the mean of
    the others), held_out (whether the prediction is of a fold that it was held out of)."""
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
        """Say it in a few lines, the baselines beside the model."""
        known = self.patients["truth"].dropna()
        lines = [f"{len(known)} patients ({listed(counted(known))}), one left out at a time"]
        if rest := len(self.patients) - len(known):
            lines[0] += f"; {rest} without a subtype predicted"
        for row in (self.score, *(row for _, row in self.baseline.iterrows())):
            lines.append(f"{row.name}: {_in_words(row)}")
        if self.score["auroc"] <= self.baseline["auroc"][PSEUDOBULK]:
            lines.append(f"{PSEUDOBULK}, which needs no model, does as well or better")
        return "\n".join(lines)


def subtype(
    slides: "Mapping[str, AnnData] | AnnData",
    model: "SageFM",
    key: str | Mapping[str, str | None],
    *,
    pooling: Pooling = "mean",
    patient_key: str = "patient",
    patients: Mapping[str, str] | None = None,
    n_permutations: int | None = None,
    seed: int = 0,
    layer: str | None = None,
    slide_key: str | None = None,
    key_added: str = SUBTYPE_EVIDENCE,
    progress: Callable[[str], object] | None = None,
) -> Subtypes:
    """Learn the subtype of patients from slides; say how well, and from which spots and genes.

    A patient is one observation: the features of its slides are averaged. One patient after the
    other is held out, and everything (components, attention, probe) is learned from the others.
    The probe is a logistic regression (C = 1, balanced classes) on at most 10 principal components
    of standard deviation 1. Patients without a subtype are predicted by what all others teach.

    Parameters
    ----------
    slides
        Name → slide with raw counts and ``obsm["spatial"]``, or one object with several slides. It
        is gone through twice; a mapping that reads its slides, such as
        :class:`sagefm.evaluate.Cohort`, keeps one in memory. Besides it, ``"mean"`` keeps a row
        per slide and the others the embedding of every spot.
    model
        A model.
    key
        ``obs`` column, the same in all spots of a slide; or slide → subtype. A slide without a
        value is not learned from. If its patient has none at all, the patient is predicted.
    pooling
        How the spots of a slide become features. ``"mean"``: of the embedding. ``"quantiles"``: of
        each of 10 principal components of spots the mean of the lowest, the middle and the highest
        fifth, which stand for the quantiles at 10, 50 and 90 %. ``"attention"``: gated attention
        (Ilse, Tomczak and Welling 2018) over 5 of those components, 4 hidden units, which starts
        as the mean and is kept near it by a penalty. The last two see what only some spots have.
        Components of spots, and attention, are learned from 128 spots of a slide.
    patient_key, patients
        ``obs`` column with the patient; or slide → patient. A slide without the column is a
        patient of its own.
    n_permutations
        Of the subtypes over patients, each with the whole leave-one-out; 200 if not given, and 50
        for attention, which is learned anew each time.
    seed
        Source of all chance.
    layer, slide_key
        As for :meth:`sagefm.SageFM.prepare`.
    key_added
        Where in ``obs`` the evidence goes.
    progress
        Called with a line per slide.

    Returns
    -------
    A :class:`Subtypes`.

    - `patients`: for a patient with a subtype, the prediction is that of the fold that held it out.
    - `score`: area under the ROC curve (each class against all others, averaged) with a bootstrap
      interval over patients (95 %, resampled within classes), accuracy, balanced accuracy, and p of
      the area by permutation. Where nothing is to be found the area of a leave-one-out lies below
      0.5: read p, not the distance from 0.5.
    - `baseline`: the same of principal components of pseudobulk (log1p of counts per million of the
      model's genes that all slides have) with the same probe and permutations, and of naming the
      most frequent class for all.
    - `evidence`: what each spot adds to the log-odds of the predicted class against the mean of
      the other classes. Over the spots of a patient this adds up to `log_odds` less `intercept`,
      exactly, for all three poolings: the features are sums over spots.
    - `genes`: `slope`, by how much the log-odds of a class against the mean of the others rise per
      unit of log1p counts if the gene rises in all spots (the derivative through network and
      pooling; mean over the patients with a subtype, in the fit to all of them); `spread`, the
      standard deviation between these patients of its mean log1p counts; `weight`, slope × spread;
      `measured`, the share of their slides that have the gene: where it is below 1 a gene that was
      not measured looks like one that is not expressed. By class, the largest weights first.

    Sets ``obs["sagefm_subtype_evidence"]`` (missing where a spot is of no slide) and
    ``uns["sagefm"]["subtype"]`` of each object.

    Raises
    ------
    InputError
        A class has fewer than 3 patients, or there is one class only; no slide has a subtype; a
        slide or a patient has several; a slide is there twice; an option is out of its range; or
        as :meth:`sagefm.SageFM.prepare`.

    Notes
    -----
    A derivative says what moves this prediction, not what makes the subtype. With few patients,
    other genes that go with these serve a probe as well.
    """
    _require_choices(pooling, n_permutations)
    given = given_as(slides, layer, slide_key, patient_key, patients)
    tell = progress or (lambda _: None)
    sections = patient_sections(given, model, key, whole=pooling != "mean", progress=tell)
    samples = _samples(key if isinstance(key, str) else "subtypes", sections)
    n = _PERMUTATIONS[pooling] if n_permutations is None else n_permutations
    truths = labelings(samples.truth, n, seed)
    tell(f"{pooling} pooling: {len(samples.names)} patients, {n} permutations")
    code = {patient: number for number, patient in enumerate(samples.names)}
    bags = [Bag(code[one.patient], one.z) for one in sections if one.subtype is not None]
    probabilities, readouts = learn(bags, samples, truths, pooling, seed)
    table = _patients(sections, samples, readouts)
    learned = _Learned(model, sections, samples, readouts, table, [], [])
    facts = {
        "key": key_added, "subtype_key": key if isinstance(key, str) else "", "pooling": pooling,
        "seed": seed, "predicted": table["predicted"].to_dict(), "model": repr(model),
        "fingerprint": model.fingerprint, "model_provenance": json.dumps(model.provenance),
        "sagefm": __version__,
    }  # fmt: skip
    given.fill(partial(learned.evidence_of, given, tell), key_added, facts)
    return Subtypes(
        table,
        _scored(f"{pooling} pooling", probabilities, truths, seed),
        _baseline(sections, samples, truths, seed),
        learned.genes(),
        pd.concat(learned.evidence, ignore_index=True),
    )


@dataclass(frozen=True)
class _Learned:
    """What was learned, on its second way through the slides."""

    model: "SageFM"
    sections: list[PatientSection]
    samples: Samples
    readouts: list[Readout]
    table: pd.DataFrame
    evidence: list[pd.DataFrame]
    slopes: list[Floats]
    """Of each slide that was learned from."""

    def evidence_of(
        self, given: Given, tell: Callable[[str], object], name: str, slide: "AnnData"
    ) -> Floats:
        """Share the log-odds of its patient among the spots of a slide; differentiate by genes."""
        tell(f"{name}: evidence")
        one = next(section for section in self.sections if section.name == name)
        names, row = self.samples.names, self.table.loc[one.patient].to_dict()
        readout = self.readouts[names.index(one.patient) if row["held_out"] else -1]
        code = self.samples.classes.index(row["predicted"])
        prepared = given.prepare(self.model, name, slide)
        own: Floats = of_spots(self.model, prepared, readout, code) / row["n_slides"]
        spots = slide.obs_names.astype(str)
        self.evidence.append(pd.DataFrame({"slide": name, "spot": spots, "evidence": own}))
        if one.subtype is not None:
            self.slopes.append(of_genes(self.model, prepared, self.readouts[-1]))
        return own

    def genes(self) -> pd.DataFrame:
        """Average slopes over patients, and weigh them by how far patients differ."""
        taught = [one for one in self.sections if one.subtype is not None]
        owner = np.array([self.samples.names.index(one.patient) for one in taught])
        own = owner == np.arange(len(self.samples.names))[:, None]
        mean = own / own.sum(axis=1, keepdims=True)  # patients × slides
        slopes = np.einsum("ps,skg->pkg", mean, np.stack(self.slopes)).mean(axis=0)
        spread = (mean @ np.stack([one.means for one in taught])).std(axis=0, ddof=1)
        measured = np.zeros(len(spread))
        for one in taught:
            measured[one.sums.index] += 1
        parts = []
        for name, slope in zip(self.samples.classes, slopes, strict=True):
            weight = slope * spread
            order = np.argsort(-np.abs(weight), kind="stable")
            columns = {
                "class": name, "gene": np.asarray(self.model.vocabulary.symbols, dtype=object),
                "weight": weight, "slope": slope, "spread": spread,
                "measured": measured / len(taught),
            }  # fmt: skip
            parts.append(pd.DataFrame(columns).iloc[order])
        return pd.concat(parts, ignore_index=True)


def _require_choices(pooling: str, n_permutations: int | None) -> None:
    if pooling not in get_args(Pooling):
        raise InputError(f"pooling={pooling!r}: choose of {', '.join(get_args(Pooling))}")
    if n_permutations is not None and n_permutations < 1:
        raise InputError(f"n_permutations={n_permutations}: give a whole number from 1 on")


def _samples(key: str, sections: Sequence[PatientSection]) -> Samples:
    """Find the patients to learn from, each a sample of its own."""
    known = {one.name: one.subtype for one in sections if one.subtype is not None}
    patients = [one.patient for one in sections if one.subtype is not None]
    subtypes = of_patients(key, known, patients)
    sizes = counted(subtypes)
    if len(sizes) < 2 or sizes.min() < LEAST_PATIENTS:
        raise InputError(
            f"{key}: two classes or more, each of at least {LEAST_PATIENTS} patients, are needed, "
            f"but there is {listed(sizes)}; add patients, or leave the subtype of a rare class "
            "empty: such patients are predicted only"
        )
    classes = [str(name) for name in sizes.index]
    truth = pd.Categorical(subtypes, categories=classes).codes.astype(np.int64)
    return Samples([str(name) for name in subtypes.index], np.arange(len(truth)), truth, classes)


def _patients(
    sections: Sequence[PatientSection], samples: Samples, readouts: Sequence[Readout]
) -> pd.DataFrame:
    """Predict every patient, by the fold that held it out or by all others."""
    rows = {}
    for patient in dict.fromkeys(one.patient for one in sections):
        own = [one for one in sections if one.patient == patient]
        known = patient in samples.names
        used = [one.z for one in own if one.subtype is not None or not known]
        number = samples.names.index(patient) if known else -1
        logits = readouts[number].logits(used)
        p, against = softmax(logits), contrast(len(logits))[code := int(logits.argmax())]
        rows[patient] = {
            "n_slides": len(used),
            "truth": samples.classes[samples.truth[number]] if known else None,
            "predicted": samples.classes[code],
            **{f"probability_{name}": x for name, x in zip(samples.classes, p, strict=True)},
            "log_odds": against @ logits,
            "intercept": against @ readouts[number].intercepts,
            "held_out": known,
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("patient")


def _scored(name: str, probabilities: Floats, truths: Codes, seed: int) -> "pd.Series[float]":
    """Score predictions of labelings × patients × classes, of which the first is the truth."""
    found = evaluated(truths[0], probabilities[0], scores(truths, probabilities), seed)
    facts = {"n_patients": truths.shape[1], **found, "n_permutations": len(truths) - 1}
    return pd.Series(facts, name=name, dtype=object).infer_objects()


def _baseline(
    sections: Sequence[PatientSection], samples: Samples, truths: Codes, seed: int
) -> pd.DataFrame:
    """Score what needs no model: pseudobulk with the same probe, and one class for all."""
    bulk = []
    for patient in samples.names:
        own = [one.sums for one in sections if one.patient == patient and one.subtype is not None]
        bulk.append(pd.concat(own, axis=1, join="inner").sum(axis=1))
    folds = folds_of(samples, pseudobulk(bulk, samples.folds))
    rows = [_scored(PSEUDOBULK, out_of_fold(samples, folds, truths), truths, seed)]
    share = np.bincount(samples.truth) / len(samples.truth)
    same = np.broadcast_to(share, (*truths.shape, len(share)))
    constant = scores(truths[:1], same[:1]).iloc[0].to_dict()
    facts = {"n_patients": len(samples.truth), **constant}
    rows.append(pd.Series(facts, name=MOST_FREQUENT))
    return pd.DataFrame(rows)


def _in_words(row: "pd.Series[float]") -> str:
    """Write a row of scores."""
    said = f"AUROC {row['auroc']:.3f}"
    if not np.isnan(row["auroc_low"]):
        said += f" ({row['auroc_low']:.3f} to {row['auroc_high']:.3f})"
    said += f", accuracy {row['accuracy']:.3f} (balanced {row['balanced_accuracy']:.3f})"
    if np.isnan(row["p"]):
        return said
    verdict = "more than chance" if row["p"] < _SURE else "no more than chance"
    p = f"p = {row['p']:.2g} ({row['n_permutations']:.0f} permutations)"
    return f"{said}; {verdict}: {p}"
