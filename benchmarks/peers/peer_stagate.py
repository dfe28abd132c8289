"""STAGATE, as in its tutorial on cortex sections.

https://stagate.readthedocs.io, "Tutorial 1: 10x Visium (DLPFC dataset)": 3,000 highly variable
genes (`flavor="seurat_v3"`), `normalize_total(target_sum=1e4)`, log1p,
`Cal_Spatial_Net(rad_cutoff=150)` (1.1 times the spot pitch there, hence here), `train_STAGATE`
(1,000 epochs, `hidden_dims=[512, 30]`), `mclust_R(used_obsm="STAGATE")` (EEE, seed 2020).
"""

import sys
from types import ModuleType

import scanpy as sc
import torch_geometric.typing
from kit import mclust, run, spot_pitch
from torch_geometric.utils import coalesce

try:
    import torch_sparse  # noqa: F401
except ImportError:  # the package only checks whether its edges, a plain tensor, are of this class
    sys.modules["torch_sparse"] = stand_in = ModuleType("torch_sparse")
    stand_in.SparseTensor, stand_in.set_diag = torch_geometric.typing.SparseTensor, coalesce


def stagate(slide, n_domains, n_epochs=1000):
    import STAGATE_pyG

    sc.pp.highly_variable_genes(slide, flavor="seurat_v3", n_top_genes=min(3000, slide.n_vars))
    sc.pp.normalize_total(slide, target_sum=1e4)
    sc.pp.log1p(slide)
    STAGATE_pyG.Cal_Spatial_Net(slide, rad_cutoff=1.1 * spot_pitch(slide.obsm["spatial"]))
    slide = STAGATE_pyG.train_STAGATE(slide, n_epochs=int(n_epochs))
    labels, name = mclust(slide.obsm["STAGATE"], n_domains, seed=2020)
    return slide.obsm["STAGATE"], {name: labels}


if __name__ == "__main__":
    run(stagate)
