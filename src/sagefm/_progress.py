"""What long work is doing: lines of the logger ``sagefm.progress``, which the command shows."""

import logging
from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")

logger = logging.getLogger("sagefm.progress")
"""Its lines are of level INFO: in Python they are not shown unless that is set."""


def stage(text: str, *values: object) -> None:
    """Log what is done from now on; an empty text ends the last stage."""
    logger.info(text, *values)


def counted(items: Sequence[T], text: str) -> Iterator[T]:
    """Go through items, and log the number of each after a text."""
    for number, item in enumerate(items, start=1):
        stage("%s: %d of %d", text, number, len(items))
        yield item
