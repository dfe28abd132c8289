"""What every network can do, whatever stands inside.

A network encodes a slide once (:func:`sagefm.nn.encode`): all that does not depend on the question
is computed there. :meth:`EncodedSlide.centers` then gives some of its spots, which answer every
question about them: predictions, with genes masked or changed, and how they depend on the input.
Everything above knows networks by these three classes only.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sagefm._types import Positions, Singles

Parts = tuple[Singles, Singles]
"""Numbers per gene, of the center and of its neighbors."""
Where = Literal["neighbors", "center"]


class MaskedGenes(NamedTuple):
    """Genes that some centers do not show."""

    genes: Positions
    """Positions in the vocabulary."""
    mask: NDArray[np.bool_] | None = None
    """Centers × `genes`: which of them each center hides; all of them if not given."""
    around: bool = False
    """Whether its neighbors do not show it either."""


class Centers(ABC):
    """Some spots of a slide as a network sees them, with their neighborhoods."""

    pooled: Tensor
    """Centers × width: what the layers behind the operators are given."""

    @abstractmethod
    def predict(self, genes: Tensor | None = None) -> Tensor:
        """Predict log1p counts: centers × the positions `genes`, or × vocabulary."""

    @property
    @abstractmethod
    def shares(self) -> NDArray[np.float64]:
        """Operators × centers × places: what each spot of a neighborhood counts in an operator.

        The center stands at the first place.
        """

    @abstractmethod
    def unchanged(self, wanted: Tensor) -> Tensor:
        """Predict as things are, by the way of :meth:`changed`: centers × `wanted`."""

    @abstractmethod
    def changed(self, genes: Tensor, change: Tensor, wanted: Tensor) -> Tensor:
        """Predict after genes were changed.

        Parameters
        ----------
        genes
            Positions of the genes that change.
        change
            Operators × centers × `genes`: by how much the log1p counts change that each operator
            averages, by its :attr:`shares`.
        wanted
            Positions of the genes to predict.

        Returns
        -------
        Centers × `wanted`, log1p counts.
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
            Is told how many centers are done.

        Returns
        -------
        For all neighbors at once, and for the center, targets × width of the first layer: times
        the first-layer weights of a gene, the derivative of the predicted log1p counts by the
        log1p counts of that gene.
        """


class EncodedSlide(ABC):
    """A slide as a network has read it.

    `neighbors` is always centers × 15 row numbers of the slide, the center first.
    """

    @abstractmethod
    def centers(self, neighbors: Positions, hidden: MaskedGenes | None = None) -> Centers:
        """See some centers, with all their genes or with some hidden."""

    @abstractmethod
    def embed(self, neighbors: Positions) -> Tensor:
        """Embed some centers, nothing hidden: centers × width of the embedding."""

    @abstractmethod
    def explain(self, neighbors: Positions, baseline: Positions, steps: int) -> Parts:
        """Say which genes set the embedding of one center apart from that of a baseline.

        Parameters
        ----------
        neighbors
            One center: 15 row numbers.
        baseline
            The centers whose mean neighborhood is the baseline.
        steps
            Into how many steps to cut the straight line between the two, where it bends.

        Returns
        -------
        The parts of the genes of the center, and of its neighbors: together they add up to the
        distance of the two embeddings.
        """

    @abstractmethod
    def pull_back(self, neighbors: Positions, given: Tensor) -> Tensor:
        """Turn derivatives by the embeddings into derivatives by all projected spots at once.

        Parameters
        ----------
        given
            Questions × centers × width of the embedding.

        Returns
        -------
        Questions × width of the first layer: times the first-layer weights of a gene, the
        derivative by its log1p counts, raised in every spot of the slide.
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

    @property
    def device(self) -> torch.device:
        """Where the network computes."""
        return self.first.device
