"""Write slides as .h5ad, also those whose counts are on disk."""

from pathlib import Path
from typing import TYPE_CHECKING

from sagefm._files import write_anndata
from sagefm.pp.on_disk import counts_on_disk, without_record

if TYPE_CHECKING:
    from anndata import AnnData


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
        write_anndata(without_record(slide), path, source.add_to)
