"""Reading a corpus: its table of slides, tiles of slides, and whole slides."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import lru_cache
from hashlib import sha256
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sagefm import _keys
from sagefm._errors import InputError
from sagefm._progress import counted
from sagefm.pp.aligned import AlignedSlide
from sagefm.pp.vocabulary import Vocabulary
from sagefm.pretrain.corpus.facts import FACTS
from sagefm.pretrain.corpus.folder import Header, place_of, places
from sagefm.pretrain.corpus.stored import DamagedError, Record, Stored

if TYPE_CHECKING:
    from anndata import AnnData

_COLUMNS = (*FACTS, "spots", "depth", "genes", "nonzeros", "checksum")


@dataclass(frozen=True)
class Corpus:
    """Many aligned slides on disk (a :class:`~sagefm.pretrain.source.Source`).

    It holds the slides that were there when it was opened: slides that are added later are ignored,
    and reading one that was replaced is an error. Reading needs memory for what is read only, and
    works from several threads, and in processes that get the corpus by pickling or forking.

    Examples
    --------
    >>> corpus = Corpus.open("corpus")  # doctest: +SKIP
    >>> corpus.table["spots"].sum()  # doctest: +SKIP
    33008
    >>> corpus.read("slide_1", 0, 512).counts.shape  # doctest: +SKIP
    (603, 14558)
    """

    path: Path
    vocabulary: Vocabulary
    """The genes that all slides are aligned to."""
    n_neighbors: int
    """Spots in a neighborhood, the center included."""
    table: pd.DataFrame
    """A row per slide: patient, dataset, organ, disease, technology, license, source; spots, depth
    (median counts per spot), genes (of the vocabulary, measured), nonzeros, checksum (of the
    content)."""

    @classmethod
    def open(cls, path: str | PathLike[str]) -> Self:
        """Open a corpus that :func:`build` made.

        Raises
        ------
        InputError
            There is none or it has no slides, it is of a later version, or the facts of a slide
            are damaged.
        """
        folder = Path(path)
        header = Header.read(folder)
        rows = {}
        for name, place in places(folder).items():
            try:
                rows[name] = Record.read(place).facts
            except (DamagedError, OSError) as error:
                raise _damaged(folder, name, error) from error
        if not rows:
            raise InputError(f"{folder}: has no slides; add some with sagefm corpus build")
        table = pd.DataFrame.from_dict(rows, orient="index", columns=list(_COLUMNS))
        return cls(folder, header.vocabulary, header.n_neighbors, table.rename_axis("slide"))

    def __repr__(self) -> str:
        return (
            f"Corpus({self.path}: {len(self.table):,} slides of "
            f"{self.table['patient'].nunique():,} patients, {int(self.table['spots'].sum()):,} "
            f"spots × {len(self.vocabulary):,} genes)"
        )

    @property
    def checksum(self) -> str:
        """Checksum of all content: vocabulary and slides."""
        lines = [*self.vocabulary.symbols, *self.table.index, *self.table["checksum"]]
        return sha256("\n".join(lines).encode()).hexdigest()

    @property
    def n_bytes(self) -> int:
        """Size on disk."""
        files = (file for place in places(self.path).values() for file in place.rglob("*"))
        return sum(file.stat().st_size for file in files if file.is_file())

    def detected(self, slide: str) -> NDArray[np.int64]:
        """Count the spots of a slide that each gene of the vocabulary is detected in.

        Raises
        ------
        InputError
            As :meth:`read`.
        """
        with self._reading(slide) as stored:
            return stored.read("var/detected")

    def read(self, slide: str, start: int, stop: int) -> AlignedSlide:
        """Read spots `start` to `stop` of a slide, along its curve, with their neighbors.

        Raises
        ------
        InputError
            There is no such slide or no such spots; the slide is damaged, gone or replaced.
        """
        with self._reading(slide) as stored:
            spots = stored.record.facts["spots"]
            if not 0 <= start < stop <= spots:
                raise InputError(f"{slide}: has spots 0 to {spots}, not {start} to {stop}")
            tile = stored.tile(start, stop)
            if tile.neighbors.shape[1] != self.n_neighbors:
                raise DamagedError("its neighborhoods are not those of the corpus")
            return tile

    def slide(self, slide: str) -> "AnnData":
        """Read a whole slide, its spots in the order of its source.

        Returns
        -------
        Raw counts of the genes that the slide has (without columns for those that it lacks, which
        count as missing), ``obsm["spatial"]``, ``obs["patient"]`` and, in
        ``uns["sagefm"]["corpus"]``, its facts.

        Raises
        ------
        InputError
            As :meth:`read`.
        """
        from anndata import AnnData

        with self._reading(slide) as stored:
            content = stored.content()
            if content.checksum() != stored.record.facts["checksum"]:
                raise DamagedError("its content fails its checksum")
        order = np.argsort(content.row)
        genes = np.flatnonzero(content.measured)
        ensembl = np.array(self.vocabulary.ensembl, dtype=object)
        symbols = np.array(self.vocabulary.symbols, dtype=object)
        facts = self.table.loc[slide].to_dict()
        return AnnData(
            content.counts.astype(np.float32)[order][:, genes],
            obs=pd.DataFrame({"patient": facts["patient"]}, index=content.barcodes[order]),
            var=pd.DataFrame({_keys.GENE_IDS: ensembl[genes]}, index=symbols[genes]),
            obsm={_keys.SPATIAL: content.spatial[order]},
            uns={_keys.PROVENANCE: {"corpus": {"slide": slide, **facts}}},
        )

    def verify(self) -> list[str]:
        """Compare every file with its checksum, and what anndata reads with what was written.

        The files of slides that an earlier sagefm wrote have no checksums; their content has one.

        Returns
        -------
        A line for every damaged slide: its name, the reason and the remedy.
        """
        faults = []
        for slide in counted(self.table.index.tolist(), "verifying, slide"):
            try:
                with self._reading(slide) as stored:
                    # Nothing that was opened before counts.
                    replace(stored, _arrays={}).verify(self.vocabulary)
            except InputError as error:
                faults.append(str(error))
        return faults

    def without_checksums(self) -> list[str]:
        """List the slides whose files have no checksums, because an earlier sagefm wrote them."""
        return [s for s in self.table.index if not Record.read(place_of(self.path, s)).files]

    @contextmanager
    def _reading(self, slide: str) -> Iterator[Stored]:
        """Open a slide; every error becomes a line with a remedy."""
        if slide not in self.table.index:
            near = get_close_matches(slide, self.table.index.tolist(), 1)
            hint = f"; is it {near[0]!r}?" if near else ""
            raise InputError(f"{self.path}: has no slide {slide!r}{hint}")
        place = place_of(self.path, slide)
        try:
            state = _state(place)
            stored = _opened(place, state, len(self.vocabulary))
            same = stored.record.facts["checksum"] == self.table.at[slide, "checksum"]
            yield stored
            if not same or _state(place) != state:
                raise InputError(
                    f"{self.path}: slide {slide!r} was replaced after the corpus was opened; "
                    "open it again"
                )
        except InputError:
            raise
        except (DamagedError, OSError, ValueError, IndexError) as error:
            raise _damaged(self.path, slide, error) from error


def _state(place: Path) -> tuple[int, int]:
    """Identify a slide, to notice when another one replaces it."""
    about = (place / "zarr.json").stat()
    return about.st_ino, about.st_mtime_ns


@lru_cache(maxsize=64)
def _opened(place: Path, state: tuple[int, int], n_genes: int) -> Stored:
    """Open a slide, once for many reads."""
    return Stored(place, Record.read(place), n_genes)


def _damaged(corpus: Path, slide: str, error: Exception) -> InputError:
    remedy = f"add it again: sagefm corpus build FILE -o {corpus} --overwrite"
    if not os.path.lexists(place_of(corpus, slide)):
        return InputError(f"{corpus}: slide {slide!r} is gone; {remedy}")
    if isinstance(error, PermissionError):
        why = f"cannot be read ({error.strerror}: {error.filename}); check its permissions"
        return InputError(f"{corpus}: slide {slide!r} {why}")
    why = f"{error.strerror}: {error.filename}" if isinstance(error, OSError) else str(error)
    return InputError(f"{corpus}: slide {slide!r} is damaged ({why}); {remedy}")
