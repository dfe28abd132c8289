"""Read the AnnData of .h5ad and .zarr; what fails is one line."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anndata
from anndata import AnnData

from sagefm._errors import InputError
from sagefm.pp.container import survey_h5, survey_zarr, zarr_root
from sagefm.pp.matrix import require_sound
from sagefm.pp.tenx import unreadable


def read_h5ad(path: Path) -> AnnData:
    """Read an .h5ad, whatever it is called.

    Raises
    ------
    InputError
        It is damaged, links to other files, or does not fit into memory.
    """

    def reader() -> Any:
        survey_h5(path)
        return anndata.read_h5ad(path)

    return quietly(reader)


def read_zarr(path: Path) -> AnnData:
    """Read a zarr folder, or one in a zip archive.

    Raises
    ------
    InputError
        As :func:`read_h5ad`.
    """

    def reader() -> Any:
        if path.is_dir():
            survey_zarr(path, path)
            return anndata.read_zarr(path)
        import zarr
        from zarr.storage import ZipStore

        with ZipStore(path, mode="r") as store:
            root = zarr.open_group(store, mode="r", path=zarr_root(path))
            if "obs" not in root:
                raise InputError("no AnnData is at its root: unpack it, and name the folder")
            survey_zarr(root, path)
            return anndata.read_zarr(root)

    return quietly(reader)


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress warnings of anndata about what is handled here."""
    with warnings.catch_warnings():
        # Duplicates are handled here, and files of older versions are supported.
        warnings.filterwarnings("ignore", message=r"(Variable|Observation) names are not uniq")
        warnings.filterwarnings("ignore", category=anndata.OldFormatWarning)
        yield


def quietly(reader: Callable[[], Any]) -> AnnData:
    """Read with anndata; convert any failure to an InputError."""
    try:
        with quiet():
            slide = reader()
    except InputError:
        raise
    except Exception as error:  # anndata, h5py and zarr raise nearly anything
        raise InputError(unreadable("", error)) from error
    if not isinstance(slide, AnnData):
        raise InputError("holds no AnnData; name an .h5ad, a .zarr or a Space Ranger outs folder")
    require_sound(slide)
    return slide
