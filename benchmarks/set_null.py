"""Test whether p of the set test is uniform where there is nothing to find.

    python benchmarks/set_null.py --folds FOLDER [--slide NAME] [--runs N]

On a real slide, with a model that has not seen its patient: the targets of liana's pairs are
shuffled among the ligands, N times, and tested with the same effects; and the spots of the slide
change places, N times, and its correlations of neighbors are tested. Kolmogorov-Smirnov against the
uniform distribution.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import stats

import sagefm
from _common import SHARED, report, require_data
from responses import FOLD
from sagefm._cache import ResumableCache
from sagefm.tl.perturbation import pairs as read_pairs
from sagefm.tl.perturbation._coexpression import COMPONENTS, NEIGHBORS, SAME_SPOT, Coexpression
from sagefm.tl.perturbation._effects import SlidePerturber, screened_effects
from sagefm.tl.perturbation._evidence import beyond, filled, testable
from sagefm.tl.perturbation._plan import PerturbationPlan
from sagefm.tl.perturbation._set_test import set_test
from sagefm.tl.perturbation._slides import prepare_slides

SPOTS = 256
COLUMNS = ("p", "p_ligands", "p_targets")


def shuffled_pairs(scores, swaps, n_runs):
    """Test each evidence with shuffled targets: name → runs × columns."""
    found = {}
    for name, values in scores.items():
        rng = np.random.default_rng(0)
        tests = [
            set_test(values, replace(swaps, target=rng.permutation(swaps.target)), run)
            for run in range(n_runs)
        ]
        found[name] = np.array([[getattr(test, column) for column in COLUMNS] for test in tests])
    return found


def shuffled_spots(prepared, direction, swaps, n_runs):
    rng = np.random.default_rng(1)
    rows = []
    for run in range(n_runs):
        order = rng.permutation(len(prepared.neighbors))
        moved = replace(prepared, counts=prepared.counts[order])
        z = Coexpression.of(moved).correlate(direction.raised, direction.columns)
        tests = [set_test(filled(z[name]), swaps, run) for name in (NEIGHBORS, COMPONENTS)]
        rows.append([[getattr(test, column) for column in COLUMNS] for test in tests])
    whole = np.array(rows)
    return {NEIGHBORS: whole[:, 0], COMPONENTS: whole[:, 1]}


def lines_of(title, found):
    lines = [f"{title}:", "", "| evidence | p: KS; below 0.05 | p, ligands only | p, targets |",
             "|---|---|---|---|"]  # fmt: skip
    for name, p in found.items():
        cells = [
            f"{stats.kstest(column, 'uniform').pvalue:.2f}; {(column < 0.05).mean():.1%}"
            for column in p.T
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return [*lines, ""]


def main():
    require_data()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folds", type=Path, required=True)
    parser.add_argument("--slide", default="her2st_A1", choices=sorted(FOLD))
    parser.add_argument("--runs", type=int, default=200)
    given = parser.parse_args()
    model = sagefm.SageFM.load(given.folds / f"patients_{FOLD[given.slide]}_seed0.safetensors")
    slide = sagefm.read(SHARED / "slides" / f"{given.slide}.h5ad")
    [one] = prepare_slides(slide, model, None, layer=None, slide_key=None)
    plan = PerturbationPlan.of(read_pairs("liana"), model, [one], 50)
    forward = plan.forward
    with ResumableCache.open(None, {}) as cache:
        perturber = SlidePerturber(one, cache, lambda line: None, "")
        effects = screened_effects(forward, one.draw(SPOTS, 0), perturber, "nothing")
    of_slide = Coexpression.of(one.prepared).correlate(forward.raised, forward.columns)
    swaps = forward.swaps().of(np.flatnonzero(testable(forward, one.facts.detected)))
    itself = forward.raised[:, None] == forward.columns
    effects, *others = (np.where(itself, np.nan, one) for one in (effects, *of_slide.values()))
    of_slide = dict(zip(of_slide, others, strict=True))
    both = [of_slide[SAME_SPOT], of_slide[NEIGHBORS]]
    scores = {"model": effects, **of_slide, "beyond co-expression": beyond(effects, both)}
    scores = {name: filled(values) for name, values in scores.items()}
    lines = [f"{given.slide}, {len(swaps.source)} pairs, {given.runs} runs each", ""]
    lines += lines_of("Shuffled pairs", shuffled_pairs(scores, swaps, given.runs))
    lines += lines_of("Shuffled spots", shuffled_spots(one.prepared, forward, swaps, given.runs))
    report("set_null", lines)


if __name__ == "__main__":
    main()
