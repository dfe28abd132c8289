"""Count the spots in which each gene is detected, and build vocabularies from the counts."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sagefm._errors import logger
from sagefm._keys import GENE_IDS
from sagefm.pp.counts import counts
from sagefm.pp.gene_names import bare_id, known_gene_names
from sagefm.pp.naming import name_genes
from sagefm.pp.vocabulary import Vocabulary, is_name

if TYPE_CHECKING:
    from anndata import AnnData


def most_detected(
    slides: Sequence["AnnData"], spots: Sequence[NDArray[np.bool_]], n_genes: int
) -> Vocabulary:
    """Make a vocabulary of the genes that are detected in the most spots.

    Ensembl ids are taken from the slides and from tables of gene names; genes that are named by
    Ensembl id are counted under their symbol, if known.

    Parameters
    ----------
    slides
        With raw counts.
    spots
        For each slide which of its spots to use.
    n_genes
        Number of genes to keep; if fewer are detected, all of them, with a warning.
    """
    tally = DetectionTally()
    for slide, rows in zip(slides, spots, strict=True):
        tally.add(slide, rows)
    return tally.vocabulary(n_genes)


class DetectionTally:
    """Counts in how many spots each gene is detected, a slide at a time and in any order."""

    def __init__(self) -> None:
        self.detected: Counter[str] = Counter()
        self.ensembl: dict[str, str] = {}

    def add(self, slide: "AnnData", rows: NDArray[np.bool_] | None = None) -> None:
        """Count the genes of a slide, in all of its spots or in some."""
        symbol_of = known_gene_names().symbol_of_id
        raw, _ = name_genes(counts(slide))
        names = [symbol_of.get(bare_id(name), name) for name in raw.var.index.astype(str)]
        matrix = raw.matrix if rows is None else raw.matrix[rows]
        spots_with = np.bincount(matrix.indices[matrix.data > 0], minlength=len(names))
        for name, n in zip(names, spots_with.tolist(), strict=True):
            self.detected[name] += n
        if GENE_IDS in raw.var:
            for name, ids in zip(names, raw.var[GENE_IDS].astype(str), strict=True):
                if ids.startswith("ENSG"):  # several if duplicates were summed
                    self._name(name, ids.split(";")[0])

    def merge(self, other: "DetectionTally") -> None:
        """Add the counts of another tally."""
        self.detected.update(other.detected)
        for gene, ensembl in other.ensembl.items():
            self._name(gene, ensembl)

    def _name(self, gene: str, ensembl: str) -> None:
        """Keep the lowest Ensembl id of a gene, independent of the order of slides."""
        self.ensembl[gene] = min(ensembl, self.ensembl.get(gene, ensembl))

    def vocabulary(self, n_genes: int | None = None) -> Vocabulary:
        """Make a vocabulary of the `n_genes` in the most spots; all that are detected by default.

        Raises
        ------
        InputError
            No gene is detected.
        """
        detected = {gene: n for gene, n in self.detected.items() if n and is_name(gene)}
        ranked = sorted(detected, key=lambda gene: (-detected[gene], gene))
        if n_genes is not None and len(ranked) < n_genes:
            logger.warning(
                "the slides have %d detected genes, fewer than the requested %d: all are used",
                len(ranked),
                n_genes,
            )
        chosen = tuple(ranked[:n_genes])
        named_by_id = {gene: gene for gene in chosen if gene.startswith("ENSG")}
        ensembl = tuple(
            bare_id(self.ensembl.get(gene, named_by_id.get(gene, ""))) for gene in chosen
        )
        return Vocabulary(chosen, ensembl).with_known_ids()
