"""The four kinds of outcomes: classes, numbers, ordered levels, survival."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import softmax

from sagefm._errors import InputError
from sagefm._text import few
from sagefm._types import Bools, Codes, Floats
from sagefm.stats.outcomes.cox import fit_cox
from sagefm.stats.outcomes.linear import LinearFits, fit_ridge
from sagefm.stats.outcomes.targets import LEAST_EVENTS, LEAST_PATIENTS, Signs, Target
from sagefm.stats.probe import fit_probes

_MOST = 20


@dataclass(frozen=True)
class ClassTarget(Target):
    """Classes without an order."""

    classes: list[str]
    """Of two classes the second is the one whose log odds are predicted."""
    codes: Codes
    """Of each patient with a known class."""

    kind = "classes"

    @property
    def sizes(self) -> Codes:
        """Number of patients of each class."""
        return np.bincount(self.codes, minlength=len(self.classes))

    @property
    def n_events(self) -> int:
        """Number of patients of the smallest class."""
        return int(self.sizes.min(initial=self.n_patients))

    @property
    def blocks(self) -> Codes:
        """Code of the class."""
        return self.codes

    @property
    def outputs(self) -> list[str]:
        """The second of two classes, or all of them."""
        return self.classes[1:] if len(self.classes) == 2 else self.classes

    def require_enough(self) -> None:
        """Check that there are enough patients."""
        sizes = few((f"{n} {name}" for name, n in zip(self.classes, self.sizes, strict=True)), 10)
        if len(self.classes) < 2:
            raise InputError(
                f"{self.name}: two classes or more are needed, but there is {sizes or 'none'}"
            )
        if len(self.classes) > _MOST:
            raise InputError(
                f"{self.name}: has {len(self.classes)} different values, which are no classes; "
                "name a column with a class for each patient, or with numbers only"
            )
        if self.n_events < LEAST_EVENTS:
            raise InputError(
                f"{self.name}: {LEAST_EVENTS} patients of each class are needed, but there are "
                f"{sizes}; add patients, or leave the value of a rare class empty: such patients "
                "are predicted only"
            )

    def fit(self, features: Floats, orders: Codes) -> LinearFits:
        """Fit logistic regressions with balanced classes, then set the intercept to frequencies."""
        labels = self.codes[orders]
        n_classes = len(self.classes)
        probes = fit_probes(features, labels, n_classes)
        sizes = (labels[..., None] == np.arange(n_classes)).sum(axis=1)
        intercepts = probes.intercepts + np.log(np.maximum(sizes, 0.5) / labels.shape[1])
        if n_classes > 2:
            return LinearFits(probes.weights, intercepts)
        return LinearFits(np.diff(probes.weights, axis=1), np.diff(intercepts, axis=1))

    def probabilities(self, predictions: Floats) -> Floats:
        """Convert predictions (… × outputs) to probabilities (… × classes)."""
        if predictions.shape[-1] == 1:
            predictions = np.concatenate([np.zeros_like(predictions), predictions], axis=-1)
        return np.asarray(softmax(predictions, axis=-1))

    def ranked(self, predictions: Floats) -> Floats:
        """Compare log odds of two classes, and probabilities of more."""
        two = predictions.shape[-1] == 1
        return predictions if two else self.probabilities(predictions)

    @cached_property
    def signs(self) -> Signs:
        """Compare patients of an output's class with those of others."""
        classes = np.arange(len(self.classes))[-len(self.outputs) :]
        member = (self.codes == classes[:, None]).astype(np.int8)
        return np.asarray(member[:, :, None] - member[:, None, :])

    def columns(self) -> dict[str, NDArray[np.object_] | Floats]:
        """Get the outcome of each patient of the table."""
        values = np.full(len(self.known), None, dtype=object)
        values[self.known] = np.array(self.classes, dtype=object)[self.codes]
        return {self.name: values}

    def subset(self, rows: Bools) -> "ClassTarget":
        """Get the target with fewer known outcomes."""
        codes = self.codes[rows[self.known]]
        present = np.unique(codes)
        names = [self.classes[code] for code in present]
        return ClassTarget(self.name, self.known & rows, names, np.searchsorted(present, codes))


