"""The command ``sagefm``: every verb reads files, calls a public function and writes files."""

import errno
import os
import sys
from contextlib import suppress
from typing import Annotated

import typer

from sagefm._errors import InputError
from sagefm._signals import terminating
from sagefm.cli import (
    aggregation,
    annotation,
    checking,
    corpus,
    cross,
    description,
    domains,
    evaluation,
    exploration,
    imputation,
    influence,
    mapping,
    models,
    outcome,
    perturbation,
    rare,
    report,
    slides,
    subtype,
    training,
)
from sagefm.cli._messages import for_command
from sagefm.cli._parsing import Verb, VerbGroup, print_versions, usage
from sagefm.cli._terminal import reporting

app = typer.Typer(
    cls=VerbGroup,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="A lightweight, interpretable foundation model for spatial transcriptomics.",
    epilog="Add --debug to any command for the traceback of an error.",
)
_VERBS = (
    checking.check, aggregation.aggregate, aggregation.disaggregate, slides.embed,
    imputation.impute, domains.domains, description.describe, mapping.map,
    annotation.annotate, perturbation.perturb, influence.influence, cross.cross, rare.rare,
    subtype.subtype, outcome.outcome, report.report, exploration.explore,
    training.pretrain, evaluation.evaluate, models.convert, models.info, models.demo,
)  # fmt: skip
for _verb in _VERBS:
    app.command(cls=Verb)(_verb)
app.add_typer(corpus.app, name="corpus")

_SIGNALS = 128
"""Exit statuses above are of signals."""
_INTERRUPTED = 130
"""Exit status after Ctrl-C, which typer returns without a message."""
_CLOSED = 141
"""Exit status if nobody reads the output any more, as of a process that SIGPIPE ends."""


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=print_versions, help="Print versions."),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command: status 0 on success, 2 on a usage or input error with one line on stderr."""
    arguments = [word for word in sys.argv[1:] if word != "--debug"]
    try:
        with terminating(), reporting(debug="--debug" in sys.argv):
            status = app(arguments, prog_name="sagefm", standalone_mode=False)
            sys.stdout.flush()
    except (Exception, KeyboardInterrupt) as error:
        if "--debug" in sys.argv:
            raise
        status = _explain(error)
    except SystemExit as error:  # of a signal
        status = error.code
    if isinstance(status, int) and status > _SIGNALS and status != _CLOSED:
        with suppress(OSError):  # the terminal is closed
            typer.echo("interrupted" if status == _INTERRUPTED else "terminated", err=True)
    sys.exit(status)


def _explain(error: BaseException) -> int:
    """Print an error as one line, and return the exit status."""
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return _INTERRUPTED
    if isinstance(error, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left to print
        return _CLOSED
    text, status = _described(error)
    with suppress(OSError):  # stderr is a file on a full disk
        typer.echo(f"error: {' '.join(text.split())}", err=True)
    return status


def _described(error: BaseException) -> tuple[str, int]:
    """Describe an error, and choose the exit status."""
    if isinstance(error, InputError):
        return for_command(str(error)), 2
    if hasattr(error, "format_message"):  # a usage error of click, which typer may vendor
        return usage(error), 2
    debug = "(add --debug for the traceback)"
    if isinstance(error, MemoryError) or "not enough memory: you tried to allocate" in str(error):
        return f"the memory is full; use a machine with more, or a smaller slide {debug}", 2
    if isinstance(error, OSError):
        place = "" if error.filename is None else f"{error.filename}: "
        reason = error.strerror or str(error) or type(error).__name__
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        remedy = "free some space, or choose another place" if full else "check the path"
        return f"{place}{reason}; {remedy} {debug}", 2
    if isinstance(error, ValueError) and "embedded null" in str(error):
        return f"a path has a null byte; check the path {debug}", 2
    return f"{type(error).__name__}: {error} {debug}", 1
