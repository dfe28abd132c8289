"""SpaGCN without histology, as in its tutorial (`tutorial/tutorial.md`).

https://github.com/jianhuupenn/SpaGCN: `calculate_adj_matrix(x=x_pixel, y=y_pixel,
histology=False)`, `prefilter_genes(min_cells=3)`, `prefilter_specialgenes`, library size and
log1p, `p = 0.5`, `search_l`, `search_res(…, start=0.7, step=0.1, tol=5e-3, lr=0.05,
max_epochs=20)`, seeds 100, `train(init="louvain", tol=5e-3, lr=0.05, max_epochs=200)`, then
`refine(shape="hexagon")`.
"""

import random

import numpy as np
import scanpy as sc
import SpaGCN
import torch
from kit import run

SEED = 100


def spagcn(slide, n_domains):
    x, y = slide.obsm["spatial"].T.tolist()
    SpaGCN.prefilter_genes(slide, min_cells=3)
    SpaGCN.prefilter_specialgenes(slide)
    sc.pp.normalize_total(slide)
    sc.pp.log1p(slide)
    slide.X = slide.X.toarray()  # the package calls `.A`, which scipy no longer has
    distances = SpaGCN.calculate_adj_matrix(x=x, y=y, histology=False)
    length = SpaGCN.search_l(0.5, distances, start=0.01, end=1000, tol=0.01, max_run=100)
    seeds = dict.fromkeys(("r_seed", "t_seed", "n_seed"), SEED)
    settings = {"tol": 5e-3, "lr": 0.05}
    resolution = SpaGCN.search_res(
        slide, distances, length, n_domains, start=0.7, step=0.1, max_epochs=20, **settings, **seeds
    )
    method = SpaGCN.SpaGCN()
    method.set_l(length)
    random.seed(SEED)
    torch.manual_seed(SEED)
    np.random.seed(SEED)  # noqa: NPY002 - the package draws from the global generator
    method.train(
        slide, distances, init_spa=True, init="louvain", res=resolution, max_epochs=200, **settings
    )
    labels, _ = method.predict()
    embedding, _ = method.model.predict(method.embed, method.adj_exp)
    names = slide.obs_names.tolist()
    refined = SpaGCN.refine(sample_id=names, pred=labels.tolist(), dis=distances, shape="hexagon")
    return embedding.detach().numpy(), {"its own": labels, "its own, refined": refined}


if __name__ == "__main__":
    run(spagcn)
