"""Which genes answer when their neighbors say more of a ligand, and is it more than chance."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import bootstrap, false_discovery_control

from sagefm import __version__
from sagefm._cache import ResumableCache
from sagefm._errors import InputError
from sagefm._types import Floats, Positions
from sagefm.tl.perturbation import _nulls
from sagefm.tl.perturbation._effects import Found, Progress, ask, mean
from sagefm.tl.perturbation._pairs import pairs as read_pairs
from sagefm.tl.perturbation._plan import Plan, View, views_of

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
    """Raise ligands in the neighbors of every spot, read their targets in it, and test the effect.

    The protocol of the paper (arXiv 2601.15504): the ligand is set to equally spaced levels between
    its smallest and its largest log1p count on the slide, in the 14 neighbors; all targets of the
    call are hidden in the center; the target is predicted there. A network that weighs spots by
    their likeness, ``context``, keeps these weights, all depths and what it expects of a depth as
    they are while the ligand changes; for the published one nothing is held.

    Unlike the paper, every effect is held against those of other genes on the same target. What is
    compared is what a gene does to this target in particular: its effect, standardized over the
    screened genes, less its mean effect on 100 control genes and in units of their spread.

    Parameters
    ----------
    slide
        A slide, or several by name: then effects are means over slides.
    model
        A model; best one that has not seen the slide.
    pairs
        As for :func:`sagefm.tl.pairs`: ``"liana"``, a CSV file, a table, or (ligand, target)
        tuples. Pairs with a gene that the model does not know, or a ligand that no slide shows, are
        left out, and that is told.
    levels
        How many levels.
    region
        Spots to read: a boolean per spot, or ``"KEY=VALUE"`` for spots whose ``obs[KEY]`` is VALUE.
        All spots if not given. (Their neighbors may lie outside.)
    n_matched
        Genes that a ligand is held against: those nearest in mean, share of spots, largest value
        and spread between neighborhoods, among the genes that stand in no pair of the call (among
        3,000 of these, drawn at random, where there are many ligands).
    n_null_spots
        Spots on which nulls are computed, drawn at random; a pair is compared on the same spots.
    seed
        Of these spots and genes, and of the shuffled neighbors.
    layer, slide_key
        As for :meth:`sagefm.SageFM.prepare`.
    keep
        Folder for what a killed run had done; it is removed at the end.
    progress
        Called with a line per some genes.

    Returns
    -------
    A row per pair, in the order of `pairs`, all on log1p counts: ligand, target, complex,
    ``effect`` (mean over spots of the predicted target at the highest level minus at the lowest),
    ``effect_low``, ``effect_high`` (95 % bootstrap interval over slides, from three slides on),
    ``slope`` (least squares, per log1p count of the ligand), ``direction`` (up, down, none),
    ``monotone`` (share of the steps between levels that go that way), ``sign`` (that a resource
    expects), ``as_expected``, ``null_low``, ``null_median``, ``null_high`` (2.5, 50 and 97.5 % of
    what matched genes do to the same target, on the ligand's own scale), ``z`` (distance from
    their mean, in their standard deviations), ``p`` (against matched genes, two-sided),
    ``q`` (Benjamini-Hochberg over the pairs), ``p_alike`` (against the 30 genes that correlate most
    with the ligand), ``p_partners`` (among all ligands of the call on this target),
    ``effect_reversed`` (the target raised in the neighbors, the ligand read), ``effect_shuffled``
    (every spot given the neighbors of another), n_slides, n_spots.

    Raises
    ------
    InputError
        No pair is left, the region is empty, fewer than two levels, or as
        :meth:`sagefm.SageFM.prepare`.
    """
    if levels < 2:
        raise InputError(f"levels={levels}: give two levels at least")
    views = views_of(slide, model, region, layer=layer, slide_key=slide_key)
    table = read_pairs(pairs)
    plan = Plan.of(table, model, views, n_matched, seed)
    shelf = ResumableCache(keep, {
        "model": model.fingerprint, "levels": levels, "seed": seed, "n_null_spots": n_null_spots,
        "pairs": table[["ligand", "target"]].to_numpy().tolist(), "n_matched": n_matched,
        "slides": [view.checksum() for view in views], "sagefm": __version__,
        "plan": [plan.screened.tolist(), plan.controls.tolist()],
    })  # fmt: skip
    found = [ask(view, plan, levels, n_null_spots, seed, shelf, progress) for view in views]
    result = _table(plan, found, views, levels, seed)
    shelf.clear()
    return result


def _table(
    plan: Plan, found: Sequence[Found], views: Sequence[View], levels: int, seed: int
) -> pd.DataFrame:
    response = mean([one.response for one in found])
    span = mean([np.where(one.span > 0, one.span, np.nan) for one in found])
    per_slide = np.array([one.response[:, -1] - one.response[:, 0] for one in found])
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
    for name, values in _significance(plan, mean([one.screened for one in found])).items():
        table[name] = values
    table["effect_reversed"] = mean([one.reversed for one in found])
    table["effect_shuffled"] = mean([one.shuffled for one in found])
    table["n_slides"] = (~np.isnan(per_slide)).sum(axis=0)
    table["n_spots"] = (~np.isnan(per_slide)).T @ [len(view.spots) for view in views]
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


def _significance(plan: Plan, effects: Floats) -> dict[str, Floats]:
    """Compare every pair with the effects of other genes on its target.

    `effects` are screened genes × targets and controls.
    """
    at_target = np.searchsorted(plan.targets, plan.target)
    of_pair = np.searchsorted(plan.ligands, plan.ligand)
    at_ligand = np.searchsorted(plan.screened, plan.ligand)
    scale = _nulls.Scale.of(effects, plan.screened, plan.controls)
    particular = scale.particular(effects)[:, : len(plan.targets)]
    own = particular[at_ligand, at_target]

    def null(like: Positions) -> Floats:
        rows = np.searchsorted(plan.screened, like)[of_pair]
        return np.asarray(particular[rows, at_target[:, None]])

    matched = null(plan.matched)
    bounds = np.nanquantile(matched, [0.025, 0.5, 0.975], axis=1)
    low, median, high = scale.effect(bounds, at_ligand, at_target)
    standing = _nulls.Standing.of(own, matched)
    p = standing.p()
    q = np.full(len(p), np.nan)
    q[~np.isnan(p)] = false_discovery_control(p[~np.isnan(p)])
    return {
        "null_low": low, "null_median": median, "null_high": high, "z": standing.z, "p": p, "q": q,
        "p_alike": _nulls.Standing.of(own, null(plan.alike)).p(),
        "p_partners": _among_partners(plan, particular),
    }  # fmt: skip


def _among_partners(plan: Plan, effects: Floats) -> Floats:
    """Rank each pair among all ligands on its target, each against its own matched genes."""
    rows = np.searchsorted(plan.screened, plan.ligands)
    matched = np.searchsorted(plan.screened, plan.matched)
    place = (
        np.searchsorted(plan.ligands, plan.ligand),
        np.searchsorted(plan.targets, plan.target),
    )
    paired = np.zeros((len(plan.ligands), len(plan.targets)), dtype=bool)
    paired[place] = True
    p = np.full(paired.shape, np.nan)
    for column, own in enumerate(paired.T):
        z = np.abs(_nulls.Standing.of(effects[rows, column], effects[matched, column]).z)
        shuffled_neighbors = np.sort(z[~own & ~np.isnan(z)])
        if len(shuffled_neighbors):
            p[:, column] = _nulls.upper_tail(z, shuffled_neighbors)
    return p[place]
