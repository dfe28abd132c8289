"""Change genes in the neighborhood and predict the response."""

from sagefm.tl.perturbation._pairs import gene_sets, pairs, set_pairs
from sagefm.tl.perturbation._perturb import perturb, top_pairs
from sagefm.tl.perturbation._respond import KNOCKOUT, Change, respond
from sagefm.tl.perturbation._sets import perturb_sets

__all__ = [
    "KNOCKOUT",
    "Change",
    "gene_sets",
    "pairs",
    "perturb",
    "perturb_sets",
    "respond",
    "set_pairs",
    "top_pairs",
]
