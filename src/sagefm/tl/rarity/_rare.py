"""Find rare populations: spots with too much of genes that few other spots have too much of."""

import json
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sagefm import __version__
from sagefm._errors import InputError
from sagefm._keys import DOMAIN, PROVENANCE, RARE, RARE_POPULATION
from sagefm._types import Positions
from sagefm.tl.rarity import _score as _rare_score
from sagefm.tl.rarity._counts import Counted, count, expect
from sagefm.tl.rarity._genes import enrichment

if TYPE_CHECKING:
    from anndata import AnnData

    from sagefm.model import SageFM

BEYOND_NOISE = 0.1
"""Share of noise that is taken into account among the spots that are beyond noise."""
ISOLATED = "-"
"""Population of a listed spot that is in none."""
LISTED = "listed"
"""All listed spots together, in the table of genes."""
_LEAST_SPOTS = 100
_LEAST_LISTED = 3
_LABELS = (DOMAIN, "domain", "label")
"""Columns of ``obs`` that are repeated in the table of spots, where they are there."""


class Rare(NamedTuple):
    """What :func:`rare` finds."""

    spots: pd.DataFrame
    """A row per listed spot, the highest score first."""
    genes: pd.DataFrame
    """Genes of the listed spots, and of each population."""


def rare(
    slide: "AnnData",
    model: "SageFM | None" = None,
    *,
    share: float = 0.02,
    seed: int = 0,
    layer: str | None = None,
    slide_key: str | None = None,
    key_added: str = RARE,
) -> Rare:
    """List the spots that have too much of genes that only few other spots have too much of.

    Every gene of a spot is predicted by the model while it is masked there. What the spot has
    beyond that is noise, unless the same genes are too many in other spots too: each spot is
    compared with the 5 spots whose excess is most alike its own, on the 30 genes that those have
    most. A spot scores high if it shares their excess, and 19 of 20 spots of the slide do not.

    The same is done with counts that are drawn from what was expected. There is always a top 2 %,
    also of noise: `q` says how much of it.

    Parameters
    ----------
    slide
        Raw counts and ``obsm["spatial"]``; at least 100 spots with counts per slide.
    model
        A model. Without one, the slide's own profile at the depth of each spot is what is
        expected, over all genes of the slide: on simulated slides that finds as much.
    share
        Of the spots that are listed, above 0 and at most 0.2; three spots at least.
    seed
        Of the noise, and of the groups of genes that are masked together.
    layer, slide_key
        As for :meth:`sagefm.SageFM.prepare`. Every slide is scored on its own.
    key_added
        Where in ``obs`` the score goes.

    Returns
    -------
    `spots`, a row per listed spot, the highest score first:

    - `score`: standard deviations beyond what noise gives in spots of that depth; `q`: share of
      noise to be expected among the spots with this score or a higher one (a false discovery
      rate; noise is drawn three times, so that it is at least 1 / 3 over the number of those
      spots); `beyond_noise`: q ≤ 0.1.
    - `population`: listed spots beyond noise that are most alike another, and at least three:
      ``"1"`` is the largest; ``"-"`` for the others.
    - Parts of the score: `shared`, how much of the excess of the spots most alike it the spot has;
      `widespread`, how much of it 1 in 20 spots have. `misfit`: mean squared Pearson residual, 1
      where only noise parts the counts from what was expected; `depth`: counts of the genes used.
    - ``sagefm_domain``, ``domain`` or ``label`` of the slide, where they are there.

    `genes`, at most 50 for the listed spots (`population` ``"listed"``) and for each population:
    `log2_fold` and `log2_fold_neighbors` (mean counts per 10,000, of the other spots and of the 14
    neighbors; 0.1 is added to both), `share` of spots with a count, `share_others`, `p` (rank sum
    against the others) and `p_neighbors` (signed ranks of the difference to the mean of
    the neighbors), `q` and `q_neighbors` (Benjamini-Hochberg over genes). They describe: the spots
    were chosen by these genes, so that p says what stands out and proves nothing.

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
    Fewer than about six spots are not found: each must be alike five others. Time grows with the
    square of the spots. The search for a few spots that share a few genes is that of large average
    submatrices (Shabalin et al., Annals of Applied Statistics 2009), one step from every spot.
    """
    if not 0 < share <= 0.2:
        raise InputError(f"share={share}: give a number above 0 and at most 0.2")
    counted = count(slide, model, layer, slide_key)
    found, alike = _scored(counted, seed)
    n_listed = max(_LEAST_LISTED, round(share * slide.n_obs))
    listed = np.argsort(-np.nan_to_num(found["score"], nan=-np.inf), kind="stable")[:n_listed]
    chosen = np.isin(np.arange(slide.n_obs), listed)
    found["beyond_noise"] = found["q"] <= BEYOND_NOISE
    numbers = _rare_score.group(chosen & found["beyond_noise"].to_numpy(), alike)
    names = np.where(numbers > 0, numbers.astype(str), ISOLATED)
    found.insert(3, "population", names)
    spots = found.iloc[listed].set_axis(slide.obs_names[listed].rename("spot"))
    for label in _LABELS:
        if label in slide.obs:
            spots[label] = slide.obs[label].astype(str).iloc[listed]
    genes = _genes(counted, chosen, numbers)
    slide.obs[key_added] = found["score"].to_numpy()
    kinds = [*map(str, range(1, numbers.max() + 1)), ISOLATED]
    slide.obs[RARE_POPULATION] = pd.Categorical(np.where(chosen, names, ""), categories=kinds)
    slide.uns.setdefault(PROVENANCE, {})["rare"] = {
        "key": key_added,
        "spots": spots.copy(),
        "genes": genes.copy(),
        "n_beyond_noise": int(found["beyond_noise"].sum()),
        "share": share,
        "seed": seed,
        "model": "none" if model is None else repr(model),
        "fingerprint": "" if model is None else model.fingerprint,
        "model_provenance": json.dumps({} if model is None else model.provenance),
        "genes_used": counted.summary,
        "sagefm": __version__,
    }
    return Rare(spots, genes)


