"""Choose what to compute on every slide: pairs, and the genes that ligands are compared with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csc_matrix
from scipy.spatial import cKDTree
from scipy.stats import rankdata

from sagefm._errors import InputError, logger
from sagefm._text import few
from sagefm._types import Floats, Positions
from sagefm.nn import EncodedSlide
from sagefm.pp.selection import selected_spots
from sagefm.tl.perturbation._perturber import GeneFacts

if TYPE_CHECKING:
    from anndata import AnnData

    from sagefm.model import SageFM
    from sagefm.pp.aligned import AlignedSlide

N_COEXPRESSED = 30
N_CONTROLS = 100
_POOL = 3000
"""Size of the pool from which the nulls of many ligands are drawn, to raise fewer genes."""
_LEAST_MATCHED = 3
"""Fewer genes have no meaningful standard deviation."""


@dataclass(frozen=True)
class PerturbedSlide:
    """A slide, ready to be perturbed."""

    name: str
    prepared: "AlignedSlide"
    spots: Positions
    by_gene: csc_matrix
    """Log1p counts, for access by columns."""
    facts: GeneFacts
    encoded: EncodedSlide

    def draw(self, n: int, seed: int) -> Positions:
        """Draw at most `n` of the spots."""
        chance = np.random.default_rng(seed)
        return np.sort(chance.choice(self.spots, min(n, len(self.spots)), replace=False))

    def checksum(self) -> list[float]:
        """Summarize the slide by numbers that differ between slides."""
        x = self.prepared.log1p
        return [*x.shape, x.nnz, float(x.data.sum(dtype=np.float64)),
                float(x.indices.sum(dtype=np.float64)), len(self.spots),
                float(self.spots.sum())]  # fmt: skip


def prepare_slides(
    slide: "AnnData | Mapping[str, AnnData]",
    model: "SageFM",
    region: "NDArray[np.bool_] | str | None",
    *,
    layer: str | None,
    slide_key: str | None,
) -> list[PerturbedSlide]:
    """Prepare one slide, or several by name."""
    slides = cast("Mapping[str, AnnData]", slide if isinstance(slide, Mapping) else {"": slide})
    ready = []
    for name, one in slides.items():
        try:
            prepared = model.prepare(one, layer=layer, slide_key=slide_key)
            spots = np.flatnonzero(selected_spots(one, region))
        except InputError as error:
            raise InputError(f"{name}: {error}" if name else str(error)) from error
        by_gene = prepared.log1p.tocsc()
        facts = GeneFacts.of(prepared, by_gene)
        ready.append(PerturbedSlide(name, prepared, spots, by_gene, facts, model.encode(prepared)))
    return ready


@dataclass(frozen=True)
class PerturbationPlan:
    """What is computed on every slide; genes are positions in the vocabulary."""

    pairs: pd.DataFrame
    ligand: Positions
    """Of each pair."""
    target: Positions
    ligands: Positions
    """Each once, sorted; so are targets."""
    targets: Positions
    matched: Positions
    """Ligands × genes."""
    coexpressed: Positions
    """Ligands × genes."""
    screened: Positions
    """Each ligand and each gene of a null once, sorted."""
    controls: Positions
    """Genes matched to the targets, to estimate the effects of a gene in general."""

    @classmethod
    def of(
        cls,
        table: pd.DataFrame,
        model: "SageFM",
        slides: Sequence[PerturbedSlide],
        n_matched: int,
        seed: int,
        n_controls: int = N_CONTROLS,
    ) -> "PerturbationPlan":
        """Choose the genes to raise and to predict; `seed` draws the pool of the nulls if needed.

        Raises
        ------
        InputError
            No pair is left, or too few genes to compare effects with.
        """
        if n_matched < _LEAST_MATCHED:
            raise InputError(f"n_matched={n_matched}: give {_LEAST_MATCHED} genes at least")
        shown = np.max([one.facts.high for one in slides], axis=0) > 0
        table, ligand, target = _usable(table, model, shown)
        ligands, targets = np.unique(ligand), np.unique(target)
        free = np.setdiff1d(np.flatnonzero(shown), np.union1d(ligands, targets))
        if len(free) < _LEAST_MATCHED:
            raise InputError(
                "pairs: name all genes of the slide, so that none are left to compare effects "
                "with; name fewer"
            )
        pool = free
        if len(ligands) * (n_matched + N_COEXPRESSED) > _POOL < len(free):
            pool = np.sort(np.random.default_rng(seed).choice(free, _POOL, replace=False))
        features = np.mean([one.facts.features() for one in slides], axis=0)
        matched = match_genes(features, ligands, pool, n_matched)
        largest = max(slides, key=lambda one: len(one.spots))
        coexpressed = coexpressed_genes(largest.by_gene, ligands, pool, N_COEXPRESSED)
        screened = np.unique(np.concatenate([ligands, matched.ravel(), coexpressed.ravel()]))
        some = targets[np.linspace(0, len(targets) - 1, min(len(targets), n_controls)).astype(int)]
        controls = match_genes(features, some, free, -(-n_controls // len(some)))
        return cls(
            table,
            ligand,
            target,
            ligands,
            targets,
            matched,
            coexpressed,
            screened,
            np.unique(controls),
        )

    def partners(self, own: Positions, of: Positions, other: Positions) -> list[Positions]:
        """List for each gene `of` the `other` side of the pairs in which it is the `own` side."""
        return [np.unique(other[own == gene]) for gene in of]


def match_genes(features: Floats, genes: Positions, candidates: Positions, n: int) -> Positions:
    """Find for each gene the nearest candidates.

    Parameters
    ----------
    features
        All genes × features, such as the mean and the fraction of spots. Only their ranks count.
    genes, candidates
        Positions; a gene is not its own match.
    n
        How many.

    Returns
    -------
    Genes × `n` positions (fewer columns where there are fewer candidates), the nearest first.
    """
    pooled = np.concatenate([genes, candidates])
    ranks = rankdata(features[pooled], axis=0)
    n = min(n, len(candidates))
    _, at = cKDTree(ranks[len(genes) :]).query(ranks[: len(genes)], k=np.arange(1, n + 1))
    return candidates[at]


def coexpressed_genes(
    log1p: csc_matrix, genes: Positions, candidates: Positions, n: int
) -> Positions:
    """Find for each gene the candidates that correlate with it most over the spots: genes × n."""
    x = log1p[:, genes].toarray().astype(np.float64)
    x -= x.mean(axis=0)
    others = log1p[:, candidates].astype(np.float64)
    mean = np.asarray(others.mean(axis=0)).ravel()
    square = np.asarray(others.multiply(others).mean(axis=0)).ravel()
    variance = square - mean**2
    sd = np.sqrt(np.where(variance > 1e-10 * square, variance, 0))  # less is rounding
    # The mean of the candidates cancels, since x is centered.
    shared = np.asarray((others.T @ x).T) / len(x)
    r = np.divide(shared, sd, out=np.full_like(shared, -np.inf), where=sd > 0)
    return candidates[np.argsort(-r, axis=1, kind="stable")[:, : min(n, len(candidates))]]


def _usable(
    table: pd.DataFrame, model: "SageFM", shown: NDArray[np.bool_]
) -> tuple[pd.DataFrame, Positions, Positions]:
    """Keep the pairs that can be tested, warn about the others; and find their genes."""
    genes = list(dict.fromkeys(table[["ligand", "target"]].to_numpy().ravel()))
    positions = {
        gene: at
        for gene, at in zip(genes, model.vocabulary.find(genes), strict=True)
        if at is not None
    }
    unknown = [gene for gene in genes if gene not in positions]
    known = table["ligand"].isin(list(positions)) & table["target"].isin(list(positions))
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
    ligand, target = (
        np.array([positions[gene] for gene in kept[side]], dtype=np.int64)
        for side in ("ligand", "target")
    )
    return kept, ligand, target
