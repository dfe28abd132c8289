"""The spots of every batch of an epoch, from seed and epoch alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

TILE = 2048
"""Spots that are read at a time."""
CONTEXT_TILE = 700
"""Spots that are read at a time where all of them are the context of each."""
WINDOW = 16
"""Tiles whose patches are mixed, and which are therefore in memory at the same time."""


class Tile(NamedTuple):
    """Spots `start` to `stop` of a slide, in the order of its curve."""

    slide: str
    start: int
    stop: int


class Patch(NamedTuple):
    """A few spots of a tile that lie near each other."""

    tile: Tile
    spots: NDArray[np.int64]
    """Counted from the start of the tile."""


@dataclass(frozen=True)
class BatchPlan:
    """The spots of an epoch, by tile, and how they are cut and mixed.

    Parameters
    ----------
    tiles
        Tile → the spots of it to use, counted from its start.
    batch_size
        Spots of a batch.
    patch
        Spots of a patch; spots of one patch have most of their neighbors in common.
    weights
        Slide → how often a spot of it is used in an epoch, on average; 1 where not given.
    window
        Tiles to mix.
    """

    tiles: Mapping[Tile, NDArray[np.int64]]
    batch_size: int
    patch: int
    weights: Mapping[str, float]
    window: int = WINDOW

    most: ClassVar[int | None] = None
    """Maximal number of spots of a tile; :data:`TILE` if not given."""

    @property
    def n_spots(self) -> int:
        """Number of spots."""
        return sum(map(len, self.tiles.values()))

    def in_order(self) -> list[list[Patch]]:
        """Get batches that go through the tiles once, one after the other."""
        return self._batches([Patch(tile, spots) for tile, spots in self.tiles.items()])

    def shuffled(self, seed: int, epoch: int) -> list[list[Patch]]:
        """Draw the batches of an epoch, each of patches from several tiles.

        The tiles are put in random order. Every patch of the r-th tile draws a moment between r
        and r + window, and patches are sorted by their moments: a rolling shuffle that never needs
        more than `window` tiles at a time.
        """
        chance = np.random.default_rng([seed, epoch])
        keys = list(self.tiles)
        patches: list[Patch] = []
        moments: list[NDArray[np.float64]] = []
        for rank, number in enumerate(chance.permutation(len(keys)).tolist()):
            tile = keys[number]
            cut = self._patches(tile, chance)
            patches += cut
            moments.append(rank + self.window * chance.random(len(cut)))
        if not patches:  # with small weights, none may have been drawn
            tile = keys[int(chance.integers(len(keys)))]
            patches, moments = [Patch(tile, self.tiles[tile])], [np.zeros(1)]
        order = np.argsort(np.concatenate(moments), kind="stable")
        return self._batches([patches[i] for i in order.tolist()])

    def _patches(self, tile: Tile, chance: np.random.Generator) -> list[Patch]:
        """Cut the spots of a tile into patches, anew for every time that its slide is used."""
        spots, weight = self.tiles[tile], self.weights.get(tile.slide, 1.0)
        patches = []
        for times in np.full(int(weight), 1.0).tolist() + [weight % 1] * (weight % 1 > 0):
            whole = [Patch(tile, cut) for cut in self._cut(spots, chance)]
            kept = chance.random(len(whole)) < times if times < 1 else np.ones(len(whole), bool)
            patches += [patch for patch, keep in zip(whole, kept, strict=True) if keep]
        return patches

    def _cut(
        self, spots: NDArray[np.int64], chance: np.random.Generator
    ) -> list[NDArray[np.int64]]:
        """Cut spots along the curve into patches."""
        cuts = np.arange(int(chance.integers(self.patch)), len(spots), self.patch)
        return [part for part in np.split(spots, cuts) if len(part)]

    def _batches(self, patches: Sequence[Patch]) -> list[list[Patch]]:
        """Cut a list of patches into batches of exactly `batch_size` spots.

        A remainder of less than a quarter of a batch is added to the last one.
        """
        batches: list[list[Patch]] = [[]]
        room = self.batch_size
        for patch in patches:
            spots = patch.spots
            while len(spots):
                if not room:
                    batches.append([])
                    room = self.batch_size
                batches[-1].append(Patch(patch.tile, spots[:room]))
                taken = min(room, len(spots))
                spots, room = spots[taken:], room - taken
        if len(batches) > 1 and self.batch_size - room < self.batch_size / 4:
            rest = batches.pop()
            batches[-1] += rest
        return batches


class TileBatchPlan(BatchPlan):
    """A plan whose batches are spots of a single tile, with all of the tile as their context.

    The spots of a batch are drawn at random from the tile: about `batch_size` of them, so that
    all batches of a tile are of one size, and never all of them: the others are the background.
    `patch` is ignored.
    """

    most = CONTEXT_TILE

    def in_order(self) -> list[list[Patch]]:
        """Get batches that go through the tiles once, one after the other."""
        return self._batches(
            [
                Patch(tile, part)
                for tile, spots in self.tiles.items()
                for part in np.array_split(spots, self._n_parts(spots))
            ]
        )

    def _cut(
        self, spots: NDArray[np.int64], chance: np.random.Generator
    ) -> list[NDArray[np.int64]]:
        """Divide the spots at random."""
        return np.array_split(chance.permutation(spots), self._n_parts(spots))

    def _n_parts(self, spots: NDArray[np.int64]) -> int:
        return max(min(2, len(spots)), round(len(spots) / self.batch_size))

    def _batches(self, patches: Sequence[Patch]) -> list[list[Patch]]:
        """Make a batch of every patch."""
        return [[patch] for patch in patches]


def tiles_of(
    slide: str, spots: NDArray[np.int64], n_spots: int, most: int | None = None
) -> dict[Tile, NDArray[np.int64]]:
    """Cut a slide of `n_spots` into tiles of about equal size.

    Parameters
    ----------
    spots
        Those to use, in ascending order.
    most
        Maximal number of spots of a tile; :data:`TILE` if not given.

    Returns
    -------
    Tile → its `spots`, counted from its start; tiles without any are left out.
    """
    n_tiles = -(-n_spots // (most or TILE))
    ends = np.linspace(0, n_spots, n_tiles + 1).round().astype(np.int64)
    cut = np.split(spots, np.searchsorted(spots, ends[1:-1]))
    return {
        Tile(slide, int(start), int(stop)): part - start
        for start, stop, part in zip(ends[:-1], ends[1:], cut, strict=True)
        if len(part)
    }


def part_of_process(batch: Sequence[Patch], rank: int, world: int) -> tuple[slice, list[Patch]]:
    """Get the spots of a batch that one of several processes works on.

    Returns
    -------
    Which spots of the batch these are, and their patches.
    """
    n_spots = sum(len(patch.spots) for patch in batch)
    start, stop = rank * n_spots // world, (rank + 1) * n_spots // world
    patches, at = [], 0
    for tile, spots in batch:
        chosen = spots[max(0, start - at) : max(0, stop - at)]
        patches += [Patch(tile, chosen)] if len(chosen) else []
        at += len(spots)
    return slice(start, stop), patches