def _scored(counted: Counted, seed: int) -> tuple[pd.DataFrame, Positions]:
    """Score the spots of each slide: a row per spot, NaN for those without counts; those alike."""
    depth = np.asarray(counted.matrix.sum(axis=1), dtype=np.float64).ravel()
    columns = ["score", "q", "shared", "widespread", "misfit"]
    table = pd.DataFrame({name: np.full(len(depth), np.nan) for name in columns})
    alike = np.zeros((len(depth), _rare_score.ALIKE), dtype=np.int64)
    for slide in np.unique(counted.sections):
        spots = np.flatnonzero((counted.sections == slide) & (depth > 0))
        if len(spots) < _LEAST_SPOTS:
            raise InputError(
                f"{len(spots)} spots with counts on a slide are too few to call some of them rare; "
                f"give slides of {_LEAST_SPOTS} or more"
            )
        chance = np.random.default_rng([seed, int(slide)])
        scores = _rare_score.score(expect(counted, spots, chance), chance)
        for name in columns:
            table.loc[spots, name] = getattr(scores, name)
        alike[spots] = spots[scores.alike]
    return table.assign(depth=depth), alike


def _genes(counted: Counted, chosen: NDArray[np.bool_], numbers: NDArray[np.int64]) -> pd.DataFrame:
    """Compare all listed spots, and then each population, with the other spots."""
    whole = pd.Series(np.where(chosen, LISTED, ""), dtype=str)
    each = pd.Series(np.where(numbers > 0, numbers.astype(str), ""), dtype=str)
    kinds = [str(number) for number in range(1, numbers.max() + 1)]
    tables = [enrichment(counted, whole, [LISTED])]
    if kinds:
        tables.append(enrichment(counted, each, kinds))
    return pd.concat(tables, ignore_index=True)
