"""Read the files of 10x: matrix, image, scale factors."""

import gzip
import json
import warnings
import zlib
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.io import mminfo, mmread
from scipy.sparse import csr_matrix, issparse

from sagefm import _keys
from sagefm._errors import InputError
from sagefm._text import few, numbered
from sagefm.pp.structure import csr_of, require_counts, require_finite_heaps, require_own_data

if TYPE_CHECKING:
    import h5py

_LARGEST_FACTOR = 1e12


def read_matrix(path: Path, notes: list[str]) -> tuple[csr_matrix, pd.Index, pd.DataFrame]:
    """Read spots × genes, the barcodes, and a table of features by name.

    Raises
    ------
    InputError
        The file is damaged, or is no matrix of counts; nothing of it is used before it is checked.
    """
    try:
        reader = _read_mtx if ".mtx" in path.suffixes else _read_h5
        matrix, barcodes, var = reader(path, notes)
    except InputError as error:
        raise InputError(f"{path.name}: {error}") from error
    except MemoryError:
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


def _read_h5(path: Path, notes: list[str]) -> tuple[csr_matrix, pd.Index, pd.DataFrame]:
    """Read the matrix of Space Ranger, or the older kind with a group per genome."""
    import h5py

    require_finite_heaps(path)
    with h5py.File(path, "r") as file:
        require_own_data(file)
        if "matrix" not in file and len(file) > 1:
            raise InputError(
                f"holds several genomes ({few(file)}); keep the genes of one in a file"
            )
        group = file.get("matrix" if "matrix" in file else next(iter(file), "matrix"))
        if not isinstance(group, h5py.Group):
            raise ValueError("it has no group matrix")
        if "matrix" in file and not isinstance(group.get("features"), h5py.Group):
            raise ValueError("it has no group features")
        var = _features(group)
        barcodes = pd.Index(_column(_dataset(group, "barcodes")))
        n_genes, n_spots = (int(number) for number in _dataset(group, "shape")[()])
        if (n_genes, n_spots) != (len(var), len(barcodes)):
            raise InputError(
                f"its shape is {n_genes:,} genes × {n_spots:,} spots, but it lists "
                f"{len(var):,} and {len(barcodes):,}; it is damaged: copy it again"
            )
        data, indices, indptr = (
            np.asarray(_dataset(group, name)[()]) for name in ("data", "indices", "indptr")
        )
        # A gene × spot matrix by columns is the spot × gene matrix by rows.
        matrix = csr_of(data, indices, indptr, (n_spots, n_genes))
        inside = _dataset(group, "filtered_barcodes")[()] if "filtered_barcodes" in group else None
    if "filtered_probes" not in var or "gene_name" not in var:
        return matrix, barcodes, var
    return _genes_of_probes(matrix, barcodes, var, inside, notes)


def _features(group: "h5py.Group") -> pd.DataFrame:
    """Read the table of features by name."""
    import h5py

    genes = group.get("features", group)  # older files have one group
    symbols = "name" if "features" in group else "gene_names"
    ids = next((name for name in ("gene_id", "id", "genes") if name in genes), "id")
    columns = {_keys.GENE_IDS: ids}
    if "features" in group:
        columns |= {"probe_ids": "id"} if ids == "gene_id" else {}
        columns |= {"feature_types": "feature_type"}
        rest = {*genes} - {symbols, *columns.values(), "_all_tag_keys"}
        columns |= {name: name for name in sorted(rest) if isinstance(genes[name], h5py.Dataset)}
    table = {key: _column(_dataset(genes, name)) for key, name in columns.items()}
    return _named(pd.DataFrame(table), pd.Series(_column(_dataset(genes, symbols))))


def _named(var: pd.DataFrame, symbols: "pd.Series[str]") -> pd.DataFrame:
    """Name features by symbol, and by id where there is no symbol."""
    symbols = symbols.fillna("")
    if len(symbols) != len(var):
        raise ValueError(f"it has {len(symbols):,} names of {len(var):,} features")
    return var.set_axis(pd.Index(symbols.where(symbols != "", var[_keys.GENE_IDS])), axis=0)


def _dataset(group: "h5py.Group", name: str) -> "h5py.Dataset":
    import h5py

    item = group.get(name)
    if not isinstance(item, h5py.Dataset):
        raise ValueError(f"it has no {name}")
    return item


def _genes_of_probes(
    matrix: csr_matrix,
    barcodes: pd.Index,
    var: pd.DataFrame,
    inside: NDArray[np.bool_] | None,
    notes: list[str],
) -> tuple[csr_matrix, pd.Index, pd.DataFrame]:
    """Keep the probes and spots that Space Ranger uses, and name probes by gene, to be summed."""
    used = var["filtered_probes"].to_numpy(dtype=bool)
    rows = np.ones(len(barcodes), dtype=bool) if inside is None else inside.astype(bool)
    notes.append(
        f"a matrix of probes: the {used.sum():,} of {len(used):,} that Space Ranger uses are "
        f"summed by gene, on its {rows.sum():,} of {len(rows):,} spots; others are left out"
    )
    genes = var[used].set_index("gene_name").rename_axis(None)
    genes = genes.drop(columns=["filtered_probes", "probe_ids", "probe_region"], errors="ignore")
    return matrix[rows][:, used], barcodes[rows], genes


