"""The network of SAGE-FM, in the form that makes it fast.

The paper (arXiv 2601.15504) describes five graph convolutions over a complete graph of 15 spots,
one graph per spot. On a complete graph with self loops every convolution replaces each node by the
mean of all nodes, so that after the first one all 15 nodes carry the same vector and the other four
convolutions are an ordinary multilayer perceptron. What is left, for a whole slide at once, is

    H = X W               log1p counts (sparse) × first-layer weights, once per slide
    P = A H               mean over the neighborhood, minus what is masked in the center
    z = MLP(P)            the embedding
    x̂ = decode(z)[genes]  only some genes

which is the published network to the last bits of float32, without a graph library and without a
dense spots × genes matrix.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sagefm.nn.base import Network
from sagefm.nn.dense import product
from sagefm.nn.masking import Masks
from sagefm.nn.published.loss import masked_error
from sagefm.nn.sparse import SparseRows

NEGATIVE_SLOPE = 0.01
_DENSE_PACE = 3
"""How many times the pace of a sparse product a dense one has on a CPU."""


class Published(Network):
    """The published network.

    Parameters
    ----------
    n_genes
        Size of the vocabulary.
    widths
        Widths after each of the five layers of the encoder; the last is that of the embedding.

    Notes
    -----
    Weights are named for what they do. Against the published checkpoint: `first` is
    ``conv1.lin.weight`` transposed (genes × width, so that a gene's weights lie together),
    `first_bias` is ``conv1.bias``, `encoder.0` to `encoder.3` are ``conv2`` to ``conv5``, and
    `decoder` is ``fc_gene``.
    """

    PUBLISHED_WIDTHS = (1024, 512, 512, 512, 1024)
    MIN_WIDTHS, MIN_NEIGHBORS = 2, 1

    def __init__(self, n_genes: int, widths: Sequence[int] = PUBLISHED_WIDTHS) -> None:
        super().__init__()
        self.widths = tuple(widths)
        self.first = nn.Parameter(torch.empty(n_genes, widths[0]))
        self.first_bias = nn.Parameter(torch.zeros(widths[0]))
        layers = [nn.Linear(wide, narrow) for wide, narrow in pairwise(widths)]
        self.encoder = nn.ModuleList(layers)
        self.decoder = nn.Linear(widths[-1], n_genes)
        # As graph-convolution layers start: Glorot weights, no bias.
        for weight in (self.first, *(layer.weight for layer in layers)):
            nn.init.xavier_uniform_(weight)
        for layer in layers:
            nn.init.zeros_(layer.bias)

    @staticmethod
    def embedding_width(widths: Sequence[int]) -> int:
        """Width of the embedding: that of the last layer of the encoder."""
        return widths[-1]

    @torch.no_grad()
    def start_from(self, gene_mean: Tensor) -> None:
        """Start an untrained network from the mean log1p count of each gene.

        Drawn at random, about half of the genes begin below the last ReLU in every spot, where no
        gradient reaches them.
        """
        self.decoder.bias.copy_(gene_mean)

    def optimizer(self, learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
        """Adam, as published."""
        groups = [{"params": list(self.parameters()), "pace": 1.0}]
        return torch.optim.Adam(groups, lr=learning_rate, weight_decay=weight_decay, fused=True)

    def project(self, expression: SparseRows) -> Tensor:
        """Multiply log1p counts by the first-layer weights: spots × width, before the mean."""
        return expression.times(self.first)

    def pool(
        self, projected: Tensor, neighbors: Tensor, masked: SparseRows | None = None
    ) -> Tensor:
        """Average over the neighborhoods.

        Parameters
        ----------
        projected
            Rows × width, from :meth:`project`.
        neighbors
            Centers × 15 row numbers of `projected`, the center among them.
        masked
            For each center the masked log1p counts, zero elsewhere.

        Returns
        -------
        Centers × width.
        """
        pooled = F.embedding_bag(neighbors, projected, mode="mean")
        if masked is not None:
            pooled = pooled - self.project(masked) / neighbors.shape[1]
        return pooled

    def embed(self, pooled: Tensor) -> Tensor:
        """Turn pooled neighborhoods into embeddings: centers × last width."""
        return _apply(self.encoder[-1], self.hidden(pooled))

    def hidden(self, pooled: Tensor) -> Tensor:
        """Compute all but the last layer of the encoder: centers × last width but one."""
        z = pooled + self.first_bias
        for layer in list(self.encoder)[:-1]:
            z = _apply(layer, F.leaky_relu(z, NEGATIVE_SLOPE, inplace=True))
        return F.leaky_relu(z, NEGATIVE_SLOPE, inplace=True)

    def readout(self, genes: Tensor) -> tuple[Tensor, Tensor]:
        """Merge the last layer of the encoder and the decoder: weights and biases.

        Applied to :meth:`hidden`, with a ReLU, it predicts `genes` without the embedding, which is
        less work for a few genes.
        """
        weight, last = self.decoder.weight[genes], cast(nn.Linear, self.encoder[-1])
        return weight @ last.weight, self.decoder.bias[genes] + weight @ last.bias

    def decode(self, embedding: Tensor, genes: Tensor | None = None) -> Tensor:
        """Predict log1p counts of the center, for all genes or for the positions `genes`."""
        if genes is None:
            return F.relu(_apply(self.decoder, embedding))
        weight, bias = self.decoder.weight[genes], self.decoder.bias[genes]
        return F.relu(product(embedding, weight.T, bias))

    def mix(self, rows: SparseRows, operators: Sequence[Tensor]) -> Tensor:
        """Average patches of tissue, in whichever order of ``A X W`` is less work.

        Parameters
        ----------
        rows
            Log1p counts of the spots of all patches, patch after patch.
        operators
            For each patch the dense centers × rows matrix that averages over the neighborhoods.

        Returns
        -------
        Centers × width, what :meth:`pool` gives.
        """
        sizes = [operator.shape[1] for operator in operators]
        n_genes, n_centers = len(self.first), sum(map(len, operators))
        dense = rows.values.device.type != "cpu" or torch.is_autocast_enabled("cpu")
        if dense or _DENSE_PACE * len(rows.values) > n_centers * n_genes:
            parts = torch.split(rows.dense(n_genes), sizes)
            means = torch.cat([product(a, x) for a, x in zip(operators, parts, strict=True)])
            return product(means, self.first)
        parts = torch.split(self.project(rows), sizes)
        return torch.cat([a @ h for a, h in zip(operators, parts, strict=True)])

    def error(self, embedding: Tensor, truth: Tensor, masks: Masks, error_weight: float) -> Tensor:
        """Sum the squared errors of masked entries; see :func:`masked_error`."""
        decoder = self.decoder
        return masked_error(embedding, decoder.weight, decoder.bias, truth, masks, error_weight)


def _apply(layer: nn.Module, x: Tensor) -> Tensor:
    """Apply a linear layer."""
    return product(x, layer.get_parameter("weight").T, layer.get_parameter("bias"))
