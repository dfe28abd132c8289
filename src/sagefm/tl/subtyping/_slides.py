"""Embed the slides of patients one at a time, with the subtype of each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from sagefm._errors import InputError
from sagefm._text import few, numbered
from sagefm.pp.labels import labels_of, word_of
from sagefm.tl.patients import SlideSource, SummarizedSlide, summarize

if TYPE_CHECKING:
    from anndata import AnnData

    from sagefm.model import SageFM


@dataclass(frozen=True)
class SubtypedSlide(SummarizedSlide):
    """A slide of a patient, summarized, with its subtype."""

    subtype: str | None


def embed_slides(
    source: SlideSource,
    model: "SageFM",
    key: str | Mapping[str, str | None],
    *,
    keep_spots: bool,
    progress: Callable[[str], object],
) -> list[SubtypedSlide]:
    """Embed each slide and summarize it.

    Parameters
    ----------
    source
        The slides.
    model
        A model.
    key
        ``obs`` column with the subtype, or slide → subtype.
    keep_spots
        Whether to keep the embedding of every spot, or only the mean.
    progress
        Called with a line per slide.

    Raises
    ------
    InputError
        No slide has a subtype, one has several, or two are the same.
    """
    embedded: list[SubtypedSlide] = []
    lacking: list[str] = []
    for one, aligned in source.aligned(model):
        subtype = None
        if not isinstance(key, str):
            subtype = word_of(key.get(one.name))
        elif key in one.slide.obs:
            subtype = label_of_slide(one.name, one.slide, key)
        else:
            lacking.append(few(one.slide.obs.columns, 20) or "nothing")
        progress(f"slide {one.number}: {numbered(one.slide.n_obs, 'spot')}")
        summary = summarize(one, aligned, model.embed(aligned), keep_spots=keep_spots)
        own = {field.name: getattr(summary, field.name) for field in fields(summary)}
        embedded.append(SubtypedSlide(**own, subtype=subtype))
    if all(one.subtype is None for one in embedded):
        where = f"obs[{key!r}]" if isinstance(key, str) else "subtypes"
        if len(lacking) == len(embedded):
            raise InputError(f"{where}: no slide has such a column; obs has {lacking[0]}")
        raise InputError(
            f"{where}: no slide has a value there; fill in the subtypes that are known"
        )
    return embedded


def label_of_slide(name: str, slide: "AnnData", key: str) -> str | None:
    """Get the one label of a slide from a column of ``obs``; None where no spot has one.

    Raises
    ------
    InputError
        There is no such column, or it has several values.
    """
    values = labels_of(slide, key).dropna().unique()
    if len(values) > 1:
        raise InputError(
            f"{name}: obs[{key!r}] has several values ({few(values)}); "
            "a slide has one subtype: give it the same in every spot"
        )
    return str(values[0]) if len(values) else None
