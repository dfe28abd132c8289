"""The error for bad input, and the logger."""

import logging


class InputError(ValueError):
    """Invalid input: a file, a slide or an argument.

    The message is one line that names the input, the problem and the remedy. The command prints it
    and exits with status 2.
    """

    def __init__(self, message: object = "") -> None:
        # Libraries and files bring line breaks of every kind.
        super().__init__(" ".join(filter(None, map(str.strip, str(message).splitlines()))))


logger = logging.getLogger("sagefm")
"""Logger of sagefm: what was summed, left out or assumed."""
