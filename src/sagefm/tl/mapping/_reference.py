"""The annotated sections that others are mapped onto, in an order that does not depend on input."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sagefm._errors import InputError, logger
from sagefm._keys import UNKNOWN
from sagefm._text import few
from sagefm._types import Bools, Codes, Singles
from sagefm.pp.counts import counts
from sagefm.pp.labels import labels_of, text_of
from sagefm.pp.sections import section_codes

if TYPE_CHECKING:
    from anndata import AnnData

    from sagefm.model import SageFM


@dataclass(frozen=True)
class ReferenceSections:
    """Annotated sections.

    Attributes
    ----------
    slides
        One for each section.
    codes
        For each section the label of each spot; -1 where it has none.
    patients
        The patient of each section.
    embeddings
        Of each section, if there is a model.
    names
        The labels, sorted.
    """

    slides: "list[AnnData]"
    codes: list[Codes]
    patients: list[str]
    embeddings: list[Singles]
    names: list[str]

    @classmethod
    def of(
        cls,
        slides: "Mapping[str, AnnData]",
        key: str,
        model: "SageFM | None",
        *,
        patient_key: str,
        layer: str | None,
        slide_key: str | None,
    ) -> "ReferenceSections":
        """Get the sections that have labels, sorted by their library sizes.

        Raises
        ------
        InputError
            No slide has such a column, or there are fewer than two labels.
        """
        if not any(key in slide.obs for slide in slides.values()):
            labels_of(next(iter(slides.values())), key)  # raises an error that lists the columns
        labels = {name: labels_of(slide, key) for name, slide in slides.items() if key in slide.obs}
        labels = {name: column for name, column in labels.items() if column.notna().any()}
        names = sorted({str(word) for column in labels.values() for word in column.dropna()})
        _check(names, key)
        if without := [name for name in slides if name not in labels]:
            logger.info("reference slides without labels are left out: %s", few(without, 10))
        sections = []
        for name, column in labels.items():
            slide, every = slides[name], section_codes(slides[name], slide_key)
            codes = np.array([names.index(w) if w else -1 for w in column], dtype=np.int64)
            embedding = None if model is None else model.embed(slide)
            for code in np.unique(every[codes >= 0]):
                spots = every == code
                patient = _patient(slide, spots, patient_key) or f"slide {name}"
                sections.append((slide[spots], codes[spots], patient, spots, embedding))
        sections.sort(key=lambda section: _library_sizes(section[0], layer))
        return cls(
            [slide for slide, *_ in sections], [codes for _, codes, *_ in sections],
            [patient for _, _, patient, *_ in sections],
            [z[spots] for *_, spots, z in sections if z is not None], names,
        )  # fmt: skip


def _check(names: list[str], key: str) -> None:
    if len(names) < 2:
        what = f"has only the label {names[0]!r}" if names else "has no label at all"
        raise InputError(
            f"obs[{key!r}]: the reference {what}; give reference slides with two labels at least"
        )
    if UNKNOWN in names:
        raise InputError(
            f"obs[{key!r}]: the reference has a label {UNKNOWN!r}; rename it or leave these spots "
            "empty"
        )


def _patient(slide: "AnnData", spots: Bools, patient_key: str) -> str | None:
    """Get the patient of a section; None if it is not recorded, or for some spots only."""
    if patient_key not in slide.obs:
        return None
    words = set(text_of(slide.obs[patient_key][spots]))
    return str(words.pop()) if len(words) == 1 and None not in words else None


def _library_sizes(slide: "AnnData", layer: str | None) -> tuple[float, ...]:
    sizes = np.asarray(counts(slide, layer).matrix.sum(axis=1, dtype=np.float64)).ravel()
    return len(sizes), *np.sort(sizes)
