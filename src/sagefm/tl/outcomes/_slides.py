"""Summarize the slides of patients, one at a time: embedding, counts and labels."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from sagefm._errors import InputError
from sagefm._keys import DOMAIN, LABEL, MAPPED
from sagefm._text import few, numbered
from sagefm._types import Singles
from sagefm._uns import provenance
from sagefm.pp.counts import coordinates
from sagefm.pp.labels import labels_of
from sagefm.tl.description import touching
from sagefm.tl.outcomes._labels import LabelCounts, count_labels
from sagefm.tl.patients import PatientSlide, SlideSource, SummarizedSlide, summarize

if TYPE_CHECKING:
    from sagefm.model import SageFM

OWN_KEYS = (DOMAIN, LABEL, MAPPED)
"""Columns with labels that are used wherever all slides have them."""
_MAX_SPOTS = 512
"""Spots of each slide, drawn at random, that quantiles are computed of."""
_MAX_LABELS = 50
_MAX_IN_ALL = 100
"""Labels of all slides together: each two of them are features."""
MIN_GENES = 50
"""That all slides have, for pseudobulk."""
_SAME_PANEL = 0.5
"""Slides of one panel have at least this fraction of the genes of the slide with most."""


@dataclass(frozen=True)
class OutcomeSlide:
    """What is kept of a slide."""

    number: int
    summary: SummarizedSlide
    """With the mean embedding."""
    spots: Singles
    """The embedding of some of its spots."""
    labels: dict[str, LabelCounts] = field(default_factory=dict)
    """Column → counts of its labels."""
    domains_of: int = 0
    """Number of sections that its domains were made for, 0 if not known."""

    @property
    def name(self) -> str:
        return self.summary.name

    @property
    def patient(self) -> str:
        return self.summary.patient


def summarize_slides(
    source: SlideSource,
    model: "SageFM",
    keys: Sequence[str] | None,
    seed: int,
    progress: Callable[[str], object],
) -> list[OutcomeSlide]:
    """Embed and summarize each slide.

    Parameters
    ----------
    source
        The slides.
    model
        A model.
    keys
        Columns of ``obs`` with labels, which all slides must have; None for `OWN_KEYS`.
    seed
        Of the spots that quantiles are computed of: those of a slide do not depend on the others.
    progress
        Called with a line per slide.

    Raises
    ------
    InputError
        A slide lacks a column that was asked for, the column has no labels or too many, or two
        slides are the same.
    """
    found = []
    for one, aligned in source.aligned(model):
        progress(f"slide {one.number}: {numbered(one.slide.n_obs, 'spot')}")
        summary = summarize(one, model, aligned, keep_spots=True)
        z = summary.z
        rng = np.random.default_rng([seed, len(z)])
        chosen = np.sort(rng.permutation(len(z))[:_MAX_SPOTS])
        mean = z.mean(axis=0, keepdims=True, dtype=np.float64).astype(np.float32)
        found.append(
            OutcomeSlide(
                one.number,
                SummarizedSlide(one.name, one.patient, mean, summary.sums, summary.means),
                z[chosen], _labels(one, keys),
                _sections_of_domains(one),
            )
        )  # fmt: skip
    return found


def common_keys(
    slides: Sequence[OutcomeSlide], keys: Sequence[str] | None
) -> tuple[list[str], list[str]]:
    """List the columns with labels that all slides have, and notes on those that are left out.

    Raises
    ------
    InputError
        A column says something of slides, and nothing of their spots.
    """
    every = list(dict.fromkeys(key for one in slides for key in one.labels))
    common = [key for key in every if all(key in one.labels for one in slides)]
    for key in common:
        if (n := len(set().union(*(one.labels[key].spots.index for one in slides)))) > _MAX_IN_ALL:
            raise InputError(
                f"keys: obs[{key!r}] has {n} different values in all slides; name a column with "
                f"at most {_MAX_IN_ALL} labels, which mean the same in all slides"
            )
        names = [tuple(one.labels[key].spots.index) for one in slides]
        if len(set(names)) > 1 and all(len(one) == 1 for one in names):
            raise InputError(
                f"keys: obs[{key!r}] is the same in all spots of a slide; name a column with "
                "labels of spots, such as domains or cell types"
            )
    notes = [
        f"obs[{key!r}]: only {sum(key in one.labels for one in slides)} of {len(slides)} slides "
        "have it; it is left out"
        for key in every
        if key not in common
    ]
    if keys is None and DOMAIN not in every:
        notes.append(
            "no features of domains: find domains of all slides together first (tl.domains, "
            "`sagefm domains`)"
        )
    return common, notes


def differing_genes(slides: Sequence[OutcomeSlide], n_genes: int) -> list[str]:
    """Warn if slides are of different panels."""
    numbers = [len(one.summary.sums) for one in slides]
    common = set.intersection(*(set(one.summary.sums.index) for one in slides))
    notes = []
    if min(numbers) < _SAME_PANEL * max(numbers):
        fewest = slides[int(np.argmin(numbers))].number
        notes.append(
            f"slides have {min(numbers):,} (slide {fewest}) to {max(numbers):,} of the "
            f"{n_genes:,} genes of the model: embeddings may show the panel; compare slides of one "
            "panel"
        )
    if len(common) < MIN_GENES:
        notes.append(f"no pseudobulk: slides have fewer than {MIN_GENES} genes in common")
    return notes


def disagreement(slides: Sequence[OutcomeSlide], key: str) -> str:
    """Describe what shows that labels of slides are not common to all; empty if nothing does."""
    if key == DOMAIN and len(slides) > 1 and any(one.domains_of == 1 for one in slides):
        return (
            f"obs[{key!r}]: domains were made for each slide alone, and the same name means "
            "something else in each; find domains of all slides together (tl.domains, "
            "`sagefm domains`)"
        )
    names = [set(one.labels[key].spots.index) for one in slides]
    every = set.union(*names)
    spelled: dict[str, list[str]] = {}
    for name in sorted(every):
        spelled.setdefault(" ".join(name.casefold().split()), []).append(name)
    if alike := [same for same in spelled.values() if len(same) > 1]:
        return (
            f"obs[{key!r}]: {few(alike[0])} count as different labels; write them alike if they "
            "are not"
        )
    alone = [name for name in every if sum(name in one for one in names) == 1]
    if len(slides) > 1 and not set.intersection(*names) and len(alone) > len(every) / 2:
        return (
            f"obs[{key!r}]: most labels are of one slide only ({few(sorted(alone))}); labels must "
            "have the same meaning in all slides"
        )
    return ""


def _sections_of_domains(one: PatientSlide) -> int:
    number = provenance(one.slide, "domains").get("n_sections", 0)
    return int(number) if isinstance(number, int | np.integer) else 0


def _labels(one: PatientSlide, keys: Sequence[str] | None) -> dict[str, LabelCounts]:
    counted = {}
    for key in OWN_KEYS if keys is None else keys:
        if key not in one.slide.obs:
            if keys is None:
                continue
            columns = few(one.slide.obs.columns, 20) or "none"
            raise InputError(f"{one.name}: keys: has no obs column {key!r}; it has {columns}")
        labels = labels_of(one.slide, key)
        n_labels = labels.nunique()
        if n_labels == 0 and keys is None:
            continue
        if not 0 < n_labels <= _MAX_LABELS:
            raise InputError(
                f"{one.name}: obs[{key!r}] has {n_labels} different values; name a column with "
                f"1 to {_MAX_LABELS} labels, such as domains or cell types"
            )
        counted[key] = count_labels(labels, touching(coordinates(one.slide)))
    return counted
