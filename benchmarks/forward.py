"""Compare two effects of a ligand in the neighbors, and both with slides that are really changed.

    python benchmarks/forward.py --folds FOLDER [--only NAME ...]

FOLDER holds models that have not seen a patient, as `benchmarks/folds.py train` writes them. On
each slide 50 ligands of liana's consensus, drawn at random, are set to their smallest and their
largest count in the 14 neighbors, and their targets predicted. Held: attention, library sizes and
base stay as they are. Full: nothing stays as it is but the background. Then, for some ligands and
centers, the slide is really changed and encoded anew, with its background.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.sparse import csr_matrix

import sagefm
from _common import SHARED, report, require_data
from domains import markdown
from sagefm.nn import MaskedGenes
from sagefm.tl.perturbation._perturber import GeneFacts, Perturber

FOLD = {
    "her2st_B1": 4, "her2st_C1": 0, "her2st_D1": 1, "her2st_E1": 2, "her2st_F1": 3,
    "heartdev_1": 4, "pdac_A_ST1": 2, "crc_16": 3, "fetal_intestine_A3": 0, "dlpfc2_Br8325_ant": 2,
}  # fmt: skip
N_LIGANDS, N_SPOTS = 50, 512
N_CHANGED, N_CENTERS = 10, 10
"""Ligands and centers of slides that are really changed."""


class Slide:
    """A slide with 50 ligands and their targets."""

    def __init__(self, name, folds, pairs):
        self.model = sagefm.SageFM.load(folds / f"patients_{FOLD[name]}_seed0.safetensors")
        self.prepared = self.model.prepare(sagefm.read(SHARED / "slides" / f"{name}.h5ad"))
        self.by_gene = self.prepared.log1p.tocsc()
        self.encoded = self.model.encode(self.prepared)
        facts = GeneFacts.of(self.prepared, self.by_gene)
        vocabulary = self.model.vocabulary
        at = dict(zip(vocabulary, range(len(vocabulary)), strict=True))
        known = pairs[pairs["ligand"].isin(at) & pairs["target"].isin(at)]
        ligand, target = (known[side].map(at).to_numpy() for side in ("ligand", "target"))
        usable = (facts.high[ligand] > 0) & self.prepared.measured[target]
        rng = np.random.default_rng(0)
        shown = np.unique(ligand[usable])
        self.ligands = rng.choice(shown, min(N_LIGANDS, len(shown)), replace=False)
        self.targets = [np.unique(target[usable & (ligand == one)]) for one in self.ligands]
        self.masked = np.unique(np.concatenate(self.targets))
        self.levels = np.array([facts.levels(one, 2) for one in self.ligands])
        every = np.arange(len(self.prepared.neighbors))
        self.spots = rng.permutation(every)[:N_SPOTS]

    def perturber(self, centers, hold):
        """Mask all targets in some centers."""
        neighbors = self.prepared.neighbors[centers]
        return Perturber(self.encoded, self.by_gene, neighbors, self.masked, hold)

    def effects(self, hold):
        """Mean effects of all pairs, and the seconds they took."""
        screen = self.perturber(self.spots, hold)
        list(screen.means(self.ligands[:1], self.levels[:1], self.targets[:1]))  # warm
        start = time.process_time()
        means = list(screen.means(self.ligands, self.levels, self.targets))
        return [one[1] - one[0] for one in means], time.process_time() - start

    def at_centers(self, number, hold):
        """Effects of a ligand on each of some centers: centers × targets."""
        screen = self.perturber(self.spots[:N_CENTERS], hold)
        levels = self.levels[number][:, None, None]
        after = np.broadcast_to(levels, (2, self.by_gene.shape[0], 1))
        predicted = screen.predict(self.ligands[[number]], after, self.targets[number])
        return (predicted[1] - predicted[0]).numpy()

    def really(self, number):
        """Change the neighbors of one center after the other: centers × targets."""
        rows = []
        for center in self.spots[:N_CENTERS]:
            low, high = (self.changed(center, number, level) for level in self.levels[number])
            rows.append(high - low)
        return np.array(rows)

    @torch.inference_mode()
    def changed(self, center, number, level):
        """Predict the targets in a center of a slide with other counts around it."""
        around, gene = self.prepared.neighbors[[center]], self.ligands[number]
        rows, old = around[0, 1:], self.prepared.counts[around[0, 1:], gene].toarray().ravel()
        where = (rows, np.full(len(rows), gene))
        moved = csr_matrix((np.expm1(level) - old, where), self.by_gene.shape, dtype=np.float32)
        slide = replace(self.prepared, counts=csr_matrix(self.prepared.counts + moved))
        encoded = self.model.encode(slide)
        # Projected anew are the spots that changed: all of them would take most of the time.
        projected = self.encoded.projected.clone()
        log1p = torch.from_numpy(slide.counts[rows].log1p().toarray())
        projected[torch.from_numpy(rows)] = log1p @ self.model.network.first
        encoded.projected = projected
        centers = encoded.centers(around, MaskedGenes(self.masked))
        return centers.unchanged(torch.from_numpy(self.targets[number]))[0].numpy()


def agreement(found, wanted):
    """Correlation, equal signs among those that move, and the relative error."""
    found, wanted = (np.concatenate([np.ravel(part) for part in x]) for x in (found, wanted))
    moved = np.abs(wanted) > 1e-6
    return (
        np.corrcoef(found, wanted)[0, 1],
        (np.sign(found) == np.sign(wanted))[moved].mean(),
        np.linalg.norm(found - wanted) / np.linalg.norm(wanted),
    )


def score(name, folds, pairs):
    """Score one slide: a row of the table."""
    slide = Slide(name, folds, pairs)
    (held, fast), (full, slow) = (slide.effects(hold) for hold in ("attention", "nothing"))
    r, signs, _ = agreement(held, full)
    turned = np.mean(
        [np.sign(a.mean()) != np.sign(b.mean()) for a, b in zip(held, full, strict=True)]
    )
    some = range(min(N_CHANGED, len(slide.ligands)))
    truth = [slide.really(number) for number in some]
    rows = {
        hold: agreement([slide.at_centers(number, hold) for number in some], truth)
        for hold in ("attention", "nothing")
    }
    return {
        "slide": name, "spots": len(slide.prepared.neighbors),
        "pairs": sum(map(len, slide.targets)), "r": r, "same sign": signs, "ligands turned": turned,
        "size full / held": np.std(np.concatenate(full)) / np.std(np.concatenate(held)),
        "held: r": rows["attention"][0], "sign": rows["attention"][1],
        "error": rows["attention"][2], "full: r": rows["nothing"][0],
        "sign ": rows["nothing"][1], "error ": rows["nothing"][2], "time full / held": slow / fast,
    }  # fmt: skip


def main():
    require_data()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folds", type=Path, required=True)
    parser.add_argument("--only", nargs="+", default=list(FOLD))
    options = parser.parse_args()
    torch.set_num_threads(1)
    pairs = sagefm.tl.pairs("liana")
    start, rows = time.process_time(), []
    for name in options.only:
        rows.append(score(name, options.folds, pairs))
        print(*rows[-1].values(), flush=True)
    table = pd.DataFrame(rows)
    mean = table.drop(columns=["slide"]).mean().to_dict() | {"slide": "mean"}
    table = pd.concat([table, pd.DataFrame([mean])])
    table[["spots", "pairs"]] = table[["spots", "pairs"]].round().astype(int)
    seconds = f"{time.process_time() - start:.0f} s"
    report("forward", [*markdown(table), "", seconds])


if __name__ == "__main__":
    main()
