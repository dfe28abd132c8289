"""Find the sections of an object, and split objects into the sections of patients."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sagefm._errors import InputError
from sagefm._text import few, numbered
from sagefm._uns import libraries, provenance, table, text
from sagefm.pp.counts import coordinates
from sagefm.pp.curve import along_curve
from sagefm.pp.evidence import columns_of, find_evidence, usual
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
        A slide has no spots or coordinates, a spot has no patient or no section, or two sections
        have the same name.
    """
    names: set[str] = set()
    for name, slide in slides.items():
        if not slide.n_obs:
            raise InputError(f"{name or 'slide'}: has no spots; leave it out")
        owners = patients_of(name, slide, patient_key, patients)
        key = find_slide_key(slide, slide_key)
        codes = section_codes(slide, key)
        try:
            points = coordinates(slide)
        except InputError as error:
            raise InputError(f"{name}: {error}" if name else str(error)) from error
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


def find_slide_key(slide: "AnnData", slide_key: str | None = None) -> str | None:
    """Find the ``obs`` column with the slide of each spot; None if there is only one slide.

    An empty `slide_key` says that there is only one.

    Raises
    ------
    InputError
        `slide_key` is no column, or there are evidently several slides and no `slide_key`.
    """
    if slide_key:
        if slide_key not in slide.obs:
            raise InputError(
                f"there is no obs column {slide_key!r} for slide_key; "
                f"the columns are: {few(slide.obs.columns, 20) or 'none'}"
            )
        return slide_key
    read = provenance(slide, "read")
    recorded = text(read.get("slide_key"))
    if slide_key == "":
        return None
    if recorded and recorded in slide.obs:
        return recorded
    # Places and barcodes were looked at when the slide was read, which takes long for a large one.
    looked_at = read.get("n_spots") == slide.n_obs
    if several := _named(slide) or ("" if looked_at else _shown(slide)) or _stored(slide):
        raise InputError(f"several slides in one object: {several}")
    return None


def _named(slide: "AnnData") -> str:
    """Describe the column of a usual name that has several slides; empty if there is none."""
    for key in usual(slide):
        values = text_of(slide.obs[key]).dropna().unique()
        if 2 <= len(values) <= slide.n_obs // 3:
            return (
                f"obs['{key}'] has {len(values)} values ({few(values)}); pass slide_key={key!r} "
                "(or delete that column if it is one slide)"
            )
    key = text(table(slide.uns.get("spatialdata_attrs")).get("region_key"))
    regions: list[str] = []
    if key in columns_of(slide):
        regions = text_of(slide.obs[key]).dropna().unique().tolist()
    if len(regions) > 1:
        return (
            f"obs['{key}'], the region of SpatialData, has {len(regions)} values "
            f"({few(regions)}); pass slide_key={key!r}"
        )
    return ""


def _shown(slide: "AnnData") -> str:
    """Describe what shows that there are several slides, and the remedy; empty if nothing does."""
    evidence = find_evidence(slide)
    if evidence is None:
        return ""
    if evidence.key is None:
        return (
            f"{evidence.why}, and no column of obs tells the slides apart; add one with the slide "
            "of each spot, and pass it as slide_key"
        )
    values = slide.obs[evidence.key].unique()
    return (
        f"{evidence.why}; pass slide_key={evidence.key!r} ({len(values)} values: {few(values)}), "
        "or a column with a single value if it is one slide"
    )


def _stored(slide: "AnnData") -> str:
    """Describe the libraries of several slides, unless a column names one of them."""
    stored = libraries(slide)
    if len(stored) < 2:
        return ""
    for key in columns_of(slide):
        values = set(text_of(slide.obs[key]).dropna().unique()[: len(stored) + 1])
        if len(values) == 1 and (values <= set(stored) or key in usual(slide)):
            return ""
        if len(values) > 1 and values <= set(stored):
            return (
                f"uns['spatial'] has {len(stored)} libraries ({few(stored)}), which obs['{key}'] "
                f"names; pass slide_key={key!r}"
            )
    return (
        f"uns['spatial'] has {len(stored)} libraries ({few(stored)}); add a column to obs with the "
        "library of each spot, and pass it as slide_key"
    )


def section_codes(slide: "AnnData", slide_key: str | None = None) -> NDArray[np.int64]:
    """Get the number of the section of each spot.

    Parameters
    ----------
    slide
        One slide, or several in one object.
    slide_key
        ``obs`` column with the section of each spot; by default as :func:`sagefm.read` recorded.

    Returns
    -------
    An integer per spot, by first occurrence; zeros if there is one slide.

    Raises
    ------
    InputError
        The column is missing or has gaps, or several slides are evident and `slide_key` was not
        given.
    """
    key = find_slide_key(slide, slide_key)
    if key is None:
        return np.zeros(slide.n_obs, dtype=np.int64)
    codes: NDArray[np.int64] = pd.factorize(text_of(slide.obs[key]))[0].astype(np.int64)
    if missing := int((codes < 0).sum()):
        raise InputError(
            f"obs['{key}'] has no value for {numbered(missing, 'spot')}: their slide is unknown; "
            "fill the column in, or leave those spots out"
        )
    return codes
