"""Choose the vectors that the context network exports as its embedding, on labeled slides.

    python benchmarks/embedding.py [MODEL ...]

Labeled slides of training and validation patients, never of a test patient. Beside each model the
same network with random weights, three seeds, and components of expression, which need no training.
Domains: adjusted Rand index of a tied Gaussian mixture (best of 20 starts) on 20 principal
components of all spots, mean over three seeds and the slides of a tissue; then the mean over all
slides with its standard deviation over the seeds. Labels: balanced accuracy and accuracy on the
breast patient left out, of logistic regression on all columns as they are (best of three
penalties) and of 15 nearest neighbors; components of a slide by itself cannot be compared with
those of another. A model may have been trained on these slides, which favors it.
"""

import sys

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, adjusted_rand_score, balanced_accuracy_score
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

import sagefm
from _common import SHARED, report, require_data
from sagefm.evaluate import pca
from sagefm.pp.counts import coordinates
from sagefm.pp.neighborhood import nearest

BREAST = tuple(f"her2st_{patient}1" for patient in "BCDEF")
TISSUES = {
    "cortex": ("dlpfc_151510",), "breast": BREAST, "pancreas": ("pdac_A_ST1",),
    "heart": tuple(f"heartdev_{i}" for i in range(1, 7)),
}  # fmt: skip
SLIDES = tuple(name for names in TISSUES.values() for name in names)
SEEDS, STARTS = range(3), 20
RANDOM_SEEDS = range(3)
PENALTIES = (0.001, 0.01, 0.1)


@torch.inference_mode()
def embeddings(model, slide):
    """Compute what the network could export: name → spots × columns."""
    prepared = model.prepare(slide)
    reading = model.encode(prepared)
    residuals = reading.residuals
    neighbors = nearest(coordinates(slide), 25, prepared.sections)

    def around(values, k=15):
        return values.numpy()[neighbors[:, :k]].mean(axis=1)

    return {
        "residuals": around(residuals),
        "residuals of length 1": around(F.normalize(residuals, dim=1)),
        "keys": around(model.network.keys(residuals)),
        "shipped: keys and half of residuals of length 1": model.embed(prepared),
        "shipped, 25 spots": around(model.network.embed(residuals), 25),
    }


def components(slide):
    """Compute components of all genes, which need no training: name → spots × columns."""
    found = {
        f"PCA of {k}-spot means, all genes": pca(slide, smooth=k, n_genes=slide.n_vars)
        for k in (1, 7, 15, 25)
    }
    neighbors = nearest(coordinates(slide), 25, np.zeros(slide.n_obs, dtype=np.int64))
    single = found.pop("PCA of 1-spot means, all genes")
    return found | {"25-spot means of PCA, all genes": single[:, :30][neighbors].mean(axis=1)}


def rand(embedding, labels):
    """Compute the adjusted Rand index for each seed."""
    parts = PCA(20, random_state=0).fit_transform(embedding)
    known, n = labels != "", len(set(labels) - {""})
    mixtures = (
        GaussianMixture(n, covariance_type="tied", n_init=STARTS, max_iter=300, random_state=seed)
        for seed in SEEDS
    )
    found = [mixture.fit_predict(parts) for mixture in mixtures]
    return [adjusted_rand_score(labels[known], one[known]) for one in found]


def left_out(embeddings, labels):
    """Balanced accuracy and accuracy, of the penalty that is best on average and of neighbors."""
    scores = []
    for out in BREAST:
        rest = [name for name in BREAST if name != out]
        x = np.vstack([embeddings[name][labels[name] != ""] for name in rest])
        y = np.concatenate([labels[name][labels[name] != ""] for name in rest])
        known = labels[out] != ""
        new, truth = embeddings[out][known], labels[out][known]
        scaler = StandardScaler().fit(x)
        probes = [
            LogisticRegression(C=penalty, class_weight="balanced", max_iter=500)
            for penalty in PENALTIES
        ]
        guesses = [p.fit(scaler.transform(x), y).predict(scaler.transform(new)) for p in probes]
        guesses.append(KNeighborsClassifier(15).fit(x, y).predict(new))
        scores.append(
            [(balanced_accuracy_score(truth, g), accuracy_score(truth, g)) for g in guesses]
        )
    *linear, neighbors = np.mean(scores, axis=0)
    return max(linear, key=lambda pair: pair[0]), neighbors


def main():
    require_data()
    models = {path: sagefm.SageFM.load(path) for path in sys.argv[1:] or ["default"]}
    first = next(iter(models.values()))
    for seed in RANDOM_SEEDS:
        untrained = sagefm.SageFM.new(first.vocabulary, first.config, seed=seed)
        models[f"random weights {seed}"] = untrained
    found, labels = {}, {}
    for name in SLIDES:
        slide = sagefm.read(SHARED / "slides" / f"{name}.h5ad")
        labels[name] = slide.obs["label"].astype(object).fillna("").to_numpy(dtype=str)
        found[name] = {("no training", kind): x for kind, x in components(slide).items()}
        for model in models:
            for kind, x in embeddings(models[model], slide).items():
                found[name][model, kind] = x
    columns = [*TISSUES, "all slides", "labels: linear", "labels: neighbors"]
    lines = [f"| weights | embedding | {' | '.join(columns)} |", "|---" * (len(columns) + 2) + "|"]
    for weights, kind in found[SLIDES[0]]:
        own = {name: each[weights, kind] for name, each in found.items()}
        scores = {name: rand(own[name], labels[name]) for name in SLIDES}
        cells = [f"{np.mean([scores[name] for name in names]):.3f}" for names in TISSUES.values()]
        by_seed = np.mean(list(scores.values()), axis=0)
        cells.append(f"{by_seed.mean():.3f} ({by_seed.std(ddof=1):.3f})")
        if weights == "no training":
            cells += ["", ""]
        else:
            cells += [f"{b:.2f}, {a:.2f}" for b, a in left_out(own, labels)]
        lines.append(f"| {weights} | {kind} | {' | '.join(cells)} |")
    report("embedding", lines)


if __name__ == "__main__":
    main()
