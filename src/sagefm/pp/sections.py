"""Split objects into the sections of patients."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sagefm._errors import InputError
from sagefm.pp.counts import coordinates, find_slide_key, section_codes
from sagefm.pp.curve import along_curve
from sagefm.pp.labels import text_of, word_of

if TYPE_CHECKING:
    from anndata import AnnData


@dataclass(frozen=True)
class Section:
    """One section of one patient; neighborhoods never cross sections."""

    name: str
    patient: str
    slide: "AnnData"
    rows: NDArray[np.int64]
    """Its rows of the object, along a space-filling curve."""


def sections_of(
    slides: Mapping[str, "AnnData"],
    *,
    slide_key: str | None = None,
    patient_key: str = "patient",
    patients: Mapping[str, str] | None = None,
) -> Iterator[Section]:
    """Split objects into the sections of patients.

    Parameters
    ----------
    slides
        Name → object with one section, or with several in the ``obs`` column `slide_key`.
    patient_key, patients
        As for :func:`patients_of`.

    Raises
    ------
    InputError
        A spot has no patient or no section, or two sections have the same name.
    """
    names: set[str] = set()
    for name, slide in slides.items():
        owners = patients_of(name, slide, patient_key, patients)
        key = find_slide_key(slide, slide_key)
        codes = section_codes(slide, key)
        points = coordinates(slide)
        pairs = dict.fromkeys(zip(codes.tolist(), owners.tolist(), strict=True))
        sections = len({code for code, _ in pairs})
        for code, owner in pairs:
            rows = np.flatnonzero((codes == code) & (owners == owner))
            words = [name]
            words += [str(slide.obs[key].iloc[rows[0]])] if key and sections > 1 else []
            words += [owner] if len(pairs) > sections else []
            section = "_".join(words)
            if section in names:
                raise InputError(f"{name}: a second slide called {section!r}; rename one of them")
            names.add(section)
            yield Section(section, owner, slide, rows[along_curve(points[rows])])


def patients_of(
    name: str, slide: "AnnData", patient_key: str, table: Mapping[str, str] | None
) -> NDArray[np.str_]:
    """Get the patient of each spot of a slide.

    Parameters
    ----------
    name
        Name of the slide, which is used if no patient is known.
    patient_key
        ``obs`` column with the patient.
    table
        Slide → patient; takes precedence over `patient_key`.

    Raises
    ------
    InputError
        `table` does not have the slide, or a spot has no patient.
    """
    if table is not None:
        if name not in table:
            raise InputError(f"{name}: is not in the table of patients; add a row for it")
        if (patient := word_of(table[name])) is None:
            raise InputError(f"{name}: has no patient in the table of patients; name one")
        return np.full(slide.n_obs, patient)
    if patient_key not in slide.obs:
        return np.full(slide.n_obs, name)
    column = text_of(slide.obs[patient_key])
    if column.isna().any():
        raise InputError(
            f"{name}: {int(column.isna().sum())} spots have no {patient_key!r}; fill the column"
        )
    return np.asarray(column, dtype=str)
