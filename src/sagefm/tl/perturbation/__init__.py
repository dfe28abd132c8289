"""Change genes in the neighborhood and predict the response."""

from sagefm.tl.perturbation._cross_modality import USUAL, cross_columns
from sagefm.tl.perturbation._pairs import gene_sets, pairs, set_pairs
from sagefm.tl.perturbation._perturb import perturb, top_pairs
from sagefm.tl.perturbation._respond import KNOCKOUT, Change, respond
from sagefm.tl.perturbation._result import LEAD
from sagefm.tl.perturbation._sets import perturb_sets
from sagefm.tl.perturbation._signatures import SignatureSource, signatures
from sagefm.tl.perturbation._what_if import BesideMatched, WhatIf

__all__ = [
    "KNOCKOUT",
    "LEAD",
    "USUAL",
    "BesideMatched",
    "Change",
    "SignatureSource",
    "WhatIf",
    "cross_columns",
    "gene_sets",
    "pairs",
    "perturb",
    "perturb_sets",
    "respond",
    "set_pairs",
    "signatures",
    "top_pairs",
]
