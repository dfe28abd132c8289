"""The slides to embed: where each comes from and goes to, and whether it is done already."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
from anndata.io import read_elem

from sagefm import __version__
from sagefm._cache import ResumableCache
from sagefm._errors import InputError
from sagefm._files import require_own, require_result
from sagefm._hdf5 import recorded
from sagefm._keys import EMBEDDING, PROVENANCE, SPOT_SUFFIX
from sagefm._many import in_a_line, require_apart, source_state
from sagefm.pp.read import read
from sagefm.pp.streamed import AnyAligned, StreamedSlide
from sagefm.pp.writing import write_slide
from sagefm.tl.embedding._reference import CommonProfile

if TYPE_CHECKING:
    from anndata import AnnData

    from sagefm.pretrain.corpus import Corpus

Source = str | os.PathLike[str] | tuple[str | os.PathLike[str], str]
"""The path of a slide, or that of a corpus and the name of a slide in it."""


@dataclass(frozen=True)
class EmbeddingJob:
    """A slide to embed."""

    out: Path
    """The file to write, as the user gave it."""
    name: str
    """The slide, as the user gave it."""
    target: Path
    """Absolute path of the file to write: workers may run in another folder."""
    source: Path
    """Absolute path of the slide or its corpus."""
    stamp: str
    """Everything but the model that the result depends on; written into it."""
    layer: str | None = None
    slide_key: str | None = None
    seed: int | None = None
    """Of adapting the model to the slide, if that is done."""
    member: str | None = None
    """The name of the slide in its corpus."""
    corpus: str = ""
    """The checksum of its corpus, so that a worker opens it once."""

    def read(self, *, backed: bool) -> "AnnData":
        """Read the slide; many counts stay on disk if they may be `backed`."""
        if self.member is not None:
            return _corpus_of_worker(self.source, self.corpus).slide(self.member)
        on_disk = None if backed else False
        return read(self.source, layer=self.layer, slide_key=self.slide_key, backed=on_disk)

    @contextmanager
    def unfinished(
        self, slide: AnyAligned, fingerprint: str, common: CommonProfile | None
    ) -> Iterator[Path | None]:
        """Open the folder in which the results of a slide on disk grow, until they are written.

        It lies next to the result, and a killed run is resumed from it.
        """
        if not isinstance(slide, StreamedSlide):
            yield None
            return
        folder = self.target.with_name(f".{self.target.name}.unfinished")
        facts = [self.stamp, fingerprint, common.digest if common else "", __version__]
        with ResumableCache.open(folder, facts):
            yield folder

    def require_own(self, slide: "AnnData", *, overwrite: bool) -> None:
        """Raise an error if the result would overwrite another slide."""
        if self.member is None:
            require_own(slide, self.source, self.target, overwrite=overwrite)
        elif not overwrite and self.target.exists() and self._is_foreign():
            raise InputError(
                f"{self.out}: exists already and was not made from it; choose another OUT, or add "
                "--overwrite"
            )

    def _is_foreign(self) -> bool:
        """Whether the result of something else than this slide of a corpus is in its place."""
        return recorded(self.target, "corpus/slide") != self.member

    def write(self, slide: "AnnData") -> None:
        """Write the embedded slide with its stamp."""
        slide.uns[PROVENANCE]["embed"]["source"] = self.stamp
        write_slide(slide, self.target)

    def is_done(self, fingerprint: str) -> bool:
        """Check for a complete result of this source and of the model with this fingerprint.

        Only a little of the file is read. A slide that is embedded in place is never done: it is
        its own source.
        """
        try:
            if self.source.exists() and self.target.samefile(self.source):
                return False
            with h5py.File(self.target) as file:
                entry = read_elem(file[f"uns/{PROVENANCE}/embed"])
                made_of = (entry.get("base", entry["fingerprint"]), entry["source"])
                present = {EMBEDDING, EMBEDDING + SPOT_SUFFIX} <= set(file["obsm"])
                return present and made_of == (fingerprint, self.stamp)
        except (OSError, LookupError, TypeError, ValueError):
            return False  # not there, truncated, or written by something else

    def describe(self, error: Exception) -> str:
        """Write an error as one line that names the slide once, as the user gave it."""
        return f"{self.name}: {in_a_line(error).removeprefix(f'{self.source}: ')}"


def make_jobs(
    slides: Mapping[str, Source] | Mapping[Path, Source],
    layer: str | None,
    slide_key: str | None,
    seed: int | None = None,
) -> list[EmbeddingJob]:
    """Make a job of each slide; with a `seed` the model is adapted to it.

    Raises
    ------
    InputError
        A result cannot be written or would replace another slide; there is no such corpus.
    """
    paths = {out: source for out, source in slides.items() if not isinstance(source, tuple)}
    targets = require_apart(slides, paths)
    corpora: dict[Path, Corpus] = {}
    jobs = []
    for out, source in slides.items():
        require_result(out)
        if isinstance(source, tuple):
            path, member = Path(source[0]), source[1]
            if layer or slide_key:
                raise InputError(f"{path}: the slides of a corpus need no layer and no slide_key")
            if path not in corpora:
                corpora[path] = _open_corpus(path)
            jobs.append(_of_corpus(Path(out), path, member, corpora[path]))
        else:
            jobs.append(_of_slide(Path(out), Path(source), layer, slide_key, targets))
    return jobs if seed is None else [_adapting(job, seed) for job in jobs]


def compared(job: EmbeddingJob, digest: str) -> EmbeddingJob:
    """Let the result depend on a common profile."""
    stamp = json.dumps({**json.loads(job.stamp), "reference": digest})
    return replace(job, stamp=stamp)


def _adapting(job: EmbeddingJob, seed: int) -> EmbeddingJob:
    stamp = json.dumps({**json.loads(job.stamp), "adapted_by_seed": seed})
    return replace(job, seed=seed, stamp=stamp)


def _open_corpus(path: Path) -> "Corpus":
    from sagefm.pretrain.corpus import Corpus

    return Corpus.open(path)


@lru_cache(maxsize=2)
def _corpus_of_worker(path: Path, checksum: str) -> "Corpus":
    """Open a corpus once for many slides, unless it has changed."""
    return _open_corpus(path)


def _of_corpus(out: Path, path: Path, member: str, corpus: "Corpus") -> EmbeddingJob:
    content = corpus.table["checksum"].get(member)  # one that is missing fails when it is read
    return EmbeddingJob(
        out=out,
        name=f"{member} in {path}",
        target=out.absolute(),
        source=path.absolute(),
        stamp=json.dumps({"slide": member, "checksum": content}),
        member=member,
        corpus=corpus.checksum,
    )


def _of_slide(
    out: Path, path: Path, layer: str | None, slide_key: str | None, targets: set[Path]
) -> EmbeddingJob:
    made_of = {**source_state(path.absolute(), targets), "layer": layer, "slide_key": slide_key}
    return EmbeddingJob(
        out=out,
        name=str(path),
        target=out.absolute(),
        source=path.absolute(),
        stamp=json.dumps(made_of),
        layer=layer,
        slide_key=slide_key,
    )
