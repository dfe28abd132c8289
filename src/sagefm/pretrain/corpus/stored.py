"""One slide on disk: a zarr folder, written by anndata, with its facts in the root attributes.

``X`` holds raw counts (CSR), ``obsm`` the coordinates and the neighborhoods, ``var`` the vocabulary
and which of its genes the slide has. The spots are ordered along a space-filling curve, so that a
patch of tissue is a few contiguous reads; ``obs["row"]`` is their row in the source.
"""

import hashlib
import json
import math
import os
import warnings
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, vstack

from sagefm import __version__, _keys
from sagefm._errors import InputError
from sagefm._extras import require
from sagefm._validate import Range, parse_json, read_as, short
from sagefm.pp.aligned import AlignedSlide
from sagefm.pp.vocabulary import Vocabulary
from sagefm.pretrain.corpus.facts import FACTS

NEIGHBORS = "neighbors"
"""``obsm``: spots × k row numbers, the center first."""
FORMAT = 2
_RECORD = "sagefm"
"""Attribute of the root with the record of the slide."""
_CHUNK = 1 << 17
"""Values of a chunk, which has its checksum; all chunks of an array are in one file."""
_GAP = _CHUNK
"""Values between two reads up to which one long read is faster."""


class DamagedError(Exception):
    """The content on disk is not what was written."""


