"""Tables of recovery and imputation: what is kept while slides go by, and how it is summed up."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sagefm.evaluate.baselines.shown import Guess
from sagefm.evaluate.result import Result
from sagefm.stats import resampling as statistics
from sagefm.stats.genes import GeneSums, GeneTally, MaskedTruth, pearson_p

if TYPE_CHECKING:
    from sagefm.evaluate.protocols.recovery import Task

DETECTED = (0.1, 0.3)
"""Correlations are summed up over genes that are found in more than this share of the spots."""
_BIN = 0.1  # width of the bins of the calibration, log1p counts
_N_BINS = 80


class Tallies:
    """Everything that is kept of the slides of one protocol."""

    def __init__(self, protocol: str, tasks: "Sequence[Task]", genes: list[str], seed: int) -> None:
        self.protocol, self.tasks, self.genes, self.seed = protocol, tasks, genes, seed
        self.kinds: dict[str, str] = {}
        self._rows: list[dict[str, object]] = []
        self._genes: dict[tuple[str, str], GeneTally] = {}
        self._slides: dict[tuple[str, str], list[str]] = {}
        self._bins: dict[tuple[str, str], NDArray[np.float64]] = {}
        self._noise: dict[tuple[str, str], tuple[float, int]] = {}
        self._detected: dict[str, NDArray[np.float64]] = {}

    def calibrate(
        self, task: str, method: str, kind: str, hidden: MaskedTruth, guess: Guess
    ) -> None:
        """Bin the hidden entries by what was predicted."""
        self.kinds[method] = kind
        bins = self._bins.setdefault((task, method), np.zeros((3, _N_BINS)))
        guesses = hidden.of(guess.log1p)
        at = np.clip((guesses / _BIN).astype(np.int64), 0, _N_BINS - 1)
        for row, weights in enumerate((None, guesses, hidden.truth)):
            bins[row] += np.bincount(at, weights, minlength=_N_BINS)

    def noise(self, task: str, slide: str, n: int, floor: float) -> None:
        """Keep the counting-noise floor of some spots."""
        total, entries = self._noise.get((task, slide), (0.0, 0))
        self._noise[task, slide] = total + n * floor, entries + n

    def add(
        self,
        task: str,
        slide: str,
        sums: dict[str, GeneSums],
        columns: NDArray[np.int64],
        detected: NDArray[np.float64],
    ) -> None:
        """Take in a slide: the sums of each method, whose genes stand at `columns`."""
        share = np.zeros(len(self.genes))
        share[columns] = detected
        self._detected[slide] = np.maximum(self._detected.get(slide, 0), share)
        total, entries = self._noise.get((task, slide), (np.nan, 1))
        for method, own in sums.items():
            tally = self._genes.setdefault((task, method), GeneTally.begin(len(self.genes)))
            tally.add(own, columns)
            self._slides.setdefault((task, method), []).append(slide)
            row = _row(own, detected, total / entries)
            self._rows.append(
                {"slide": slide, "task": task, "method": method, "kind": self.kinds[method], **row}
            )

    def result(self, patients: "pd.Series[str]", notes: list[str]) -> Result:
        """Sum everything up: a table per task, and the details."""
        scores = pd.DataFrame(self._rows)
        summary, genes, bins = {}, [], []
        for task in self.tasks:
            own = scores[scores["task"] == task.name]
            summary[f"{self.protocol.capitalize()}: {task.name}"] = self._summary(
                task, own, patients
            )
            for method in pd.unique(own["method"]):
                common = {"task": task.name, "method": method}
                table = self._genes[task.name, method].table(self.genes)
                kept = self._often(task.name)
                genes.append(table[kept].assign(detected=self._share()[kept], **common))
                n, guess, truth = self._bins[task.name, method]
                filled = n > 0
                bins.append(
                    pd.DataFrame(
                        {
                            "n": n[filled].astype(np.int64),
                            "predicted": guess[filled] / n[filled],
                            "observed": truth[filled] / n[filled],
                        }
                    ).assign(**common)
                )
        details = {
            self.protocol: scores,
            f"{self.protocol}_genes": pd.concat(genes, ignore_index=True),
            f"{self.protocol}_calibration": pd.concat(bins, ignore_index=True),
        }
        return Result(self.protocol, summary, details, notes)

    def _share(self) -> NDArray[np.float64]:
        """Average over slides the share of the spots that a gene is detected in."""
        return np.asarray(np.mean(list(self._detected.values()), axis=0))

    def _often(self, task: str) -> NDArray[np.bool_]:
        """Genes that are hidden somewhere and detected in more than 10 % of the spots."""
        of_task = [tally for (name, _), tally in self._genes.items() if name == task]
        return (self._share() > DETECTED[0]) & (of_task[0].pooled.n > 0)

    def _summary(
        self, task: "Task", scores: pd.DataFrame, patients: "pd.Series[str]"
    ) -> pd.DataFrame:
        metrics = ["mse", "excess", "deviance", "r_within_10", "r_within_30", "r_depth_removed_10"]
        if scores["excess"].isna().all():
            metrics.remove("excess")
        found = statistics.summarize(scores, metrics, patients, seed=self.seed)
        found.insert(1, "kind", found["method"].map(self.kinds))
        often = self._often(task.name)
        found.insert(4, "n_genes", int(often.sum()))
        found = found.join(self._over_genes(task, found["method"], often, patients))
        found["verdict"] = statistics.verdicts(
            found, scores, "mse", self.kinds, patients, larger_is_better=False, seed=self.seed
        )
        return found.sort_values("mse", kind="stable", ignore_index=True)

    def _over_genes(
        self,
        task: "Task",
        methods: "pd.Series[str]",
        often: NDArray[np.bool_],
        patients: "pd.Series[str]",
    ) -> pd.DataFrame:
        """Pooled correlation, share of significant genes and of genes better than the yardstick."""
        rows = []
        yardstick = self._genes.get((task.name, task.yardstick))
        for method in methods:
            tally = self._genes[task.name, method]
            r, n = tally.pooled.pearson()[often], tally.pooled.n[often]
            known = ~np.isnan(r)
            p = pearson_p(r, n)[known]
            row: dict[str, float] = {
                "r_pooled_10": float(np.median(r[known])) if known.any() else np.nan,
                "significant": float((p < 0.05).mean()) if known.any() else np.nan,
                "significant_bh": float((statistics.benjamini_hochberg(p) < 0.05).mean())
                if known.any()
                else np.nan,
                "n_constant": int((~known).sum()),
            }
            if yardstick is not None and method != task.yardstick:
                row |= self._beats(task, method, often, patients)
            rows.append(row)
        return pd.DataFrame(rows, index=methods.index)

    def _beats(
        self, task: "Task", method: str, often: NDArray[np.bool_], patients: "pd.Series[str]"
    ) -> dict[str, float]:
        """Share of genes with a smaller error than the yardstick's; slides resampled in pairs."""
        own, other = (self._genes[task.name, m].errors for m in (method, task.yardstick))
        slides = self._slides[task.name, method]
        at = {slide: i for i, slide in enumerate(self._slides[task.name, task.yardstick])}
        shared = [i for i, slide in enumerate(slides) if slide in at]
        difference = np.array(
            [(own[i] - other[at[slides[i]]])[often] for i in shared], dtype=np.float64
        )
        difference[np.abs(difference) < 1e-9] = 0.0
        units, _ = statistics.units_of(patients.loc[[slides[i] for i in shared]])
        codes = pd.factorize(units)[0]
        per_unit = np.zeros((codes.max() + 1, difference.shape[1]))
        np.add.at(per_unit, codes, difference)
        total = per_unit.sum(axis=0)
        found = {"beats": _share_below(total), "n_ties": float((total == 0).sum())}
        if len(per_unit) < statistics.LEAST_UNITS:
            return found | {"beats_low": np.nan, "beats_high": np.nan}
        draws = [_share_below(w @ per_unit) for w in statistics.resampled(len(per_unit), self.seed)]
        low, high = statistics.interval(draws)
        return found | {"beats_low": float(low), "beats_high": float(high)}


def _share_below(difference: NDArray[np.float64]) -> float:
    """Share of negative differences; a tie counts half."""
    if not difference.size:
        return float("nan")
    return float((difference < 0).mean() + (difference == 0).mean() / 2)


def _row(sums: GeneSums, detected: NDArray[np.float64], floor: float) -> dict[str, float]:
    """Scores of one method on one slide."""
    n = max(float(sums.n.sum()), 1.0)
    mse = float(sums.squared_error.sum() / n)
    row = {
        "n_entries": n,
        "n_genes": float((sums.n > 0).sum()),
        "n_constant": float((sums.constant & (sums.n > 0)).sum()),
        "mse": mse,
        "floor": floor,
        "excess": mse - floor,
        "deviance": float(sums.deviance.sum() / n),
    }
    correlations = {"r_within": sums.pearson(), "r_depth_removed": sums.depth_removed()}
    for least in DETECTED:
        often = detected > least
        row[f"n_genes_{100 * least:.0f}"] = float(often.sum())
        for name, r in correlations.items():
            known = r[often & ~np.isnan(r)]
            row[f"{name}_{100 * least:.0f}"] = float(np.median(known)) if len(known) else np.nan
    return row
