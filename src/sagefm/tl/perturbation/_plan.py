"""What a perturbation asks of every slide: which pairs, and which genes to hold them against."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sagefm._errors import InputError, logger
from sagefm._text import few
from sagefm._types import Positions
from sagefm.nn import EncodedSlide
from sagefm.pp.selection import selected_spots
from sagefm.tl.perturbation import _nulls
from sagefm.tl.perturbation._perturber import GeneFacts

if TYPE_CHECKING:
    from anndata import AnnData

    from sagefm.model import SageFM
    from sagefm.pp.aligned import AlignedSlide

N_COEXPRESSED = 30
N_CONTROLS = 100
_POOL = 3000
"""Genes that the nulls of many ligands share: else nearly every gene would be raised."""
_LEAST_MATCHED = 3
"""Fewer genes have no spread to speak of."""


@dataclass(frozen=True)
class View:
    """One slide."""

    name: str
    prepared: "AlignedSlide"
    spots: Positions
    facts: GeneFacts
    reading: EncodedSlide

    def draw(self, n: int, seed: int) -> Positions:
        """Draw at most `n` of the spots."""
        chance = np.random.default_rng(seed)
        return np.sort(chance.choice(self.spots, min(n, len(self.spots)), replace=False))

    def checksum(self) -> list[float]:
        """Tell the slide from others, roughly but quickly."""
        x = self.prepared.log1p
        return [*x.shape, x.nnz, float(x.data.sum(dtype=np.float64)),
                float(x.indices.sum(dtype=np.float64)), len(self.spots),
                float(self.spots.sum())]  # fmt: skip


def views_of(
    slide: "AnnData | Mapping[str, AnnData]",
    model: "SageFM",
    region: "NDArray[np.bool_] | str | None",
    *,
    layer: str | None,
    slide_key: str | None,
) -> list[View]:
    """Prepare one slide, or several by name."""
    slides = cast("Mapping[str, AnnData]", slide if isinstance(slide, Mapping) else {"": slide})
    views = []
    for name, one in slides.items():
        try:
            prepared = model.prepare(one, layer=layer, slide_key=slide_key)
            spots = np.flatnonzero(selected_spots(one, region))
        except InputError as error:
            raise InputError(f"{name}: {error}" if name else str(error)) from error
        facts = GeneFacts.of(prepared.log1p, prepared.neighbors)
        views.append(View(name, prepared, spots, facts, model.encode(prepared)))
    return views


@dataclass(frozen=True)
class Plan:
    """What is asked of every slide; genes are positions in the vocabulary."""

    pairs: pd.DataFrame
    ligand: Positions
    """Of each pair."""
    target: Positions
    ligands: Positions
    """Each once, sorted; so are targets."""
    targets: Positions
    matched: Positions
    """Ligands × genes."""
    alike: Positions
    """Ligands × genes."""
    screened: Positions
    """Each ligand and each gene of a null once, sorted."""
    controls: Positions
    """Genes like the targets, on which it is measured how much a gene moves others in general."""

    @classmethod
    def of(
        cls,
        table: pd.DataFrame,
        model: "SageFM",
        views: Sequence[View],
        n_matched: int,
        seed: int,
        n_controls: int = N_CONTROLS,
    ) -> "Plan":
        """Choose what to ask, and the genes of the nulls; `seed` draws the latter where needed.

        Raises
        ------
        InputError
            No pair is left, or too few genes to hold effects against.
        """
        if n_matched < _LEAST_MATCHED:
            raise InputError(f"n_matched={n_matched}: give {_LEAST_MATCHED} genes at least")
        shown = np.max([view.facts.high for view in views], axis=0) > 0
        table, ligand, target = _usable(table, model, shown)
        ligands, targets = np.unique(ligand), np.unique(target)
        free = np.setdiff1d(np.flatnonzero(shown), np.union1d(ligands, targets))
        if len(free) < _LEAST_MATCHED:
            raise InputError(
                "pairs: name all genes that the slide shows, so that none are left to hold effects "
                "against; name fewer"
            )
        pool = free
        if len(ligands) * (n_matched + N_COEXPRESSED) > _POOL < len(free):
            pool = np.sort(np.random.default_rng(seed).choice(free, _POOL, replace=False))
        features = np.mean([view.facts.likeness() for view in views], axis=0)
        matched = _nulls.matched(features, ligands, pool, n_matched)
        largest = max(views, key=lambda view: len(view.spots))
        alike = _nulls.alike(largest.prepared.log1p, ligands, pool, N_COEXPRESSED)
        screened = np.unique(np.concatenate([ligands, matched.ravel(), alike.ravel()]))
        some = targets[np.linspace(0, len(targets) - 1, min(len(targets), n_controls)).astype(int)]
        like = _nulls.matched(features, some, free, -(-n_controls // len(some)))
        return cls(
            table, ligand, target, ligands, targets, matched, alike, screened, np.unique(like)
        )

    def partners(self, own: Positions, of: Positions, other: Positions) -> list[Positions]:
        """List for each gene `of` the `other` side of the pairs in which it is the `own` side."""
        return [np.unique(other[own == gene]) for gene in of]


def _usable(
    table: pd.DataFrame, model: "SageFM", shown: NDArray[np.bool_]
) -> tuple[pd.DataFrame, Positions, Positions]:
    """Keep the pairs that can be asked, tell of the others; and find their genes."""
    genes = list(dict.fromkeys(table[["ligand", "target"]].to_numpy().ravel()))
    positions = dict(zip(genes, model.vocabulary.find(genes), strict=True))
    found = {gene: at for gene, at in positions.items() if at is not None}
    unknown = [gene for gene in genes if gene not in found]
    known = table["ligand"].isin(list(found)) & table["target"].isin(list(found))
    silent = known & ~table["ligand"].map(lambda gene: gene in found and shown[found[gene]])
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
        np.array([found[gene] for gene in kept[side]], dtype=np.int64)
        for side in ("ligand", "target")
    )
    return kept, ligand, target
