"""A slide with a part of each spot's genes hidden: what a model recovers, and what needs none."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from sagefm import nn
from sagefm.evaluate.baselines import predictors
from sagefm.evaluate.baselines.reference import Reference
from sagefm.evaluate.baselines.shown import Guess, Shown, View
from sagefm.evaluate.protocols.recovery_tables import DETECTED
from sagefm.pp.counts import coordinates, section_codes
from sagefm.pp.curve import along_curve
from sagefm.stats.genes import GeneSums, GeneTally, MaskedTruth

if TYPE_CHECKING:
    from anndata import AnnData

    from sagefm.model import SageFM
    from sagefm.pp.aligned import AlignedSlide

MODEL = "model"
GENE_MEAN = predictors.GENE_MEAN
NEIGHBOR_MEAN = predictors.NEIGHBOR_MEAN
DEPTH = "slide profile × depth"
_AT_ONCE = 1024
"""Spots whose predictions stand in memory together."""


@dataclass(frozen=True)
class Recovery:
    """How well hidden genes are recovered."""

    methods: pd.DataFrame
    """A row per method, the best first: error (mean squared, log1p counts), r (median over genes
    of the correlation within the slide)."""
    genes: pd.DataFrame
    """A row per gene and method: gene, method, detected, mse, r_within."""
    errors: dict[str, NDArray[np.float64]]
    """For the model and the neighbor mean the error of each spot; NaN where nothing is scored."""


def recover(
    slide: "AnnData",
    model: "SageFM",
    prepared: "AlignedSlide",
    *,
    mask_fraction: float,
    seed: int,
    layer: str | None,
    slide_key: str | None,
) -> Recovery | None:
    """Hide a part of the measured genes of every spot, and let the model and baselines fill it in.

    The baselines are those of :func:`sagefm.evaluate.recovery` that need no other slide, and the
    gene's mean over this slide. What is scored are the genes that are detected in more than 10 %
    of the spots of a slide; None where there is no such gene.
    """
    columns = np.arange(len(model.vocabulary))
    tallies: dict[str, GeneTally] = {}
    errors = {name: np.full(slide.n_obs, np.nan) for name in (MODEL, NEIGHBOR_MEAN)}
    detected = np.zeros(len(columns))
    places, codes = coordinates(slide), section_codes(slide, slide_key)
    for code in np.unique(codes):
        own = np.flatnonzero(codes == code)
        rows = own[along_curve(places[own])]  # so that the spots of a block share neighbors
        part = prepared.subset(rows)
        view = View(slide, part.counts, part.log1p, part.neighbors, part.measured, None)
        genes = np.flatnonzero(view.measured & (view.detected > DETECTED[0]))
        if not len(genes):
            continue
        sums: dict[str, GeneSums] = {}
        reading = model.encode(part)
        for shown, hidden in _blocks(view, genes, mask_fraction, seed):
            for name, guess in _guesses(model, reading, shown, seed):
                sums.setdefault(name, GeneSums.zeros(len(genes))).add(hidden.score(*guess))
                if name in errors:
                    errors[name][rows[shown.spots]] = _per_spot(guess, hidden)
        for name, total in sums.items():
            tallies.setdefault(name, GeneTally.begin(len(columns))).add(total, genes)
        detected = np.maximum(detected, np.where(np.isin(columns, genes), view.detected, 0))
    if not tallies:
        return None
    often = detected > 0
    symbols = list(model.vocabulary)
    tables = {
        name: tally.table(symbols)[often].assign(method=name, detected=detected[often])
        for name, tally in tallies.items()
    }
    return Recovery(_summary(tables), pd.concat(tables.values(), ignore_index=True), errors)


def _blocks(
    view: View, genes: NDArray[np.int64], fraction: float, seed: int
) -> Iterator[tuple[Shown, MaskedTruth]]:
    """Draw what every spot hides, over the measured genes, and give some spots after others."""
    n_spots = len(view.neighbors)
    chance = np.random.default_rng(seed)
    drawn = nn.draw_masks(n_spots, int(view.measured.sum()), fraction, chance)
    for start in range(0, n_spots, _AT_ONCE):
        some = slice(start, start + _AT_ONCE)
        shown = Shown(view, "center", np.arange(n_spots)[some], drawn.of(some), genes)
        yield shown, MaskedTruth(shown.counts[:, genes], shown.hidden[:, genes], shown.depth)


def _guesses(
    model: "SageFM", reading: nn.EncodedSlide, shown: Shown, seed: int
) -> Iterator[tuple[str, Guess]]:
    hidden = nn.MaskedGenes(np.arange(len(model.vocabulary)), shown.hidden)
    wanted = torch.from_numpy(shown.genes).to(model.device)
    with torch.inference_mode():
        centers = reading.centers(shown.view.neighbors[shown.spots], hidden)
        predicted = centers.predict(wanted).cpu().numpy()
    yield MODEL, Guess(predicted)
    mean = np.asarray(shown.view.log.mean(axis=0), dtype=np.float32).ravel()[shown.genes]
    yield GENE_MEAN, Guess(np.broadcast_to(mean, (len(shown.spots), len(mean))))
    for baseline in predictors.baselines(Reference((), seed), seed):
        if (guess := baseline(shown)) is not None:
            yield baseline.name, guess


def _per_spot(guess: Guess, hidden: MaskedTruth) -> NDArray[np.float64]:
    """Mean squared error over the genes that a spot hides; NaN where it hides none."""
    return hidden.per_spot((hidden.of(guess.log1p) - hidden.truth) ** 2)


def _summary(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    rows = {
        name: {
            "error": float(np.average(table["mse"], weights=table["n"])),
            "r": float(table["r_within"].median()),
        }
        for name, table in tables.items()
    }
    found = pd.DataFrame.from_dict(rows, orient="index").rename_axis("method")
    return found.sort_values("error", kind="stable")
