"""Signals: delay them where an interruption does harm, and end cleanly when asked to."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Delay Ctrl-C and SIGTERM until the end of the block.

    Threads and processes that are started in it never receive Ctrl-C: this process does, and
    closes them.
    """
    numbers = [number for number in (signal.SIGINT, signal.SIGTERM) if _is_handled(number)]
    if not numbers:
        yield
        return
    received: list[int] = []
    handlers = [signal.signal(number, lambda at, _: received.append(at)) for number in numbers]
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT} & {*numbers})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for number, handler in zip(numbers, handlers, strict=True):
            signal.signal(number, handler)
        if received:
            signal.raise_signal(received[0])


def _is_handled(number: int) -> bool:
    """Whether Python code runs in this thread at a signal."""
    main = threading.current_thread() is threading.main_thread()  # others receive no signals
    return main and hasattr(signal, "pthread_sigmask") and callable(signal.getsignal(number))


@contextmanager
def terminating() -> Iterator[None]:
    """Raise SystemExit at SIGTERM and SIGHUP, so that what is incomplete is removed.

    The status is that of a process killed by the signal: 128 and its number. Signals that somebody
    handles or ignores already, as nohup does, are left alone.
    """

    def end(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    names = ("SIGTERM", "SIGHUP")
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    if os.name == "nt" or threading.current_thread() is not threading.main_thread():
        numbers = []
    numbers = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]
    for number in numbers:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)
