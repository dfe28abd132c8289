"""Learn the labels of spots from some slides, and label another."""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pandas as pd

from sagefm import __version__
from sagefm._errors import InputError, logger
from sagefm._keys import LABEL, PROVENANCE
from sagefm._text import few
from sagefm.pp.labels import labels_of
from sagefm.tl.annotation._annotator import LEAST_SPOTS, UNKNOWN, Annotator, Settings, learn
from sagefm.tl.annotation._features import Features, codes_of, view_slides
from sagefm.tl.annotation._heads import Head

if TYPE_CHECKING:
    from typing import TypeAlias

    from anndata import AnnData

    from sagefm.model import SageFM

    Slides: TypeAlias = AnnData | Sequence[AnnData] | Mapping[str, AnnData]


def learn_annotator(
    slides: "Slides",
    model: "SageFM",
    key: str = "label",
    *,
    method: Head = "linear",
    features: Features = "expression",
    balanced: bool = True,
    centered: bool | None = None,
    smooth: bool = False,
    patient_key: str = "patient",
    seed: int = 0,
    layer: str | None = None,
    slide_key: str | None = None,
) -> Annotator:
    """Learn to annotate from labeled spots.

    Parameters
    ----------
    slides
        One slide, several, or name → slide: raw counts, ``obsm["spatial"]`` and labels.
    model
        A model. Its vocabulary and neighborhoods are used, and its network for
        ``features="embedding"``.
    key
        ``obs`` column with the labels. Spots without one are not learned from. A class with fewer
        than 10 labeled spots in all is left out (told).
    method
        ``"linear"``: logistic regression on 50 principal components. ``"mlp"``: a network with one
        hidden layer of 64 on these.
    features
        The input of the classifier. ``"expression"``: log1p counts per 10,000 of the 2,000
        most variable genes of the vocabulary, averaged over each spot and its 6 nearest; no network
        takes part. ``"embedding"``: the embedding of the model.
    balanced
        Whether rare classes count as much as common ones.
    centered
        Whether a spot is read beside the mean of its slide, which leaves out what the patient or
        the laboratory adds to all of it, or as it is, which does not depend on what else the slide
        holds. If not given, what labels held-out patients better (or slides, where there is one
        patient; with one slide it is True).
    smooth
        Whether probabilities are averaged over each spot and its 6 nearest.
    patient_key
        ``obs`` column with the patient; a slide without one is a patient of its own.
    seed
        Of components, networks and blocks.
    layer, slide_key
        As for :meth:`sagefm.SageFM.prepare`.

    Returns
    -------
    An annotator. ``score()`` says how it did on patients that were held out (in ten folds at
    most): on these its probabilities are calibrated. With one
    patient, slides are held out, and with one slide blocks of it: then nothing is known about other
    patients (told).

    Raises
    ------
    InputError
        No label, one class only, no such column or option, or as :meth:`sagefm.SageFM.prepare`.

    Notes
    -----
    The temperature (Guo et al. 2017, arXiv 1706.04599) is the one with the least Brier score on the
    held-out spots, every patient counting alike.
    """
    for name, value, kinds in (("method", method, Head), ("features", features, Features)):
        if value not in get_args(kinds):
            raise InputError(f"{name}={value!r}: choose of {', '.join(get_args(kinds))}")
    named = _named(slides)
    labels = {name: _labels(name, slide, key) for name, slide in named.items()}
    classes = _classes(labels, key)
    used = {name: s for name, s in named.items() if labels[name].isin(classes).any()}
    how: dict[str, Any] = {"patient_key": patient_key, "layer": layer, "slide_key": slide_key}
    views, codes = [], []
    for name, slide in used.items():
        own = codes_of(labels[name], classes)
        for view in view_slides({name: slide}, model, features, **how):
            if (own[view.rows] >= 0).any():
                views.append(view)
                codes.append(own[view.rows])
    facts = {
        "spots": {view.name: int((c >= 0).sum()) for view, c in zip(views, codes, strict=True)},
        "patients": sorted({view.patient for view in views}),
        "model": repr(model),
        "sagefm": __version__,
    }
    settings = Settings(key, method, features, balanced, smooth=smooth, seed=seed)
    found = learn(views, codes, classes, model, settings, centered, facts)
    if found.held_out.unit != "patient":
        logger.warning(
            "labels of one patient: %ss were held out to calibrate, so that on another patient "
            "there will be more errors than it thinks", found.held_out.unit,
        )  # fmt: skip
    return found


