"""The error for bad input, and the logger."""

import logging


class InputError(ValueError):
    """A file, a slide or an argument is not what it must be.

    The message is one line that names the place, what is wrong and what to do. The command prints
    it and exits with status 2; in Python it is an ordinary :class:`ValueError`.
    """


logger = logging.getLogger("sagefm")
"""Logs what was summed, left out or assumed."""
