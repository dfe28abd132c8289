"""Find model files in the package or on this machine, or download and cache them."""

import hashlib
import os
import re
from pathlib import Path

from sagefm._errors import InputError, logger

DEFAULT = "default"
"""Name of the model that is part of the package."""
_DEFAULT_FILE = Path(__file__).parent / "weights" / "default.safetensors"
_DEFAULT_SHA256 = "e62725bceaad06a5020309b67b22867c11d45a5885ea70614f1063b2fd705674"
_HUB = "https://huggingface.co"


def local_copy(source: str | Path) -> Path:
    """Get the path of a file; download it first if `source` is an address.

    Parameters
    ----------
    source
        A path; ``"default"``, the model of the package (``"./default"`` and any
        :class:`~pathlib.Path` are paths); ``https://…``; or ``hf://owner/repository/file`` on the
        Hugging Face hub (or the server in ``HF_ENDPOINT``), where ``repository@revision`` selects
        a revision. An address may end with ``#sha256=…``, the hash of the file; without it, the
        hash is logged.

    Returns
    -------
    The path, or that of the copy in the cache folder of the user. A cached file is not downloaded
    again.

    Raises
    ------
    InputError
        The address is invalid or cannot be reached, the file has another hash, or the installation
        is damaged.
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
    expected = digest.removeprefix("sha256=").lower()
    if digest and not re.fullmatch(r"[0-9a-f]{64}", expected):
        raise InputError(f"{text}: end the address with #sha256= and 64 digits (0 to 9, a to f)")
    pooch.get_logger().setLevel("WARNING")
    try:
        copy = pooch.retrieve(
            url, f"sha256:{expected}" if expected else None, path=pooch.os_cache("sagefm")
        )
    except (requests.RequestException, OSError) as error:
        raise InputError(f"{address}: cannot be downloaded ({_short(error)}); try again") from error
    except ValueError as error:  # pooch found another hash
        raise InputError(
            f"{address}: has not the sha256 {expected}; get both from the same source"
        ) from error
    if not expected:
        logger.warning(
            "%s: its content was not verified; pin it with #sha256=%s",
            address, pooch.file_hash(copy),
        )  # fmt: skip
    return Path(copy)


def sha256(path: Path) -> str:
    """Compute the sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _default() -> Path:
    """Get the model file of the package, after checking its hash."""
    try:
        intact = sha256(_DEFAULT_FILE) == _DEFAULT_SHA256
    except OSError:
        intact = False
    if not intact:
        raise InputError(f"{_DEFAULT_FILE}: is missing or damaged; install sagefm again")
    return _DEFAULT_FILE


def _on_the_hub(address: str) -> str:
    """Convert hf://owner/repository[@revision]/file to a web address."""
    match = re.fullmatch(r"hf://([^/@]+)/([^/@]+)(?:@([^/]+))?/(.+)", address)
    if match is None:
        raise InputError(f"{address}: write hf://owner/repository/file.safetensors")
    owner, repository, revision, file = match.groups()
    hub = os.environ.get("HF_ENDPOINT", _HUB).rstrip("/")
    return f"{hub}/{owner}/{repository}/resolve/{revision or 'main'}/{file}"


def _short(error: Exception) -> str:
    """Shorten the message of a download error."""
    response = getattr(error, "response", None)
    if response is not None:
        return f"status {response.status_code}"
    return type(error).__name__ if len(str(error)) > 80 else str(error)
