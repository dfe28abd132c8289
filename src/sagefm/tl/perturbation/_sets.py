"""Predict which gene sets respond to a gene upstream of them, and test the effects."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sagefm._as_model import as_model
from sagefm._types import Hold
from sagefm.tl.perturbation._effects import Progress
from sagefm.tl.perturbation._signature_test import How, perturb_signatures
from sagefm.tl.perturbation._signatures import signatures
from sagefm.tl.perturbation._slides import prepare_slides

if TYPE_CHECKING:
    from anndata import AnnData

    from sagefm.model import SageFM

_COLUMNS = (
    "ligand", "set", "n_genes", "effect", "share_up", "effect_random", "z", "p", "q",
    "z_components", "p_random", "n_slides",
)  # fmt: skip


def perturb_sets(
    slide: "AnnData | Mapping[str, AnnData]",
    model: "SageFM | str | Path",
    upstream: str | Sequence[str],
    sets: Mapping[str, Sequence[str]],
    *,
    hold: Hold = "nothing",
    region: "NDArray[np.bool_] | str | None" = None,
    n_matched: int = 50,
    n_spots: int = 256,
    seed: int = 0,
    layer: str | None = None,
    slide_key: str | None = None,
    keep: Path | None = None,
    progress: Progress = lambda line: None,
) -> pd.DataFrame:
    """Raise genes in the neighbors of every spot, and predict whole sets of genes in it.

    The upstream → downstream protocol of the paper (arXiv 2601.15504): every gene with every set,
    as signatures of equal weights of :func:`sagefm.tl.perturb`.

    Parameters
    ----------
    slide, model, hold, region, n_matched, seed, layer, slide_key, keep, progress
        As for :func:`sagefm.tl.perturb`.
    upstream
        A gene or several, each raised alone.
    sets
        Name → genes, such as :func:`sagefm.tl.gene_sets` returns. The 200 genes of a set that most
        spots have are predicted, of those that the model knows and 3 % of the spots have.
    n_spots
        Spots in which the sets are predicted, drawn at random.

    Returns
    -------
    A row per set and upstream gene: ligand, set, ``n_genes`` (without the upstream gene),
    ``effect`` (mean over these genes of the effect as in :func:`sagefm.tl.perturb`, log1p counts),
    ``share_up`` (fraction of the genes that rise), ``effect_random`` (mean effect on random sets of
    genes, matched to those of the set), ``z``, ``p`` and ``q`` (against matched genes raised in the
    ligand's place; Benjamini-Hochberg over the rows), ``z_components`` (the same of the partial
    correlations of the slide itself), ``p_random`` (against 100 such random sets), n_slides.

    Raises
    ------
    InputError
        No set is left, or as :func:`sagefm.tl.perturb`.
    """
    model = as_model(model)
    slides = prepare_slides(slide, model, region, layer=layer, slide_key=slide_key)
    positions = model.vocabulary.positions(model.vocabulary.known(upstream))
    ligands = [model.vocabulary[int(at)] for at in dict.fromkeys(positions.tolist())]
    weights = signatures(sets)
    pairs = pd.DataFrame(
        [(ligand, name) for name in dict.fromkeys(weights["source"]) for ligand in ligands],
        columns=["ligand", "target"],
    )
    how = How((), hold, n_matched, n_spots, seed, keep, progress)
    table = perturb_signatures(slides, model, pairs, weights, how)
    table = table.rename(columns={"target": "set", "as_expected": "share_up"})[list(_COLUMNS)]
    table.attrs.clear()  # of all pairs of some genes none is more a pair than the others
    return table
