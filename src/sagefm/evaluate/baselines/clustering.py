"""Methods that find domains by themselves, and not by the common readout of an embedding."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sagefm.evaluate.baselines.embedding import Kind
from sagefm.tl.clustering import domains

if TYPE_CHECKING:
    from anndata import AnnData


@dataclass(frozen=True)
class Clustering:
    """A method that finds domains.

    Attributes
    ----------
    name
        Its name in tables.
    kind
        As for embeddings.
    of
        Takes a slide, the number of domains and a seed; returns the domain of each spot, "1" for
        the largest.
    note
        A remark for the reader of the tables.
    """

    name: str
    kind: Kind
    of: "Callable[[AnnData, int, int], NDArray[np.str_]]"
    note: str = ""


def _consensus(slide: "AnnData", n_domains: int, seed: int) -> NDArray[np.str_]:
    work = slide.copy()
    domains(work, n_domains, method="consensus", seed=seed, key_added="domain")
    return np.asarray(work.obs["domain"], dtype=str)


CONSENSUS = Clustering(
    "consensus (sagefm.tl.domains)",
    "model",
    _consensus,
    "the default of sagefm.tl.domains, which needs no model; not the common readout",
)
