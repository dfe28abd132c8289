"""Join slides with the table of patients, and make the table of the result."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from sagefm._errors import InputError
from sagefm._text import few, numbered
from sagefm.pp.labels import text_of
from sagefm.stats.outcomes import ClassTarget, Evaluation, OrdinalTarget, Target
from sagefm.tl.outcomes._features import SlidesOfPatients
from sagefm.tl.outcomes._slides import OutcomeSlide
from sagefm.tl.outcomes._table import PatientTable, is_number

_LEAST = 1e-12


@dataclass(frozen=True)
class Columns:
    """The columns of a table that take part, by the names that the table gives them."""

    table: PatientTable
    target: str | tuple[str, str]
    clinical: list[str]
    site: str | None

    @property
    def notes(self) -> list[str]:
        """What a user should know of these columns."""
        outcomes = [self.target] if isinstance(self.target, str) else list(self.target)
        names = dict.fromkeys([*outcomes, *self.clinical, *([self.site] if self.site else [])])
        return [note for name in names for note in self.table.notes.get(name, [])]

    @classmethod
    def of(
        cls,
        table: PatientTable,
        target: str | tuple[str, str],
        clinical: str | Sequence[str] | None,
        site: str | None,
    ) -> "Columns":
        """Find the columns.

        Raises
        ------
        InputError
            A column is missing, or a clinical column or the site is the outcome.
        """
        found: str | tuple[str, str]
        if isinstance(target, str):
            found = table.column(target, "target")
        elif isinstance(target, Sequence) and len(target) == 2:
            found = table.column(target[0], "time"), table.column(target[1], "event")
        else:
            raise InputError(f"target={target!r}: name one column, or two for time and event")
        names = names_of(clinical, "clinical")
        features = list(dict.fromkeys(table.column(name, "clinical") for name in names))
        place = None if site is None else table.column(site, "site")
        outcomes = [found] if isinstance(found, str) else list(found)
        for name in outcomes:
            if name in features or name == place:
                what = "clinical column" if name in features else "site"
                raise InputError(
                    f"{name!r} is both the outcome and a {what}; it cannot be predicted from itself"
                )
        return cls(table, found, features, place)


def names_of(names: str | Sequence[str] | None, what: str) -> list[str]:
    """List one name, several or none.

    Raises
    ------
    InputError
        It is something else.
    """
    if names is None:
        return []
    if isinstance(names, str) or not isinstance(names, Iterable):
        names = [names]
    listed = list(names)
    for name in listed:
        if not isinstance(name, str):
            raise InputError(f"{what}={names!r}: give names of columns")
    return listed


@dataclass(frozen=True)
class OutcomeCohort:
    """Patients with slides."""

    rows: pd.DataFrame
    """A row per patient, by name: nothing depends on the order of the table."""
    slides: SlidesOfPatients
    notes: list[str]

    def sites(self, column: str | None) -> "pd.Series[str] | None":
        """Get the site of each patient, None where it is unknown."""
        if column is None:
            return None
        sites = self.rows[column]
        if is_number(sites) and (sites.dropna() % 1 == 0).all():
            sites = sites.astype("Int64")
        return text_of(sites)


def join(columns: Columns, slides: Sequence[OutcomeSlide]) -> OutcomeCohort:
    """Find the row of each slide; leave out slides without one, and rows without slides.

    Raises
    ------
    InputError
        No patient of the slides is in the table.
    """
    table = columns.table
    names = list(dict.fromkeys(one.patient for one in slides))
    row_of = table.match(names)
    if not row_of:
        raise InputError(
            f"{table.place}: has no patient of the slides ({few(names)}), but "
            f"{few(table.rows.index)}; use the same names, the obs column of "
            "patient_key, or patients={slide: patient}"
        )
    kept = [one for one in slides if one.patient in row_of]
    notes = []
    if lost := [one.number for one in slides if one.patient not in row_of]:
        n_lost = len([name for name in names if name not in row_of])
        notes.append(
            f"{numbered(len(lost), 'slide')} of {numbered(n_lost, 'patient')} left out, for the "
            f"table has no row for them (number {few(lost, 10)} of {len(slides)})"
        )
    used = set(row_of.values())
    rows = table.rows[table.rows.index.isin(used)].sort_index()
    if n_without := len(table.rows) - len(rows):
        notes.append(f"{numbered(n_without, 'patient')} of the table without a slide left out")
    # What is drawn at random of slides depends on what they hold, not on their order or names.
    kept.sort(key=lambda one: (row_of[one.patient], one.summary.z.tobytes()))
    owners = pd.Index([row_of[one.patient] for one in kept])
    codes = rows.index.get_indexer(owners).astype(np.int64)
    return OutcomeCohort(rows, SlidesOfPatients(kept, codes, len(rows)), notes)


def patients_table(
    cohort: OutcomeCohort, target: Target, evaluation: Evaluation, best: str, of: Columns
) -> pd.DataFrame:
    """Tabulate the patients, their outcomes and out-of-fold predictions, in the user's order."""
    outcomes = target.columns()
    columns: dict[str, object] = dict(outcomes)
    if isinstance(target, ClassTarget | OrdinalTarget):
        order = target.classes if isinstance(target, ClassTarget) else target.levels
        kind = pd.CategoricalDtype(order, ordered=isinstance(target, OrdinalTarget))
        columns[target.name] = pd.Series(outcomes[target.name]).astype(kind).array
    columns["n_slides"] = cohort.slides.sizes
    sites = cohort.sites(of.site)
    if sites is not None:
        columns["site"] = sites.to_numpy()
    of_best = evaluation.risks[best]
    columns["held_out"] = of_best["held_out"].to_numpy()
    for name, table in evaluation.risks.items():
        if len(target.outputs) == 1:
            columns[f"risk_{name}"] = table["risk"].to_numpy()
            continue
        for output in target.outputs:
            p = table[f"probability_{output}"].to_numpy(dtype=float)
            columns[f"risk_{name}_{output}"] = np.log(np.maximum(p, _LEAST))
    for column in of_best.columns.difference(["held_out", "risk", "margin"], sort=False):
        columns[str(column)] = of_best[column].to_numpy()
    table = pd.DataFrame(columns, index=cohort.rows.index.rename("patient"))
    return table.loc[[name for name in of.table.rows.index if name in table.index]]
