"""The patients that are held out for validation."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sagefm._errors import InputError


def hold_out(
    patients: NDArray[np.str_], validation: float | Sequence[str], seed: int
) -> NDArray[np.bool_]:
    """Choose the slides to validate on: all slides of some patients.

    Parameters
    ----------
    patients
        The patient of each slide (or spot).
    validation
        Names of the patients, or the fraction of them to draw (at least one).

    Returns
    -------
    For each slide whether it is held out; none with a single patient.

    Raises
    ------
    InputError
        No slide is of a patient that is named, or no patient is left to train on.
    """
    names = np.unique(patients)
    if isinstance(validation, float):
        if len(names) == 1:
            return np.zeros(len(patients), dtype=bool)
        n_held_out = max(1, round(validation * len(names)))
        held_out = np.random.default_rng(seed).choice(names, n_held_out, replace=False)
    else:
        held_out = np.array(validation)
        unknown = sorted(set(validation) - set(names.tolist()))
        if unknown:
            raise InputError(
                f"data.validation: no slide is of patient {unknown[0]!r}; there is "
                f"{', '.join(names.tolist())}"
            )
    if len(held_out) == len(names):
        raise InputError("data.validation: holds out every patient; leave at least one to train on")
    return np.isin(patients, held_out)
