"""Find rare populations: spots with an excess of genes that few other spots have."""

import json
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sagefm import __version__
from sagefm._as_model import as_model
from sagefm._errors import InputError
from sagefm._keys import DOMAIN, RARE, RARE_POPULATION
from sagefm._progress import stage
from sagefm._types import Positions
from sagefm._uns import record
from sagefm.pp.gene_names import known_gene_names
from sagefm.pp.slide_record import without_records
from sagefm.tl.rarity._counts import Counted, count, expect
from sagefm.tl.rarity._genes import enrichment
from sagefm.tl.rarity._score import N_SIMILAR, group, score

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData

    from sagefm.model import SageFM

BEYOND_NOISE = 0.1
"""False discovery rate of the spots that are beyond noise."""
ISOLATED = "-"
"""Population of listed spots that are in no population."""
LISTED = "listed"
"""Population of all listed spots in the table of genes."""
_LEAST_SPOTS = 100
_LEAST_LISTED = 3
_LABELS = (DOMAIN, "domain", "label")
"""Columns of ``obs`` that are copied to the table of spots, if available."""


class Rare(NamedTuple):
    """What :func:`rare` finds."""

    spots: pd.DataFrame
    """A row per listed spot, the highest score first."""
    genes: pd.DataFrame
    """Genes of the listed spots, and of each population."""


def rare(
    slide: "AnnData",
    model: "SageFM | str | Path | None" = None,
    *,
    share: float = 0.02,
    seed: int = 0,
    layer: str | None = None,
    slide_key: str | None = None,
    key_added: str = RARE,
) -> Rare:
    """List the spots with an excess of genes that few other spots have.

    Every gene of a spot is predicted by the model while it is masked there. Counts above the
    prediction are noise, unless other spots have an excess of the same genes: each spot is compared
    with the 5 spots with the most similar excess, on the 30 genes that have the largest excess
    there. A spot has a high score if it has their excess, and 19 of 20 spots of the slide do not.

    Scores are compared with those of counts that are drawn from the expected rates. The top 2 % are
    always listed; `q` is the expected fraction of noise among them.

    Parameters
    ----------
    slide
        Raw counts and ``obsm["spatial"]``; at least 100 spots with counts per slide.
    model
        A model. Without one, the mean profile of the slide, scaled to the library size of each
        spot, is expected, over all genes: on simulated slides that finds as many spots.
    share
        Fraction of the spots that are listed, above 0 and at most 0.2; at least three spots.
    seed
        Seed of the noise, and of the groups of genes that are masked together.
    layer, slide_key
        As for :meth:`sagefm.SageFM.prepare`. Every slide is scored on its own.
    key_added
        Where in ``obs`` the score goes.

    Returns
    -------
    `spots`, a row per listed spot, the highest score first:

    - `score`: standard deviations above noise in spots of that library size; `q`: expected
      fraction of noise among the spots with this score or a higher one (a false discovery rate;
      noise is drawn three times, so that it is at least 1 / 3 over the number of those spots);
      `beyond_noise`: q ≤ 0.1.
    - `population`: groups of at least three similar listed spots beyond noise:
      ``"1"`` is the largest; ``"-"`` for the others.
    - Components of the score: `shared`, projection of the spot on the excess of the most similar
      spots; `widespread`, the projection that 1 in 20 spots reach. `misfit`: mean squared Pearson
      residual, 1 if there is only noise; `depth`: counts of the genes used.
    - ``sagefm_domain``, ``domain`` or ``label`` of the slide, if available.

    `genes`, at most 50 for the listed spots (`population` ``"listed"``) and for each population:
    `log2_fold` and `log2_fold_neighbors` (mean counts per 10,000, of the other spots and of the 14
    neighbors; 0.1 is added to both), `share` (fraction of spots with a count), `share_others`, `p`
    (rank sum against the others) and `p_neighbors` (signed ranks of the difference to the mean of
    the neighbors), `q` and `q_neighbors` (Benjamini-Hochberg over genes). They are
    descriptive: the spots were selected by these genes, so that p is no proof.

    Sets ``obs["sagefm_rare_score"]`` (NaN for a spot without counts), ``obs["sagefm_rare"]`` (the
    population of the listed spots), and ``uns["sagefm"]["rare"]``: both tables, `n_beyond_noise`
    over the whole slide, and how they were made.

    Raises
    ------
    InputError
        `share` is out of range, a slide has too few spots or genes, or as
        :meth:`sagefm.SageFM.prepare`.

    Notes
    -----
    Fewer than about six spots are not found: each must be similar to five others. Time grows with
    the square of the number of spots. The search for a few spots with a few genes is that of
    large average submatrices (Shabalin et al., Annals of Applied Statistics 2009), with one step
    from every spot.
    """
    model = None if model is None else as_model(model)
    if not 0 < share <= 0.2:
        raise InputError(f"share={share}: give a number above 0 and at most 0.2")
    counted = count(slide, model, layer, slide_key)
    scored, similar = _scored(counted, seed)
    n_listed = max(_LEAST_LISTED, round(share * slide.n_obs))
    listed = np.argsort(-np.nan_to_num(scored["score"], nan=-np.inf), kind="stable")[:n_listed]
    chosen = np.isin(np.arange(slide.n_obs), listed)
    scored["beyond_noise"] = scored["q"] <= BEYOND_NOISE
    numbers = group(chosen & scored["beyond_noise"].to_numpy(), similar)
    names = np.where(numbers > 0, numbers.astype(str), ISOLATED)
    scored.insert(3, "population", names)
    spots = scored.iloc[listed].set_axis(slide.obs_names[listed].rename("spot"))
    for label in _LABELS:
        if label in slide.obs:
            spots[label] = slide.obs[label].astype(str).iloc[listed]
    genes = _genes(counted, chosen, numbers)
    slide.obs[key_added] = scored["score"].to_numpy()
    kinds = [*map(str, range(1, numbers.max() + 1)), ISOLATED]
    slide.obs[RARE_POPULATION] = pd.Categorical(
        pd.Series(names, dtype=object).where(chosen), categories=kinds
    )
    record(slide, "rare", {
        "key": key_added,
        "spots": spots.copy(),
        "genes": genes.copy(),
        "n_beyond_noise": int(scored["beyond_noise"].sum()),
        "share": share,
        "seed": seed,
        "model": "none" if model is None else repr(model),
        "fingerprint": "" if model is None else model.fingerprint,
        "model_provenance": json.dumps({} if model is None else without_records(model.provenance)),
        "genes_used": counted.summary,
        "gene_names": known_gene_names().version,
        "sagefm": __version__,
    })  # fmt: skip
    return Rare(spots, genes)


