"""Predict a second modality from the neighborhood in the transcriptome, or the reverse."""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sagefm import __version__
from sagefm._as_model import as_model
from sagefm._errors import InputError
from sagefm._keys import CROSS
from sagefm._progress import stage
from sagefm._uns import provenance, record
from sagefm.pp.gene_names import known_gene_names
from sagefm.pp.slide_record import without_records
from sagefm.stats.blocks import BlockFolds
from sagefm.stats.shifts import NullMaps
from sagefm.tl.crossing._removal import Removal
from sagefm.tl.crossing._sides import (
    N_GENES,
    MeasuredSpots,
    chosen_features,
    modalities,
    predictors_of,
    second_side,
    transcriptome,
)
from sagefm.tl.crossing._table import baselines, tabulate
from sagefm.tl.crossing._test import predict_and_test

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData

    from sagefm.model import SageFM

_LEAST_TRAINING = 20


def key_of(with_: str, *, reverse: bool = False) -> str:
    """Get the key of the predictions in ``obsm``."""
    name = with_.replace("/", "_")
    return f"{CROSS}_genes_from_{name}" if reverse else f"{CROSS}_{name}"


def cross(
    slide: "AnnData | Sequence[AnnData] | Mapping[str, AnnData]",
    model: "SageFM | str | Path | None" = None,
    with_: str = "protein",
    *,
    features: Sequence[str] | None = None,
    reverse: bool = False,
    n_maps: int = 999,
    seed: int = 0,
    layer: str | None = None,
    slide_key: str | None = None,
) -> pd.DataFrame:
    """Predict a second modality of the spots from the transcriptome of their neighborhood.

    Every spot is predicted by a ridge regression on other blocks of the tissue, of compact blocks
    in five folds; spots whose neighborhood of 15 overlaps the predicted blocks are left out, and
    penalties are chosen within the training blocks. It is a regression on 50 components of
    the expression of the spot, 50 of the mean over its neighborhood, and the library size of both.

    Tissue is smooth, so that any two maps are correlated, also out of blocks: on a slide of 1,000
    spots, random smooth maps are predicted with r = 0.3 to 0.5. `p` is therefore the fraction of
    null maps that are predicted as well by the same procedure: maps with the spatial
    autocorrelation of the feature that have nothing to do with the slide. Each is a draw of the
    same random field: the modes of the feature (eigenvectors of the centered matrix of
    distances between spots) with random signs, and the short-range remainder moved on a torus.
    Of 3,500 null features on seven slides 4.2 % had p ≤ 0.05. On the five small ones 4.5 % had;
    with torus shifts of the whole map 8.1 %, rigid motions 9.9 %, permuted blocks 34.7 %, and
    random signs of the eigenvectors of a graph Laplacian 10.3 %.

    Parameters
    ----------
    slide
        A slide with raw counts, ``obsm["spatial"]`` and a second modality; or several, in a list or
        by name: they are fitted together, blocks and null maps are within sections, and
        correlations within sections.
    model
        A model whose embedding is added to the predictors. By default none is: on seven
        training sections it gained nothing (mean r 0.262 with it, 0.265 without).
    with_
        Name of the second modality: ``"protein"``, or the key of a table of raw counts in ``obsm``
        (see :func:`sagefm.pp.add_counts`).
    features
        What to predict; by default all features of the second modality that are detected in
        20 spots or more, or with `reverse` the 100 genes that are most similar in neighbors.
    reverse
        Whether to predict genes (log1p of counts scaled to the median library size) from the second
        modality of the neighborhood.
    n_maps
        Null maps per feature; p is at least 1 / (`n_maps` + 1).
    seed
        Seed of the null maps and the intervals.
    layer, slide_key
        As in :func:`sagefm.tl.embed`.

    Returns
    -------
    A row per feature, the smallest `p` first, then the largest `r`:

    - `n_spots`, `n_detected` (spots with counts of the feature).
    - `r`: correlation of measured (proteins: CLR, other counts: log1p) and predicted out of
      blocks; its interval by bootstrap over blocks, `p` and `q` (Benjamini-Hochberg).
    - `r_given_counts`, `p_given_counts`, `q_given_counts`: the same after piecewise linear
      functions of the log library size of the spot and its neighbors are removed from both
      modalities: what is left where a feature merely follows the number of counts. This test is
      conservative: of null features 2 % pass.
    - `gain` over the `best_baseline`, of those that know as much: `r_library` (the
      library sizes alone, out of blocks), `r_same_gene` (the gene that encodes a protein) and
      `r_same_gene_smoothed` (over the neighborhood); and its interval, paired over blocks.
    - `r_total`: total of the other features in the spot. `r_neighbors`: mean of the feature in
      the 14 neighbors. `r_with_neighbors`, `gain_neighbors`: what the prediction adds to that mean.

    Sets ``obsm["sagefm_cross_<name>"]`` (``"sagefm_cross_genes_from_<name>"`` with `reverse`): a
    DataFrame of predictions out of blocks, NaN for spots that are not measured. They deviate
    from the mean of the section, which is that of all its spots.

    Raises
    ------
    InputError
        A slide lacks the modality, a feature is not there, too few spots have both, or as
        :meth:`sagefm.SageFM.prepare`.

    Notes
    -----
    What varies over lengths as large as the section has few independent values, and is rarely
    significant. Memory grows with the number of spots: 50,000 spots need about 2.5 GB.
    """
    slides = _named(slide)
    if not isinstance(n_maps, int | np.integer) or n_maps < 19:
        raise InputError(f"n_maps={n_maps}: give a whole number from 19 on")
    if not isinstance(seed, int | np.integer) or seed < 0:
        raise InputError(f"seed={seed}: give a whole number from 0 on")
    loaded = None if model is None else as_model(model)
    found = modalities(slides, with_)
    spots = MeasuredSpots.of(slides, found, slide_key)
    stage("reducing the expression of %s spots", f"{len(spots.points):,}")
    genes, second = transcriptome(slides, spots, layer), second_side(found, spots)
    source, target = (second, genes) if reverse else (genes, second)
    chosen = chosen_features(target, spots, features, N_GENES if reverse else None)
    partners = dict(found[0].gene_of())
    if reverse:
        partners = {gene: name for name, gene in partners.items()}
    predictors = predictors_of(source, spots, slides, loaded, layer, slide_key)
    folds = _folds(spots)
    maps = NullMaps.of(spots.points, spots.sections, n_maps, seed)
    values = target.columns(chosen)
    tested = predict_and_test(
        predictors, values, chosen, folds, maps, Removal.of_sections(spots),
        "predicting features and their null maps",
    )  # fmt: skip
    given_counts = predict_and_test(
        predictors, values, chosen, folds, maps,
        Removal.of_functions(spots, predictors.library_curves()),
        "predicting what does not follow library sizes",
    )  # fmt: skip
    others = baselines(predictors, spots, source, target, tested, folds, partners)
    table = tabulate(target, spots, tested, given_counts, others, folds, seed)
    facts = {"with": with_, "reverse": reverse, "n_maps": n_maps, "seed": seed}
    facts["panel"] = second.names.tolist()
    facts |= _described(loaded)
    predicted = pd.DataFrame(
        tested.predicted + (values - tested.truth), columns=target.names[chosen].astype(str)
    )
    _write(slides, spots, predicted, table, key_of(with_, reverse=reverse), facts)
    return table


