"""The command ``sagefm``: every verb reads files, calls a public function and writes files."""

import errno
import sys
from typing import Annotated

import typer

from sagefm._errors import InputError
from sagefm.cli import (
    annotation,
    checking,
    corpus,
    evaluation,
    imputation,
    influence,
    models,
    perturbation,
    rare,
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
    checking.check, slides.embed, imputation.impute, slides.domains, annotation.annotate,
    perturbation.perturb, influence.influence, rare.rare, subtype.subtype, training.pretrain,
    evaluation.evaluate, models.convert, models.info, models.demo,
)  # fmt: skip
for _verb in _VERBS:
    app.command(cls=Verb)(_verb)
app.add_typer(corpus.app, name="corpus")

_INTERRUPTED = 130
"""Exit status after Ctrl-C, which typer returns without a message."""


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
        with reporting(debug="--debug" in sys.argv):
            status = app(arguments, prog_name="sagefm", standalone_mode=False)
    except (Exception, KeyboardInterrupt) as error:
        if "--debug" in sys.argv:
            raise
        status = _explain(error)
    if status == _INTERRUPTED:
        typer.echo("interrupted", err=True)
    sys.exit(status)


def _explain(error: BaseException) -> int:
    """Print an error as one line, and return the exit status."""
    if isinstance(error, InputError):
        typer.echo(f"error: {for_command(str(error))}", err=True)
        return 2
    if hasattr(error, "format_message"):  # a usage error of click, which typer may vendor
        typer.echo(f"error: {usage(error)}", err=True)
        return 2
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        typer.echo(f"error: {error.strerror}; free some space, or choose another place", err=True)
        return 2
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return _INTERRUPTED
    typer.echo(f"error: {type(error).__name__}: {error} (add --debug for the traceback)", err=True)
    return 1
