"""Annotate held-out patients: `sagefm annotate` compared with other features and one classifier.

    python benchmarks/bench_annotate.py [MODEL...]

Six labeled breast cancer sections of six patients (her2st A1 to F1), one patient held out at a
time. Features, components, classifier, temperature and the threshold of `unknown` are learned from
the five others, the last two by holding out each of these in turn. Then the cost: annotating a
slide of 3,639 spots, and learning from 2,000 labeled spots. MODEL: model files that were trained
without patients A and B. Predictions are kept in benchmarks/out/annotate.csv, and those that are
there already are not computed again.
"""

import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

import sagefm
from _common import OUT, SHARED, report
from sagefm.evaluate.baselines.embeddings import competitors
from sagefm.evaluate.metrics import classes
from sagefm.pp.labels import labels_of
from sagefm.stats import resampling as statistics
from sagefm.tl.annotation._annotate import MIN_SPOTS
from sagefm.tl.annotation._annotator import Settings
from sagefm.tl.annotation._features import label_codes, section_features
from sagefm.tl.annotation._fit import fit_annotator

NAMES = [f"her2st_{letter}1" for letter in "ABCDEF"]
METRICS = ["accuracy", "balanced_accuracy", "macro_f1", "ece", "labeled", "wrong"]
RATE = 0.05
KEPT = OUT / "annotate.csv"
BASELINES = ("raw HVG", "PCA", "PCA of 7-spot means", "MOFA")


def views_of(slides, model, features="expression"):
    how = {"patient_key": "patient", "layer": None, "slide_key": None}
    return list(section_features(slides, model, features, **how))


def holding(views, embeddings):
    """Let views show other columns, as they come."""
    return [
        replace(view, values=np.asarray(z, np.float64), measured=np.ones(z.shape[1], bool))
        for view, z in zip(views, embeddings, strict=True)
    ]


def methods(slides, models):
    """Name → function of the fold (which slides are learned from) that gives settings and views."""
    first = next(iter(models.values()))
    plain = views_of(slides, first)
    found = {}
    for one in competitors({}, seed=0):
        if one.name in BASELINES:
            for head in ("linear", "mlp") if one.name != "raw HVG" else ("linear",):
                found[f"{one.name}, {head}"] = lambda known, one=one, head=head: (
                    Settings("label", head, "embedding"),
                    holding(plain, one.of(list(slides.values()), known)),
                    first,
                )
    for head in ("linear", "mlp"):
        found[f"expression, {head}"] = lambda known, head=head: (
            Settings("label", head, "expression"), plain, first,
        )  # fmt: skip
    for name, model in models.items():
        embedded = views_of(slides, model, "embedding")
        combined = views_of(slides, model, "combined")
        for head in ("linear", "mlp"):
            found[f"embedding of {name}, {head}"] = lambda known, v=embedded, m=model, head=head: (
                Settings("label", head, "embedding"), v, m,
            )  # fmt: skip
            found[f"sagefm annotate, {name}, {head}"] = (
                lambda known, v=combined, m=model, head=head: (Settings("label", head), v, m)
            )
    return found


def held_out(method, slides, patient, truth):
    """Learn from the other patients, label this one: its spots, and what was said of them."""
    known = [name != patient for name in slides]
    settings, views, model = method(known)
    labels = pd.concat([truth[name] for name in slides if name != patient]).dropna()
    sizes = labels.value_counts()
    names = sorted(sizes.index[sizes >= MIN_SPOTS])
    training = [view for view, kept in zip(views, known, strict=True) if kept]
    codes = [label_codes(truth[name], names) for name in slides if name != patient]
    learned = fit_annotator(training, codes, names, model, settings, None, {})
    view = views[known.index(False)]
    there = truth[patient].notna().to_numpy()
    reference = learned.reference
    p = learned.probabilities(view)[there]
    novelty = reference.novelty(reference.distances(view))[there]
    return pd.DataFrame(
        {
            "truth": truth[patient].dropna().to_numpy(),
            "predicted": learned.labels(p, novelty, None),
            "confidence": p.max(axis=1),
            "bold": learned.labels(p, novelty, RATE) != "unknown",
        }
    )


