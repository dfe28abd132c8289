"""What a modality is predicted from: components of the other one, of the spot and around it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix

from sagefm._types import Bools, Floats, Positions, Reals, Singles
from sagefm.pp.neighborhood import average
from sagefm.stats.components import project, shared_axes, sparse_axes

N_COMPONENTS = 50
_REDUCED = 100
"""Components of all spots, of which those of the training spots are computed."""
_KNOTS = (0.2, 0.4, 0.6, 0.8)
_ROUNDING = 1e-8


@dataclass(frozen=True)
class Predictors:
    """The predicting modality.

    Attributes
    ----------
    groups
        Spots × columns each; each is reduced to components that weigh as much as another group.
    library
        Spots × 2, log1p library size of the spot and its mean over the neighbors.
    """

    groups: list[Singles]
    library: Floats

    @classmethod
    def of(
        cls,
        expression: Sequence[csr_matrix],
        neighbors: Sequence[Positions],
        sizes: Sequence[Floats],
        others: Sequence[Singles] = (),
    ) -> "Predictors":
        """Reduce the expression of slides, and average library sizes.

        Parameters
        ----------
        expression
            For each slide spots × features, normalized.
        neighbors
            For each slide its neighborhoods, the center first.
        sizes
            For each slide the library sizes.
        others
            Further groups over the spots of all slides.
        """
        operators = [average(near) for near in neighbors]
        around = shared_axes(expression, operators, _REDUCED)
        alone = sparse_axes(expression, _REDUCED)
        smooth = [op @ project(x, around) for op, x in zip(operators, expression, strict=True)]
        spots = [project(x, alone) for x in expression]
        library = []
        for near, size in zip(neighbors, sizes, strict=True):
            log = np.log1p(size)
            library.append(np.column_stack([log, average(near, center=False) @ log]))
        groups = [np.concatenate(smooth), np.concatenate(spots), *others]
        return cls(groups, np.concatenate(library))

    def subset(self, spots: Bools) -> "Predictors":
        """Keep some spots."""
        return Predictors([group[spots] for group in self.groups], self.library[spots])

    def features(self, training: Bools) -> Floats:
        """Compute the features of all spots, with components and scales of the training spots."""
        columns = [_components(group, training) for group in self.groups]
        return np.concatenate([*columns, scaled(self.library, training)], axis=1)

    def library_curves(self) -> Floats:
        """Compute functions of the library sizes: of the spot piecewise linear, of both linear."""
        own = self.library[:, 0]
        curves = [np.maximum(own - knot, 0) for knot in np.quantile(own, _KNOTS)]
        return np.column_stack([self.library, *curves])


def _components(group: Reals, training: Bools) -> Floats:
    """Compute leading components; together their mean variance is 1, and the first have most."""
    values = np.asarray(group, dtype=np.float64)
    values = values - values[training].mean(axis=0)
    covariance = values[training].T @ values[training] / training.sum()
    variances, axes = np.linalg.eigh(covariance)
    variances, axes = variances[::-1][:N_COMPONENTS], axes[:, ::-1][:, :N_COMPONENTS]
    scale = np.sqrt(np.maximum(variances, 0)).mean()
    return np.asarray(values @ axes / (scale if scale > _ROUNDING else 1.0))


def scaled(values: Floats, training: Bools) -> Floats:
    """Center and scale columns by the training spots."""
    spread = values[training].std(axis=0)
    centered = values - values[training].mean(axis=0)
    return np.asarray(centered / np.where(spread > _ROUNDING, spread, 1.0))
