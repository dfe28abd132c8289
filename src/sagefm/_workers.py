"""One function on many jobs: here, in processes of this machine, or on a dask cluster."""

import asyncio
import logging
import pickle
import signal
import threading
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from sagefm._errors import InputError, logger

if TYPE_CHECKING:
    from distributed import Client, LocalCluster

Job = TypeVar("Job")
Result = TypeVar("Result")

_PATIENCE = 10
"""Seconds that a scheduler has to answer."""
_SETTINGS = {
    "logging": {"distributed": "critical"},
    # A job whose process died is tried again here, alone, and not at once beside the same others.
    "distributed.scheduler.allowed-failures": 0,
    # What waits at a process goes down with it: let jobs wait at the scheduler.
    "distributed.scheduler.worker-saturation": 1.0,
}


class _Heard(NamedTuple, Generic[Result]):
    """What a function gave or raised, and what sagefm told meanwhile."""

    result: Result | Exception
    told: list[tuple[int, str]]


def half_the_cores() -> int:
    """Count the cores that this process may use, and halve them: one at least."""
    from dask.system import CPU_COUNT

    return max(1, int(CPU_COUNT) // 2)


def each(
    function: Callable[[Job], Result],
    jobs: Sequence[Job],
    workers: int = 1,
    *,
    scheduler: str | None = None,
    quiet: bool = False,
) -> Generator[tuple[Job, Result | Exception], None, None]:
    """Yield each job and what `function` made of it, or its error, as they finish.

    What is told on the way comes out in this process, job by job.

    Parameters
    ----------
    function
        Importable by name in other processes.
    jobs
        What it is given, one after the other.
    workers
        How many processes to start, which share the cores; one means this process.
    scheduler
        The address of a dask cluster that runs already, to be used instead.
    quiet
        Whether to drop what is told.

    Raises
    ------
    InputError
        No scheduler answers.
    """
    listening = partial(_listen, function)
    results: Generator[tuple[Job, _Heard[Result] | Exception], None, None]
    if scheduler is None and min(workers, len(jobs)) <= 1:
        results = ((job, listening(job)) for job in jobs)
    else:
        there = partial(_answer, listening)
        results = _over_cluster(there, jobs, min(workers, len(jobs)), scheduler)
    with closing(results):
        for job, heard in results:
            if isinstance(heard, Exception):
                yield job, heard
                continue
            for level, line in [] if quiet else heard.told:
                logger.log(level, line)
            yield job, heard.result


def _listen(function: Callable[[Job], Result], job: Job) -> _Heard[Result]:
    """Call a function; keep what it tells."""
    told: list[tuple[int, str]] = []
    here = threading.get_ident()  # workers of a cluster may have several threads

    def keep(record: logging.LogRecord) -> bool:
        if record.thread == here:
            told.append((record.levelno, record.getMessage()))
        return record.thread != here

    logger.addFilter(keep)
    try:
        return _Heard(function(job), told)
    except Exception as error:  # noqa: BLE001 (whatever it is, the other jobs go on)
        return _Heard(error, told)
    finally:
        logger.removeFilter(keep)


def _answer(listening: Callable[[Job], _Heard[Result]], job: Job) -> _Heard[Result]:
    """Make an error fit to travel.

    dask would send all that hangs on it; if that cannot be unpickled, the client waits for ever.
    """
    heard = listening(job)
    if not isinstance(heard.result, Exception):
        return heard
    error = heard.result
    trace = "".join(traceback.format_exception(error, limit=-50))
    error.__traceback__ = error.__cause__ = error.__context__ = None
    try:
        bare = pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001 (exceptions with odd arguments fail in all sorts of ways)
        bare = RuntimeError(f"{type(error).__name__}: {error}")
    bare.add_note(f"In a worker:\n{trace}")
    return heard._replace(result=bare)


def _over_cluster(
    function: Callable[[Job], Result], jobs: Sequence[Job], workers: int, scheduler: str | None
) -> Generator[tuple[Job, Result | Exception], None, None]:
    from distributed import KilledWorker

    with _connected(workers, scheduler) as client:
        dead = []
        for job, result in _as_done(client, function, jobs):
            if isinstance(result, KilledWorker):
                dead.append(job)
            else:
                yield job, result
        # Two that were too much for the memory side by side may fit one after the other.
        for left in dead:
            for job, result in _as_done(client, function, [left]):
                if isinstance(result, KilledWorker):
                    result = InputError(
                        "the process that worked on it died, most likely for lack of memory; "
                        "try again with fewer workers, or on a machine with more memory"
                    )
                yield job, result


def _as_done(
    client: "Client", function: Callable[[Job], Result], jobs: Iterable[Job]
) -> Iterator[tuple[Job, Result | Exception]]:
    from distributed import as_completed

    waiting = {client.submit(function, job, pure=False): job for job in jobs}
    for future in as_completed(list(waiting), loop=client.loop):
        job = waiting.pop(future)
        if future.status == "finished":
            yield job, future.result()
        elif future.status == "error":
            yield job, future.exception()
        else:
            yield job, InputError("the scheduler went away; try again")


@contextmanager
def _connected(workers: int, scheduler: str | None) -> Iterator["Client"]:
    """Start processes, or reach the scheduler of others; in the end close what was opened."""
    import dask
    from dask.system import CPU_COUNT
    from distributed import Client, LocalCluster

    threads = max(1, CPU_COUNT // max(1, workers))
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    settings = {"distributed.nanny.pre-spawn-environ": dict.fromkeys(names, threads)}
    with ExitStack() as stack:
        stack.enter_context(_silence())
        stack.enter_context(dask.config.set(_SETTINGS | settings))
        if scheduler is None:
            resource_tracker.ensure_running()  # it lets signals through again, so start it before
            with _uninterrupted():
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
        client = Client(scheduler, timeout=_PATIENCE, set_as_default=False)
        stack.enter_context(client)
        if not client.scheduler_info()["workers"]:
            logger.warning("%s: has no workers yet; waiting for one", scheduler)
        yield client


def _require_scheduler(address: str) -> None:
    """Refuse an address that no scheduler answers at.

    To be asked before there is a Client: one that cannot connect is never closed, and may block.
    """
    from distributed.comm import connect
    from distributed.security import Security

    async def knock() -> None:
        options = Security().get_connection_args("client")
        comm = await connect(address, timeout=_PATIENCE, **options)
        await comm.close()

    try:
        with ThreadPoolExecutor(1) as thread:  # notebooks have a loop of their own in this one
            thread.submit(lambda: asyncio.run(asyncio.wait_for(knock(), _PATIENCE))).result()
    except Exception as error:  # whatever else listens there may answer anything
        raise InputError(
            f"{address}: no dask scheduler answers; give the address that `dask scheduler` "
            "prints, such as tcp://10.0.0.1:8786"
        ) from error


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Hold Ctrl-C back until the end of the block.

    Threads and processes that are started meanwhile never get it: whoever waits for them gets it,
    and closes them.
    """
    handler = signal.getsignal(signal.SIGINT)
    here = threading.current_thread() is threading.main_thread() and callable(handler)
    if not (here and hasattr(signal, "pthread_sigmask")):  # no signals reach other threads
        yield
        return
    pressed: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: pressed.append(number))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        signal.signal(signal.SIGINT, handler)
        if pressed:
            signal.raise_signal(signal.SIGINT)


def _close(cluster: "LocalCluster") -> None:
    with _uninterrupted():
        cluster.close()


@contextmanager
def _silence() -> Iterator[None]:
    """Keep what dask logs away from stderr: what matters is told job by job."""
    names = [name for name in logging.root.manager.loggerDict if name.startswith("distributed")]
    before = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
