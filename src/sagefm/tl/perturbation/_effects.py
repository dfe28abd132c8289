"""What one slide answers when ligands are raised in the neighbors of its spots."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from sagefm._cache import ResumableCache
from sagefm._types import Floats, Positions
from sagefm.tl.perturbation._perturber import Perturber
from sagefm.tl.perturbation._plan import Plan, View

Progress = Callable[[str], None]
AT_ONCE = 50
"""Genes between two lines of progress, and lost at most when a run is killed."""


@dataclass(frozen=True)
class Found:
    """What one slide answers."""

    response: Floats
    """Pairs × levels: mean predicted target."""
    span: Floats
    """Per pair: how far apart the ligand's lowest and highest level are."""
    screened: Floats
    """Screened genes × targets, then controls: effects, on the spots of the null."""
    reversed: Floats
    """Per pair, on the spots of the null; so is shuffled."""
    shuffled: Floats


@dataclass(frozen=True)
class Asking:
    """One slide, asked in pieces that are kept."""

    view: View
    shelf: ResumableCache
    progress: Progress
    label: str
    """Of what is kept."""

    def means(
        self,
        what: str,
        screen: Perturber,
        genes: Positions,
        wanted: Sequence[Positions],
        levels: int,
    ) -> list[Floats]:
        """Raise each of `genes` and read `wanted`: for each gene, levels × wanted."""
        heights = np.array([self.view.facts.levels(gene, levels) for gene in genes])

        def answers(part: slice) -> Floats:
            found = screen.means(genes[part], heights[part], wanted[part])
            return np.concatenate([means.ravel() for means in found])

        found: list[Floats] = []
        for start in range(0, len(genes), AT_ONCE):
            part = slice(start, start + AT_ONCE)
            flat = self.shelf.get(f"{self.label}.{what}.{start}", partial(answers, part))
            sizes = [(levels, len(own)) for own in wanted[part]]
            ends = np.cumsum([height * width for height, width in sizes])[:-1]
            pieces = zip(np.split(flat, ends), sizes, strict=True)
            found += [piece.reshape(size) for piece, size in pieces]
            where = f"{self.view.name}: " if self.view.name else ""
            self.progress(f"{where}{what}: {len(found)} of {len(genes)} genes")
        return found


def ask(
    view: View,
    plan: Plan,
    levels: int,
    n_null_spots: int,
    seed: int,
    shelf: ResumableCache,
    progress: Progress,
) -> Found:
    """Ask one slide all that a plan wants to know.

    `n_null_spots` of its spots, drawn with `seed`, answer what nulls need.
    """
    neighbors, slide = view.prepared.neighbors, (view.reading, view.prepared)
    drawn = view.draw(n_null_spots, seed)
    strange = shuffled_neighbors(view.prepared.sections, drawn, seed)
    mixed = np.column_stack([neighbors[drawn, :1], neighbors[strange, 1:]])
    around = Perturber(*slide, neighbors[view.spots], plan.targets)
    shuffled = Perturber(*slide, mixed, plan.targets)
    turned = Perturber(*slide, neighbors[drawn], plan.ligands)

    asking = Asking(view, shelf, progress, view.name)
    means = asking.means
    forward = plan.partners(plan.ligand, plan.ligands, plan.target)
    backward = plan.partners(plan.target, plan.targets, plan.ligand)
    pairs = (plan.ligands, plan.ligand, forward, plan.target)
    response = _per_pair(*pairs, means("ligands", around, plan.ligands, forward, levels))
    astray = _per_pair(*pairs, means("shuffled neighbors", shuffled, plan.ligands, forward, 2))
    back = means("reversed", turned, plan.targets, backward, 2)
    # A gene that the slide does not show cannot be raised there.
    silent = view.facts.high == 0
    response[silent[plan.ligand]] = np.nan
    astray[silent[plan.ligand]] = np.nan
    turned_back = _per_pair(plan.targets, plan.target, backward, plan.ligand, back)
    turned_back[silent[plan.target]] = np.nan
    return Found(
        response=response,
        span=(view.facts.high - view.facts.low)[plan.ligand],
        screened=screened(plan, drawn, asking),
        reversed=turned_back[:, -1] - turned_back[:, 0],
        shuffled=astray[:, -1] - astray[:, 0],
    )


def shuffled_neighbors(slides: Positions, spots: Positions, seed: int) -> Positions:
    """Draw for each of some spots another of its slide, whose neighbors it is given.

    `slides` tells for each spot of the object the number of its slide.
    """
    chance = np.random.default_rng([seed, 1])
    found = np.empty_like(spots)
    for number in np.unique(slides[spots]):
        own, here = np.flatnonzero(slides == number), slides[spots] == number
        found[here] = own[chance.choice(len(own), here.sum(), replace=False)]
    return found


def screened(plan: Plan, spots: Positions, asking: Asking) -> Floats:
    """Raise ligands and the genes of their nulls: effects on targets, then controls."""
    view = asking.view
    neighbors = view.prepared.neighbors[spots]
    screen = Perturber(view.reading, view.prepared, neighbors, plan.targets)
    every = [np.concatenate([plan.targets, plan.controls])] * len(plan.screened)
    found = np.array(asking.means("nulls", screen, plan.screened, every, 2))
    found[view.facts.high[plan.screened] == 0] = np.nan
    return np.asarray(found[:, -1] - found[:, 0])


def _per_pair(
    genes: Positions,
    gene: Positions,
    wanted: Sequence[Positions],
    read: Positions,
    found: Sequence[Floats],
) -> Floats:
    """Pick each pair's row of levels from what was found gene by gene: pairs × levels."""
    at = np.searchsorted(genes, gene)
    return np.stack(
        [found[i][:, np.searchsorted(wanted[i], r)] for i, r in zip(at, read, strict=True)]
    )


def mean(parts: Sequence[Floats]) -> Floats:
    """Average over slides; what no slide has is missing."""
    stacked = np.array(parts)
    known = ~np.isnan(stacked)
    total = np.where(known, stacked, 0.0).sum(axis=0)
    n = known.sum(axis=0)
    return np.where(n > 0, total / np.maximum(n, 1), np.nan)
