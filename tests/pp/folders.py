"""Makers of small slides and of the folders that people keep them in."""

import gzip
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.image import imsave
from scipy.io import mmwrite
from scipy.sparse import csc_matrix, csr_matrix

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
POSITION_COLUMNS = (
    *("barcode", "in_tissue", "array_row", "array_col"),
    *("pxl_row_in_fullres", "pxl_col_in_fullres"),
)
SYMBOLS = ("MOBP", "PLP1", "GFAP", "MBP", "NPY", "IGKC", "SNAP25", "C1orf112")
"""One of them looks like a mouse symbol, as in every human list."""


def barcodes_of(n: int, ending: str = "-1") -> list[str]:
    return ["".join("ACGT"[(i >> 2 * j) & 3] for j in range(8)) + ending for i in range(n)]


@dataclass
class Section:
    """What a folder is made from: counts (spots × features), features and positions."""

    n_spots: int = 30
    names: Sequence[str] = SYMBOLS
    ids: Sequence[str] = ()
    kinds: Sequence[str] = ()
    ending: str = "-1"
    in_tissue: Sequence[int] = ()
    counts: np.ndarray = field(init=False)
    barcodes: list[str] = field(init=False)
    positions: pd.DataFrame = field(init=False)

    def __post_init__(self) -> None:
        self.ids = self.ids or [f"ENSG{i:011d}" for i in range(len(self.names))]
        self.kinds = self.kinds or ["Gene Expression"] * len(self.names)
        rng = np.random.default_rng(0)
        shape = self.n_spots, len(self.names)
        self.counts = rng.poisson(50, shape) * rng.integers(0, 2, shape) + 20
        self.barcodes = barcodes_of(self.n_spots, self.ending)
        spot = np.arange(self.n_spots)
        columns = (
            *(self.barcodes, self.in_tissue or [1] * self.n_spots),
            *(spot // 6, spot % 6, 100 + 10 * (spot // 6), 2000 + 10 * (spot % 6)),
        )
        self.positions = pd.DataFrame(dict(zip(POSITION_COLUMNS, columns, strict=True)))

    @property
    def spatial(self) -> np.ndarray:
        return self.positions[["pxl_col_in_fullres", "pxl_row_in_fullres"]].to_numpy(
            float, copy=True
        )


def outs(folder: Path, section: Section | None = None, positions: str = "headed") -> Path:
    """Make a Space Ranger folder with an h5 matrix, images and scale factors."""
    section = section or Section()
    write_h5(folder / "filtered_feature_bc_matrix.h5", section)
    spatial = folder / "spatial"
    write_positions(spatial / "tissue_positions.csv", section, headed=positions == "headed")
    write_pictures(spatial)
    return folder


def write_h5(path: Path, section: Section, *, version: int = 3) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    matrix = csc_matrix(section.counts.T)
    text = h5py.string_dtype()
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix" if version == 3 else "GRCh38")
        for name in ("data", "indices", "indptr"):
            group[name] = getattr(matrix, name).astype(np.int32)
        group["shape"] = np.array(matrix.shape, dtype=np.int32)
        group["barcodes"] = np.array(section.barcodes, dtype=text)
        if version == 2:
            group["genes"] = np.array(section.ids, dtype=text)
            group["gene_names"] = np.array(section.names, dtype=text)
            return path
        features = group.create_group("features")
        features["id"] = np.array(section.ids, dtype=text)
        features["name"] = np.array(section.names, dtype=text)
        features["feature_type"] = np.array(section.kinds, dtype=text)
        features["genome"] = np.array(["GRCh38"] * len(section.names), dtype=text)
    return path


def write_mtx(
    folder: Path, section: Section, *, prefix: str = "", gz: bool = True, version: int = 3
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    end = ".gz" if gz else ""
    opener = gzip.open if gz else open
    with opener(folder / f"{prefix}matrix.mtx{end}", "wb") as file:
        mmwrite(file, csc_matrix(section.counts.T), field="integer")
    columns = [section.ids, section.names] + ([section.kinds] if version == 3 else [])
    features = "\n".join("\t".join(row) for row in zip(*columns, strict=True)) + "\n"
    name = "features" if version == 3 else "genes"
    _write(folder / f"{prefix}{name}.tsv{end}", features.encode())
    _write(folder / f"{prefix}barcodes.tsv{end}", ("\n".join(section.barcodes) + "\n").encode())


def write_positions(path: Path, section: Section, *, headed: bool, separator: str = ",") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if ".parquet" in path.name:
        section.positions.to_parquet(path, index=False)
        return path
    text = section.positions.to_csv(index=False, header=headed, sep=separator)
    return _write(path, text.encode())


def write_pictures(folder: Path, prefix: str = "", end: str = "") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for size, pixels in (("hires", 8), ("lowres", 4)):
        plain = folder / f"{prefix}tissue_{size}_image.png"
        imsave(plain, np.linspace(0, 1, pixels * pixels * 3).reshape(pixels, pixels, 3))
        if end:
            _write(plain.with_name(plain.name + end), plain.read_bytes())
            plain.unlink()
    factors = {"tissue_hires_scalef": 0.5, "tissue_lowres_scalef": 0.1, "microns_per_pixel": 0.25}
    _write(folder / f"{prefix}scalefactors_json.json{end}", json.dumps(factors).encode())


def _write(path: Path, data: bytes) -> Path:
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def a_slide(n_spots: int = 30, names: Sequence[str] = SYMBOLS) -> AnnData:
    """Make a faultless slide in memory."""
    section = Section(n_spots, [f"name{i}" for i in range(len(names))])
    obs = pd.DataFrame(index=section.barcodes)
    counts = csr_matrix(section.counts.astype(np.float32))
    slide = AnnData(counts, obs=obs, var=pd.DataFrame(index=list(names)))
    slide.obsm["spatial"] = section.spatial
    return slide


def write_zarr(folder: Path, slide: AnnData) -> Path:
    settings = anndata.settings.override(zarr_write_format=3, auto_shard_zarr_v3=False)
    with settings, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
        slide.write_zarr(folder)
    return folder


def told(slide: AnnData) -> str:
    """Join what reading told."""
    return "\n".join(slide.uns["sagefm"]["read"]["told"])


def hd(folder: Path, sizes: Sequence[int]) -> Path:
    """Make a Visium HD folder; the bins of s µm have 20 + s spots."""
    for size in sizes:
        outs(folder / "binned_outputs" / f"square_{size:03d}um", Section(n_spots=20 + size))
    return folder
