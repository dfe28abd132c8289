"""Training and validation spots of a run: slides, split by patient, aligned to one vocabulary."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from sagefm._errors import InputError, logger
from sagefm._text import few
from sagefm.model import Config
from sagefm.pp.aligned import AlignedSlide
from sagefm.pp.detection import most_detected
from sagefm.pp.gene_lists import read_genes
from sagefm.pp.sections import Section
from sagefm.pp.vocabulary import Vocabulary
from sagefm.pretrain.folds import folds_of
from sagefm.pretrain.memory import Memory
from sagefm.pretrain.plan import BatchPlan, Tile, tiles_of
from sagefm.pretrain.recipe import DataTable, Recipe
from sagefm.pretrain.source import Selected, Source
from sagefm.pretrain.split import hold_out
from sagefm.pretrain.tasks import TASKS

if TYPE_CHECKING:
    from anndata import AnnData

Spots = dict[str, NDArray[np.int64]]
"""Slide name → numbers of its spots, along its curve."""


@dataclass(frozen=True)
class Split:
    """A source, with the spots to train on and those to validate on."""

    source: Source
    training: Spots
    validation: Spots

    def plan(self, spots: Spots, recipe: Recipe, *, mixed: bool = True) -> BatchPlan:
        """Plan the batches of an epoch over `spots`."""
        table, tiles = self.source.table, dict[Tile, NDArray[np.int64]]()
        kind, sizes = TASKS[recipe.network.name].plan, _sizes(table)
        for slide, chosen in spots.items():
            tiles |= tiles_of(slide, chosen, sizes[slide], kind.most)
        weights = _weights(table, recipe.data.weights) if mixed else {}
        if mixed and recipe.data.balance:
            balanced = _balanced(table.loc[list(spots)], recipe.data.balance)
            weights = {slide: n * weights.get(slide, 1.0) for slide, n in balanced.items()}
        size, patch = recipe.train.batch_size, recipe.data.patch
        if isinstance(self.source, Memory):  # all slides are in memory anyway
            return kind(tiles, size, patch, weights, window=len(tiles))
        return kind(tiles, size, patch, weights)


def split_spots(table: pd.DataFrame, data: DataTable, seed: int) -> tuple[Spots, Spots]:
    """Choose the spots to train on and those to validate on, all of a patient on one side.

    With a single patient a connected area of each slide is held out instead, with a warning. With
    an empty list of patients to validate on, nobody is held out.

    Parameters
    ----------
    table
        A row per slide: patient, spots.

    Raises
    ------
    InputError
        No slide is of a patient that is named, or no patient is left to train on.
    """
    unknown = sorted(set(data.leave_out) - set(table["patient"]))
    if unknown:
        raise InputError(f"data.leave_out: no slide is of patient {unknown[0]!r}")
    left_out = table["patient"].isin(data.leave_out)
    if data.fold:
        left_out |= folds_of(table, data.folds) == data.fold
    table = table[~left_out]
    if table.empty:
        raise InputError("no slides to train on; name at least one that is not left out")
    sizes = _sizes(table)
    if data.validation == []:
        return {slide: np.arange(size) for slide, size in sizes.items()}, {}
    held = hold_out(table["patient"].to_numpy(dtype=str), data.validation, seed)
    if held.any():
        names = table.index.to_numpy()
        return (
            {slide: np.arange(sizes[slide]) for slide in names[~held].tolist()},
            {slide: np.arange(sizes[slide]) for slide in names[held].tolist()},
        )
    fraction = data.validation if isinstance(data.validation, float) else 0.1
    logger.warning(
        "all slides are of one patient: a connected area of each (%.0f %% of its spots) is held "
        "out, and the validation loss does not tell how other patients are predicted",
        100 * fraction,
    )
    cuts = {slide: size - max(1, round(fraction * size)) for slide, size in sizes.items()}
    return (
        {slide: np.arange(cut) for slide, cut in cuts.items()},
        {slide: np.arange(cut, sizes[slide]) for slide, cut in cuts.items()},
    )


def of_memory(
    slides: Mapping[str, "AnnData"], sections: Iterable[Section], recipe: Recipe
) -> Split:
    """Split and align slides in memory."""
    sections = list(sections)
    rows = {each.name: {"patient": each.patient, "spots": len(each.rows)} for each in sections}
    table = pd.DataFrame.from_dict(rows, orient="index")
    training, validation = split_spots(table, recipe.data, recipe.train.seed)
    if isinstance(recipe.data.genes, str):
        vocabulary = read_genes(recipe.data.genes)
    else:
        trained = {id(slide): np.zeros(slide.n_obs, dtype=bool) for slide in slides.values()}
        for section in sections:
            trained[id(section.slide)][section.rows[training.get(section.name, [])]] = True
        masks = [trained[id(slide)] for slide in slides.values()]
        vocabulary = most_detected(list(slides.values()), masks, recipe.data.genes)
    used = [each for each in sections if each.name in training or each.name in validation]
    return Split(Memory(used, vocabulary, Config().n_neighbors), training, validation)


def of_corpus(corpus: Source, recipe: Recipe) -> Split:
    """Split a corpus, and align it to the genes of the recipe."""
    training, validation = split_spots(corpus.table, recipe.data, recipe.train.seed)
    if isinstance(recipe.data.genes, str):
        vocabulary = read_genes(recipe.data.genes)
    else:
        vocabulary = _most_detected(corpus, training, recipe.data.genes)
    if vocabulary.symbols == corpus.vocabulary.symbols:
        return Split(corpus, training, validation)
    return Split(Selected.of(corpus, vocabulary), training, validation)


def _most_detected(corpus: Source, training: Spots, n_genes: int) -> Vocabulary:
    """Choose the genes of a corpus that are detected in the most training spots."""
    detected = np.zeros(len(corpus.vocabulary), dtype=np.int64)
    for slide, spots in training.items():
        if len(spots) == corpus.table.loc[slide, "spots"]:
            detected += corpus.detected(slide)
        else:
            for centers in _centers(corpus, {slide: spots}):
                detected += np.bincount(centers.indices, minlength=len(detected))
    symbols, ensembl = corpus.vocabulary.symbols, corpus.vocabulary.ensembl
    ranked = sorted(np.flatnonzero(detected).tolist(), key=lambda i: (-detected[i], symbols[i]))
    if len(ranked) < n_genes:
        logger.warning(
            "the training slides have %d detected genes, the recipe wants %d: all are used",
            len(ranked), n_genes,
        )  # fmt: skip
    chosen = ranked[:n_genes]
    return Vocabulary(tuple(symbols[i] for i in chosen), tuple(ensembl[i] for i in chosen))


def gene_mean_of(split: Split) -> torch.Tensor:
    """Average the log1p counts of each gene over the training spots: one pass over the data."""
    total = np.zeros(len(split.source.vocabulary))
    for centers in _centers(split.source, split.training):
        total += centers.sum(axis=0).A1
    return torch.from_numpy(total / sum(map(len, split.training.values()))).float()


def read_tiles(source: Source, spots: Spots) -> Iterator[tuple[AlignedSlide, NDArray[np.int64]]]:
    """Read some spots tile by tile: each with the numbers of these spots in it."""
    sizes = _sizes(source.table)
    for slide, chosen in spots.items():
        for tile, numbers in tiles_of(slide, chosen, sizes[slide]).items():
            yield source.read(*tile), numbers


def _centers(source: Source, spots: Spots) -> Iterator[csr_matrix]:
    """Read the log1p counts of some spots tile by tile."""
    for tile, numbers in read_tiles(source, spots):
        yield tile.log1p[tile.neighbors[numbers, 0]]


def _weights(table: pd.DataFrame, wanted: Mapping[str, float]) -> dict[str, float]:
    """Get how often a spot of each slide is used: the weight of the slide, else of its organ."""
    organs = _organs(table)
    unknown = sorted(set(wanted) - set(table.index) - set(organs))
    if unknown:
        raise InputError(
            f"data.weights: {unknown[0]!r} is neither a slide nor an organ; there is "
            f"{few(sorted({*organs, *table.index} - {''}), 8)}"
        )
    by_organ = {slide: wanted[organ] for slide, organ in organs.items() if organ in wanted}
    return by_organ | {slide: wanted[slide] for slide in table.index if slide in wanted}


def _balanced(table: pd.DataFrame, balance: float) -> dict[str, float]:
    """Get how often a spot of each slide is used for organs to be used about equally often."""
    organs = _organs(table)
    spots = table["spots"].groupby(organs).sum()
    if len(spots) == 1:
        logger.warning(
            "data.balance does nothing: the training slides are of one organ, or of none known"
        )
    often = spots**-balance
    often *= spots.sum() / (often * spots).sum()
    return {str(slide): float(often[organ]) for slide, organ in organs.items()}


def _organs(table: pd.DataFrame) -> "pd.Series[str]":
    return table["organ"] if "organ" in table else pd.Series("", index=table.index)


def _sizes(table: pd.DataFrame) -> dict[str, int]:
    return {str(slide): int(n) for slide, n in zip(table.index, table["spots"], strict=True)}
