"""Results that all pages of a process share, and the threads that compute them."""

import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Any, TypeVar

from sagefm._progress import stage

T = TypeVar("T")


class SharedResults:
    """Compute each result once, whichever page asks first; the others wait for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._locks: dict[Hashable, threading.RLock] = {}
        self._results: dict[Hashable, Any] = {}
        self._jobs: dict[Hashable, Future[Any]] = {}

    def once(self, key: Hashable, compute: Callable[[], T]) -> T:
        """Get a result, computed here if no thread has done so; an error is not kept."""
        with self._lock:
            if key in self._results:
                found: T = self._results[key]
                return found
            lock = self._locks.setdefault(key, threading.RLock())
        with lock:
            if key not in self._results:
                self._results[key] = compute()
            found = self._results[key]
        return found

    @property
    def is_computing(self) -> bool:
        """Whether a thread is computing something."""
        return bool(self._jobs)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._results

    def start(self, key: Hashable, compute: Callable[[], T]) -> "Future[T]":
        """Compute a result in a thread; those who ask meanwhile get the same future."""
        with self._lock:
            if key in self._jobs:
                return self._jobs[key]
            future: Future[T] = Future()
            self._jobs[key] = future
        future.add_done_callback(lambda _: self._jobs.pop(key, None))
        # A daemon, so that Ctrl-C need not wait for it.
        threading.Thread(target=_run, args=(future, compute), daemon=True).start()
        return future


def _run(future: "Future[T]", compute: Callable[[], T]) -> None:
    try:
        future.set_result(compute())
    except BaseException as error:  # noqa: BLE001 - it is raised where the result is wanted
        future.set_exception(error)
    finally:
        stage("")
