"""Compare a slide with the training slides that a model records: technology, genes, depth."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sagefm._text import few, numbered
from sagefm.pp.slide_record import SlideRecord, described, records_of

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    from sagefm.model import SageFM
    from sagefm.pp.aligned import AlignedSlide

_UNKNOWN = float("nan")
_NEAREST = 3
"""Training slides that are named, of as many patients."""


@dataclass
class Comparison:
    """A slide compared with the training slides of a model."""

    values: dict[str, float] = field(default_factory=dict)
    """Name of a rule → value."""
    words: dict[str, str] = field(default_factory=dict)
    """What the sentences of these rules name."""
    expected: dict[str, str] = field(default_factory=dict)
    """Name of a rule → the values of the training slides."""


def compare(
    slide: "AnnData",
    model: "SageFM",
    prepared: "AlignedSlide",
    profile: "NDArray[np.float64] | None",
) -> Comparison:
    """Compare a slide with the training slides that a model records.

    Parameters
    ----------
    slide
        Its first section says what its technology is.
    model
        With records or without.
    prepared
        The slide, aligned to the model.
    profile
        Mean of its embeddings; None if the model has no sample of training spots.

    Returns
    -------
    Values for the rules; without records only that there are none.
    """
    records = records_of(model.provenance)
    found = Comparison()
    found.values["recorded"] = float(len(records))
    if not records:
        return found
    found.words["organs"] = _counted(record.organ for record in records.values())
    spots = np.flatnonzero(prepared.sections == prepared.sections[0])
    shown = SlideRecord.of(prepared, model.vocabulary.symbols, **described(slide, spots))
    _add_same(found, "array", shown.array, records)
    _add_same(found, "gene_set", shown.gene_set, records)
    for name, form in (("counts", "{:,.0f}"), ("measured", "{:.0%}"), ("pitch_um", "{:,.4g} µm")):
        own = getattr(shown, name)
        theirs = [getattr(record, name) for record in records.values()]
        _add_range(found, name, own, [value for value in theirs if value is not None], form)
    _add_nearest(found, profile, records)
    return found


def _add_same(found: Comparison, name: str, own: str, records: dict[str, SlideRecord]) -> None:
    """Count the training slides with the same array, or set of genes."""
    same = [record for record in records.values() if own and getattr(record, name) == own]
    found.values[f"same_{name}"] = float(len(same)) if own else _UNKNOWN
    technologies = dict.fromkeys(record.technology for record in same if record.technology)
    which = f" ({few(technologies)})" if technologies else ""
    found.words[name] = own
    found.words[f"same_{name}"] = numbered(len(same), "training slide") + which
    found.expected[f"same_{name}"] = _counted(getattr(each, name) for each in records.values())


def _add_range(
    found: Comparison, name: str, own: float | None, theirs: Sequence[float], form: str
) -> None:
    """Compute by which factor a value lies outside the range of the training slides; 1 inside."""
    value = _UNKNOWN
    if own is not None and theirs:
        low, high = min(theirs), max(theirs)
        value = max(1.0, own / high if high else 1.0, low / own if own else 1.0)
        found.expected[f"range_{name}"] = f"{form.format(low)} to {form.format(high)}"
        found.words[name] = form.format(own)
    found.values[f"range_{name}"] = value


def _add_nearest(
    found: Comparison, profile: "NDArray[np.float64] | None", records: dict[str, SlideRecord]
) -> None:
    """Compute how far the nearest training slide is, compared with these among each other.

    The value is the fraction of training slides that lie nearer to one of another patient; every
    patient counts the same.
    """
    width = 0 if profile is None else len(profile)
    known = {name: each for name, each in records.items() if width and len(each.profile) == width}
    found.values["nearest_slide"] = _UNKNOWN
    patients = np.array([each.patient or name for name, each in known.items()])
    if profile is None or len(set(patients.tolist())) < _NEAREST:
        return
    profiles = np.array([each.profile for each in known.values()])
    distances = np.linalg.norm(profiles - profile, axis=1)
    apart = np.linalg.norm(profiles[:, None] - profiles, axis=2)
    apart[patients[:, None] == patients] = np.inf
    nearer = apart.min(axis=1) < distances.min()
    found.values["nearest_slide"] = float(pd.Series(nearer).groupby(patients).mean().mean())
    nearest = pd.Series(distances, index=list(known)).sort_values(kind="stable")
    owner = dict(zip(known, patients, strict=True))
    names = nearest.index[~nearest.index.map(owner).duplicated()][:_NEAREST]
    found.words["nearest"] = ", ".join(
        f"{name} ({known[name].organ})" if known[name].organ else name for name in names
    )


def _counted(values: Any) -> str:
    """Write how often each value occurs, the most frequent first: breast 22, heart 6."""
    counts = Counter(value or "not known" for value in values)
    return ", ".join(f"{value} {number}" for value, number in counts.most_common())
