"""Measure how well a recipe recovers masked genes of patients that it was not trained on.

    python benchmarks/folds.py train DATA --out FOLDER --kind patients|kinds --seed S
        [--set ENTRY=VALUE ...] [--only FOLD]
    python benchmarks/folds.py score DATA --out FOLDER --kind patients|kinds --seed S
        [--sections NAME ...] [--no-adapt] [--random] [--model FILE]
    python benchmarks/folds.py summary FOLDER

DATA is the folder of scripts/default_model.py, and each model is trained by that script on the
slides of all patients that a fold does not leave out.

- ``patients``: five folds, each patient is left out once. The patients of an organ, and within it
  those of a technology, are dealt to the folds in turn. Of an organ with one patient the model has
  seen nothing: for these the folds are folds by organ too, several such organs at a time.
- ``kinds``: what several patients share is left out as a whole: breast, brain, legacy arrays.

``train`` writes FOLDER/KIND_FOLD_seedS.safetensors, unless it is there. ``score`` predicts 30 % of
the measured genes of at most 1,500 spots of each section, the same for all models, and writes a row
per method to FOLDER/sections.csv and per gene to FOLDER/genes.csv as soon as a section is done;
what is there already is skipped. ``share_left`` is the error above counting noise, as a fraction of
that of the best method that learns from no other slide, as in the scorecard. With ``--model``, one
model predicts all sections. ``summary`` prints the tables again, and the spread over seeds.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

import sagefm
from _common import HERE, Peak, machine, memory
from sagefm._errors import InputError
from sagefm.evaluate.baselines.masked import MaskedSpots, PanelSlide
from sagefm.evaluate.baselines.training_free import NEIGHBOR_PROFILE, training_free
from sagefm.evaluate.protocols.excess import Excess
from sagefm.evaluate.protocols.masks import random_masks
from sagefm.stats.poisson import log1p_variance

N_FOLDS = 5
SPOTS = 1500
BLOCK = 300
"""Spots whose predictions are in memory together."""
SEED = 0
"""Of spots and masks: the same whatever the seed of the training."""
GENES = (
    "HLA-A", "HLA-DRA", "KRT5", "KRT19", "GFAP", "VEGFA", "MT-CO1", "MGP", "MALAT1", "IGKC",
)  # fmt: skip
KEY = ["kind", "fold", "seed", "section", "method"]


def folds(kind, slides):
    """Fold → the patients that are left out."""
    if kind == "kinds":
        rows = {
            "breast": slides["organ"] == "breast",
            "brain": slides["organ"].str.startswith("brain"),
            "legacy": slides["technology"].str.startswith("Spatial Transcriptomics"),
        }
        return {name: sorted(set(slides["patient"][chosen])) for name, chosen in rows.items()}
    patients = slides.drop_duplicates("patient")
    frequent = -patients.groupby("organ")["patient"].transform("size")
    dealt = patients.assign(frequent=frequent).sort_values(
        ["frequent", "organ", "technology", "patient"]
    )["patient"]
    return {str(fold): sorted(dealt[fold::N_FOLDS]) for fold in range(N_FOLDS)}


def path_of(given, fold):
    return given.out / f"{given.kind}_{fold}_seed{given.seed}.safetensors"


def train(given, slides):
    """Train a model per fold."""
    sys.path.insert(0, str(HERE.parent / "scripts"))
    import default_model

    left_out = folds(given.kind, slides)
    if given.only is not None and given.only not in left_out:
        raise InputError(f"--only {given.only}: choose one of {', '.join(left_out)}")
    for fold, patients in left_out.items():
        path = path_of(given, fold)
        if path.exists() or given.only not in (None, fold):
            continue
        print(f"{path}: without {', '.join(patients)}", flush=True)
        start = time.perf_counter()
        model = default_model.train(given.data, given.seed, given.set, leave_out=patients)
        model.save(path, half=True)
        print(f"{(time.perf_counter() - start) / 60:.1f} minutes", flush=True)


def score(given, slides):
    """Score each section with the model of each fold that leaves its patient out."""
    if unknown := set(given.sections or ()) - set(slides["slide"]):
        raise InputError(f"--sections: slides.csv has no {', '.join(sorted(unknown))}")
    methods = ["model", *["random"] * given.random]
    if given.adapt:
        methods += [f"{method}, adapted" for method in methods]
    left_out = folds(given.kind, slides)
    if given.model:
        given.kind, left_out = Path(given.model).stem, {"none": list(slides["patient"])}
    for fold, patients in left_out.items():
        own = slides[slides["patient"].isin(patients)]
        done = finished(given.out / "sections.csv", given, fold)
        todo = [
            (row, [method for method in methods if (row.slide, method) not in done])
            for row in own.itertuples()
            if given.sections is None or row.slide in given.sections
        ]
        todo = [(row, missing) for row, missing in todo if missing]
        path = given.model or path_of(given, fold)
        if todo and not given.model and not path.exists():
            print(f"{path}: is missing; run train, and score again")
            continue
        model = sagefm.SageFM.load(path) if todo else None
        for row, missing in todo:
            facts = {
                "kind": given.kind, "fold": fold, "seed": given.seed, "section": row.slide,
                "patient": row.patient, "organ": row.organ.split(" (")[0],
                "technology": row.technology,
            }  # fmt: skip
            slide = sagefm.read(given.data / "slides" / f"{row.slide}.h5ad")
            sections, genes = score_section(slide, model, missing, given.seed)
            append(given.out / "genes.csv", [facts | line for line in genes])
            append(given.out / "sections.csv", [facts | line for line in sections])
            for line in sections:
                print(
                    f"{row.slide}, {line['method']}: {line['share_left']:.3f}, "
                    f"{line['seconds']:.1f} s, {line['peak_mb']:.0f} MB",
                    flush=True,
                )
    print_tables(given.out)


def score_section(slide, model, methods, seed):
    """Predict masked genes of a section; rows of the two tables."""
    aligned = model.prepare(slide)
    whole = masked_spots(PanelSlide.of_aligned(slide, aligned))
    errors, noise = errors_of_baselines(whole)
    n = sum(whole.of(block).mask[:, whole.genes].sum(axis=0) for block in blocks(whole))
    mse = {method: squared.sum() / n.sum() for method, squared in errors.items()}
    excess = Excess.of(mse, {method: total / n.sum() for method, total in noise.items()})
    sections, genes = [], []
    for method in methods:
        used = model
        if method.startswith("random"):
            used = sagefm.SageFM.new(model.vocabulary, model.config, seed=seed)
        squared, cost = errors_of_model(used, aligned, whole, method.endswith("adapted"))
        error = squared.sum() / n.sum()
        sections.append(
            {
                "method": method, "spots": slide.n_obs, "genes": len(whole.genes),
                "best": excess.best, "mse_best": excess.mse, "floor": excess.floor, "mse": error,
                "share_left": excess.left(error), **cost,
            }
        )  # fmt: skip
        for at, gene in enumerate(whole.genes):
            if model.vocabulary[int(gene)] in GENES and n[at]:
                neighbors = errors[NEIGHBOR_PROFILE][at] / n[at]
                mean = {"mse": squared[at] / n[at], "mse_neighbors": neighbors}
                genes.append({"method": method, "gene": model.vocabulary[int(gene)], **mean})
    return sections, genes


def masked_spots(slide):
    """Draw spots, and 30 % of the measured genes of each."""
    rng = np.random.default_rng(SEED)
    n_spots, genes = len(slide.neighbors), np.flatnonzero(slide.measured)
    spots = np.sort(rng.choice(n_spots, min(SPOTS, n_spots), replace=False))
    return MaskedSpots(slide, "center", spots, random_masks(len(spots), len(genes), rng), genes)


def blocks(whole):
    return [slice(start, start + BLOCK) for start in range(0, len(whole.spots), BLOCK)]


def squared_errors(masked, log1p):
    """Sum squared errors over the masked entries of each gene."""
    off = (log1p - np.log1p(masked.counts[:, masked.genes])) * masked.mask[:, masked.genes]
    return np.square(off).sum(axis=0, dtype=np.float64)


def errors_of_baselines(whole):
    """Sum errors of each gene, and counting noise at its rates, over spots: both by method."""
    errors, noise = {}, {}
    baselines = training_free(whole, SEED)
    for block in blocks(whole):
        masked = whole.of(block)
        for baseline in baselines:
            log1p, rate = baseline(masked)
            name = baseline.name
            errors[name] = errors.get(name, 0) + squared_errors(masked, log1p)
            if rate is not None:
                entries = log1p_variance(rate)[masked.mask[:, masked.genes]]
                noise[name] = noise.get(name, 0) + entries.sum(dtype=np.float64)
    return errors, noise


def errors_of_model(model, aligned, whole, adapt):
    """Errors of each gene summed over spots; what the predictions take, memory of the process."""
    errors, spent = np.zeros(len(whole.genes)), np.zeros(2)
    with Peak():
        start = clocks()
        for block in model.predict_masked(
            aligned, [whole.genes], mask=lambda block: whole.of(block).mask, spots=whole.spots,
            block_size=BLOCK, adapt=adapt,
        ):  # fmt: skip
            spent += clocks() - start
            errors += squared_errors(whole.of(block.spots), block.log1p)
            start = clocks()
        peak = memory("VmHWM")
    return errors, {"seconds": spent[0], "cpu_seconds": spent[1], "peak_mb": peak}


def clocks():
    """Get seconds on the clock, and of all processors: other processes slow only the former."""
    return np.array([time.perf_counter(), time.process_time()])


def finished(path, given, fold):
    """Sections and methods that the table has."""
    if not path.exists():
        return set()
    table = pd.read_csv(path, dtype={"fold": str})
    own = table[
        (table["kind"] == given.kind) & (table["fold"] == fold) & (table["seed"] == given.seed)
    ]
    return set(zip(own["section"], own["method"], strict=True))


def append(path, rows):
    """Add rows to a table, in one write."""
    if not rows:  # none of the genes is measured
        return
    text = pd.DataFrame(rows).to_csv(index=False, header=not path.exists())
    with path.open("a") as file:
        file.write(text)


def print_tables(folder):
    """Print what the tables of a folder say, a part per kind of fold."""
    sections = pd.read_csv(folder / "sections.csv").drop_duplicates(KEY, keep="last")
    genes = pd.DataFrame(columns=[*KEY, "gene", "mse", "mse_neighbors"])
    if (folder / "genes.csv").exists():
        genes = pd.read_csv(folder / "genes.csv").drop_duplicates([*KEY, "gene"], keep="last")
    for kind, own in sections.groupby("kind", sort=False):
        print(f"\n## {kind}, seeds {', '.join(map(str, sorted(own['seed'].unique())))}\n")
        facts = own.groupby(["fold", "section"], sort=False)[
            ["organ", "technology", "spots", "best", "floor"]
        ].first()
        names = list(dict.fromkeys(own["method"]))
        for column, digits in (
            ("share_left", 3),
            ("seconds", 1),
            ("cpu_seconds", 1),
            ("peak_mb", 0),
        ):
            mean = own.groupby(["fold", "section", "method"], sort=False)[column].mean().unstack()
            for name in names:
                label = name if column == "share_left" else f"{name}, {column.replace('_', ' ')}"
                facts[label] = mean[name].map(f"{{:.{digits}f}}".format)
        print_table(facts.reset_index())
        print_table(over_seeds(own, "method", summary_of))
        for group in ("fold", "organ", "technology"):
            means = over_seeds(own, group, lambda one: one.groupby("method")["share_left"].mean())
            print_table(means[[group, *names]])
        better = genes[genes["kind"] == kind]
        better = better.assign(better=better["mse"] < better["mse_neighbors"])
        better = pd.concat([better, better.assign(gene="all")])
        counts = better.groupby(["gene", "method"], sort=False)["better"].agg(
            lambda values: f"{values.sum()} of {len(values)}"
        )
        if len(counts):
            print("Sections (of all seeds) with a smaller error than the neighbor profile:\n")
            print_table(counts.unstack()[names].reset_index())


def summary_of(sections):
    """Mean, median and worst over sections, and the mean over patients, of one method."""
    left = sections["share_left"]
    return pd.Series(
        {
            "sections": left.notna().sum(), "mean": left.mean(), "median": left.median(),
            "worst": left.max(), "below 1": (left < 1).sum(),
            "mean over patients": left.groupby(sections["patient"]).mean().mean(),
        }
    )  # fmt: skip


def over_seeds(sections, by, statistic):
    """Apply a statistic to each group and seed; the mean over seeds and its spread, as text."""
    rows = {}
    for name, group in sections.groupby(by, sort=False):
        seeds = pd.DataFrame([statistic(one) for _, one in group.groupby("seed")])
        rows[name] = {
            column: cell(values.dropna(), "sections" in column or "below" in column)
            for column, values in seeds.items()
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(by).reset_index()


def cell(values, whole):
    if not len(values):
        return ""
    spread = f" ± {values.std():.3f}" if len(values) > 1 else ""
    return f"{values.mean():.0f}" if whole else f"{values.mean():.3f}{spread}"


def print_table(table):
    rows = [list(table), ["---"] * table.shape[1], *table.to_numpy(dtype=object)]
    for row in rows:
        print("| " + " | ".join(f"{v:.4f}" if isinstance(v, float) else str(v) for v in row) + " |")
    print()


def parse(words):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("data", type=Path, metavar="DATA", help="folder of slides.csv and slides/")
    common.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    common.add_argument("--kind", choices=("patients", "kinds"), default="patients")
    common.add_argument("--seed", type=int, default=0)
    training = verbs.add_parser("train", parents=[common])
    training.add_argument("--set", action="append", default=[], metavar="ENTRY=VALUE")
    training.add_argument("--only", metavar="FOLD")
    scoring = verbs.add_parser("score", parents=[common])
    scoring.add_argument("--sections", nargs="+", metavar="NAME")
    scoring.add_argument("--adapt", action=argparse.BooleanOptionalAction, default=True)
    scoring.add_argument("--random", action="store_true", help="random weights too")
    scoring.add_argument("--model", metavar="FILE", help="for all sections; default: as shipped")
    verbs.add_parser("summary").add_argument("out", type=Path, metavar="FOLDER")
    return parser.parse_args(words)


def main(words=None):
    given = parse(words)
    if given.verb == "summary":
        print_tables(given.out)
    else:
        given.out.mkdir(parents=True, exist_ok=True)
        slides = pd.read_csv(given.data / "slides.csv")
        (train if given.verb == "train" else score)(given, slides)
    print(machine())


if __name__ == "__main__":
    try:
        main()
    except (InputError, OSError) as error:
        raise SystemExit(f"error: {error}") from error
