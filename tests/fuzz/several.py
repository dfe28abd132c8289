"""Two slides in one object: noticed, whatever the column that tells them apart is called."""

from pathlib import Path

import anndata
import numpy as np
from anndata import AnnData

from .damage import Rng, pick
from .kit import Kit, load
from .oracle import Plain, differs, embedding
from .trials import Trial

COLUMNS = (
    *("orig.ident", "dataset", "fov", "region", "image", "capture_area", "donor", "block"),
    *("replicate", "Sample", "specimen", "puck", "array", "GSM", "source_file", "sangerID"),
    *("tissue_id", "slice", "position", "run", "Sample Name", "hiseq", "q7", "patient_id", "chip"),
)


def merged(rng: Rng, kit: Kit, folder: Path) -> Trial:
    """Merge two slides; embed them as one, or as two by the column that tells them apart."""
    slides = {name: load(kit[f"{name}.h5ad"]) for name in ("s0", "s1")}
    _place(rng, slides["s1"])
    column = pick(rng, COLUMNS)
    unique = pick(rng, ("-", "_", None, None))
    together = anndata.concat(slides, label=column, index_unique=unique)
    if unique is None:
        together.obs_names = [f"{name}_{i}" for i, name in enumerate(together.obs_names)]
    for name in ("patient", "label", "slide"):
        together.obs.pop(name) if name in together.obs else None
    path, out, model = folder / "both.h5ad", folder / "out", kit["published.safetensors"]
    together.write_h5ad(path)
    words = ["embed", path, "-m", model, "-o", out / "o.h5ad"]
    if rng.random() < 0.5:
        return Trial(tuple(words), (path,), out, must="refuse", how=f"merged by {column}")
    words += ["--slide-key", column]

    def verify() -> str | None:
        got = load(out / "o.h5ad").obsm["X_sagefm"]
        expected = [embedding(_plain(slide), model, kit.symbols) for slide in slides.values()]
        return differs(got, np.concatenate(expected))

    return Trial(tuple(words), (path,), out, verify, "succeed", f"named by {column}")


def _place(rng: Rng, slide: AnnData) -> None:
    """Leave a slide where it is, or put it beside, turned, or nearly where it is."""
    xy = slide.obsm["spatial"]
    kind = int(rng.integers(4))
    if kind == 1:
        xy += [30_000.0, 0.0]
    elif kind == 2:
        xy[:] = xy[:, ::-1] @ [[-1, 0], [0, 1]] + [xy.max(), 0]
    elif kind == 3:
        xy += rng.normal(0, 40, 2)


def _plain(slide: AnnData) -> Plain:
    counts = slide.X.toarray().astype(float)
    return Plain(list(slide.obs_names), list(slide.var_names), counts, slide.obsm["spatial"])
