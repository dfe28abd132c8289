"""Find the domains of 1,000 to 500,000 simulated spots: time and memory by number of spots.

The consensus, from counts in memory, and each method that clusters an embedding; each in a process
of its own. A large slide is made of thinned copies of a simulated slide, laid side by side, each
with its own noise: some 360 of 18,000 genes are detected in a spot, as in bins of Visium HD. The
embedding is a random projection of log counts, averaged over 15 spots. Memory is counted above the
slide itself. At 50,000 spots the answers by way of a sample are compared with those of all spots.

    python benchmarks/bench_clustering.py [LARGEST]
"""

import ctypes
import json
import sys
import time

import numpy as np

from _common import Peak, in_own_process, report

SIZES = (1_000, 3_000, 10_000, 30_000, 100_000, 500_000)
METHODS = ("consensus", "gmm", "kmeans", "leiden")
COMPARED = 50_000
FIRST = 30_000  # of many spots, from which slopes are measured
N_DOMAINS = 7
COPIED, DEPTH = 5_000, 430
GENES = tuple(f"GENE{i}" for i in range(18_000))


def bins(n_spots):
    """Lay thinned copies of a simulated slide side by side."""
    import anndata
    from scipy.sparse import vstack

    from sagefm.pp.simulate import simulate

    slide = simulate(min(n_spots, COPIED), n_domains=N_DOMAINS, genes=GENES, seed=0)
    copies = n_spots // slide.n_obs
    fraction = DEPTH * slide.n_obs / slide.X.sum()
    rng = np.random.default_rng(0)
    step = np.ptp(slide.obsm["spatial"], axis=0) + 300
    across = int(np.ceil(np.sqrt(copies)))
    parts, places = [], []
    for copy in range(copies):
        thinned = slide.X.copy()
        thinned.data = rng.binomial(slide.X.data.astype(np.int64), fraction).astype(np.float32)
        thinned.eliminate_zeros()
        parts.append(thinned)
        places.append(slide.obsm["spatial"] + np.array(divmod(copy, across)) * step)
    large = anndata.AnnData(vstack(parts, format="csr"))
    large.obsm["spatial"] = np.concatenate(places)
    large.var_names = slide.var_names
    large.obs["truth"] = np.tile(slide.obs["domain"].astype(str).to_numpy(), copies)
    return large


def embed(slide):
    from sagefm.pp.neighborhood import average, nearest

    weights = np.random.default_rng(0).normal(size=(slide.n_vars, 64)).astype(np.float32)
    projected = np.empty((slide.n_obs, 64), dtype=np.float32)
    for start in range(0, slide.n_obs, 8192):
        rows = slice(start, start + 8192)
        projected[rows] = slide.X[rows].log1p() @ weights
    slide.obsm["X_sagefm"] = average(nearest(slide.obsm["spatial"])) @ projected


def measure(method, n_spots):
    import sagefm

    slide = bins(n_spots)
    if method != "consensus":
        embed(slide)
    sagefm.tl.domains(slide[:200].copy(), 2)  # imports
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # what was freed does not count as taken
    with Peak() as peak:
        start = time.perf_counter()
        before = time.process_time()
        sagefm.tl.domains(slide, N_DOMAINS, method=method)
        seconds = time.perf_counter() - start
        processor = time.process_time() - before
    return {
        "spots": n_spots, "seconds": seconds, "cpu": processor, "mb": peak.mb,
        "ari": agreement(slide.obs["truth"], slide.obs["sagefm_domain"]),
        "slide": slide.X.nnz * 8 / 2**20,
    }  # fmt: skip


def compare(method):
    """Cluster by way of a sample, and all spots at once."""
    import sagefm
    from sagefm.stats import sampling

    slide = bins(COMPARED)
    if method != "consensus":
        embed(slide)
    found, labels = {}, {}
    for name, many in (("sample", sampling.MANY), ("all", np.inf)):
        sampling.MANY = many
        start = time.process_time()
        sagefm.tl.domains(slide, N_DOMAINS, method=method)
        found[f"{name} cpu"] = time.process_time() - start
        found[f"{name} truth"] = agreement(slide.obs["truth"], slide.obs["sagefm_domain"])
        labels[name] = slide.obs["sagefm_domain"].copy()
    return found | {"both": agreement(*labels.values())}


def agreement(one, other):
    from sklearn.metrics import adjusted_rand_score

    return float(adjusted_rand_score(one.astype(str), other.astype(str)))


def main(largest):
    sizes = [size for size in SIZES if size <= largest]
    lines = []
    for method in METHODS:
        rows = [in_own_process(__file__, method, size) for size in sizes]
        lines.append(f"{method}:")
        lines += [
            f"{row['spots']:>8,} spots {row['seconds']:7.1f} s ({row['cpu']:6.1f} s of the "
            f"processor) {row['mb']:7,.0f} MB above the slide of {row['slide']:6,.0f} MB, "
            f"agreement with the planted domains {row['ari']:.3f}"
            for row in rows
        ]
        many = [row for row in rows if row["spots"] >= FIRST]
        if len(many) > 1:
            spots, *values = np.log([[r["spots"], r["seconds"], r["mb"]] for r in many]).T
            slopes = [np.polyfit(spots, each, 1)[0] for each in values]
            lines.append(
                f"log-log slope from {FIRST:,} spots on: time {slopes[0]:.2f}, memory "
                f"{slopes[1]:.2f} (1 is linear)"
            )
    if largest >= COMPARED:
        lines.append(
            f"{COMPARED:,} spots by way of a sample and all at once (adjusted Rand index):"
        )
    for method in METHODS if largest >= COMPARED else ():
        row = in_own_process(__file__, "compare", method)
        lines.append(
            f"{method:>10}  each other {row['both']:.3f}  planted {row['sample truth']:.3f} and "
            f"{row['all truth']:.3f}  processor {row['sample cpu']:.1f} s and "
            f"{row['all cpu']:.1f} s"
        )
    report("bench_clustering", lines)


if __name__ == "__main__":
    if sys.argv[1:2] == ["compare"]:
        print(json.dumps(compare(sys.argv[2])))
    elif len(sys.argv) == 3:
        print(json.dumps(measure(sys.argv[1], int(sys.argv[2]))))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else SIZES[-1])
