"""What an outcome of patients is: how it is permuted, compared, fitted and scored."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from sagefm._types import Bools, Codes, Floats
from sagefm.stats.outcomes.folds import permute
from sagefm.stats.outcomes.linear import LinearFits

LEAST_EVENTS = 10
"""Minimum number of patients of each class, or of events."""
LEAST_PATIENTS = 20
"""Minimum number of patients with a number or a level."""
N_COMPONENTS = 10
EVENTS_PER_COMPONENT = 5

Signs = NDArray[np.int8]


def most_components(n_events: float) -> int:
    """Limit the number of components by the number of events."""
    return int(np.clip(n_events // EVENTS_PER_COMPONENT, 1, N_COMPONENTS))


@dataclass(frozen=True)
class Target(ABC):
    """What is predicted: one outcome for each patient of a table, where it is known.

    Outcomes of the patients with a known one are numbered from 0 on, and are assigned to these
    patients by an *order*: the number of the outcome that each patient gets. The order 0, 1, 2, …
    is the truth, any other a permutation.
    """

    name: str
    """Column of the table, or columns."""
    known: Bools
    """For each patient of the table whether the outcome is known."""
    notes: tuple[str, ...] = field(default=(), kw_only=True)
    """What was left out or assumed, in words."""

    kind: ClassVar[str]

    @property
    def n_patients(self) -> int:
        """Number of patients with a known outcome."""
        return int(self.known.sum())

    @property
    def n_components(self) -> int:
        """Maximum number of components that are fitted: 10, and 2 for each 10 events."""
        return most_components(self.n_events)

    @property
    def outputs(self) -> list[str]:
        """Names of what a fit predicts: one, or each of more than two classes."""
        return [self.name]

    @property
    @abstractmethod
    def n_events(self) -> int:
        """Number of patients that carry the information: events, or the smallest class."""

    @property
    @abstractmethod
    def blocks(self) -> Codes:
        """Code of the group within which patients are resampled, such as their class."""

    @abstractmethod
    def require_enough(self) -> None:
        """Check that there are enough patients and events.

        Raises
        ------
        InputError
            There are too few; the message says how many there are and are needed.
        """

    @abstractmethod
    def fit(self, features: Floats, orders: Codes) -> LinearFits:
        """Fit a linear predictor to each order of outcomes.

        Parameters
        ----------
        features
            Samples × features, of standard deviation about 1.
        orders
            Labelings × samples: the number of the outcome that a sample has.
        """

    @cached_property
    @abstractmethod
    def signs(self) -> Signs:
        """Outputs × outcomes × outcomes: 1 where the first is higher, 0 if not comparable."""

    @abstractmethod
    def columns(self) -> dict[str, NDArray[np.object_] | Floats]:
        """Get the outcome of each patient of the table, by name of column."""

    @abstractmethod
    def subset(self, rows: Bools) -> "Target":
        """Get the target with the outcomes of all other patients made unknown.

        Parameters
        ----------
        rows
            For each patient of the table whether it remains.
        """

    def ranked(self, predictions: Floats) -> Floats:
        """Convert predictions (… × outputs) to what is compared between patients."""
        return predictions

    def permuted(self, n: int, seed: int, strata: Codes | None = None) -> Codes:
        """Stack the truth and `n` permutations over patients.

        Parameters
        ----------
        n
            Number of permutations.
        seed
            Of the permutations.
        strata
            Code of each patient with a known outcome, such as the site: outcomes are permuted
            within equal codes.

        Returns
        -------
        1 + n orders × patients.
        """
        return permute(np.arange(self.n_patients), n, seed, strata)

    def score(self, predictions: Floats) -> float:
        """Compute the concordance of predictions: how probably two patients are in order.

        The area under the ROC curve for two classes, the mean area of each class against the rest
        for more, Harrell's concordance for survival. Only comparable pairs count: of different
        classes, levels or values; for survival the first of the two must have had the event. Equal
        predictions count half.

        Parameters
        ----------
        predictions
            Patients with a known outcome × outputs, or one number for each of them.
        """
        values = self.ranked(np.reshape(predictions, (self.n_patients, -1)))
        difference = np.sign(values[:, None] - values[None]).transpose(2, 0, 1)
        signs = self.signs.astype(np.float64)
        agreement = (signs * difference).sum(axis=(1, 2)) / np.abs(signs).sum(axis=(1, 2))
        return float(np.mean(0.5 + 0.5 * agreement))
