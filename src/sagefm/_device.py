"""Choose where torch computes."""

import torch

from sagefm._errors import InputError


def pick_device(name: str | None) -> torch.device:
    """Choose a device: CUDA if available, unless a name is given.

    Raises
    ------
    InputError
        This machine has no such device.
    """
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"device {name!r}: is not available on this machine; leave it out, or choose cpu"
        ) from error
    return device
