"""Several slides or sections in one object, for a network that encodes each by itself."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sagefm._errors import InputError
from sagefm._types import Positions, Where
from sagefm.nn.base import Centers, EncodedSlide, MaskedGenes, NeighborhoodChange, Parts


class MultiSlideCenters(Centers):
    """Some spots of several slides.

    Parameters
    ----------
    by_slide
        The centers of each slide that has some.
    rows
        For each of them, which of all centers they are.
    """

    def __init__(self, by_slide: Sequence[Centers], rows: Sequence[Positions]) -> None:
        self._by_slide, self._rows = by_slide, rows
        self.pooled = _in_order([centers.pooled for centers in by_slide], rows)

    def predict(self, genes: Tensor | None = None) -> Tensor:
        """Predict log1p counts: centers × genes."""
        return _in_order([centers.predict(genes) for centers in self._by_slide], self._rows)

    @property
    def weights(self) -> NDArray[np.float64]:
        """The weight of each spot of a neighborhood in each operator."""
        weights = np.concatenate([centers.weights for centers in self._by_slide], axis=1)
        return weights[:, np.argsort(np.concatenate(self._rows))]

    def unchanged(self, targets: Tensor) -> Tensor:
        """Predict without a change."""
        return _in_order([centers.unchanged(targets) for centers in self._by_slide], self._rows)

    def changed(self, genes: Tensor, change: Tensor, targets: Tensor) -> Tensor:
        """Predict after a change."""
        pairs = zip(self._by_slide, self._rows, strict=True)
        predicted = [centers.changed(genes, change[:, rows], targets) for centers, rows in pairs]
        return _in_order(predicted, self._rows)

    def recomputed(self, change: NeighborhoodChange, targets: Tensor) -> Tensor:
        """Predict after the counts of neighborhoods change."""
        predicted = []
        for centers, rows in zip(self._by_slide, self._rows, strict=True):
            own = change._replace(log1p=change.log1p[:, rows], counts=change.counts[:, rows])
            predicted.append(centers.recomputed(own, targets).transpose(0, 1))
        return _in_order(predicted, self._rows).transpose(0, 1)

    def influence(
        self, targets: Tensor, progress: Callable[[int], None] | None = None
    ) -> dict[Where, Tensor]:
        """Average over the centers how predictions depend on the projected spots."""
        total: dict[Where, Tensor] = {}
        done = 0
        for centers, rows in zip(self._by_slide, self._rows, strict=True):
            for where, mean in centers.influence(targets, _from(done, progress)).items():
                weighted = mean * (len(rows) / len(self.pooled))
                total[where] = total[where] + weighted if where in total else weighted
            done += len(rows)
        return total


class MultiSlide(EncodedSlide):
    """Several slides or sections in one object.

    Parameters
    ----------
    encoded
        Each slide by itself.
    slides
        For each row of the object the number of its slide, from 0; within a slide the rows keep
        their order. No neighborhood may cross slides.
    rows
        For each row of the object its row in what is encoded, where that is more than its slide.
    """

    def __init__(
        self,
        encoded: Sequence[EncodedSlide],
        slides: NDArray[np.int64],
        rows: Positions | None = None,
    ) -> None:
        self._encoded, self._slides = encoded, slides
        self._row_of_slide = np.empty_like(slides) if rows is None else rows
        for number in range(len(encoded) if rows is None else 0):
            is_member = slides == number
            self._row_of_slide[is_member] = np.arange(is_member.sum())

    def centers(self, neighbors: Positions, masked: MaskedGenes | None = None) -> MultiSlideCenters:
        """Pick some centers, all of their genes visible or some masked."""
        by_slide = self._by_slide(neighbors)
        centers = [
            each.encoded.centers(each.neighbors, _of(masked, each.rows)) for each in by_slide
        ]
        return MultiSlideCenters(centers, [each.rows for each in by_slide])

    def embed(self, neighbors: Positions) -> Tensor:
        """Embed some centers."""
        by_slide = self._by_slide(neighbors)
        embedded = [each.encoded.embed(each.neighbors) for each in by_slide]
        return _in_order(embedded, [each.rows for each in by_slide])

    def explain(self, neighbors: Positions, baseline: Positions, steps: int) -> Parts:
        """Attribute the difference of an embedding from the baseline spots of its slide to genes.

        Raises
        ------
        InputError
            The baseline has no center on that slide.
        """
        slide = int(self._slides[neighbors[0]])
        of_slide = baseline[self._slides[baseline[:, 0]] == slide]
        if not len(of_slide):
            raise InputError(
                "against: has no spot on the slide of a spot that is to be explained, and this "
                "network encodes each slide by itself; name some spots of each slide"
            )
        rows = self._row_of_slide
        return self._encoded[slide].explain(rows[neighbors], rows[of_slide], steps)

    def pull_back(self, neighbors: Positions, gradients: Tensor) -> Tensor:
        """Turn derivatives by the embeddings into those by the projected spots of all slides."""
        return torch.stack(
            [
                each.encoded.pull_back(each.neighbors, gradients[:, each.rows])
                for each in self._by_slide(neighbors)
            ]
        ).sum(dim=0)

    def _by_slide(self, neighbors: Positions) -> list["_CentersOfSlide"]:
        slides = self._slides[neighbors[:, 0]]
        by_slide = []
        for number in np.unique(slides):
            rows = np.flatnonzero(slides == number)
            of_slide = self._row_of_slide[neighbors[rows]]
            by_slide.append(_CentersOfSlide(self._encoded[number], rows, of_slide))
        return by_slide


class _CentersOfSlide(NamedTuple):
    """The centers of one slide."""

    encoded: EncodedSlide
    rows: Positions
    """Which of all centers they are."""
    neighbors: Positions
    """Rows of the slide."""


def _of(masked: MaskedGenes | None, rows: Positions) -> MaskedGenes | None:
    """Keep the masks of some of the centers."""
    if masked is None or masked.mask is None:
        return masked
    return masked._replace(mask=masked.mask[rows])


def _in_order(by_slide: Sequence[Tensor], rows: Sequence[Positions]) -> Tensor:
    """Put the results of each slide into the order of the centers."""
    whole = torch.cat(list(by_slide))
    return whole[torch.from_numpy(np.argsort(np.concatenate(rows))).to(whole.device)]


def _from(n_before: int, progress: Callable[[int], None] | None) -> Callable[[int], None] | None:
    """Count on from the slides before."""
    return None if progress is None else lambda done: progress(n_before + done)
