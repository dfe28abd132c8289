"""Impute genes that are not measured, denoise others, and measure how well each is predicted."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sagefm import __version__
from sagefm._adaptation import can_adapt
from sagefm._as_model import as_model
from sagefm._errors import InputError, logger
from sagefm._fetch import DEFAULT
from sagefm._keys import IMPUTED
from sagefm._types import Positions, Singles, Where
from sagefm._uns import record
from sagefm.pp.counts import coordinates
from sagefm.pp.gene_names import known_gene_names
from sagefm.pp.selection import selected_spots
from sagefm.pp.slide_record import without_records
from sagefm.pp.streamed import StreamedSlide
from sagefm.stats.resampling import benjamini_hochberg
from sagefm.tl.imputation._recovery import GeneRecovery, areas_of, masked_blocks, similar_genes

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData

    from sagefm.model import SageFM
    from sagefm.pp.streamed import AnyAligned
    from sagefm.pp.vocabulary import Alignment, Vocabulary

Units = Literal["log1p", "counts_per_10k"]

_MASKED_IN = ("center", "neighborhood", "slide")
_GROUPS = 10
"""Number of groups of measured genes; those of a group are masked together."""
_TOGETHER = 2048
"""Genes that are not measured and that are predicted together."""
_SAMPLE = 4096
"""Spots in which measured genes are masked to estimate how well unmeasured ones are predicted."""
_LEAST_SPOTS = 50
"""Minimum number of spots to test a gene."""
_EXPECTED = (
    "r_expected",
    "r_expected_low",
    "r_expected_high",
    "r_beyond_depth_expected",
    "p_good",
)
"""Columns about a gene that the slide lacks."""
_WIDER = 1.4
"""Markers differ by so much more than random genes whose predictions are as similar; measured on
patients that the model was not trained on."""
_GOOD = 0.3
"""Correlation within the slide from which the prediction of a gene is called good."""
_LEVEL = 0.05
"""False discovery rate of the genes that beat their neighbors."""


def impute(
    slide: "AnnData",
    model: "SageFM | str | Path" = DEFAULT,
    genes: Sequence[str] | None = None,
    *,
    region: NDArray[np.bool_] | str | None = None,
    scale: Units = "log1p",
    mask: Where = "center",
    adapt: bool = True,
    seed: int = 0,
    layer: str | None = None,
    slide_key: str | None = None,
    key_added: str = IMPUTED,
) -> pd.DataFrame:
    """Predict genes from the other genes, and check on this slide how well each is predicted.

    A gene that the slide lacks is predicted from all genes that it has. A measured gene is
    predicted while it is masked (denoising): its own count never reaches its prediction. Measured
    genes are shuffled by `seed` and split into 10 groups, and those of a group are masked
    together: up to ten genes, each alone. The counts of the slide are not changed.

    Parameters
    ----------
    slide
        Raw counts and ``obsm["spatial"]``.
    model
        A model, or its path or address; ``"default"`` is that of the package.
    genes
        Symbols or Ensembl ids; all genes of the model that the slide lacks if not given. Measured
        genes are estimated again only where they are named here. Genes that the model does not
        know are left out with a warning.
    region
        Spots to impute: a boolean per spot, or ``"KEY=VALUE"``; all if not given.
    scale
        ``"log1p"``: log1p counts, as the model predicts them. ``"counts_per_10k"``: expm1 of
        that, over all counts of the spot but those of genes that are masked with this one, times
        10,000; NaN for a spot without counts.
    mask
        Whether a measured gene is masked in the ``"center"`` while it is predicted there, in the
        whole ``"neighborhood"``, or in the whole ``"slide"``, as if that lacked it.
    adapt
        Whether measured genes are predicted by weights that were adapted to the slide, on other
        spots than the predicted one: see :meth:`sagefm.SageFM.predict_masked`. It takes seconds,
        and leaves out networks that cannot be adapted, genes that the slide lacks, and `mask`
        ``"slide"``.
    seed
        Of the groups, of the spots that are sampled, and of the adaptation.
    layer, slide_key
        As for :meth:`sagefm.SageFM.prepare`.
    key_added
        Where in ``obsm`` the prediction goes.

    Returns
    -------
    A row per gene, over the spots that were imputed:

    - `measured`: whether the slide has the gene; `slide_gene`: its name there; `detected`:
      fraction of the spots with a count; `n`: spots in which it was masked and compared.
    - `r_model`, `mse_model`: correlation within the slide (the mean over several) and mean squared
      error of prediction and truth, in log1p counts, while masked. `r_neighbor_mean`,
      `mse_neighbor_mean`: of the mean of the neighbors, on the same entries. `r_depth`:
      correlation of truth and log1p library size of the spot, without the genes that are masked:
      it needs no model. `r_beyond_depth`: of truth and prediction, library size removed from both.
    - `r_expected`, `r_beyond_depth_expected`: for genes that the slide lacks there is no truth.
      The measured genes are masked everywhere on the slide, a tenth at a time (on 4,096 spots at
      most), and the median of the 50 whose predictions are most similar is given (as common, as
      variable, and following the library size as much); 0 if the prediction does not vary.
      `r_expected_low`, `r_expected_high`: their 10th and 90th percentile, after their distances
      from the median are multiplied by 1.4, because markers differ more than random genes.
    - `p_good`: for genes that the slide lacks, the probability that the prediction is good, a
      correlation of at least 0.3: the fraction of the 50, spread in the same way. Of the genes
      that you keep, their mean `p_good` is expected to be good.
    - `q`, `beats_neighbors`: whether `r_model` is above `r_neighbor_mean` and `r_beyond_depth`
      above 0 by more than chance (`q` below 0.05). This does not say that the prediction is right:
      `r_model` says how right it is. False for a gene that the slide lacks and on fewer than 50
      spots, where `q` is NaN. Correlations are about the pattern over spots, not about the level,
      which can be off: see `mse_model`.

    Sets ``obsm["sagefm_imputed"]`` (DataFrame, spots × genes, float32, missing outside the region)
    and ``uns["sagefm"]["imputed"]``: this table as ``"confidence"``, and how it was made.

    Raises
    ------
    InputError
        A gene is named twice, there is none to impute, the region is empty, an option is out of its
        range, or as :meth:`sagefm.SageFM.prepare`.

    Notes
    -----
    `q` is of one-sided t tests with the standard error of a jackknife over at most 20 areas of each
    section: neighboring spots are no independent observations. The larger p of both is adjusted by
    Benjamini-Hochberg over the genes of the call.

    A prediction is a mean of log1p counts: expm1 of it lies below the mean of counts. The
    network pools the neighborhood, so that a prediction follows the library sizes of the
    neighborhood; dividing by the library size of the spot adds the noise of that.

    For 4,090 to 5,000 genes ``write_h5ad`` fails ("object header message is too large") unless
    ``h5py.get_config().track_order`` is True, as ``sagefm impute`` sets it.
    """
    model = as_model(model)
    _require_choices(scale, mask)
    chosen = None if genes is None else _named(genes, model.vocabulary)
    spots = np.flatnonzero(selected_spots(slide, region))
    aligned = model.open(slide, layer=layer, slide_key=slide_key)
    chosen = chosen or _lacking(model.vocabulary, aligned.measured)
    positions = np.array(list(chosen.values()), dtype=np.int64)
    measured, rng = aligned.measured[positions], np.random.default_rng(seed)
    areas = areas_of(coordinates(slide)[spots], aligned.sections[spots])
    recovery = GeneRecovery(aligned.sections[spots], len(positions), areas)
    values = np.full((slide.n_obs, len(positions)), np.nan, dtype=np.float32)
    groups = _groups(positions, measured, rng)
    adapt = adapt and bool(measured.any()) and _can_adapt(model, aligned, mask)
    for block in masked_blocks(
        model, aligned, spots, positions, groups, mask, adapt=adapt, seed=seed
    ):
        recovery.add(block)
        values[np.ix_(spots[block.spots], block.genes)] = (
            block.predicted if scale == "log1p" else _per_10k(block.predicted, block.library_size)
        )
    table = _observed(recovery, measured, len(spots))
    assert aligned.alignment is not None  # it was aligned from a slide
    table.insert(1, "slide_gene", _slide_genes(aligned.alignment, positions))
    if not measured.all():
        _expect(table, recovery, _sampled(model, aligned, spots, rng))
    tested = measured & (len(spots) >= _LEAST_SPOTS)
    table["q"] = benjamini_hochberg(np.where(tested, recovery.p_beats_neighbors(), np.nan))
    table["beats_neighbors"] = table["q"] < _LEVEL
    table.index = pd.Index(list(chosen), name="gene")
    slide.obsm[key_added] = pd.DataFrame(values, slide.obs_names, list(chosen))
    record(slide, "imputed", {
        "key": key_added,
        "confidence": table.copy(),
        "scale": scale,
        "mask": mask,
        "adapt": adapt,
        "seed": seed,
        "model": repr(model),
        "fingerprint": model.fingerprint,
        "model_provenance": json.dumps(without_records(model.provenance)),
        "genes": aligned.summary,
        "gene_names": known_gene_names().version,
        "sagefm": __version__,
    })  # fmt: skip
    return table


def _can_adapt(model: "SageFM", slide: "AnyAligned", mask: Where) -> bool:
    """Whether weights can be adapted to a slide; log why not."""
    if isinstance(slide, StreamedSlide):
        logger.warning(
            "not adapted to the slide, whose counts are on disk: predicted as with adapt=False"
        )
        return False
    return can_adapt(model.network, mask)


def _require_choices(scale: str, mask: str) -> None:
    for name, value, kinds in (("scale", scale, get_args(Units)), ("mask", mask, _MASKED_IN)):
        if value not in kinds:
            raise InputError(f"{name}={value!r}: choose one of {', '.join(kinds)}")


def _named(genes: Sequence[str], vocabulary: "Vocabulary") -> dict[str, int]:
    """Find the genes that were named: name → position."""
    names = vocabulary.known(genes)
    if not names:
        raise InputError("genes: is empty; leave it out for all genes that the slide lacks")
    chosen: dict[str, int] = {}
    for name, position in zip(names, vocabulary.positions(names).tolist(), strict=True):
        if position in chosen.values():
            raise InputError(f"{name}: is given twice; give every gene once")
        chosen[name] = position
    return chosen


def _lacking(vocabulary: "Vocabulary", measured: NDArray[np.bool_]) -> dict[str, int]:
    """Find the genes that a slide lacks: name → position."""
    if measured.all():
        raise InputError("genes: the slide has all genes of the model; name those to predict again")
    return {vocabulary[i]: i for i in np.flatnonzero(~measured).tolist()}


def _groups(
    positions: Positions, measured: NDArray[np.bool_], rng: np.random.Generator
) -> list[Positions]:
    """Group measured genes in ten groups, and the others in as few as possible."""
    lacking = np.flatnonzero(~measured)
    groups = [lacking[i : i + _TOGETHER] for i in range(0, len(lacking), _TOGETHER)]
    if measured.any():
        # In the order of the vocabulary, so that the order of the names does not matter.
        order = np.flatnonzero(measured)[np.argsort(positions[measured])]
        groups += np.array_split(rng.permutation(order), min(_GROUPS, len(order)))
    return groups


def _per_10k(predicted: Singles, library_size: NDArray[np.float64]) -> Singles:
    """Turn log1p counts into counts per 10,000 of the other genes of each spot."""
    size = np.where(library_size > 0, library_size, np.nan)[:, None]
    return (np.expm1(predicted.astype(np.float64)) / size * 1e4).astype(np.float32)


def _observed(recovery: GeneRecovery, measured: NDArray[np.bool_], n_spots: int) -> pd.DataFrame:
    """Make the table of how well the measured genes were recovered; NaN for the others."""
    scores = {"detected": recovery.detected, **recovery.scores()}
    table = pd.DataFrame({name: np.where(measured, v, np.nan) for name, v in scores.items()})
    table.insert(0, "measured", measured)
    table.insert(2, "n", np.where(measured, n_spots, 0))
    return table.assign(**dict.fromkeys(_EXPECTED, np.nan))


def _sampled(
    model: "SageFM", aligned: "AnyAligned", spots: Positions, rng: np.random.Generator
) -> GeneRecovery:
    """Mask every measured gene as if the slide lacked it, a tenth of the genes at a time."""
    measured = np.flatnonzero(aligned.measured)
    if len(spots) > _SAMPLE:
        spots = spots[np.sort(rng.choice(len(spots), _SAMPLE, replace=False))]
    recovery = GeneRecovery(aligned.sections[spots], len(measured))
    groups = _groups(measured, np.ones(len(measured), dtype=bool), rng)
    for block in masked_blocks(model, aligned, spots, measured, groups, "slide"):
        recovery.add(block)
    return recovery


def _expect(table: pd.DataFrame, recovery: GeneRecovery, sampled: GeneRecovery) -> None:
    """Fill in the expected recovery of the genes that the slide lacks."""
    lacking, scores = ~table["measured"].to_numpy(), sampled.scores()
    known = np.isfinite(scores["r_model"])
    if not known.any():
        return
    similar = similar_genes(recovery.predicted[lacking], sampled.predicted[known])
    r = scores["r_model"][known][similar]
    median = np.median(r, axis=1)
    spread = np.clip(median[:, None] + _WIDER * (r - median[:, None]), -1, 1)
    # Ranks out of 51, so that another gene lies between the 10th and the 90th in 80 % of the cases.
    low, high = np.percentile(spread, [10, 90], axis=1, method="weibull")
    expected = {
        "r_expected": median,
        "r_expected_low": low,
        "r_expected_high": high,
        "r_beyond_depth_expected": np.median(scores["r_beyond_depth"][known][similar], axis=1),
        "p_good": (spread >= _GOOD).mean(axis=1),
    }
    varies = recovery.varies[lacking]
    for column in _EXPECTED:
        table.loc[lacking, column] = np.where(varies, expected[column], 0.0)


def _slide_genes(alignment: "Alignment", positions: Positions) -> list[str]:
    """Get the names of genes on the slide, several joined by ``;``, empty for none."""
    names: dict[int, dict[str, None]] = {position: {} for position in positions.tolist()}
    for name, column in zip(alignment.names, alignment.columns.tolist(), strict=True):
        if column in names:
            names[column][name] = None
    return [";".join(of_gene) for of_gene in names.values()]
