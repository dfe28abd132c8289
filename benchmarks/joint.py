"""Embeddings, domains and pairs with a second modality, beside those without.

    python benchmarks/joint.py domains [--seeds N] [--model FILE]     simulated CITE-Visium
    python benchmarks/joint.py pairs [--seeds N] [--model FILE]       planted and null pairs
    python benchmarks/joint.py panels DATA --folds FOLDER [--seeds N] labeled sections, genes split
    python benchmarks/joint.py real DATA --folds FOLDER               genera, and Xenium cells

FOLDER holds models that have not seen a patient, as `benchmarks/folds.py train` writes them.

`domains`: slides of :func:`sagefm.pp.simulate` with 30 proteins. `follow`: its own proteins, which
follow their genes, and drift where no transcript shows it. `tell`: proteins that differ between
domains, but not between two pairs of them; `noise`: that hardly differ. Adjusted Rand index with
the planted domains.

`panels`: a tenth of the counts of labeled sections, and the 30 most variable genes with all of
theirs as second modality.

Embeddings are clustered by the Gaussian mixture of :func:`sagefm.tl.domains`, 20 components each:
expression (`X`), second modality (`S`), `joint` (:func:`sagefm.tl.embed`), and by hand: `PCA of
both`; `weighted`, where each modality counts by how much its neighborhood explains of the other, of
what the other explains of itself; and weighted nearest neighbors (Hao et al. 2021), whose graph is
clustered by Leiden as is that of `joint` (`joint, Leiden`). Domains: the consensus of expression
(`D`), of the second modality (`D S`) and of both: each view joined with its like (`D joined`), the
views of each (`D 10 views`), and all of these, which is the default (`D both`). Simulated seeds
start at 10: methods were chosen on others, and on the labeled sections.

`pairs`: for each coupling strength, how many planted receptors have p < 0.05 and q < 0.05 in the
evidence of mRNA (given components, with the same null) and of the protein, and how often the set
has p < 0.05; strength 0 is the null.
"""

import argparse
import sys
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from scipy.spatial import cKDTree
from sklearn.metrics import adjusted_rand_score
from sklearn.neighbors import NearestNeighbors

import sagefm
from _common import OUT, report
from sagefm.pp.modalities import modality
from sagefm.pp.neighborhood import average, nearest
from sagefm.stats.components import scores
from sagefm.stats.consensus import consensus
from sagefm.stats.mixture import mixture_clusters
from sagefm.stats.resampling import benjamini_hochberg
from sagefm.tl._large_views import views_of
from sagefm.tl._second_modality import SecondViews
from sagefm.tl._tissue import Tissue
from sagefm.tl._views import CONSENSUS
from sagefm.tl.clustering import _leiden
from sagefm.tl.clustering._consensus import cluster_views
from sagefm.tl.clustering._search import joined
from sagefm.tl.perturbation._coexpression import COMPONENTS, Coexpression
from sagefm.tl.perturbation._cross_modality import across
from sagefm.tl.perturbation._evidence import set_row
from sagefm.tl.perturbation._plan import PerturbationPlan
from sagefm.tl.perturbation._significance import NullScores
from sagefm.tl.perturbation._slides import prepare_slides

N_DOMAINS, N_PROTEINS, N_COMPONENTS, N_STARTS = 6, 30, 20, 10
SIMULATED = {
    "follow, 300 counts": ("follow", 300), "follow, 3,000 counts": ("follow", 3000),
    "tell, 150 counts": ("tell", 150), "tell, 500 counts": ("tell", 500),
    "noise, 1,000 counts": ("noise", 1000),
}  # fmt: skip
LABELED = {"heartdev_1": 4, "her2st_B1": 4, "pdac_A_ST1": 2, "dlpfc_151510": 0}
"""Section → fold whose model has not seen it; so for the slides with a second modality."""
MEASURED = {"breast_cytassist_eevee": 0, "crc_16": 3}
GENERA, CELLS = "crc_16_microbiome_genus", "breast_xenium_same_region_as_eevee"


