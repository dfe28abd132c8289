"""Compute on one slide the effects of ligands that are raised in the neighbors."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from sagefm._cache import ResumableCache
from sagefm._types import Floats, Hold, Positions
from sagefm.tl.perturbation._perturber import Perturber
from sagefm.tl.perturbation._plan import Direction, PerturbationPlan
from sagefm.tl.perturbation._slides import PerturbedSlide

Progress = Callable[[str], None]
_BATCH = 50
"""Genes per line of progress and per cached array."""


@dataclass(frozen=True)
class SlideEffects:
    """Effects on one slide, in log1p counts."""

    n_spots: int
    """Over which the responses of pairs are averaged."""
    response: Floats
    """Pairs × levels: mean predicted target."""
    span: Floats
    """Per pair: the ligand's highest level minus its lowest."""
    forward: Floats
    """Raised genes × columns of that direction, on the spots of the null; so is `reversed`."""
    reversed: Floats
    shuffled: Floats
    """Per pair, on the spots of the null, with the neighbors of other spots."""


@dataclass(frozen=True)
class SlidePerturber:
    """Perturb one slide in batches of genes that are cached."""

    slide: PerturbedSlide
    cache: ResumableCache
    progress: Progress
    label: str
    """Begins the names of cached arrays."""

    def means(
        self,
        what: str,
        perturber: Perturber,
        genes: Positions,
        wanted: Sequence[Positions],
        levels: int,
    ) -> list[Floats]:
        """Raise each of `genes` and predict `wanted`: for each gene, levels × wanted."""
        heights = np.array([self.slide.facts.levels(gene, levels) for gene in genes])

        def compute(batch: slice) -> Floats:
            means = perturber.means(genes[batch], heights[batch], wanted[batch])
            return np.concatenate([one.ravel() for one in means])

        results: list[Floats] = []
        for start in range(0, len(genes), _BATCH):
            batch = slice(start, start + _BATCH)
            flat = self.cache.get(f"{self.label}.{what}.{start}", partial(compute, batch))
            sizes = [(levels, len(targets)) for targets in wanted[batch]]
            ends = np.cumsum([height * width for height, width in sizes])[:-1]
            flat_means = zip(np.split(flat, ends), sizes, strict=True)
            results += [means.reshape(size) for means, size in flat_means]
            name = f"{self.slide.name}: " if self.slide.name else ""
            self.progress(f"{name}{what}: {len(results)} of {len(genes)} genes")
        return results


def slide_effects(
    slide: PerturbedSlide,
    plan: PerturbationPlan,
    levels: int,
    n_spots: int,
    n_null_spots: int,
    seed: int,
    hold: Hold,
    cache: ResumableCache,
    progress: Progress,
) -> SlideEffects:
    """Compute all effects of a plan on one slide.

    Those of pairs are means over `n_spots` of its spots, and nulls over `n_null_spots`, drawn with
    `seed`.
    """
    neighbors, network = slide.prepared.neighbors, (slide.encoded, slide.by_gene)
    forward = plan.forward
    drawn = slide.draw(n_null_spots, seed)
    others = shuffled_neighbors(slide.prepared.sections, drawn, seed)
    mixed = np.column_stack([neighbors[drawn, :1], neighbors[others, 1:]])
    spots = slide.draw(n_spots, seed)
    raised = Perturber(*network, neighbors[spots], forward.targets, hold=hold)
    shuffled = Perturber(*network, mixed, forward.targets, hold=hold)

    perturber = SlidePerturber(slide, cache, progress, slide.name)
    wanted = forward.partners()
    means = perturber.means("ligands", raised, forward.sources, wanted, levels)
    response = _per_pair(forward, wanted, means)
    means = perturber.means("shuffled neighbors", shuffled, forward.sources, wanted, 2)
    with_others = _per_pair(forward, wanted, means)
    # A gene without counts on the slide has no levels to be raised to.
    silent = slide.facts.high[forward.source] == 0
    response[silent] = np.nan
    with_others[silent] = np.nan
    return SlideEffects(
        n_spots=len(spots),
        response=response,
        span=(slide.facts.high - slide.facts.low)[forward.source],
        forward=screened_effects(forward, drawn, perturber, hold),
        reversed=screened_effects(plan.reversed, drawn, perturber, hold),
        shuffled=with_others[:, -1] - with_others[:, 0],
    )


def shuffled_neighbors(sections: Positions, spots: Positions, seed: int) -> Positions:
    """Draw for each of some spots another of its section, whose neighbors it is given.

    `sections` has for each spot of the object the number of its section.
    """
    chance = np.random.default_rng([seed, 1])
    others = np.empty_like(spots)
    for section in np.unique(sections[spots]):
        members, here = np.flatnonzero(sections == section), sections[spots] == section
        others[here] = members[chance.choice(len(members), here.sum(), replace=False)]
    return others


def screened_effects(
    direction: Direction, spots: Positions, perturber: SlidePerturber, hold: Hold
) -> Floats:
    """Raise the genes of one direction and those they are compared with: raised × columns."""
    slide, columns = perturber.slide, direction.columns
    neighbors = slide.prepared.neighbors[spots]
    network = Perturber(slide.encoded, slide.by_gene, neighbors, columns, hold=hold)
    every, what = [columns] * len(direction.raised), f"nulls, {direction.name}"
    means = np.array(perturber.means(what, network, direction.raised, every, 2))
    means[slide.facts.high[direction.raised] == 0] = np.nan
    return np.asarray(means[:, -1] - means[:, 0])


def _per_pair(direction: Direction, wanted: Sequence[Positions], means: Sequence[Floats]) -> Floats:
    """Pick the levels of each pair from the means of its raised gene: pairs × levels."""
    at = np.searchsorted(direction.sources, direction.source)
    return np.stack(
        [
            means[i][:, np.searchsorted(wanted[i], target)]
            for i, target in zip(at, direction.target, strict=True)
        ]
    )


def mean(per_slide: Sequence[Floats]) -> Floats:
    """Average over slides, without missing values; NaN where all are missing."""
    stacked = np.array(per_slide)
    known = ~np.isnan(stacked)
    total = np.where(known, stacked, 0.0).sum(axis=0)
    n = known.sum(axis=0)
    return np.where(n > 0, total / np.maximum(n, 1), np.nan)
