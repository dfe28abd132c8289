"""What a user does to a slide with a model."""

from sagefm.tl._jobs import Source
from sagefm.tl.annotate import annotate, learn_annotator
from sagefm.tl.annotator import Annotator
from sagefm.tl.domains import domains
from sagefm.tl.embed import embed
from sagefm.tl.explain import explain
from sagefm.tl.impute import impute
from sagefm.tl.influence import consensus_network, influence, to_edges, to_graph
from sagefm.tl.many import Done, embed_many
from sagefm.tl.pairs import gene_sets, pairs, set_pairs
from sagefm.tl.perturb import perturb
from sagefm.tl.perturb_sets import perturb_sets
from sagefm.tl.rare import rare
from sagefm.tl.respond import KNOCKOUT, Change, respond
from sagefm.tl.subtype import Subtypes, subtype

__all__ = [
    "KNOCKOUT",
    "Annotator",
    "Change",
    "Done",
    "Source",
    "Subtypes",
    "annotate",
    "consensus_network",
    "domains",
    "embed",
    "embed_many",
    "explain",
    "gene_sets",
    "impute",
    "influence",
    "learn_annotator",
    "pairs",
    "perturb",
    "perturb_sets",
    "rare",
    "respond",
    "set_pairs",
    "subtype",
    "to_edges",
    "to_graph",
]  # fmt: skip