def simulated(kind, depth, seed, n_spots=800):
    slide = sagefm.pp.simulate(
        n_spots, n_domains=N_DOMAINS, n_proteins=N_PROTEINS, depth=depth, seed=seed
    )
    slide.obs["label"] = slide.obs["domain"]
    if kind == "follow":
        return slide
    biology, rng = np.random.default_rng(5), np.random.default_rng([seed, 77])
    log = biology.normal(0, 1, N_PROTEINS) + biology.normal(
        0, 0.35 if kind == "tell" else 0.05, (N_DOMAINS, N_PROTEINS)
    )
    log[1], log[3] = log[0], log[2]
    rate = np.exp(log)[slide.obs["domain"].cat.codes]
    near = nearest(slide.obsm["spatial"], 7)
    rate = 0.7 * rate + 0.3 * (average(near) @ rate)  # spillover
    rate = 0.7 * rate / rate.sum(axis=1).mean()
    rate += 0.3 * rate.mean(axis=0)  # background
    depths = rng.lognormal(0, 0.3, len(rate)) * (300 if kind == "tell" else 60)
    counts = rng.poisson(rng.gamma(10, rate * depths[:, None] / 10))
    names = [f"protein {i}" for i in range(N_PROTEINS)]
    del slide.obsm["antibody_capture"]
    slide.obsm["protein"] = pd.DataFrame(counts.astype(float), slide.obs_names, names)
    return slide


def explained(values, by):
    """Fraction of the variance that is explained linearly, without what chance explains."""
    values, by = values - values.mean(axis=0), by - by.mean(axis=0)
    fitted = np.linalg.qr(by)[0]
    r2 = ((fitted.T @ values) ** 2).sum() / (values**2).sum()
    n, k = by.shape
    return max(1 - (1 - r2) * (n - 1) / (n - k - 1), 1e-3)


def scaled(values):
    return values / np.sqrt(values.var(axis=0).sum())


def weighted_neighbors(both, n_domains, seed, k=20):
    """Weighted nearest neighbors of two modalities, and communities of their graph."""
    both = [one / np.linalg.norm(one, axis=1, keepdims=True) for one in both]
    found = [NearestNeighbors(n_neighbors=k + 1).fit(one).kneighbors(one) for one in both]
    near = [index[:, 1:] for _, index in found]
    ratios, kernels = [], []
    for one, (distance, _), own, other in zip(both, found, near, near[::-1], strict=True):
        first, width = distance[:, 1], np.maximum(distance[:, -1] - distance[:, 1], 1e-6)
        within, across_ = (
            np.exp(-np.maximum(np.linalg.norm(one - one[at].mean(axis=1), axis=1) - first, 0)
                   / width)
            for at in (own, other)
        )  # fmt: skip
        ratios.append(within / (across_ + 1e-4))
        apart = np.sqrt(np.maximum(2 - 2 * one @ one.T, 0))
        kernels.append(np.exp(-np.maximum(apart - first[:, None], 0) / width[:, None]))
    weights = np.exp(np.clip(ratios, 0, 200))
    weights /= weights.sum(axis=0)
    similar = sum(w[:, None] * kernel for w, kernel in zip(weights, kernels, strict=True))
    np.fill_diagonal(similar, -1)
    joined = np.argsort(-similar, axis=1)[:, :k]
    edges = {(min(i, j), max(i, j)) for i, row in enumerate(joined.tolist()) for j in row}
    kept, _leiden._find_edges = _leiden._find_edges, lambda space: np.array(sorted(edges))
    try:
        return _leiden.leiden(both[0], n_domains, seed)
    finally:
        _leiden._find_edges = kept


def spaces(slide, name):
    """Coordinates of an embedded slide by each method."""
    first = scores(slide.obsm["X_sagefm"], N_COMPONENTS)
    second = slide.obsm[f"X_sagefm_{name}"].astype(float)
    values = modality(slide, name).normalized().fillna(0).to_numpy()
    own = scores(slide.obsm["X_sagefm_spot"], 40)
    weights = (
        explained(values, first) / explained(values, second),
        explained(own, second) / explained(own, first),
    )
    tissue = Tissue.of([slide], np.zeros(slide.n_obs, int))
    pca = np.empty((slide.n_obs, 40))
    pca[tissue.order] = views_of(tissue, centered=False)("pca15")
    blocks = {
        "X": [first], "S": [second], "joint": [slide.obsm["X_sagefm_joint"]],
        "weighted": [w * scaled(z) for w, z in zip(weights, (first, second), strict=True)],
        "PCA of both": [scaled(pca), scaled(second)],
    }  # fmt: skip
    return {key: scores(np.hstack(some), N_COMPONENTS) for key, some in blocks.items()}


