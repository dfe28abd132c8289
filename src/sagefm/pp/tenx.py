"""Read the files of 10x: matrix, positions, image, scale factors.

The format is found from the content of a file, not from its name alone: a file with a header may
be called ``tissue_positions_list.csv``, and one without ``tissue_positions.csv``.
"""

import gzip
import json
import re
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.io import mmread
from scipy.sparse import csr_matrix

from sagefm import _keys
from sagefm._errors import InputError
from sagefm._extras import require
from sagefm._text import few, numbered

if TYPE_CHECKING:
    import h5py

_COLUMNS = {
    "barcode": ("barcode", "barcodes", ""),
    "in_tissue": ("in_tissue", "tissue"),
    "array_row": ("array_row", "row"),
    "array_col": ("array_col", "col"),
    "pxl_row_in_fullres": ("pxl_row_in_fullres", "imagerow"),
    "pxl_col_in_fullres": ("pxl_col_in_fullres", "imagecol"),
}
"""Columns of a positions file, in the order of files without header, and their names."""


def read_matrix(path: Path) -> tuple[csr_matrix, pd.Index, pd.DataFrame]:
    """Read spots × genes, the barcodes, and a table of features by name."""
    try:
        matrix, barcodes, var = (_read_mtx if ".mtx" in path.suffixes else _read_h5)(path)
    except (InputError, MemoryError):
        raise
    except Exception as error:  # a damaged file can raise anything
        raise InputError(unreadable(path.name, error)) from error
    if not barcodes.is_unique:
        repeated = barcodes[barcodes.duplicated()].unique()
        raise InputError(
            f"{path.name} has {numbered(len(repeated), 'barcode')} more than once "
            f"({few(repeated)}); read each slide's own output"
        )
    return matrix, barcodes, var


def _read_h5(path: Path) -> tuple[csr_matrix, pd.Index, pd.DataFrame]:
    """Read the matrix of Space Ranger, or the older kind with a group per genome."""
    import h5py

    with h5py.File(path, "r") as file:
        if "matrix" not in file and len(file) > 1:
            raise InputError(
                f"{path.name} holds several genomes ({few(file)}); keep the genes of one in a file"
            )
        group = file["matrix" if "matrix" in file else next(iter(file))]
        if "matrix" in file and "features" not in group:
            raise ValueError("it has no group features")
        genes = group.get("features", group)  # older files have one group
        symbols = "name" if "features" in group else "gene_names"
        ids = next(name for name in ("gene_id", "id", "genes") if name in genes)
        n_genes, n_spots = group["shape"][()]
        values = group["data"][()], group["indices"][()], group["indptr"][()]
        # A gene × spot matrix by columns is the spot × gene matrix by rows.
        matrix = csr_matrix(values, shape=(n_spots, n_genes), dtype=np.float32)
        columns = {_keys.GENE_IDS: ids}
        if "features" in group:
            columns |= {"probe_ids": "id"} if ids == "gene_id" else {}
            columns |= {"feature_types": "feature_type"}
            rest = {*genes} - {symbols, *columns.values(), "_all_tag_keys"}
            columns |= {
                name: name for name in sorted(rest) if isinstance(genes[name], h5py.Dataset)
            }
        var = pd.DataFrame(
            {key: _column(genes[name]) for key, name in columns.items()},
            index=pd.Index(_column(genes[symbols])),
        )
        return matrix, pd.Index(_column(group["barcodes"])), var


def _column(values: "h5py.Dataset") -> NDArray[Any]:
    """Read a column: text as strings, a flag as it is, and numbers as text."""
    if values.dtype.kind in "SO":
        return np.asarray(values.asstr()[()], dtype=object)
    flags = values.dtype.kind == "b"
    return np.asarray(values[()] if flags else values[()].astype(str).astype(object))


def _read_mtx(path: Path) -> tuple[csr_matrix, pd.Index, pd.DataFrame]:
    features = _read_list(path, ("features", "genes"))
    barcodes = pd.Index(_read_list(path, ("barcodes",))[0]).rename(None)
    matrix = csr_matrix(mmread(path).T)
    if matrix.shape != (len(barcodes), len(features)):
        raise InputError(
            f"{path.name} has {matrix.shape[1]:,} genes × {matrix.shape[0]:,} spots, but the files "
            f"next to it list {len(features):,} and {len(barcodes):,}; they are not of one sample"
        )
    names = features[1] if 1 in features else features[0]
    var = pd.DataFrame({_keys.GENE_IDS: features[0].to_numpy()}, index=pd.Index(names))
    if 2 in features:
        var["feature_types"] = features[2].to_numpy()
    return matrix, barcodes, var.rename_axis(None)


