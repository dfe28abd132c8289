"""Pairs across modalities: the protein of a target in the center, its ligand's mRNA around it.

As the other evidence of a slide itself (see ``_coexpression.py``), these are z scores of partial
correlations over its spots, of the normalized protein, given the library sizes of both modalities
in the spot and around it, and with the components of expression too. Proteins vary smoothly over
tissue, and a ligand that occurs in patches correlates with many of them by chance: z is divided by
how far it usually is from 0 for this ligand (on proteins of no pair) and this protein, and a pair
is judged by how that compares with genes matched to the ligand on the same protein.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sagefm._errors import InputError, logger
from sagefm._types import Floats, Positions, Singles
from sagefm.pp.modalities import Modality, modality, modality_names
from sagefm.stats.resampling import benjamini_hochberg
from sagefm.tl._second_modality import mean_of_measured
from sagefm.tl.perturbation._coexpression import (
    COMPONENTS,
    NEIGHBORS,
    Coexpression,
    combine,
    orthonormal,
)
from sagefm.tl.perturbation._evidence import LEAST_DETECTED, filled
from sagefm.tl.perturbation._plan import Direction
from sagefm.tl.perturbation._set_test import GeneSwaps, set_test
from sagefm.tl.perturbation._significance import GeneEffects, NullScores

if TYPE_CHECKING:
    from anndata import AnnData

    from sagefm.pp.vocabulary import Vocabulary

USUAL = "protein"
"""The modality that is used, where slides have it and none is named."""
_LEAST_OTHERS = 3
"""Fewer proteins of no pair are no null for targets."""


def cross_columns(name: str) -> tuple[str, str, str, str]:
    """Name the columns of the table of pairs."""
    return name, f"z_{name}", f"p_{name}", f"q_{name}"


def second_modality(
    slides: "Mapping[str, AnnData]", name: str | None
) -> "list[Modality | None] | None":
    """Find the second modality of slides; None for slides that lack it.

    Parameters
    ----------
    name
        If None, proteins are used where there are some.

    Raises
    ------
    InputError
        No slide has the one that is named.
    """
    found: list[Modality | None] = []
    errors = []
    for slide in slides.values():
        if name is None and USUAL not in modality_names(slide):
            found.append(None)
            continue
        try:
            found.append(modality(slide, name or USUAL))
        except InputError as error:
            found.append(None)
            errors.append(error)
    if all(one is None for one in found):
        if name is not None:
            raise errors[0]
        found = []
    for reason in errors:
        logger.warning("%s; pairs are not compared with it", reason)
    return found or None


@dataclass(frozen=True)
class CrossModality:
    """Evidence of a second modality for pairs.

    Attributes
    ----------
    name
        Of the modality.
    direction
        Pairs, ligands raised.
    pairs
        Numbers of the pairs whose target was measured in the second modality.
    column
        Of each such pair, the column of its target; the columns of other features come last.
    features
        Of each such pair, the features of its target.
    z
        Evidence → raised genes × columns.
    n_targets
        Columns of targets.
    """

    name: str
    direction: Direction
    pairs: Positions
    column: Positions
    features: list[str]
    z: Mapping[str, Floats]
    n_targets: int

    def table(self) -> dict[str, Any]:
        """Make columns of the table of pairs: features, z given components, p and q."""
        direction = self.direction
        z = self.z[COMPONENTS]
        source = direction.source[self.pairs]
        at = np.searchsorted(direction.raised, source)
        own = z[at, self.column]
        matched = direction.matched[np.searchsorted(direction.sources, source)]
        constant = np.isnan(z).all(axis=0)
        others = np.full(z.shape[1] - self.n_targets, -1)  # no genes
        known = np.where(constant, 0.0, z)
        specific = GeneEffects.of(known, direction.raised, others).specific(known)
        null = specific[np.searchsorted(direction.raised, matched), self.column[:, None]]
        p = NullScores.of(specific[at, self.column], null).p()
        p[np.isnan(own)] = np.nan
        columns = (np.array(self.features, dtype=object), own, p, benjamini_hochberg(p))
        table = {}
        for title, values in zip(cross_columns(self.name), columns, strict=True):
            text = values.dtype == object
            column = np.full(len(direction.source), "" if text else np.nan, dtype=values.dtype)
            column[self.pairs] = values
            table[title] = column
        return table

    def sets(self, detected: Floats, seed: int) -> pd.DataFrame:
        """Test the set of these pairs: rows as those of the other evidence."""
        direction = self.direction
        sources, targets = direction.source[self.pairs], direction.target[self.pairs]
        chosen = (detected[sources] >= LEAST_DETECTED) & (sources != targets)
        at = np.flatnonzero(chosen) if chosen.any() else np.arange(len(self.pairs))
        n_columns = next(iter(self.z.values())).shape[1]
        others = np.arange(self.n_targets, n_columns)
        swaps = GeneSwaps(
            source=np.searchsorted(direction.sources, sources),
            target=self.column,
            sources=np.searchsorted(direction.raised, direction.sources),
            targets=np.arange(self.n_targets),
            matched_sources=np.searchsorted(direction.raised, direction.matched),
            matched_targets=np.tile(others, (self.n_targets, 1)),
        ).of(at)
        rows = []
        for evidence in (NEIGHBORS, COMPONENTS):
            found = set_test(filled(self.z[evidence]), swaps, seed)
            if len(others) < _LEAST_OTHERS:
                found = found._replace(p_targets=np.nan)
            label = f"{self.name}, {evidence}"
            rows.append({"evidence": label, "direction": direction.name, **found._asdict()})
        return pd.DataFrame(rows)


def across(
    direction: Direction,
    slides: Sequence[Coexpression],
    modalities: "Sequence[Modality | None]",
    vocabulary: "Vocabulary",
) -> CrossModality | None:
    """Correlate the ligands of pairs around spots with the proteins of their targets there.

    A gene with several proteins counts with their mean. z scores of slides are added up, each
    protein over the slides that measured it.

    Returns
    -------
    None where no target has a protein.
    """
    known = [one for one in modalities if one is not None]
    by_gene = _by_gene(known, vocabulary)
    targets = [gene for gene in sorted(by_gene) if gene in set(direction.target.tolist())]
    if not targets:
        return None
    named = {*direction.source.tolist(), *direction.target.tolist()}
    others = [by_gene[gene] for gene in sorted(by_gene) if gene not in named]
    others += [[name] for name in _of_no_gene(known, by_gene)]
    columns = [by_gene[gene] for gene in targets] + others
    per_slide = [
        _correlate(slide, one, columns, direction.raised)
        for slide, one in zip(slides, modalities, strict=True)
        if one is not None
    ]
    z = {name: combine([one[name] for one in per_slide]) for name in (NEIGHBORS, COMPONENTS)}
    itself = direction.raised[:, None] == np.array(targets)
    for values in z.values():
        # What a gene says of its own protein belongs to no pair.
        values[:, : len(targets)][itself] = np.nan
    pairs = np.flatnonzero(np.isin(direction.target, targets))
    column = np.searchsorted(targets, direction.target[pairs])
    features = ["+".join(columns[at]) for at in column]
    return CrossModality(known[0].name, direction, pairs, column, features, z, len(targets))


def _by_gene(modalities: Sequence[Modality], vocabulary: "Vocabulary") -> dict[int, list[str]]:
    """Find the features of each gene of the vocabulary, over all slides."""
    symbols: dict[str, str] = {}
    for one in modalities:
        symbols |= {str(feature): gene for feature, gene in one.gene_of().items()}
    features = sorted(symbols)
    positions = vocabulary.find([symbols[feature] for feature in features])
    found: dict[int, list[str]] = {}
    for feature, position in zip(features, positions, strict=True):
        if position is not None:
            found.setdefault(position, []).append(feature)
    return found


def _of_no_gene(modalities: Sequence[Modality], by_gene: Mapping[int, Sequence[str]]) -> list[str]:
    """List the features of no gene of the vocabulary."""
    every = {str(name) for one in modalities for name in one.counts.columns}
    return sorted(every.difference(*by_gene.values()))


def _correlate(
    slide: Coexpression, second: Modality, columns: Sequence[Sequence[str]], raised: Positions
) -> Mapping[str, Floats]:
    """Correlate genes around measured spots with features: evidence → raised × columns."""
    normalized = second.normalized()
    values = np.full((len(normalized), len(columns)), np.nan)
    for at, features in enumerate(columns):
        if measured := [name for name in features if name in normalized]:
            values[:, at] = normalized[measured].mean(axis=1)
    lacking = np.isnan(values).all(axis=0)
    values[:, lacking] = 0.0  # a constant correlates with nothing
    spots = np.flatnonzero(second.measured)
    size = np.log1p(second.counts.sum(axis=1, min_count=1).to_numpy(dtype=np.float64))[:, None]
    around = mean_of_measured(slide.around, size)
    sizes = np.column_stack([size, np.where(np.isnan(around), size, around)])[spots]
    held = {
        name: _with(basis[spots], sizes)
        for name, basis in ((NEIGHBORS, slide.library), (COMPONENTS, slide.components))
    }
    return slide.correlate_with(raised, values[spots].astype(np.float32), held, spots)


def _with(basis: Singles, covariates: Floats) -> Singles:
    return orthonormal(np.column_stack([basis.astype(np.float64), covariates]))
