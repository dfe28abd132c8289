"""What commands import, to be imported once for all trials."""

import importlib
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_NUM_THREADS", "1")

for name in (
    "matplotlib.pyplot",
    "sagefm.cli",
    "sagefm.evaluate",
    "sagefm.pl",
    "sagefm.pretrain.fitting",
    "sagefm.report",
    "sagefm.tl",
    "torch.utils.tensorboard",
):
    importlib.import_module(name)
