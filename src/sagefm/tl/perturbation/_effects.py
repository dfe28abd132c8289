"""Compute on one slide the effects of ligands that are raised in the neighbors."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from sagefm._cache import ResumableCache
from sagefm._types import Floats, Positions
from sagefm.tl.perturbation._perturber import Perturber
from sagefm.tl.perturbation._plan import PerturbationPlan, PerturbedSlide

Progress = Callable[[str], None]
_BATCH = 50
"""Genes per line of progress and per cached array."""


@dataclass(frozen=True)
class SlideEffects:
    """Effects on one slide, in log1p counts."""

    response: Floats
    """Pairs × levels: mean predicted target."""
    span: Floats
    """Per pair: the ligand's highest level minus its lowest."""
    screened: Floats
    """Screened genes × targets, then controls, on the spots of the null."""
    reversed: Floats
    """Per pair, on the spots of the null: the target raised, the ligand predicted."""
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
    n_null_spots: int,
    seed: int,
    cache: ResumableCache,
    progress: Progress,
) -> SlideEffects:
    """Compute all effects of a plan on one slide.

    Nulls are computed on `n_null_spots` of its spots, drawn with `seed`.
    """
    neighbors, network = slide.prepared.neighbors, (slide.encoded, slide.by_gene)
    drawn = slide.draw(n_null_spots, seed)
    others = shuffled_neighbors(slide.prepared.sections, drawn, seed)
    mixed = np.column_stack([neighbors[drawn, :1], neighbors[others, 1:]])
    raised = Perturber(*network, neighbors[slide.spots], plan.targets)
    shuffled = Perturber(*network, mixed, plan.targets)
    reverse = Perturber(*network, neighbors[drawn], plan.ligands)

    perturber = SlidePerturber(slide, cache, progress, slide.name)
    means = perturber.means
    forward = plan.partners(plan.ligand, plan.ligands, plan.target)
    backward = plan.partners(plan.target, plan.targets, plan.ligand)
    pairs = (plan.ligands, plan.ligand, forward, plan.target)
    response = _per_pair(*pairs, means("ligands", raised, plan.ligands, forward, levels))
    with_others = _per_pair(*pairs, means("shuffled neighbors", shuffled, plan.ligands, forward, 2))
    raised_targets = means("reversed", reverse, plan.targets, backward, 2)
    # A gene without counts on the slide has no levels to be raised to.
    silent = slide.facts.high == 0
    response[silent[plan.ligand]] = np.nan
    with_others[silent[plan.ligand]] = np.nan
    backward_means = _per_pair(plan.targets, plan.target, backward, plan.ligand, raised_targets)
    backward_means[silent[plan.target]] = np.nan
    return SlideEffects(
        response=response,
        span=(slide.facts.high - slide.facts.low)[plan.ligand],
        screened=screened_effects(plan, drawn, perturber),
        reversed=backward_means[:, -1] - backward_means[:, 0],
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


def screened_effects(plan: PerturbationPlan, spots: Positions, perturber: SlidePerturber) -> Floats:
    """Raise ligands and the genes of their nulls: effects on targets, then controls."""
    slide = perturber.slide
    neighbors = slide.prepared.neighbors[spots]
    network = Perturber(slide.encoded, slide.by_gene, neighbors, plan.targets)
    every = [np.concatenate([plan.targets, plan.controls])] * len(plan.screened)
    means = np.array(perturber.means("nulls", network, plan.screened, every, 2))
    means[slide.facts.high[plan.screened] == 0] = np.nan
    return np.asarray(means[:, -1] - means[:, 0])


def _per_pair(
    genes: Positions,
    gene: Positions,
    wanted: Sequence[Positions],
    predicted: Positions,
    means: Sequence[Floats],
) -> Floats:
    """Pick the levels of each pair from the means of its raised gene: pairs × levels."""
    at = np.searchsorted(genes, gene)
    return np.stack(
        [means[i][:, np.searchsorted(wanted[i], p)] for i, p in zip(at, predicted, strict=True)]
    )


def mean(per_slide: Sequence[Floats]) -> Floats:
    """Average over slides, without missing values; NaN where all are missing."""
    stacked = np.array(per_slide)
    known = ~np.isnan(stacked)
    total = np.where(known, stacked, 0.0).sum(axis=0)
    n = known.sum(axis=0)
    return np.where(n > 0, total / np.maximum(n, 1), np.nan)
