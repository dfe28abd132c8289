"""Train an annotator on labeled slides, and annotate another slide."""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sagefm import __version__
from sagefm._as_model import as_model
from sagefm._errors import InputError, logger
from sagefm._keys import LABEL, UNKNOWN
from sagefm._progress import stage
from sagefm._text import few
from sagefm._types import Bools, Floats
from sagefm._uns import record
from sagefm.pp.gene_names import known_gene_names
from sagefm.pp.labels import labels_of
from sagefm.tl.annotation._annotator import Annotator, Settings
from sagefm.tl.annotation._classifier import Method
from sagefm.tl.annotation._features import Features, label_codes, section_features
from sagefm.tl.annotation._fit import fit_annotator
from sagefm.tl.annotation._on_disk import opened_sections

if TYPE_CHECKING:
    from pathlib import Path
    from typing import TypeAlias

    from anndata import AnnData

    from sagefm.model import SageFM

    Slides: TypeAlias = AnnData | Sequence[AnnData] | Mapping[str, AnnData]

MIN_SPOTS = 10
"""A class with fewer labeled spots is left out."""


def learn_annotator(
    slides: "Slides",
    model: "SageFM | str | Path",
    key: str = "label",
    *,
    method: Method = "linear",
    features: Features = "combined",
    centered: bool | None = None,
    patient_key: str = "patient",
    seed: int = 0,
    layer: str | None = None,
    slide_key: str | None = None,
) -> Annotator:
    """Train an annotator on labeled spots.

    A class has a weight by the patients that have it, however many spots it has; within a class a
    patient with four times as many spots counts twice.

    Parameters
    ----------
    slides
        One slide, several, or name → slide: raw counts, ``obsm["spatial"]`` and labels.
    model
        A model. Its vocabulary and neighborhoods are used, and its network for
        ``features="embedding"``.
    key
        ``obs`` column with the labels. Spots without a label are not used. A class with fewer
        than 10 labeled spots in all is left out, with a warning.
    method
        ``"linear"``: logistic regression. ``"mlp"``: a network with one hidden layer of 64.
    features
        Features of a spot. ``"combined"``: two classifiers, whose log probabilities are averaged.
        Both have 50 principal components of the expression of all genes, averaged over the spot and
        its 6 nearest and standardized in each section. One has 20 components of the marker genes as
        the model predicts them beside these, and the other scores of marker sets.
        ``"expression"``: 50 components of the 2,000 most variable genes of the vocabulary, averaged
        in the same way; the network is not used. ``"embedding"``: of the embedding of the model.
    centered
        Whether the mean of its slide is subtracted from a spot. This removes what patient and
        laboratory add to a whole slide, but makes a spot depend on what else the slide holds. If
        not given, the choice with the lower Brier score on held-out patients (or slides, if there
        is one patient; True for a single slide). Combined features are always standardized.
    patient_key
        ``obs`` column with the patient; a slide without it is a patient of its own.
    seed
        Seed of components, networks and blocks.
    layer, slide_key
        As for :meth:`sagefm.SageFM.prepare`.

    Returns
    -------
    The annotator. ``score()`` returns its accuracy on patients that were held out (in at most ten
    folds), which its probabilities are calibrated on. With one patient, slides are held out, and
    with one slide blocks of it: this says nothing about other patients, and a warning says so.

    Raises
    ------
    InputError
        No label, one class only, no such column or option, or as :meth:`sagefm.SageFM.prepare`.

    Notes
    -----
    Probabilities are calibrated by temperature scaling (Guo et al. 2017, arXiv 1706.04599), with
    the lowest Brier score on the held-out spots, averaged over patients.
    """
    model = as_model(model)
    for name, value, kinds in (("method", method, Method), ("features", features, Features)):
        if value not in get_args(kinds):
            raise InputError(f"{name}={value!r}: choose one of {', '.join(get_args(kinds))}")
    if features == "combined" and centered is False:
        raise InputError("centered=False: combined features are standardized; leave it out")
    named = _named(slides)
    labels = {name: _labels(name, slide, key) for name, slide in named.items()}
    classes = _classes(labels, key)
    sections, codes = [], []
    for name, slide in named.items():
        if not labels[name].isin(classes).any():
            continue
        of_slide = label_codes(labels[name], classes)
        for section in section_features(
            {name: slide}, model, features, patient_key=patient_key, layer=layer,
            slide_key=slide_key,
        ):  # fmt: skip
            if (of_slide[section.rows] >= 0).any():
                sections.append(section)
                codes.append(of_slide[section.rows])
    facts = {
        "spots": {s.name: int((code >= 0).sum()) for s, code in zip(sections, codes, strict=True)},
        "patients": sorted({section.patient for section in sections}),
        "model": repr(model),
        "sagefm": __version__,
    }
    settings = Settings(key, method, features, seed=seed)
    stage("fitting to labeled spots, and to all but some patients at a time")
    annotator = fit_annotator(sections, codes, classes, model, settings, centered, facts)
    if (unit := annotator.held_out.unit) != "patient":
        logger.warning(
            "all labels are of one patient: probabilities are calibrated on held-out %ss, and "
            "another patient will have more errors than they say", unit,
        )  # fmt: skip
    return annotator


