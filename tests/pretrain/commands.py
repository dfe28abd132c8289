"""Commands in processes of their own that start at once: forked from one that is warm."""

import multiprocessing
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

SAGEFM = "from sagefm.cli import main; main()"
_ENOUGH = 40  # seconds: nothing here takes a fifth of that

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["sagefm.cli", "tests.pretrain.warm"])


class Command:
    """`sagefm ARGUMENTS...` at work in a folder."""

    def __init__(
        self,
        folder: Path,
        arguments: Sequence[object],
        *,
        before: str = "",
        environment: Mapping[str, str] | None = None,
        largest_file: int | None = None,
    ) -> None:
        Command.count += 1
        self.told = folder / f".told_{Command.count}"
        self.process = _context.Process(
            target=_work,
            args=(folder, list(map(str, arguments)), before, environment, largest_file, self.told),
        )
        self.process.start()

    count = 0

    def until(self, reached: Callable[[], bool]) -> bool:
        """Wait for something that the command does; say whether it came before the end."""
        while not reached():
            self.process.join(0.002)
            if self.process.exitcode is not None:
                return reached()
        return True

    def send(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):  # it may end at any moment
            os.kill(self.process.pid, number)

    def end(self) -> tuple[int, str]:
        """Wait for the end; give status and what was told on stdout and stderr."""
        self.process.join(_ENOUGH)
        if self.process.exitcode is None:
            self.process.kill()
            raise TimeoutError(self.told.read_text())
        return self.process.exitcode, self.told.read_text()


def _work(
    folder: Path,
    arguments: list[str],
    before: str,
    environment: Mapping[str, str] | None,
    largest_file: int | None,
    told: Path,
) -> None:
    os.chdir(folder)
    for stream in (1, 2):
        os.dup2(os.open(told, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    os.environ.update(environment or {})
    sys.argv = ["sagefm", *arguments]
    if largest_file:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    exec(f"{before}\n{SAGEFM}", {})


def as_torchrun(n: int, nodes: int = 1) -> list[dict[str, str]]:
    """What torchrun tells each of `n` processes on `nodes` machines."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"TORCHELASTIC_RUN_ID": "test", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    each = n // nodes
    own = [
        {"RANK": i, "LOCAL_RANK": i % each, "GROUP_RANK": i // each, "LOCAL_WORLD_SIZE": each}
        for i in range(n)
    ]
    return [
        common | {name: str(value) for name, value in {"WORLD_SIZE": n, **facts}.items()}
        for facts in own
    ]


def line_of(told: str) -> str:
    """The one line of an error; notes may stand before it."""
    lines = [line for line in told.splitlines() if not line.startswith("note: ")]
    assert len(lines) == 1, told
    assert "Traceback" not in told
    return lines[0]
