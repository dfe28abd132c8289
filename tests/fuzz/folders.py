"""Space Ranger folders of which one file is damaged or written in another way."""

import itertools
from pathlib import Path

import h5py
import numpy as np

from .damage import Rng, as_json, damage_one_of, odd_text, odd_tree
from .kit import Kit, copied, load
from .oracle import Plain, differs, embedding
from .slides import _change
from .trials import Trial

POSITIONS, FACTORS = "spatial/tissue_positions.csv", "spatial/scalefactors_json.json"


def damaged_folder(rng: Rng, kit: Kit, folder: Path) -> Trial:
    outs = copied(kit["outs"], folder / "outs")
    how = damage_one_of(rng, outs)
    return _trial(kit, folder, outs, how)


def odd_matrix(rng: Rng, kit: Kit, folder: Path) -> Trial:
    outs = copied(kit["outs"], folder / "outs")
    how = _change(rng, outs / "filtered_feature_bc_matrix.h5")
    return _trial(kit, folder, outs, how)


def odd_positions(rng: Rng, kit: Kit, folder: Path) -> Trial:
    outs = copied(kit["outs"], folder / "outs")
    path = outs / POSITIONS
    text = path.read_text()
    path.write_text(odd_text(rng, text))
    return _trial(kit, folder, outs, "positions")


def written_otherwise(rng: Rng, kit: Kit, folder: Path) -> Trial:
    """Positions as other versions and other tools write them: read, and read alike."""
    outs = copied(kit["outs"], folder / "outs")
    path = outs / POSITIONS
    text = path.read_text()
    kind = int(rng.integers(8))
    header, _, rows = text.partition("\n")
    text = (
        text.replace(",", ";"), text.replace(",", "\t"), text.replace("\n", "\r\n"), "\n" + text,
        "\ufeff" + text, text + "\n\n", rows, f"{header}\n" + rows.replace("-1,1,", "-1,True,"),
    )[kind]  # fmt: skip
    path.write_text(text)
    return _trial(kit, folder, outs, f"positions written otherwise ({kind})", "succeed")


def odd_factors(rng: Rng, kit: Kit, folder: Path) -> Trial:
    outs = copied(kit["outs"], folder / "outs")
    path = outs / FACTORS
    tree = {"tissue_hires_scalef": 0.1, "spot_diameter_fullres": 90.0}
    path.write_bytes(as_json(odd_tree(rng, tree)))
    return _trial(kit, folder, outs, path.read_text(), "succeed")


def _trial(kit: Kit, folder: Path, outs: Path, how: str, must: str = "either") -> Trial:
    out, model = folder / "out", kit["published.safetensors"]

    def verify() -> str | None:
        slide = load(out / "o.h5ad")
        if must == "either" and len(slide.uns["sagefm"]["read"]["told"]):
            return None
        try:
            plain = _read_plainly(outs)
        except Exception:  # noqa: BLE001  whatever it is
            return None
        if set(kit.symbols) - set(plain.genes) or plain.spots != list(slide.obs_names):
            return None
        return differs(slide.obsm["X_sagefm"], embedding(plain, model, kit.symbols))

    return Trial(
        ("embed", outs, "-m", model, "-o", out / "o.h5ad"), (outs,), out, verify, must, how
    )


def _read_plainly(outs: Path) -> Plain:
    with h5py.File(outs / "filtered_feature_bc_matrix.h5") as file:
        group = file["matrix"]
        spots = [str(name) for name in group["barcodes"].asstr()[:]]
        genes = [str(name) for name in group["features/name"].asstr()[:]]
        data, indices, indptr = (group[name][:] for name in ("data", "indices", "indptr"))
    counts = np.zeros((len(spots), len(genes)))
    for i, (start, stop) in enumerate(itertools.pairwise(indptr)):
        for at in range(start, stop):
            counts[i, indices[at]] += data[at]
    places = {}
    text = (outs / POSITIONS).read_text(encoding="utf-8-sig").replace(";", ",").replace("\t", ",")
    for line in filter(None, text.splitlines()):
        if not line.startswith("barcode"):
            fields = line.split(",")
            places[fields[0]] = float(fields[5]), float(fields[4])
    return Plain(spots, genes, counts, np.array([places[spot] for spot in spots]))
