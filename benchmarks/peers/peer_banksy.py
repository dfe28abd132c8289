"""BANKSY, as in its notebook on cortex sections (`DLPFC_concatenate_multisample.ipynb`).

https://github.com/prabhakarlab/Banksy_py: counts normalized to the median library, highly
variable genes, `k_geom = 6 (no AGF)`, `lambda_list = [0.2]`, `max_m = 0`, `pca_dims = [20]`. Its
2,000 genes come from Seurat's `vst`, here from scanpy's version of it. `run_mclust_partition`
clusters into a given number of domains (`Mclust(…, modelNames="EEE")`, seed 1234); `refine_once`
smooths the labels over the 6 nearest spots. Leiden does not take a number of domains and is not
run.
"""

import numpy as np
import scanpy as sc
from banksy.embed_banksy import generate_banksy_matrix
from banksy.initialize_banksy import initialize_banksy
from banksy_utils.refine_clusters import refine_once
from banksy_utils.umap_pca import pca_umap
from kit import mclust, run

DECAY, LAMBDA, NEIGHBORS = "scaled_gaussian", 0.2, 6
KEYS = ("x", "y", "spatial")


def banksy(slide, n_domains):
    np.random.seed(0)  # noqa: NPY002 - the package draws from the global generator
    sc.pp.filter_genes(slide, min_counts=1)
    n_genes = min(2000, slide.n_vars)
    sc.pp.highly_variable_genes(slide, n_top_genes=n_genes, flavor="seurat_v3")
    sc.pp.normalize_total(slide)
    slide = slide[:, slide.var["highly_variable"].to_numpy()].copy()
    found = initialize_banksy(
        slide, KEYS, NEIGHBORS, nbr_weight_decay=DECAY, max_m=0, plt_edge_hist=False,
        plt_nbr_weights=False, plt_theta=False,
    )  # fmt: skip
    found, _ = generate_banksy_matrix(slide, found, [LAMBDA], max_m=0, verbose=False)
    pca_umap(found, pca_dims=[20], plt_remaining_var=False)
    augmented = found[DECAY][LAMBDA]["adata"]
    embedding = augmented.obsm["reduced_pc_20"]
    labels, name = mclust(embedding, n_domains, seed=1234)
    augmented.obsm["spatial"] = slide.obsm["spatial"]
    refined, *_ = refine_once(augmented, list(labels), None, KEYS, num_neigh=NEIGHBORS)
    return embedding, {name: labels, f"{name}, refined": refined}


if __name__ == "__main__":
    run(banksy)
