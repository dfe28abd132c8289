"""Find the files of a slide in Space Ranger folders of all versions, and loose ones from GEO."""

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sagefm._errors import InputError
from sagefm._text import few, numbered

_MATRIX = re.compile(
    r"(?P<prefix>.*?)(?:(?P<kind>filtered|raw)_(?P<what>feature|gene|probe)_(?P<unit>bc|cell)"
    r"_matri(?:x|ces)(?:_h5)?(?:\.h5)?|matrix\.mtx(?:\.gz)?)"
)
_BIN = re.compile(r"square_(\d+)um")
_USUAL_BIN = 16
"""Micrometers of the Visium HD bins to read if a folder has several: closest to a cell."""
_CELLS = "segmented_outputs"


@dataclass(frozen=True)
class Sample:
    """The matrix of one slide, the folder of its other files, and the file prefixes used there."""

    matrix: Path
    folder: Path
    prefix: str
    prefixes: tuple[str, ...]

    @property
    def name(self) -> str:
        """The name of the slide: its prefix, or that of its folder."""
        folder = self.folder.resolve()
        name = self.prefix.rstrip("_.-")
        return name or (folder.parent.name if folder.name == "outs" else folder.name)

    @property
    def raw(self) -> bool:
        """Whether the matrix has all spots of the array, not only those under tissue."""
        return self._named("kind", "raw") and not self._named("what", "probe")

    @property
    def cells(self) -> bool:
        """Whether the rows of the matrix are segmented cells."""
        return self._named("unit", "cell")

    def _named(self, group: str, value: str) -> bool:
        names = self.matrix.name, self.matrix.parent.name
        matches = [_MATRIX.fullmatch(name) for name in names]
        return any(match is not None and match[group] == value for match in matches)

    def find(self, pattern: str) -> Path | None:
        """Find a file that belongs to the matrix, next to it or in its ``spatial`` folder."""
        for place in (f"{self.prefix}spatial", "spatial", "."):
            folder = self.folder / place
            prefixed = bool(self.prefix) and place.startswith(self.prefix)
            matches = [
                re.fullmatch(f"(?P<prefix>.*?){pattern}", entry.name) for entry in entries(folder)
            ]
            mine = [
                match
                for match in matches
                if match
                and (prefixed or self._owns(match["prefix"]))
                and (folder / match.string).is_file()
            ]
            if mine:
                best = min(mine, key=lambda match: match["prefix"] != self.prefix)
                return folder / best.string
        return None

    def _owns(self, prefix: str) -> bool:
        """Check whether a file belongs to this sample: the longest matching prefix decides."""
        if len(self.prefixes) < 2:
            return True
        matching = [other for other in self.prefixes if prefix.startswith(other)]
        return max(matching, key=len, default=None) == self.prefix


def find_sample(path: Path, notes: list[str]) -> Sample:
    """Find the matrix of a path, and the folder and prefix of the files that belong to it.

    Raises
    ------
    InputError
        There is none, or several and no way to choose.
    """
    matrix = _locate(path, notes)
    folder, named = matrix.parent, matrix.name
    if not matrix.name.endswith(".h5") and _MATRIX.fullmatch(folder.name):
        folder, named = folder.parent, folder.name  # the mtx files have a folder of their own
    match = _MATRIX.fullmatch(named)
    prefix = match["prefix"] if match else ""
    return Sample(matrix, folder, prefix, tuple({*_samples(folder), prefix}))


def entries(folder: Path) -> Sequence[Path]:
    """List a folder without its hidden files; nothing if it is none."""
    listed = sorted(folder.iterdir()) if folder.is_dir() else []
    return [entry for entry in listed if not entry.name.startswith(".")]


def _locate(path: Path, notes: list[str]) -> Path:
    """Find the count matrix of a path."""
    if path.is_file():
        return path
    if not path.is_dir():
        return _with_prefix(path)
    for place in (path / "binned_outputs", path / "outs" / "binned_outputs", path):
        if bins := _bins(place):
            chosen = _choose_bin(bins, notes)
            cells = chosen.parent.parent / _CELLS
            if _samples(cells):
                notes.append(f"the folder has segmented cells too; for them name {cells}")
            return _choose(chosen, _samples(chosen))
    for place in (path, path / "outs", path / _CELLS, path / "outs" / _CELLS):
        if samples := _samples(place):
            return _choose(place, samples)
    raise InputError(_no_matrix(path))


