"""Compare a CUDA device with the CPU: the same numbers, the speed, and a model trained on it.

    python benchmarks/bench_device.py [--sections equality,speed,training] [--minutes 7.5]
        [--json FILE] [--data FOLDER]

- ``equality``: simulated slides, both networks. What a model is used for gives on the device what
  it gives on the CPU, to 1e-4 of the largest number (for what is trained on the way see
  `_device_equality.py`).
- ``speed``: the default model on 20,000 simulated spots: spots/s, and the share of what memory and
  arithmetic of the device reach, both of which are measured.
- ``training``: the recipe of the default model on the slides of --data (slides.csv,
  detected_genes_17537.txt, slides/NAME.h5ad), or on simulated ones, on the device
  and on the processor in float32, and on the device in bfloat16.

Results are written to --json as they come. Every section has its part of --minutes; what there is
no time for is skipped. The exit status is 1 if anything failed. Does nothing without a CUDA device.
"""

import argparse
import os
import platform
import sys
import time
from pathlib import Path

import numpy as np
import torch

import _device_equality
import _device_speed
import _device_training
import sagefm
from _device import Results, roofs

SECTIONS = {
    "equality": (_device_equality.run, 0.4),
    "speed": (_device_speed.run, 0.3),
    "training": (_device_training.run, 0.3),
}
"""With their parts of the time."""


def main(words=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sections", default=",".join(SECTIONS))
    parser.add_argument(
        "--models", default="small,context,default", help="whose equality is tested"
    )
    parser.add_argument("--minutes", type=float, default=7.5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--device", default="cuda", help=argparse.SUPPRESS)
    parser.add_argument("--small", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(words)
    if given.device == "cuda" and not torch.cuda.is_available():
        print("no CUDA device: nothing to compare")
        return
    chosen = given.sections.split(",")
    if unknown := set(chosen) - set(SECTIONS):
        parser.error(f"--sections: there is no {', '.join(sorted(unknown))}")
    begin, results = time.monotonic(), Results(given.json, given.device)
    facts = machine(given.device)
    results.note("machine", **facts)
    print(", ".join(f"{key} {value}" for key, value in facts.items()), flush=True)
    measured = results.attempt("machine", "roofs", roofs, given.device)
    if measured:
        results.note("machine", roofs=measured)
        print(f"roofs: memory {measured['memory'] / 1e9:,.0f} GB/s, float32 "
              f"{measured['float32'] / 1e12:.1f} TFLOP/s, bfloat16 "
              f"{measured['bfloat16'] / 1e12:.1f} TFLOP/s", flush=True)  # fmt: skip
    parts = sum(SECTIONS[name][1] for name in chosen)
    for name in chosen:
        run, part = SECTIONS[name]
        # What a section leaves of its time is for the next ones.
        left = given.minutes * 60 - (time.monotonic() - begin)
        start = time.monotonic()
        results.deadline = start + left * part / parts
        parts -= part
        print(f"\n## {name}, at most {left * part / (parts + part):.0f} s", flush=True)
        results.attempt(name, name, run, given, results)
        results.note(name, seconds=round(time.monotonic() - start, 1))
    print(f"\n{time.monotonic() - begin:.0f} s")
    if results.failed:
        sys.exit(f"failed: {', '.join(results.failed)}")


def machine(device):
    """Describe the machine; tell whether float32 products are what they say."""
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else device,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "sagefm": sagefm.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "float32_products": torch.get_float32_matmul_precision(),
        "tf32": torch.backends.cuda.matmul.allow_tf32,
    }


if __name__ == "__main__":
    main()
