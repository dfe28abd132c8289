"""The learning rate of a step, and when to stop early."""

import math
from collections.abc import Sequence

import numpy as np

from sagefm.pretrain.recipe import TrainTable


def learning_rate(
    settings: TrainTable, step: int, n_steps: int, validation_losses: Sequence[float]
) -> float:
    """Compute the learning rate of a step.

    It rises linearly over the first `warmup_steps`. Then, with the schedule ``plateau`` (the
    published one), it is multiplied by 0.9 whenever 10 epochs pass without a better validation
    loss; with ``cosine`` it decays to zero along half a cosine wave.

    Parameters
    ----------
    step
        Number of the step, from 0.
    n_steps
        Maximal number of steps of the run.
    validation_losses
        Those of the epochs so far.
    """
    rise = min(1.0, (step + 1) / (settings.warmup_steps + 1))
    if settings.schedule == "cosine":
        done = (step - settings.warmup_steps) / max(1, n_steps - settings.warmup_steps)
        return settings.learning_rate * rise * (1 + math.cos(math.pi * min(max(done, 0), 1))) / 2
    return settings.learning_rate * rise * 0.9 ** _plateaus(validation_losses)


def _plateaus(losses: Sequence[float], patience: int = 10, threshold: float = 1e-4) -> int:
    """Count plateaus as torch's ``ReduceLROnPlateau`` does."""
    best, waited, plateaus = math.inf, 0, 0
    for loss in losses:
        better = loss < best * (1 - threshold)
        best, waited = (loss, 0) if better else (best, waited + 1)
        if waited > patience:
            plateaus, waited = plateaus + 1, 0
    return plateaus


def stalled(validation_losses: Sequence[float], patience: int) -> bool:
    """Whether the loss has not improved for `patience` epochs, or is not finite."""
    losses = np.array(validation_losses)
    if len(losses) and not np.isfinite(losses[-1]):
        return True
    return len(losses) > 0 and len(losses) - 1 - int(np.argmin(losses)) >= patience