def _read_list(matrix: Path, names: tuple[str, ...]) -> pd.DataFrame:
    """Read the table next to a matrix.mtx, preferably compressed in the same way."""
    prefix, _, ending = matrix.name.partition("matrix.mtx")
    endings = dict.fromkeys([ending, "", ".gz"])
    files = [matrix.with_name(f"{prefix}{name}.tsv{end}") for name in names for end in endings]
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        raise InputError(f"{files[0].name} is missing next to {matrix.name}; put it there")
    # quoting=3 (none): names such as 5'-end must stay, and a gene may be called NA.
    return pd.read_csv(file, sep="\t", header=None, dtype=str, keep_default_na=False, quoting=3)


def read_positions(path: Path) -> pd.DataFrame:
    """Read a positions file: CSV or TSV with or without header, also compressed, or parquet.

    Returns
    -------
    A row per spot of the array, by barcode: ``in_tissue``, ``array_row``, ``array_col`` (if
    available), ``pxl_row_in_fullres``, ``pxl_col_in_fullres``.

    Raises
    ------
    InputError
        Columns are missing or unknown, values are not numbers, or a barcode is duplicated.
    """
    try:
        table: pd.DataFrame = _read_table(path).set_index("barcode").apply(pd.to_numeric)
    except (InputError, MemoryError):
        raise
    except Exception as error:  # a damaged file can raise nearly anything
        raise InputError(unreadable(path.name, error)) from error
    wrong = table.index[table.index.duplicated() | ~np.isfinite(table).all(axis=1)]
    if len(wrong):
        raise InputError(
            f"{path.name} has no position, or two, for {numbered(len(wrong), 'barcode')} "
            f"({few(wrong)}); correct those lines"
        )
    return table


def _read_table(path: Path) -> pd.DataFrame:
    if ".parquet" in path.name:
        require("pyarrow", "hd", f"{path.name}, which is a parquet file,")
        table = pd.read_parquet(path, engine="pyarrow")
        return _by_header(table if "barcode" in table else table.reset_index(), path)
    data = _content(path)
    separator = "\t" if b"\t" in data.partition(b"\n")[0] else ","
    table = pd.read_csv(
        BytesIO(data),
        sep=separator,
        header=None,
        dtype=str,
        keep_default_na=False,
        encoding="utf-8-sig",
    )
    if table.shape[1] < len(_COLUMNS) or not _is_number(str(table.iat[0, 1])):
        return _by_header(table[1:].set_axis(table.iloc[0].tolist(), axis=1), path)
    return table.iloc[:, : len(_COLUMNS)].set_axis(list(_COLUMNS), axis=1)


def _is_number(text: str) -> bool:
    return re.fullmatch(r"\s*[-+]?\d+(\.\d*)?\s*", text) is not None


def _by_header(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Sort columns by the names in the header."""
    columns = {str(name).strip().lower(): name for name in reversed(table.columns.tolist())}
    order = {}
    for column, aliases in _COLUMNS.items():
        alias = next((alias for alias in aliases if alias in columns), None)
        if alias is not None:
            order[column] = table[columns[alias]]
        elif column == "barcode" or column.startswith("pxl"):
            raise InputError(
                f"{path.name} has no column {column} (its first line: {few(table.columns, 8)}); "
                "give it the header of Space Ranger, or all six columns and no header"
            )
    return pd.DataFrame(order)


def read_factors(file: Path, notes: list[str]) -> dict[str, Any]:
    """Read scale factors; a file that cannot be read is noted and taken as empty."""
    try:
        return dict(json.loads(_content(file)))
    except (ValueError, TypeError, OSError, EOFError) as error:
        notes.append(f"left out: {unreadable(file.name, error)}")
        return {}


def read_image(file: Path, notes: list[str]) -> NDArray[Any] | None:
    """Read a tissue image (rows × columns × channels); one that cannot be read is noted."""
    from matplotlib.image import imread

    try:
        kind = file.name.removesuffix(".gz").rpartition(".")[2]
        return np.asarray(imread(BytesIO(_content(file)), format=kind))
    except (ValueError, OSError, EOFError, SyntaxError) as error:
        notes.append(f"left out: {unreadable(file.name, error)}")
        return None


def _content(file: Path) -> bytes:
    data = file.read_bytes()
    return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data


def unreadable(name: str, error: Exception) -> str:
    """Describe in one line that a file cannot be read, why, and what to do."""
    why = (str(error) or type(error).__name__).splitlines()[0]
    what = f"{name} cannot be read ({why})".strip()
    return f"{what}; it is damaged or has another format: copy it again"
