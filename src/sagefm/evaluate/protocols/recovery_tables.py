"""Collect the scores of recovery and imputation slide by slide, and summarize them."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sagefm.evaluate.baselines.masked import Prediction
from sagefm.evaluate.protocols.excess import Excess
from sagefm.evaluate.result import Result
from sagefm.stats import resampling as statistics
from sagefm.stats.genes import GeneSums, GeneTally, MaskedTruth, pearson_p

if TYPE_CHECKING:
    from sagefm.evaluate.protocols.recovery import MaskingTask

DETECTED = (0.1, 0.3)
"""Correlations are summarized over genes detected in more than this fraction of the spots."""
_BIN = 0.1  # width of the bins of the calibration, log1p counts
_N_BINS = 80


class Tallies:
    """The scores of all slides of one protocol."""

    def __init__(
        self,
        protocol: str,
        tasks: "Sequence[MaskingTask]",
        genes: list[str],
        seed: int,
        untrained: Mapping[str, str],
    ) -> None:
        self.protocol, self.tasks, self.genes, self.seed = protocol, tasks, genes, seed
        self.untrained = untrained
        self.kinds: dict[str, str] = {}
        self._rows: list[dict[str, object]] = []
        self._genes: dict[tuple[str, str], GeneTally] = {}
        self._slides: dict[tuple[str, str], list[str]] = {}
        self._bins: dict[tuple[str, str], NDArray[np.float64]] = {}
        self._noise: dict[tuple[str, str], dict[str, float]] = {}
        self._detected: dict[str, NDArray[np.float64]] = {}

    def calibrate(
        self, task: str, method: str, kind: str, truth: MaskedTruth, prediction: Prediction
    ) -> None:
        """Bin the masked entries by their prediction."""
        self.kinds[method] = kind
        bins = self._bins.setdefault((task, method), np.zeros((3, _N_BINS)))
        guesses = truth.of(prediction.log1p)
        at = np.clip((guesses / _BIN).astype(np.int64), 0, _N_BINS - 1)
        for row, weights in enumerate((None, guesses, truth.truth)):
            bins[row] += np.bincount(at, weights, minlength=_N_BINS)

    def noise(self, task: str, slide: str, method: str, n: int, variance: float) -> None:
        """Add the mean counting noise of `n` masked entries at the rates of a method."""
        noise = self._noise.setdefault((task, slide), {})
        noise[method] = noise.get(method, 0.0) + n * variance

    def add(
        self,
        task: str,
        slide: str,
        sums: dict[str, GeneSums],
        columns: NDArray[np.int64],
        detected: NDArray[np.float64],
    ) -> None:
        """Add a slide: the sums of each method, whose genes are at `columns`."""
        fraction = np.zeros(len(self.genes))
        fraction[columns] = detected
        self._detected[slide] = np.maximum(self._detected.get(slide, 0), fraction)
        noise = self._noise.get((task, slide), {})
        excess = Excess.of(
            {method: _mse(gene_sums) for method, gene_sums in sums.items()},
            {method: total / _n_entries(sums[method]) for method, total in noise.items()},
        )
        for method, gene_sums in sums.items():
            tally = self._genes.setdefault((task, method), GeneTally.begin(len(self.genes)))
            tally.add(gene_sums, columns)
            self._slides.setdefault((task, method), []).append(slide)
            row = _row(gene_sums, detected, excess)
            self._rows.append(
                {"slide": slide, "task": task, "method": method, "kind": self.kinds[method], **row}
            )

    def result(self, patients: "pd.Series[str]", notes: list[str]) -> Result:
        """Summarize: a table per task, and the details."""
        scores = pd.DataFrame(self._rows)
        summary, genes, bins = {}, [], []
        for task in self.tasks:
            of_task = scores[scores["task"] == task.name]
            summary[f"{self.protocol.capitalize()}: {task.name}"] = self._summary(
                task, of_task, patients
            )
            for method in pd.unique(of_task["method"]):
                common = {"task": task.name, "method": method}
                table = self._genes[task.name, method].table(self.genes)
                kept = self._often(task.name)
                genes.append(table[kept].assign(detected=self._fraction()[kept], **common))
                n, prediction, truth = self._bins[task.name, method]
                filled = n > 0
                bins.append(
                    pd.DataFrame(
                        {
                            "n": n[filled].astype(np.int64),
                            "predicted": prediction[filled] / n[filled],
                            "observed": truth[filled] / n[filled],
                        }
                    ).assign(**common)
                )
        details = {
            self.protocol: scores,
            f"{self.protocol}_genes": pd.concat(genes, ignore_index=True),
            f"{self.protocol}_calibration": pd.concat(bins, ignore_index=True),
        }
        return Result(self.protocol, summary, details, [*notes, *_best(scores)])

    def _fraction(self) -> NDArray[np.float64]:
        """Average over slides the fraction of the spots in which each gene is detected."""
        return np.asarray(np.mean(list(self._detected.values()), axis=0))

    def _often(self, task: str) -> NDArray[np.bool_]:
        """Select genes that were masked and are detected in more than 10 % of the spots."""
        of_task = [tally for (name, _), tally in self._genes.items() if name == task]
        return (self._fraction() > DETECTED[0]) & (of_task[0].pooled.n > 0)

    def _summary(
        self, task: "MaskingTask", scores: pd.DataFrame, patients: "pd.Series[str]"
    ) -> pd.DataFrame:
        metrics = ["mse", "deviance", "r_within_10", "r_within_30", "r_depth_removed_10"]
        metrics[1:1] = [name for name in ("excess", "share_left") if scores[name].notna().any()]
        found = statistics.summarize(scores, metrics, patients, seed=self.seed)
        found.insert(1, "kind", found["method"].map(self.kinds))
        if "share_left" in metrics:
            worst = scores.groupby("method")["share_left"].max()
            at = list(found).index("share_left_high") + 1
            found.insert(at, "share_left_worst", found["method"].map(worst))
        often = self._often(task.name)
        found.insert(4, "n_genes", int(often.sum()))
        found = found.join(self._over_genes(task, found["method"], often, patients))
        found["verdict"] = statistics.verdicts(
            found, scores, "mse", self.kinds, patients, untrained=self.untrained,
            larger_is_better=False, seed=self.seed,
        )  # fmt: skip
        return found.sort_values("mse", kind="stable", ignore_index=True)

    def _over_genes(
        self,
        task: "MaskingTask",
        methods: "pd.Series[str]",
        often: NDArray[np.bool_],
        patients: "pd.Series[str]",
    ) -> pd.DataFrame:
        """Compute pooled correlation and the fractions of significant and of better genes."""
        rows = []
        yardstick = self._genes.get((task.name, task.yardstick))
        for method in methods:
            tally = self._genes[task.name, method]
            r, n = tally.pooled.pearson()[often], tally.pooled.n[often]
            finite = ~np.isnan(r)
            p = pearson_p(r, n)[finite]
            row: dict[str, float] = {
                "r_pooled_10": float(np.median(r[finite])) if finite.any() else np.nan,
                "significant": float((p < 0.05).mean()) if finite.any() else np.nan,
                "significant_bh": float((statistics.benjamini_hochberg(p) < 0.05).mean())
                if finite.any()
                else np.nan,
                "n_constant": int((~finite).sum()),
            }
            if yardstick is not None and method != task.yardstick:
                row |= self._beats(task, method, often, patients)
            rows.append(row)
        return pd.DataFrame(rows, index=methods.index)

    def _beats(
        self, task: "MaskingTask", method: str, often: NDArray[np.bool_], patients: "pd.Series[str]"
    ) -> dict[str, float]:
        """Compute the fraction of genes with a smaller error than the yardstick, by slide."""
        errors, yardstick = (self._genes[task.name, m].errors for m in (method, task.yardstick))
        slides = self._slides[task.name, method]
        at = {slide: i for i, slide in enumerate(self._slides[task.name, task.yardstick])}
        shared = [i for i, slide in enumerate(slides) if slide in at]
        difference = np.array(
            [(errors[i] - yardstick[at[slides[i]]])[often] for i in shared], dtype=np.float64
        )
        difference[np.abs(difference) < 1e-9] = 0.0
        units, _ = statistics.units_of(patients.loc[[slides[i] for i in shared]])
        codes = pd.factorize(units)[0]
        per_unit = np.zeros((codes.max() + 1, difference.shape[1]))
        np.add.at(per_unit, codes, difference)
        total = per_unit.sum(axis=0)
        found = {"beats": _fraction_below(total), "n_ties": float((total == 0).sum())}
        if len(per_unit) < statistics.LEAST_UNITS:
            return found | {"beats_low": np.nan, "beats_high": np.nan}
        draws = [
            _fraction_below(w @ per_unit) for w in statistics.resampled(len(per_unit), self.seed)
        ]
        low, high = statistics.interval(draws)
        return found | {"beats_low": float(low), "beats_high": float(high)}


def _fraction_below(difference: NDArray[np.float64]) -> float:
    """Compute the fraction of negative differences; a tie counts half."""
    if not difference.size:
        return float("nan")
    return float((difference < 0).mean() + (difference == 0).mean() / 2)


def _n_entries(sums: GeneSums) -> float:
    return max(float(sums.n.sum()), 1.0)


def _mse(sums: GeneSums) -> float:
    """Compute the mean squared error over all masked entries."""
    return float(sums.squared_error.sum() / _n_entries(sums))


def _row(sums: GeneSums, detected: NDArray[np.float64], excess: Excess) -> dict[str, object]:
    """Compute the scores of one method on one slide."""
    n, mse = _n_entries(sums), _mse(sums)
    row: dict[str, object] = {
        "n_entries": n,
        "n_genes": float((sums.n > 0).sum()),
        "n_constant": float((sums.constant & (sums.n > 0)).sum()),
        "mse": mse,
        "floor": excess.floor,
        "excess": mse - excess.floor,
        "share_left": excess.left(mse),
        "best_training_free": excess.best,
        "deviance": float(sums.deviance.sum() / n),
    }
    correlations = {"r_within": sums.pearson(), "r_depth_removed": sums.depth_removed()}
    for least in DETECTED:
        often = detected > least
        row[f"n_genes_{100 * least:.0f}"] = float(often.sum())
        for name, r in correlations.items():
            values = r[often & ~np.isnan(r)]
            row[f"{name}_{100 * least:.0f}"] = float(np.median(values)) if len(values) else np.nan
    return row


def _best(scores: pd.DataFrame) -> list[str]:
    """Name the training-free methods that `share_left` compares with."""
    one = scores[scores["share_left"].notna()].drop_duplicates(["slide", "task"])
    notes = []
    for task, best in one.groupby("task", sort=False)["best_training_free"]:
        counts = ", ".join(f"{name} on {n}" for name, n in best.value_counts().items())
        notes.append(
            f"share_left, {task}: the best training-free method is {counts} of the slides."
        )
    return notes
