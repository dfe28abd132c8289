"""How the error falls with the number of patients, and of kinds of slides, that are trained on.

    python benchmarks/learning_curve.py train DATA [--draws 3] [--spots 30000] [--set …]
    python benchmarks/learning_curve.py score DATA
    python benchmarks/learning_curve.py plot [--out docs/img/learning_curve.png]

DATA is the folder of scripts/default_model.py, whose recipe is used. Five sections, each of another
organ or technology, are tested on; their patients are never trained on. A draw is a random order of
the other patients, whose first 1, 3, 6, 10, 15 are trained on; four patients of one kind (breast on
legacy arrays) and four of as many kinds are drawn as well. All models see about as many spots. What
is done already is not done again: models and scores are kept in benchmarks/out/learning_curve.

The error, without adapting to the slide, is the share that a model leaves of the error above
counting noise of the best method that needs no training. Two curves are fitted to its means over
the sections of a draw: a + b log(n), and a + b n^-c, which ends at a floor. Bands: 90 % of 1,000
bootstrap samples of sections and of draws.
"""

import argparse
import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd

from _common import HERE, OUT, machine

FOLDER = OUT / "learning_curve"
SIZES = (1, 3, 6, 10, 15)
TESTED = {
    "her2st_A1": "breast, legacy array",
    "breast_cytassist_eevee": "breast, CytAssist FFPE",
    "dlpfc_151673": "cortex, Visium",
    "hcc_HCC1": "liver, Visium",
    "prostate_10x_normal": "prostate, Visium FFPE",
}
KIND = ("breast", "Spatial Transcriptomics 100um")
N_OF_KINDS = 4
MOST_EPOCHS = 20
ATLAS = 383
"""Patients of the 421 human Visium slides of HEST-1k, if those without a name are one each."""
N_SAMPLES = 1000
"""Bootstrap samples."""
TASK = "random genes of the center"
LABELS = {"patients": "any", "one": "one kind", "many": "many kinds"}


