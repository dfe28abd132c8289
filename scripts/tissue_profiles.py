"""Learn from labeled slides what `sagefm.pp.simulate_tissue` simulates from.

    python scripts/tissue_profiles.py DATA [-o src/sagefm/pp/tissues]

DATA is a folder with slides/NAME.h5ad. Only slides of the training patients are read. What is
written are means over all spots of a region, and what the default model has learned: no count of a
spot. For each tissue, a file of arrays:

profiles
    Regions × genes: log of the expected fraction of the counts. Counts are fitted by a patient's
    profile times a fold of the region, by iterative scaling; folds that rest on few counts are
    shrunk to 1.
loadings
    Factors × genes: log fold of a gene per standard deviation of a factor, the first components of
    what the default model predicts within regions: the co-expression that it has learned.
smoothness
    Of each factor, the correlation of a spot with the mean of its neighbors.
dispersion
    Of each gene, beyond counting noise and factors: variance = mean + dispersion × mean².
richness, depth_sd, patient_sd
    Log fold of the library size by region, its standard deviation within regions, and that of the
    profile of a gene between patients.

The layers of the second cortex section are mapped from the first. The regions of the breast section
are six domains, named after a marker, and the ducts, where basal keratins are dense: nobody has
drawn either. How far patients differ in the breast is measured on five other patients.
"""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData
from sklearn.utils.extmath import randomized_svd

import sagefm
from sagefm._files import replacing
from sagefm.pp.counts import coordinates
from sagefm.stats.poisson import rate_of

CORTEX = ("dlpfc_151510", "dlpfc2_Br8325_ant")
BREAST = "breastDCIS_MSTI"
PATIENTS = ("her2st_B1", "her2st_C1", "her2st_D1", "her2st_E1", "her2st_F1")
LAYERS = {
    "Layer1": "L1", "Layer2": "L2", "Layer3": "L3", "Layer4": "L4", "Layer5": "L5", "Layer6": "L6",
    "WM": "white matter",
}  # fmt: skip
MARKERS = {
    "COL11A1": "invasive carcinoma", "APOC1": "tumor margin", "EPCAM": "carcinoma in situ",
    "MGP": "stroma", "CCL19": "lymphoid infiltrate",
}  # fmt: skip
"""The domain that expresses a gene most gets the name; what is left is carcinoma in situ too."""
BASAL = ["KRT5", "KRT14", "KRT15", "KRT17"]
DUCTS = 0.6
"""Mean counts of basal keratins over nine spots that ducts have."""
FACTORS = 6
FRACTION = 3e-6
"""Genes with a smaller fraction of the counts in all regions are left out."""
PRIOR = 3.0
"""Counts at the mean of the patient that are added to those of a region."""


