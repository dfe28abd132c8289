"""Find genes that mark a domain."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy import stats

from sagefm._keys import DOMAIN
from sagefm._progress import counted
from sagefm._types import Codes, Floats
from sagefm.stats.resampling import LEAST_UNITS, benjamini_hochberg
from sagefm.tl.description._motions import motions
from sagefm.tl.description._profiles import (
    PER,
    Profiles,
    by_patient,
    counting_noise,
    log2_folds,
    mean_fold,
)
from sagefm.tl.description._sections import (
    DomainSection,
    LabeledSections,
    Slides,
    labeled_sections,
)
from sagefm.tl.description._tests import one_sample_p

_SIGNIFICANT = 0.05
_N_MOTIONS = 99
_FREEDOM = 8
"""Of the t distribution of fold changes over motions, whose tails are heavier than normal."""
_LEAST_SPOTS = 10
"""Spots with a gene, from which it is tested."""


def markers(
    slides: Slides,
    key: str = DOMAIN,
    *,
    n_genes: int | None = 50,
    patient_key: str | None = None,
    layer: str | None = None,
    slide_key: str | None = None,
) -> pd.DataFrame:
    """Find genes with higher counts in a domain than in the others.

    Counts are summed over spots and divided by their library size, so that a deep domain has no
    markers for its depth. With three patients or more, each patient is one observation: the fold
    change within a patient, tested against 0 (t test). With fewer, spots are no substitute: near
    ones are alike, and a test of spots finds thousands of genes for domains that are drawn at
    random. So the fold change is compared with those after 99 random motions of the domains
    (mirrored, rotated, shifted): a marker follows its domain, not any border of that shape.

    Parameters
    ----------
    slides
        A slide, several, or name → slide; genes that all of them have are used.
    key
        ``obs`` column with the domains; spots without one are left out.
    n_genes
        Genes of each domain: those with q ≤ 0.05 first, then by fold change in units of counting
        noise. All that were tested, with lower counts too, if None.
    patient_key
        ``obs`` column with the patient; ``"patient"`` if there is one, else every slide is one.
    layer, slide_key
        As for :meth:`sagefm.SageFM.prepare`.

    Returns
    -------
    A row per domain and gene:

    - `log2_fold`: counts per 10,000 against the other domains, mean over patients;
      `log2_fold_next`: against the other domain that has most of the gene (`next`).
    - `fraction`, `fraction_others`: spots with the gene. `rate`: counts per 10,000.
    - `p`, `q` (Benjamini-Hochberg over the genes of the domain): two-sided; NaN where it cannot be
      tested. `unit`: what is tested over, ``"patient"`` or ``"motion"``; `n_patients` with the
      domain.

    Domains that were found from the same counts differ in some genes by construction: these p rank
    genes, and are no proof that there are domains.

    Raises
    ------
    InputError
        No such column, fewer than two domains, or slides without common genes.
    """
    labeled = labeled_sections(
        slides, key, patient_key=patient_key, layer=layer, slide_key=slide_key
    )
    return marker_table(labeled, by_patient(labeled), n_genes)


def marker_table(
    labeled: LabeledSections, profiles: Mapping[str, Profiles], n_genes: int | None
) -> pd.DataFrame:
    """Tabulate the markers of each domain; see :func:`markers`."""
    total = Profiles.total(list(profiles.values()))
    folds = log2_folds(profiles)
    over_patients = len(profiles) >= LEAST_UNITS
    moved = None if over_patients else _moved_p(labeled, mean_fold(folds))
    rates, noise = total.log2_rates(), counting_noise(total)
    inside, outside = total.fractions(), total.others().fractions()
    tables = []
    for code, domain in enumerate(labeled.domains):
        known = ~np.isnan(folds[:, code]).all(axis=1)
        p = one_sample_p(folds[known, code]) if moved is None else moved[code]
        others = np.where(np.isnan(rates), -np.inf, rates)
        others[code] = -np.inf
        following = others.argmax(axis=0)
        mean = folds[known, code].mean(axis=0) if known.any() else np.full(len(p), np.nan)
        table = pd.DataFrame({
            "domain": domain, "gene": labeled.genes, "log2_fold": mean,
            "log2_fold_next": rates[code] - others.max(axis=0),
            "next": np.array(labeled.domains)[following],
            "fraction": inside[code], "fraction_others": outside[code],
            "rate": PER * total.counts[code] / max(total.library_size[code], 1.0),
            "p": p, "q": np.nan, "unit": "patient" if over_patients else "motion",
            "n_patients": int(known.sum()), "effect": mean / noise[code],
        })  # fmt: skip
        seen = (total.spots[code] + total.others().spots[code]) >= _LEAST_SPOTS
        table = table[seen]
        table["q"] = benjamini_hochberg(table["p"])
        tables.append(_best(table, n_genes))
    return pd.concat(tables, ignore_index=True)


def _best(table: pd.DataFrame, n_genes: int | None) -> pd.DataFrame:
    """Sort genes: significant ones first, then by fold change in units of counting noise."""
    # By p alone, genes of a small fold that never varies would come first.
    table = table.assign(doubtful=~(table["q"] <= _SIGNIFICANT))
    if n_genes is not None:
        table = table[table["log2_fold"] > 0]
    table = table.sort_values(["doubtful", "effect"], ascending=[True, False], kind="stable")
    return table.drop(columns=["effect", "doubtful"])[:n_genes]


def _moved_p(labeled: LabeledSections, folds: Floats) -> Floats:
    """Compare fold changes with those where the domains are moved: domains × genes.

    Of 99 motions the mean and the standard deviation of each gene are used, as of a t
    distribution.
    """
    n = len(labeled.domains)
    drawn = [
        _moved_codes(section, np.random.default_rng([0, i]))
        for i, section in enumerate(labeled.sections)
    ]
    total = np.zeros((2, *folds.shape))
    n_moved = np.zeros((n, 1))
    for motion in counted(range(_N_MOTIONS), "motion"):
        by_name = {
            patient: Profiles.total([
                Profiles.of(section.counts, codes[motion], n)
                for section, codes in zip(labeled.sections, drawn, strict=True)
                if section.patient == patient
            ])
            for patient in labeled.patients
        }  # fmt: skip
        moved = log2_folds(by_name)
        known = ~np.isnan(moved).all(axis=(0, 2))
        moved[:, ~known] = 0.0
        mean = np.nanmean(moved, axis=0)
        total += mean, mean**2
        n_moved[known] += 1
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = total[0] / n_moved
        spread = np.sqrt(np.maximum(total[1] / n_moved - mean**2, 0) * n_moved / (n_moved - 1))
        p = 2 * stats.t.sf(np.abs(folds - mean) / spread, _FREEDOM)
    return np.where((n_moved >= _N_MOTIONS / 2) & (spread > 0), p, np.nan)


def _moved_codes(section: DomainSection, rng: np.random.Generator) -> Codes:
    """Move the domains of a section: motions × spots."""
    every = np.ones(len(section.codes), dtype=bool)
    moved = motions(section.points, every, every, _N_MOTIONS, rng)
    return np.stack([section.codes[at] for at in moved])
