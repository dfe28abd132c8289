"""How the words of a command line become options and arguments, and what is wrong with them."""

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from sagefm._owner import making


class VerbGroup(TyperGroup):
    """A group of commands that offers the nearest one to a name that it does not have."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the words before the command; without any, print the help."""
        return super().parse_args(ctx, args or ["--help"])

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command of a name."""
        if args[0] not in self.commands:
            ctx.fail(f"No such command {args[0]!r}{_offer(args[0], list(self.commands))}")
        return super().resolve_command(ctx, args)


_SOURCES = ("slide", "slides", "known", "reference", "published")
"""Parameters with what a result is made from."""


def sources_of(params: Mapping[str, Any]) -> list[str]:
    """List what a result is made from, of the parameters of a verb."""
    words = [word for name in _SOURCES for word in _words(params.get(name))]
    return [str(word) for word in words if word is not None]


@dataclass(frozen=True)
class _Use:
    """One use of an option that takes several values."""

    option: str
    end: int
    """Number of values of the option after this use."""
    n_words: int


class Verb(TyperCommand):
    """A command in which an option whose metavar ends with ``...`` takes several values.

    It takes all words up to the next option, and can be repeated too. A required argument that
    stands nowhere else is the last of these words: ``--known A B SLIDE``.
    """

    def invoke(self, ctx: Any) -> Any:
        """Run the command; its results remember the slides that they are made from."""
        with making(str(self.name), sources_of(ctx.params)):
            return super().invoke(ctx)

    def make_parser(self, ctx: Any) -> Any:
        """Make the parser of this command."""
        parser: Any = super().make_parser(ctx)
        options: dict[int, Any] = {
            id(option): option
            for option in (*parser._long_opt.values(), *parser._short_opt.values())
            if str(option.obj.metavar).endswith("...")
        }
        uses: list[_Use] = []
        for option in options.values():
            option.process = partial(_take_all, ctx, option, option.process, uses)
        parser.parse_args = partial(self._parse, ctx, parser.parse_args, uses)
        return parser

    def _parse(self, ctx: Any, parse: Any, uses: list[_Use], args: list[str]) -> Any:
        """Parse, and find a required argument among the values of an option if need be."""
        opts, rest, order = parse(args)
        for param in self.params:  # an empty path would be the folder one is in
            if "" in _words(opts.get(param.name)):
                ctx.fail(f"{param.opts[-1]} is empty: a variable of the shell may not be set.")
        arguments = (p for p in self.params if p.param_type_name == "argument" and p.required)
        missing = [p for p in arguments if not _is_given(opts.get(p.name))]
        longer = [use for use in uses if use.n_words > 1]
        if missing and len(longer) > 1:
            flag = f"--{longer[0].option.replace('_', '-')}"
            ctx.fail(
                f"Cannot tell which word is {missing[0].metavar}: put it first, or write "
                f"{flag} A {flag} B"
            )
        if missing and longer:
            word = opts[longer[0].option].pop(longer[0].end - 1)
            opts[missing[0].name] = word if missing[0].nargs == 1 else (word,)
        return opts, rest, order


def _take_all(
    ctx: Any, option: Any, process: Any, uses: list[_Use], value: str, state: Any
) -> None:
    """Process a value of an option, and all words up to the next option."""
    if _is_option(value):
        ctx.fail(f"Option {option.obj.opts[0]!r} requires a value.")
    words = [value]
    while state.rargs and not _is_option(state.rargs[0]):
        words.append(state.rargs.pop(0))
    for word in words:
        process(word, state)
    uses.append(_Use(option.dest, len(state.opts[option.dest]), len(words)))


def _words(value: object) -> tuple[object, ...]:
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def _is_given(value: object) -> bool:
    """Check the value of an argument; where there is none, it depends on the version of click."""
    return isinstance(value, str | tuple) and value != ()


def _is_option(word: str) -> bool:
    return word.startswith("-") and word != "-"


def usage(error: Any) -> str:
    """Write a usage error of click, which typer may vendor, as one line with the help to see."""
    message = " ".join(str(error.format_message()).split())
    if getattr(error, "possibilities", None):
        options = sorted(error.possibilities)
        message = f"{error.message.rstrip('.')}{_offer(error.option_name, options)}"
    path = error.ctx.command_path if getattr(error, "ctx", None) else "sagefm"
    return f"{message} (see {path} --help)"


def _offer(name: str, names: list[str]) -> str:
    nearest = get_close_matches(name, names, 1)
    return f"; did you mean {nearest[0]}?" if nearest else ""


def print_versions(wanted: bool) -> None:
    """Print the versions that a report of an error needs, and exit."""
    if not wanted:
        return
    import platform
    from importlib.metadata import version

    from sagefm import __version__

    typer.echo(f"sagefm {__version__}")
    typer.echo(f"python {platform.python_version()}")
    for library in ("torch", "anndata"):
        typer.echo(f"{library} {version(library)}")
    raise typer.Exit