def domains_of(slide, name, n_domains, seed):
    """Find domains by every method: method → a label per spot."""
    found = {}
    points = spaces(slide, name)
    for key, space in points.items():
        found[key] = mixture_clusters(space, n_domains, seed, N_STARTS)
    found["joint, Leiden"] = _leiden.leiden(points["joint"], n_domains, seed)
    found["WNN, Leiden"] = weighted_neighbors((points["X"], points["S"]), n_domains, seed)
    tissue = Tissue.of([slide], np.zeros(slide.n_obs, int))
    own = views_of(tissue, centered=False)
    values = modality(slide, name).normalized().to_numpy(dtype=float)
    other = SecondViews(tissue, values, centered=False)
    first = {view: own(view) for view in CONSENSUS}
    second = {view: other(view) for view in CONSENSUS}
    both = {view: joined(values, second[view]) for view, values in first.items()}
    numbers = range(n_domains, n_domains + 4)
    clusters = [
        [cluster_views({view: values}, numbers, seed, N_STARTS) for view, values in views.items()]
        for views in (first, second, both)
    ]
    for key, some in {
        "D": (0,), "D S": (1,), "D joined": (2,), "D 10 views": (0, 1), "D both": (0, 1, 2)
    }.items():  # fmt: skip
        labels = np.empty(slide.n_obs, int)
        chosen = [codes for at in some for view in clusters[at] for codes in view]
        labels[tissue.order] = consensus(chosen, n_domains).labels
        found[key] = labels
    return found


def agreements(slide, name, seed, model):
    sagefm.tl.embed(slide, model, with_=name)
    known = slide.obs["label"].notna().to_numpy()
    truth = slide.obs["label"][known].astype(str)
    found = domains_of(slide, name, truth.nunique(), seed)
    return {key: adjusted_rand_score(truth, labels[known]) for key, labels in found.items()}


def domains(model, n_seeds):
    rows = []
    for seed in range(10, 10 + n_seeds):
        for title, (kind, depth) in SIMULATED.items():
            slide = simulated(kind, depth, seed)
            rows.append({"slides": title, "seed": seed, **agreements(slide, "protein", 0, model)})
            print(rows[-1], flush=True)
    return pd.DataFrame(rows)


def panels(data, folds, n_seeds):
    """Split the genes of labeled sections: a panel with all counts, a tenth of the others."""
    rows = []
    for name, fold in LABELED.items():
        model = sagefm.SageFM.load(folds / f"patients_{fold}_seed0.safetensors")
        for seed in range(n_seeds):
            slide = sagefm.read(data / "slides" / f"{name}.h5ad")
            log = slide.X.log1p()
            variance = log.power(2).mean(axis=0).A1 - log.mean(axis=0).A1 ** 2
            panel = np.sort(np.argsort(-variance)[:N_PROTEINS])
            table = pd.DataFrame(
                slide.X[:, panel].toarray(), slide.obs_names, slide.var_names[panel]
            )
            slide = slide[:, np.setdiff1d(np.arange(slide.n_vars), panel)].copy()
            slide.X.data = np.random.default_rng(seed).binomial(
                slide.X.data.astype(int), 0.1).astype(np.float32)  # fmt: skip
            slide.X.eliminate_zeros()
            slide.obsm["panel"] = table
            rows.append({"slides": name, "seed": seed, **agreements(slide, "panel", 0, model)})
            print(rows[-1], flush=True)
    return pd.DataFrame(rows)


def real(data, folds, name):
    """Compare domains of a slide without labels between modalities, and with half of the counts."""
    model = sagefm.SageFM.load(folds / f"patients_{MEASURED[name]}_seed0.safetensors")
    slide = sagefm.read(data / "slides" / f"{name}.h5ad")
    if name == "crc_16":
        table = ad.read_h5ad(data / "extras" / f"{GENERA}.h5ad")[slide.obs_names]
        second = "genera"
        slide.obsm[second] = table.to_df()
    else:
        cells = ad.read_h5ad(data / "extras" / f"{CELLS}.h5ad")
        second = "xenium"
        pitch = np.median(cKDTree(slide.obsm["spatial"]).query(slide.obsm["spatial"], 2)[0][:, 1])
        distance, spot = cKDTree(slide.obsm["spatial"]).query(cells.obsm["spatial"])
        near = distance <= pitch / 2
        pooled = cells.to_df()[near].groupby(spot[near]).sum()
        pooled = pooled.reindex(range(slide.n_obs))  # NaN: no cell was measured there
        slide.obsm[second] = pooled.set_axis(slide.obs_names)
    sagefm.tl.embed(slide, model, with_=second)
    rows = []
    for n_domains in (4, 7):
        sagefm.tl.domains(slide, n_domains, with_=second)
        table = slide.uns["sagefm"]["domains"]["modalities"].assign(slide=name, n_domains=n_domains)
        rows.append(table)
        print(table, flush=True)
    return pd.concat(rows)


