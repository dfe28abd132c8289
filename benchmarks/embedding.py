"""Choose the vectors that the context network exports as its embedding, on labeled slides.

    python benchmarks/embedding.py [MODEL]

Labeled slides of training and validation patients, never of a test patient. Domains: adjusted Rand
index of a tied Gaussian mixture on 20 principal components, mean over five seeds and the slides of
a tissue. Labels: balanced accuracy and accuracy on the breast patient left out, logistic regression
on all columns as they are (PCA: on 50 components of the other patients), for the best of three
penalties. Every candidate is the mean over the 15 spots of a neighborhood unless said otherwise.
"""

import sys

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, adjusted_rand_score, balanced_accuracy_score
from sklearn.mixture import GaussianMixture
from sklearn.preprocessing import StandardScaler

import sagefm
from _common import SHARED, report, require_data

BREAST = tuple(f"her2st_{patient}1" for patient in "BCDEF")
TISSUES = {
    "cortex": ("dlpfc_151510",), "breast": BREAST, "pancreas": ("pdac_A_ST1",),
    "heart": tuple(f"heartdev_{i}" for i in (3, 4, 5, 6)),
}  # fmt: skip
SEEDS = range(5)
PENALTIES = (0.001, 0.01, 0.1)


@torch.inference_mode()
def candidates(model, slide):
    """Name → spots × columns."""
    prepared = model.prepare(slide)
    neighbors, network = prepared.neighbors, model.network
    reading = model.encode(prepared)
    residuals = reading._slide.residuals
    z = network.embed(reading.centers(neighbors).pooled)
    counts = np.expm1(prepared.log1p.toarray())
    depth = np.maximum(counts.sum(axis=1, keepdims=True), 1)
    expression = np.log1p(counts / depth * np.median(depth))

    def around(values):
        return np.asarray(values)[neighbors].mean(axis=1)

    return {
        "PCA, one spot": expression,
        "PCA": around(expression),
        "z": around(z),
        "residuals": around(residuals),
        "residuals of length 1": around(F.normalize(residuals, dim=1)),
        "keys": around(network.keys(residuals)),
        "keys and half of residuals of length 1 (shipped)": reading.embed(neighbors).numpy(),
    }


def rand(embedding, labels):
    parts = PCA(20, random_state=0).fit_transform(embedding)
    known, n = labels != "", len(set(labels) - {""})
    mixtures = (GaussianMixture(n, covariance_type="tied", random_state=s) for s in SEEDS)
    found = [mixture.fit_predict(parts[known]) for mixture in mixtures]
    return np.mean([adjusted_rand_score(labels[known], one) for one in found])


def left_out(embeddings, labels):
    """Balanced accuracy and accuracy, by the penalty that is best on average."""
    scores = []
    for out in BREAST:
        rest = [name for name in BREAST if name != out]
        x = np.vstack([embeddings[name][labels[name] != ""] for name in rest])
        y = np.concatenate([labels[name][labels[name] != ""] for name in rest])
        known = labels[out] != ""
        new = embeddings[out][known]
        if x.shape[1] > 1000:
            pca = PCA(50, random_state=0).fit(x)
            x, new = pca.transform(x), pca.transform(new)
        scaler = StandardScaler().fit(x)
        row = []
        for penalty in PENALTIES:
            probe = LogisticRegression(C=penalty, class_weight="balanced", max_iter=500)
            guess = probe.fit(scaler.transform(x), y).predict(scaler.transform(new))
            truth = labels[out][known]
            row.append((balanced_accuracy_score(truth, guess), accuracy_score(truth, guess)))
        scores.append(row)
    mean = np.mean(scores, axis=0)
    return mean[mean[:, 0].argmax()]


def main():
    require_data()
    model = sagefm.SageFM.load(sys.argv[1] if len(sys.argv) > 1 else "default")
    found, labels = {}, {}
    for name in (name for names in TISSUES.values() for name in names):
        slide = sagefm.read(SHARED / "slides" / f"{name}.h5ad")
        labels[name] = slide.obs["label"].astype(object).fillna("").to_numpy(dtype=str)
        found[name] = candidates(model, slide)
    lines = [f"| embedding | {' | '.join(TISSUES)} | labels: balanced, accuracy |"]
    lines.append("|---" * (len(TISSUES) + 2) + "|")
    for candidate in found[BREAST[0]]:
        own = {name: each[candidate] for name, each in found.items()}
        cells = [
            f"{np.mean([rand(own[name], labels[name]) for name in names]):.3f}"
            for names in TISSUES.values()
        ]
        balanced, accuracy = left_out(own, labels)
        lines.append(f"| {candidate} | {' | '.join(cells)} | {balanced:.2f}, {accuracy:.2f} |")
    report("embedding", lines)


if __name__ == "__main__":
    main()
