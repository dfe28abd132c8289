"""Name temporary files, and find those that killed processes have left."""

import hashlib
import os
import secrets
import socket
import time
from contextlib import suppress
from pathlib import Path

HOST = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]
_STALE = 24 * 3600
"""Seconds after which a temporary file that nobody has changed is removed, whoever made it."""


def temporary_name() -> str:
    """Make a name that tells which process made a file: host.process.random."""
    return f"{HOST}.{os.getpid()}.{secrets.token_hex(4)}"


def is_stray(path: Path, name: str) -> bool:
    """Whether a killed process has left a file.

    Those of other machines, whose processes cannot be seen, count when they are old.

    Parameters
    ----------
    name
        Its name, from :func:`temporary_name` on.
    """
    with suppress(OSError, ValueError):  # another process has removed it
        host, pid, *_ = name.split(".")
        old = time.time() - path.stat().st_mtime > _STALE
        return old or (host == HOST and not _is_running(int(pid)))
    return False


def _is_running(pid: int) -> bool:
    if os.name == "nt":  # where the signal would stop it
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # of another user
    return True
