"""Estimate genes that a slide lacks, or measured genes again, and say how far to trust each."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sagefm import __version__
from sagefm._errors import InputError
from sagefm._keys import IMPUTED, PROVENANCE
from sagefm._types import Positions, Singles
from sagefm.pp.counts import find_counts, section_codes
from sagefm.pp.selection import selected_spots
from sagefm.tl.imputation._recovery import Agreement, HiddenGenes, Where, of_similar

if TYPE_CHECKING:
    from anndata import AnnData

    from sagefm.model import SageFM
    from sagefm.pp.vocabulary import Alignment, Vocabulary

Scale = Literal["log1p", "counts_per_10k"]

_PARTS = 10
"""Into how many parts genes are cut that are hidden together."""
_TOGETHER = 2048
"""Genes that the slide lacks are predicted so many at a time."""
_SAMPLE = 4096
"""Spots on which measured genes are hidden to speak for those that the slide lacks."""
_LEAST_SPOTS = 50
"""On fewer spots a correlation says too little."""


def impute(
    slide: "AnnData",
    model: "SageFM",
    genes: Sequence[str] | None = None,
    *,
    region: NDArray[np.bool_] | str | None = None,
    scale: Scale = "log1p",
    hide: Where = "center",
    least_r: float = 0.2,
    least_beyond_depth: float = 0.1,
    seed: int = 0,
    layer: str | None = None,
    slide_key: str | None = None,
    key_added: str = IMPUTED,
) -> pd.DataFrame:
    """Predict genes from the visible ones, and check on this slide how well that works.

    A gene that the slide lacks is predicted from all that it has. A measured gene is predicted
    while it is hidden (denoising): its own count never reaches its prediction. Measured genes are
    shuffled by `seed`, cut into 10 parts, and those of a part are hidden together: up to ten
    genes, each alone. What the slide holds is not changed.

    Parameters
    ----------
    slide
        Raw counts and ``obsm["spatial"]``.
    model
        A model.
    genes
        Symbols or Ensembl ids; all genes of the model that the slide lacks if not given. Measured
        genes are estimated again only where they are named here.
    region
        Spots to impute: a boolean per spot, or ``"KEY=VALUE"``; all if not given.
    scale
        ``"log1p"``: log1p counts, as the model predicts them. ``"counts_per_10k"``: expm1 of
        that, over all counts of the spot but those of genes that are hidden with this one, times
        10,000; NaN for a spot without counts.
    hide
        Whether a measured gene is hidden in the ``"center"`` while it is predicted there, in the
        whole ``"neighborhood"``, or in the whole ``"slide"``, as if that lacked it.
    least_r, least_beyond_depth
        See `reliable` below.
    seed
        Of the parts, and of the spots that are sampled.
    layer, slide_key
        As for :meth:`sagefm.SageFM.prepare`.
    key_added
        Where in ``obsm`` the prediction goes.

    Returns
    -------
    A row per gene, over the spots that were imputed:

    - `measured`: whether the slide has the gene; `slide_gene`: what it is called there; `detected`:
      share of the spots with a count; `n`: spots on which it was hidden and compared.
    - `r_model`, `mse_model`: correlation within the slide (the mean over several) and mean squared
      error of prediction and truth, in log1p counts, while hidden. `r_neighbor_mean`,
      `mse_neighbor_mean`: of the mean of the neighbors, on the same entries. `r_depth`:
      correlation of truth and log1p visible counts of the spot: what needs no model at all.
      `r_beyond_depth`: of truth and prediction, depth taken out of both.
    - `r_expected`, `r_beyond_depth_expected`: for genes that the slide lacks there is no truth.
      The measured genes are hidden everywhere on the slide, a tenth at a time (on 4,096 spots at
      most), and the median of the 50 that are predicted to be about as common stands for the gene;
      0 if the prediction does not vary.
    - `reliable`: for a measured gene, `r_model` is at least `least_r` and not below
      `r_neighbor_mean`, and `r_beyond_depth` is at least `least_beyond_depth`. For another,
      `r_expected` and `r_beyond_depth_expected` are at least those. On fewer than 50 spots no gene
      is reliable; nor is one whose truth does not vary, where correlations are NaN. The flag
      speaks of the pattern over spots, not of the level, which can be off: see `mse_model`.

    Sets ``obsm["sagefm_imputed"]`` (DataFrame, spots × genes, float32, missing outside the region)
    and ``uns["sagefm"]["imputed"]``: this table as ``"confidence"``, and how it was made.

    Raises
    ------
    InputError
        A gene is not in the vocabulary or named twice, there is none to impute, the region is
        empty, an option is out of its range, or as :meth:`sagefm.SageFM.prepare`.

    Notes
    -----
    A prediction is a mean of log1p counts: expm1 of it lies below the mean of counts. What the
    network pools is the neighborhood, so that a prediction follows the depth of the neighborhood;
    dividing by the depth of the spot adds the noise of that.

    For 4,090 to 5,000 genes ``write_h5ad`` fails ("object header message is too large") unless
    ``h5py.get_config().track_order`` is True; ``sagefm impute`` sees to it.
    """
    _require_choices(scale, hide, least_r, least_beyond_depth)
    named = None if genes is None else _named(genes, model.vocabulary)
    spots = np.flatnonzero(selected_spots(slide, region))
    prepared = model.prepare(slide, layer=layer, slide_key=slide_key)
    measured = prepared.measured
    asked = named or _lacking(model.vocabulary, measured)
    positions = np.array(list(asked.values()), dtype=np.int64)
    there, chance = measured[positions], np.random.default_rng(seed)
    codes = section_codes(slide, slide_key)[spots]
    depth = find_counts(slide, layer).matrix.sum(axis=1, dtype=np.float64)
    hidden = HiddenGenes(model, prepared, np.asarray(depth).ravel())
    agreement = Agreement(codes, len(positions))
    values = np.full((slide.n_obs, len(positions)), np.nan, dtype=np.float32)
    parts = _parts(positions, there, chance)
    for block in hidden.predict(spots, positions, parts, where=hide):
        agreement.add(block)
        values[np.ix_(spots[block.spots], block.genes)] = (
            block.predicted if scale == "log1p" else _per_10k(block.predicted, block.visible)
        )
    table = _observed(agreement, there, len(spots))
    assert prepared.alignment is not None  # it was aligned from a slide
    table.insert(1, "slide_gene", _slide_genes(prepared.alignment, positions))
    if not there.all():
        known = _sampled(hidden, spots, codes, np.flatnonzero(measured), chance)
        _expect(table, agreement, known)
    table["reliable"] = _reliable(table, least_r, least_beyond_depth) & (len(spots) >= _LEAST_SPOTS)
    table.index = pd.Index(list(asked), name="gene")
    slide.obsm[key_added] = pd.DataFrame(values, slide.obs_names, list(asked))
    slide.uns.setdefault(PROVENANCE, {})["imputed"] = {
        "key": key_added,
        "confidence": table.copy(),
        "scale": scale,
        "hide": hide,
        "least_r": least_r,
        "least_beyond_depth": least_beyond_depth,
        "seed": seed,
        "model": repr(model),
        "fingerprint": model.fingerprint,
        "model_provenance": json.dumps(model.provenance),
        "genes": prepared.summary,
        "sagefm": __version__,
    }
    return table


def _require_choices(scale: str, hide: str, least_r: float, least_beyond_depth: float) -> None:
    for name, value, kinds in (("scale", scale, Scale), ("hide", hide, Where)):
        if value not in get_args(kinds):
            raise InputError(f"{name}={value!r}: choose of {', '.join(get_args(kinds))}")
    for name, least in (("least_r", least_r), ("least_beyond_depth", least_beyond_depth)):
        if not -1 <= least <= 1:
            raise InputError(f"{name}={least}: give a correlation, from -1 to 1")


def _named(genes: Sequence[str], vocabulary: "Vocabulary") -> dict[str, int]:
    """Find the genes that were named: name → position."""
    names = [genes] if isinstance(genes, str) else list(genes)
    if not names:
        raise InputError("genes: names none; leave it out for all genes that the slide lacks")
    asked: dict[str, int] = {}
    for name, position in zip(names, vocabulary.positions(names).tolist(), strict=True):
        if position in asked.values():
            raise InputError(f"{name}: is named twice; name every gene once")
        asked[name] = position
    return asked


def _lacking(vocabulary: "Vocabulary", measured: NDArray[np.bool_]) -> dict[str, int]:
    """Find the genes that a slide lacks: name → position."""
    if measured.all():
        raise InputError(
            "genes: the slide has all genes of the model; name those to estimate again"
        )
    return {vocabulary[i]: i for i in np.flatnonzero(~measured).tolist()}


def _parts(
    positions: Positions, measured: NDArray[np.bool_], chance: np.random.Generator
) -> list[Positions]:
    """Say which genes go together: the measured in ten parts, the others in as few as can be."""
    lacking = np.flatnonzero(~measured)
    parts = [lacking[i : i + _TOGETHER] for i in range(0, len(lacking), _TOGETHER)]
    if measured.any():
        # In the order of the vocabulary, so that the order of the names does not matter.
        order = np.flatnonzero(measured)[np.argsort(positions[measured])]
        parts += np.array_split(chance.permutation(order), min(_PARTS, len(order)))
    return parts


def _per_10k(predicted: Singles, visible: NDArray[np.float64]) -> Singles:
    """Turn log1p counts into counts per 10,000 of those that each spot shows."""
    depth = np.where(visible > 0, visible, np.nan)[:, None]
    return (np.expm1(predicted.astype(np.float64)) / depth * 1e4).astype(np.float32)


def _observed(agreement: Agreement, measured: NDArray[np.bool_], n_spots: int) -> pd.DataFrame:
    """Say how well the measured genes were recovered; NaN for the others."""
    known = {
        "detected": agreement.detected,
        "r_model": agreement.pearson("model"),
        "r_neighbor_mean": agreement.pearson("neighbor_mean"),
        "r_depth": agreement.pearson("depth"),
        "r_beyond_depth": agreement.beyond_depth(),
        "mse_model": agreement.error("model"),
        "mse_neighbor_mean": agreement.error("neighbor_mean"),
    }
    table = pd.DataFrame({name: np.where(measured, v, np.nan) for name, v in known.items()})
    table.insert(0, "measured", measured)
    table.insert(2, "n", np.where(measured, n_spots, 0))
    return table.assign(r_expected=np.nan, r_beyond_depth_expected=np.nan)


def _sampled(
    hidden: HiddenGenes,
    spots: Positions,
    codes: NDArray[np.int64],
    measured: Positions,
    chance: np.random.Generator,
) -> Agreement:
    """Hide every measured gene as if the slide lacked it, a tenth at a time."""
    rows = np.arange(len(spots))
    if len(rows) > _SAMPLE:
        rows = np.sort(chance.choice(rows, _SAMPLE, replace=False))
    agreement = Agreement(codes[rows], len(measured))
    parts = _parts(measured, np.ones(len(measured), dtype=bool), chance)
    for block in hidden.predict(spots[rows], measured, parts, where="slide"):
        agreement.add(block)
    return agreement


def _expect(table: pd.DataFrame, asked: Agreement, known: Agreement) -> None:
    """Fill in what is to be expected of the genes that the slide lacks."""
    lacking = ~table["measured"].to_numpy()
    mean, varies = asked.mean("model")[lacking], asked.varies("model")[lacking]
    for column, values in (
        ("r_expected", known.pearson("model")),
        ("r_beyond_depth_expected", known.beyond_depth()),
    ):
        expected = of_similar(mean, known.mean("model"), values)
        table.loc[lacking, column] = np.where(varies, expected, 0.0)


def _reliable(table: pd.DataFrame, least_r: float, least_beyond_depth: float) -> NDArray[np.bool_]:
    """Apply the rule of :func:`impute`; a comparison with NaN is false."""
    observed = (
        (table["r_model"] >= least_r)
        & (table["r_model"] >= table["r_neighbor_mean"])
        & (table["r_beyond_depth"] >= least_beyond_depth)
    )
    expected = (table["r_expected"] >= least_r) & (
        table["r_beyond_depth_expected"] >= least_beyond_depth
    )
    return np.asarray(observed | expected)


def _slide_genes(alignment: "Alignment", positions: Positions) -> list[str]:
    """Say what genes are called on the slide, several names joined by ``;``, empty for none."""
    names: dict[int, dict[str, None]] = {position: {} for position in positions.tolist()}
    for name, column in zip(alignment.names, alignment.columns.tolist(), strict=True):
        if column in names:
            names[column][name] = None
    return [";".join(found) for found in names.values()]
