"""No training: principal components of the means over the 7 or 15 nearest spots, all genes."""

from kit import run

from sagefm.evaluate import pca


def smoothed(slide, n_domains, n_spots):
    del n_domains
    return pca(slide, smooth=int(n_spots), n_genes=slide.n_vars), {}


if __name__ == "__main__":
    run(smoothed)