def annotate(
    reference: "Annotator | Slides",
    slide: "AnnData",
    model: "SageFM | str | Path",
    key: str = "label",
    *,
    error_rate: float | None = None,
    key_added: str = LABEL,
    layer: str | None = None,
    slide_key: str | None = None,
    **options: Any,
) -> Annotator:
    """Annotate the spots of a slide with the labels of other slides.

    Parameters
    ----------
    reference
        Labeled slides to train an annotator on, or an annotator.
    slide
        The slide to annotate: raw counts and ``obsm["spatial"]``.
    model
        A model; the one that the annotator was trained with.
    key
        ``obs`` column with the labels of the reference.
    error_rate
        Tolerated fraction of wrong labels, such as 0.05. Spots are ``"unknown"`` below the lowest
        confidence at which every held-out patient keeps this rate (or a lower one, if one of them
        would exceed it at the confidence that the others need), where novelty is above 0.99, and on
        a slide that is farther from the labeled patients than they are from each other. This is no
        promise about the new patient: see Notes. If not given, every spot gets its likeliest class.
    key_added
        Key in ``obs`` for the labels.
    layer, slide_key
        As for :meth:`sagefm.SageFM.prepare`.
    **options
        Options of :func:`learn_annotator`.

    Returns
    -------
    The annotator, to be saved or applied to other slides. Sets on `slide` ``obs["sagefm_label"]``
    (categorical, with ``"unknown"``), ``obs["sagefm_label_confidence"]`` (calibrated probability of
    the likeliest class), ``obs["sagefm_label_novelty"]`` (0 to 1: the fraction of training spots
    that are less unusual), ``obsm["sagefm_label_probabilities"]`` (DataFrame, spots × classes) and
    ``uns["sagefm"]["annotate"]``, with ``"out_of_distribution"`` (whether the slide, or one of
    several, is farther from the labeled patients than they are from each other).

    Raises
    ------
    InputError
        As :func:`learn_annotator`; `error_rate` is not between 0 and 1, or a labeled patient
        exceeds it at each confidence that the others need; the annotator belongs to another model.

    Notes
    -----
    Even a patient that is like the P labeled ones can be the worst of all P + 1, with a chance of
    1 / (P + 1): no error rate below that can be promised for it, and a note says so. What the
    threshold of the other patients did to each labeled patient is in
    ``annotator.held_out.realized(error_rate)``. The farthest of P + 1 alike patients is taken for
    out of distribution, with the same chance.
    """
    model = as_model(model)
    if error_rate is not None and not 0 < error_rate < 1:
        raise InputError(f"error_rate={error_rate}: give a number between 0 and 1, such as 0.05")
    if not isinstance(reference, Annotator):
        reference = learn_annotator(
            reference, model, key, layer=layer, slide_key=slide_key, **options
        )
    elif options:
        raise InputError(f"{next(iter(options))}: is an option of training; give labeled slides")
    annotator = reference
    if annotator.fingerprint != model.fingerprint:
        raise InputError("annotator: belongs to another model; use the one it was trained with")
    if error_rate is not None:
        _require_kept(annotator, error_rate)
    p, novelty, is_far = _apply(annotator, slide, model, layer, slide_key)
    labels = annotator.labels(p, novelty, error_rate)
    if error_rate is not None:
        labels[is_far] = UNKNOWN
    _warn(annotator, labels, is_far, error_rate)
    slide.obs[key_added] = pd.Categorical(labels, categories=[*annotator.classes, UNKNOWN])
    slide.obs[f"{key_added}_confidence"] = p.max(axis=1).astype(np.float32)
    slide.obs[f"{key_added}_novelty"] = novelty.astype(np.float32)
    slide.obsm[f"{key_added}_probabilities"] = pd.DataFrame(
        p.astype(np.float32), slide.obs_names, list(annotator.classes)
    )
    record(slide, "annotate", {
        "key": key_added,
        "error_rate": "none" if error_rate is None else error_rate,
        "temperature": annotator.temperature,
        "held_out": annotator.held_out.unit,
        "out_of_distribution": bool(is_far.any()),
        "settings": json.dumps(annotator.settings.__dict__),
        "learned_from": json.dumps(annotator.facts),
        "fingerprint": annotator.fingerprint,
        "gene_names": known_gene_names().version,
        "sagefm": __version__,
    })  # fmt: skip
    return annotator


