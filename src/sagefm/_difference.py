"""The difference of an adapted model from the model that it was adapted from, as a small file.

Only rows that changed are kept, each as whole numbers up to 127 with a scale of its own: that loses
nothing of what adapting gains, and where few genes are measured it is smaller than a matrix of low
rank.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from sagefm._errors import InputError
from sagefm._validate import read_as, short
from sagefm.nn import checkpoint
from sagefm.pp.pseudonyms import without_names

KIND = "difference"
_SCALE, _ROWS = ".scale", ".rows"
_MOST = 127


@dataclass(frozen=True)
class _Header:
    """What a difference file says about its weights."""

    format: int
    kind: str
    base: str
    provenance: dict[str, Any]


class Difference(NamedTuple):
    """The contents of a difference file."""

    weights: dict[str, Tensor]
    base: str
    """Fingerprint of the model that the difference is from."""
    provenance: dict[str, Any]

    @classmethod
    def of(cls, path: str | Path, weights: dict[str, Tensor], header: Mapping[str, Any]) -> Self:
        """Check the header that was read.

        Raises
        ------
        InputError
            It is damaged.
        """
        try:
            described = read_as(_Header, header)
        except ValueError as error:
            raise InputError(f"{path}: its header is damaged ({error}); copy it again") from error
        return cls(weights, described.base, described.provenance)

    def added_to(self, path: str | Path, base: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Add the difference to the weights of its base.

        Raises
        ------
        InputError
            A part does not fit the base.
        """
        weights, names = dict(base), set(self.weights)
        for name in sorted(names):
            if name.endswith((_SCALE, _ROWS)):
                continue
            if name not in base:
                raise InputError(f"{path}: holds {short(name)}, which its base does not have")
            try:
                weights[name] = _added(base[name], *(self.weights[name + s] for s in _SUFFIXES))
            except (LookupError, ValueError, RuntimeError) as error:
                raise InputError(
                    f"{path}: its difference of {name} is damaged ({short(error)}); copy it again"
                ) from error
            names -= {name + suffix for suffix in _SUFFIXES}
        if names:
            raise InputError(f"{path}: holds {short(min(names))} of nothing; copy it again")
        return weights


_SUFFIXES = ("", _SCALE, _ROWS)


def write(
    path: str | Path,
    weights: Mapping[str, Tensor],
    base: Mapping[str, Tensor],
    fingerprint: str,
    provenance: Mapping[str, Any],
) -> None:
    """Write a difference file.

    Parameters
    ----------
    weights, base
        Of the adapted model, and of the one that it was adapted from.
    fingerprint
        Of the latter.
    provenance
        Of the adapted model.
    """
    parts: dict[str, Tensor] = {}
    for name, before in base.items():
        change = _as_rows(weights[name].cpu() - before.cpu())
        rows = change.any(dim=1).nonzero().squeeze(1)
        if not len(rows):
            continue
        scale = change[rows].abs().amax(dim=1) / _MOST
        parts[name] = (change[rows] / scale[:, None]).round().to(torch.int8)
        parts[name + _SCALE], parts[name + _ROWS] = scale, rows.int()
    header = {"kind": KIND, "base": fingerprint, "provenance": without_names(provenance)}
    checkpoint.write(path, parts, header)


def _as_rows(values: Tensor) -> Tensor:
    """See a matrix as it is, and a vector as a column: each number has a scale of its own."""
    return values if values.ndim == 2 else values.reshape(-1, 1)


def _added(before: Tensor, steps: Tensor, scale: Tensor, rows: Tensor) -> Tensor:
    """Add a change to some rows of a weight.

    Raises
    ------
    ValueError
        A part has another type, shape or range than it can have.
    """
    after = _as_rows(before.clone())
    if (steps.dtype, scale.dtype, rows.dtype) != (torch.int8, torch.float32, torch.int32):
        raise ValueError("its numbers are of another type")
    if steps.shape != (len(rows), after.shape[1]) or scale.shape != rows.shape != (0,):
        raise ValueError("its parts have other shapes")
    if not (torch.isfinite(scale).all() and (scale >= 0).all()):
        raise ValueError("it is not finite")
    if (torch.diff(rows) <= 0).any() or not 0 <= int(rows[0]) <= int(rows[-1]) < len(after):
        raise ValueError("its rows are no rows of the base")
    at = rows.long().to(after.device)
    after[at] += (steps * scale[:, None]).to(after.device)
    return after.view_as(before)