def score(spots):
    right = (spots["truth"] == spots["predicted"]).to_numpy()
    bold = spots["bold"].to_numpy()
    by_class = classes.per_class(spots["truth"].astype(str), spots["predicted"].astype(str))
    return {
        "accuracy": right.mean(),
        "balanced_accuracy": by_class["recall"].mean(),
        "macro_f1": by_class["f1"].mean(),
        "ece": classes.calibration_error(right, spots["confidence"]),
        "labeled": bold.mean(),
        "wrong": (~right[bold]).mean() if bold.any() else np.nan,
    }


def quality(models):
    """Score every method: a row per method, means over patients and all spots together."""
    slides = {name: sagefm.read(SHARED / "slides" / f"{name}.h5ad") for name in NAMES}
    truth = {name: labels_of(slide, "label") for name, slide in slides.items()}
    patients = pd.Series({name: slide.obs["patient"].iloc[0] for name, slide in slides.items()})
    done = pd.read_csv(KEPT) if KEPT.exists() else pd.DataFrame({"method": []})
    for name, method in methods(slides, models).items():
        if name in set(done["method"]):
            continue
        parts = [
            held_out(method, slides, slide, truth).assign(method=name, slide=slide)
            for slide in slides
        ]
        done = pd.concat([done, *parts], ignore_index=True)
        done.to_csv(KEPT, index=False)
        print(name, done["method"].nunique(), file=sys.stderr, flush=True)
    rows = [
        {"method": method, "slide": slide, **score(spots)}
        for (method, slide), spots in done.groupby(["method", "slide"], sort=False)
    ]
    table = statistics.summarize(pd.DataFrame(rows), METRICS, patients).set_index("method")
    together = {method: score(spots) for method, spots in done.groupby("method", sort=False)}
    for metric in ("ece", "labeled", "wrong"):
        table[f"all_{metric}"] = pd.Series({name: own[metric] for name, own in together.items()})
    return table


def cost(models):
    """Seconds to annotate 3,639 spots, and to learn from 2,000 labeled ones."""
    known = {name: sagefm.read(SHARED / "slides" / f"{name}.h5ad") for name in NAMES}
    labels = pd.concat({name: labels_of(slide, "label") for name, slide in known.items()}).dropna()
    kept = labels.sample(min(2000, len(labels)), random_state=0).index
    for name, slide in known.items():
        own = set(kept[kept.get_level_values(0) == name].get_level_values(1))
        slide.obs["label"] = slide.obs["label"].astype(object).where(slide.obs_names.isin(own))
    new = sagefm.read(SHARED / "slides" / "dlpfc_151673.h5ad")
    rows = []
    for name, model in models.items():
        for method in ("linear", "mlp"):
            start = time.perf_counter()
            learned = sagefm.tl.learn_annotator(known, model, method=method)
            middle = time.perf_counter()
            sagefm.tl.annotate(learned, new.copy(), model)
            seconds = (middle - start, time.perf_counter() - middle)
            rows.append({"model": name, "method": method, "spots": len(kept), "learn_s": seconds[0],
                         "annotate_3639_spots_s": seconds[1]})  # fmt: skip
            print(rows[-1], file=sys.stderr, flush=True)
    return pd.DataFrame(rows)


if __name__ == "__main__":
    loaded = {Path(path).stem: sagefm.SageFM.load(path) for path in sys.argv[1:]}
    OUT.mkdir(exist_ok=True)
    summary = quality(loaded)
    report("annotate", summary.round(3).T.to_string().splitlines())
    report("annotate_cost", cost(loaded).round(1).to_string(index=False).splitlines())
