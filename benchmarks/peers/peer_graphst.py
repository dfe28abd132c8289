"""GraphST, as in its tutorial on cortex sections.

https://deepst-tutorials.readthedocs.io, "Tutorial 1: 10X Visium": `GraphST.GraphST(adata,
device=…)`, `model.train()` (600 epochs), then `clustering(adata, 7, radius=50, method="mclust",
refinement=True)`: 20 principal components of the embedding, `Mclust(…, modelNames="EEE")` with
seed 2020, and the most frequent label of the 50 nearest spots.
"""

import torch
from GraphST.GraphST import GraphST
from GraphST.utils import refine_label
from kit import mclust, run
from sklearn.decomposition import PCA


def graphst(slide, n_domains):
    slide = GraphST(slide, device=torch.device("cpu")).train()
    components = PCA(20, random_state=42).fit_transform(slide.obsm["emb"])
    labels, name = mclust(components, n_domains, seed=2020)
    slide.obs["domain"] = labels
    refined = refine_label(slide, radius=50, key="domain")
    return slide.obsm["emb"], {name: labels, f"{name}, refined": refined}


if __name__ == "__main__":
    run(graphst)