def _named(
    slide: "AnnData | Sequence[AnnData] | Mapping[str, AnnData]",
) -> "dict[str, AnnData]":
    from anndata import AnnData

    if isinstance(slide, AnnData):
        return {"": slide}
    if isinstance(slide, Mapping):
        named = {str(name): slide[name] for name in sorted(slide, key=str)}
    elif isinstance(slide, Sequence) and not isinstance(slide, str):
        named = {f"slide {number}": one for number, one in enumerate(slide, start=1)}
    else:
        named = {"slide": slide}
    if not named:
        raise InputError("slides: is empty; give one at least")
    for name, one in named.items():
        if not isinstance(one, AnnData):
            raise InputError(f"{name}: is a {type(one).__name__}, no AnnData; use sagefm.read")
    return {"": next(iter(named.values()))} if len(named) == 1 else named


def _folds(spots: MeasuredSpots) -> BlockFolds:
    first, neighbors = 0, []
    for near in spots.neighbors:
        neighbors.append(near + first)
        first += len(near)
    folds = BlockFolds.of(spots.points, spots.sections, np.concatenate(neighbors))
    if (~folds.near).sum(axis=1).min() < _LEAST_TRAINING:
        raise InputError(
            f"{len(spots.points)} spots are too few for this shape of tissue: next to none are "
            "away from a block; give more spots"
        )
    return folds


def _described(model: "SageFM | None") -> dict[str, Any]:
    return {
        "model": "none" if model is None else repr(model),
        "fingerprint": "" if model is None else model.fingerprint,
        "model_provenance": json.dumps({} if model is None else without_records(model.provenance)),
        "gene_names": known_gene_names().version,
        "sagefm": __version__,
    }


def _write(
    slides: "Mapping[str, AnnData]",
    spots: MeasuredSpots,
    predicted: pd.DataFrame,
    table: pd.DataFrame,
    key: str,
    facts: Mapping[str, Any],
) -> None:
    """Write the predictions and the table into each slide, in the order of the table."""
    names = table.index.tolist()
    first = 0
    for slide, own in zip(slides.values(), spots.rows, strict=True):
        values = predicted.iloc[first : first + len(own)]
        first += len(values)
        filled = np.full((slide.n_obs, len(names)), np.nan, dtype=np.float32)
        filled[own] = values[names].to_numpy()
        slide.obsm[key] = pd.DataFrame(filled, index=slide.obs_names, columns=names)
        made = {**provenance(slide, "cross"), key: {**facts, "table": table.copy()}}
        record(slide, "cross", made)
