"""What the script of every peer shares: a section in, an embedding and labels out.

Imported in the environment of a peer, which has numpy, anndata and scikit-learn but not sagefm.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import anndata
import numpy as np

MCLUST = """
library(mclust)
arguments <- commandArgs(TRUE)
points <- as.matrix(read.csv(arguments[1], header = FALSE))
set.seed(as.integer(arguments[3]))
found <- Mclust(points, G = as.integer(arguments[2]), modelNames = "EEE", verbose = FALSE)
write(found$classification, arguments[4], ncolumns = 1)
"""


def run(method):
    """Run a method on the section that the command line names, and write what it returns.

    The command line has the section, the number of domains, the file to write, and whatever else
    the method takes. A method returns an embedding (spots × dimensions, or None) and its own
    labels, by the name of the readout.
    """
    path, n_domains, output, *others = sys.argv[1:]
    slide = anndata.read_h5ad(path)
    slide.X = slide.X.astype(np.float32)
    slide.obs = slide.obs[[]]  # no method gets to know the pathologist's labels
    slide.obsm["spatial"] = np.asarray(slide.obsm["spatial"], dtype=np.float64)
    embedding, readouts = method(slide, int(n_domains), *others)
    labels = {f"labels {name}": np.asarray(found).astype(str) for name, found in readouts.items()}
    if embedding is not None:
        labels["embedding"] = np.asarray(embedding, dtype=np.float64)
    np.savez(output, **labels)


def mclust(points, n_domains, seed):
    """Cluster points as ``Mclust(points, n_domains, "EEE")`` of R; return labels and a name.

    Where R or its package mclust is missing, by the same model in scikit-learn, whose starts are
    k-means instead of hierarchical clusters.
    """
    rscript = shutil.which("Rscript")
    if rscript and not _r(rscript, "-e", "library(mclust)").returncode:
        with tempfile.TemporaryDirectory() as folder:
            script, table, output = (Path(folder) / name for name in ("run.R", "in.csv", "out"))
            script.write_text(MCLUST)
            np.savetxt(table, points, delimiter=",")
            done = _r(rscript, script, table, n_domains, seed, output)
            if done.returncode:
                sys.exit(f"mclust: {done.stderr}")
            return np.loadtxt(output, dtype=int), "mclust EEE"
    from sklearn.mixture import GaussianMixture

    mixture = GaussianMixture(n_domains, covariance_type="tied", max_iter=300, random_state=seed)
    return mixture.fit_predict(points), "EEE of scikit-learn (no mclust)"


def _r(*arguments):
    return subprocess.run(list(map(str, arguments)), capture_output=True, text=True, check=False)


def spot_pitch(positions):
    """Distance between the centers of neighboring spots."""
    from sklearn.neighbors import NearestNeighbors

    distances, _ = NearestNeighbors(n_neighbors=2).fit(positions).kneighbors(positions)
    return float(np.median(distances[:, 1]))
