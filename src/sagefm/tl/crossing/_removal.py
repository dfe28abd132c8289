"""Remove the means of sections, and what follows library sizes, from features."""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from sagefm._types import Floats, Singles
from sagefm.tl.crossing._sides import MeasuredSpots

_V = TypeVar("_V", Floats, Singles)
_RANK = 1e-6


@dataclass(frozen=True)
class Removal:
    """A projection, to be applied to predictors, features and null maps.

    Attributes
    ----------
    basis
        Spots × functions that are removed.
    weights
        Spots × functions: the slope of each function is a weighted sum of the values.
    """

    basis: Floats
    weights: Floats

    @classmethod
    def of_sections(cls, spots: MeasuredSpots) -> "Removal":
        """Remove the mean of each section."""
        members = np.eye(int(spots.sections.max()) + 1)[spots.sections]
        return cls(members, members / members.sum(axis=0))

    @classmethod
    def of_functions(cls, spots: MeasuredSpots, functions: Floats) -> "Removal":
        """Remove the means of sections, and functions of the spots.

        Slopes are fitted to differences between spots and the mean of their neighbors. Smooth maps
        are correlated with the functions by chance; if the slopes were fitted to the values
        themselves, that would be removed too, and null maps of what is left would be too rough.
        """
        sections = cls.of_sections(spots)
        functions = sections(functions)
        functions = functions / np.maximum(np.linalg.norm(functions, axis=0), _RANK)
        differences = functions - spots.smooth(functions, center=False)
        weights: Floats = np.asarray(np.linalg.pinv(differences, rcond=_RANK).T, dtype=np.float64)
        weights = weights - spots.smooth_transposed(weights)
        return cls(
            np.concatenate([sections.basis, functions], axis=1),
            np.concatenate([sections.weights, sections(weights)], axis=1),
        )

    def __call__(self, values: _V) -> _V:
        """Remove the functions from spots × features."""
        kind = values.dtype
        slopes = self.weights.T.astype(kind) @ values
        removed: _V = values - self.basis.astype(kind) @ slopes
        return removed
