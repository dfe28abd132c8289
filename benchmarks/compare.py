"""Compare the numbers of two checkouts or installations of the package on real slides.

    python benchmarks/compare.py OLD_CHECKOUT NEW_CHECKOUT [--slides her2st_B1 crc_16]
    python benchmarks/compare.py CHECKOUT ENVIRONMENT/bin/python --tolerance 1e-5

A side is a checkout, which runs with the Python of this script, or the Python of an environment in
which the package is installed (other versions of Python and of the libraries). Each runs in a
process of its own, in an empty folder, with the default model and with random weights of the
published architecture. Coordinates are jittered by a thousandth of the pitch, so that no two
neighbors are equally near, and genes are in the order of the vocabulary, so that float32 sums have
the same order. The exit status is 1 if a number differs by more than the tolerance, relative to the
largest absolute value or 1. (A z divides effects by the spread of a null, which can be as small as
1e-5: it gets a thousand times the tolerance.) Neighborhoods are also compared without jitter.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from _common import SHARED

SLIDES = ("her2st_B1", "dlpfc_151673", "heartdev_1", "crc_16", "hcc_HCC1", "stahl_BC_layer1")
LABELED = ("her2st_C1", "her2st_D1", "her2st_E1")
PAIRS = (
    ("TGFB1", "COL1A1"), ("TGFB1", "ACTA2"), ("CXCL12", "CXCR4"), ("CCL5", "CCR5"),
    ("CCL19", "CCR7"), ("VEGFA", "KDR"), ("PDGFB", "PDGFRB"), ("EGF", "EGFR"),
    ("IFNG", "STAT1"), ("TNF", "ICAM1"), ("IL6", "STAT3"), ("CSF1", "CSF1R"),
    ("APOE", "TREM2"), ("SPP1", "CD44"), ("FN1", "ITGB1"),
)  # fmt: skip
WIDTHS = (64, 32, 16, 32, 64)


def prepared(slide, vocabulary):
    """Jitter the coordinates, and keep the genes of the vocabulary in its order."""
    from scipy.spatial import cKDTree

    slide = slide[:, [gene for gene in vocabulary if gene in slide.var_names]].copy()

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
    slide = prepared(slide, model.vocabulary)
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
    try:
        yield from flatten(sagefm.tl.perturb(slide, model, PAIRS, n_matched=20), "perturb")
    except sagefm.InputError as error:  # none of the pairs is among the genes of the slide
        print(f"{name}: {error}", file=sys.stderr)
    table = sagefm.tl.impute(slide, model, genes=genes[20:30])
    yield from flatten(table, "impute table")
    yield "impute", np.asarray(slide.obsm["sagefm_imputed"])
    if name == "her2st_B1":
        labeled = [
            prepared(sagefm.read(folder / f"{other}.h5ad"), model.vocabulary) for other in LABELED
        ]
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


def start(side, *arguments):
    """Run this script with the package of a checkout or of an environment."""
    python, environment = sys.executable, dict(os.environ)
    if side.is_dir():
        environment["PYTHONPATH"] = str(side.resolve() / "src")
        # Old checkouts have no tables of gene names of their own.
        environment.setdefault("SAGEFM_GENES", str(SHARED / "genes"))
    else:
        python = str(side.absolute())
        environment.pop("PYTHONPATH", None)
    words = [python, "-W", "ignore", Path(__file__).resolve(), *arguments]
    with tempfile.TemporaryDirectory() as empty:
        subprocess.run(list(map(str, words)), check=True, env=environment, cwd=empty)


def difference(old, new):
    """Get the largest absolute difference of two arrays, and the scale of the old one."""
    if old.shape != new.shape:
        return np.inf, 1.0
    if old.dtype.kind not in "fiu":
        return float((old != new).sum()), 0.0  # the number of other labels
    if (np.isnan(old) != np.isnan(new)).any():
        return np.inf, 1.0
    known = np.isfinite(old)
    largest = np.abs(old - new)[known].max(initial=0.0)
    return float(largest), max(1.0, float(np.abs(old[known]).max(initial=0.0)))


def compare(old, new, tolerance):
    """Print the largest differences of each slide and model; return whether all are tolerated."""
    failed = False
    for path in sorted(old.glob("*.npz")):
        slide, model = path.stem.split("~")
        before, after = np.load(path), np.load(new / path.name)
        rows = {}
        for what in sorted(set(before.files) | set(after.files)):
            if what not in before.files or what not in after.files:
                print(f"{slide}, {model}: only one side has {what}", file=sys.stderr)
                failed = True
            elif what.startswith("neighborhoods"):
                n = int((before[what] != after[what]).any(axis=1).sum())
                rows[what] = f"{n} of {len(before[what])} spots"
            else:
                group = what if what == "perturb z" else what.split()[0]
                largest, scale = difference(before[what], after[what])
                tolerated = tolerance * scale * (1000 if group == "perturb z" else 1)
                failed |= largest > tolerated
                rows[group] = max(rows.get(group, 0.0), largest)
        cells = [f"{k} {v if isinstance(v, str) else f'{v:.1e}'}" for k, v in rows.items()]
        print(f"| {slide} | {model} | {'; '.join(cells)} |", flush=True)
    return not failed


def main():
    if sys.argv[1] == "--save":
        return save_random(Path(sys.argv[2]))
    if sys.argv[1] == "--side":
        models, folder, out = map(Path, sys.argv[2:5])
        return run_side(models, folder, out, sys.argv[5:])
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("old", type=Path, help="checkout, or Python of an environment")
    parser.add_argument("new", type=Path, help="checkout, or Python of an environment")
    parser.add_argument("--tolerance", type=float, default=1e-6)
    parser.add_argument("--slides", nargs="+", default=SLIDES, metavar="NAME")
    options = parser.parse_args()
    from _common import require_data

    require_data()
    with tempfile.TemporaryDirectory() as scratch:
        models = Path(scratch) / "published.safetensors"
        start(options.old, "--save", models)
        sides = Path(scratch) / "old", Path(scratch) / "new"
        for side, out in zip((options.old, options.new), sides, strict=True):
            out.mkdir()
            start(side, "--side", models, SHARED / "slides", out, *options.slides)
        sys.exit(0 if compare(*sides, options.tolerance) else 1)


if __name__ == "__main__":
    main()
