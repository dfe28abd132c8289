"""What is to be embedded, from where, to where; and whether it is done already."""

import glob
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
from anndata.io import read_elem

from sagefm._errors import InputError
from sagefm._files import require_nothing_lost, require_writable, write_slide
from sagefm._keys import EMBEDDING, PROVENANCE
from sagefm.pp.read import read

if TYPE_CHECKING:
    from anndata import AnnData

    from sagefm.pretrain.corpus import Corpus

Source = str | os.PathLike[str] | tuple[str | os.PathLike[str], str]
"""The path of a slide, or that of a corpus and the name of a slide in it."""


@dataclass(frozen=True)
class Job:
    """A slide to embed."""

    given: Path
    """Where the result goes, as the user calls it."""
    name: str
    """The slide, as the user calls it."""
    target: Path
    """Where the result goes, from wherever a worker stands."""
    source: Path
    """The slide or its corpus, likewise."""
    layer: str | None
    slide_key: str | None
    stamp: str
    """What the result is made of besides the model; kept with it."""
    member: str | None = None
    """The name of the slide in its corpus."""
    corpus: str = ""
    """The checksum of its corpus, by which a worker knows it again."""

    def read(self) -> "AnnData":
        """Read the slide."""
        if self.member is not None:
            return _open_corpus(self.source, self.corpus).slide(self.member)
        return read(self.source, layer=self.layer, slide_key=self.slide_key)

    def write(self, slide: "AnnData") -> None:
        """Write the embedded slide, and what it is made of."""
        if self.member is None:
            require_nothing_lost(slide, self.source, self.target)
        slide.uns[PROVENANCE]["embed"]["source"] = self.stamp
        write_slide(slide, self.target)

    def is_done(self, fingerprint: str) -> bool:
        """Say whether the result is there, whole, of this source and of the model `fingerprint`.

        Reads little of it. A slide that is embedded in place is never done: it is its own source.
        """
        try:
            if self.source.exists() and self.target.samefile(self.source):
                return False
            with h5py.File(self.target) as file:
                entry = read_elem(file[f"uns/{PROVENANCE}/embed"])
                made_of = (entry["fingerprint"], entry["source"])
                return EMBEDDING in file["obsm"] and made_of == (fingerprint, self.stamp)
        except (OSError, LookupError, TypeError, ValueError):
            return False  # not there, cut short, or written by something else

    def reason(self, error: Exception) -> str:
        """Write an error as one line that names the slide, once and as the user does."""
        text = " ".join(str(error).split())
        if not isinstance(error, InputError):
            text = f"{type(error).__name__}: {text}"
        return f"{self.name}: {text.removeprefix(f'{self.source}: ')}"


def make_jobs(
    slides: Mapping[str, Source] | Mapping[Path, Source], layer: str | None, slide_key: str | None
) -> list[Job]:
    """Make a job of each slide.

    Raises
    ------
    InputError
        A result cannot be written or would replace another slide; there is no such corpus.
    """
    targets = {Path(given).resolve() for given in slides}
    if len(targets) < len(slides):
        raise InputError("two slides would be written to one file; give each its own")
    corpora: dict[Path, Corpus] = {}
    jobs = []
    for given, source in slides.items():
        require_writable(given)
        if isinstance(source, tuple):
            path = Path(source[0]).absolute()
            if path not in corpora:
                corpora[path] = _corpus(Path(source[0]), layer, slide_key)
            job = _of_corpus(Path(given), Path(source[0]), source[1], corpora[path])
        else:
            path = Path(source)
            if path.resolve() in targets - {Path(given).resolve()}:
                raise InputError(
                    f"{path}: another slide would be written there; choose another OUT"
                )
            job = _of_slide(Path(given), path, layer, slide_key, targets)
        jobs.append(job)
    return jobs


def _corpus(path: Path, layer: str | None, slide_key: str | None) -> "Corpus":
    from sagefm.pretrain.corpus import Corpus

    if layer or slide_key:
        raise InputError(f"{path}: the slides of a corpus need no layer and no slide_key")
    return Corpus.open(path)


@lru_cache(maxsize=2)
def _open_corpus(path: Path, checksum: str) -> "Corpus":
    """Open a corpus once for many slides: it may have thousands."""
    from sagefm.pretrain.corpus import Corpus

    return Corpus.open(path)


def _of_corpus(given: Path, path: Path, member: str, corpus: "Corpus") -> Job:
    content = corpus.table["checksum"].get(member)  # one that is missing fails as it is read
    return Job(
        given=given,
        name=f"{member} in {path}",
        target=given.absolute(),
        source=path.absolute(),
        layer=None,
        slide_key=None,
        stamp=json.dumps({"slide": member, "checksum": content}),
        member=member,
        corpus=corpus.checksum,
    )


def _of_slide(
    given: Path, path: Path, layer: str | None, slide_key: str | None, targets: set[Path]
) -> Job:
    made_of = {**_state(path.absolute(), targets), "layer": layer, "slide_key": slide_key}
    return Job(
        given=given,
        name=str(path),
        target=given.absolute(),
        source=path.absolute(),
        layer=layer,
        slide_key=slide_key,
        stamp=json.dumps(made_of),
    )


def _state(source: Path, targets: set[Path]) -> dict[str, str | int]:
    """Tell one state of a slide's files from another without reading them: sizes and times.

    Results that are written among them (`targets`) do not count.
    """
    files: Iterable[Path] = [source]
    if source.is_dir():
        # A sample's folder can hold far more than what is read of it.
        inner = source / "outs"
        files = (inner if inner.is_dir() else source).rglob("*")
    elif not source.exists():  # the samples of a folder of loose files are called folder/PREFIX
        files = source.parent.glob(f"{glob.escape(source.name)}*")
    states = [path.stat() for path in files if path.is_file() and path.resolve() not in targets]
    return {
        "path": str(source.resolve()),
        "size": sum(state.st_size for state in states),
        "modified": max((state.st_mtime_ns for state in states), default=0),
    }
