"""Where a model file lies: in the package, on this machine, or elsewhere, fetched once and kept."""

import hashlib
import os
import re
from pathlib import Path

from sagefm._errors import InputError, logger

DEFAULT = "default"
"""What the model is called that comes with the package."""
_DEFAULT_FILE = Path(__file__).parent / "weights" / "default.safetensors"
_DEFAULT_SHA256 = "e62725bceaad06a5020309b67b22867c11d45a5885ea70614f1063b2fd705674"
_HUB = "https://huggingface.co"


def local_copy(source: str | Path) -> Path:
    """Give the path of a file, which is fetched first where `source` is an address.

    Parameters
    ----------
    source
        A path; ``"default"``, the model that comes with the package, whatever the working directory
        holds (``"./default"``, or a :class:`~pathlib.Path`, is a path even so); ``https://…``; or
        ``hf://owner/repository/file`` on the Hugging Face hub (or what ``HF_ENDPOINT`` names
        instead), with ``@revision`` behind the repository if it is not to be the newest.
        ``#sha256=…`` behind an address is what the file must hash to; without it, its hash is
        logged.

    Returns
    -------
    The path, or that of the copy in the cache folder of this user. A copy that is there is not
    fetched again.

    Raises
    ------
    InputError
        The address cannot be read or reached, or the file is another than the hash says; the
        installation is damaged.
    """
    if source == DEFAULT:  # never a Path: Path("./default") is Path("default")
        return _default()
    text = str(source)
    if not re.match(r"(https?|hf)://", text):
        return Path(source)
    import pooch
    import requests

    address, _, digest = text.partition("#")
    url = _on_the_hub(address) if address.startswith("hf://") else address
    known = digest.removeprefix("sha256=").lower()
    if digest and not re.fullmatch(r"[0-9a-f]{64}", known):
        raise InputError(f"{text}: write #sha256= and 64 digits (0 to 9, a to f) behind an address")
    pooch.get_logger().setLevel("WARNING")
    try:
        found = pooch.retrieve(
            url, f"sha256:{known}" if known else None, path=pooch.os_cache("sagefm")
        )
    except (requests.RequestException, OSError) as error:
        raise InputError(f"{address}: cannot be fetched ({_short(error)}); try again") from error
    except ValueError as error:  # how pooch says it
        raise InputError(
            f"{address}: is not the file with sha256 {known}; get address and hash from one place"
        ) from error
    if not known:
        logger.warning(
            "%s: nothing says what it should be; pin it with #sha256=%s",
            address, pooch.file_hash(found),
        )  # fmt: skip
    return Path(found)


def sha256(path: Path) -> str:
    """Hash a file, as ``#sha256=…`` behind an address wants it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _default() -> Path:
    """Give the model of the package, whole."""
    try:
        whole = sha256(_DEFAULT_FILE) == _DEFAULT_SHA256
    except OSError:
        whole = False
    if not whole:
        raise InputError(f"{_DEFAULT_FILE}: is missing or damaged; install sagefm again")
    return _DEFAULT_FILE


def _on_the_hub(address: str) -> str:
    """Turn hf://owner/repository[@revision]/file into an address of the web."""
    parts = re.fullmatch(r"hf://([^/@]+)/([^/@]+)(?:@([^/]+))?/(.+)", address)
    if parts is None:
        raise InputError(f"{address}: write hf://owner/repository/file.safetensors")
    owner, repository, revision, file = parts.groups()
    hub = os.environ.get("HF_ENDPOINT", _HUB).rstrip("/")
    return f"{hub}/{owner}/{repository}/resolve/{revision or 'main'}/{file}"


def _short(error: Exception) -> str:
    """Say what went wrong without the chain of objects that it went wrong in."""
    response = getattr(error, "response", None)
    if response is not None:
        return f"status {response.status_code}"
    return type(error).__name__ if len(str(error)) > 80 else str(error)
