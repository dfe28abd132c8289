"""Write slides as .h5ad, also those whose counts are on disk."""

import errno
import io
import os
from functools import partial
from pathlib import Path
from shutil import disk_usage
from typing import TYPE_CHECKING, Any

import numpy as np

from sagefm._files import write_anndata
from sagefm._hdf5 import Sink
from sagefm.pp.on_disk import BLOCK, CountsOnDisk, counts_on_disk, open_root, without_record

if TYPE_CHECKING:
    from anndata import AnnData

_CHUNK = 1 << 18
"""Values of a chunk that is written."""


def write_slide(slide: "AnnData", path: str | Path) -> None:
    """Write a slide as .h5ad: to a temporary file that is then renamed.

    Counts that are on disk are copied from there, some spots at a time. What an .h5ad cannot hold
    is renamed, converted or left out in `slide`, and logged.

    Raises
    ------
    InputError
        `path` cannot be written, the disk is full, or the file of the counts is gone.
    """
    source = counts_on_disk(slide)
    if source is None:
        write_anndata(slide, path)
    else:
        write_anndata(without_record(slide), path, partial(_copy, source))


def _copy(source: CountsOnDisk, path: Path) -> None:
    """Copy counts to ``X`` of an .h5ad that has none, some spots at a time."""
    import h5py

    with io.FileIO(path, "r+") as opened:
        sink = Sink(opened)
        sink.truncate(path.stat().st_size)  # what is there stays
        with h5py.File(sink, "r+") as file:
            file.pop("X", None)
            if source.is_whole:
                _copy_group(source, file, disk_usage(path.parent).free)
            else:
                _write_rows(file.create_group("X"), source, sink)
        if sink.error is not None:
            raise sink.error


def _copy_group(source: CountsOnDisk, file: Any, free: int) -> None:
    """Copy chunks as they are, compressed or not."""
    root = open_root(source.path)
    stored = root[source.group]
    if sum(stored[name].id.get_storage_size() for name in ("data", "indices")) > free:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    root.copy(stored, file, name="X")


def _write_rows(group: Any, counts: CountsOnDisk, sink: Sink) -> None:
    """Write counts as anndata writes sparse rows, and compress them if they were."""
    shape = len(counts), counts.n_genes
    group.attrs.update(
        {"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": np.array(shape)}
    )
    layout: dict[str, Any] = {"shape": (0,), "maxshape": (None,), "chunks": (_CHUNK,)}
    source = counts.arrays.data
    if getattr(source, "compression", None) or getattr(source, "compressors", None):
        # The fastest level, of a kind that every reader of HDF5 knows.
        layout |= {"compression": "gzip", "compression_opts": 1, "shuffle": True}
    data = group.create_dataset("data", dtype=np.float32, **layout)
    indices = group.create_dataset("indices", dtype=np.int32, **layout)
    ends = np.zeros(len(counts) + 1, dtype=np.int64)
    cuts = np.flatnonzero(np.diff(np.cumsum(counts.sizes()) // BLOCK)) + 1
    for spots in np.split(np.arange(len(counts)), cuts):
        if sink.error is not None:  # the rest would only fill the memory
            return
        block = counts.take(spots)
        start, stop = data.shape[0], data.shape[0] + block.nnz
        for stored, values in ((data, block.data), (indices, block.indices)):
            stored.resize((stop,))
            stored[start:] = values
        ends[spots + 1] = start + block.indptr[1:]
    group.create_dataset("indptr", data=ends)
