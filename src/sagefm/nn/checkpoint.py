"""Weights on disk: safetensors of our own, and the published checkpoint. Nothing here runs code."""

import hashlib
import json
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from sagefm._errors import InputError
from sagefm._files import replacing
from sagefm._validate import checked, parse_json, short
from sagefm.nn.base import Network
from sagefm.nn.registry import build

_HEADER = "sagefm"
_CHECKSUM = "sagefm.checksum"
_FORMAT = 1
MODEL = "model"
_UNREADABLE = (SafetensorError, OSError, RuntimeError, ValueError, TypeError, LookupError)
"""What the library raises of damaged files, or of types that torch does not have."""
_TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def write(path: str | Path, weights: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write weights and what describes them to one safetensors file.

    Parameters
    ----------
    header
        Anything that JSON can hold.

    Raises
    ------
    InputError
        The file cannot be written; what was there before is untouched.
    """
    described = json.dumps({"format": _FORMAT, **header})
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    metadata = {_HEADER: described, _CHECKSUM: _checksum(described, tensors)}
    with replacing(path) as beside:
        try:
            save_file(tensors, beside, metadata=metadata)
        except SafetensorError as error:  # in which the error of the system is only text
            raise InputError(
                f"{path}: cannot be written ({error}); free some space, or choose another place"
            ) from error


def _checksum(described: str, tensors: Mapping[str, Tensor]) -> str:
    """Compute the sha256 of a header and its tensors."""
    digest = hashlib.sha256(described.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        if tensor.numel():  # an empty one cannot be seen as bytes
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def read(path: str | Path, *kinds: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the weights and the header that :func:`write` wrote.

    Parameters
    ----------
    kinds
        What the header can say it is; a model, or the state of a run, says nothing: if not given.

    Raises
    ------
    InputError
        The file is missing, damaged, not safetensors, not of sagefm, or of another kind.
    """
    # The library opens a file twice: replaced in between, it would be two halves of two files.
    before = None
    while before != (now := _version(path)):
        before = now
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except _UNREADABLE as error:
            if before == _version(path):
                raise InputError(
                    f"{path}: is not a whole safetensors file ({short(error)}); copy it again, or "
                    "turn a published .pt into a model with `sagefm convert`"
                ) from error
    if _HEADER not in metadata:
        raise InputError(f"{path}: has no sagefm header; it is the weights of some other model")
    # Files of earlier versions have no checksum.
    if metadata.get(_CHECKSUM, "") not in ("", _checksum(metadata[_HEADER], weights)):
        raise InputError(f"{path}: fails its checksum, so it was changed or damaged; copy it again")
    try:
        header = checked(dict[str, Any], parse_json(metadata[_HEADER]), "it")
    except ValueError as error:
        raise InputError(
            f"{path}: its header is damaged ({short(error)}); copy it again"
        ) from error
    if header.get("format") != _FORMAT:
        raise InputError(
            f"{path}: has format {short(header.get('format'))}, this version reads {_FORMAT}; "
            "upgrade sagefm"
        )
    if (found := header.get("kind", MODEL)) not in (kinds := kinds or (MODEL,)):
        other = short(found).strip("'")
        raise InputError(f"{path}: is no {kinds[0]} but one of the kind {other}; give another file")
    return weights, header


def read_published(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the checkpoint of the paper under the names of :class:`~sagefm.nn.published.Published`.

    Only tensors and plain numbers are ever made from the file, so that a hostile pickle is refused.

    Returns
    -------
    weights
        Ready for a network of the widths that they have.
    facts
        The plain entries of the checkpoint (epoch, best_val_loss, learning_rate, …).

    Raises
    ------
    InputError
        The file is missing, truncated, would run code, or holds other layers.
    """
    _require_file(path)
    scalar: Any = np.float64(0).__reduce__()[0]  # what numpy's numbers are pickled with
    numbers: list[Any] = [
        scalar,
        (scalar, "numpy.core.multiarray.scalar"),  # its place in numpy 1
        np.dtype,
        *(type(np.dtype(kind)) for kind in ("f4", "f8", "i4", "i8")),
    ]
    try:
        with torch.serialization.safe_globals(numbers), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickles of other protocols: refused below
            if zipfile.is_zipfile(path):  # of today's torch, which does not look at the checksums
                with zipfile.ZipFile(path) as archive:
                    if archive.testzip() is not None:
                        raise ValueError("it fails its checksum")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path}: refused, it is damaged or holds more than weights and could run code; get "
            "the checkpoint from its authors again"
        ) from error
    except Exception as error:  # a damaged file can raise nearly anything
        raise InputError(f"{path}: is not a whole PyTorch checkpoint; copy it again") from error
    state = content.get("model_state_dict") if isinstance(content, dict) else None
    if not isinstance(state, dict):
        raise InputError(f"{path}: has no model_state_dict; it is not the published checkpoint")
    facts = {
        str(key): value.item() if isinstance(value, np.generic) else value
        for key, value in content.items()
        if isinstance(value, bool | float | str | np.generic)
        or (isinstance(value, int) and abs(value) < 2**63)
    }
    return _rename(path, state), facts


def fill(
    path: str | Path,
    weights: Mapping[str, Tensor],
    name: str,
    n_genes: int,
    widths: tuple[int, ...],
) -> Network:
    """Make the network called `name` around `weights`, which came from `path`.

    Raises
    ------
    InputError
        A weight has another shape than so many genes and such widths need, or is not finite.
    """
    with torch.device("meta"):
        network = build(name, n_genes, widths)
        network.make_room(weights)
    for part, wanted in network.state_dict().items():
        found = tuple(weights[part].shape) if part in weights else None
        if found != tuple(wanted.shape):
            raise InputError(
                f"{path}: {part} has shape {found}, but a vocabulary of {n_genes:,} genes "
                f"and widths {widths} need {tuple(wanted.shape)}; "
                "is this the gene list that belongs to the weights?"
            )
    if extra := sorted(set(weights) - set(network.state_dict())):
        raise InputError(
            f"{path}: holds {short(extra[0])}, which a network {name} of widths {widths} does not "
            "have; get the file again"
        )
    singles = {part: _single(path, part, values) for part, values in weights.items()}
    network.load_state_dict(singles, assign=True)
    return network


def _single(path: str | Path, part: str, values: Tensor) -> Tensor:
    """Convert weights to single precision; raise an error where they are no numbers."""
    if values.dtype not in _TYPES:
        kind = str(values.dtype).removeprefix("torch.")
        raise InputError(
            f"{path}: {part} has weights of the type {kind}; save them as float32 or float16"
        )
    single = values.float()
    ends = torch.aminmax(single) if single.numel() else ()  # of NaN if one is, and fast
    if not all(map(torch.isfinite, ends)):
        raise InputError(f"{path}: {part} has NaN or infinite weights; train the model again")
    return single


def _rename(path: str | Path, state: dict[str, Any]) -> dict[str, Tensor]:
    names = {"conv1.lin.weight": "first", "conv1.bias": "first_bias"}
    for layer in range(2, 6):
        names[f"conv{layer}.lin.weight"] = f"encoder.{layer - 2}.weight"
        names[f"conv{layer}.bias"] = f"encoder.{layer - 2}.bias"
    names |= {"fc_gene.weight": "decoder.weight", "fc_gene.bias": "decoder.bias"}
    odd = sorted(set(names) ^ set(state))
    if odd:
        raise InputError(
            f"{path}: its layers are not those of the published network (see {odd[0]}); "
            "only that network can be converted"
        )
    matrices = {theirs for theirs in names if theirs.endswith("weight")}
    for theirs, tensor in state.items():
        if not _is_whole(tensor) or tensor.ndim != 1 + (theirs in matrices):
            raise InputError(f"{path}: {theirs} is no layer of a network; get the file again")
    weights = {ours: state[theirs].float() for theirs, ours in names.items()}
    weights["first"] = weights["first"].T.contiguous()
    return weights


def _is_whole(tensor: object) -> bool:
    """Whether the file holds every number of a tensor, rather than a few that stand for many."""
    return (
        isinstance(tensor, Tensor)
        and tensor.layout is torch.strided
        and tensor.device.type == "cpu"
        and tensor.dtype in _TYPES
        and tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()
    )


def _require_file(path: str | Path) -> None:
    try:
        if not Path(path).is_file():
            raise InputError(f"{path}: no such file; give the path of a model file")
        with Path(path).open("rb"):
            pass
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); check its permissions"
        ) from error


def _version(path: str | Path) -> tuple[int, int]:
    """Tell a file from the one that replaces it."""
    _require_file(path)
    state = Path(path).stat()
    return state.st_ino, state.st_mtime_ns
