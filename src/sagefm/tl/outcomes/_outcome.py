"""Predict an outcome of patients from their slides and clinical columns."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sagefm import __version__
from sagefm._as_model import as_model
from sagefm._errors import InputError, logger
from sagefm._keys import DOMAIN
from sagefm.stats.outcomes import Evaluation, Target, TargetKind, target_of
from sagefm.tl.outcomes._clinical import Clinical, copies_of
from sagefm.tl.outcomes._cohort import Columns, OutcomeCohort, join, names_of, patients_table
from sagefm.tl.outcomes._evaluate import Procedure, effect_table, evaluate, with_hazards
from sagefm.tl.outcomes._features import MEAN, feature_sets
from sagefm.tl.outcomes._maps import LinearScores, map_slides
from sagefm.tl.outcomes._result import RESEARCH_USE, Outcome
from sagefm.tl.outcomes._slides import (
    OutcomeSlide,
    common_keys,
    differing_genes,
    disagreement,
    summarize_slides,
)
from sagefm.tl.outcomes._table import patient_table
from sagefm.tl.patients import Slides, SlideSource
from sagefm.tl.perturbation import SignatureSource, signatures

if TYPE_CHECKING:
    from sagefm.model import SageFM

N_PERMUTATIONS = 999


def outcome(
    slides: Slides,
    table: "pd.DataFrame | str | Path",
    target: str | tuple[str, str],
    *,
    model: "SageFM | str | Path" = "default",
    kind: TargetKind | None = None,
    clinical: str | Sequence[str] | None = (),
    site: str | None = None,
    keys: str | Sequence[str] | None = None,
    gene_sets: SignatureSource | None = None,
    patient_key: str = "patient",
    patients: Mapping[str, str] | None = None,
    slide_key: str | None = None,
    layer: str | None = None,
    n_permutations: int = N_PERMUTATIONS,
    seed: int = 0,
    progress: Callable[[str], object] | None = None,
) -> Outcome:
    """Predict an outcome of patients from their slides, test it, and map where it comes from.

    For research only: not for diagnosis or treatment decisions.

    A patient is one observation: the features of its slides are averaged. Each set of features is
    scored by repeated cross-validation over patients, compared with permuted patients, and with
    what needs no model: clinical columns and pseudobulk. All sets that were tried are corrected
    for.

    Parameters
    ----------
    slides
        Name → slide with raw counts and ``obsm["spatial"]``, or its path; a list of slides or
        paths; or one object with several slides. They are iterated over twice, and one at a time is
        in memory.
    table
        A row per patient, as a DataFrame or a file (commas, semicolons or tabs): the column
        `patient_key`, or else the index, names the patient. A column ``"slide"`` says which slides
        a patient has.
    target
        Column of the table: classes, ordered levels or numbers; or two columns for survival, time
        and event (1, or 0 for censored). A patient without a value is predicted only.
    model
        A model, or its path or address. Spots are compared with the profile of the model: with that
        of their own slide, the mean would not depend on how much of each tissue a slide has.
    kind
        ``"classes"``, ``"ordinal"``, ``"number"`` or ``"survival"``; found out if not given.
    clinical
        Columns of the table that are known without slides, such as age and stage. Numbers are
        standardized, and a missing one is the median of the training patients, with another
        feature that says so. Categories are a feature each.
    site
        Column of the table with the hospital or batch. Patients are then permuted within sites,
        and it is tested whether the site explains what slides say.
    keys
        Columns of ``obs`` with labels that all slides have in common, such as cell types. If not
        given, ``"sagefm_domain"``, ``"sagefm_label"`` and ``"sagefm_mapped"`` where all slides have
        them.
    gene_sets
        Gene programs, as for :func:`sagefm.tl.signatures`.
    patient_key, patients
        ``obs`` column with the patient; or slide → patient. A slide without the column is a
        patient of its own, whose name is that of the slide.
    slide_key, layer
        As for :func:`sagefm.read`.
    n_permutations
        Permutations of the outcome over patients, each with the whole cross-validation.
    seed
        Of all random numbers.
    progress
        Called with a line per slide and step, which name no slide and no patient.

    Returns
    -------
    An :class:`Outcome`; ``.save(folder)`` writes it.

    - `scores`: the sets of features are ``clinical``; ``pseudobulk`` (principal components of log1p
      counts per million of the model's genes); ``embedding mean``; ``embedding quantiles`` (mean of
      the lowest, the middle and the highest fifth of 512 spots, for 10 components); for each column
      of labels ``fractions``, ``neighbors`` (log of observed over expected pairs of spots that
      touch; 0 where a slide lacks a label) and ``interfaces`` (such pairs of different labels, per
      spot); and ``gene programs`` (weighted mean of standardized log1p counts per million).
      ``beyond_clinical`` is by how much a set adds to the concordance of clinical columns.
    - `features`: the effect of each feature alone, per standard deviation: log odds, log hazard or
      slope. For survival, ``p_proportional`` tests of clinical features here, and of predictions in
      `scores`, whether the hazard ratio is the same at all times (scaled Schoenfeld residuals).
    - `spots`: what each spot adds to the out-of-fold score of its patient, by its mean embedding.
      Summed over the spots of a patient this is exactly its score, less the intercept. `p` compares
      the size of the contribution with that for permuted patients. Spots of a slide are not
      independent, and their p are not corrected: on average 5 % are below 0.05 without any effect.
      With an effect, spots elsewhere that vary in the same direction are significant too; which
      domain has the effect is tested by `domains`.
    - `domains`: rows of slides sum the spots of a domain. Rows of ``"all"`` say by how much a
      domain raises the score of the patient with the higher outcome (of two classes the second;
      the earlier event), averaged over pairs of patients, with a bootstrap interval. They add up to
      the same difference of the whole score. `p` compares it, in units of the spread of the
      domain's contributions between patients, with that for permuted patients.
    - `confounding`: how much the outcome differs between sites, whether slides show their site, and
      what they say between patients of the same site, also when it is predicted from other sites.

    Sets ``obs["sagefm_outcome"]`` (contribution), ``obs["sagefm_outcome_p"]`` and
    ``uns["sagefm"]["outcome"]`` of slides in memory.

    Raises
    ------
    InputError
        There are fewer than 10 patients of each class, 10 events, or 20 patients with a number; no
        patient of a slide is in the table; a patient has rows that differ; a column is missing; a
        slide is duplicated; an option is out of range; or as :meth:`sagefm.SageFM.prepare`.
    """
    model = as_model(model)
    _check_numbers(n_permutations, seed)
    report = progress or (lambda _: None)
    columns = Columns.of(patient_table(table, patient_key), target, clinical, site)
    # What can be wrong with the table is said before slides are embedded.
    target_of(columns.table.rows, columns.target, kind).require_enough()
    Clinical(columns.table.place, columns.table.rows, columns.clinical)
    programs = None if gene_sets is None else signatures(gene_sets)
    source = SlideSource(slides, layer, slide_key, patient_key, patients)
    if patients is None:
        source = source.with_patients(columns.table.patient_of)
    keys = None if keys is None else names_of(keys, "keys")
    cohort = join(columns, summarize_slides(source, model, keys, seed, report))
    of_patients = target_of(cohort.rows, columns.target, kind)
    used, notes = _labels(cohort.slides.slides, keys)
    encoded = Clinical(columns.table.place, cohort.rows, columns.clinical)
    sets = feature_sets(cohort.slides, encoded, used, programs, model.vocabulary, seed)
    procedure = Procedure(n_permutations, seed, report)
    sites = cohort.sites(columns.site)
    evaluated = evaluate(of_patients, sets, sites, procedure)
    notes = [
        *columns.notes, *cohort.notes, *of_patients.notes, *notes, *encoded.notes,
        *_leaks(cohort.rows, columns, of_patients),
        *differing_genes(cohort.slides.slides, len(model.vocabulary)), *evaluated.notes,
    ]  # fmt: skip
    predictions = patients_table(cohort, of_patients, evaluated.evaluation, evaluated.best, columns)
    of_each, changing = with_hazards(
        of_patients, effect_table(of_patients, sets, sites), encoded.features,
        encoded(of_patients.known),
    )  # fmt: skip
    scored, of_scores = _hazards_of_scores(of_patients, evaluated.scores, predictions, cohort)
    notes += [*changing, *of_scores]
    facts = {
        "target": of_patients.name, "kind": of_patients.kind, "set": MEAN, "seed": seed,
        "n_permutations": n_permutations, "model": repr(model), "fingerprint": model.fingerprint,
        "sagefm": __version__, "note": RESEARCH_USE,
    }  # fmt: skip
    evaluation = evaluated.evaluation
    means = next(one for one in sets if one.name == MEAN)
    scores = LinearScores.of(of_patients, means, evaluation.fits[MEAN], evaluation.labelings, seed)
    places = _places(cohort, of_patients, evaluation)
    domain_key = DOMAIN if DOMAIN in used else next(iter(used), None)
    maps = map_slides(source, model, scores, places, domain_key, facts, seed, report)
    for note in notes:
        logger.warning(note)
    return Outcome(
        of_patients.name, of_patients.kind, RESEARCH_USE, scored, evaluated.best, predictions,
        of_each, evaluated.curve, pd.DataFrame(evaluation.permuted), maps.spots, maps.domains,
        evaluated.confounding, notes,
    )  # fmt: skip


def _hazards_of_scores(
    target: Target, scores: pd.DataFrame, predictions: pd.DataFrame, cohort: OutcomeCohort
) -> tuple[pd.DataFrame, list[str]]:
    """Test whether the hazards of predictions are proportional."""
    risks = predictions.loc[cohort.rows.index].filter(regex="^risk_").to_numpy(dtype=float)
    names = [f"the prediction by {name}" for name in scores["set"]]
    return with_hazards(target, scores, names, risks)


def _check_numbers(n_permutations: int, seed: int) -> None:
    for name, number, least in (("n_permutations", n_permutations, 1), ("seed", seed, 0)):
        if not isinstance(number, int | np.integer) or number < least:
            raise InputError(f"{name}={number}: give a whole number from {least} on")


def _labels(
    slides: Sequence[OutcomeSlide], keys: Sequence[str] | None
) -> tuple[list[str], list[str]]:
    """List the columns with labels that are used, and notes on them."""
    found, notes = common_keys(slides, keys)
    used = []
    for key in found:
        note = disagreement(slides, key)
        if note and keys is None:
            note += "; it is left out"
        else:
            used.append(key)
        notes += [note] if note else []
    return used, notes


def _leaks(rows: pd.DataFrame, columns: Columns, target: Target) -> list[str]:
    """Warn of clinical columns that are copies of the outcome."""
    notes = []
    for name, values in target.columns().items():
        outcome = pd.Series(values, rows.index)
        if outcome.dtype == object:
            codes = pd.Series(pd.factorize(outcome)[0], rows.index)
            outcome = codes.where(codes >= 0).astype(float)
        notes += [
            f"{copy!r} is a copy of {name!r}: clinical columns must be known before the outcome"
            for copy in copies_of(rows, columns.clinical, outcome)
        ]
    return notes


def _places(
    cohort: OutcomeCohort, target: Target, evaluation: Evaluation
) -> dict[str, tuple[int, int, int]]:
    """Map each slide to the row of its patient, the number of its slides, and what is mapped."""
    sizes = cohort.slides.sizes
    outputs = [0] * len(sizes)
    if len(target.outputs) > 1:
        outputs = [target.outputs.index(one) for one in evaluation.risks[MEAN]["predicted"]]
    return {
        one.name: (int(row), int(sizes[row]), outputs[row])
        for one, row in zip(cohort.slides.slides, cohort.slides.patients, strict=True)
    }
