"""Find model files in the package or on this machine, or download and cache them."""

import hashlib
import os
import re
import time
from contextlib import suppress
from pathlib import Path

from sagefm._errors import InputError, logger

DEFAULT = "default"
"""Name of the model that is part of the package."""
_DEFAULT_FILE = Path(__file__).parent / "weights" / "default.safetensors"
_DEFAULT_SHA256 = "a821ac19226a08c258d7b437a8d016202f46df3b4862c7edfa7b724cc5e77710"
_HUB = "https://huggingface.co"
_STALE = 24 * 3600
"""Seconds after which an incomplete download that nobody has changed is removed."""


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
        The address is invalid or cannot be reached, what is there is no model or has another hash,
        or the installation is damaged.
    """
    if source == DEFAULT:  # never a Path: Path("./default") is Path("default")
        return _default()
    text = str(source)
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]+)://", text)
    if scheme is None or isinstance(source, Path):
        return Path(source)
    if scheme[1].lower() not in ("https", "http", "hf"):
        raise InputError(f"{text}: give a path, or an address with https://, http:// or hf://")
    address, _, digest = f"{scheme[0].lower()}{text[scheme.end() :]}".partition("#")
    expected = digest.removeprefix("sha256=").lower()
    if digest and not re.fullmatch(r"[0-9a-f]{64}", expected):
        raise InputError(f"{text}: end the address with #sha256= and 64 digits (0 to 9, a to f)")
    copy = _download(address, expected)
    _require_model(address, copy)
    if not expected:
        logger.warning(
            "%s: its content was not verified; pin it with #sha256=%s", address, sha256(copy)
        )
    return copy


def _download(address: str, expected: str) -> Path:
    """Download a file unless it is in the cache; processes that do so at once are independent."""
    import pooch
    import requests

    url = _on_the_hub(address) if address.startswith("hf://") else address
    cache = Path(pooch.os_cache("sagefm"))
    pooch.get_logger().setLevel("WARNING")
    try:
        _remove_strays(cache)
        copy = pooch.retrieve(url, f"sha256:{expected}" if expected else None, path=cache)
    except (requests.RequestException, OSError) as error:
        raise InputError(f"{address}: cannot be downloaded ({_short(error)}); try again") from error
    except ValueError as error:
        if expected and "hash" in str(error):
            remedy = f"has not the sha256 {expected}; get both from the same source"
        else:
            remedy = f"is no address ({_short(error)}); write https://host/file.safetensors"
        raise InputError(f"{address}: {remedy}") from error
    return Path(copy)


def _remove_strays(cache: Path) -> None:
    """Remove what killed downloads have left."""
    for stray in cache.glob("tmp*"):  # a copy is called after the hash of its address
        if time.time() - stray.stat().st_mtime > _STALE:
            stray.unlink(missing_ok=True)


def _require_model(address: str, copy: Path) -> None:
    """Raise an error if a copy is no model, such as a page to log in; remove it from the cache."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(copy, framework="np") as file:
            if "sagefm" in (file.metadata() or {}):
                return
        reason = "is the weights of some other model"
    except (SafetensorError, OSError) as error:
        with copy.open("rb") as content:
            start = content.read(512).lstrip().lower()
        page = start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"{"))
        reason = "is a page and no model file" if page else f"is no model file ({_short(error)})"
    with suppress(OSError):
        copy.unlink()
    raise InputError(f"{address}: {reason}; the copy was removed, check the address")


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
    text = " ".join(str(error).split())
    return type(error).__name__ if len(text) > 80 else text
