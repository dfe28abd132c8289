"""Mask genes of a slide, and compare a model with simple methods on them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sagefm._types import Positions
from sagefm.evaluate.baselines import predictors, training_free
from sagefm.evaluate.baselines.masked import MaskedSpots, PanelSlide, Prediction, Predictor
from sagefm.evaluate.protocols.recovery_tables import DETECTED
from sagefm.nn import draw_masks
from sagefm.pp.counts import coordinates
from sagefm.pp.curve import along_curve
from sagefm.pp.sections import section_codes
from sagefm.stats.genes import GeneSums, GeneTally, MaskedTruth

if TYPE_CHECKING:
    from anndata import AnnData

    from sagefm.model import SageFM
    from sagefm.pp.aligned import AlignedSlide

MODEL = "model"
UNADAPTED = "model, not adapted"
GENE_MEAN = predictors.GENE_MEAN
NEIGHBOR_MEAN = training_free.NEIGHBOR_MEAN
LIBRARY_SIZE = training_free.SLIDE_PROFILE
_BLOCK = 1024
"""Spots whose predictions are in memory together."""


@dataclass(frozen=True)
class Recovery:
    """How well masked genes are recovered."""

    methods: pd.DataFrame
    """A row per method, the best first: error (mean squared, log1p counts), r (median over genes
    of the correlation within the slide)."""
    genes: pd.DataFrame
    """A row per gene and method: gene, method, detected, mse, r_within."""
    errors: dict[str, NDArray[np.float64]]
    """The error of each spot, for the model and the neighbor mean; NaN if nothing is scored."""


def recover(
    slide: "AnnData",
    model: "SageFM",
    prepared: "AlignedSlide",
    *,
    mask_fraction: float,
    seed: int,
    layer: str | None,
    slide_key: str | None,
    adapt: bool,
    compare_unadapted: bool = False,
) -> Recovery | None:
    """Mask genes of every spot, and predict them by the model and by baselines.

    The baselines are those of :func:`sagefm.evaluate.recovery` that need no other slide, and the
    mean of the gene over this slide. Only genes that are detected in more than 10 % of the spots
    of a section are scored; None if there is no such gene.

    Parameters
    ----------
    compare_unadapted
        Whether to score the model without adaptation too, if it is adapted.
    """
    columns = np.arange(len(model.vocabulary))
    variants = {MODEL: adapt} | ({UNADAPTED: False} if adapt and compare_unadapted else {})
    tallies: dict[str, GeneTally] = {}
    errors = {name: np.full(slide.n_obs, np.nan) for name in (MODEL, NEIGHBOR_MEAN)}
    detected = np.zeros(len(columns))
    xy, codes = coordinates(slide), section_codes(slide, slide_key)
    for code in np.unique(codes):
        rows = np.flatnonzero(codes == code)
        rows = rows[along_curve(xy[rows])]  # so that the spots of a block share neighbors
        aligned = prepared.subset(rows)
        section = PanelSlide.of_aligned(slide, aligned)
        genes = np.flatnonzero(section.measured & (section.detected > DETECTED[0]))
        if not len(genes):
            continue
        sums: dict[str, GeneSums] = {}
        whole = _mask(section, genes, mask_fraction, seed)
        baselines = training_free.training_free(whole, seed)
        for masked, predicted in _blocks(model, aligned, whole, seed, variants):
            mask, library_size = masked.mask[:, genes], masked.library_size
            truth = MaskedTruth(masked.counts[:, genes], mask, library_size)
            for name, prediction in [*predicted.items(), *_baselines(masked, baselines)]:
                sums.setdefault(name, GeneSums.zeros(len(genes))).add(truth.score(*prediction))
                if name in errors:
                    squared = (truth.of(prediction.log1p) - truth.truth) ** 2
                    errors[name][rows[masked.spots]] = truth.per_spot(squared)
        for name, total in sums.items():
            tallies.setdefault(name, GeneTally.begin(len(columns))).add(total, genes)
        detected = np.maximum(detected, np.where(np.isin(columns, genes), section.detected, 0))
    if not tallies:
        return None
    often = detected > 0
    symbols = list(model.vocabulary)
    tables = {
        name: tally.table(symbols)[often].assign(method=name, detected=detected[often])
        for name, tally in tallies.items()
    }
    return Recovery(_summary(tables), pd.concat(tables.values(), ignore_index=True), errors)


def _mask(slide: PanelSlide, genes: Positions, fraction: float, seed: int) -> MaskedSpots:
    """Draw masks over the measured genes."""
    n_spots = len(slide.neighbors)
    rng = np.random.default_rng(seed)
    drawn = draw_masks(n_spots, int(slide.measured.sum()), fraction, rng)
    return MaskedSpots(slide, "center", np.arange(n_spots), drawn, genes)


def _blocks(
    model: "SageFM", aligned: "AlignedSlide", whole: MaskedSpots, seed: int,
    variants: Mapping[str, bool],
) -> Iterator[tuple[MaskedSpots, dict[str, Prediction]]]:  # fmt: skip
    """Predict the masked spots block by block, adapted or not by name."""
    predictions = (
        model.predict_masked(
            aligned, [whole.genes], mask=lambda block: whole.of(block).mask, block_size=_BLOCK,
            adapt=adapt, seed=seed,
        )
        for adapt in variants.values()
    )  # fmt: skip
    for same in zip(*predictions, strict=True):
        named = zip(variants, same, strict=True)
        yield whole.of(same[0].spots), {name: Prediction(one.log1p) for name, one in named}


def _baselines(masked: MaskedSpots, baselines: list[Predictor]) -> Iterator[tuple[str, Prediction]]:
    mean = np.asarray(masked.slide.log.mean(axis=0), dtype=np.float32).ravel()[masked.genes]
    yield GENE_MEAN, Prediction(np.broadcast_to(mean, (len(masked.spots), len(mean))))
    for baseline in baselines:
        if (prediction := baseline(masked)) is not None:
            yield baseline.name, prediction


def _summary(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    rows = {
        name: {
            "error": float(np.average(table["mse"], weights=table["n"])),
            "r": float(table["r_within"].median()),
        }
        for name, table in tables.items()
    }
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("method")
    return table.sort_values("error", kind="stable")