def _column(values: "h5py.Dataset") -> NDArray[Any]:
    """Read a column: text as strings, a flag as it is, and numbers as text."""
    if values.dtype.kind in "SO":
        return np.asarray(values.asstr("utf-8")[()], dtype=object)
    flags = values.dtype.kind == "b"
    return np.asarray(values[()] if flags else values[()].astype(str).astype(object))


def _read_mtx(path: Path, notes: list[str]) -> tuple[csr_matrix, pd.Index, pd.DataFrame]:
    features = _read_list(path, ("features", "genes"))
    barcodes = pd.Index(_read_list(path, ("barcodes",))[0]).rename(None)
    text = content(path)
    if b"\0" in text:
        raise ValueError("it is no text")  # SciPy would read past its end
    n_genes, n_spots = _mtx_shape(text)
    listed = len(features), len(barcodes)
    turned = (n_spots, n_genes) == listed and n_genes != n_spots
    if (n_genes, n_spots) != listed and not turned:
        raise InputError(
            f"it has {n_genes:,} genes × {n_spots:,} spots, but the files next to it list "
            f"{listed[0]:,} and {listed[1]:,}; they are not of one sample"
        )
    with warnings.catch_warnings():
        # A sparse array, which it will return one day, is as good as a sparse matrix here.
        warnings.filterwarnings("ignore", "The default value for `spmatrix`", DeprecationWarning)
        stored = mmread(BytesIO(text))
    require_counts(stored.data if issparse(stored) else stored.ravel())
    if turned:
        notes.append(f"{path.name} has a row per spot; it is read so")
    matrix = csr_matrix(stored if turned else stored.T, dtype=np.float32)
    names = features[1] if 1 in features else features[0]
    var = _named(pd.DataFrame({_keys.GENE_IDS: features[0]}), names)
    if 2 in features:
        var["feature_types"] = features[2].to_numpy()
    return matrix, barcodes, var.rename_axis(None)


def _mtx_shape(text: bytes) -> tuple[int, int]:
    """Read the shape of a matrix.mtx from its header, which must be that of a matrix of counts."""
    n_rows, n_columns, entries, form, field, symmetry = mminfo(BytesIO(text))
    if field not in ("integer", "real", "double", "unsigned-integer") or symmetry != "general":
        raise InputError(
            f"it is a {symmetry} matrix of type {field}; give the general one with the counts"
        )
    entries = n_rows * n_columns if form == "array" else entries
    if entries > len(text):
        raise InputError(f"it is too short for {entries:,} entries; it is damaged: copy it again")
    return n_rows, n_columns


def _read_list(matrix: Path, names: tuple[str, ...]) -> pd.DataFrame:
    """Read the table next to a matrix.mtx, preferably compressed in the same way."""
    prefix, _, ending = matrix.name.partition("matrix.mtx")
    endings = dict.fromkeys([ending, "", ".gz"])
    files = [matrix.with_name(f"{prefix}{name}.tsv{end}") for name in names for end in endings]
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        raise InputError(f"{files[0].name} is missing next to {matrix.name}; put it there")
    # quoting=3 (none): names such as 5'-end must stay, and a gene may be called NA.
    try:
        return pd.read_csv(
            BytesIO(content(file)),
            sep="\t",
            header=None,
            dtype=str,
            keep_default_na=False,
            quoting=3,
            encoding="utf-8-sig",
        )
    except (ValueError, OSError, EOFError) as error:
        raise InputError(unreadable(file.name, error)) from error


def read_factors(file: Path, notes: list[str]) -> dict[str, Any]:
    """Read scale factors; a file that cannot be read is noted and taken as empty."""
    try:
        stored = dict(json.loads(content(file)))
    except (ValueError, TypeError, OSError, EOFError, RecursionError) as error:
        notes.append(f"left out: {unreadable(file.name, error)}")
        return {}
    factors = {key: value for key, value in stored.items() if _is_factor(value)}
    if odd := [key for key in stored if key not in factors]:
        notes.append(f"left out of {file.name}, as no positive numbers: {few(odd)}")
    return factors


def _is_factor(value: Any) -> bool:
    return isinstance(value, int | float) and 0 < value < _LARGEST_FACTOR


def read_image(file: Path, notes: list[str]) -> NDArray[Any] | None:
    """Read a tissue image (rows × columns × channels); one that cannot be read is noted."""
    from matplotlib.image import imread

    try:
        kind = file.name.removesuffix(".gz").rpartition(".")[2]
        return np.asarray(imread(BytesIO(content(file)), format=kind))
    except Exception as error:  # noqa: BLE001 (a damaged image can raise anything)
        notes.append(f"left out: {unreadable(file.name, error)}")
        return None


def content(file: Path) -> bytes:
    """Read a file, unpacked if it is compressed."""
    data = file.read_bytes()
    if data[:2] != b"\x1f\x8b":
        return data
    try:
        return gzip.decompress(data)
    except zlib.error as error:
        raise ValueError(f"it is packed, and damaged: {error}") from error


def unreadable(name: str, error: Exception) -> str:
    """Describe in one line that a file cannot be read, why, and what to do."""
    why = (str(error) or type(error).__name__).splitlines()[0]
    what = f"{name} cannot be read ({why})".strip()
    if isinstance(error, PermissionError):
        return f"{what}; check its permissions"
    return f"{what}; it is damaged or has another format: copy it again"
