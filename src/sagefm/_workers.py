"""Apply a function to many jobs: in this process, in several, or on a dask cluster."""

import asyncio
import importlib.util
import logging
import os
import pickle
import threading
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from sagefm._errors import InputError, logger
from sagefm._extras import require
from sagefm._signals import uninterrupted

if TYPE_CHECKING:
    from distributed import Client, LocalCluster

J = TypeVar("J")
R = TypeVar("R")

_TIMEOUT = 10
"""Seconds to wait for a scheduler."""
_DIED = (
    "its process died, most likely for lack of memory; try again with fewer "
    "workers, or on a machine with more memory"
)
_SETTINGS = {
    "logging": {"distributed": "critical"},
    # A job whose process died is tried again alone, after the others.
    "distributed.scheduler.allowed-failures": 0,
    # Jobs that are queued at a process are lost with it: queue them at the scheduler.
    "distributed.scheduler.worker-saturation": 1.0,
}


class _Outcome(NamedTuple, Generic[R]):
    """The result or exception of a function, and the messages that sagefm logged meanwhile."""

    result: R | Exception
    messages: list[tuple[int, str]]


def n_cores() -> int:
    """Count the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def default_workers() -> int:
    """Get half of the cores, at least one; one where dask is not installed."""
    if importlib.util.find_spec("distributed") is None:
        return 1
    return max(1, n_cores() // 2)


def each(
    function: Callable[[J], R],
    jobs: Sequence[J],
    workers: int = 1,
    *,
    scheduler: str | None = None,
    quiet: bool = False,
) -> Generator[tuple[J, R | Exception], None, None]:
    """Yield each job with the result of `function`, or its error, in order of completion.

    Messages that are logged by other processes are logged in this one, job by job.

    Parameters
    ----------
    function
        Importable by name in other processes.
    jobs
        Its arguments, one per call.
    workers
        How many processes to start, which share the cores; one means this process.
    scheduler
        Address of a running dask cluster to use instead.
    quiet
        Whether to drop the messages.

    Raises
    ------
    InputError
        No scheduler answers, or dask is not installed and there is more than one process.
    """
    n_workers = min(workers, len(jobs))
    outcomes: Generator[tuple[J, _Outcome[R]], None, None]
    if scheduler is None and n_workers <= 1:
        outcomes = ((job, _call(function, job)) for job in jobs)
    else:
        require("distributed", "cluster", "work in several processes")
        outcomes = _on_cluster(partial(_call_remotely, function), jobs, n_workers, scheduler)
    with closing(outcomes):
        for job, outcome in outcomes:
            for level, message in [] if quiet else outcome.messages:
                logger.log(level, message)
            yield job, outcome.result


def _call(function: Callable[[J], R], job: J) -> _Outcome[R]:
    """Call a function, and collect the messages that it logs."""
    messages: list[tuple[int, str]] = []
    thread = threading.get_ident()  # workers of a cluster may have several threads

    def collect(record: logging.LogRecord) -> bool:
        if record.thread == thread:
            messages.append((record.levelno, record.getMessage()))
        return record.thread != thread

    logger.addFilter(collect)
    try:
        return _Outcome(function(job), messages)
    except Exception as error:  # noqa: BLE001 (the other jobs continue in any case)
        return _Outcome(error, messages)
    finally:
        logger.removeFilter(collect)


def _call_remotely(function: Callable[[J], R], job: J) -> _Outcome[R]:
    """Call a function; reduce an error to what can be sent to another process.

    dask would send everything an error refers to; if that cannot be unpickled, the client waits
    forever.
    """
    outcome = _call(function, job)
    if not isinstance(outcome.result, Exception):
        return outcome
    error = outcome.result
    trace = "".join(traceback.format_exception(error, limit=-50))
    error.__traceback__ = error.__cause__ = error.__context__ = None
    try:
        bare = pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001 (exceptions with unusual arguments fail in many ways)
        bare = RuntimeError(f"{type(error).__name__}: {error}")
    bare.add_note(f"In a worker:\n{trace}")
    return outcome._replace(result=bare)


def _on_cluster(
    function: Callable[[J], _Outcome[R]], jobs: Sequence[J], workers: int, scheduler: str | None
) -> Generator[tuple[J, _Outcome[R]], None, None]:
    from distributed import KilledWorker

    with _connected(workers, scheduler) as client:
        died = []
        for job, outcome in _as_completed(client, function, jobs):
            if isinstance(outcome.result, KilledWorker):
                died.append(job)
            else:
                yield job, outcome
        # Jobs that were too large for the memory together may fit one after the other.
        for job in died:
            for _, outcome in _as_completed(client, function, [job]):
                if isinstance(outcome.result, KilledWorker):
                    outcome = _Outcome(InputError(_DIED), [])
                yield job, outcome


def _as_completed(
    client: "Client", function: Callable[[J], _Outcome[R]], jobs: Iterable[J]
) -> Iterator[tuple[J, _Outcome[R]]]:
    from distributed import as_completed

    waiting = {client.submit(function, job, pure=False): job for job in jobs}
    for future in as_completed(list(waiting), loop=client.loop):
        job = waiting.pop(future)
        if future.status == "finished":
            yield job, future.result()
        elif future.status == "error":
            yield job, _Outcome(future.exception(), [])
        else:
            yield (
                job,
                _Outcome(InputError("the connection to the scheduler was lost; try again"), []),
            )


@contextmanager
def _connected(workers: int, scheduler: str | None) -> Iterator["Client"]:
    """Start processes, or connect to a running scheduler; close what was opened at the end."""
    import dask
    from distributed import Client, LocalCluster

    threads = max(1, n_cores() // max(1, workers))
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    environment = {"distributed.nanny.pre-spawn-environ": dict.fromkeys(names, threads)}
    with ExitStack() as stack:
        stack.enter_context(_silence())
        stack.enter_context(dask.config.set(_SETTINGS | environment))
        if scheduler is None:
            resource_tracker.ensure_running()  # it unblocks signals, so it is started before
            with uninterrupted():
                cluster = LocalCluster(
                    n_workers=workers,
                    threads_per_worker=1,
                    processes=True,
                    memory_limit=0,  # a limit would stop a job that the machine has room for
                    dashboard_address="127.0.0.1:0",  # any free port: the usual one may be taken
                    scheduler_kwargs={"dashboard": False},
                    silence_logs=logging.CRITICAL,
                )
                stack.callback(_close, cluster)
            scheduler = cluster.scheduler_address
        else:
            _require_scheduler(scheduler)
        client = stack.enter_context(Client(scheduler, timeout=_TIMEOUT, set_as_default=False))
        if not client.scheduler_info()["workers"]:
            logger.warning("%s: has no workers yet; waiting for one", scheduler)
        yield client


def _require_scheduler(address: str) -> None:
    """Raise an error if no scheduler answers at an address.

    A Client that cannot connect is never closed, and may block.
    """
    from distributed.comm import connect
    from distributed.security import Security

    async def check() -> None:
        options = Security().get_connection_args("client")
        comm = await connect(address, timeout=_TIMEOUT, **options)
        await comm.close()

    try:
        with ThreadPoolExecutor(1) as thread:  # a notebook has an event loop in this one
            thread.submit(lambda: asyncio.run(asyncio.wait_for(check(), _TIMEOUT))).result()
    except Exception as error:  # another kind of server may answer anything
        raise InputError(
            f"{address}: no dask scheduler answers; give the address that `dask scheduler` "
            "prints, such as tcp://10.0.0.1:8786"
        ) from error


def _close(cluster: "LocalCluster") -> None:
    with uninterrupted():
        cluster.close()


@contextmanager
def _silence() -> Iterator[None]:
    """Suppress the log of dask."""
    names = [name for name in logging.root.manager.loggerDict if name.startswith("distributed")]
    before = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
