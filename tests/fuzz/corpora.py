"""Corpora of which one file is damaged: found by ``--verify``, or without effect."""

from functools import cache
from pathlib import Path

import numpy as np

from .damage import Rng, damage_one_of
from .kit import Kit, copied, load
from .oracle import differs, embedding, read_plainly
from .process import command, run
from .trials import Trial


@cache
def _sound(kit_folder: Path) -> Path:
    """Build a corpus once."""
    corpus = kit_folder / "corpus"
    words = ("corpus", "build", kit_folder / "s0.h5ad", kit_folder / "s1.h5ad", "-o", corpus)
    if not corpus.exists():
        ended = run(lambda: command(*words))
        assert ended.status == 0, ended.err
    return corpus


def damaged_corpus(rng: Rng, kit: Kit, folder: Path) -> Trial:
    corpus, out = copied(_sound(kit.folder), folder / "corpus"), folder / "out"
    how = damage_one_of(rng, corpus)
    if rng.random() < 0.6:
        return _embedded(kit, corpus, out, how)
    return Trial(("corpus", "info", corpus, "--verify"), (corpus,), out, how=how)


def _embedded(kit: Kit, corpus: Path, out: Path, how: str) -> Trial:
    """Embed the slides of a damaged corpus: right, or not at all."""
    model = kit["published.safetensors"]

    def verify() -> str | None:
        for name in ("s0", "s1"):
            plain = read_plainly(kit[f"{name}.h5ad"])
            slide = load(out / f"{name}.h5ad")
            at = slide.obs_names.get_indexer(plain.spots)
            wrong = differs(
                np.asarray(slide.obsm["X_sagefm"])[at], embedding(plain, model, kit.symbols)
            )
            if wrong:
                return wrong
        return ""

    return Trial(
        ("embed", corpus, "-m", model, "-o", out), (corpus,), out, verify, how=how, keeps=True
    )
