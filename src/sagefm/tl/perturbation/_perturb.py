"""Predict which genes respond when ligands are raised in the neighbors, and test the effects."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import bootstrap

from sagefm import __version__
from sagefm._cache import ResumableCache
from sagefm._errors import InputError
from sagefm._types import Floats
from sagefm.tl.perturbation._effects import Progress, SlideEffects, mean, slide_effects
from sagefm.tl.perturbation._pairs import pairs as read_pairs
from sagefm.tl.perturbation._plan import PerturbationPlan, PerturbedSlide, prepare_slides
from sagefm.tl.perturbation._significance import significance

if TYPE_CHECKING:
    from anndata import AnnData

    from sagefm.model import SageFM

_LEAST_SLIDES = 3


def perturb(
    slide: "AnnData | Mapping[str, AnnData]",
    model: "SageFM",
    pairs: "str | Path | pd.DataFrame | Sequence[tuple[str, str]]",
    levels: int = 5,
    *,
    region: "NDArray[np.bool_] | str | None" = None,
    n_matched: int = 100,
    n_null_spots: int = 256,
    seed: int = 0,
    layer: str | None = None,
    slide_key: str | None = None,
    keep: Path | None = None,
    progress: Progress = lambda line: None,
) -> pd.DataFrame:
    """Raise ligands in the neighbors of every spot, predict their targets, and test the effects.

    The protocol of the paper (arXiv 2601.15504): the ligand is set to equally spaced levels between
    its smallest and its largest log1p count on the slide, in the 14 neighbors; all targets of the
    call are masked in the center; the target is predicted there. In a ``context`` network the
    weights of similar spots, the library sizes and the profile expected of a library size stay
    fixed while the ligand changes; in the published network everything changes.

    Unlike the paper, every effect is compared with those of other genes on the same target, by the
    specific effect of a gene: its effect, standardized over the screened genes, minus its mean
    standardized effect on 100 control genes, divided by their standard deviation. The formula of
    ``z``, ``p`` and ``q`` stands in ``sagefm/tl/perturbation/_significance.py``.

    Parameters
    ----------
    slide
        A slide, or several by name: then effects are means over slides.
    model
        A model; best one that was not trained on the slide.
    pairs
        As for :func:`sagefm.tl.pairs`: ``"liana"``, a CSV file, a table, or (ligand, target)
        tuples. Pairs with a gene that the model does not know, or a ligand without counts, are
        left out with a warning.
    levels
        How many levels.
    region
        Spots in which targets are predicted: a boolean per spot, or ``"KEY=VALUE"`` for spots whose
        ``obs[KEY]`` is VALUE. All spots if not given. (Their neighbors may lie outside.)
    n_matched
        Genes that a ligand is compared with: those nearest in mean, fraction of spots, largest
        value and spread between neighborhoods, among the genes in no pair of the call (among
        3,000 of these, drawn at random, where there are many ligands).
    n_null_spots
        Spots on which nulls are computed, drawn at random; a pair is compared on the same spots.
    seed
        Of these spots and genes, and of the shuffled neighbors.
    layer, slide_key
        As for :meth:`sagefm.SageFM.prepare`.
    keep
        Folder in which intermediate results are kept, so that a killed run can resume; it is
        removed at the end.
    progress
        Called with a line of progress.

    Returns
    -------
    A row per pair, in the order of `pairs`:

    - ``ligand``, ``target``, ``complex``
    - ``effect`` (log1p counts): mean over spots of the predicted target at the highest level minus
      at the lowest; ``effect_low``, ``effect_high``: its 95 % bootstrap interval over slides, from
      three slides on
    - ``slope`` (log1p counts per log1p count of the ligand): least squares over the levels
    - ``direction`` (up, down, none); ``monotone``: fraction of the steps between levels that go
      that way; ``sign`` that a resource expects; ``as_expected``
    - ``null_low``, ``null_median``, ``null_high`` (log1p counts): 2.5, 50 and 97.5 % of the effects
      of matched genes on the target, on the scale of the ligand
    - ``z`` (standard deviations of the null): distance of the specific effect from the mean of
      those of the matched genes; ``p``: two-sided; ``q``: Benjamini-Hochberg over the pairs
    - ``p_alike``: as ``p``, against the 30 genes most coexpressed with the ligand; ``p_partners``:
      among all ligands of the call on this target
    - ``effect_reversed`` (log1p counts): the target is raised, the ligand predicted;
      ``effect_shuffled`` (log1p counts): every spot has the neighbors of another
    - ``n_slides``, ``n_spots``

    Raises
    ------
    InputError
        No pair is left, the region is empty, fewer than two levels, or as
        :meth:`sagefm.SageFM.prepare`.
    """
    if levels < 2:
        raise InputError(f"levels={levels}: give two levels at least")
    slides = prepare_slides(slide, model, region, layer=layer, slide_key=slide_key)
    table = read_pairs(pairs)
    plan = PerturbationPlan.of(table, model, slides, n_matched, seed)
    facts = {
        "model": model.fingerprint, "levels": levels, "seed": seed, "n_null_spots": n_null_spots,
        "pairs": table[["ligand", "target"]].to_numpy().tolist(), "n_matched": n_matched,
        "slides": [one.checksum() for one in slides], "sagefm": __version__,
        "plan": [plan.screened.tolist(), plan.controls.tolist()],
    }  # fmt: skip
    with ResumableCache.open(keep, facts) as cache:
        per_slide = [
            slide_effects(one, plan, levels, n_null_spots, seed, cache, progress) for one in slides
        ]
        return _table(plan, per_slide, slides, levels, seed)


def top_pairs(table: pd.DataFrame, n: int) -> pd.DataFrame:
    """Choose the pairs with the smallest q, then p, then the largest distance from the null."""
    order = table.assign(size=-table["z"].abs()).sort_values(["q", "p", "size"], kind="stable")
    return order.drop(columns="size").head(n)


def _table(
    plan: PerturbationPlan,
    effects: Sequence[SlideEffects],
    slides: Sequence[PerturbedSlide],
    levels: int,
    seed: int,
) -> pd.DataFrame:
    response = mean([one.response for one in effects])
    span = mean([np.where(one.span > 0, one.span, np.nan) for one in effects])
    per_slide = np.array([one.response[:, -1] - one.response[:, 0] for one in effects])
    effect = response[:, -1] - response[:, 0]
    size = np.abs(response).max(axis=1)
    moves = np.abs(effect) > 1e-7 * np.maximum(size, 1e-3)  # more than float32 leaves of nothing
    way = np.where(moves, np.sign(effect), 0.0)
    steps = np.sign(np.diff(response, axis=1)) == way[:, None]
    dose = np.linspace(-0.5, 0.5, levels)
    with np.errstate(invalid="ignore", divide="ignore"):
        slope = response @ dose / (dose @ dose) / span
    low, high = _interval(per_slide, seed)
    table = plan.pairs.assign(
        effect=effect, effect_low=low, effect_high=high, slope=slope,
        direction=np.select([way > 0, way < 0], ["up", "down"], "none"),
        monotone=np.where(way == 0, np.nan, steps.mean(axis=1)),
    )  # fmt: skip
    expected = table.pop("sign")
    known = expected.notna() & (way != 0)
    table["sign"] = expected
    table["as_expected"] = pd.array(np.sign(expected.fillna(0)) == way, "boolean")
    table.loc[~known, "as_expected"] = pd.NA
    for name, values in significance(plan, mean([one.screened for one in effects])).items():
        table[name] = values
    table["effect_reversed"] = mean([one.reversed for one in effects])
    table["effect_shuffled"] = mean([one.shuffled for one in effects])
    table["n_slides"] = (~np.isnan(per_slide)).sum(axis=0)
    table["n_spots"] = (~np.isnan(per_slide)).T @ [len(one.spots) for one in slides]
    return table


def _interval(per_slide: Floats, seed: int) -> Floats:
    """Bootstrap the mean over slides: 2 × pairs; missing for pairs with fewer than three."""
    bounds = np.full((2, per_slide.shape[1]), np.nan)
    enough = (~np.isnan(per_slide)).all(axis=0) & (len(per_slide) >= _LEAST_SLIDES)
    if enough.any():
        drawn = bootstrap(
            (per_slide[:, enough],), np.mean, n_resamples=2000, method="percentile",
            rng=np.random.default_rng(seed), vectorized=True, axis=0,
        )  # fmt: skip
        bounds[:, enough] = drawn.confidence_interval
    return bounds
