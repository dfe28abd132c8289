"""How unlike everything that was learned from a spot is, inside and outside of its space."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from sagefm._types import Floats, Positions
from sagefm.stats.pca import WhitenedPCA
from sagefm.stats.reference import ReferenceSpots
from sagefm.tl.annotation._features import SectionFeatures, informative
from sagefm.tl.annotation._heads import means_of, some_spots

_COMPONENTS = 20
_FOLDS = 10
_MOST_SPOTS = 4096
"""That components are learned from."""
_ZERO = 1e-6


@dataclass(frozen=True)
class Novelty:
    """The spots that were learned from, as they are: a centered slide hides what tissue it is.

    Components alone do not see what other tissue has and this one does not. So what they leave of a
    spot, the length of the rest, is a coordinate like them.

    Attributes
    ----------
    columns
        Genes, or columns of an embedding.
    fill
        What stands for a gene that a slide lacks.
    reduction
        To 20 principal components at most.
    usual
        Median length of the rest, logarithm. Less of it is not unusual: those that the components
        were learned from have less.
    familiar
        In these and the length of the rest.
    """

    columns: Positions
    fill: Floats
    reduction: WhitenedPCA
    usual: float
    familiar: ReferenceSpots

    @classmethod
    def learn(cls, views: Sequence[SectionFeatures], seed: int) -> Self:
        """Keep what the slides are like, and how far their patients lie from each other."""
        columns = informative(views)
        fill = means_of(views, columns)
        parts = [view.absolute(columns, fill) for view in views]
        patients = [view.patient for view in views]
        reduction = WhitenedPCA.fit(some_spots(parts, _MOST_SPOTS, seed), _COMPONENTS, seed)
        inside = [reduction(part) for part in parts]
        rest = _rest_unknown(parts, patients, seed) or [_rest(reduction, part) for part in parts]
        usual = float(np.median(np.concatenate(rest)))
        rest = [np.maximum(own, usual) for own in rest]
        familiar = ReferenceSpots.learn(
            [np.column_stack(pair) for pair in zip(inside, rest, strict=True)], patients,
            n_components=_COMPONENTS + 1, seed=seed,
        )  # fmt: skip
        return cls(columns, fill, reduction, usual, familiar)

    def of(self, view: SectionFeatures) -> Floats:
        """Get the share of known spots, seen from other patients, that are less unusual."""
        values = view.absolute(self.columns, self.fill)
        rest = np.maximum(_rest(self.reduction, values), self.usual)
        found = np.column_stack([self.reduction(values), rest])
        return self.familiar.novelty(found)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Get all of it as named arrays, to be written."""
        own = {
            "columns": self.columns,
            "fill": self.fill,
            "center": self.reduction.center,
            "axes": self.reduction.axes,
            "usual": np.array([self.usual]),
        }
        return own | {f"familiar.{name}": a for name, a in self.familiar.arrays().items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Make it from what :meth:`arrays` gave."""
        head = "familiar."
        parts = {name.removeprefix(head): a for name, a in arrays.items() if name.startswith(head)}
        reduction = WhitenedPCA(arrays["center"], arrays["axes"])
        usual = float(arrays["usual"][0])
        return cls(
            arrays["columns"], arrays["fill"], reduction, usual, ReferenceSpots.from_arrays(parts)
        )


def _rest(reduction: WhitenedPCA, values: NDArray[np.float32]) -> Floats:
    """Get the log of the length of what the components leave of each spot."""
    explained = (reduction(values) ** 2 / (reduction.axes**2).sum(axis=0)).sum(axis=1)
    left = ((values - reduction.center) ** 2).sum(axis=1) - explained
    return np.asarray(np.log(np.maximum(left, _ZERO)) / 2)


def _rest_unknown(
    parts: Sequence[NDArray[np.float32]], patients: Sequence[str], seed: int
) -> list[Floats]:
    """Get the same where components are learned from other patients; nothing for one patient.

    Components leave less of the very spots that they were learned from.
    """
    names = list(dict.fromkeys(patients))
    folds = [names[i::_FOLDS] for i in range(min(_FOLDS, len(names)))]
    found: dict[int, Floats] = {}
    for out in folds if len(names) > 1 else []:
        others = [p for p, own in zip(parts, patients, strict=True) if own not in out]
        reduction = WhitenedPCA.fit(some_spots(others, _MOST_SPOTS, seed), _COMPONENTS, seed)
        for i in [i for i, own in enumerate(patients) if own in out]:
            found[i] = _rest(reduction, parts[i])
    return [found[i] for i in sorted(found)]
