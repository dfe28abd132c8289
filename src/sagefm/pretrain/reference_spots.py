"""A sample of the training spots of a model, with its embeddings."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sagefm.model import SageFM
from sagefm.nn import encode
from sagefm.pp.aligned import AlignedSlide
from sagefm.pp.slide_record import STATED, SlideRecord
from sagefm.pretrain.data import Spots
from sagefm.pretrain.source import Source
from sagefm.stats.reference import ReferenceSpots, balanced_sample

_COMPONENTS = 30
"""Principal components of the directions of embeddings. Chosen with a validation patient, whose
spots are about as far from the training patients as these from each other (median novelty 0.52 to
0.65, in two models). With 20 components, or with lengths, which follow library size, its novelty is
low, and so is that of tissue whose gene names were shuffled."""
_KNOWN = ("patient", *STATED, "array", "pitch_um")
"""Columns of the table of a source that are recorded."""


def reference_spots_of(
    model: SageFM, source: Source, training: Spots, *, seed: int = 0
) -> tuple[ReferenceSpots, dict[str, SlideRecord]]:
    """Embed a sample of the training spots, and describe the slides that they are of.

    One pass over the source, with a slide in memory.

    Parameters
    ----------
    model
        Trained.
    source
        The slides that it was trained on, aligned to its vocabulary.
    training
        Slide → its training spots.
    seed
        Seed of the choice of spots.

    Returns
    -------
    At most 4,096 spots, balanced over patients (over slides, if there is one patient); and the
    record of each training slide.
    """
    patients = source.table["patient"].astype(str)
    several = patients[list(training)].nunique() > 1
    groups = [patients[slide] if several else slide for slide in training]
    of_spot = np.concatenate(
        [
            np.full(len(spots), code)
            for spots, code in zip(training.values(), _codes(groups), strict=True)
        ]
    )
    kept = balanced_sample(of_spot, np.random.default_rng(seed))
    ends = np.cumsum([len(spots) for spots in training.values()])
    parts = np.split(kept, np.searchsorted(kept, ends[:-1]))
    sizes, embeddings = source.table["spots"].to_dict(), []
    records = dict[str, SlideRecord]()
    for (slide, spots), end, part in zip(training.items(), ends, parts, strict=True):
        embedding = np.empty((0, model.width), dtype=np.float32)
        whole = source.read(slide, 0, int(sizes[slide]))
        records[slide] = _record(whole, source, slide)
        if len(part):
            embedding = _embed(model, whole, spots[part - (end - len(spots))])
        embeddings.append(embedding)
    sample = ReferenceSpots.learn(
        embeddings, groups, n_components=_COMPONENTS, unit=True, seed=seed
    )
    for (slide, record), embedding in zip(records.items(), embeddings, strict=True):
        if len(embedding):
            records[slide] = record.with_profile(sample.reduce(embedding).mean(axis=0))
    return sample, records


def _record(whole: AlignedSlide, source: Source, slide: str) -> SlideRecord:
    """Describe a slide by its counts, and by what the source knows of it."""
    row: dict[Any, Any] = source.table.loc[slide].dropna().to_dict()
    known: dict[str, Any] = {
        name: row[name] if isinstance(row[name], str) else float(row[name])
        for name in _KNOWN
        if name in row
    }
    stated = {name: known.pop(name) for name in STATED if name in known}
    return SlideRecord.of(whole, source.vocabulary.symbols, **known).stated(**stated)


def _codes(groups: list[str]) -> NDArray[np.int64]:
    return np.unique(groups, return_inverse=True)[1]


@torch.inference_mode()
def _embed(model: SageFM, slide: AlignedSlide, centers: NDArray[np.int64]) -> NDArray[np.float32]:
    """Embed some spots of a slide."""
    encoded = encode(model.network, slide)
    return np.asarray(encoded.embed(slide.neighbors[centers]).cpu().numpy())
