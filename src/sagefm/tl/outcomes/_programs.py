"""Gene programs of patients: the weighted mean of standardized expression over their genes."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sagefm._errors import InputError, logger
from sagefm._text import few, numbered
from sagefm._types import Bools, Floats

if TYPE_CHECKING:
    from sagefm.pp.vocabulary import Vocabulary

_MIN_GENES = 3
"""Of a program that is scored."""


def program_weights(
    programs: pd.DataFrame, vocabulary: "Vocabulary", positions: pd.Index
) -> pd.DataFrame:
    """Get the weight of each gene in each program: positions × programs, of absolute sum 1.

    Parameters
    ----------
    programs
        As :func:`sagefm.tl.signatures` returns them.
    vocabulary
        The genes of the model.
    positions
        The genes that all slides have, as positions in the vocabulary.

    Raises
    ------
    InputError
        No program has three of these genes.
    """
    genes = list(dict.fromkeys(programs["target"]))
    at = dict(zip(genes, vocabulary.find(genes), strict=True))
    table = programs.assign(at=programs["target"].map(at))
    table = table[table["at"].isin(positions)].drop_duplicates(["source", "at"])
    weights = table.pivot(index="at", columns="source", values="weight").reindex(positions)
    enough = weights.notna().sum() >= _MIN_GENES
    if 0 < enough.sum() < len(enough):
        logger.warning(
            "gene_sets: %s with fewer than %d genes left out",
            numbered(int((~enough).sum()), "set"), _MIN_GENES,
        )  # fmt: skip
    weights = weights.loc[:, enough].fillna(0.0)
    if weights.empty:
        raise InputError(
            f"gene_sets: none has {_MIN_GENES} genes that the model knows and all slides have; "
            f"their first genes are {few(genes)}: use gene symbols"
        )
    return weights / weights.abs().sum()


def program_scores(cpm: Floats, weights: Floats, training: Bools) -> Floats:
    """Score programs: patients × programs, with genes standardized over the training patients."""
    center, spread = cpm[training].mean(axis=0), cpm[training].std(axis=0)
    z = (cpm - center) / np.where(spread > 0, spread, np.inf)
    return np.asarray(z @ weights)
