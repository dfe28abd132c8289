"""Counts that stay on disk, read some rows at a time."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from sagefm._errors import InputError
from sagefm._keys import PROVENANCE
from sagefm._types import Floats, Positions
from sagefm._uns import provenance, record
from sagefm.pp.columns import ColumnMap, remapped
from sagefm.pp.matrix import value_fault
from sagefm.pp.tenx import unreadable

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

BLOCK = 1 << 22
"""Values that are read together: 32 MB of numbers and of their columns."""
_GAP = 1 << 16
"""Values between two rows up to which one long read is faster than two."""
_CHUNKS = 1 << 26
"""Bytes of decompressed chunks that HDF5 keeps: the next rows begin in the last chunk."""
_ENTRY = "on_disk"
"""Of ``uns["sagefm"]``: where the counts of a slide are that are not in memory."""
_ROW = "sagefm_row"
"""``obs``: row of each spot in the counts on disk, from a first number that other files lack."""
_GENE = "sagefm_gene"
"""``var``: number of each gene in the counts on disk."""


class StoredArrays(NamedTuple):
    """What is stored: compressed sparse rows, or a dense matrix as `data` alone."""

    data: Any
    indices: Any
    ends: NDArray[np.int64]
    """(rows + 1) where the values of each row begin, and where those of the last one end."""


@dataclass(frozen=True, eq=False)
class CountsOnDisk:
    """Counts of spots × genes, of which only the places of the rows are in memory.

    Attributes
    ----------
    path
        An .h5ad file, or the zarr folder of an AnnData.
    group
        Where in it the matrix is: compressed sparse rows, or dense.
    columns
        For each stored column the gene that it belongs to, -1 for none; several columns of one gene
        are summed.
    n_genes
        Number of genes.
    rows
        For each spot its stored row.
    """

    path: Path
    group: str
    columns: NDArray[np.int32]
    n_genes: int
    rows: Positions

    def __len__(self) -> int:
        """Count the spots."""
        return len(self.rows)

    def of(self, spots: Positions) -> Self:
        """Keep some spots."""
        return replace(self, rows=self.rows[spots])

    def blocks(self, first: int = 0) -> Iterator[tuple[Positions, csr_matrix]]:
        """Go through all spots in the order in which they are stored, from block `first` on.

        The next block is read while the last one is used.

        Yields
        ------
        Spots, and their counts.

        Raises
        ------
        InputError
            The file is gone or damaged, or it does not hold counts.
        """
        parts = self._parts[first:]
        with ThreadPoolExecutor(1) as reader:
            waiting = None
            for spots in parts:
                following = reader.submit(self._read, self.rows[spots])
                if waiting is not None:
                    yield waiting[0], self._counted(*waiting[1].result())
                waiting = spots, following
            if waiting is not None:
                yield waiting[0], self._counted(*waiting[1].result())

    @property
    def n_blocks(self) -> int:
        """Number of blocks."""
        return len(self._parts)

    @cached_property
    def _parts(self) -> list[Positions]:
        """Divide the spots into blocks, in the order in which they are stored."""
        order = np.argsort(self.rows, kind="stable")
        ends = self.arrays.ends
        sizes = np.cumsum(ends[self.rows[order] + 1] - ends[self.rows[order]])
        return np.split(order, np.flatnonzero(np.diff(sizes // BLOCK)) + 1)

    def take(self, spots: Positions) -> csr_matrix:
        """Read the counts of some spots, in their order: `spots` × genes."""
        order = np.argsort(self.rows[spots], kind="stable")
        counts = self._counted(*self._read(self.rows[spots[order]]), checked=True)
        if (order[1:] > order[:-1]).all():
            return counts
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        return csr_matrix(counts[back])

    def gene(self, number: int) -> Floats:
        """Read the counts of one gene in all spots."""
        values = np.zeros(len(self))
        for spots, block in self.blocks():
            values[spots] = block[:, [number]].toarray().ravel()
        return values

    def load(self) -> csr_matrix:
        """Read all counts into memory."""
        return self.take(np.arange(len(self)))

    @property
    def is_whole(self) -> bool:
        """Whether these are all counts of an .h5ad, as they are stored: float32, by spots."""
        in_order = np.array_equal(self.rows, np.arange(len(self.arrays.ends) - 1))
        as_stored = self._genes.same and in_order and self.arrays.indices is not None
        return bool(as_stored and self.arrays.data.dtype == np.float32 and self.path.is_file())

    def sizes(self) -> NDArray[np.int64]:
        """Count the stored values of each spot."""
        return np.diff(self.arrays.ends)[self.rows]

    def _read(self, rows: Positions) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.int64]]:
        """Read stored rows, in ascending order: values, their columns, and their ends."""
        data, indices, ends = self.arrays
        if not len(rows):
            return np.empty(0, np.float32), np.empty(0, np.int32), np.zeros(1, np.int64)
        gaps = ends[rows[1:]] - ends[rows[:-1] + 1]
        parts = []
        try:
            # Rows in any order may lie close to each other over all of the file.
            apart = (gaps > _GAP) | (np.diff(ends[rows] // BLOCK) > 0)
            for run in np.split(rows, np.flatnonzero(apart) + 1):
                first, last = int(run[0]), int(run[-1]) + 1
                parts.append(self._read_run(data, indices, ends[first : last + 1], run, first))
        except InputError:
            raise
        except Exception as error:  # of a damaged file, nearly anything
            raise InputError(f"{self.path}: {unreadable('', error)}") from error
        values, columns, lengths = map(np.concatenate, zip(*parts, strict=True))
        return values, columns, np.append(0, np.cumsum(lengths))

    def _read_run(
        self, data: Any, indices: Any, ends: NDArray[np.int64], run: Positions, first: int
    ) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.int64]]:
        """Read stored rows that are close to each other: values, columns and lengths."""
        if indices is None:
            block = np.asarray(data[first : first + len(ends) - 1])[run - first]
            rows, columns = np.nonzero(block)
            lengths = np.bincount(rows, minlength=len(run))
            return block[rows, columns], columns.astype(np.int32), lengths
        values, columns = (np.asarray(each[ends[0] : ends[-1]]) for each in (data, indices))
        lengths = np.diff(ends)
        if len(run) < len(lengths):
            wanted = np.zeros(len(lengths), dtype=bool)
            wanted[run - first] = True
            kept = np.repeat(wanted, lengths)
            values, columns, lengths = values[kept], columns[kept], lengths[wanted]
        return values, columns, lengths

    def _counted(
        self,
        values: NDArray[Any],
        columns: NDArray[Any],
        ends: NDArray[np.int64],
        *,
        checked: bool = False,
    ) -> csr_matrix:
        """Make counts of what is stored: spots × genes, float32; values may be checked before."""
        n_stored = len(self.columns)
        if len(columns) and not 0 <= int(columns.min()) <= int(columns.max()) < n_stored:
            raise InputError(
                f"{self.path}: {self.group} has an index outside of its {n_stored:,} columns; copy "
                "the file again"
            )
        short = ends.astype(np.int32) if ends[-1] < 2**31 else ends
        stored = csr_matrix((_summable(values), columns, short), shape=(len(ends) - 1, n_stored))
        if not stored.has_canonical_format:
            stored.sum_duplicates()
        matrix = remapped(stored, self._genes)
        if not self._genes.ascending:
            matrix.sort_indices()
        if not checked and (fault := value_fault(matrix)):
            raise InputError(
                f"{self.path}: {self.group} holds {fault}; give raw counts, or name them with layer"
            )
        if matrix.dtype.kind == "f" and not (matrix.data == (whole := np.rint(matrix.data))).all():
            matrix.data = whole  # counts that were scaled and scaled back
        matrix.data = matrix.data.astype(np.float32, copy=False)
        return matrix

    @cached_property
    def _genes(self) -> ColumnMap:
        return ColumnMap(self.columns, self.n_genes)

    @cached_property
    def arrays(self) -> StoredArrays:
        """Open the file."""
        try:
            stored = open_root(self.path)[self.group]
            if hasattr(stored, "shape"):
                ends = np.arange(stored.shape[0] + 1, dtype=np.int64) * stored.shape[1]
                return StoredArrays(stored, None, ends)
            ends = np.asarray(stored["indptr"][:]).astype(np.int64)
            data, indices = stored["data"], stored["indices"]
            sound = len(ends) and ends[0] == 0 and (np.diff(ends) >= 0).all()
            if not (sound and ends[-1] == data.shape[0] == indices.shape[0]):
                raise InputError(f"{self.path}: {self.group} is damaged; copy the file again")
            return StoredArrays(data, indices, ends)
        except InputError:
            raise
        except Exception as error:  # it is gone, or damaged
            raise InputError(f"{self.path}: {unreadable('', error)}") from error


def open_root(path: Path) -> Any:
    """Open an .h5ad file or a zarr folder to read."""
    if path.is_dir():
        import zarr

        return zarr.open_group(path, mode="r")
    import h5py

    return h5py.File(path, "r", rdcc_nbytes=_CHUNKS)


def leave_on_disk(slide: "AnnData", source: CountsOnDisk) -> None:
    """Record in a slide without ``X`` where its counts are."""
    first = (crc32(str(source.path).encode()) >> 1) << 32
    slide.obs[_ROW] = first + source.rows
    slide.var[_GENE] = np.arange(source.n_genes)
    places = {"first_row": first, "n_rows": int(source.rows.max(initial=-1)) + 1}
    entry = {"path": str(source.path), "group": source.group, "columns": source.columns}
    record(slide, _ENTRY, {**entry, **places, **_state(source.path)})


def counts_on_disk(slide: "AnnData", layer: str | None = None) -> CountsOnDisk | None:
    """Get the counts of a slide that :func:`sagefm.read` left on disk; None for any other slide.

    Parameters
    ----------
    layer
        Which counts, as in :func:`sagefm.read`; those of layers that are in memory are not on disk.

    Raises
    ------
    InputError
        The file was changed since, other counts were left there, or the slide was put together
        from several.
    """
    entry = provenance(slide, _ENTRY, path=str, group=str, columns=np.ndarray)
    if (
        not {"first_row", "n_rows"} <= entry.keys()
        or slide.X is not None
        or (layer is not None and layer in slide.layers)
    ):
        return None
    path, columns = Path(entry["path"]), np.asarray(entry["columns"], dtype=np.int32)
    if not path.exists():
        raise InputError(f"{path}: has the counts of the slide, but is gone; put it back")
    if {name: entry.get(name) for name in _state(path)} != _state(path):
        raise InputError(f"{path}: was changed since the slide was read; read it again")
    if layer not in (None, "X") and entry["group"] not in (f"layers/{layer}", f"{layer}/X"):
        raise InputError(
            f"the counts of the slide that are on disk are those of {entry['group']}; read it with "
            f"layer={layer!r}"
        )
    n_genes = int(columns.max(initial=-1)) + 1
    rows = _numbers(slide.obs.get(_ROW), int(entry["n_rows"]), int(entry["first_row"]))
    genes = _numbers(slide.var.get(_GENE), n_genes)
    if rows is None or genes is None:
        raise InputError(
            "the slide was put together from several, or has spots or genes that are not of its "
            "file, while its counts are on disk; read it without backed"
        )
    if not np.array_equal(genes, np.arange(n_genes)):
        place = np.full(n_genes + 1, -1, dtype=np.int32)  # the last for no gene
        place[genes] = np.arange(len(genes))
        columns = place[columns]
    return CountsOnDisk(path, entry["group"], columns, slide.n_vars, rows)


def _numbers(column: "pd.Series[Any] | None", n: int, first: int = 0) -> Positions | None:
    """Get different numbers of `n` that begin with `first`, counted from 0; None of others."""
    if column is None or column.dtype.kind not in "iu" or not column.is_unique:
        return None
    numbers = column.to_numpy().astype(np.int64) - first
    inside = 0 <= numbers.min(initial=0) <= numbers.max(initial=0) < max(n, 1)
    return numbers if inside else None


def _summable(values: NDArray[Any]) -> NDArray[Any]:
    """Give values a type that scipy knows, and in which sums of whole numbers do not overflow."""
    kind, size = values.dtype.kind, values.dtype.itemsize
    if kind == "f" and size in (4, 8) and values.dtype.isnative:
        return values
    return values.astype(np.float32 if size < 4 else np.float64)


def without_record(slide: "AnnData") -> "AnnData":
    """Leave out what :func:`leave_on_disk` recorded; the arrays are shared."""
    from anndata import AnnData

    slots = {
        name: dict(getattr(slide, name)) for name in ("obsm", "varm", "obsp", "varp", "layers")
    }
    slots["uns"] = dict(slide.uns)
    entries = dict(slots["uns"][PROVENANCE])
    entries.pop(_ENTRY)
    slots["uns"][PROVENANCE] = entries
    obs, var = slide.obs.drop(columns=_ROW), slide.var.drop(columns=_GENE)
    return AnnData(None, obs=obs, var=var, **slots)


def _state(path: Path) -> dict[str, int]:
    """Summarize a file, to notice changes."""
    state = path.stat()
    return {"size": state.st_size, "modified": state.st_mtime_ns} if path.is_file() else {}
