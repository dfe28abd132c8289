"""The network of SAGE-FM, in the form that makes it fast.

The paper (arXiv 2601.15504) describes five graph convolutions over a complete graph of 15 spots,
one graph per spot. On a complete graph with self loops every convolution replaces each node by the
mean of all nodes, so that after the first one all 15 nodes carry the same vector and the other four
convolutions are an ordinary multilayer perceptron. What is left, for a whole slide at once, is

    H = X W               log1p counts (sparse) × first-layer weights, once per slide
    P = A H               mean over the neighborhood, minus what a mask hides of the center
    z = MLP(P)            the embedding
    x̂ = decode(z)[genes]  only the genes that are wanted

which is the published network to the last bits of float32, without a graph library and without a
dense spots × genes matrix.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

NEGATIVE_SLOPE = 0.01
_COLUMNS = 64


class SparseRows(NamedTuple):
    """Rows of a sparse matrix, as compressed sparse rows of tensors."""

    ends: Tensor
    """(rows + 1) integers: where each row begins, and where the last one ends."""
    genes: Tensor
    """(nonzeros) integers of the same type: the column of each value."""
    values: Tensor
    """(nonzeros) float32."""

    @classmethod
    def from_scipy(cls, matrix: "csr_matrix", device: torch.device | str = "cpu") -> Self:
        """Take over a float32 scipy matrix of rows × genes, on the CPU without a copy."""
        parts = (matrix.indptr, matrix.indices, matrix.data)
        return cls(*(torch.from_numpy(part).to(device) for part in parts))

    def times(self, weights: Tensor) -> Tensor:
        """Multiply by a dense genes × width matrix; gives rows × width.

        A few columns at a time: then the weights of all genes stay in the processor's cache while
        the rows pick among them, which takes half the time of whole rows.
        """
        return torch.cat(
            [
                F.embedding_bag(
                    self.genes,
                    columns.contiguous(),
                    self.ends,
                    mode="sum",
                    per_sample_weights=self.values,
                    include_last_offset=True,
                )
                for columns in torch.split(weights, _COLUMNS, dim=1)
            ],
            dim=1,
        )


class Network(nn.Module):
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

    @torch.no_grad()
    def start_from(self, gene_mean: Tensor) -> None:
        """Let an untrained network predict the mean log1p count of each gene.

        Drawn at random, about half of the genes begin below the last ReLU in every spot, where no
        gradient reaches them.
        """
        self.decoder.bias.copy_(gene_mean)

    def project(self, expression: SparseRows) -> Tensor:
        """Multiply log1p counts by the first-layer weights: spots × width, before the mean."""
        return expression.times(self.first)

    def pool(
        self, projected: Tensor, neighbors: Tensor, hidden: SparseRows | None = None
    ) -> Tensor:
        """Average over the neighborhoods.

        Parameters
        ----------
        projected
            Rows × width, from :meth:`project`.
        neighbors
            Centers × 15 row numbers of `projected`, the center among them.
        hidden
            For each center the log1p counts that it does not show, zero elsewhere.

        Returns
        -------
        Centers × width.
        """
        pooled = F.embedding_bag(neighbors, projected, mode="mean")
        if hidden is not None:
            pooled = pooled - self.project(hidden) / neighbors.shape[1]
        return pooled

    def embed(self, pooled: Tensor) -> Tensor:
        """Turn pooled neighborhoods into embeddings: centers × last width."""
        z = pooled + self.first_bias
        for layer in self.encoder:
            z = layer(F.leaky_relu(z, NEGATIVE_SLOPE, inplace=True))
        return z

    def decode(self, embedding: Tensor, genes: Tensor | None = None) -> Tensor:
        """Predict log1p counts of the center, for all genes or for the positions `genes`."""
        if genes is None:
            return F.relu(self.decoder(embedding))
        return F.relu(F.linear(embedding, self.decoder.weight[genes], self.decoder.bias[genes]))

    def forward(self, mean: Tensor) -> Tensor:
        """Predict all genes of some centers from their averaged neighborhoods.

        The same arithmetic with the mean taken first, which is less work where the neighborhoods
        of the centers hardly overlap, as in a batch of training.

        Parameters
        ----------
        mean
            Centers × genes, mean log1p counts of the neighborhood without what is hidden.

        Returns
        -------
        Centers × genes, log1p counts.
        """
        return self.decode(self.embed(mean @ self.first))


NETWORKS: dict[str, type[Network]] = {"published": Network}
"""The networks by name. Each has the methods of :class:`Network` and works by its formula."""


def build(name: str, n_genes: int, widths: Sequence[int]) -> Network:
    """Make a network by name, with fresh weights from torch's global random state."""
    return NETWORKS[name](n_genes, widths)
