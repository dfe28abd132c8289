"""What was learned from, in a few thousand spots, and how far another spot is from all of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from sagefm._types import Floats
from sagefm.stats.pca import WhitenedPCA

_COMPONENTS = 20
_MOST = 4096
"""Spots that are kept."""
_NEAREST = 5
_PARTS = ("center", "axes", "spots", "groups", "own", "unit")
_ZERO = 1e-12


@dataclass(frozen=True)
class ReferenceSpots:
    """The spots that something was learned from, as a space in which others are near or far.

    A distance is the mean of those to the 5 nearest kept spots, over a few principal components
    (at most 20, if nothing else is asked for) of standard deviation 1. It is read against the
    distances of the kept spots themselves, each to the spots of the other groups: as far as a
    slide, or a patient, lies from the others when nobody knows it.

    Attributes
    ----------
    reduction
        From an embedding to the components.
    spots
        At most 4,096 kept spots × components.
    groups
        Code of the group (slide or patient) of each.
    own
        Distance of each to the spots of the other groups.
    unit
        Whether embeddings are scaled to length 1 before all else.
    """

    reduction: WhitenedPCA
    spots: Floats
    groups: NDArray[np.int64]
    own: Floats
    unit: bool = False

    @classmethod
    def learn(
        cls,
        embeddings: Sequence[NDArray[Any]],
        groups: Sequence[str],
        *,
        n_components: int = _COMPONENTS,
        unit: bool = False,
        seed: int = 0,
    ) -> Self:
        """Keep spots of each slide, as many of each group as there is room for.

        Parameters
        ----------
        embeddings
            For each slide spots × width.
        groups
            What each slide belongs to, such as its patient. With one group only, distances are to
            its own other spots, and too small for what comes from elsewhere.
        n_components
            How many components at most.
        unit
            Whether only the direction of an embedding counts, not its length (which follows depth).
        seed
            Of the choice of spots.
        """
        chance = np.random.default_rng(seed)
        of_spot = np.concatenate(
            [np.full(len(z), g) for z, g in zip(embeddings, _codes(groups), strict=True)]
        )
        kept = balanced_sample(of_spot, chance)
        chosen = np.concatenate([np.asarray(z) for z in embeddings])[kept]
        chosen = _scaled(chosen) if unit else chosen
        reduction = WhitenedPCA.fit(chosen, n_components, seed)
        spots, codes = reduction(chosen), of_spot[kept]
        found = cls(reduction, spots, codes, _own_distances(spots, codes), unit)
        return cls.from_arrays(found.arrays())  # rounded as it is written: read, it is the same

    @property
    def n_groups(self) -> int:
        """How many slides or patients the kept spots come from."""
        return len(np.unique(self.groups))

    def distance(self, z: NDArray[Any]) -> Floats:
        """Get the distance of each spot (rows × width) to what was learned from."""
        reduced = self.reduction(_scaled(z) if self.unit else z)
        return _to_nearest(cKDTree(self.spots), reduced, 0)

    def novelty(self, z: NDArray[Any]) -> Floats:
        """Get the share of kept spots that lie nearer to the other groups: 0 to 1 per spot.

        0.99: more unusual than 99 in 100 spots of a group that the others do not know.
        """
        return np.searchsorted(np.sort(self.own), self.distance(z)) / len(self.own)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Get all of it as named arrays, to be written."""
        found = (self.reduction.center, self.reduction.axes, self.spots, self.groups, self.own,
                 np.array(self.unit, dtype=np.int64))  # fmt: skip
        singles = [a if a.dtype.kind == "i" else a.astype(np.float32) for a in found]
        return dict(zip(_PARTS, singles, strict=True))

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, ArrayLike], width: int | None = None) -> Self:
        """Make it from what :meth:`arrays` gave.

        Parameters
        ----------
        arrays
            All of them, by name.
        width
            Of the embeddings that it must fit; any if not given.

        Raises
        ------
        ValueError
            One is missing, has another shape than the others need, or is not finite.
        """
        if missing := [name for name in _PARTS if name not in arrays]:
            raise ValueError(f"{missing[0]} is missing")
        parts = {name: np.asarray(arrays[name]) for name in _PARTS}
        center, axes, spots, groups, own, unit = parts.values()
        width, n_spots = center.size if width is None else width, max(own.size, 1)
        shapes = [(width,), (width, *axes.shape[1:2]), (n_spots, *axes.shape[1:2]), (n_spots,)]
        shapes += [(n_spots,), ()]
        for (name, values), wanted in zip(parts.items(), shapes, strict=True):
            if values.shape != wanted or not np.isfinite(values).all():
                raise ValueError(f"{name} {'×'.join(map(str, values.shape))} is not what it was")
        reduction = WhitenedPCA(center.astype(np.float64), axes.astype(np.float64))
        return cls(
            reduction, spots.astype(np.float64), groups.astype(np.int64), own.astype(np.float64),
            bool(unit),
        )  # fmt: skip


def _scaled(z: NDArray[Any]) -> NDArray[Any]:
    """Scale each row to length 1."""
    return np.asarray(z / np.maximum(np.linalg.norm(z, axis=1, keepdims=True), _ZERO))


def _codes(groups: Sequence[str]) -> list[int]:
    known = {name: code for code, name in enumerate(dict.fromkeys(groups))}
    return [known[name] for name in groups]


def balanced_sample(of_spot: NDArray[np.int64], chance: np.random.Generator) -> NDArray[np.int64]:
    """Choose at most 4,096 spots, as many of each group as there is room for, in their order."""
    order = chance.permutation(len(of_spot))
    rank = np.empty(len(of_spot), dtype=np.int64)  # within the own group
    for code in np.unique(of_spot):
        own = order[of_spot[order] == code]
        rank[own] = np.arange(len(own))
    return np.sort(order[np.argsort(rank[order], kind="stable")][:_MOST])


def _own_distances(spots: Floats, groups: NDArray[np.int64]) -> Floats:
    """Get the distance of each spot to the other groups; to its own where there is one only."""
    codes = np.unique(groups)
    if len(codes) == 1:
        return _to_nearest(cKDTree(spots), spots, 1)
    found = np.empty(len(spots))
    for code in codes:
        own = groups == code
        found[own] = _to_nearest(cKDTree(spots[~own]), spots[own], 0)
    return found


def _to_nearest(tree: Any, spots: Floats, skip: int) -> Floats:
    """Average the distances to the nearest spots, but for the first `skip` (the spot itself)."""
    n = min(_NEAREST + skip, tree.n)
    distances = np.asarray(tree.query(spots, n)[0]).reshape(len(spots), -1)
    return np.asarray(distances[:, min(skip, n - 1) :].mean(axis=1))
