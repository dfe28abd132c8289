"""Libraries that only some verbs need, and the command that installs them."""

import importlib
import importlib.util
import json
import sys
from importlib import metadata
from pathlib import Path
from types import ModuleType
from urllib.parse import urlparse
from urllib.request import url2pathname

from sagefm._errors import InputError


def require(module: str, extra: str, what: str) -> ModuleType:
    """Import a library of an extra.

    Parameters
    ----------
    module
        Its name, such as ``"igraph"``.
    extra
        The extra of the package that installs it.
    what
        What it is needed for, for the message.

    Raises
    ------
    InputError
        It cannot be imported; the message has the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(
            f"{what} needs {module}, which cannot be imported ({error}); install it with: "
            f"{install_command(extra)}"
        ) from error


def install_command(extra: str) -> str:
    """Get the command that installs an extra from the source of this installation."""
    return f'"{sys.executable}" -m pip install "{_requirement(extra)}"'


def _requirement(extra: str) -> str:
    """Write the requirement of an extra for pip.

    The package may not be on an index: use the checkout or wheel that pip has recorded (PEP 610).
    """
    name = f"sagefm[{extra}]"
    try:
        recorded = metadata.distribution("sagefm").read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        recorded = None
    if recorded is None:
        checkout = Path(__file__).resolve().parents[2]
        return f"{checkout}[{extra}]" if (checkout / "pyproject.toml").is_file() else name
    url = json.loads(recorded)["url"]
    place = Path(url2pathname(urlparse(url).path)) if url.startswith("file:") else None
    if place is not None and place.is_dir():
        return f"{place}[{extra}]"
    return f"{name} @ {url}"
