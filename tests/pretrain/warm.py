"""What a command that trains imports, to be imported once for all of them."""

import importlib

for name in (
    "matplotlib.pyplot",
    "sagefm.pl",
    "sagefm.pretrain.fitting",
    "torch.utils.tensorboard",
):
    importlib.import_module(name)
