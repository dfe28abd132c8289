"""Read gene lists of other tools without running any code in them."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from sagefm._errors import InputError
from sagefm.pp.vocabulary import Vocabulary

_HARMLESS = {
    *((f"numpy.{core}.multiarray", "_reconstruct") for core in ("core", "_core")),
    *((f"numpy.{core}.multiarray", "scalar") for core in ("core", "_core")),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}
"""The functions that a pickled array of strings names."""


def read_genes(path: str | Path) -> Vocabulary:
    """Read an ordered gene list: a text file, or the ``.npy`` of the published model.

    Missing Ensembl ids are filled in where they are known, so that slides can be aligned that have
    only Ensembl ids.

    Parameters
    ----------
    path
        ``.npy``: an array of strings, also one of Python objects. Anything else: text, one gene
        per line (see :meth:`Vocabulary.read`).

    Raises
    ------
    InputError
        The file is missing or damaged, has values other than strings, or would run code.
    """
    path = Path(path)
    if path.suffix != ".npy":
        return Vocabulary.read(path).with_known_ids()
    try:
        with path.open("rb") as file:
            genes = _read_strings(file)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except _WouldRunError as error:
        raise InputError(f"{path}: refused, {error}; save the genes as a text file") from error
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise InputError(f"{path}: is not a complete array of gene names; copy it again") from error
    if not all(isinstance(gene, str) for gene in genes):
        raise InputError(f"{path}: is not a list of gene names; save the genes as a text file")
    try:
        return Vocabulary(tuple(map(str, genes))).with_known_ids()
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _read_strings(file: Any) -> list[Any]:
    version = np.lib.format.read_magic(file)
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }[version]
    shape, _, dtype = read_header(file)
    if len(shape) != 1:
        raise ValueError(f"{len(shape)} dimensions")
    if not dtype.hasobject:
        file.seek(0)
        return list(np.lib.format.read_array(file, allow_pickle=False).tolist())
    genes = [_string_of(value) for value in _NamesOnly(file).load().state[-1]]
    if len(genes) != shape[0]:
        raise ValueError(f"{len(genes)} of {shape[0]} names")
    return genes


def _string_of(value: Any) -> Any:
    """Get a string of Python, or decode one of numpy: what it is called with, in UTF-32."""
    if not isinstance(value, _Call):
        return value
    raw = value.arguments[1]
    if isinstance(raw, _Call):  # bytes in older pickles: text and an encoding
        raw = raw.arguments[0].encode("latin1")
    return raw.decode("utf-32-le").rstrip("\0")


class _WouldRunError(Exception):
    """A pickle would call a function that is not allowed."""


class _Call:
    """What stands for a function in a pickle, and for what it would return: it never runs."""

    __slots__ = ("arguments", "state")

    def __init__(self, *arguments: Any) -> None:
        self.arguments, self.state = arguments, ()

    def __call__(self, *arguments: Any) -> "_Call":
        return _Call(*arguments)

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _NamesOnly(pickle._Unpickler):
    """Reads a pickle in Python itself, whose memory no file can corrupt, and calls nothing."""

    def find_class(self, module: str, name: str) -> _Call:
        if (module, name) not in _HARMLESS:
            raise _WouldRunError(f"it would call {module}.{name} when it is loaded")
        return _Call()
