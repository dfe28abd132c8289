"""Draw the picture of the README: two simulated tissues, their domains, and masked genes.

python scripts/readme_picture.py [-o docs/img/tissue.png]
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import sagefm

ROWS = {"cortex": ("GFAP", 7, 4000), "breast": ("EPCAM", 6, 10_000)}
"""Tissue → the gene that is masked, the number of domains, the median library size."""
TITLES = (
    "tissue (simulated)",
    "domains, no labels needed",
    "{}, measured",
    "{}, masked and predicted",
)


def main(words: Sequence[str] | None = None) -> None:
    """Draw and save the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--out", type=Path, default=Path("docs/img/tissue.png"))
    given = parser.parse_args(words)
    model = sagefm.SageFM.load("default")
    with sagefm.pl.journal():
        _, axes = plt.subplots(2, 4, figsize=(7.2, 3.7), layout="compressed")
        for row, (tissue, (gene, n_domains, depth)) in zip(axes, ROWS.items(), strict=True):
            slide = sagefm.pp.simulate_tissue(tissue, 1500, depth=depth)
            sagefm.tl.domains(slide, n_domains)
            sagefm.tl.impute(slide, model, [gene])
            factor = np.asarray(slide.X.sum(axis=1)).ravel()
            factor = np.median(factor) / factor
            counts = slide[:, gene].X.toarray().ravel()
            predicted = slide.obsm["sagefm_imputed"][gene].to_numpy()
            slide.obs["measured"] = np.log1p(counts * factor)
            slide.obs["predicted"] = np.log1p(np.expm1(predicted) * factor)
            top = np.quantile(slide.obs[["measured", "predicted"]].to_numpy(), 0.99)
            slide.obs["tissue"] = 0.0
            for ax, color, title in zip(
                row, ("tissue", "sagefm_domain", "measured", "predicted"), TITLES, strict=True
            ):
                bare, gene_map = color == "tissue", color in ("measured", "predicted")
                sagefm.pl.spatial(
                    slide, color, title=title.format(gene), ax=ax, show=False, vmin=0, vmax=top,
                    alpha=0.0 if bare else 1.0, img_alpha=1.0 if bare else 0.6, scale_bar=bare,
                    image=not gene_map, size=1.0 if gene_map else 0.8, cmap="magma",
                )  # fmt: skip
                _strip(ax)
    plt.savefig(given.out, dpi=200, bbox_inches="tight", facecolor="white")
    from PIL import Image

    with Image.open(given.out) as drawn:
        drawn.convert("RGB").quantize(256).save(given.out, optimize=True)
    print(f"{given.out}: {given.out.stat().st_size / 1e3:.0f} kB")


def _strip(ax: plt.Axes) -> None:
    """Take away legends and color bars: the scale of a gene is the same in both maps."""
    if ax.get_legend() is not None:
        ax.get_legend().remove()
    for drawn in ax.collections:
        if drawn.colorbar is not None:
            drawn.colorbar.remove()


if __name__ == "__main__":
    main()
