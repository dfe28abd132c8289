"""Raise ligands in the neighbors, predict signatures of their response, and test the effects."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sagefm import __version__
from sagefm._cache import ResumableCache
from sagefm._errors import InputError, logger
from sagefm._text import few, numbered
from sagefm._types import Floats, Hold, Positions
from sagefm.pp.gene_forms import what_it_is
from sagefm.tl.perturbation._coexpression import (
    COMPONENTS,
    NEIGHBORS,
    SAME_SPOT,
    Coexpression,
    correlate_slides,
)
from sagefm.tl.perturbation._effects import Progress, SlidePerturber, mean, screened_effects
from sagefm.tl.perturbation._evidence import LEAST_DETECTED, sets_table
from sagefm.tl.perturbation._plan import (
    N_CONTROLS,
    Direction,
    free_genes,
    usable,
)
from sagefm.tl.perturbation._readout import Signature, SignatureReadout, collapse, collapsed
from sagefm.tl.perturbation._refits import agreement, refit_effects
from sagefm.tl.perturbation._result import NOTHING, YES, AttachedTable
from sagefm.tl.perturbation._significance import GeneEffects, significance, upper_tail
from sagefm.tl.perturbation._slides import PerturbedSlide

if TYPE_CHECKING:
    from sagefm.model import SageFM

_MOST_GENES = 200
"""Genes of a signature; more say little more, and all are masked."""
_MASKED = 0.3
"""Fraction of the genes that training masks: more are not masked together."""
_MOST_CONTROLS = 1000
COLUMNS = (
    "ligand", "target", "effect", "z", "q", "z_components", "learned_only", "agreement",
    "z_neighbors", "z_same_spot", "p", "p_coexpressed", "p_partners", "p_random", "n_genes",
    "as_expected", "effect_random", "n_slides",
)  # fmt: skip


@dataclass(frozen=True)
class How:
    """How effects are computed: what :func:`sagefm.tl.perturb` is given."""

    models: "Sequence[SageFM]"
    hold: Hold
    n_matched: int
    n_null_spots: int
    seed: int
    keep: Path | None
    progress: Progress


def perturb_signatures(
    slides: Sequence[PerturbedSlide],
    model: "SageFM",
    pairs: pd.DataFrame,
    table: pd.DataFrame,
    how: How,
) -> pd.DataFrame:
    """Test each ligand against its signatures, and the set of all pairs.

    Parameters
    ----------
    pairs
        A row per pair: ligand, target (the signature).
    table
        As :func:`sagefm.tl.signatures` returns it.

    Returns
    -------
    A row per pair, see :func:`sagefm.tl.perturb`.
    """
    detected = np.mean([one.facts.detected for one in slides], axis=0)
    found = _known(table[table["source"].isin(pairs["target"])], model, detected)
    pairs = pairs[pairs["target"].isin([one.name for one in found])].reset_index(drop=True)
    shown = np.max([one.facts.high for one in slides], axis=0) > 0
    pairs, [ligands] = usable(pairs, model, shown, ["ligand"])
    pairs, ligands, found = _of_others(pairs, ligands, found)
    readouts = _readouts(found, ligands, slides, len(model.vocabulary), how)
    facts = {
        "model": model.fingerprint, "seed": how.seed, "n_null_spots": how.n_null_spots,
        "ligands": ligands.tolist(), "n_matched": how.n_matched, "hold": how.hold,
        "signatures": [
            {name: np.asarray(value).tolist() for name, value in asdict(one).items()}
            for one in found
        ],
        "slides": [one.checksum() for one in slides], "sagefm": __version__,
        "models": [refit.fingerprint for refit in how.models],
        "plan": [
            [one.direction.raised.tolist(), one.direction.columns.tolist()] for one in readouts
        ],
    }  # fmt: skip
    numbers = {one.name: number for number, one in enumerate(found)}
    signature = np.array([numbers[name] for name in pairs["target"]], dtype=np.int64)
    direction = collapsed(readouts, (ligands, signature), len(model.vocabulary))
    with ResumableCache.open(how.keep, facts) as cache:
        effects = _effects(readouts, slides, how, cache)
        refits = _refits(readouts, slides, how, cache)
    effects = [
        mean([own, *(refit[number] for refit in refits)]) for number, own in enumerate(effects)
    ]
    scores = collapse(readouts, effects)
    of_slides = _correlations(readouts, slides)
    result = pairs.assign(**_columns(direction, scores, of_slides))
    if refits:
        refitted = [collapse(readouts, one) for one in refits]
        result["agreement"] = agreement(direction, scores, refitted)["agreement"]
    result = result.assign(**_sizes(readouts, effects, ligands, signature))
    known = [one.facts.high[ligands] > 0 for one in slides]
    result["n_slides"] = np.sum(known, axis=0)
    result = result[[name for name in COLUMNS if name in result]]
    # Signatures have enough spots; whether a pair does is up to the ligand.
    seen = np.concatenate([detected, np.ones(len(found))])
    sets = sets_table(
        [direction], {direction.name: scores}, {direction.name: of_slides}, seen, how.seed
    )
    result.attrs["sets"] = AttachedTable(sets)
    return result


def _known(table: pd.DataFrame, model: "SageFM", detected: Floats) -> list[Signature]:
    """Find the genes of signatures that the model and the slides have."""
    named = list(dict.fromkeys(table["target"]))
    positions = dict(zip(named, model.vocabulary.find(named), strict=True))
    unknown = [gene for gene, at in positions.items() if at is None]
    rare = [gene for gene, at in positions.items() if at is not None
            and detected[at] < LEAST_DETECTED]  # fmt: skip
    usable_genes = set(named) - set(unknown) - set(rare)
    most = max(1, min(_MOST_GENES, int(_MASKED * len(model.vocabulary) / 2)))
    found, lost, cut = [], [], []
    for name, rows in table.groupby("source", sort=False):
        kept = rows[rows["target"].isin(usable_genes)]
        if kept.empty:
            lost.append(name)
            continue
        at = np.array([positions[gene] for gene in kept["target"]], dtype=np.int64)
        genes, first = np.unique(at, return_index=True)
        weights = kept["weight"].to_numpy(dtype=np.float64)[first]
        if len(genes) > most:
            cut.append(name)
            chosen = np.sort(np.lexsort((-detected[genes], -np.abs(weights)))[:most])
            genes, weights = genes[chosen], weights[chosen]
        found.append(Signature(str(name), genes, weights))
    reasons = []
    if unknown:
        what = what_it_is(unknown) or few(unknown, 5)
        reasons.append(f"{len(unknown)} that the model does not know ({what})")
    if rare:
        reasons.append(
            f"{len(rare)} that fewer than {LEAST_DETECTED:.0%} of the spots have ({few(rare)})"
        )
    if not found:
        raise InputError(
            "signatures: none has a gene that the model knows and "
            f"{LEAST_DETECTED:.0%} of the spots have; left out: {'; '.join(reasons)}"
        )
    if reasons:
        logger.warning(
            "%d of %s of the signatures are left out: %s",
            len(unknown) + len(rare), numbered(len(named), "gene"), "; ".join(reasons),
        )  # fmt: skip
    if lost:
        logger.warning("signatures without any other gene are left out: %s", few(lost))
    if cut:
        logger.info(
            "signatures of which the %d genes with the largest weights are predicted: %s",
            most, few(cut),
        )  # fmt: skip
    return found


def _of_others(
    pairs: pd.DataFrame, ligands: Positions, found: Sequence[Signature]
) -> tuple[pd.DataFrame, Positions, list[Signature]]:
    """Leave out pairs whose signature is the ligand itself, and signatures in no pair."""
    genes = {one.name: one.genes for one in found}
    others = np.array(
        [
            np.any(genes[name] != ligand)
            for name, ligand in zip(pairs["target"], ligands, strict=True)
        ]
    )
    if not others.any():
        raise InputError("signatures: hold no gene but the ligand itself; name genes that respond")
    if not others.all():
        logger.warning(
            "%s whose signature is the ligand itself left out",
            numbered(int((~others).sum()), "pair"),
        )
    pairs = pairs[others].reset_index(drop=True)
    return pairs, ligands[others], [one for one in found if one.name in set(pairs["target"])]


def _readouts(
    found: Sequence[Signature],
    ligands: Positions,
    slides: Sequence[PerturbedSlide],
    n_genes: int,
    how: How,
) -> list[SignatureReadout]:
    """Divide signatures into those whose genes are masked together, and choose what to compare."""
    at_once = int(_MASKED * n_genes)
    groups: list[list[Signature]] = []
    union: Positions = np.empty(0, dtype=np.int64)
    for one in found:
        union = np.union1d(union, one.genes)
        if not groups or len(union) > at_once / 2:  # the other half are the genes that replace them
            groups.append([])
            union = one.genes
        groups[-1].append(one)
    shown = np.max([one.facts.high for one in slides], axis=0) > 0
    named = np.concatenate([ligands, *(one.genes for one in found)])
    free = free_genes(shown, named, how.n_matched)
    features = np.mean([one.facts.features() for one in slides], axis=0)
    readouts = []
    for number, group in enumerate(groups, start=1):
        name = f"signatures, part {number} of {len(groups)}" if len(groups) > 1 else "signatures"
        genes = np.unique(np.concatenate([one.genes for one in group]))
        sources = np.unique(ligands)
        every = np.repeat(sources, len(genes)), np.tile(genes, len(sources))
        n_controls = max(N_CONTROLS, min(2 * len(genes), _MOST_CONTROLS))
        most = max(how.n_matched, at_once - len(genes))
        direction = Direction.of(
            name, every, slides, features, free, how.n_matched, min(n_controls, most), most
        )
        readouts.append(SignatureReadout.of(group, direction, how.seed))
    return readouts


def _effects(
    readouts: Sequence[SignatureReadout],
    slides: Sequence[PerturbedSlide],
    how: How,
    cache: ResumableCache,
) -> list[Floats]:
    """Compute the effects of every readout on single genes, means over slides."""
    return [
        mean(
            [
                screened_effects(
                    readout.direction,
                    one.draw(how.n_null_spots, how.seed),
                    SlidePerturber(one, cache, how.progress, one.name),
                    how.hold,
                )
                for one in slides
            ]
        )
        for readout in readouts
    ]


def _refits(
    readouts: Sequence[SignatureReadout],
    slides: Sequence[PerturbedSlide],
    how: How,
    cache: ResumableCache,
) -> list[list[Floats]]:
    """Compute them for every refit: refits × readouts."""
    per_readout = []
    for number, readout in enumerate(readouts):
        effects = refit_effects(
            how.models, slides, [readout.direction], how.n_null_spots, how.seed, how.hold,
            cache, how.progress, f"{number}.",
        )  # fmt: skip
        per_readout.append([one[readout.direction.name] for one in effects])
    return [list(one) for one in zip(*per_readout, strict=True)]


def _correlations(
    readouts: Sequence[SignatureReadout], slides: Sequence[PerturbedSlide]
) -> dict[str, Floats]:
    """Score the evidence of the slides themselves: name → raised genes × columns."""
    ready = [Coexpression.of(one.prepared) for one in slides]
    per_readout = [
        correlate_slides(ready, readout.direction.raised, readout.direction.columns)
        for readout in readouts
    ]
    for of_readout in per_readout:
        for z in of_readout.values():
            z[:, np.isnan(z).all(axis=0)] = 0  # a predicted gene that does not vary adds nothing
    return {
        name: collapse(readouts, [one[name] for one in per_readout])
        for name in (SAME_SPOT, NEIGHBORS, COMPONENTS)
    }


def _columns(
    direction: Direction, scores: Floats, of_slides: Mapping[str, Floats]
) -> dict[str, Any]:
    """Compare each pair with matched genes and with replicas of its signature."""
    found: dict[str, Any] = significance(direction, scores)
    for name, evidence in (
        ("z_components", COMPONENTS), ("z_neighbors", NEIGHBORS), ("z_same_spot", SAME_SPOT),
    ):  # fmt: skip
        found[name] = significance(direction, of_slides[evidence])["z"]
    of_slide = np.abs([found[name] for name in ("z_components", "z_neighbors", "z_same_spot")])
    found["learned_only"] = (found["p"] < YES) & (np.nan_to_num(of_slide) < NOTHING).all(axis=0)
    general = GeneEffects.of(scores, direction.raised, direction.controls)
    specific = np.abs(general.specific(scores))
    swaps = direction.swaps()
    rows, columns = swaps.sources[swaps.source], swaps.targets[swaps.target]
    replicas = np.sort(specific[rows[:, None], swaps.matched_targets[swaps.target]])
    found["p_random"] = [
        float(upper_tail(own, null))
        for own, null in zip(specific[rows, columns], replicas, strict=True)
    ]
    return found


def _sizes(
    readouts: Sequence[SignatureReadout],
    effects: Sequence[Floats],
    ligands: Positions,
    signature: Positions,
) -> dict[str, Any]:
    """Summarize the effects on the genes of each signature, without the ligand itself."""
    averaged = np.concatenate([one.effects(v) for one, v in zip(readouts, effects, strict=True)])
    of_ligand = np.searchsorted(np.unique(ligands), ligands)
    own = averaged[signature, :, of_ligand]
    n_genes, as_expected = [], []
    places = [
        (one, readout.direction, values)
        for readout, values in zip(readouts, effects, strict=True)
        for one in readout.signatures
    ]
    for ligand, number in zip(ligands, signature, strict=True):
        one, direction, values = places[number]
        others = one.genes != ligand
        row = values[np.searchsorted(direction.raised, ligand)]
        moved = row[np.searchsorted(direction.targets, one.genes[others])]
        n_genes.append(int(others.sum()))
        as_expected.append(float((np.sign(moved) == np.sign(one.weights[others])).mean()))
    return {
        "effect": own[:, 0], "effect_random": own[:, 1:].mean(axis=1), "n_genes": n_genes,
        "as_expected": as_expected,
    }  # fmt: skip