@dataclass(frozen=True)
class NumberTarget(Target):
    """Numbers, which are predicted by ridge regression."""

    values: Floats
    """Of each patient with a known one."""

    kind = "number"

    @property
    def n_events(self) -> int:
        """Number of patients; fewer if more than half of them have the same value."""
        _, sizes = np.unique(self.values, return_counts=True)
        n = self.n_patients
        return min(n, 2 * (n - int(sizes.max(initial=0))))

    @property
    def blocks(self) -> Codes:
        """Resample all patients alike."""
        return np.zeros(self.n_patients, dtype=np.int64)

    def require_enough(self) -> None:
        """Check that there are enough patients."""
        if self.n_patients < LEAST_PATIENTS:
            raise InputError(
                f"{self.name}: {LEAST_PATIENTS} patients with a value are needed, but there are "
                f"{self.n_patients}; add patients"
            )
        if self.n_events < LEAST_PATIENTS:
            raise InputError(
                f"{self.name}: {LEAST_EVENTS} patients that differ from the most frequent value "
                f"are needed, but there are {self.n_events // 2}; add patients"
            )

    def fit(self, features: Floats, orders: Codes) -> LinearFits:
        """Fit ridge regressions."""
        return fit_ridge(features, self.values[orders])

    @cached_property
    def signs(self) -> Signs:
        """Compare values."""
        return np.sign(self.values[:, None] - self.values).astype(np.int8)[None]

    def columns(self) -> dict[str, NDArray[np.object_] | Floats]:
        """Get the outcome of each patient of the table."""
        values = np.full(len(self.known), np.nan)
        values[self.known] = self.values
        return {self.name: values}

    def subset(self, rows: Bools) -> "NumberTarget":
        """Get the target with fewer known outcomes."""
        return NumberTarget(self.name, self.known & rows, self.values[rows[self.known]])


@dataclass(frozen=True)
class OrdinalTarget(NumberTarget):
    """Ordered levels, which are predicted as the numbers 0, 1, 2, …."""

    levels: list[str]

    kind = "ordinal"

    def columns(self) -> dict[str, NDArray[np.object_] | Floats]:
        """Get the outcome of each patient of the table."""
        values = np.full(len(self.known), None, dtype=object)
        values[self.known] = np.array(self.levels, dtype=object)[self.values.astype(int)]
        return {self.name: values}

    def subset(self, rows: Bools) -> "OrdinalTarget":
        """Get the target with fewer known outcomes."""
        values = self.values[rows[self.known]]
        return OrdinalTarget(self.name, self.known & rows, values, self.levels)


@dataclass(frozen=True)
class SurvivalTarget(Target):
    """Times to an event, some of them censored; the log hazard is predicted."""

    times: Floats
    """Of each patient with a known time and event."""
    events: Bools
    """Whether the event was observed at that time; else the patient was without it until then."""
    time_name: str
    event_name: str

    kind = "survival"

    @property
    def n_events(self) -> int:
        """Number of observed events."""
        return int(self.events.sum())

    @property
    def blocks(self) -> Codes:
        """Code of those with and without the event."""
        return self.events.astype(np.int64)

    def require_enough(self) -> None:
        """Check that there are enough events."""
        if self.n_events < LEAST_EVENTS:
            raise InputError(
                f"{self.event_name}: {LEAST_EVENTS} events are needed, but there are "
                f"{self.n_events} (of {self.n_patients} patients); add patients or wait longer"
            )
        if not self.signs.any():
            raise InputError(
                f"{self.time_name}: no two patients can be compared: all times are equal"
            )

    def fit(self, features: Floats, orders: Codes) -> LinearFits:
        """Fit Cox regressions."""
        return fit_cox(features, self.times[orders], self.events[orders])

    @cached_property
    def signs(self) -> Signs:
        """Compare a patient with an event with all that had none until then."""
        earlier = self.times[:, None] < self.times
        first = (self.times[:, None] == self.times) & ~self.events
        before = (self.events[:, None] & (earlier | first)).astype(np.int8)
        return np.asarray((before - before.T)[None])

    def columns(self) -> dict[str, NDArray[np.object_] | Floats]:
        """Get the outcome of each patient of the table."""
        table = pd.DataFrame(np.nan, range(len(self.known)), [self.time_name, self.event_name])
        table.loc[self.known] = np.column_stack([self.times, self.events])
        return {str(name): column.to_numpy() for name, column in table.items()}

    def subset(self, rows: Bools) -> "SurvivalTarget":
        """Get the target with fewer known outcomes."""
        inner = rows[self.known]
        return SurvivalTarget(
            self.name, self.known & rows, self.times[inner], self.events[inner],
            self.time_name, self.event_name,
        )  # fmt: skip
