"""Score pathways in each domain with decoupler."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from sagefm._errors import InputError
from sagefm._extras import require
from sagefm._keys import DOMAIN
from sagefm.stats.resampling import benjamini_hochberg
from sagefm.tl.description._profiles import Profiles, by_patient, log2_folds, mean_fold
from sagefm.tl.description._sections import LabeledSections, Slides, labeled_sections
from sagefm.tl.perturbation import SignatureSource, signatures

_LEAST_TARGETS = 5
"""Measured genes of a set, from which it is scored."""


def pathways(
    slides: Slides,
    network: SignatureSource,
    key: str = DOMAIN,
    *,
    patient_key: str | None = None,
    layer: str | None = None,
    slide_key: str | None = None,
) -> pd.DataFrame:
    """Score pathways in each domain by the univariate linear model of decoupler.

    Parameters
    ----------
    slides, key, patient_key, layer, slide_key
        As for :func:`sagefm.tl.markers`.
    network
        As for :func:`sagefm.tl.signatures`: a GMT file, name → genes, or a table with columns
        source, target and, if genes count differently, weight, such as those of ``decoupler.op``
        (PROGENy, CollecTRI).

    Returns
    -------
    A row per domain and set: domain, set, score (t of the log2 fold changes of all genes against
    the weights), p, q (over all rows) and n_genes. The score is of genes: a p is no test over
    patients.

    Raises
    ------
    InputError
        decoupler is not installed, no set has five measured genes, or as
        :func:`sagefm.tl.markers`.
    """
    require("decoupler", "describe", "scoring pathways")
    labeled = labeled_sections(
        slides, key, patient_key=patient_key, layer=layer, slide_key=slide_key
    )
    return pathway_table(labeled, by_patient(labeled), network)


def pathway_table(
    labeled: LabeledSections, profiles: Mapping[str, Profiles], network: SignatureSource
) -> pd.DataFrame:
    """Tabulate the score of each set in each domain; see :func:`pathways`."""
    decoupler = require("decoupler", "describe", "scoring pathways")
    net = signatures(network)
    total = Profiles.total(list(profiles.values()))
    seen = np.flatnonzero(total.counts.sum(axis=0) > 0)
    genes = [labeled.genes[i] for i in seen]
    folds = pd.DataFrame(
        mean_fold(log2_folds(profiles))[:, seen], index=labeled.domains, columns=genes
    )
    net = net[net["target"].isin(genes)]
    n_genes = net.groupby("source")["target"].size()
    n_genes = n_genes[n_genes >= _LEAST_TARGETS]
    if n_genes.empty:
        raise InputError(
            f"no gene set has {_LEAST_TARGETS} genes of the slides; give sets of human gene symbols"
        )
    score: pd.DataFrame
    p: pd.DataFrame
    score, p = decoupler.mt.ulm(folds, net, tmin=_LEAST_TARGETS)
    table = score.rename_axis(index="domain", columns="set").reset_index()
    table = table.melt("domain", value_name="score")
    table["p"] = p.to_numpy().ravel(order="F")
    table["q"] = benjamini_hochberg(table["p"])
    table["n_genes"] = table["set"].map(n_genes).astype(int)
    return table
