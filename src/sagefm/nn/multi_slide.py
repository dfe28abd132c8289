"""Several slides in one object, for a network that must read each by itself."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sagefm._errors import InputError
from sagefm._types import Positions
from sagefm.nn.base import Centers, EncodedSlide, MaskedGenes, Parts, Where


class MultiSlideCenters(Centers):
    """Some spots of several slides.

    Parameters
    ----------
    parts
        The centers of each slide that has some.
    places
        Which of all centers those of each part are.
    """

    def __init__(self, parts: Sequence[Centers], places: Sequence[Positions]) -> None:
        self._parts, self._places = parts, places
        self.pooled = self._in_order([part.pooled for part in parts])

    def predict(self, genes: Tensor | None = None) -> Tensor:
        """Predict log1p counts: centers × genes."""
        return self._in_order([part.predict(genes) for part in self._parts])

    @property
    def shares(self) -> NDArray[np.float64]:
        """What each spot of a neighborhood counts in each operator."""
        shares = np.concatenate([part.shares for part in self._parts], axis=1)
        return shares[:, np.argsort(np.concatenate(self._places))]

    def unchanged(self, wanted: Tensor) -> Tensor:
        """Predict as things are."""
        return self._in_order([part.unchanged(wanted) for part in self._parts])

    def changed(self, genes: Tensor, change: Tensor, wanted: Tensor) -> Tensor:
        """Predict after genes were changed."""
        pairs = zip(self._parts, self._places, strict=True)
        return self._in_order([part.changed(genes, change[:, at], wanted) for part, at in pairs])

    def influence(
        self, targets: Tensor, progress: Callable[[int], None] | None = None
    ) -> dict[Where, Tensor]:
        """Average over the centers how predictions depend on the projected spots."""
        total: dict[Where, Tensor] = {}
        done = 0
        for part, at in zip(self._parts, self._places, strict=True):
            for where, mean in part.influence(targets, _beyond(done, progress)).items():
                own = mean * (len(at) / len(self.pooled))
                total[where] = total[where] + own if where in total else own
            done += len(at)
        return total

    def _in_order(self, parts: Sequence[Tensor]) -> Tensor:
        return _in_order(parts, self._places)


class MultiSlide(EncodedSlide):
    """Several slides in one object.

    Parameters
    ----------
    readings
        Each slide by itself.
    slides
        For each row of the object the number of its slide, from 0; a slide has its rows in their
        order. No neighborhood may cross slides.
    """

    def __init__(self, readings: Sequence[EncodedSlide], slides: NDArray[np.int64]) -> None:
        self._readings, self._slides = readings, slides
        self._rows = np.empty_like(slides)
        for number in range(len(readings)):
            own = slides == number
            self._rows[own] = np.arange(own.sum())

    def centers(self, neighbors: Positions, hidden: MaskedGenes | None = None) -> MultiSlideCenters:
        """See some centers."""
        parts = self._split(neighbors)
        found = [reading.centers(own, _at(hidden, at)) for reading, at, own in parts]
        return MultiSlideCenters(found, [part.places for part in parts])

    def embed(self, neighbors: Positions) -> Tensor:
        """Embed some centers."""
        parts = self._split(neighbors)
        found = [part.reading.embed(part.neighbors) for part in parts]
        return _in_order(found, [part.places for part in parts])

    def explain(self, neighbors: Positions, baseline: Positions, steps: int) -> Parts:
        """Say which genes set an embedding apart, from the part of the baseline on its slide.

        Raises
        ------
        InputError
            The baseline has no center there.
        """
        slide = int(self._slides[neighbors[0]])
        there = baseline[self._slides[baseline[:, 0]] == slide]
        if not len(there):
            raise InputError(
                "against: names no spot of the slide of a spot that is to be explained, and this "
                "network reads each slide by itself; name some of each slide"
            )
        return self._readings[slide].explain(self._rows[neighbors], self._rows[there], steps)

    def pull_back(self, neighbors: Positions, given: Tensor) -> Tensor:
        """Turn derivatives by the embeddings into those by the projected spots of all slides."""
        parts = self._split(neighbors)
        found = [reading.pull_back(own, given[:, at]) for reading, at, own in parts]
        return torch.stack(found).sum(dim=0)

    def _split(self, neighbors: Positions) -> list["_Part"]:
        """Give each slide its centers, by its own row numbers."""
        slides = self._slides[neighbors[:, 0]]
        parts = []
        for number in np.unique(slides):
            at = np.flatnonzero(slides == number)
            parts.append(_Part(self._readings[number], at, self._rows[neighbors[at]]))
        return parts


class _Part(NamedTuple):
    """The centers of one slide."""

    reading: EncodedSlide
    places: Positions
    """Which of all centers they are."""
    neighbors: Positions
    """Rows of the slide."""


def _at(hidden: MaskedGenes | None, places: Positions) -> MaskedGenes | None:
    """Say what some of the centers hide."""
    if hidden is None or hidden.mask is None:
        return hidden
    return hidden._replace(mask=hidden.mask[places])


def _in_order(parts: Sequence[Tensor], places: Sequence[Positions]) -> Tensor:
    """Put what was found slide by slide into the order of the centers."""
    whole = torch.cat(list(parts))
    return whole[torch.from_numpy(np.argsort(np.concatenate(places))).to(whole.device)]


def _beyond(before: int, progress: Callable[[int], None] | None) -> Callable[[int], None] | None:
    """Count on from the slides before."""
    return None if progress is None else lambda done: progress(before + done)
