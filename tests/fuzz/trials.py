"""What a trial is, and how its end is judged."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from .process import Ended, command, run


@dataclass(frozen=True)
class Trial:
    """One run of a command on an input that was made at random.

    Attributes
    ----------
    words
        The command without ``sagefm``.
    call
        What to call instead of the command, for functions of Python.
    inputs
        Files and folders that it must leave as they are.
    out
        Where it may write; nothing may be there if it refuses, and no hidden file ever.
    verify
        Compares a success with an independent computation: what is wrong, or empty; None if there
        is nothing to compare it with.
    must
        ``"succeed"``, ``"refuse"`` or ``"either"``.
    how
        What was done to the input.
    keeps
        Whether results of sound slides may stay where that of another is refused.
    """

    words: tuple[object, ...]
    inputs: tuple[Path, ...]
    out: Path
    verify: Callable[[], str | None] = field(default=lambda: None)
    must: str = "either"
    how: str = ""
    call: Callable[[], object] | None = None
    keeps: bool = False


@dataclass(frozen=True)
class Verdict:
    """What came of a trial: a fault if any, and whether its result could be compared."""

    fault: str
    succeeded: bool
    compared: bool
    ended: Ended


def judge(trial: Trial) -> Verdict:
    """Run the command of a trial in a process of its own, and look at all that it did."""
    before = _digest(trial.inputs)
    trial.out.mkdir(parents=True, exist_ok=True)
    ended = run(trial.call or (lambda: command(*trial.words)))
    fault = ended.fault
    succeeded = ended.status == 0
    compared = False
    if not fault and succeeded:
        if trial.must == "refuse":
            fault = "accepted what is wrong"
        else:
            fault, compared = _verified(trial)
    elif not fault and trial.must == "succeed":
        fault = "refused what is right"
    if not fault and _digest(trial.inputs) != before:
        fault = "the input is changed"
    left = [path.name for path in trial.out.rglob("*") if path.is_file()]
    hidden = [name for name in left if name.startswith(".") and name != ".lock"]
    if not fault and (hidden or (left and not succeeded and not trial.keeps)):
        fault = f"left behind: {', '.join(sorted(left)[:5])}"
    return Verdict(fault, succeeded, compared, ended)


def _verified(trial: Trial) -> tuple[str, bool]:
    told = run(lambda: print(json.dumps(trial.verify())))
    if told.status != 0:
        return f"its result cannot be compared: {told.err.strip().splitlines()[-1:]}", False
    wrong = json.loads(told.out.strip().splitlines()[-1])
    return (f"wrong: {wrong}" if wrong else ""), wrong is not None


def _digest(paths: tuple[Path, ...]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in files:
            digest.update(str(file).encode())
            if file.is_file():
                digest.update(file.read_bytes())
    return digest.hexdigest()
