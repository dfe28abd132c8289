"""What a model was trained on, in a sample of the spots, as it embeds them."""

import numpy as np
import torch
from numpy.typing import NDArray

from sagefm.model import SageFM
from sagefm.nn import encode
from sagefm.pp.aligned import AlignedSlide
from sagefm.pretrain.data import Spots
from sagefm.pretrain.source import Source
from sagefm.stats.reference import ReferenceSpots, balanced_sample

_COMPONENTS = 30
"""Of the directions of embeddings. Chosen with a validation patient: its spots lie about as far
from the training patients as these from each other (median novelty 0.52 to 0.65, in two models).
With 20, or with the lengths, which follow depth, they seem to be known by heart, and so does tissue
whose gene names were shuffled."""


def reference_spots_of(
    model: SageFM, source: Source, training: Spots, *, seed: int = 0
) -> ReferenceSpots:
    """Embed a sample of the training spots: one pass over the source, a slide in memory.

    Parameters
    ----------
    model
        Trained.
    source
        What it was trained from, seen through its vocabulary.
    training
        Slide → spots that it was trained on.
    seed
        Of the choice of spots.

    Returns
    -------
    At most 4,096 spots, as many of each patient (of each slide, where there is one patient) as
    there is room for.
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
    for (slide, spots), end, part in zip(training.items(), ends, parts, strict=True):
        found = np.empty((0, model.width), dtype=np.float32)
        if len(part):
            whole = source.read(slide, 0, int(sizes[slide]))
            found = _embed(model, whole, spots[part - (end - len(spots))])
        embeddings.append(found)
    return ReferenceSpots.learn(embeddings, groups, n_components=_COMPONENTS, unit=True, seed=seed)


def _codes(groups: list[str]) -> NDArray[np.int64]:
    return np.unique(groups, return_inverse=True)[1]


@torch.inference_mode()
def _embed(model: SageFM, slide: AlignedSlide, centers: NDArray[np.int64]) -> NDArray[np.float32]:
    """Embed some spots of a slide, nothing hidden."""
    encoded = encode(model.network, slide)
    return np.asarray(encoded.embed(slide.neighbors[centers]).cpu().numpy())