def pairs(model, n_seeds):
    rows = []
    for strength in (0.0, 0.25, 0.5, 1.0):
        for depth in (500, 3000):
            for seed in range(n_seeds):
                slide = sagefm.pp.simulate(
                    800, n_couplings=16, n_proteins=80, coupling_strength=strength, depth=depth,
                    seed=seed, biology_seed=seed,
                )  # fmt: skip
                rows += evidence(slide, model, strength, depth, seed)
                print(rows[-1], flush=True)
    table = pd.DataFrame(rows)
    table.to_csv(OUT / "joint_pairs_all.csv", index=False)
    return table.groupby(["strength", "depth", "evidence"], sort=False).mean().drop(columns="seed")


def evidence(slide, model, strength, depth, seed):
    """Count what is found on a slide by each evidence."""
    truth = slide.uns["simulation"]["couplings"]
    planted = truth[truth["strength"] != 0] if strength else truth
    [ready] = slides = prepare_slides(slide, model, None, layer=None, slide_key=None)
    rows = []
    for kind, chosen in (("planted", planted), ("null", truth[truth["strength"] == 0])):
        if chosen.empty or (kind == "planted" and not strength):
            continue
        targets = modality(slide, "protein").gene_of().values()
        chosen = chosen[chosen["target"].isin(targets)]
        given = chosen[["ligand", "target"]].assign(sign=np.nan, complex="")
        plan = PerturbationPlan.of(given, model, slides, 50)
        forward, own = plan.forward, Coexpression.of(ready.prepared)
        crossed = across(forward, [own], [modality(slide, "protein")], model.vocabulary)
        mrna = own.correlate(forward.raised, forward.columns)[COMPONENTS]
        matched = forward.matched[np.searchsorted(forward.sources, forward.source)]
        at = np.searchsorted(forward.targets, forward.target)
        null = mrna[np.searchsorted(forward.raised, matched), at[:, None]]
        p = NullScores.of(forward.of_pairs(mrna), null).p()
        found = {
            "mRNA": (p, set_row(forward, mrna, ready.facts.detected, seed)["p"]),
            "protein": (
                crossed.table()["p_protein"],
                crossed.sets(ready.facts.detected, seed)["p"].iloc[-1],
            ),
        }
        for name, (own_p, set_p) in found.items():
            rows.append({
                "strength": strength, "depth": depth, "seed": seed,
                "evidence": f"{kind}: {name}", "pairs": len(own_p),
                "p < 0.05": np.nanmean(own_p < 0.05),
                "q < 0.05": np.nanmean(benjamini_hochberg(own_p) < 0.05),
                "set p < 0.05": float(set_p < 0.05),
            })  # fmt: skip
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("domains", "panels", "real", "pairs"))
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--model", default="default")
    parser.add_argument("--folds", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    given = parser.parse_args()
    is_real = given.what in ("panels", "real")
    if is_real and (given.data is None or given.folds is None):
        sys.exit(f"{given.what}: name the folder of the data, and that of the folds")
    OUT.mkdir(exist_ok=True)
    title = f"joint_{given.what}"
    if given.what == "real":
        found = [real(given.data, given.folds, name) for name in MEASURED]
        table = pd.concat(found).set_index(["slide", "n_domains", "modality"])
    elif given.what == "pairs":
        table = pairs(sagefm.SageFM.load(given.model), given.seeds)
    else:
        found = (
            panels(given.data, given.folds, given.seeds)
            if given.what == "panels"
            else domains(sagefm.SageFM.load(given.model), given.seeds)
        )
        found.to_csv(OUT / f"{title}_all.csv", index=False)
        by_slide = found.drop(columns="seed").groupby("slides", sort=False)
        table = pd.concat([by_slide.mean(), found.iloc[:, 2:].mean().to_frame("mean").T]).T
        table["sd over seeds"] = by_slide.std().mean()
    table.to_csv(OUT / f"{title}.csv")
    report(title, table.round(3).to_string().splitlines())


if __name__ == "__main__":
    main()
