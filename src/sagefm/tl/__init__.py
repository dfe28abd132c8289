"""What a user does to a slide with a model.

Each package is imported when one of its names is first used: `embed` starts without the statistics.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sagefm.tl.annotation import Annotator, annotate, learn_annotator
    from sagefm.tl.clustering import coarsen, domains
    from sagefm.tl.crossing import cross
    from sagefm.tl.description import Description, describe, markers, pathways
    from sagefm.tl.embedding import Done, Source, embed, embed_many, explain
    from sagefm.tl.gene_network import consensus_network, influence, to_edges, to_graph
    from sagefm.tl.imputation import impute
    from sagefm.tl.mapping import map
    from sagefm.tl.outcomes import Outcome, outcome
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
    "Outcome",
    "Source",
    "Subtypes",
    "WhatIf",
    "annotate",
    "coarsen",
    "consensus_network",
    "cross",
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
    "outcome",
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

_PACKAGES = {
    "annotation": ("Annotator", "annotate", "learn_annotator"),
    "clustering": ("coarsen", "domains"),
    "crossing": ("cross",),
    "description": ("Description", "describe", "markers", "pathways"),
    "embedding": ("Done", "Source", "embed", "embed_many", "explain"),
    "gene_network": ("consensus_network", "influence", "to_edges", "to_graph"),
    "imputation": ("impute",),
    "mapping": ("map",),
    "outcomes": ("Outcome", "outcome"),
    "perturbation": (
        "KNOCKOUT",
        "Change",
        "WhatIf",
        "gene_sets",
        "pairs",
        "perturb",
        "perturb_sets",
        "respond",
        "set_pairs",
        "signatures",
    ),
    "rarity": ("rare",),
    "subtyping": ("Subtypes", "subtype"),
}
_HOMES = {name: package for package, names in _PACKAGES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'sagefm.tl' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"sagefm.tl.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
