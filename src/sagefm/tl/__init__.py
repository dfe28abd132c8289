"""What a user does to a slide with a model."""

from sagefm.tl.annotation import Annotator, annotate, learn_annotator
from sagefm.tl.clustering import coarsen, domains
from sagefm.tl.description import Description, describe, markers, pathways
from sagefm.tl.embedding import Done, Source, embed, embed_many, explain
from sagefm.tl.gene_network import consensus_network, influence, to_edges, to_graph
from sagefm.tl.imputation import impute
from sagefm.tl.mapping import map
from sagefm.tl.perturbation import (
    KNOCKOUT,
    Change,
    WhatIf,
    gene_sets,
    pairs,
    perturb,
    perturb_sets,
    respond,
    set_pairs,
    signatures,
)
from sagefm.tl.rarity import rare
from sagefm.tl.subtyping import Subtypes, subtype

__all__ = [
    "KNOCKOUT",
    "Annotator",
    "Change",
    "Description",
    "Done",
    "Source",
    "Subtypes",
    "WhatIf",
    "annotate",
    "coarsen",
    "consensus_network",
    "describe",
    "domains",
    "embed",
    "embed_many",
    "explain",
    "gene_sets",
    "impute",
    "influence",
    "learn_annotator",
    "map",
    "markers",
    "pairs",
    "pathways",
    "perturb",
    "perturb_sets",
    "rare",
    "respond",
    "set_pairs",
    "signatures",
    "subtype",
    "to_edges",
    "to_graph",
]  # fmt: skip
