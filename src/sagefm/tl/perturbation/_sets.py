"""Predict which gene sets respond to a gene upstream of them, and test the effects."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sagefm import __version__
from sagefm._cache import ResumableCache
from sagefm._errors import InputError, logger
from sagefm._text import few
from sagefm._types import Floats
from sagefm.pp.gene_forms import what_it_is
from sagefm.stats.resampling import benjamini_hochberg
from sagefm.tl.perturbation._effects import Progress, SlidePerturber, mean, screened_effects
from sagefm.tl.perturbation._pairs import set_pairs
from sagefm.tl.perturbation._plan import N_CONTROLS, PerturbationPlan, prepare_slides
from sagefm.tl.perturbation._significance import GeneEffects, NullScores, upper_tail

if TYPE_CHECKING:
    from anndata import AnnData

    from sagefm.model import SageFM
    from sagefm.pp.vocabulary import Vocabulary

_N_DRAWS = 2000
"""Random sets of genes that a set is compared with."""


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
    """Raise genes in the neighbors of every spot, and predict whole sets of genes in it.

    The upstream → downstream protocol of the paper (arXiv 2601.15504): as
    :func:`sagefm.tl.perturb`, set by set, with the genes of a set masked together.

    Parameters
    ----------
    slide, model, region, n_matched, seed, layer, slide_key, keep, progress
        As for :func:`sagefm.tl.perturb`.
    upstream
        A gene or several, each raised alone.
    sets
        Name → genes, such as :func:`sagefm.tl.gene_sets` returns.
    n_spots
        Spots in which the sets are predicted, drawn at random.

    Returns
    -------
    A row per set and upstream gene: ligand, set, ``n_genes`` (of the set that the model knows),
    ``effect`` (mean over these genes of the effect as in :func:`sagefm.tl.perturb`, log1p counts),
    ``share_up`` (fraction of the genes that rise), ``effect_random`` (mean effect on control genes,
    matched to those of the set), ``z``, ``p`` and ``q`` (against matched genes raised in the
    ligand's place; Benjamini-Hochberg over the rows), ``p_random`` (against as many random control
    genes in the set's place), n_slides.

    Raises
    ------
    InputError
        No set is left, or as :func:`sagefm.tl.perturb`.
    """
    slides = prepare_slides(slide, model, region, layer=layer, slide_key=slide_key)
    raised = model.vocabulary.positions(model.vocabulary.known(upstream))
    ligands = [model.vocabulary[int(at)] for at in raised]
    known = _known(sets, model.vocabulary)
    facts = {
        "model": model.fingerprint, "upstream": ligands, "sets": known, "n_matched": n_matched,
        "n_spots": n_spots, "seed": seed, "slides": [one.checksum() for one in slides],
        "sagefm": __version__,
    }  # fmt: skip
    rows: list[dict[str, object]] = []
    nulls: list[Floats] = []
    with ResumableCache.open(keep, facts) as cache:
        for number, (name, genes) in enumerate(known.items()):
            progress(f"{name} ({number + 1} of {len(known)})")
            n_controls = max(N_CONTROLS, 2 * len(genes))
            plan = PerturbationPlan.of(
                set_pairs(ligands, genes), model, slides, n_matched, seed, n_controls
            )
            effects = mean(
                [
                    screened_effects(
                        plan,
                        one.draw(n_spots, seed),
                        SlidePerturber(one, cache, lambda line: None, f"{one.name}.{number}"),
                    )
                    for one in slides
                ]
            )
            of_set, null = _of_set(plan, effects, model, np.random.default_rng([seed, number]))
            rows += [{"set": name, "n_slides": len(slides), **row} for row in of_set]
            nulls.append(null)
    table = pd.DataFrame(rows)
    scores = NullScores.of(table.pop("specific").to_numpy(), np.concatenate(nulls))
    table["z"], table["p"] = scores.z, scores.p()
    table["q"] = benjamini_hochberg(table["p"])
    columns = ["ligand", "set", "n_genes", "effect", "share_up", "effect_random", "z", "p", "q",
               "p_random", "n_slides"]  # fmt: skip
    return table[columns]


def _known(sets: Mapping[str, Sequence[str]], vocabulary: "Vocabulary") -> dict[str, list[str]]:
    """Leave out genes that the model does not know, and sets without any other."""
    named = list(dict.fromkeys(gene for genes in sets.values() for gene in genes))
    symbols = {
        gene: vocabulary[at]
        for gene, at in zip(named, vocabulary.find(named), strict=True)
        if at is not None
    }
    known = {name: [symbols[gene] for gene in genes if gene in symbols]
             for name, genes in sets.items()}  # fmt: skip
    if not any(known.values()):
        raise InputError("sets: none has a gene that the model knows; are these gene symbols?")
    if unknown := [gene for gene in named if gene not in symbols]:
        logger.warning(
            "%d of %d genes of the sets are left out, which the model does not know: %s",
            len(unknown), len(named), what_it_is(unknown) or few(unknown, 5),
        )  # fmt: skip
    if empty := [name for name, genes in known.items() if not genes]:
        logger.warning("sets without a gene that the model knows are left out: %s", few(empty))
    return {name: genes for name, genes in known.items() if genes}


def _of_set(
    plan: PerturbationPlan, effects: Floats, model: "SageFM", chance: np.random.Generator
) -> tuple[list[dict[str, object]], Floats]:
    """Score one set: a row per upstream gene, and its null (matched genes)."""
    n_targets = len(plan.targets)
    general = GeneEffects.of(effects, plan.screened, plan.controls)
    specific = general.specific(effects)
    of_set = specific[:, :n_targets].mean(axis=1)
    size = min(n_targets, len(plan.controls))
    draws = np.stack([chance.choice(len(plan.controls), size, False) for _ in range(_N_DRAWS)])
    rows = []
    for ligand in plan.ligands:
        at = int(np.searchsorted(plan.screened, ligand))
        random = np.abs(specific[at, n_targets:][draws].mean(axis=1))
        rows.append({
            "ligand": model.vocabulary[int(ligand)], "n_genes": n_targets,
            "effect": effects[at, :n_targets].mean(),
            "share_up": (effects[at, :n_targets] > 0).mean(),
            "effect_random": effects[at, n_targets:].mean(), "specific": of_set[at],
            "p_random": float(upper_tail(np.abs(of_set[at]), np.sort(random))),
        })  # fmt: skip
    return rows, of_set[np.searchsorted(plan.screened, plan.matched)]