def annotate(
    known: "Annotator | Slides",
    slide: "AnnData",
    model: "SageFM",
    key: str = "label",
    *,
    error_rate: float | None = None,
    key_added: str = LABEL,
    layer: str | None = None,
    slide_key: str | None = None,
    **learning: Any,
) -> Annotator:
    """Label the spots of a slide by what is known from others.

    Parameters
    ----------
    known
        Labeled slides to learn from, or an annotator that has.
    slide
        The slide to label: raw counts and ``obsm["spatial"]``.
    model
        A model; the one that the annotator was learned with.
    key
        ``obs`` column of the labels that are learned.
    error_rate
        The share of wrong labels that you can bear, such as 0.05. Spots are ``"unknown"`` below the
        confidence from which no held-out patient had more errors among the spots that were
        labeled, and where 99 % of what was learned from is less unusual. Every spot gets its
        likeliest class if not given.
    key_added
        Where in ``obs`` the labels go.
    layer, slide_key
        As for :meth:`sagefm.SageFM.prepare`.
    **learning
        As for :func:`learn_annotator`.

    Returns
    -------
    The annotator, to be asked again or saved. Sets on `slide` ``obs["sagefm_label"]`` (categorical,
    with ``"unknown"``), ``obs["sagefm_label_confidence"]`` (calibrated probability of the likeliest
    class), ``obs["sagefm_label_novelty"]`` (0 to 1: the share of what was learned from that is less
    unusual), ``obsm["sagefm_label_probabilities"]`` (DataFrame, spots × classes) and
    ``uns["sagefm"]["annotate"]``.

    Raises
    ------
    InputError
        As :func:`learn_annotator`; `error_rate` is not between 0 and 1; the annotator belongs to
        another model.
    """
    if error_rate is not None and not 0 < error_rate < 1:
        raise InputError(f"error_rate={error_rate}: give a share between 0 and 1, such as 0.05")
    if not isinstance(known, Annotator):
        known = learn_annotator(known, model, key, layer=layer, slide_key=slide_key, **learning)
    elif learning:
        raise InputError(f"{next(iter(learning))}: is of learning, and the annotator has learned")
    if known.fingerprint != model.fingerprint:
        raise InputError("annotator: belongs to another model; give the one it was learned with")
    p = np.empty((slide.n_obs, len(known.classes)))
    novelty = np.empty(slide.n_obs)
    how: dict[str, Any] = {"patient_key": "", "layer": layer, "slide_key": slide_key}
    for view in view_slides({"": slide}, model, known.settings.features, **how):
        p[view.rows], novelty[view.rows] = known.probabilities(view), known.novelty(view)
    names = known.labels(p, novelty, error_rate)
    if error_rate is not None and (names == UNKNOWN).all():
        logger.warning(
            "every spot is unknown: at an error rate of %g this annotator can say nothing here; "
            "allow more errors, or label more patients", error_rate,
        )  # fmt: skip
    slide.obs[key_added] = pd.Categorical(names, categories=[*known.classes, UNKNOWN])
    slide.obs[f"{key_added}_confidence"] = p.max(axis=1).astype(np.float32)
    slide.obs[f"{key_added}_novelty"] = novelty.astype(np.float32)
    slide.obsm[f"{key_added}_probabilities"] = pd.DataFrame(
        p.astype(np.float32), slide.obs_names, list(known.classes)
    )
    slide.uns.setdefault(PROVENANCE, {})["annotate"] = {
        "key": key_added,
        "error_rate": "none" if error_rate is None else error_rate,
        "temperature": known.temperature,
        "held_out": known.held_out.unit,
        "settings": json.dumps(known.settings.__dict__),
        "learned_from": json.dumps(known.facts),
        "fingerprint": known.fingerprint,
        "sagefm": __version__,
    }
    return known


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
    """Choose the classes to learn."""
    sizes = pd.concat([own.dropna() for own in labels.values()]).value_counts()
    if sizes.empty:
        raise InputError(f"obs[{key!r}]: no spot has a label; label some, or name another column")
    classes = sorted(str(name) for name in sizes.index[sizes >= LEAST_SPOTS])
    if len(classes) < 2:
        found = ", ".join(f"{name} {n}" for name, n in sizes.items())
        raise InputError(
            f"obs[{key!r}]: two classes with {LEAST_SPOTS} labeled spots at least are needed "
            f"(spots: {found}); label more"
        )
    if rare := [f"{name} ({n})" for name, n in sizes.items() if name not in classes]:
        logger.warning(
            "left out, fewer than %d labeled spots: %s", LEAST_SPOTS, few(rare, 10),
        )  # fmt: skip
    if UNKNOWN in classes:
        raise InputError(f"obs[{key!r}]: has a class {UNKNOWN!r}; rename it, or leave it empty")
    return classes
