"""The tasks that networks are trained with, by name."""

from sagefm.pretrain.batches import Task
from sagefm.pretrain.patches import Patches
from sagefm.pretrain.regions import Regions

TASKS: dict[str, type[Task]] = {"published": Patches, "context": Regions}
"""Of the networks in :data:`sagefm.nn.NETWORKS`."""