def _apply(
    annotator: Annotator,
    slide: "AnnData",
    model: "SageFM",
    layer: str | None,
    slide_key: str | None,
) -> tuple[Floats, Floats, Bools]:
    """Compute probabilities and novelty of each spot, and whether its section is too far."""
    p = np.empty((slide.n_obs, len(annotator.classes)))
    distances, is_far = np.empty(slide.n_obs), np.zeros(slide.n_obs, dtype=bool)
    for section in opened_sections(
        slide, model, annotator.settings.features, layer=layer, slide_key=slide_key
    ):
        done = []
        for spots in section:
            p[spots.rows] = annotator.probabilities(spots)
            distances[spots.rows] = annotator.reference.distances(spots)
            done.append(spots.rows)
        rows = np.concatenate(done)
        is_far[rows] = annotator.reference.is_out_of_distribution(distances[rows])
    return p, annotator.reference.novelty(distances), is_far


def _require_kept(annotator: Annotator, error_rate: float) -> None:
    """Refuse an error rate that a labeled patient would not have kept."""
    held_out = annotator.held_out
    if np.isfinite(held_out.tolerated(error_rate)):
        return
    wrong = held_out.realized(error_rate)["wrong"]
    worst = wrong.idxmax()
    raise InputError(
        f"error_rate={error_rate}: is not kept by the labeled {held_out.unit}s: at the confidence "
        f"that the others need, {worst} has {wrong.max():.0%} of its labels wrong; "
        "leave it out, allow more errors, or label more patients"
    )


def _warn(
    annotator: Annotator, labels: NDArray[np.object_], is_far: Bools, error_rate: float | None
) -> None:
    """Warn where labels are likely wrong, and of what an error rate does not promise."""
    if is_far.any():
        logger.warning(
            "out of distribution: %s slide is farther from the labeled patients than they are from "
            "each other; %s", "the" if is_far.all() else "a",
            "expect more errors than on held-out patients" if error_rate is None
            else "all its spots are unknown",
        )  # fmt: skip
    if error_rate is None or is_far.all():
        return
    if (labels == UNKNOWN).all():
        logger.warning(
            "every spot is unknown: no confidence keeps an error rate of %g here; "
            "allow more errors, or label more patients", error_rate,
        )  # fmt: skip
    n_patients = len(np.unique(annotator.held_out.groups))
    if annotator.held_out.unit == "patient" and error_rate < (chance := 1 / (n_patients + 1)):
        logger.warning(
            "an error rate of %g is kept by the held-out patients, and is no promise: with %d "
            "labeled patients none below %.0f %% can be promised for a new one",
            error_rate, n_patients, 100 * chance,
        )  # fmt: skip


def _named(slides: "Slides") -> "dict[str, AnnData]":
    from anndata import AnnData

    if isinstance(slides, AnnData):
        return {"": slides}
    if isinstance(slides, Mapping):
        return dict(slides)
    return {f"slide_{i + 1}": slide for i, slide in enumerate(slides)}


def _labels(name: str, slide: "AnnData", key: str) -> "pd.Series[str]":
    try:
        return labels_of(slide, key)
    except InputError as error:
        raise InputError(f"{name}: {error}" if name else str(error)) from error


def _classes(labels: "Mapping[str, pd.Series[str]]", key: str) -> list[str]:
    """Choose the classes that have enough labeled spots."""
    sizes = pd.concat([column.dropna() for column in labels.values()]).value_counts()
    if sizes.empty:
        raise InputError(f"obs[{key!r}]: no spot has a label; label some, or name another column")
    classes = sorted(str(name) for name in sizes.index[sizes >= MIN_SPOTS])
    if len(classes) < 2:
        spots = ", ".join(f"{name} {n}" for name, n in sizes.items())
        raise InputError(
            f"obs[{key!r}]: needs two classes with at least {MIN_SPOTS} labeled spots "
            f"(spots: {spots}); label more"
        )
    if rare := [f"{name} ({n})" for name, n in sizes.items() if name not in classes]:
        logger.warning("left out, fewer than %d labeled spots: %s", MIN_SPOTS, few(rare, 10))
    if UNKNOWN in classes:
        raise InputError(
            f"obs[{key!r}]: has a class {UNKNOWN!r}; rename it or leave these spots empty"
        )
    return classes
