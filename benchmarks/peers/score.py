"""Compare what a peer wrote with the labels of a section: its own readouts and ours.

    python benchmarks/peers/score.py SECTION OUTPUT LABEL

Prints one line of JSON: adjusted Rand index by readout, over the spots with a label.
"""

import json
import sys

import anndata
import numpy as np
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score

from sagefm.stats.mixture import mixture_clusters

OURS = "ours"
N_STARTS = 50


def main(section, output, key):
    truth = anndata.read_h5ad(section, backed="r").obs[key]
    labeled = truth.notna().to_numpy()
    n_domains = truth[labeled].nunique()
    found = np.load(output)
    readouts = {
        name.removeprefix("labels "): found[name] for name in found if name.startswith("labels ")
    }
    if "embedding" in found:
        embedding = found["embedding"]
        n_components = min(20, *embedding.shape)
        points = PCA(n_components, random_state=0).fit_transform(embedding)
        readouts[OURS] = mixture_clusters(points, n_domains, n_starts=N_STARTS)
    print(json.dumps({
        name: adjusted_rand_score(truth[labeled], labels[labeled])
        for name, labels in readouts.items()
    }))  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
