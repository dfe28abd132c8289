"""Compare the numbers of two checkouts of the package on real slides.

    python benchmarks/compare_commits.py OLD_CHECKOUT NEW_CHECKOUT [--slides her2st_B1 crc_16]

Each checkout runs in a process of its own, with the default model and with random weights of the
published architecture. Coordinates are jittered by a thousandth of the pitch, so that no two
neighbors are equally near. The exit status is 1 if a number differs by more than the tolerance,
relative to the largest absolute value or 1. Neighborhoods are also compared without jitter.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

SLIDES = ("her2st_B1", "dlpfc_151673", "heartdev_1", "crc_16", "hcc_HCC1", "stahl_BC_layer1")
LABELED = ("her2st_C1", "her2st_D1", "her2st_E1")
PAIRS = (
    ("TGFB1", "COL1A1"), ("TGFB1", "ACTA2"), ("CXCL12", "CXCR4"), ("CCL5", "CCR5"),
    ("CCL19", "CCR7"), ("VEGFA", "KDR"), ("PDGFB", "PDGFRB"), ("EGF", "EGFR"),
    ("IFNG", "STAT1"), ("TNF", "ICAM1"), ("IL6", "STAT3"), ("CSF1", "CSF1R"),
    ("APOE", "TREM2"), ("SPP1", "CD44"), ("FN1", "ITGB1"),
)  # fmt: skip
WIDTHS = (64, 32, 16, 32, 64)
TOLERANCE = 1e-6


def jittered(slide):
    """Move every spot by about a thousandth of the distance to its nearest neighbor."""
    from scipy.spatial import cKDTree

    points = np.asarray(slide.obsm["spatial"], dtype=float)
    pitch = np.median(cKDTree(points).query(points, 2)[0][:, 1])
    slide.obsm["spatial"] = points + np.random.default_rng(0).normal(0, 1e-3 * pitch, points.shape)
    return slide


def flatten(table, name):
    """Turn a table into named arrays: floats for numbers, strings for everything else."""
    for column in table.columns:
        values = table[column].to_numpy()
        numeric = np.issubdtype(values.dtype, np.number)
        yield f"{name} {column}", values.astype(float) if numeric else values.astype(str)


def compute(name, model, folder):
    """Compute everything that is compared on a slide; yield names and arrays."""
    import sagefm

    slide = sagefm.read(folder / f"{name}.h5ad")
    yield "neighborhoods without jitter", np.sort(model.prepare(slide).neighbors, axis=1)
    jittered(slide)
    sagefm.tl.embed(slide, model)
    yield "embedding", np.asarray(slide.obsm["X_sagefm"])
    sagefm.tl.domains(slide, n_domains=7)
    yield "domains", slide.obs["sagefm_domain"].to_numpy().astype(str)
    counts = np.asarray(slide.X.sum(axis=0)).ravel()
    by_counts = slide.var_names[np.argsort(-counts, kind="stable")]
    genes = list(dict.fromkeys(g for g in by_counts if g in model.vocabulary))
    shape = slide.n_obs, len(model.vocabulary)
    mask = np.random.default_rng(1).random(shape, dtype=np.float32) < 0.3
    wanted = None if slide.n_obs < 500 else genes[:300]
    yield "prediction", model.predict(slide, hidden=mask, genes=wanted)
    table = sagefm.tl.perturb(slide, model, PAIRS, n_matched=20)
    yield from flatten(table, "perturb")
    table = sagefm.tl.impute(slide, model, genes=genes[20:30])
    yield from flatten(table, "impute table")
    yield "impute", np.asarray(slide.obsm["sagefm_imputed"])
    if name == "her2st_B1":
        labeled = [jittered(sagefm.read(folder / f"{other}.h5ad")) for other in LABELED]
        sagefm.tl.annotate(labeled, slide, model, key="label")
        yield from flatten(slide.obsm["sagefm_label_probabilities"], "annotate")
        yield "annotate label", slide.obs["sagefm_label"].to_numpy().astype(str)
        yield "annotate novelty", slide.obs["sagefm_label_novelty"].to_numpy()


def run_side(models, folder, out, names):
    """Write an .npz for each slide and model."""
    import sagefm

    for label, path in (("default", "default"), ("published", models)):
        model = sagefm.SageFM.load(path)
        for name in names:
            np.savez(out / f"{name}~{label}.npz", **dict(compute(name, model, folder)))


def save_random(path):
    """Save random weights of the published architecture, with the vocabulary of the default."""
    import sagefm
    from sagefm.model import Config

    vocabulary = sagefm.SageFM.load("default").vocabulary
    sagefm.SageFM.new(vocabulary, Config("published", WIDTHS), seed=0).save(path)


def start(checkout, *arguments):
    """Run this script with the package of a checkout."""
    environment = {**os.environ, "PYTHONPATH": str(Path(checkout).resolve() / "src")}
    subprocess.run([sys.executable, __file__, *map(str, arguments)], check=True, env=environment)


def difference(old, new):
    """Return what differs in words, and whether it is more than tolerated."""
    if old.shape != new.shape:
        return f"shape {old.shape} → {new.shape}", True
    if old.dtype.kind not in "fiu":
        n = int((old != new).sum())
        return f"{n} of {old.size} labels", n > 0
    old, new = old.astype(float), new.astype(float)
    if not np.array_equal(np.isfinite(old), np.isfinite(new)):
        return "other missing values", True
    finite = np.isfinite(old)
    if not finite.any():
        return "0", False
    largest = float(np.abs(old - new)[finite].max())
    return f"{largest:.1e}", largest > TOLERANCE * max(1.0, float(np.abs(old[finite]).max()))


def compare(old, new):
    """Print a table of differences; return whether all are tolerated."""
    print("| slide | model | what | difference | |\n|---|---|---|---|---|")
    failed = False
    for path in sorted(old.glob("*.npz")):
        slide, model = path.stem.split("~")
        before, after = np.load(path), np.load(new / path.name)
        for what in sorted(set(before.files) | set(after.files)):
            if what not in before.files or what not in after.files:
                text, wrong = f"only {'before' if what in before.files else 'after'}", True
            elif what.startswith("neighborhoods"):
                n = int((before[what] != after[what]).any(axis=1).sum())
                text, wrong = f"{n} of {len(before[what])} spots", False
            else:
                text, wrong = difference(before[what], after[what])
            failed |= wrong
            print(f"| {slide} | {model} | {what} | {text} | {'**differs**' if wrong else ''} |")
    return not failed


def main():
    if sys.argv[1] == "--save":
        return save_random(Path(sys.argv[2]))
    if sys.argv[1] == "--side":
        models, folder, out = map(Path, sys.argv[2:5])
        return run_side(models, folder, out, sys.argv[5:])
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--slides", nargs="+", default=SLIDES, metavar="NAME")
    options = parser.parse_args()
    from _common import SHARED, require_data

    require_data()
    with tempfile.TemporaryDirectory() as scratch:
        models = Path(scratch) / "published.safetensors"
        start(options.old, "--save", models)
        sides = Path(scratch) / "old", Path(scratch) / "new"
        for checkout, out in zip((options.old, options.new), sides, strict=True):
            out.mkdir()
            start(checkout, "--side", models, SHARED / "slides", out, *options.slides)
        sys.exit(0 if compare(*sides) else 1)


if __name__ == "__main__":
    main()
