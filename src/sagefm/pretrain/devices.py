"""Where a run trains: device, processes, precision."""

import ctypes
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from sagefm._extras import require


def launched_fabric(device: torch.device, devices: int) -> Any:
    """Start the processes of a run, each with a device of its own.

    Under torchrun the environment says how many there are. A Slurm job around a run is ignored.

    Returns
    -------
    A ``lightning_fabric.Fabric``.
    """
    fabric = require("lightning_fabric", "train", "training")
    environments = require("lightning_fabric.plugins.environments", "train", "training")
    elastic = "TORCHELASTIC_RUN_ID" in os.environ
    local = int(os.environ["LOCAL_WORLD_SIZE"]) if elastic else devices
    nodes = int(os.environ["WORLD_SIZE"]) // local if elastic else 1
    alone = local * nodes == 1
    if device.type == "cpu":
        torch.set_num_threads(max(1, torch.get_num_threads() // local))
    logging.getLogger("lightning_fabric").setLevel(logging.ERROR)  # no notes about processes
    started = fabric.Fabric(
        accelerator=device.type,
        devices=[device.index or 0] if alone and device.type != "cpu" else local,
        num_nodes=nodes,
        strategy="auto" if alone else "ddp",
        plugins=environments.TorchElasticEnvironment()
        if elastic
        else environments.LightningEnvironment(),
    )
    started.launch()
    return started


def is_half(precision: str, device: torch.device) -> bool:
    """Whether matrix products are computed in bfloat16."""
    automatic = precision == "auto" and device.type == "cuda" and torch.cuda.is_bf16_supported()
    return automatic or precision == "bfloat16"


_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of the GNU C library's malloc.h


@contextmanager
def keeping_memory(device: torch.device) -> Iterator[None]:
    """Let the C library keep freed memory, where it is one that can.

    Each step makes gradients as large as the weights. If their pages are given back to the system
    and requested again, the system clears them every time, which takes a quarter of a step.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is None or device.type != "cpu":
        yield
        return
    mallopt(_MMAP_MAX, 0)
    mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    try:
        yield
    finally:
        mallopt(_MMAP_MAX, 65536)
        mallopt(_TRIM_THRESHOLD, 128 * 1024)
