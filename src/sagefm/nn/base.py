"""The interface of all networks; the rest of the package knows them by these classes only.

A network encodes a slide once (:func:`sagefm.nn.encode`): :class:`EncodedSlide` holds all that does
not depend on the question. :meth:`EncodedSlide.centers` picks some of its spots, with some of their
genes masked: :class:`Centers` predict, also after a change, and say how predictions depend on the
input.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sagefm._types import Positions, Singles, Where

Parts = tuple[Singles, Singles]
"""A number per gene, for the center and for its neighbors."""


class MaskedGenes(NamedTuple):
    """Genes that are masked in some centers."""

    genes: Positions
    """Positions in the vocabulary."""
    mask: NDArray[np.bool_] | None = None
    """Centers × `genes`: which of them are masked in each center; all of them if not given."""
    neighbors: bool = False
    """Whether the same genes are masked in the neighbors of each center too."""


class NeighborhoodChange(NamedTuple):
    """How the neighborhoods of some centers change, in several versions."""

    genes: Tensor
    """Positions of the genes that change."""
    log1p: Tensor
    """Versions × centers × neighborhood × `genes`: change of the log1p counts, the center first."""
    counts: Tensor
    """The same, of the counts."""


class Centers(ABC):
    """Some spots of an encoded slide, with their neighborhoods and masked genes."""

    pooled: Tensor
    """Centers × width: the operators, mixed: input of the layers behind them."""

    @abstractmethod
    def predict(self, genes: Tensor | None = None) -> Tensor:
        """Predict log1p counts: centers × the positions `genes`, or × vocabulary."""

    @property
    @abstractmethod
    def weights(self) -> NDArray[np.float64]:
        """Operators × centers × neighborhood: the weight of each spot in each operator.

        The center comes first in a neighborhood.
        """

    @abstractmethod
    def unchanged(self, targets: Tensor) -> Tensor:
        """Predict `targets` without a change, as :meth:`changed` would: centers × targets."""

    @abstractmethod
    def changed(self, genes: Tensor, change: Tensor, targets: Tensor) -> Tensor:
        """Predict after a change of genes.

        Parameters
        ----------
        genes
            Positions of the genes that change.
        change
            Operators × centers × `genes`: change of the log1p counts, averaged by each operator
            with its :attr:`weights`.
        targets
            Positions of the genes to predict.

        Returns
        -------
        Centers × targets, log1p counts.
        """

    @abstractmethod
    def recomputed(self, change: NeighborhoodChange, targets: Tensor) -> Tensor:
        """Predict after the counts of neighborhoods change, with all that follows from them.

        Each center is predicted as if the slide were changed in its own neighborhood only. What is
        expected of a library size stays as it is for all: that neighborhood is a vanishing part of
        the slide. Genes are masked in all of the centers or in none, and not in their neighbors.

        Returns
        -------
        Versions × centers × targets, log1p counts.
        """

    @abstractmethod
    def influence(
        self, targets: Tensor, progress: Callable[[int], None] | None = None
    ) -> dict[Where, Tensor]:
        """Average over the centers how predictions depend on the projected spots.

        Parameters
        ----------
        targets
            Positions of the predicted genes.
        progress
            Called with the number of centers that are done.

        Returns
        -------
        ``"neighbors"``, all of them at once, and ``"center"``: targets × width of the first layer.
        Times the first-layer weights of a gene, it is the derivative of the predicted log1p counts
        by the log1p counts of that gene.
        """


class EncodedSlide(ABC):
    """A slide with what a network computes of it only once.

    `neighbors` is always centers × 15 rows of the slide, the center first.
    """

    @abstractmethod
    def centers(self, neighbors: Positions, masked: MaskedGenes | None = None) -> Centers:
        """Pick some centers, all of their genes visible or some masked."""

    @abstractmethod
    def embed(self, neighbors: Positions) -> Tensor:
        """Embed some centers, nothing masked: centers × width of the embedding."""

    @abstractmethod
    def explain(self, neighbors: Positions, baseline: Positions, steps: int) -> Parts:
        """Attribute the difference of one embedding from that of a baseline to genes.

        Parameters
        ----------
        neighbors
            One center: 15 rows.
        baseline
            The centers whose mean neighborhood is the baseline.
        steps
            Number of steps of the straight line between the two, where the network bends.

        Returns
        -------
        Contributions of the genes of the center, and of its neighbors; they sum to the distance of
        the two embeddings.
        """

    @abstractmethod
    def pull_back(self, neighbors: Positions, gradients: Tensor) -> Tensor:
        """Turn derivatives by the embeddings into derivatives by all projected spots at once.

        Parameters
        ----------
        gradients
            Outputs × centers × width of the embedding.

        Returns
        -------
        Outputs × width of the first layer: times the first-layer weights of a gene, the derivative
        of each output by the log1p counts of that gene, raised in every spot of the slide.
        """


class Network(nn.Module, ABC):
    """What every network has; :func:`sagefm.nn.encode` encodes a slide with it.

    Attributes
    ----------
    first
        Genes × width: the weights of the first layer, which is linear.
    widths
        Widths of the layers.
    """

    MIN_WIDTHS: ClassVar[int]
    """How many widths it needs at least."""
    MIN_NEIGHBORS: ClassVar[int]
    """How many spots a neighborhood needs at least, the center included."""

    first: nn.Parameter
    widths: tuple[int, ...]

    @staticmethod
    @abstractmethod
    def embedding_width(widths: Sequence[int]) -> int:
        """Width of the embedding of a network of such layers."""

    @abstractmethod
    def optimizer(self, learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
        """Make the optimizer that it is trained with.

        Its groups say by `pace` how many times the learning rate they go at.
        """

    def make_room(self, weights: Mapping[str, Tensor]) -> None:
        """Add the optional layers that some stored weights are of; by default there are none."""

    @property
    def device(self) -> torch.device:
        """Where the network computes."""
        return self.first.device
