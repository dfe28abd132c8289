"""Where in the tissue a prediction comes from: contributions of spots and domains, with a null."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sagefm._keys import OUTCOME
from sagefm._types import Bools, Codes, Floats, Singles
from sagefm._uns import record
from sagefm.pp.labels import labels_of
from sagefm.stats.outcomes import FeatureSet, SetFit, Target
from sagefm.stats.outcomes.crossval import bootstrap, draw_folds
from sagefm.stats.resampling import benjamini_hochberg, interval
from sagefm.tl.embedding import embed_by_model
from sagefm.tl.patients import SlideSource

if TYPE_CHECKING:
    from sagefm.model import SageFM

EVERY = "all"
"""What rows of all patients together are called."""
_TOLERANCE = 1e-12
_BLOCK = 4_000_000
"""Contributions that are in memory together."""


@dataclass(frozen=True)
class LinearScores:
    """The fits behind the out-of-fold score of each patient, of the truth and of permutations."""

    target: Target
    fits: "Sequence[tuple[Bools, SetFit]]"
    """Training patients, and the fit to them."""
    fit_to_all: SetFit
    orders: Codes

    @classmethod
    def of(
        cls, target: Target, features: FeatureSet, fit_to_all: SetFit, orders: Codes, seed: int
    ) -> "LinearScores":
        """Fit again what gave the out-of-fold predictions of a set."""
        known = np.flatnonzero(target.known)
        fits = []
        for folds in draw_folds(len(known), seed):
            for number in np.unique(folds):
                inner = folds != number
                training = np.zeros(len(target.known), dtype=bool)
                training[known[inner]] = True
                fold = features.fold(training, target.n_components)
                linear = target.fit(fold.features[training], orders[:, inner])
                fits.append((training, SetFit(fold, linear)))
        return cls(target, fits, fit_to_all, orders)

    def weights_for(self, patient: int) -> tuple[Floats, Floats]:
        """Average the fits that predict a patient.

        Returns
        -------
        Labelings × outputs × features; and labelings × outputs, the prediction of the center.
        """
        own = [fit for training, fit in self.fits if not training[patient]]
        if not self.target.known[patient]:
            own = [self.fit_to_all]
        weights = [fit.weights for fit in own]
        at_center = [w @ fit.center for w, fit in zip(weights, own, strict=True)]
        return np.mean(weights, axis=0), np.mean(at_center, axis=0)


@dataclass(frozen=True)
class SpotMap:
    """Contributions of the spots of one slide."""

    contribution: Floats
    p: Floats
    by_label: Floats
    """Labels × labelings × outputs: summed over the spots of each label."""


@dataclass(frozen=True)
class Maps:
    """Contributions in all slides."""

    spots: pd.DataFrame
    domains: pd.DataFrame


def map_slides(
    source: SlideSource,
    model: "SageFM",
    scores: LinearScores,
    patients: dict[str, tuple[int, int, int]],
    key: str | None,
    facts: dict[str, object],
    seed: int,
    progress: Callable[[str], object],
) -> Maps:
    """Compute what each spot and each domain adds to the out-of-fold score of its patient.

    Parameters
    ----------
    source
        The slides.
    model
        The model that features come from.
    scores
        The fits to mean embeddings.
    patients
        Slide → row of the patient in the table, number of its slides, and number of the output that
        is mapped.
    key
        Column of ``obs`` with the domains.
    facts
        What is recorded in slides in memory.
    seed
        Of the bootstrap.
    progress
        Called with a line per slide.
    """
    tables, rows, parts = [], [], []
    current, columns = None, np.empty((0, 2))
    for one in source:
        if one.name not in patients:
            continue
        progress(f"slide {one.number}: contributions")
        patient, n_slides, output = patients[one.name]
        z = embed_by_model(model, one.align(model))
        labels = labels_of(one.slide, key) if key else pd.Series(None, one.slide.obs_names, object)
        codes, names = pd.factorize(labels, sort=True)
        mapped = _map(z, codes, len(names), scores.weights_for(patient), n_slides, output)
        tables.append(
            pd.DataFrame(
                {
                    "slide": one.name, "spot": one.slide.obs_names.astype(str),
                    "contribution": mapped.contribution, "p": mapped.p,
                }
            )
        )  # fmt: skip
        for name, by_labeling in zip(names, mapped.by_label[:, :, output], strict=True):
            rows.append(
                {
                    "slide": one.name, "domain": name, "n_patients": 1,
                    "contribution": by_labeling[0],
                    "p": _two_sided(by_labeling[None])[0],
                }
            )  # fmt: skip
        parts.append((patient, names, mapped.by_label))
        if one.in_memory:
            if one.section.slide is not current:
                current, columns = one.section.slide, np.full((one.section.slide.n_obs, 2), np.nan)
                record(current, "outcome", facts)
            columns[one.rows] = np.column_stack([mapped.contribution, mapped.p])
            current.obs[OUTCOME], current.obs[f"{OUTCOME}_p"] = columns.T
    domains = pd.DataFrame([*_over_patients(scores, parts, seed), *rows], columns=_COLUMNS)
    for chosen in (domains["slide"] == EVERY, domains["slide"] != EVERY):
        domains.loc[chosen, "q"] = benjamini_hochberg(domains.loc[chosen, "p"].astype(float))
    return Maps(pd.concat(tables, ignore_index=True), domains)


_COLUMNS = ["slide", "domain", "n_patients", "contribution", "low", "high", "p", "q"]


def _map(
    z: Singles,
    codes: Codes,
    n_labels: int,
    fit: tuple[Floats, Floats],
    n_slides: int,
    output: int,
) -> SpotMap:
    """Compute contributions of the spots of a slide, some of them at a time."""
    weights, at_center = fit
    n_labelings, n_outputs, width = weights.shape
    flat = weights.reshape(-1, width).T
    contribution, p = np.empty(len(z)), np.empty(len(z))
    by_label = np.zeros((n_labels, n_labelings, n_outputs))
    step = max(1, _BLOCK // (n_labelings * n_outputs))
    for start in range(0, len(z), step):
        rows = slice(start, start + step)
        values = z[rows].astype(np.float64) @ flat
        values = values.reshape(-1, n_labelings, n_outputs) - at_center
        values /= len(z) * n_slides
        contribution[rows] = values[:, 0, output]
        p[rows] = _two_sided(values[:, :, output])
        for code in range(n_labels):
            by_label[code] += values[codes[rows] == code].sum(axis=0)
    return SpotMap(contribution, p, by_label)


def _two_sided(values: Floats) -> Floats:
    """Compute p of the first column among the sizes of all: rows × labelings."""
    sizes = np.abs(values)
    return np.asarray((sizes >= sizes[:, :1] - _TOLERANCE).mean(axis=1))


def _over_patients(
    scores: LinearScores, parts: Sequence[tuple[int, pd.Index, Floats]], seed: int
) -> list[dict[str, object]]:
    """Test by how much each domain raises the score of the patient with the higher outcome."""
    target, orders = scores.target, scores.orders
    names = sorted({name for _, own, _ in parts for name in own})
    if not names:
        return []
    position = np.cumsum(target.known) - 1
    sums = np.zeros((len(names), target.n_patients, *parts[0][2].shape[1:]))
    present = np.zeros((len(names), target.n_patients), dtype=bool)
    for patient, own, by_label in parts:
        if target.known[patient]:
            at = [names.index(name) for name in own]
            sums[at, position[patient]] += by_label
            present[at, position[patient]] = True
    signs = target.signs.astype(np.float64)
    draws = bootstrap(target.blocks, seed)
    n_compared = np.abs(signs).sum(axis=(1, 2))
    higher = np.moveaxis(signs.sum(axis=2)[:, orders], 0, -1)  # labelings × patients × outputs
    # Signs are antisymmetric: the sum over pairs of differences is twice that over patients.
    differences = 2 * np.einsum("dplo,lpo->dlo", sums, higher) / n_compared
    spread = sums.std(axis=1)
    # As in a t test: true effects have larger weights, which would make any domain significant.
    statistics = (differences / np.where(spread > _TOLERANCE, spread, 1.0)).mean(axis=2)
    rows: list[dict[str, object]] = []
    for name, own, found, difference, by_labeling in zip(
        names, sums, present, differences.mean(axis=2), statistics, strict=True
    ):
        low, high = interval(_resampled(own[:, 0], signs, draws))
        rows.append(
            {
                "slide": EVERY, "domain": name, "n_patients": int(found.sum()),
                "contribution": difference[0], "low": low, "high": high,
                "p": float((by_labeling >= by_labeling[0] - _TOLERANCE).mean()),
            }
        )  # fmt: skip
    return rows


def _resampled(values: Floats, signs: Floats, draws: Floats) -> Floats:
    """Compute the mean difference of comparable pairs for resampled patients."""
    found = []
    for output, own in enumerate(signs):
        total = 2 * ((draws @ own.T) * draws) @ values[:, output]
        compared = ((draws @ np.abs(own)) * draws).sum(axis=1)
        found.append(total / np.maximum(compared, 1))
    return np.asarray(np.mean(found, axis=0))
