"""The published network on a graph library, one complete subgraph per spot.

Written from the description of the paper (arXiv 2601.15504) and nothing else: it shares no code
with the package, so that the two can be held against each other.
"""

import warnings

import numpy as np
import torch
from torch import nn

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # the library's own import uses torch.jit
    from torch_geometric.data import Batch, Data
    from torch_geometric.nn import GCNConv


class PublishedNetwork(nn.Module):
    """Five graph convolutions and a linear read-out, named as in the published checkpoint."""

    def __init__(self, n_genes, widths=(1024, 512, 512, 512, 1024)):
        super().__init__()
        inputs = (n_genes, *widths[:-1])
        for layer, (wide, narrow) in enumerate(zip(inputs, widths, strict=True), start=1):
            setattr(self, f"conv{layer}", GCNConv(wide, narrow))
        self.fc_gene = nn.Linear(widths[-1], n_genes)

    def embed(self, x, edge_index):
        for layer in range(1, 5):
            x = nn.functional.leaky_relu(getattr(self, f"conv{layer}")(x, edge_index), 0.01)
        return self.conv5(x, edge_index)

    def forward(self, x, edge_index):
        return torch.relu(self.fc_gene(self.embed(x, edge_index)))


def of_ours(state, widths=(1024, 512, 512, 512, 1024)):
    """Make the network with the weights of one of ours, from its state dict."""
    names = {"conv1.lin.weight": state["first"].T, "conv1.bias": state["first_bias"]}
    for layer in range(4):
        names[f"conv{layer + 2}.lin.weight"] = state[f"encoder.{layer}.weight"]
        names[f"conv{layer + 2}.bias"] = state[f"encoder.{layer}.bias"]
    names |= {f"fc_gene.{part}": state[f"decoder.{part}"] for part in ("weight", "bias")}
    network = PublishedNetwork(len(state["first"]), widths)
    network.load_state_dict(names)
    return network


def nearest_spots(coordinates, k=15):
    """Center first, then by Euclidean distance, ties (to rounding) by place: x, then y."""
    distances = ((coordinates[:, None] - coordinates[None]) ** 2).sum(-1)
    distances = np.round(distances / distances[distances > 0].min(initial=1e12), 9)
    np.fill_diagonal(distances, -1)
    by_place = np.lexsort((coordinates[:, 1], coordinates[:, 0]))
    order = np.argsort(distances[:, by_place], axis=1, kind="stable")[:, :k]
    return by_place[order]


def complete_graph(k):
    """All ordered pairs of k nodes, no self loops."""
    return torch.tensor([(i, j) for i in range(k) for j in range(k) if i != j]).T.contiguous()


def subgraphs(expression, neighbors, hidden=None):
    """One dense subgraph per spot, in a Python loop, as published.

    `expression` is the sparse spots × genes matrix of log1p counts, `hidden` a boolean spots ×
    genes array of what the center does not show.
    """
    edges = complete_graph(neighbors.shape[1])
    for i, members in enumerate(neighbors):
        x = torch.from_numpy(expression[members].toarray())
        if hidden is not None:
            x[0, torch.from_numpy(hidden[i])] = 0
        yield Data(x=x, edge_index=edges)


def batches(graphs, size=64):
    graphs = list(graphs)
    for start in range(0, len(graphs), size):
        yield Batch.from_data_list(graphs[start : start + size])


@torch.no_grad()
def run(network, expression, neighbors, hidden=None, what="embed"):
    """Embed or predict every spot: spots × width, or spots × genes."""
    k = neighbors.shape[1]
    method = network.embed if what == "embed" else network
    parts = [
        method(batch.x, batch.edge_index)[::k].numpy()
        for batch in batches(subgraphs(expression, neighbors, hidden))
    ]
    return np.concatenate(parts)
