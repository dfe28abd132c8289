"""What a command prints on stderr while it runs: notes, and what it is doing."""

import logging
import shutil
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from typing import Any, TextIO

import typer

from sagefm import _progress
from sagefm._errors import logger
from sagefm.cli._messages import for_command

_TICK = 0.25
_QUIET = 1.0
"""Seconds until a terminal shows what is done; commands that end before show nothing."""
_QUIET_FILE = 30.0
"""The same where stderr is a file or a pipe, and the seconds between two lines there."""
_ERASE = "\r\x1b[K"


@contextmanager
def reporting(*, debug: bool = False) -> Iterator[None]:
    """Print notes and progress on stderr while a command runs, and restore the loggers.

    Parameters
    ----------
    debug
        Whether warnings of libraries, which are about their code and not about a slide, are shown.
    """
    before = [(one, one.handlers, one.propagate, one.level) for one in (logger, _progress.logger)]
    showing = warnings.showwarning
    status = _Status(sys.stderr)
    try:
        with ExitStack() as stack:
            if status.on_terminal:
                stack.enter_context(redirect_stderr(status.above(sys.stderr)))
            if status.on_terminal and sys.stdout.isatty():
                stack.enter_context(redirect_stdout(status.above(sys.stdout)))
            if not debug:
                warnings.showwarning = lambda *_, **__: None
            logger.handlers, logger.propagate = [_Notes()], False
            _progress.logger.handlers, _progress.logger.propagate = [status], False
            _progress.logger.setLevel(logging.INFO)
            stack.enter_context(status)
            yield
    finally:
        warnings.showwarning = showing
        for one, handlers, propagate, level in before:
            one.handlers, one.propagate = handlers, propagate
            one.setLevel(level)


class _Notes(logging.Handler):
    """Print each message once, as a note."""

    def __init__(self) -> None:
        super().__init__()
        self._printed: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Print a message unless it was printed before."""
        message = for_command(record.getMessage())
        if message not in self._printed:
            self._printed.add(message)
            typer.echo(f"note: {message}", err=True)


class _Status(logging.Handler):
    """Show the current stage: in one line of a terminal, or now and then as a line of a file."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self.on_terminal = stream.isatty()
        self._stream = stream
        self._text, self._since = "starting", time.monotonic()
        self._shown, self._shown_at = "", self._since
        self._line = threading.RLock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self.erase()

    def emit(self, record: logging.LogRecord) -> None:
        """Set the stage."""
        self._text, self._since = for_command(record.getMessage()), time.monotonic()

    def above(self, stream: TextIO) -> Any:
        """Wrap a stream on the same terminal, so that it writes where the line was."""
        return _AboveStatus(stream, self)

    def erase(self) -> None:
        """Remove the line from the terminal."""
        with self._line:
            if self.on_terminal and self._shown:
                self._stream.write(_ERASE)
                self._stream.flush()
                self._shown = ""

    def _run(self) -> None:
        while not self._ended.wait(_TICK):
            with self._line:
                self._show(time.monotonic())

    def _show(self, now: float) -> None:
        due = now - self._shown_at >= (_QUIET if self.on_terminal else _QUIET_FILE)
        if not self._text or (self._text == self._shown and not self.on_terminal):
            return
        line = f"{self._text} ({now - self._since:.0f} s)"
        if self.on_terminal and (due or self._shown):
            width = shutil.get_terminal_size().columns - 1
            self._stream.write(f"{_ERASE}{line[:width]}")
        elif due:
            self._stream.write(f"{line}\n")
        else:
            return
        self._stream.flush()
        self._shown, self._shown_at = self._text, now


class _AboveStatus:
    """A stream on a terminal that erases the status line before it writes."""

    def __init__(self, stream: TextIO, status: _Status) -> None:
        self._stream, self._status = stream, status

    def write(self, text: str) -> int:
        """Write where the status line was."""
        self._status.erase()
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
