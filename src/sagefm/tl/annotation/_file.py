"""An annotator on disk: one safetensors file of arrays, and a header that says what they are."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from sagefm._errors import InputError
from sagefm.nn import checkpoint
from sagefm.stats.pca import WhitenedPCA
from sagefm.tl.annotation._calibration import HeldOut
from sagefm.tl.annotation._heads import Reader
from sagefm.tl.annotation._novelty import Novelty

if TYPE_CHECKING:
    from sagefm.model import SageFM
    from sagefm.tl.annotation._annotator import Annotator

_KIND = "annotator"
_KNOWN = "novelty."


def write(path: str | Path, annotator: "Annotator") -> None:
    """Write an annotator; see :meth:`~sagefm.tl.annotation._annotator.Annotator.save`."""
    reader, held = annotator.reader, annotator.held_out
    groups = list(dict.fromkeys(held.groups.tolist()))
    arrays: dict[str, Any] = {
        "known": reader.known,
        "held_out.groups": np.array([groups.index(name) for name in held.groups], dtype=np.int64),
        "held_out.truth": held.truth,
        "held_out.predicted": held.predicted,
        "held_out.confidence": held.confidence,
    }
    arrays |= {_KNOWN + name: own for name, own in annotator.known.arrays().items()}
    tensors = {name: torch.from_numpy(np.array(own)) for name, own in arrays.items()}
    tensors |= _of_reader(reader)
    header = {
        "kind": _KIND,
        "classes": annotator.classes,
        "settings": asdict(annotator.settings),
        "temperature": annotator.temperature,
        "unit": held.unit,
        "groups": groups,
        "fingerprint": annotator.fingerprint,
        "facts": annotator.facts,
    }
    checkpoint.write(path, tensors, header)


def _of_reader(reader: Reader) -> dict[str, Tensor]:
    arrays = {
        "columns": reader.columns,
        "center": reader.reduction.center,
        "axes": reader.reduction.axes,
    }
    for i, (weights, biases) in enumerate(reader.layers):
        arrays |= {f"layers.{i}.weights": weights, f"layers.{i}.biases": biases}
    return {name: torch.from_numpy(np.array(own)) for name, own in arrays.items()}


def read(path: str | Path, model: "SageFM") -> "Annotator":
    """Read an annotator; see :meth:`~sagefm.tl.annotation._annotator.Annotator.load`."""
    from sagefm.tl.annotation._annotator import Annotator, Settings

    tensors, header = checkpoint.read(path, _KIND)
    if header.get("fingerprint") != model.fingerprint:
        raise InputError(f"{path}: belongs to another model; give the one it was learned with")
    if "head.weight" in tensors:
        raise InputError(
            f"{path}: holds a fine-tuned network, and fine-tuning was removed; "
            "learn the annotator again"
        )
    try:
        settings, classes = Settings(**header["settings"]), tuple(header["classes"])
        arrays = {name: own.numpy() for name, own in tensors.items()}
        names = np.array(header["groups"])[arrays["held_out.groups"]]
        held = HeldOut(
            header["unit"], names, arrays["held_out.truth"], arrays["held_out.predicted"],
            arrays["held_out.confidence"],
        )  # fmt: skip
        novelty = Novelty.from_arrays(
            {name.removeprefix(_KNOWN): a for name, a in arrays.items() if name.startswith(_KNOWN)}
        )
        reader = _reader(arrays, len(classes), settings.centered)
        return Annotator(
            classes, settings, reader, float(header["temperature"]), novelty, held,
            header["fingerprint"], dict(header["facts"]),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, IndexError, RuntimeError) as error:
        raise InputError(f"{path}: is damaged ({error}); learn it again") from error


def _reader(arrays: dict[str, Any], n_classes: int, centered: bool) -> Reader:
    n_layers = sum(name.endswith(".weights") for name in arrays)
    layers = tuple(
        (arrays[f"layers.{i}.weights"], arrays[f"layers.{i}.biases"]) for i in range(n_layers)
    )
    reduction = WhitenedPCA(arrays["center"], arrays["axes"])
    return Reader(arrays["columns"], reduction, layers, arrays["known"], n_classes, centered)
