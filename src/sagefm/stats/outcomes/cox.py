"""Cox regression with a ridge penalty, of many labelings of the same patients at once.

Ties of event times are handled as by Efron.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np

from sagefm._types import Bools, Floats, Positions
from sagefm.stats.outcomes.linear import RIDGE, LinearFits, offsets

_NEWTON_STEPS = 50
_MAX_GRADIENT = 1e-6
_HALVINGS = 10
_MAX_LOG_HAZARD = 500.0


@dataclass(frozen=True)
class _Problem:
    """Samples of each labeling, sorted by time."""

    x: Floats
    """Labelings × samples × features."""
    events: Floats
    """Labelings × samples, 1 for an event."""
    first: Positions
    """Labelings × samples: the first and, in `last`, the last one with the same time."""
    last: Positions
    tied: Floats
    """For an event, the fraction of the events at its time that are counted as before it."""
    distinct: bool
    """Whether no two samples have the same time."""

    @classmethod
    def sort(cls, features: Floats, times: Floats, events: Bools) -> Self:
        order = np.lexsort((~events, times), axis=-1)
        t = np.take_along_axis(times, order, axis=1)
        e = np.take_along_axis(events, order, axis=1).astype(np.float64)
        n = t.shape[1]
        starts = np.concatenate([np.ones((len(t), 1), bool), t[:, 1:] > t[:, :-1]], axis=1)
        first = np.maximum.accumulate(np.where(starts, np.arange(n), 0), axis=1)
        ends = np.concatenate([starts[:, 1:], np.ones((len(t), 1), bool)], axis=1)
        last = np.where(ends, np.arange(n), n)[:, ::-1]
        last = np.minimum.accumulate(last, axis=1)[:, ::-1]
        number = np.arange(n) - first  # events come first among equal times
        at_time = _take(_cumulative(e), last + 1) - _take(_cumulative(e), first)
        tied = e * number / np.maximum(at_time, 1)
        each = features.ndim == 3
        x = np.take_along_axis(features, order[..., None], axis=1) if each else features[order]
        return cls(x, e, first, last, tied, bool(starts.all()))

    def __getitem__(self, rows: "Positions | Bools") -> "_Problem":
        first, last = self.first[rows], self.last[rows]
        return _Problem(
            self.x[rows], self.events[rows], first, last, self.tied[rows], self.distinct
        )

    def over_ties(self, values: Floats) -> Floats:
        """Sum values (labelings × samples × …) over the samples with the same time."""
        sums = _cumulative(values)
        return _take(sums, self.last + 1) - _take(sums, self.first)

    def at_risk(self, values: Floats) -> Floats:
        """Sum values over the samples that are at risk at the time of each."""
        sums = np.cumsum(values[:, ::-1], axis=1)[:, ::-1]
        return sums if self.distinct else _take(sums, self.first)

    def risk_sets(self, values: Floats) -> Floats:
        """As :meth:`at_risk`, without the events at the time that are counted as before."""
        found = self.at_risk(values)
        if self.tied.any():
            shape = self.tied.shape + (1,) * (values.ndim - 2)
            of_events = values * self.events.reshape(shape)
            found = found - self.tied.reshape(shape) * self.over_ties(of_events)
        return found

    def log_hazards(self, weights: Floats) -> Floats:
        eta = np.matmul(self.x, weights[..., None])[..., 0]
        eta = np.clip(eta, -_MAX_LOG_HAZARD, _MAX_LOG_HAZARD)
        return np.asarray(eta - eta.max(axis=1, keepdims=True))

    def loss(self, weights: Floats, ridge: float) -> Floats:
        eta = self.log_hazards(weights)
        sums = self.risk_sets(np.exp(eta))
        likelihood = np.sum(self.events * (eta - np.log(np.maximum(sums, 1e-300))), axis=1)
        return np.asarray(0.5 * ridge * np.sum(weights**2, axis=1) - likelihood)

    def derivatives(self, weights: Floats, ridge: float) -> tuple[Floats, Floats]:
        hazard = np.exp(self.log_hazards(weights))
        per_event = self.events / np.maximum(self.risk_sets(hazard), 1e-300)
        # The baseline hazard up to the time of each sample, and what of it an event is spared
        # as it is counted as before others at its time.
        expected = _take(_cumulative(per_event), self.last + 1)
        if self.tied.any():
            expected = expected - self.events * self.over_ties(per_event * self.tied)
        expected = expected * hazard
        residuals = self.events - expected
        gradient = ridge * weights - np.matmul(residuals[:, None], self.x)[:, 0]
        means = self.risk_sets(hazard[..., None] * self.x) * per_event[..., None]
        turned = self.x.swapaxes(1, 2)
        hessian = np.matmul(turned * expected[:, None], self.x)
        hessian -= np.matmul(means.swapaxes(1, 2), means)
        return gradient, hessian + ridge * np.eye(weights.shape[1])


def fit_cox(features: Floats, times: Floats, events: Bools, ridge: float = RIDGE) -> LinearFits:
    """Fit a Cox regression to each labeling by Newton's method.

    Parameters
    ----------
    features
        Samples × features, or labelings × samples × features if they differ.
    times, events
        Labelings × samples: time to the event, or to the end of observation where there was none.
    ridge
        Penalty of the squared weights, beside the partial log likelihood of all samples (lifelines
        divides the likelihood by the number of samples).

    Returns
    -------
    Log hazards, which are zero at the mean of the features.
    """
    center = features.mean(axis=-2, keepdims=True)
    problem = _Problem.sort(features - center, times, events)
    weights = np.zeros((len(times), features.shape[-1]))
    active = np.arange(len(times))
    for _ in range(_NEWTON_STEPS):
        gradient, hessian = problem.derivatives(weights[active], ridge)
        remaining = np.abs(gradient).max(axis=1, initial=0.0) > _MAX_GRADIENT
        if not remaining.any():
            break
        if not remaining.all():
            active, problem = active[remaining], problem[remaining]
        step = np.linalg.solve(hessian[remaining], gradient[remaining][..., None])[..., 0]
        weights[active] = _line_search(problem, weights[active], step, ridge)
    return LinearFits(weights[:, None], -offsets(weights, center))


def _line_search(problem: _Problem, at: Floats, step: Floats, ridge: float) -> Floats:
    """Take the step, or the half, quarter, … of it that does not increase the loss."""
    before, size = problem.loss(at, ridge), np.ones((len(at), 1))
    for _ in range(_HALVINGS):
        worse = problem.loss(at - size * step, ridge) > before + 1e-10 * (1 + np.abs(before))
        if not worse.any():
            break
        size[worse] /= 2
    return at - size * step


def cox_information(x: Floats, times: Floats, events: Bools, slopes: Floats) -> Floats:
    """Compute the curvature of the partial log likelihood of fits to one feature each.

    Parameters
    ----------
    x
        Features × samples.
    times, events
        Of each sample.
    slopes
        Of each feature.
    """
    shape = x.shape
    problem = _Problem.sort(
        x[..., None], np.broadcast_to(times, shape), np.broadcast_to(events, shape)
    )
    return np.asarray(problem.derivatives(slopes[:, None], 0.0)[1][:, 0, 0])


def baseline_hazard(log_hazards: Floats, times: Floats, events: Bools, at: float) -> float:
    """Estimate the cumulative hazard of log hazard zero up to a time, as by Breslow."""
    hazard = np.exp(log_hazards)
    return float(sum(1 / hazard[times >= time].sum() for time in times[events & (times <= at)]))


def _cumulative(values: Floats) -> Floats:
    """Sum over the samples before each position, and over all of them at the end."""
    return np.concatenate([np.zeros_like(values[:, :1]), np.cumsum(values, axis=1)], axis=1)


def _take(values: Floats, positions: Positions) -> Floats:
    """Get the values (labelings × samples × …) at positions of the same labeling."""
    n, width = values.shape[:2]
    rows = (positions + width * np.arange(n)[:, None]).ravel()
    taken = np.take(values.reshape(n * width, -1), rows, axis=0)
    return np.asarray(taken.reshape(*positions.shape, *values.shape[2:]))