def _scored(counted: Counted, seed: int) -> tuple[pd.DataFrame, Positions]:
    """Score the spots of each section (NaN without counts), and find the most similar spots."""
    library_size = np.asarray(counted.matrix.sum(axis=1), dtype=np.float64).ravel()
    columns = ["score", "q", "shared", "widespread", "misfit"]
    table = pd.DataFrame({name: np.full(len(library_size), np.nan) for name in columns})
    similar = np.zeros((len(library_size), N_SIMILAR), dtype=np.int64)
    for section in np.unique(counted.sections):
        spots = np.flatnonzero((counted.sections == section) & (library_size > 0))
        if len(spots) < _LEAST_SPOTS:
            raise InputError(
                f"{len(spots)} spots with counts on a slide are too few to find rare ones; "
                f"give slides of {_LEAST_SPOTS} or more"
            )
        stage("comparing %s spots with each other", f"{len(spots):,}")
        rng = np.random.default_rng([seed, int(section)])
        scores = score(expect(counted, spots, rng), rng)
        for name in columns:
            table.loc[spots, name] = getattr(scores, name)
        similar[spots] = spots[scores.similar]
    return table.assign(depth=library_size), similar


def _genes(counted: Counted, chosen: NDArray[np.bool_], numbers: NDArray[np.int64]) -> pd.DataFrame:
    """Compare all listed spots, and each population, with the other spots."""
    stage("comparing genes of the listed spots with others")
    together = pd.Series(np.where(chosen, LISTED, ""), dtype=str)
    each = pd.Series(np.where(numbers > 0, numbers.astype(str), ""), dtype=str)
    kinds = [str(number) for number in range(1, numbers.max() + 1)]
    tables = [enrichment(counted, together, [LISTED])]
    if kinds:
        tables.append(enrichment(counted, each, kinds))
    return pd.concat(tables, ignore_index=True)
