"""Which gene sets answer to a gene upstream of them, and is it more than random genes would."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import false_discovery_control

from sagefm import __version__
from sagefm._cache import ResumableCache
from sagefm._errors import InputError, logger
from sagefm._text import few
from sagefm._types import Floats
from sagefm.tl.perturbation import _nulls
from sagefm.tl.perturbation._effects import Asking, Progress, mean, screened
from sagefm.tl.perturbation._pairs import set_pairs
from sagefm.tl.perturbation._plan import N_CONTROLS, Plan, views_of

if TYPE_CHECKING:
    from anndata import AnnData

    from sagefm.model import SageFM

_N_DRAWS = 2000
"""Random sets of genes that a set is held against."""


def perturb_sets(
    slide: "AnnData | Mapping[str, AnnData]",
    model: "SageFM",
    upstream: str | Sequence[str],
    sets: Mapping[str, Sequence[str]],
    *,
    region: "NDArray[np.bool_] | str | None" = None,
    n_matched: int = 100,
    n_spots: int = 256,
    seed: int = 0,
    layer: str | None = None,
    slide_key: str | None = None,
    keep: Path | None = None,
    progress: Progress = lambda line: None,
) -> pd.DataFrame:
    """Raise genes in the neighbors of every spot, and read whole sets of genes in it.

    The upstream → downstream protocol of the paper (arXiv 2601.15504): as
    :func:`sagefm.tl.perturb`, set by set, with the genes of a set hidden together.

    Parameters
    ----------
    slide, model, region, n_matched, seed, layer, slide_key, keep, progress
        As for :func:`sagefm.tl.perturb`.
    upstream
        A gene or several, each raised alone.
    sets
        Name → genes, such as :func:`sagefm.tl.gene_sets` reads.
    n_spots
        Spots that are read, drawn at random.

    Returns
    -------
    A row per set and upstream gene: ligand, set, ``n_genes`` (of the set that the model knows),
    ``effect`` (mean over these genes of the effect as in :func:`sagefm.tl.perturb`, log1p counts),
    ``share_up`` (of the genes that rise), ``effect_random`` (mean effect on control genes, which
    are like those of the set), ``z``, ``p`` and ``q`` (against matched genes raised in the ligand's
    place; Benjamini-Hochberg over the rows), ``p_random`` (against as many random control genes
    read in the set's place), n_slides.

    Raises
    ------
    InputError
        No set is left, or as :func:`sagefm.tl.perturb`.
    """
    views = views_of(slide, model, region, layer=layer, slide_key=slide_key)
    raised = model.vocabulary.positions(upstream)
    ligands = [model.vocabulary[int(at)] for at in raised]
    known = {
        name: [model.vocabulary[at] for at in model.vocabulary.find(genes) if at is not None]
        for name, genes in sets.items()
    }
    if empty := [name for name, genes in known.items() if not genes]:
        logger.warning("sets without a gene that the model knows are left out: %s", few(empty))
    if len(empty) == len(known):
        raise InputError("sets: none has a gene that the model knows; are these gene symbols?")
    shelf = ResumableCache(keep, {
        "model": model.fingerprint, "upstream": ligands, "sets": known, "n_matched": n_matched,
        "n_spots": n_spots, "seed": seed, "slides": [view.checksum() for view in views],
        "sagefm": __version__,
    })  # fmt: skip
    rows: list[dict[str, object]] = []
    nulls: list[Floats] = []
    for number, (name, genes) in enumerate((n, g) for n, g in known.items() if g):
        progress(f"{name} ({number + 1} of {len(known) - len(empty)})")
        n_controls = max(N_CONTROLS, 2 * len(genes))
        plan = Plan.of(set_pairs(ligands, genes), model, views, n_matched, seed, n_controls)
        effects = mean(
            [
                screened(
                    plan,
                    view.draw(n_spots, seed),
                    Asking(view, shelf, _quiet, f"{view.name}.{number}"),
                )
                for view in views
            ]
        )
        found, null = _of_set(plan, effects, model, np.random.default_rng([seed, number]))
        rows += [{"set": name, "n_slides": len(views), **row} for row in found]
        nulls.append(null)
    shelf.clear()
    table = pd.DataFrame(rows)
    standing = _nulls.Standing.of(table.pop("particular").to_numpy(), np.concatenate(nulls))
    table["z"], table["p"] = standing.z, standing.p()
    known_p = table["p"].notna()
    table.loc[known_p, "q"] = false_discovery_control(table.loc[known_p, "p"])
    columns = ["ligand", "set", "n_genes", "effect", "share_up", "effect_random", "z", "p", "q",
               "p_random", "n_slides"]  # fmt: skip
    return table[columns]


def _quiet(line: str) -> None:
    """Tell nothing: a set takes seconds."""


def _of_set(
    plan: Plan, effects: Floats, model: "SageFM", chance: np.random.Generator
) -> tuple[list[dict[str, object]], Floats]:
    """Score one set: a row per upstream gene, and its null (matched genes)."""
    n_targets = len(plan.targets)
    scale = _nulls.Scale.of(effects, plan.screened, plan.controls)
    particular = scale.particular(effects)
    of_set = particular[:, :n_targets].mean(axis=1)
    size = min(n_targets, len(plan.controls))
    draws = np.stack([chance.choice(len(plan.controls), size, False) for _ in range(_N_DRAWS)])
    rows = []
    for ligand in plan.ligands:
        at = int(np.searchsorted(plan.screened, ligand))
        random = np.abs(particular[at, n_targets:][draws].mean(axis=1))
        rows.append({
            "ligand": model.vocabulary[int(ligand)], "n_genes": n_targets,
            "effect": effects[at, :n_targets].mean(),
            "share_up": (effects[at, :n_targets] > 0).mean(),
            "effect_random": effects[at, n_targets:].mean(), "particular": of_set[at],
            "p_random": float(_nulls.upper_tail(np.abs(of_set[at]), np.sort(random))),
        })  # fmt: skip
    return rows, of_set[np.searchsorted(plan.screened, plan.matched)]
