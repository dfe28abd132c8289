"""What a model records about the slides that it was trained on, and what any slide shows of it."""

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Annotated, Any, Self

import numpy as np
import pandas as pd

from sagefm._errors import InputError, logger
from sagefm._uns import libraries, positive, table, text
from sagefm._validate import Range, read_as, short
from sagefm.pp.barcodes import places
from sagefm.pp.counts import coordinates
from sagefm.pp.grid import Grid
from sagefm.pp.labels import text_of, word_of
from sagefm.pp.scale import microns_per_unit, usual_pitch

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    from sagefm._types import Positions
    from sagefm.pp.aligned import AlignedSlide

TRAINED_SLIDES = "trained_slides"
"""Entry of a model's provenance with the record of each slide."""
STATED = ("organ", "disease", "technology", "source", "accession", "license")
"""What only people know about a slide."""
_VISIUM, _CYTASSIST, _HD = "Visium", "Visium, a later array than v1 (CytAssist)", "Visium HD"
_LEGACY, _SQUARE = "legacy array", "barcodes on a square grid"
_PITCH_UM = {_VISIUM: 100.0, _CYTASSIST: 100.0, _LEGACY: 200.0}
"""Distance of neighboring spots, by the design of the array."""
_NAMED = {
    r"visium.*\bhd\b": _HD,
    r"cyt ?assist|visium v[4-9]": _CYTASSIST,
    r"visium|spatial 3'": _VISIUM,
    r"spatial transcriptomics|legacy": _LEGACY,
    r"dbit": _SQUARE,
    "xenium": "Xenium", "merfish|merscope": "MERFISH", "cosmx": "CosMx",
    "slide-?seq": "Slide-seq", "stereo-?seq": "Stereo-seq",
}  # fmt: skip
"""Words in the name of a technology → its array; the first that fits."""
_NAMES = 2000
"""Spots whose names are looked at."""
_MITOCHONDRIAL, _RIBOSOMAL = re.compile(r"MT-"), re.compile(r"RP[SL]P?\d+[AXYL]?\d*$")
_LEAST = 5
"""Genes of a family that a vocabulary needs for their fraction to say something."""
_PANEL, _MOST, _FAMILY = 0.15, 0.7, 0.5
"""Fractions of a vocabulary below which it is a panel, above which it is most genes, and of a
family of genes that counts as measured."""

Fraction = Annotated[float, Range(0, 1)]


