"""The training task of each network."""

from sagefm.pretrain.batches import Task
from sagefm.pretrain.context import ContextTask
from sagefm.pretrain.published import PublishedTask

TASKS: dict[str, type[Task]] = {"published": PublishedTask, "context": ContextTask}
"""By name of the network, as in :data:`sagefm.nn.NETWORKS`."""
