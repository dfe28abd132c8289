"""Small sound inputs that trials damage, made once."""

import json
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree

import anndata
import h5py
import numpy as np
import torch
from anndata import AnnData
from matplotlib.image import imsave
from scipy.sparse import csc_matrix

import sagefm
from sagefm.model import Config, SageFM
from sagefm.pp.vocabulary import Vocabulary

RECIPE = """
[network]
name = "published"
widths = [8, 8, 8, 8, 8]

[data]
genes = 60
patient_key = "patient"
validation = 0.3

[train]
mask_fraction = 0.3
batch_size = 32
learning_rate = 1e-3
weight_decay = 0.0
max_epochs = 1
patience = 2
seed = 0
"""


@dataclass(frozen=True)
class Kit:
    """A folder of sound inputs.

    `slides` are .h5ad of one slide stored in several ways, `embedded` and `labeled` are the same
    with an embedding and with labels; `outs` is its Space Ranger folder.
    """

    folder: Path
    symbols: list[str]

    @property
    def slides(self) -> list[Path]:
        return sorted((self.folder / "slides").iterdir())

    def __getitem__(self, name: str) -> Path:
        return self.folder / name


def make(folder: Path) -> Kit:
    """Make all sound inputs in an empty folder."""
    slide = _slide(3)
    symbols = [str(symbol) for symbol in slide.var_names[:150]]
    kit = Kit(folder, symbols)
    _store_in_several_ways(slide, folder / "slides")
    slide.write_zarr(folder / "slide.zarr")
    _models(kit)
    for i in range(4):
        other = _slide(10 + i)
        other.obs["patient"] = f"p{i}"
        other.obs["label"] = np.where(other.obs["domain"] == other.obs["domain"].iloc[0], "a", "b")
        other.write_h5ad(folder / f"s{i}.h5ad")
    embedded = slide.copy()
    sagefm.tl.embed(embedded, sagefm.SageFM.load(kit["published.safetensors"]))
    embedded.write_h5ad(folder / "embedded.h5ad")
    _outs(slide, folder / "outs")
    (folder / "recipe.toml").write_text(RECIPE)
    pairs = zip(symbols[:20], symbols[20:40], strict=True)
    (folder / "pairs.csv").write_text("ligand,target\n" + "".join(f"{a},{b}\n" for a, b in pairs))
    sets = (f"set{i}\thttp://x\t" + "\t".join(symbols[10 * i : 10 * i + 8]) for i in range(5))
    (folder / "sets.gmt").write_text("\n".join(sets) + "\n")
    (folder / "genes.txt").write_text("\n".join(symbols) + "\n")
    table = "slide,patient,organ\n" + "".join(f"s{i},p{i},liver\n" for i in range(4))
    (folder / "table.csv").write_text(table)
    return kit


def _slide(seed: int) -> AnnData:
    """A slide whose spots lie irregularly, so that no neighbor is tied."""
    slide = sagefm.pp.simulate(110, seed=seed)
    slide = slide[:, ::7].copy()  # the same genes in every slide
    places = slide.obsm["spatial"]
    places += np.random.default_rng(seed).normal(0, 20, places.shape)
    slide.uns = {"spot_pitch_um": 100.0}
    return slide


def _store_in_several_ways(slide: AnnData, folder: Path) -> None:
    folder.mkdir()
    slide.write_h5ad(folder / "plain.h5ad")
    slide.write_h5ad(folder / "gzip.h5ad", compression="gzip")
    for name, values in (("csc", csc_matrix(slide.X)), ("dense", slide.X.toarray())):
        other = slide.copy()
        other.X = values
        other.write_h5ad(folder / f"{name}.h5ad")
    log = slide.copy()
    log.layers["counts"] = slide.X.copy()
    log.X = log.X.log1p()
    log.write_h5ad(folder / "layer.h5ad")
    log.raw = slide
    del log.layers["counts"]
    log.write_h5ad(folder / "raw.h5ad")


def _models(kit: Kit) -> None:
    vocabulary = Vocabulary(tuple(kit.symbols), ("",) * len(kit.symbols))
    for network, widths in (("published", (16, 8, 8, 8, 16)), ("context", (16, 16, 16, 8))):
        config = Config(network=network, widths=widths)
        SageFM.new(vocabulary, config, seed=1).save(kit[f"{network}.safetensors"])
    published = sagefm.SageFM.load(kit["published.safetensors"]).network.state_dict()
    torch.save({"model_state_dict": _as_published(published)}, kit["published.pt"])


def _as_published(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Name weights as in the published checkpoint."""
    names = {"conv1.lin.weight": state["first"].T.contiguous(), "conv1.bias": state["first_bias"]}
    for layer in range(4):
        names[f"conv{layer + 2}.lin.weight"] = state[f"encoder.{layer}.weight"]
        names[f"conv{layer + 2}.bias"] = state[f"encoder.{layer}.bias"]
    return names | {f"fc_gene.{part}": state[f"decoder.{part}"] for part in ("weight", "bias")}


def _outs(slide: AnnData, folder: Path) -> None:
    """A Space Ranger folder with the matrix as .h5 and as text, positions, factors, an image."""
    spatial = folder / "spatial"
    spatial.mkdir(parents=True)
    barcodes = [
        f"{'ACGT'[i % 4]}{'ACGT'[i // 4 % 4]}{'ACGT'[i // 16 % 4]}{i:013d}-1"
        for i in range(slide.n_obs)
    ]
    text, matrix = h5py.string_dtype(), csc_matrix(slide.X.T)
    ids = [f"ENSG{i:011d}" for i in range(slide.n_vars)]
    with h5py.File(folder / "filtered_feature_bc_matrix.h5", "w") as file:
        group = file.create_group("matrix")
        for name in ("data", "indices", "indptr"):
            group[name] = getattr(matrix, name).astype(np.int32)
        group["shape"] = np.array(matrix.shape, dtype=np.int32)
        group["barcodes"] = np.array(barcodes, dtype=text)
        for name, values in (
            ("id", ids), ("name", slide.var_names), ("genome", ["GRCh38"] * slide.n_vars),
            ("feature_type", ["Gene Expression"] * slide.n_vars),
        ):  # fmt: skip
            group[f"features/{name}"] = np.array(values, dtype=text)
    lines = ["barcode,in_tissue,array_row,array_col,pxl_row_in_fullres,pxl_col_in_fullres"]
    for i, (barcode, (x, y)) in enumerate(zip(barcodes, slide.obsm["spatial"], strict=True)):
        lines.append(f"{barcode},1,{i // 10},{i % 10},{y:.3f},{x:.3f}")
    (spatial / "tissue_positions.csv").write_text("\n".join(lines) + "\n")
    factors = {
        "tissue_hires_scalef": 0.1,
        "spot_diameter_fullres": 90.0,
        "fiducial_diameter_fullres": 120.0,
    }
    (spatial / "scalefactors_json.json").write_text(json.dumps(factors))
    imsave(spatial / "tissue_hires_image.png", np.full((20, 20, 3), 200, dtype=np.uint8))


def copied(source: Path, target: Path) -> Path:
    """Copy a file or a folder."""
    if source.is_dir():
        return Path(copytree(source, target))
    target.write_bytes(source.read_bytes())
    return target


def load(path: Path) -> AnnData:
    return anndata.read_h5ad(path)
