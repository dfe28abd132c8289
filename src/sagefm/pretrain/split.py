"""Which genes a new model learns, and which spots it never trains on."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sagefm._errors import InputError, logger
from sagefm._keys import GENE_IDS
from sagefm.pp.counts import counts
from sagefm.pp.gene_names import bare_id, known_gene_names
from sagefm.pp.vocabulary import Vocabulary

if TYPE_CHECKING:
    from anndata import AnnData


def most_detected(
    slides: Sequence["AnnData"], spots: Sequence[NDArray[np.bool_]], n_genes: int
) -> Vocabulary:
    """Make a vocabulary of the genes that are detected in the most spots.

    Ensembl ids come from the slides and from what is known about gene names; a slide whose genes
    are named by Ensembl id is counted under their symbols where those are known.

    Parameters
    ----------
    slides
        With raw counts.
    spots
        For each slide which of its spots count.
    n_genes
        How many genes to keep; all that are detected, where there are fewer (told).
    """
    tally = GeneTally()
    for slide, rows in zip(slides, spots, strict=True):
        tally.add(slide, rows)
    return tally.vocabulary(n_genes)


class GeneTally:
    """Counts in how many spots each gene is detected, a slide at a time and in any order."""

    def __init__(self) -> None:
        self.detected: Counter[str] = Counter()
        self.ensembl: dict[str, str] = {}

    def add(self, slide: "AnnData", rows: NDArray[np.bool_] | None = None) -> None:
        """Count the genes of a slide, in all of its spots or in some."""
        symbol_of = known_gene_names().symbol_of_id
        found = counts(slide)
        names = [symbol_of.get(bare_id(name), name) for name in found.var.index.astype(str)]
        matrix = found.matrix if rows is None else found.matrix[rows]
        spots_with = np.bincount(matrix.indices[matrix.data > 0], minlength=len(names))
        for name, n in zip(names, spots_with.tolist(), strict=True):
            self.detected[name] += n
        if GENE_IDS in found.var:
            for name, ids in zip(names, found.var[GENE_IDS].astype(str), strict=True):
                if ids.startswith("ENSG"):  # several where twins were summed
                    self._name(name, ids.split(";")[0])

    def merge(self, other: "GeneTally") -> None:
        """Add what was counted elsewhere."""
        self.detected.update(other.detected)
        for gene, ensembl in other.ensembl.items():
            self._name(gene, ensembl)

    def _name(self, gene: str, ensembl: str) -> None:
        """Keep the lowest of the ids that slides give a gene: the same in whatever order."""
        self.ensembl[gene] = min(ensembl, self.ensembl.get(gene, ensembl))

    def vocabulary(self, n_genes: int | None = None) -> Vocabulary:
        """Make a vocabulary of the `n_genes` in the most spots; all that are detected by default.

        Raises
        ------
        InputError
            No gene is detected.
        """
        found = {gene: n for gene, n in self.detected.items() if n}
        ranked = sorted(found, key=lambda gene: (-found[gene], gene))
        if n_genes is not None and len(ranked) < n_genes:
            logger.warning(
                "the slides hold %d detected genes, fewer than the %d asked for: all are used",
                len(ranked),
                n_genes,
            )
        chosen = tuple(ranked[:n_genes])
        own = {gene: gene for gene in chosen if gene.startswith("ENSG")}
        ensembl = tuple(bare_id(self.ensembl.get(gene, own.get(gene, ""))) for gene in chosen)
        return Vocabulary(chosen, ensembl).with_known_ids()


def patients_of(
    name: str, slide: "AnnData", patient_key: str, table: Mapping[str, str] | None
) -> NDArray[np.str_]:
    """Say whose each spot of a slide is.

    Parameters
    ----------
    name
        The slide's name: its patient where nothing else is known.
    patient_key
        ``obs`` column with the patient.
    table
        Slide name → patient; goes before `patient_key`.

    Raises
    ------
    InputError
        `table` does not have the slide, or a spot has no patient.
    """
    if table is not None:
        if name not in table:
            raise InputError(f"{name}: is not in the table of patients; add a row for it")
        return np.full(slide.n_obs, table[name])
    if patient_key not in slide.obs:
        return np.full(slide.n_obs, name)
    column = slide.obs[patient_key]
    if column.isna().any():
        raise InputError(
            f"{name}: {int(column.isna().sum())} spots have no {patient_key!r}; fill the column"
        )
    return np.asarray(column.astype(str), dtype=str)


def hold_out(
    patients: NDArray[np.str_], validation: float | Sequence[str], seed: int
) -> NDArray[np.bool_]:
    """Choose what to validate on: all that is of some patients.

    Parameters
    ----------
    patients
        The patient of each slide (or spot).
    validation
        Names of the patients, or the share of them to draw (at least one).

    Returns
    -------
    For each slide whether it is held out. With a single patient none is.

    Raises
    ------
    InputError
        A name that no slide has, or nobody left to train on.
    """
    names = np.unique(patients)
    if isinstance(validation, float):
        if len(names) == 1:
            return np.zeros(len(patients), dtype=bool)
        n_held = max(1, round(validation * len(names)))
        held = np.random.default_rng(seed).choice(names, n_held, replace=False)
    else:
        held = np.array(validation)
        unknown = sorted(set(validation) - set(names.tolist()))
        if unknown:
            raise InputError(
                f"data.validation: no slide is of patient {unknown[0]!r}; there is "
                f"{', '.join(names.tolist())}"
            )
    if len(held) == len(names):
        raise InputError("data.validation: holds out every patient; leave at least one to train on")
    return np.isin(patients, held)
