"""Run one trial in a process of its own, so that a crash is a result, and judge how it ended."""

import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree

_MEMORY = 24 << 30
"""Address space of a trial: what claims to be larger must be refused, not tried."""
_HARNESS = 99
"""Exit status if the trial itself, not the command, failed."""


@dataclass(frozen=True)
class Ended:
    """How a process ended."""

    status: int | None
    """Exit status; minus the signal if one killed it; None if it was stopped after the limit."""
    out: str
    err: str

    @property
    def fault(self) -> str:
        """What a user must never see; empty if the command succeeded or refused in one line."""
        if self.status is None:
            return "hung"
        if self.status < 0:
            return f"died of {signal.Signals(-self.status).name}"
        if self.status == _HARNESS:
            return "the trial failed"
        errors = [line for line in self.err.splitlines() if line.startswith("error: ")]
        if self.status not in (0, 2):
            return f"exit status {self.status}"
        if "Traceback" in self.err or "Warning:" in self.err:
            return "a traceback or a warning of a library"
        if len(errors) != (self.status == 2):
            return f"{len(errors)} lines of errors at exit status {self.status}"
        if errors and self.err.splitlines()[-1] != errors[0]:
            return "something follows the error"
        return ""


def run(
    work: Callable[[], object], limit: float = 120, *, largest_file: int | None = None,
    kill_after: float | None = None,
) -> Ended:  # fmt: skip
    """Fork, do the work, and wait for its end; kill its whole group after a time, if wanted."""
    folder = Path(tempfile.mkdtemp(prefix="told_"))
    child = os.fork()
    if child == 0:
        _be_child(work, folder, largest_file)
    status = _wait(child, limit if kill_after is None else kill_after)
    out, err = ((folder / name).read_text(errors="replace") for name in ("out", "err"))
    rmtree(folder)
    return Ended(status, out, err)


def _be_child(work: Callable[[], object], folder: Path, largest_file: int | None) -> None:
    status = _HARNESS
    try:
        os.setsid()
        for stream, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if largest_file is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
        work()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001  of the command or of the trial
        traceback.print_exc()
    finally:
        with suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _wait(child: int, limit: float) -> int | None:
    end = time.monotonic() + limit
    with suppress(ChildProcessError):
        while time.monotonic() < end:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                _kill_group(child)
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.002)
    _kill_group(child)
    os.waitpid(child, 0)
    return None


def _kill_group(child: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)


def command(*words: object) -> None:
    """Be the command ``sagefm``."""
    from sagefm.cli import main

    sys.argv = ["sagefm", *map(str, words)]
    main()
