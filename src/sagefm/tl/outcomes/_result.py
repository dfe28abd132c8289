"""The result of predicting outcomes."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from sagefm._files import replacing, require_free
from sagefm._text import numbered, or_below, probability
from sagefm.tl.outcomes._features import CLINICAL, PSEUDOBULK

RESEARCH_USE = "For research only: not for diagnosis or treatment decisions."
"""What every output says."""
_SIGNIFICANT = 0.05
_TABLES = (
    "scores", "patients", "features", "curve", "permuted", "spots", "domains", "confounding",
)  # fmt: skip
SUMMARY = "summary.txt"


@dataclass(frozen=True)
class Outcome:
    """Result of :func:`outcome`; as text, a summary."""

    target: str
    """Column of the table, or columns."""
    kind: str
    """classes, ordinal, number or survival."""
    note: str
    """That the result is for research only."""
    scores: pd.DataFrame
    """A row per set of features: set, n_patients, n_events, n_features, n_components, concordance,
    low, high, p, p_adjusted, q; and beside clinical columns with_clinical (the concordance of
    both), beyond_clinical (what is added to that of the clinical columns), beyond_low, beyond_high,
    beyond_p; for survival p_proportional."""
    best: str
    """The set of features of slides with the highest concordance."""
    patients: pd.DataFrame
    """A row per patient: the outcome, n_slides, site, held_out, risk_<set>, and of the best set
    group, and predicted and probability_<class>."""
    features: pd.DataFrame
    """Each feature alone: set, feature, effect, low, high, p, q; and class, if there are
    more than two; for survival p_proportional of clinical features."""
    curve: pd.DataFrame
    """Learning curve of the best set: set, n_patients (trained on), concordance, low, high; its
    ``attrs`` say how many patients would be needed: needed, needed_low, needed_high, needed_text.
    """
    permuted: pd.DataFrame
    """Concordance of each permutation (rows) for each set (columns)."""
    spots: pd.DataFrame
    """slide, spot, contribution, p."""
    domains: pd.DataFrame
    """slide (``"all"`` for the cohort), domain, n_patients, contribution, low, high, p, q."""
    confounding: pd.DataFrame
    """check, set, site, n_patients, value, low, high, p; empty without a site."""
    warnings: list[str]

    def __str__(self) -> str:
        """Summarize the scores, a line per set, and the warnings."""
        return "\n".join(
            [*self._lines(), *(f"Warning: {line}" for line in self.warnings), self.note]
        )

    def _lines(self) -> Iterator[str]:
        first = self.scores.iloc[0]
        events = (
            ""
            if self.kind in ("number", "ordinal")
            else f", {numbered(first['n_events'], 'event')}"
        )
        if self.kind == "classes":
            events = f", {first['n_events']} in the smallest class"
        yield f"{self.target} ({self.kind}): {numbered(first['n_patients'], 'patient')}{events}"
        for _, row in self.scores.iterrows():
            yield _describe(row)
        [best] = self.scores[self.scores["set"] == self.best].to_dict("records")
        of_slides = ~self.scores["set"].isin([CLINICAL, PSEUDOBULK])
        if (self.scores.loc[of_slides, "p_adjusted"] >= _SIGNIFICANT).all():
            yield "No set of features of the slides predicts the outcome better than by chance."
        elif self._as_good(PSEUDOBULK, best["concordance"]):
            yield f"{PSEUDOBULK}, which needs no model, does as well or better"
        if needed := self.curve.attrs.get("needed_text"):
            unsure = best["p_adjusted"] >= _SIGNIFICANT and needed.startswith("about")
            doubt = ", if its effect is real, which is not shown" if unsure else ""
            yield f"Patients needed for {self.best}{doubt}: {needed}"
        if "beyond_p" in self.scores:
            yield "p beyond clinical is of each set alone, not corrected for having tried several"
        if "site" in self.patients:
            yield (
                "p compares with patients permuted within their sites: what a prediction owes to "
                "differences between sites does not count, so that p can be high in spite of a "
                "high concordance"
            )
        if "p_proportional" in self.scores:
            tests = pd.concat([self.scores["p_proportional"], self._proportional()]).dropna()
            if len(tests):
                yield (
                    f"Proportional hazards: smallest {probability('p', tests.min())} of "
                    f"{numbered(len(tests), 'test')} (clinical columns and predictions)"
                )

    def _proportional(self) -> "pd.Series[float]":
        empty = pd.Series(dtype=float)
        return self.features.get("p_proportional", empty)

    def _as_good(self, name: str, concordance: float) -> bool:
        others = self.scores.loc[self.scores["set"] == name, "concordance"]
        return bool((others >= concordance).any())

    def save(self, folder: str | Path, *, suppress_below: int = 0, overwrite: bool = False) -> None:
        """Write each table that is not empty as CSV, and the summary, into a folder.

        The last column of each table, ``note``, says that it is for research only. The tables of
        patients and of slides have their names: they are not for others.

        Parameters
        ----------
        folder
            Where to write.
        suppress_below
            Numbers of patients from 1 to below this are written as ``<5``.
        overwrite
            Whether files in the folder are replaced.

        Raises
        ------
        InputError
            The folder holds files already, or cannot be written to.
        """
        folder = Path(folder)
        require_free(folder, overwrite=overwrite)
        for name in _TABLES:
            table: pd.DataFrame = getattr(self, name)
            if len(table):
                table = _suppressed(table, suppress_below)
                keep_index = table.index.name == "patient"
                note = [self.note] + [""] * (len(table) - 1)
                with replacing(folder / f"{name}.csv") as beside:
                    table.assign(note=note).to_csv(beside, index=keep_index, float_format="%.6g")
        with replacing(folder / SUMMARY) as beside:
            beside.write_text(f"{self}\n", encoding="utf-8")


def _suppressed(table: pd.DataFrame, below: int) -> pd.DataFrame:
    """Write small numbers of patients as text, where this was asked for."""
    counts = [str(name) for name in table if str(name) in ("n_patients", "n_events")]
    small = [name for name in counts if table[name].between(1, below - 1).any()]
    return table.assign(**{name: [or_below(n, below) for n in table[name]] for name in small})


def _describe(row: "pd.Series[float]") -> str:
    """Write a row of scores as text."""
    text = f"{row['set']}: concordance {row['concordance']:.3f}"
    text += f" ({row['low']:.3f} to {row['high']:.3f}), {probability('p', row['p'])}"
    text += f", for all sets {probability('p', row['p_adjusted'])}"
    if pd.notna(row.get("beyond_p")):
        text += (
            f"; beyond clinical {row['beyond_clinical']:+.3f}, {probability('p', row['beyond_p'])}"
        )
    return text