def main(words: Sequence[str] | None = None) -> None:
    """Write the files of both tissues."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, metavar="DATA", help="folder of slides/")
    parser.add_argument("-o", "--out", type=Path, default=Path("src/sagefm/pp/tissues"))
    given = parser.parse_args(words)
    model = sagefm.SageFM.load("default")
    read = partial(_read, given.data)
    cortex = _cortex(read, model)
    # The breast section is no Visium slide: how library sizes vary is taken from the cortex.
    breast = {**_breast(read, model), "depth_sd": cortex["depth_sd"]}
    for tissue, learned in (("cortex", cortex), ("breast", breast)):
        path = given.out / f"{tissue}.npz"
        with replacing(path) as beside, beside.open("wb") as file:
            np.savez_compressed(file, **learned)
        print(f"{path}: {len(learned['genes']):,} genes, {path.stat().st_size / 1e3:.0f} kB")
        for name in ("regions", "richness", "smoothness", "depth_sd", "patient_sd"):
            print(f"  {name}: {learned[name]}")


def _read(data: Path, name: str) -> AnnData:
    return sagefm.read(data / "slides" / f"{name}.h5ad")


def _cortex(read, model: sagefm.SageFM) -> dict[str, object]:
    """Learn the layers of the cortex, and how far two donors differ."""
    first, second = map(read, CORTEX)
    sagefm.tl.map(second, [first], model, key="label")
    second.obs["label"] = second.obs["sagefm_mapped"]
    for slide in (first, second):
        slide.obs["label"] = slide.obs["label"].astype(str).map(LAYERS)
    return _learn([_labeled(first), _labeled(second)], list(LAYERS.values()), model)


def _breast(read, model: sagefm.SageFM) -> dict[str, object]:
    """Learn the regions of a breast section, and how far five patients differ."""
    slide = read(BREAST)
    sagefm.tl.domains(slide, len(MARKERS) + 1, seed=0)
    depth = np.asarray(slide.X.sum(axis=1))
    means = pd.DataFrame(
        slide[:, list(MARKERS)].X.toarray() / depth, index=slide.obs_names, columns=list(MARKERS)
    ).groupby(slide.obs["sagefm_domain"], observed=True).mean()  # fmt: skip
    names = {means[gene].idxmax(): name for gene, name in MARKERS.items()}
    assert len(names) == len(MARKERS), "two markers point to one domain"
    labels = slide.obs["sagefm_domain"].astype(str).map(names).fillna("carcinoma in situ")
    basal = np.asarray(slide[:, BASAL].X.sum(axis=1)).ravel()
    near = sagefm.pp.nearest(coordinates(slide), 9)
    slide.obs["label"] = labels.where(basal[near].mean(axis=1) <= DUCTS, "ducts")
    print(slide.obs["label"].value_counts().to_string())
    learned = _learn([slide], [*MARKERS.values(), "ducts"], model)
    others = [_labeled(read(name)) for name in PATIENTS]
    classes = sorted(set().union(*(other.obs["label"] for other in others)))
    return {**learned, "patient_sd": round(_fit_profiles(others, classes)[-1], 3)}


def _labeled(slide: AnnData) -> AnnData:
    return slide[slide.obs["label"].notna().to_numpy()].copy()


def _learn(slides: list[AnnData], regions: list[str], model: sagefm.SageFM) -> dict[str, object]:
    """Learn all arrays of a tissue."""
    genes, base, folds, patient_sd = _fit_profiles(slides, regions)
    profiles = base * folds
    kept = (profiles.max(axis=0) > FRACTION) & np.isin(genes, model.vocabulary.symbols)
    genes, profiles = genes[kept], profiles[:, kept]
    profiles /= profiles.sum(axis=1, keepdims=True)
    loadings, smoothness = _learn_factors(slides, genes, profiles, regions, model)
    return {
        "genes": genes.astype("U"),
        "regions": np.array(regions),
        "profiles": np.log(profiles).astype(np.float16),
        "loadings": loadings.astype(np.float16),
        "smoothness": smoothness.round(3),
        "dispersion": _dispersion(slides, genes, profiles, regions, loadings).astype(np.float16),
        "patient_sd": round(patient_sd, 3),
        **_depths(slides, regions),
    }


def _fit_profiles(slides, regions):
    """Fit counts by the profile of the patient times a fold of the region."""
    genes = np.array(sorted(set().union(*(slide.var_names for slide in slides))))
    counts = np.zeros((len(slides), len(regions), len(genes)))
    for p, slide in enumerate(slides):
        columns = np.searchsorted(genes, slide.var_names)
        for r, region in enumerate(regions):
            inside = (slide.obs["label"] == region).to_numpy()
            counts[p, r, columns] = np.asarray(slide.X[inside].sum(axis=0)).ravel()
    measured = np.stack([np.isin(genes, slide.var_names) for slide in slides])
    totals = counts.sum(axis=2)
    folds = np.ones(counts.shape[1:])
    for _ in range(50):
        expected = np.einsum("pr,rg->pg", totals, folds)
        patients = np.where(measured, (counts.sum(axis=1) + 0.5) / (expected + 0.5), 0.0)
        folds = (counts.sum(axis=0) + PRIOR) / (np.einsum("pr,pg->rg", totals, patients) + PRIOR)
    everywhere = measured.all(axis=0)
    patients /= patients[:, everywhere].sum(axis=1, keepdims=True)
    logs = np.where(measured, np.log(np.maximum(patients, 1e-12)), 0.0)
    base = np.exp(logs.sum(axis=0) / measured.sum(axis=0))
    well = everywhere & (counts.sum(axis=1).min(axis=0) >= 100)
    noise = (1 / counts.sum(axis=1)[:, well]).mean()
    if len(slides) == 1:
        return genes, base, folds, np.nan
    spread = float(np.sqrt(max(logs[:, well].var(axis=0, ddof=1).mean() - noise, 0.0)))
    return genes, base, folds, spread


def _learn_factors(slides, genes, profiles, regions, model):
    """Find what varies together within regions, by what the model predicts there."""
    weights = np.sqrt(profiles.mean(axis=0))
    parts = []
    for slide in slides:
        known = np.isin(genes, slide.var_names)
        logs = np.zeros((slide.n_obs, len(genes)), dtype=np.float32)
        rates = rate_of(model.predict(slide, genes=list(genes[known])))
        depth = np.asarray(slide.X.sum(axis=1)).ravel()
        logs[:, known] = np.log(np.maximum(rates / depth[:, None], 1e-7))
        for region in regions:
            inside = (slide.obs["label"] == region).to_numpy()
            if inside.any():
                logs[inside] -= logs[inside].mean(axis=0)
        logs[:, ~known] = 0.0
        parts.append(logs)
    everything = np.vstack(parts)
    scores, *_ = randomized_svd(everything * weights, FACTORS, random_state=0)
    scores *= np.sqrt(len(scores))
    loadings = scores.T @ everything / len(scores)
    ends = np.cumsum([len(logs) for logs in parts])[:-1]
    each = zip(slides, np.split(scores, ends), strict=True)
    return loadings, np.mean([_smoothness(*pair) for pair in each], axis=0)


def _smoothness(slide: AnnData, scores: np.ndarray) -> np.ndarray:
    neighbors = sagefm.pp.nearest(coordinates(slide), 7)[:, 1:]
    means = scores[neighbors].mean(axis=1)
    return np.array([np.corrcoef(a, b)[0, 1] for a, b in zip(scores.T, means.T, strict=True)])


def _dispersion(slides, genes, profiles, regions, loadings):
    """Estimate the variance beyond counting noise that no factor explains."""
    above, squares = np.zeros(len(genes)), np.zeros(len(genes))
    for slide in slides:
        columns = np.flatnonzero(np.isin(genes, slide.var_names))
        x = slide[:, genes[columns]].X.toarray()
        for region in regions:
            inside = (slide.obs["label"] == region).to_numpy()
            if inside.sum() < 20:
                continue
            rows = x[inside]
            means = rows.sum(axis=1, keepdims=True) * (rows.sum(axis=0) / rows.sum())
            above[columns] += ((rows - means) ** 2 - means).sum(axis=0)
            squares[columns] += (means**2).sum(axis=0)
    usual = max(np.median((above / squares)[squares > 200]), 0.02)
    total = (above + 30 * usual) / (squares + 30)  # genes of few counts have the usual one
    return np.clip(total - (loadings**2).sum(axis=0), 0.01, 2.0)


def _depths(slides: list[AnnData], regions: list[str]) -> dict[str, object]:
    logs = pd.concat(
        [
            pd.DataFrame({"log": np.log(np.asarray(slide.X.sum(axis=1)).ravel() + 1),
                          "region": slide.obs["label"].to_numpy(), "slide": number})
            for number, slide in enumerate(slides)
        ]
    )  # fmt: skip
    logs["log"] -= logs.groupby("slide")["log"].transform("median")
    richness = logs.groupby("region")["log"].median()[regions].to_numpy()
    within = logs["log"] - logs.groupby(["slide", "region"])["log"].transform("median")
    spread = float(np.subtract(*np.quantile(within, [0.84, 0.16])) / 2)
    return {"richness": (richness - richness.mean()).round(3), "depth_sd": round(spread, 3)}


if __name__ == "__main__":
    main()