def default_model():
    """Import scripts/default_model.py."""
    path = HERE.parent / "scripts" / "default_model.py"
    spec = importlib.util.spec_from_file_location("default_model", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def choices(slides, n_draws):
    """Draw the patients of each model: name → patients, in the order of the draw."""
    tested = set(slides.loc[slides["slide"].isin(TESTED), "patient"])
    first = slides[~slides["patient"].isin(tested)].drop_duplicates("patient")
    patients = first["patient"].to_numpy()
    is_kind = (first[["organ", "technology"]] == KIND).all(axis=1).to_numpy()
    kinds = [group["patient"].to_numpy() for _, group in first.groupby(["organ", "technology"])]
    drawn = {}
    for draw in range(n_draws):
        rng = np.random.default_rng([0, draw])
        order = rng.permutation(patients).tolist()
        drawn |= {f"patients_{n}_{draw}": order[:n] for n in SIZES if n <= len(patients)}
        drawn[f"one_{N_OF_KINDS}_{draw}"] = rng.permutation(patients[is_kind])[:N_OF_KINDS].tolist()
        among = rng.permutation(len(kinds))[:N_OF_KINDS]
        drawn[f"many_{N_OF_KINDS}_{draw}"] = [str(rng.choice(kinds[i])) for i in among]
    return drawn


def train(data, n_draws, n_spots, changes):
    """Train the models that are not there."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    slides = pd.read_csv(data / "slides.csv")
    script = default_model()
    largest = slides["spots"].clip(upper=script.SPOTS).groupby(slides["patient"]).sum()
    for name, patients in choices(slides, n_draws).items():
        path = FOLDER / f"{name}.safetensors"
        if path.exists():
            continue
        epochs = int(np.clip(round(n_spots / largest[patients].sum()), 1, MOST_EPOCHS))
        print(f"{name}: {', '.join(patients)}; {epochs} epochs", flush=True)
        others = sorted(set(slides["patient"]) - set(patients))
        seed = int(name.rpartition("_")[2])
        model = script.train(data, seed, [f"train.max_epochs={epochs}", *changes], others)
        model.save(path, half=True)


def score(data):
    """Score all models on the sections that are not scored."""
    import sagefm
    from sagefm.evaluate import Cohort, recovery
    from sagefm.pp.pseudonyms import is_among

    slides = pd.read_csv(data / "slides.csv")
    tested = set(slides.loc[slides["slide"].isin(TESTED), "patient"])
    models = {p.stem: sagefm.SageFM.load(p) for p in sorted(FOLDER.glob("*.safetensors"))}
    for name, model in models.items():
        seen = [patient for patient in tested if is_among(patient, model.provenance["patients"])]
        assert not seen, name
    path = FOLDER / "scores.csv"
    done = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=["section", "model"])
    for section in TESTED:
        left = models.keys() - set(done.loc[done["section"] == section, "model"])
        if not left:
            continue
        cohort = Cohort({section: data / "slides" / f"{section}.h5ad"})
        named = {name: models[name] for name in sorted(left)}
        found = recovery(cohort, named, adapt=False, progress=print)
        scores = found.details["recovery"].query("task == @TASK").set_index("method")
        share = scores["share_left"]
        rows = [
            {"model": name, "section": section, "mse": scores.at[name, "mse"], "share": share[name]}
            for name in sorted(left)
        ]
        done = pd.concat([done, pd.DataFrame(rows)], ignore_index=True)
        done.to_csv(path, index=False)
    (FOLDER / "machine.txt").write_text(machine())


def read(path):
    """Read the scores: models (curve, n, draw) × sections."""
    table = pd.read_csv(path)
    parts = table["model"].str.extract(r"(?P<curve>\w+)_(?P<n>\d+)_(?P<draw>\d+)")
    table = table.join(parts.astype({"n": int, "draw": int}))
    return table.pivot(index=["curve", "n", "draw"], columns="section", values="share")


def fit_log(n, y):
    """Fit a + b log(n); give a function."""
    b, a = np.polyfit(np.log(n), y, 1)
    return lambda x: a + b * np.log(x)


def fit_floor(n, y):
    """Fit a + b n^-c by least squares, a and b not negative; give a function."""
    powers = np.geomspace(0.05, 3, 60)
    fall = n ** -powers[:, None]
    mean = fall.mean(axis=1)
    b = ((fall - mean[:, None]) @ (y - y.mean())) / ((fall - mean[:, None]) ** 2).sum(axis=1)
    b = b.clip(min=0)
    a = y.mean() - b * mean
    b = np.where(a < 0, fall @ y / (fall**2).sum(axis=1), b)
    a = a.clip(min=0)
    best = np.argmin(((y - a[:, None] - b[:, None] * fall) ** 2).sum(axis=1))
    return lambda x: a[best] + b[best] * x ** -powers[best]


FITS = {"a + b log n": fit_log, "a + b n$^{-c}$ (floor)": fit_floor}


def bootstrap(shares, seed=0):
    """Draw sections and draws with replacement; yield the mean share of each model of a sample."""
    rng = np.random.default_rng(seed)
    draws = shares.index.get_level_values("draw")
    of_draw = {draw: np.flatnonzero(draws == draw) for draw in np.unique(draws)}
    for _ in range(N_SAMPLES):
        rows = np.concatenate([of_draw[d] for d in rng.choice(list(of_draw), len(of_draw))])
        columns = rng.integers(shares.shape[1], size=shares.shape[1])
        yield shares.iloc[rows, columns].mean(axis=1)


def curves(shares, x):
    """Fit both curves, with bands: name → their values at x and the ends of a 90 % interval."""
    n = shares.index.get_level_values("n").to_numpy(dtype=float)
    found = {name: [fit(n, shares.mean(axis=1).to_numpy())(x)] for name, fit in FITS.items()}
    samples = {name: [] for name in FITS}
    for sample in bootstrap(shares):
        n = sample.index.get_level_values("n").to_numpy(dtype=float)
        for name, fit in FITS.items():
            samples[name].append(fit(n, sample.to_numpy())(x))
    for name, drawn in samples.items():
        found[name] += list(np.quantile(drawn, [0.05, 0.95], axis=0))
    return found


def of_kinds(shares):
    """Average over models of one kind and of many; and the difference, with a 90 % interval."""
    pair = shares.loc[["one", "many"]]
    means = pair.mean(axis=1).groupby("curve").mean()
    differences = [
        sample.groupby("curve").mean().loc["one"] - sample.groupby("curve").mean().loc["many"]
        for sample in bootstrap(pair)
    ]
    return means, np.quantile(differences, [0.05, 0.95])


def caption(shares, x, found):
    """Say what the figure shows, and where the two fits differ."""
    at = {name: [float(np.interp(ATLAS, x, values)) for values in found[name]] for name in found}
    (log, floor), n_draws = at.values(), shares.index.get_level_values("draw").nunique()
    means, (low, high) = of_kinds(shares)
    kept = shares.loc["patients"].mean(axis=1).groupby("n").mean()
    return (
        f"Share of the error above counting noise of the best training-free method that a model "
        f"leaves, by the number of patients trained on: mean of {shares.shape[1]} sections of "
        f"patients, organs and technologies kept apart ({n_draws} draws: small points; mean: large "
        f"points), and two fits with 90 % bootstrap bands over sections and draws. From "
        f"{kept.index[0]} to {kept.index[-1]} patients it falls from {kept.iloc[0]:.2f} to "
        f"{kept.iloc[-1]:.2f}. Beyond that the fits are guesses, and differ: at the 421 slides of "
        f"HEST-1k (at most {ATLAS} patients) the logarithm has {log[0]:.2f} ({log[1]:.2f} to "
        f"{log[2]:.2f}), the curve with a floor {floor[0]:.2f} ({floor[1]:.2f} to {floor[2]:.2f}). "
        f"Right: {N_OF_KINDS} patients of one kind leave {means['one']:.2f}, of as many kinds "
        f"{means['many']:.2f} (black; gray: each section; difference "
        f"{means['one'] - means['many']:+.2f}, {low:+.2f} to {high:+.2f})."
    )


def plot(out):
    """Draw the figure, and print its caption."""
    import matplotlib.pyplot as plt

    from sagefm._colors import colors
    from sagefm.pl._style import COLUMN, journal

    shares = read(FOLDER / "scores.csv")
    x = np.geomspace(1, ATLAS, 120)
    own = shares.loc["patients"]
    found = curves(own, x)
    with journal():
        figure, (left, right) = plt.subplots(
            1,
            2,
            figsize=(2 * COLUMN, 2.7),
            layout="constrained",
            width_ratios=[2.2, 1],
            sharey=True,
        )
        draw_curve(left, own, x, found, colors(3))
        draw_kinds(right, shares)
        figure.savefig(out, dpi=200)
    plt.close(figure)
    print(caption(shares, x, found))


def draw_curve(ax, own, x, found, shades):
    """Draw draws, means, fits and bands."""
    seen = own.index.get_level_values("n").max()
    for (name, (values, low, high)), shade in zip(found.items(), shades[1:], strict=True):
        ax.fill_between(x, low, high, color=shade, alpha=0.15, lw=0)
        ax.plot(x[x <= seen], values[x <= seen], color=shade, lw=1.2, label=name)
        ax.plot(x[x >= seen], values[x >= seen], color=shade, lw=1.2, ls="--")
    by_draw = own.mean(axis=1)
    ax.plot(by_draw.index.get_level_values("n"), by_draw, ".", color=shades[0], ms=3, alpha=0.6)
    means = by_draw.groupby("n").mean()
    ax.plot(means.index, means, "o", color=shades[0], ms=5, label="mean of the draws")
    ax.axvline(ATLAS, color="gray", lw=0.7, ls=":")
    ax.annotate("HEST-1k", (ATLAS, 1), xycoords=("data", "axes fraction"), ha="right", va="top",
                xytext=(-3, 0), textcoords="offset points", color="gray", fontsize=7)  # fmt: skip
    ticks = [*means.index, 50, 150, ATLAS]
    ax.set_xscale("log")
    ax.set_xticks(ticks, ticks, minor=False)
    ax.set_xticks([], minor=True)
    ax.set(xlabel="patients trained on", ylabel="share left (lower is better)")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize=7)


def draw_kinds(ax, shares):
    """Draw each section after training on one kind and on many."""
    pair = shares.loc[["one", "many"]].groupby("curve").mean().loc[["one", "many"]]
    low, high = ax.get_ylim()
    place = -np.inf
    for section in pair.loc["many"].sort_values().index:
        ax.plot([0, 1], pair[section], "o-", ms=3, lw=0.8, color="gray")
        place = max(pair.at["many", section], place + 0.05 * (high - low))  # not on each other
        ax.annotate(TESTED[section], (1.1, place), va="center", fontsize=6)
    ax.plot([0, 1], pair.mean(axis=1), "o-", ms=5, lw=1.6, color="black")
    labels = [f"{N_OF_KINDS} patients\nof {LABELS[name]}" for name in pair.index]
    ax.set_xticks([0, 1], labels)
    ax.set_xlim(-0.3, 2.6)
    ax.tick_params(left=False)
    ax.spines[["top", "right", "left"]].set_visible(False)


def main(words=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("train", "score"):
        verbs.add_parser(verb).add_argument("data", type=Path)
    trained = verbs.choices["train"]
    trained.add_argument("--draws", type=int, default=3)
    trained.add_argument("--spots", type=int, default=30_000, help="that each model sees, about")
    trained.add_argument("--set", action="append", default=[], metavar="ENTRY=VALUE")
    verbs.add_parser("plot").add_argument("--out", type=Path, default=FOLDER / "learning_curve.png")
    given = parser.parse_args(words)
    if given.verb == "train":
        train(given.data, given.draws, given.spots, given.set)
    elif given.verb == "score":
        score(given.data)
    else:
        plot(given.out)


if __name__ == "__main__":
    main()
