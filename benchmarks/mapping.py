"""Carry labels from annotated sections to others: `sagefm.tl.map` beside nearest neighbors in PCA.

    python benchmarks/mapping.py

Cortical layers from a donor to another (both directions), regions of the embryonic heart (each
section from the other five), and regions of breast tumors (each patient from the other four). The
baseline: 15 nearest neighbors by 20 or 50 joint components of the 15-spot means of all genes in
common. Spots that are mapped to "unknown" count as wrong. Writes benchmarks/out/mapping.txt.
"""

import numpy as np
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score
from sklearn.neighbors import KNeighborsClassifier

import sagefm
from _common import SHARED, report, require_data
from sagefm.evaluate.baselines.pca import joint_pca
from sagefm.pp.labels import labels_of

HEART = [f"heartdev_{i}" for i in range(1, 7)]
BREAST = [f"her2st_{patient}1" for patient in "BCDEF"]
TASKS = {
    "151510 → 151673": [("dlpfc_151673", ["dlpfc_151510"])],
    "151510 → 151674": [("dlpfc_151674", ["dlpfc_151510"])],
    "151673 → 151510": [("dlpfc_151510", ["dlpfc_151673"])],
    "151674 → 151510": [("dlpfc_151510", ["dlpfc_151674"])],
    "151673/4 → 151510": [("dlpfc_151510", ["dlpfc_151673", "dlpfc_151674"])],
    "heart": [(name, [other for other in HEART if other != name]) for name in HEART],
    "breast": [(name, [other for other in BREAST if other != name]) for name in BREAST],
}


def read(name):
    return sagefm.read(SHARED / "slides" / f"{name}.h5ad")


def nearest(slides, n_components):
    """Map the first slide onto the others by 15 nearest neighbors in joint PCA."""
    points = joint_pca(
        slides, [True] * len(slides), n_components=n_components, n_genes=10**6, smooth=15
    )
    labels = np.concatenate([labels_of(slide, "label") for slide in slides[1:]])
    labeled = np.array([word is not None for word in labels])
    model = KNeighborsClassifier(15).fit(
        np.concatenate(points[1:])[labeled], labels[labeled].astype(str)
    )
    return model.predict(points[0])


def main():
    require_data()
    lines = [
        "| labels | method | accuracy | balanced | macro F1 | unknown |",
        "|---|---|---|---|---|---|",
    ]
    for task, pairs in TASKS.items():
        found = {}
        for target, references in pairs:
            slides = [read(name) for name in (target, *references)]
            truth = labels_of(slides[0], "label").to_numpy()
            labeled = np.array([word is not None for word in truth])
            sagefm.tl.map(slides[0], slides[1:])
            predicted = {"sagefm.tl.map": slides[0].obs["sagefm_mapped"].astype(str).to_numpy()}
            for n in (20, 50):
                predicted[f"nearest neighbors, PCA {n}"] = nearest(slides, n)
            for method, labels in predicted.items():
                pair = (truth[labeled].astype(str), np.asarray(labels)[labeled].astype(str))
                found.setdefault(method, []).append(pair)
        for method, results in found.items():
            truth, labels = (np.concatenate(part) for part in zip(*results, strict=True))
            balanced = np.mean([balanced_accuracy_score(*one) for one in results])
            f1 = f1_score(truth, labels, labels=np.unique(truth), average="macro")
            lines.append(
                f"| {task} | {method} | {accuracy_score(truth, labels):.3f} | {balanced:.3f} "
                f"| {f1:.3f} | {np.mean(labels == 'unknown'):.3f} |"
            )
            print(lines[-1], flush=True)
    report("mapping", lines)


if __name__ == "__main__":
    main()
