"""Choose what to compute on every slide: pairs, and the genes that theirs are compared with."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sagefm._errors import InputError, logger
from sagefm._text import few
from sagefm._types import Floats, Positions
from sagefm.tl.perturbation._matching import coexpressed_genes, match_genes
from sagefm.tl.perturbation._set_test import GeneSwaps
from sagefm.tl.perturbation._slides import PerturbedSlide

if TYPE_CHECKING:
    from sagefm.model import SageFM

N_COEXPRESSED = 30
N_CONTROLS = 100
_LEAST_CONTROLS = 10
"""Genes matched to each target at least: they replace it where a set is tested."""
_MOST_RAISED, _MOST_CONTROLS = 1200, 300
"""How many genes many ligands, and many targets, are compared with together: these are computed."""
_LEAST_MATCHED = 3
"""Fewer genes have no meaningful standard deviation."""


@dataclass(frozen=True)
class Direction:
    """One side of pairs raised, the other predicted, and the genes that each is compared with.

    All are positions in the vocabulary.
    """

    name: str
    source: Positions
    """Of each pair: raised."""
    target: Positions
    """Of each pair: predicted."""
    sources: Positions
    """Each once, sorted; so are targets."""
    targets: Positions
    matched: Positions
    """Genes that each source is compared with: sources × genes."""
    coexpressed: Positions
    """Sources × genes."""
    matched_targets: Positions
    """Genes that each target is compared with: targets × genes."""
    raised: Positions
    """Each source and each gene that one is compared with once, sorted."""
    controls: Positions
    """All matched targets, each once, sorted: they show what a gene does in general."""

    @classmethod
    def of(
        cls,
        name: str,
        pairs: tuple[Positions, Positions],
        slides: Sequence[PerturbedSlide],
        features: Floats,
        free: Positions,
        n_matched: int,
        n_controls: int,
        most_controls: int = _MOST_CONTROLS,
    ) -> Self:
        """Choose the genes to compare with, among those that are `free`."""
        source, target = pairs
        sources, targets = np.unique(source), np.unique(target)
        matched = match_genes(features, sources, free, n_matched, _MOST_RAISED)
        pool = np.unique(matched) if len(sources) * N_COEXPRESSED > _MOST_RAISED else free
        largest = max(slides, key=lambda one: len(one.spots))
        coexpressed = coexpressed_genes(largest.by_gene, sources, pool, N_COEXPRESSED)
        n_each = max(_LEAST_CONTROLS, -(-n_controls // len(targets)))
        most = max(most_controls, n_controls)
        matched_targets = match_genes(features, targets, free, n_each, most)
        raised = np.unique(np.concatenate([sources, matched.ravel(), coexpressed.ravel()]))
        return cls(
            name, source, target, sources, targets, matched, coexpressed, matched_targets, raised,
            np.unique(matched_targets),
        )  # fmt: skip

    @property
    def columns(self) -> Positions:
        """What is predicted: the targets, then the controls."""
        return np.concatenate([self.targets, self.controls])

    def swaps(self) -> GeneSwaps:
        """Say where pairs and their genes stand in a matrix of raised genes × columns."""
        return GeneSwaps(
            source=np.searchsorted(self.sources, self.source),
            target=np.searchsorted(self.targets, self.target),
            sources=np.searchsorted(self.raised, self.sources),
            targets=np.arange(len(self.targets)),
            matched_sources=np.searchsorted(self.raised, self.matched),
            matched_targets=len(self.targets)
            + np.searchsorted(self.controls, self.matched_targets),
        )

    def partners(self) -> list[Positions]:
        """List for each source the targets of its pairs."""
        return [np.unique(self.target[self.source == gene]) for gene in self.sources]

    def of_pairs(self, matrix: Floats) -> Floats:
        """Pick the entry of each pair from a matrix of raised genes × columns."""
        rows = np.searchsorted(self.raised, self.source)
        return matrix[rows, np.searchsorted(self.targets, self.target)]


@dataclass(frozen=True)
class PerturbationPlan:
    """What is computed on every slide."""

    pairs: pd.DataFrame
    forward: Direction
    reversed: Direction

    @classmethod
    def of(
        cls,
        table: pd.DataFrame,
        model: "SageFM",
        slides: Sequence[PerturbedSlide],
        n_matched: int,
        n_controls: int = N_CONTROLS,
    ) -> Self:
        """Choose the genes to raise and to predict.

        Raises
        ------
        InputError
            No pair is left, or too few genes to compare effects with.
        """
        shown = np.max([one.facts.high for one in slides], axis=0) > 0
        table, (ligand, target) = usable(table, model, shown, ("ligand", "target"))
        free = free_genes(shown, np.union1d(ligand, target), n_matched)
        features = np.mean([one.facts.features() for one in slides], axis=0)

        def direction(name: str, source: Positions, target: Positions) -> Direction:
            return Direction.of(
                name, (source, target), slides, features, free, n_matched, n_controls
            )

        return cls(
            table, direction("forward", ligand, target), direction("reversed", target, ligand)
        )


def free_genes(shown: NDArray[np.bool_], named: Positions, n_matched: int) -> Positions:
    """Choose the genes that those of the pairs may be compared with."""
    if n_matched < _LEAST_MATCHED:
        raise InputError(f"n_matched={n_matched}: give {_LEAST_MATCHED} genes at least")
    free = np.setdiff1d(np.flatnonzero(shown), named)
    if len(free) < _LEAST_MATCHED:
        raise InputError(
            "pairs: name all genes of the slide, so that none are left to compare effects "
            "with; name fewer"
        )
    return free


def usable(
    table: pd.DataFrame, model: "SageFM", shown: NDArray[np.bool_], sides: Sequence[str]
) -> tuple[pd.DataFrame, list[Positions]]:
    """Keep the pairs that can be tested, warn about the others; and find the genes of `sides`."""
    genes = list(dict.fromkeys(table[list(sides)].to_numpy().ravel()))
    positions = {
        gene: at
        for gene, at in zip(genes, model.vocabulary.find(genes), strict=True)
        if at is not None
    }
    unknown = [gene for gene in genes if gene not in positions]
    known = table[list(sides)].isin(list(positions)).all(axis=1)
    silent = known & ~table["ligand"].map(lambda gene: gene in positions and shown[positions[gene]])
    reasons = []
    if unknown:
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        reasons.append(
            f"{(~known).sum()} with genes unknown to the model "
            f"({model.vocabulary.missing(unknown[0])}{more})"
        )
    if silent.any():
        names = few(pd.unique(table.loc[silent, "ligand"]))
        reasons.append(f"{silent.sum()} whose ligand no spot of the slide has ({names})")
    kept = table[known & ~silent].reset_index(drop=True)
    if kept.empty:
        raise InputError(f"pairs: none is left; left out: {'; '.join(reasons) or 'nothing given'}")
    if reasons:
        logger.warning(
            "%d of %d pairs are left out: %s", len(table) - len(kept), len(table),
            "; ".join(reasons),
        )  # fmt: skip
    return kept, [
        np.array([positions[gene] for gene in kept[side]], dtype=np.int64) for side in sides
    ]
