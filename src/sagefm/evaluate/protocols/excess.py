"""Error above counting noise, as a fraction of what the best training-free method leaves."""

from collections.abc import Mapping
from dataclasses import dataclass

from sagefm.evaluate.baselines.training_free import TRAINING_FREE


@dataclass(frozen=True)
class Excess:
    """The counting-noise floor of a slide, and the method to compare with."""

    best: str
    """The training-free method with the smallest error."""
    mse: float
    """Its mean squared error."""
    floor: float
    """The error that remains even if the rates are known."""

    @classmethod
    def of(cls, mse: Mapping[str, float], noise: Mapping[str, float]) -> "Excess":
        """Find the best training-free method, and estimate the floor.

        Parameters
        ----------
        mse
            Method → mean squared error of log1p counts over the masked entries of a slide.
        noise
            Method → mean variance of log1p counts over these entries, if they are Poisson counts
            with the rates that the method predicts. The floor is that of the method with the
            smallest error; NaN if there is none.
        """
        known = [method for method in TRAINING_FREE if method in mse]
        with_rates = [method for method in known if method in noise]
        best = min(known, key=mse.__getitem__, default="")
        floor = noise[min(with_rates, key=mse.__getitem__)] if with_rates else float("nan")
        return cls(best, mse.get(best, float("nan")), floor)

    def left(self, mse: float) -> float:
        """Compute the fraction of the best method's excess that is left; NaN if it has none."""
        excess = self.mse - self.floor
        return (mse - self.floor) / excess if excess > 0 else float("nan")
