"""What commands import, to be imported once for all trials."""

import importlib

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