@dataclass(frozen=True)
class SlideRecord:
    """A slide in a few numbers and words; those that are not known are empty.

    A fact of :data:`STATED` is as people gave it; the others are computed.
    """

    spots: Annotated[int, Range(0, 2**40)]
    counts: Annotated[float, Range(0, 1e12)]
    """Median library size, over all genes of the slide."""
    genes: Annotated[int, Range(0, 2**31)]
    """Genes of the vocabulary that were measured."""
    measured: Fraction
    """Their fraction of the vocabulary."""
    mitochondrial: Fraction | None = None
    """Fraction of the vocabulary's mitochondrial genes that were measured."""
    ribosomal: Fraction | None = None
    array: str = ""
    """Array, as far as barcodes, grid and pitch show it."""
    pitch_um: Annotated[float, Range(0, 1e6)] | None = None
    patient: str = ""
    organ: str = ""
    disease: str = ""
    technology: str = ""
    source: str = ""
    accession: str = ""
    license: str = ""
    profile: tuple[Annotated[float, Range(-1e6, 1e6)], ...] = ()
    """Mean embedding of the slide, over the components of the model's sample of training spots."""

    @classmethod
    def of(cls, slide: "AlignedSlide", symbols: tuple[str, ...], **known: Any) -> Self:
        """Describe an aligned slide.

        Parameters
        ----------
        slide
            All spots of it.
        symbols
            Of the vocabulary.
        known
            Further entries, such as those of :func:`described`.
        """
        return cls(
            spots=slide.counts.shape[0],
            counts=float(np.median(slide.library_size)) if len(slide.library_size) else 0.0,
            genes=int(slide.measured.sum()),
            measured=round(float(slide.measured.mean()), 4),
            mitochondrial=_fraction_of(_MITOCHONDRIAL, symbols, slide.measured),
            ribosomal=_fraction_of(_RIBOSOMAL, symbols, slide.measured),
            **known,
        )

    @property
    def gene_set(self) -> str:
        """Name of the set of genes that was measured."""
        size = "a panel or few genes" if self.measured < _PANEL else "a subset of the genes"
        size = "most genes" if self.measured >= _MOST else size
        families = {"mitochondrial": self.mitochondrial, "ribosomal": self.ribosomal}
        known = {name: value for name, value in families.items() if value is not None}
        lacking = [name for name, value in known.items() if value < _FAMILY]
        if lacking:
            return f"{size}, without {' and '.join(lacking)} ones"
        whole = self.measured >= _MOST and len(known) == len(families)
        return "the whole transcriptome" if whole else size

    def stated(self, **facts: str) -> Self:
        """Replace facts of :data:`STATED`; a technology shows the array where nothing else does."""
        array = self.array or array_named(facts.get("technology", ""))
        pitch_um = self.pitch_um or _PITCH_UM.get(array)
        changed: dict[str, Any] = {**facts, "array": array, "pitch_um": pitch_um}
        return replace(self, **changed)

    def with_profile(self, profile: "NDArray[np.floating[Any]]") -> Self:
        """Add the mean embedding; in a file, two digits of it are enough."""
        return replace(self, profile=tuple(np.round(profile.astype(np.float64), 2).tolist()))

    def entries(self) -> dict[str, Any]:
        """List what is known, to be written."""
        return {name: value for name, value in asdict(self).items() if value not in ("", None, ())}


def records_of(provenance: Mapping[str, Any]) -> dict[str, SlideRecord]:
    """Read the records of a model's training slides; nothing if it has none that can be read."""
    declared = {field.name for field in fields(SlideRecord)}
    stored = provenance.get(TRAINED_SLIDES, {})
    try:
        if not isinstance(stored, Mapping):
            raise ValueError(f"{short(stored)} is no table")
        return {
            name: read_as(
                SlideRecord,
                # Entries that a later version adds are ignored.
                {key: row[key] for key in declared & row.keys()} if type(row) is dict else row,
                name,
            )
            for name, row in stored.items()
        }
    except ValueError as error:
        logger.warning(
            "the model's records of its training slides are left out, because they are damaged "
            "(%s); copy the file again", short(error),
        )  # fmt: skip
        return {}


