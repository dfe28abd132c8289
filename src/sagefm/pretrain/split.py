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
    symbol_of = known_gene_names().symbol_of_id
    detected: Counter[str] = Counter()
    ensembl: dict[str, str] = {}
    for slide, rows in zip(slides, spots, strict=True):
        found = counts(slide)
        names = [symbol_of.get(bare_id(name), name) for name in found.var.index.astype(str)]
        spots_with = np.bincount((found.matrix[rows] > 0).indices, minlength=len(names))
        for name, n in zip(names, spots_with.tolist(), strict=True):
            detected[name] += n
        if GENE_IDS in found.var:
            for name, ids in zip(names, found.var[GENE_IDS].astype(str), strict=True):
                if ids.startswith("ENSG"):
                    ensembl.setdefault(name, ids.split(";")[0])  # several where twins were summed
    ranked = sorted((g for g in detected if detected[g]), key=lambda gene: (-detected[gene], gene))
    if len(ranked) < n_genes:
        logger.warning(
            "the training slides hold %d detected genes, the recipe asks for %d: all are used",
            len(ranked),
            n_genes,
        )
    chosen = tuple(ranked[:n_genes])
    own = {gene: gene for gene in chosen if gene.startswith("ENSG")}
    ensembl_ids = tuple(bare_id(ensembl.get(gene, own.get(gene, ""))) for gene in chosen)
    return Vocabulary(chosen, ensembl_ids).with_known_ids()


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
    """Choose the validation spots: all spots of some patients.

    Parameters
    ----------
    patients
        The patient of each spot.
    validation
        Names of the patients, or the share of them to draw (at least one).

    Returns
    -------
    For each spot whether it is held out. With a single patient nothing is: :func:`end_of_slide`
    is for that.

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


def end_of_slide(coordinates: NDArray[np.float64], share: float) -> NDArray[np.bool_]:
    """Hold out the spots at the right end of a slide: what is left to do with one patient only."""
    n_held = max(1, round(share * len(coordinates)))
    held = np.zeros(len(coordinates), dtype=bool)
    held[np.argsort(coordinates[:, 0], kind="stable")[-n_held:]] = True
    return held
