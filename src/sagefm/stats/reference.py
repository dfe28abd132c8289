"""A sample of training spots, and the distance of other spots from it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from sagefm._types import Codes, Floats, Positions
from sagefm.stats.pca import WhitenedPCA

_N_COMPONENTS = 20
_MAX_SPOTS = 4096
_N_NEAREST = 5
_ARRAYS = ("center", "axes", "spots", "groups", "own", "unit")
"""Names of the arrays in a file."""
_ZERO = 1e-12


@dataclass(frozen=True)
class ReferenceSpots:
    """A sample of training spots, in a space where other spots are near or far.

    The distance of a spot is the mean of those to the 5 nearest reference spots, over a few
    principal components (at most 20, unless set otherwise) of standard deviation 1. It is compared
    with the distances of the reference spots themselves, each to the spots of the other groups:
    how far a slide, or a patient, that is not in the reference usually lies from it.

    Attributes
    ----------
    reduction
        From an embedding to the components.
    spots
        At most 4,096 reference spots × components.
    groups
        Code of the group (slide or patient) of each.
    distances
        Distance of each to the spots of the other groups.
    unit
        Whether embeddings are scaled to length 1 first.
    """

    reduction: WhitenedPCA
    spots: Floats
    groups: Codes
    distances: Floats
    unit: bool = False

    @classmethod
    def learn(
        cls,
        embeddings: Sequence[NDArray[Any]],
        groups: Sequence[str],
        *,
        n_components: int = _N_COMPONENTS,
        unit: bool = False,
        seed: int = 0,
    ) -> Self:
        """Sample spots of each slide, equally many of each group where it has them.

        Parameters
        ----------
        embeddings
            For each slide spots × width.
        groups
            The group of each slide, such as its patient. With one group only, distances are to
            other spots of the same group, and too small for spots of other groups.
        n_components
            Maximum number of components.
        unit
            Whether only the direction of an embedding counts, not its length (which follows the
            library size).
        seed
            Seed of the sample.
        """
        codes = _codes(groups)
        of_spot = np.concatenate(
            [np.full(len(z), code) for z, code in zip(embeddings, codes, strict=True)]
        )
        kept = balanced_sample(of_spot, np.random.default_rng(seed))
        sample = np.concatenate([np.asarray(z) for z in embeddings])[kept]
        sample = _unit_length(sample) if unit else sample
        reduction = WhitenedPCA.fit(sample, n_components, seed)
        spots, sampled = reduction(sample), of_spot[kept]
        reference = cls(reduction, spots, sampled, _distances_between(spots, sampled), unit)
        return cls.from_arrays(reference.arrays())  # rounded, as it is after loading

    @property
    def n_groups(self) -> int:
        """Number of slides or patients of the reference spots."""
        return len(np.unique(self.groups))

    def distance(self, z: NDArray[Any]) -> Floats:
        """Compute the distance of each spot (rows × width) from the reference."""
        return _to_nearest(cKDTree(self.spots), self.reduce(z), 0)

    def reduce(self, z: NDArray[Any]) -> Floats:
        """Compute the components of embeddings (rows × width)."""
        return self.reduction(_unit_length(z) if self.unit else z)

    def novelty(self, z: NDArray[Any]) -> Floats:
        """Compute the fraction of reference spots that lie nearer to the other groups: 0 to 1.

        0.99: more unusual than 99 % of the spots of a group that is not in the reference.
        """
        return self.novelty_of(self.distance(z))

    def novelty_of(self, distances: Floats) -> Floats:
        """Compute the novelty of spots from their distances."""
        return np.searchsorted(np.sort(self.distances), distances) / len(self.distances)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Get named arrays, to be written."""
        arrays = (self.reduction.center, self.reduction.axes, self.spots, self.groups,
                  self.distances, np.array(self.unit, dtype=np.int64))  # fmt: skip
        singles = [a if a.dtype.kind == "i" else a.astype(np.float32) for a in arrays]
        return dict(zip(_ARRAYS, singles, strict=True))

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, ArrayLike], width: int | None = None) -> Self:
        """Create it from what :meth:`arrays` returned.

        Parameters
        ----------
        arrays
            All of them, by name.
        width
            Expected width of embeddings; any if not given.

        Raises
        ------
        ValueError
            An array is missing, does not fit the others, or is not finite.
        """
        if missing := [name for name in _ARRAYS if name not in arrays]:
            raise ValueError(f"{missing[0]} is missing")
        named = {name: np.asarray(arrays[name]) for name in _ARRAYS}
        if odd := [name for name, values in named.items() if values.dtype.kind not in "iuf"]:
            raise ValueError(f"{odd[0]} holds {named[odd[0]].dtype}, not numbers")
        center, axes, spots, groups, distances, unit = named.values()
        if axes.ndim != 2 or not axes.size:
            raise ValueError(f"axes {'×'.join(map(str, axes.shape))} is not what it was")
        width, n_spots = center.size if width is None else width, max(distances.size, 1)
        shapes = [(width,), (width, *axes.shape[1:2]), (n_spots, *axes.shape[1:2]), (n_spots,)]
        shapes += [(n_spots,), ()]
        for (name, values), shape in zip(named.items(), shapes, strict=True):
            if values.shape != shape or not np.isfinite(values).all():
                raise ValueError(f"{name} {'×'.join(map(str, values.shape))} is not what it was")
        reduction = WhitenedPCA(center.astype(np.float64), axes.astype(np.float64))
        return cls(
            reduction, spots.astype(np.float64), groups.astype(np.int64),
            distances.astype(np.float64), bool(unit),
        )  # fmt: skip


def _unit_length(z: NDArray[Any]) -> NDArray[Any]:
    """Scale each row to length 1."""
    return np.asarray(z / np.maximum(np.linalg.norm(z, axis=1, keepdims=True), _ZERO))


def _codes(groups: Sequence[str]) -> list[int]:
    code_of = {name: code for code, name in enumerate(dict.fromkeys(groups))}
    return [code_of[name] for name in groups]


def balanced_sample(of_spot: Codes, rng: np.random.Generator, most: int | None = None) -> Positions:
    """Sample at most `most` spots (4,096) in their order, equally many of each group if it can."""
    order = rng.permutation(len(of_spot))
    rank = np.empty(len(of_spot), dtype=np.int64)  # within the group
    for code in np.unique(of_spot):
        members = order[of_spot[order] == code]
        rank[members] = np.arange(len(members))
    return np.sort(order[np.argsort(rank[order], kind="stable")][: most or _MAX_SPOTS])


def _distances_between(spots: Floats, groups: Codes) -> Floats:
    """Compute the distance of each spot to the other groups; within it if there is only one."""
    codes = np.unique(groups)
    if len(codes) == 1:
        return _to_nearest(cKDTree(spots), spots, 1)
    distances = np.empty(len(spots))
    for code in codes:
        members = groups == code
        distances[members] = _to_nearest(cKDTree(spots[~members]), spots[members], 0)
    return distances


def _to_nearest(tree: Any, spots: Floats, skip: int) -> Floats:
    """Average the distances to the nearest spots, without the first `skip` (the spot itself)."""
    n = min(_N_NEAREST + skip, tree.n)
    distances = np.asarray(tree.query(spots, n)[0]).reshape(len(spots), -1)
    return np.asarray(distances[:, min(skip, n - 1) :].mean(axis=1))
