"""Carry labels to slides of other donors by the nearest neighbors in an embedding.

    python benchmarks/transfer.py FOLDER

FOLDER holds models of folds, `patients_0_seed0.safetensors` to `patients_4_seed0.safetensors`: see
`folds.py`. A spot gets the most frequent label among its 15 nearest spots on labeled slides; the
score is the accuracy, for breast also macro F1. Cortex: from one donor to the other, by fold 0,
which has not seen the first donor, and by fold 1, which has not seen the second. Heart: each of six
sections by the others, fold 4. Breast: each of five patients by the four others, by the fold that
has not seen the patient. All slides of a transfer are embedded together. Beside each model the same
network with random weights, and joint principal components of all genes that the slides share,
averaged over 7 and 15 spots, also centered per slide, and mixed by Harmony if harmonypy is there.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import accuracy_score, f1_score
from sklearn.neighbors import KNeighborsClassifier

import sagefm
from _common import OUT, SHARED, report, require_data
from sagefm.evaluate.baselines.pca import joint_pca

CORTEX = (("dlpfc_151510", "dlpfc_151673"), ("dlpfc_151510", "dlpfc_151674"))
HEARTS = tuple(f"heartdev_{i}" for i in range(1, 7))
FOLD_OF_PATIENT = {"B": 4, "C": 0, "D": 1, "E": 2, "F": 3}
BREASTS = tuple(f"her2st_{patient}1" for patient in FOLD_OF_PATIENT)
REFERENCES = (None, "slide", "shared", "model")
NEIGHBORS = 15


def transfers():
    """Name, fold, slides, and which of them get the labels of the others, one at a time."""
    for fold in (0, 1):
        for pair in CORTEX:
            yield f"cortex, fold {fold}", fold, pair, pair
    yield "heart", 4, HEARTS, HEARTS
    for slide, fold in zip(BREASTS, FOLD_OF_PATIENT.values(), strict=True):
        yield "breast", fold, BREASTS, (slide,)


def embeddings(slides, model):
    """Name → spots × width of each slide."""
    found = {}
    untrained = sagefm.SageFM.new(model.vocabulary, model.config, seed=0)
    for reference in REFERENCES:
        for name, one in (("trained", model), ("random weights", untrained)):
            if one is untrained and reference == "model":
                continue  # it has no profile
            sagefm.tl.embed(slides, one, reference=reference)

            found[f"{name}, {reference or 'chosen'}"] = [s.obsm["X_sagefm"] for s in slides]
            print(name, reference, slides[0].uns["sagefm"]["embed"]["reference"], flush=True)
    every = max(slide.n_vars for slide in slides)
    for k in (7, 15):
        name = f"joint PCA of {k}-spot means, all genes"
        components = joint_pca(slides, [True] * len(slides), n_genes=every, smooth=k)
        found[name] = components
        found[f"{name}, centered"] = [x - x.mean(axis=0) for x in components]
    mixed = harmony(components)
    return found | ({f"{name}, Harmony": mixed} if mixed else {})


def harmony(components):
    """Mix slides in their principal components, if harmonypy is installed."""
    try:
        import harmonypy
    except ImportError:
        return None
    sizes = [len(x) for x in components]
    batch = pd.DataFrame({"slide": np.repeat([str(i) for i in range(len(sizes))], sizes)})
    result = harmonypy.run_harmony(np.vstack(components), batch, "slide", random_state=0)
    mixed = np.asarray(result.Z_corr)
    mixed = mixed if len(mixed) == sum(sizes) else mixed.T
    return np.split(mixed, np.cumsum(sizes)[:-1])


def scores(embedding, labels, target):
    """Accuracy and macro F1 on one slide by the labels of the others."""
    known = [of_slide != "" for of_slide in labels]
    others = [i for i in range(len(labels)) if i != target]
    x = np.vstack([embedding[i][known[i]] for i in others])
    y = np.concatenate([labels[i][known[i]] for i in others])
    truth = labels[target][known[target]]
    guess = KNeighborsClassifier(NEIGHBORS).fit(x, y).predict(embedding[target][known[target]])
    classes = np.unique(truth)
    f1 = f1_score(truth, guess, average="macro", labels=classes, zero_division=0)
    return accuracy_score(truth, guess), f1


def main(folder):
    require_data()
    rows = []
    for kind, fold, names, targets in transfers():
        model = sagefm.SageFM.load(folder / f"patients_{fold}_seed0.safetensors")
        slides = [sagefm.read(SHARED / "slides" / f"{name}.h5ad") for name in names]
        labels = [s.obs["label"].astype(object).fillna("").to_numpy(dtype=str) for s in slides]
        for method, embedding in embeddings(slides, model).items():
            for target in targets:
                accuracy, f1 = scores(embedding, labels, names.index(target))
                [source] = set(names) - {target} if len(names) == 2 else ("others",)
                rows.append((kind, source, target, method, accuracy, f1))
        print(kind, names, flush=True)
    table = pd.DataFrame(rows, columns=["tissue", "source", "target", "method", "accuracy", "f1"])
    OUT.mkdir(exist_ok=True)
    table.to_csv(OUT / "transfer.csv", index=False)
    report("transfer", lines_of(table))


def lines_of(table):
    """Mean over the transfers of each column."""
    first, others = CORTEX[0][0], [pair[1] for pair in CORTEX]
    columns = {}
    for fold in (0, 1):
        cortex = table[table["tissue"] == f"cortex, fold {fold}"]
        to, back = cortex[cortex["target"].isin(others)], cortex[cortex["target"] == first]
        for arrow, part in (("to Br8100", to), ("from Br8100", back)):
            columns[f"cortex {arrow}, fold {fold}"] = part.groupby("method")["accuracy"].mean()
    for tissue in ("heart", "breast"):
        part = table[table["tissue"] == tissue].groupby("method")
        columns[f"{tissue}, accuracy"] = part["accuracy"].mean()
    columns["breast, macro F1"] = part["f1"].mean()
    wide = pd.DataFrame(columns).loc[table["method"].unique()]
    lines = [f"| embedding | {' | '.join(wide)} |", "|---" * (len(wide.columns) + 1) + "|"]
    for name, row in wide.iterrows():
        lines.append(f"| {name} | {' | '.join(f'{value:.3f}' for value in row)} |")
    return lines


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python benchmarks/transfer.py FOLDER")
    main(Path(sys.argv[1]))
