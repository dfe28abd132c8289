"""The gene network that a model has learned."""

from sagefm.tl.gene_network._influence import consensus_network, influence, to_edges, to_graph

__all__ = ["consensus_network", "influence", "to_edges", "to_graph"]