def without_records(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out the records of the training slides, which are long."""
    return {name: entry for name, entry in provenance.items() if name != TRAINED_SLIDES}


def kinds_of(records: Mapping[str, SlideRecord]) -> pd.DataFrame:
    """Count the training slides of each organ, technology and set of genes.

    Returns
    -------
    Columns organ, technology (as stated, else as inferred), genes, slides, patients, spots, counts
    (range of the median library sizes) and measured (range of the fraction of the vocabulary).
    """
    columns = ["organ", "technology", "genes", "slides", "patients", "spots", "counts", "measured"]
    groups: dict[tuple[str, str, str], dict[str, SlideRecord]] = {}
    for name, record in records.items():
        technology = record.technology or record.array or "not known"
        kind = record.organ or "not known", technology, record.gene_set
        groups.setdefault(kind, {})[name] = record
    rows = [
        [
            *kind, len(group), len({each.patient or name for name, each in group.items()}),
            sum(each.spots for each in group.values()),
            _range([each.counts for each in group.values()], "{:,.0f}"),
            _range([100 * each.measured for each in group.values()], "{:.0f}") + " %",
        ]
        for kind, group in groups.items()
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=columns)
    return table.sort_values(["slides", "spots"], ascending=False, ignore_index=True)


def described(slide: "AnnData", spots: "Positions") -> dict[str, Any]:
    """Find out what a section shows and says of its technology, and the other stated facts.

    Parameters
    ----------
    slide
        Coordinates and names of spots; facts in columns of ``obs`` with a single value, or in
        ``uns``.
    spots
        The spots of the section.

    Returns
    -------
    ``array``, ``pitch_um`` and those of :data:`STATED`, without what is not known.
    """
    stated = dict.fromkeys(STATED, "")
    for name in STATED:
        with suppress(InputError):  # a column of anything but text states nothing
            stated[name] = noted(slide, spots, name)
    points = coordinates(slide)[spots]
    array = _array_of(slide.obs_names[spots], points, positive(slide.uns.get("spot_pitch_um")))
    array = array or array_named(stated["technology"], *_chemistry(slide))
    pitch_um = _pitch_um(slide, points) or _PITCH_UM.get(array)
    found = {**stated, "array": array, "pitch_um": pitch_um and round(pitch_um, 3)}
    return {name: value for name, value in found.items() if value}


def noted(slide: "AnnData", spots: "Positions", fact: str) -> str:
    """Find a fact in a slide: in a column of obs with a single value, or in uns."""
    if slide.obs.columns.tolist().count(fact) == 1:
        values = text_of(slide.obs[fact].iloc[spots]).dropna().unique()
        return str(values[0]) if len(values) == 1 else ""
    value = slide.uns.get(fact, "")
    return (word_of(value) or "") if isinstance(value, str) else ""


def array_named(*names: str) -> str:
    """Find the array that the name of a technology means; an empty text if it is not known."""
    for name in names:
        for words, array in _NAMED.items():
            if re.search(words, name, re.IGNORECASE):
                return array
    return ""


def _array_of(names: Any, points: "NDArray[np.float64]", stated_um: float | None) -> str:
    """Find the array that barcodes and grid show."""
    try:
        return {"Visium v1": _VISIUM, "Visium HD": _HD}[places(names).chip]
    except InputError:
        pass
    step = -(-len(names) // _NAMES) or 1
    listed = [str(name) for name in names[::step]]

    def named(form: str) -> bool:
        return bool(np.mean([bool(re.search(form, name)) for name in listed]) > 0.95)

    grid = Grid.of(points)
    hexagonal = grid is not None and grid.hexagonal
    if named(r"(?<![ACGT])[ACGT]{16}(?![ACGT])") and grid is not None:
        return _CYTASSIST if hexagonal else _SQUARE
    on_square = not hexagonal and stated_um in (None, _PITCH_UM[_LEGACY])
    if on_square and named(r"(?<!\d)\d{1,2}x\d{1,2}(?!\d)|(?<![ACGT])[ACGT]{18}(?![ACGT])"):
        return _LEGACY
    return ""


def _chemistry(slide: "AnnData") -> list[str]:
    """List what Space Ranger says of the kits of a slide."""
    metadata = [table(library.get("metadata")) for library in libraries(slide).values()]
    return [text(entry.get("chemistry_description")) for entry in metadata]


def _pitch_um(slide: "AnnData", points: "NDArray[np.float64]") -> float | None:
    """Get the distance of neighboring spots that a slide states, or its scale."""
    if stated := positive(slide.uns.get("spot_pitch_um")):
        return stated
    apart = usual_pitch(points, np.zeros(len(points), dtype=np.int64))
    scale = microns_per_unit(slide, points, apart)
    return apart * scale if apart and scale else None


def _range(values: list[float], form: str) -> str:
    """Write the lowest and the highest value, one where they are the same."""
    return " to ".join(dict.fromkeys(form.format(end(values)) for end in (min, max)))


def _fraction_of(
    family: re.Pattern[str], symbols: tuple[str, ...], measured: "NDArray[np.bool_]"
) -> float | None:
    members = [i for i, symbol in enumerate(symbols) if family.match(symbol)]
    return round(float(measured[members].mean()), 4) if len(members) >= _LEAST else None
