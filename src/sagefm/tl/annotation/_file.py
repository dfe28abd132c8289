"""An annotator on disk: one safetensors file of arrays, and a header that says what they are."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from sagefm._errors import InputError
from sagefm.nn import Published, checkpoint
from sagefm.stats.pca import WhitenedPCA
from sagefm.tl.annotation._calibration import HeldOut
from sagefm.tl.annotation._heads import Reader
from sagefm.tl.annotation._novelty import Novelty

if TYPE_CHECKING:
    from sagefm.model import SageFM
    from sagefm.tl.annotation._annotator import Annotator
    from sagefm.tl.annotation._tuning import Tuned

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
    tensors |= _of_reader(reader) if isinstance(reader, Reader) else _of_tuned(reader)
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


def _of_tuned(tuned: "Tuned") -> dict[str, Tensor]:
    weights = {f"network.{name}": own for name, own in tuned.network.state_dict().items()}
    # What predicts genes was not trained, and is not asked.
    weights = {name: own for name, own in weights.items() if "decoder" not in name}
    head = {"head.weight": tuned.head.weight, "head.bias": tuned.head.bias}
    profile = {} if tuned.profile is None else {"profile": tuned.profile}
    return weights | head | profile


def read(path: str | Path, model: "SageFM") -> "Annotator":
    """Read an annotator; see :meth:`~sagefm.tl.annotation._annotator.Annotator.load`."""
    from sagefm.tl.annotation._annotator import Annotator, Settings

    tensors, header = checkpoint.read(path, _KIND)
    if header.get("fingerprint") != model.fingerprint:
        raise InputError(f"{path}: belongs to another model; give the one it was learned with")
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
        reader: Reader | Tuned
        if "head.weight" in tensors:
            reader = _tuned(tensors, model, len(classes))
        else:
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


def _tuned(tensors: dict[str, Tensor], model: "SageFM", n_classes: int) -> "Tuned":
    from sagefm.tl.annotation._tuning import Tuned

    with torch.device("meta"):
        network = Published(len(model.vocabulary), model.config.widths)
    own = {name[8:]: t for name, t in tensors.items() if name[:8] == "network."}
    lent = {name: t.cpu() for name, t in model.network.state_dict().items() if name not in own}
    network.load_state_dict(own | lent, assign=True)
    weight, bias = tensors["head.weight"], tensors["head.bias"]
    head = nn.Linear(weight.shape[1], weight.shape[0])
    head.load_state_dict({"weight": weight, "bias": bias}, assign=True)
    device = model.device
    return Tuned(
        network.eval().to(device), head.requires_grad_(False).to(device), tensors.get("profile"),
        tensors["known"].numpy(), n_classes,
    )  # fmt: skip
