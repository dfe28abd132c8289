"""The tasks that networks are trained with, by name."""

from sagefm.pretrain.batches import Task
from sagefm.pretrain.context import ContextTask
from sagefm.pretrain.published import PublishedTask

TASKS: dict[str, type[Task]] = {"published": PublishedTask, "context": ContextTask}
"""Of the networks in :data:`sagefm.nn.NETWORKS`."""
