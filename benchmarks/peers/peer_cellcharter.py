"""CellCharter, as in its own benchmark on cortex sections.

https://github.com/CSOgroup/cellcharter_analyses, `src/benchmarking/CellCharter/individual.py`:
genes and spots with at least 3 counts, 5,000 highly variable genes (`seurat_v3`), scVI with 5
latent dimensions (`early_stopping=True, plan_kwargs={"optimizer": "AdamW",
"reduce_lr_on_plateau": True}`), neighborhoods of 4 layers, a Gaussian mixture with full
covariances (`cc.tl.Cluster`). It took ten seeds; here one.
"""

import cellcharter as cc
import numpy as np
import scanpy as sc
import scvi
import squidpy as sq
from kit import run

SEED = 12345


def cellcharter(slide, n_domains):
    sc.pp.filter_genes(slide, min_counts=3)
    slide.layers["counts"] = slide.X.copy()
    sc.pp.normalize_total(slide, target_sum=1e6)
    sc.pp.log1p(slide)
    sc.pp.highly_variable_genes(
        slide, n_top_genes=min(5000, slide.n_vars), subset=True, layer="counts", flavor="seurat_v3"
    )
    scvi.settings.seed = SEED
    scvi.model.SCVI.setup_anndata(slide, layer="counts")
    model = scvi.model.SCVI(slide, n_latent=5)
    plan = {"optimizer": "AdamW", "reduce_lr_on_plateau": True}
    model.train(early_stopping=True, plan_kwargs=plan, accelerator="cpu")
    slide.obsm["X_scVI"] = model.get_latent_representation().astype(np.float32)
    sq.gr.spatial_neighbors(slide, coord_type="generic", delaunay=True)
    cc.gr.remove_long_links(slide)
    cc.gr.aggregate_neighbors(slide, n_layers=4, use_rep="X_scVI", out_key="X_cellcharter")
    clusters = cc.tl.Cluster(n_domains, random_state=SEED, trainer_params={"accelerator": "cpu"})
    clusters.fit(slide, use_rep="X_cellcharter")
    labels = clusters.predict(slide, use_rep="X_cellcharter")
    return slide.obsm["X_cellcharter"], {"full mixture": labels}


if __name__ == "__main__":
    run(cellcharter)