def _with_prefix(path: Path) -> Path:
    """Find the matrix of one sample of a folder of loose files."""
    samples = _samples(path.parent)
    name = path.name.rstrip("_.-")
    named = {prefix: file for prefix, file in samples.items() if prefix.startswith(name)}
    exact = {prefix: file for prefix, file in named.items() if prefix.rstrip("_.-") == name}
    if named and name:
        return _choose(path.parent, exact or named)
    remedy = f"its folder has {_listed(samples)}" if any(samples) else "check the path"
    raise InputError(f"does not exist; {remedy}")


def _samples(folder: Path) -> dict[str, Path]:
    """Find the matrix of every sample (file prefix) in a folder.

    Genes come before probes, spots before cells, filtered before raw, h5 before mtx.
    """
    ranked: dict[str, list[tuple[bool, bool, bool, bool, Path]]] = {}
    for entry in entries(folder):
        match = _MATRIX.fullmatch(entry.name)
        matrix = _matrix_at(entry) if match else None
        if match and matrix:
            rank = match["what"] == "probe", match["unit"] == "cell", match["kind"] == "raw"
            ranked.setdefault(match["prefix"], []).append((*rank, matrix.suffix != ".h5", matrix))
    by_name = sorted(ranked, key=lambda prefix: prefix.rstrip("_.-"))
    return {prefix: min(ranked[prefix])[-1] for prefix in by_name}


def _matrix_at(entry: Path) -> Path | None:
    """Get the file of a matrix: the entry itself, or the mtx in it if it is a folder."""
    names = ("matrix.mtx.gz", "matrix.mtx") if entry.is_dir() else (".",)
    return next((entry / name for name in names if (entry / name).is_file()), None)


def _choose(folder: Path, samples: dict[str, Path]) -> Path:
    if len(samples) > 1 and "" not in samples:
        first = next(iter(samples)).rstrip("_.-")
        raise InputError(
            f"holds {len(samples)} samples ({_listed(samples)}); name one, such as {folder / first}"
        )
    return samples.get("") or next(iter(samples.values()))


def _listed(samples: dict[str, Path]) -> str:
    return few((prefix.rstrip("_.-") for prefix in samples), 20)


def _bins(folder: Path) -> dict[int, Path]:
    """Find the Visium HD bins in a folder: their size in micrometers and their folder."""
    sizes = [(_BIN.fullmatch(entry.name), entry) for entry in entries(folder)]
    return {int(match[1]): entry for match, entry in sizes if match and _samples(entry)}


def _choose_bin(bins: dict[int, Path], notes: list[str]) -> Path:
    size = _USUAL_BIN if _USUAL_BIN in bins else max(bins)
    others = [f"{other} µm ({bins[other]})" for other in sorted(bins) if other != size]
    if others:
        notes.append(f"the bins of {size} µm are read; for others name their folder: {few(others)}")
    return bins[size]


def _no_matrix(path: Path) -> str:
    if not any(path.iterdir()):
        return "the folder is empty; name a Space Ranger outs folder, an .h5ad or a .zarr"
    slides = [entry for entry in entries(path) if _is_slide(entry)]
    if slides:
        listed = few((entry.name for entry in slides), 5)
        return f"a folder of {numbered(len(slides), 'slide')} ({listed}); name one: {slides[0]}"
    return (
        "no count matrix in the folder (filtered_feature_bc_matrix.h5, or a folder of that name "
        "with matrix.mtx); name the Space Ranger outs folder, or unpack the matrix into it"
    )


def _is_slide(path: Path) -> bool:
    if path.name.startswith("."):
        return False  # a temporary file of a killed run
    if path.name.endswith((".h5ad", ".zarr")):
        return True
    places = path, path / "outs"
    with suppress(PermissionError):  # it may be a slide, but not one that can be read
        return any(
            _samples(place) or _samples(place / _CELLS) or _bins(place / "binned_outputs")
            for place in places
        )
    return False