@dataclass(frozen=True)
class Content:
    """The arrays of a slide, its spots along the curve."""

    counts: csr_matrix
    """Spots × vocabulary, raw, uint16 where that is enough, else uint32."""
    spatial: NDArray[np.float64]
    neighbors: NDArray[np.int32]
    row: NDArray[np.int64]
    """Row of each spot in the source."""
    barcodes: NDArray[np.object_]
    measured: NDArray[np.bool_]
    """For each gene of the vocabulary whether the slide has it: absent is not zero."""
    detected: NDArray[np.int64]
    """For each gene of the vocabulary the number of spots that it is detected in."""

    def checksum(self) -> str:
        """Checksum of the content, whatever the types it is stored in."""
        arrays = {
            "indptr": (self.counts.indptr, "<i8"),
            "indices": (self.counts.indices, "<u4"),
            "data": (self.counts.data, "<u4"),
            "spatial": (self.spatial, "<f8"),
            "neighbors": (self.neighbors, "<i4"),
            "row": (self.row, "<i8"),
            "measured": (self.measured, "|b1"),
            "detected": (self.detected, "<i8"),
        }
        digest = hashlib.sha256("\n".join(self.barcodes.tolist()).encode())
        for name, (array, dtype) in arrays.items():
            digest.update(f"{name} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array, dtype=dtype).data)
        return digest.hexdigest()


@dataclass(frozen=True)
class _Facts:
    """The types of the facts about a slide."""

    patient: str
    organ: str
    disease: str
    technology: str
    license: str
    source: str
    spots: Annotated[int, Range(1, 2**31)]
    depth: float
    genes: int
    nonzeros: Annotated[int, Range(0, 2**62)]
    checksum: str
    dataset: str = ""


@dataclass(frozen=True)
class Record:
    """What is recorded about a slide."""

    facts: dict[str, Any]
    """Its row in the table of the corpus."""
    file: str
    """The name that its file was given."""
    stamp: str
    """Digest of the state of the file, to notice changes without reading it."""
    pieces: list[str]
    """All slides of its file."""
    version: str
    """The version of sagefm that wrote it."""
    format: int = FORMAT
    files: dict[str, str] = field(default_factory=dict)
    """The sha256 of every file; none for a slide that an earlier sagefm wrote."""

    def sealed(self) -> dict[str, Any]:
        """Add a checksum."""
        content = asdict(self)
        return {**content, "seal": _seal(content)}

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the record of a slide.

        Raises
        ------
        OSError
            There is none.
        DamagedError
            It was changed.
        InputError
            It is of a later version.
        """
        try:
            content = parse_json((folder / "zarr.json").read_bytes())["attributes"][_RECORD]
            seal = content.pop("seal")
            if content["format"] > FORMAT:
                raise InputError(
                    f"{folder}: is of sagefm {short(content['version'])}, which this version "
                    f"({__version__}) cannot read; upgrade sagefm"
                )
            if seal != _seal(content):
                raise DamagedError("its facts fail their checksum")
            read_as(_Facts, content["facts"])
            content["facts"].setdefault("dataset", "")  # none in format 1
            return read_as(cls, content)
        except InputError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DamagedError("its facts are damaged") from error


def _seal(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def write(folder: Path, content: Content, vocabulary: Vocabulary, record: Record) -> None:
    """Write a slide to a new folder, and flush it to disk."""
    from anndata.experimental import write_dispatched

    zarr = require("zarr", "train", "a corpus")
    # As objects, text is stored alike by all versions of anndata and pandas.
    barcodes, symbols, ensembl = (
        pd.Index(np.array(names, dtype=object), dtype=object)
        for names in (content.barcodes, vocabulary.symbols, vocabulary.ensembl)
    )
    genes = pd.DataFrame(
        {"measured": content.measured, "detected": content.detected}, index=symbols
    )
    genes.insert(0, _keys.GENE_IDS, pd.Series(ensembl, index=symbols, dtype=object))
    elements = {
        "X": content.counts,
        "obs": pd.DataFrame({"row": content.row}, index=barcodes),
        "var": genes,
        "obsm": {_keys.SPATIAL: content.spatial, NEIGHBORS: content.neighbors},
        "uns": {_keys.PROVENANCE: {"corpus": _noted(record.facts)}},
    }
    kind = {"encoding-type": "anndata", "encoding-version": "0.1.0"}
    with warnings.catch_warnings():
        # The specification of zarr does not cover yet how text is stored.
        warnings.simplefilter("ignore")
        root = zarr.open_group(folder, mode="w", zarr_format=3, attributes=kind)
        for name, element in elements.items():
            write_dispatched(root, name, element, _write_packed)
        root.attrs[_RECORD] = replace(record, files=checksums(folder)).sealed()
    for place, _, files in os.walk(folder):
        for file in files:
            sync(Path(place, file))
        sync(Path(place))


def _noted(facts: dict[str, Any]) -> dict[str, str]:
    """Get the facts that other tools find in ``uns``."""
    return {name: facts[name] for name in FACTS if facts[name]}


def _write_packed(write: Any, group: Any, key: str, value: Any, **_: Any) -> None:
    """Write an element; arrays in chunks with checksums, all chunks in one file."""
    from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec

    layout: dict[str, Any] = {}
    if isinstance(value, csr_matrix | np.ndarray):
        if isinstance(value, csr_matrix):  # its three arrays have the same layout
            n_rows, width = max(value.nnz, len(value.indptr)), []
        else:
            n_rows, *width = value.shape
        rows = max(1, min(_CHUNK // int(np.prod(width)), n_rows))
        layout = {"chunks": (rows, *width), "config": {"write_empty_chunks": True}}
        # Of the codecs tried on counts, lz4 is by far the fastest to read; zstd would save a fifth.
        layout["compressors"] = [BloscCodec(cname="lz4", shuffle="shuffle"), Crc32cCodec()]
        layout["shards"] = (rows * max(1, math.ceil(n_rows / rows)), *width)
        if value.dtype == object:  # names
            layout["compressors"] = [ZstdCodec(level=3), Crc32cCodec()]
    write(group, key, value, dataset_kwargs=layout)


def checksums(folder: Path) -> dict[str, str]:
    """Compute the sha256 of every file of a slide; of its record only what is around it."""

    def refuse(error: OSError) -> None:
        raise error

    found = {}
    for place, _, files in os.walk(folder, onerror=refuse):
        for path in (Path(place, file) for file in files if not file.startswith(".")):
            content = path.read_bytes() if path.is_file() else b""  # a pipe would never end
            name = path.relative_to(folder).as_posix()
            if name == "zarr.json":
                about = parse_json(content)
                about["attributes"].pop(_RECORD, None)
                content = json.dumps(about, sort_keys=True).encode()
            found[name] = hashlib.sha256(content).hexdigest()
    return found


def _require_same(found: dict[str, str], written: dict[str, str]) -> None:
    for name in sorted(found.keys() | written.keys()):
        if found.get(name) != written.get(name):
            state = "fails its checksum" if name in found else "is missing"
            raise DamagedError(f"{name} {state if name in written else 'is no file of it'}")


def sync(path: Path) -> None:
    """Flush a file, or the names in a folder, to disk."""
    if path.is_dir() and os.name == "nt":  # Windows does so itself
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class Stored:
    """A slide on disk; only the positions of the counts of each spot are kept in memory.

    All that reads raises DamagedError or OSError if the content is gone or not what was written.
    """

    folder: Path
    record: Record
    n_genes: int
    _arrays: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def read(self, name: str, start: int = 0, stop: int | None = None) -> NDArray[Any]:
        """Read rows `start` to `stop` of an array such as ``X/data``, all of them by default."""
        if name not in self._arrays:
            self._arrays[name] = self._open(name)
        array = self._arrays[name]
        stop = array.shape[0] if stop is None else stop
        file = Path(name, "c", *["0"] * array.ndim)
        path = self.folder / file
        if stop > start and not (path.exists() and path.stat().st_size):  # zarr reads zeros
            raise DamagedError(f"{file.as_posix()} is missing")
        try:
            values = np.asarray(array[start:stop])
        except (OSError, MemoryError):
            raise
        except Exception as error:
            raise DamagedError(f"{file.as_posix()} fails its checksum") from error
        if len(values) != stop - start:
            raise DamagedError(f"{name} has {array.shape[0]} rows, not {stop}")
        return values

    def _open(self, name: str) -> Any:
        """Open an array, if its description is what was written."""
        zarr = require("zarr", "train", "a corpus")
        file = f"{name}/zarr.json"
        written = self.record.files.get(file)
        if written and hashlib.sha256((self.folder / file).read_bytes()).hexdigest() != written:
            raise DamagedError(f"the description of {name} is damaged")
        try:
            array = zarr.open_array(self.folder / name, mode="r")
        except MemoryError:
            raise
        except Exception as error:  # zarr raises nearly anything
            raise DamagedError(f"the description of {name} is damaged") from error
        if array.ndim not in (1, 2) or array.shape[0] != self._length(name):
            raise DamagedError(f"the description of {name} is damaged")
        return array

    def _length(self, name: str) -> int:
        """Get how many rows an array has."""
        spots, nonzeros = self.record.facts["spots"], self.record.facts["nonzeros"]
        if name.startswith("X/"):
            return int(spots + 1 if name == "X/indptr" else nonzeros)
        return self.n_genes if name.startswith("var/") else int(spots)

    @cached_property
    def _ends(self) -> NDArray[np.int64]:
        """Positions where the counts of each spot begin, and where those of the last one end."""
        ends = self.read("X/indptr").astype(np.int64)
        wanted = (0, self.record.facts["spots"], self.record.facts["nonzeros"])
        if (ends[0], len(ends) - 1, ends[-1]) != wanted or (np.diff(ends) < 0).any():
            raise DamagedError("X/indptr is not that of its facts")
        return ends

    @cached_property
    def _measured(self) -> NDArray[np.bool_]:
        """For each gene of the vocabulary whether the slide has it."""
        return self.read("var/measured")

    def content(self) -> Content:
        """Read everything."""
        return Content(
            counts=self._counts(np.arange(self.record.facts["spots"])),
            spatial=self.read(f"obsm/{_keys.SPATIAL}"),
            neighbors=self.read(f"obsm/{NEIGHBORS}"),
            row=self.read("obs/row"),
            barcodes=self.read("obs/_index").astype(object),
            measured=self._measured,
            detected=self.read("var/detected"),
        )

    def verify(self, vocabulary: Vocabulary) -> None:
        """Compare all files with their checksums, and what is read here with what anndata reads."""
        from anndata import read_zarr

        if self.record.files:
            _require_same(checksums(self.folder), self.record.files)
        facts = self.record.facts
        if self.content().checksum() != facts["checksum"]:
            raise DamagedError("its content fails its checksum")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                slide = read_zarr(self.folder)
            opened = Content(
                counts=csr_matrix(slide.X),
                spatial=slide.obsm[_keys.SPATIAL],
                neighbors=slide.obsm[NEIGHBORS],
                row=slide.obs["row"].to_numpy(),
                barcodes=slide.obs_names.to_numpy(dtype=object),
                measured=slide.var["measured"].to_numpy(),
                detected=slide.var["detected"].to_numpy(),
            ).checksum()
            noted = slide.uns[_keys.PROVENANCE]["corpus"]
            genes = tuple(slide.var_names), tuple(slide.var[_keys.GENE_IDS])
        except Exception as error:  # of damaged files, nearly anything
            raise DamagedError(f"anndata cannot read it: {short(error)}") from error
        if opened != facts["checksum"] or noted != _noted(facts):
            raise DamagedError("anndata reads something else")
        if genes != (vocabulary.symbols, vocabulary.ensembl):
            raise DamagedError("its genes are not those of the corpus")

    def tile(self, start: int, stop: int) -> AlignedSlide:
        """Read spots `start` to `stop` as centers, with their neighbors."""
        neighbors = self.read(f"obsm/{NEIGHBORS}", start, stop)
        rows, places = np.unique(neighbors, return_inverse=True)
        if rows[0] < 0 or rows[-1] >= self.record.facts["spots"]:
            raise DamagedError("some neighbors are no spots")
        counts = self._counts(rows).astype(np.float32)
        local = places.reshape(neighbors.shape).astype(np.int64)
        return AlignedSlide.of_counts(counts, local, self._measured)

    def _counts(self, rows: NDArray[Any]) -> csr_matrix:
        """Read the counts of some rows, in ascending order."""
        ends = self._ends
        gaps = ends[rows[1:]] - ends[rows[:-1] + 1]
        parts = []
        for run in np.split(rows, np.flatnonzero(gaps > _GAP) + 1):
            first, last = int(run[0]), int(run[-1]) + 1
            place = int(ends[first]), int(ends[last])
            values = self.read("X/data", *place), self.read("X/indices", *place)
            if len(values[1]) and not 0 <= values[1].min() <= values[1].max() < self.n_genes:
                raise DamagedError("X/indices are beyond its genes")
            shape = (last - first, self.n_genes)
            part = csr_matrix((*values, ends[first : last + 1] - place[0]), shape=shape)
            parts.append(part if len(run) == shape[0] else part[run - first])
        return parts[0] if len(parts) == 1 else csr_matrix(vstack(parts, format="csr"))
