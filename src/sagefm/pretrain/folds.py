"""Folds of slides for testing: a dataset or a patient is never divided."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from sagefm._errors import InputError


def folds_of(table: pd.DataFrame, n_folds: int, name: str = "data.folds") -> "pd.Series[int]":
    """Divide slides into folds of about equal size, and the slides of each organ likewise.

    Slides that share a dataset or a patient are kept together, and so are those that are connected
    by others. A slide without a dataset is kept with its patient. The largest groups are placed
    first, each where its organs have the fewest spots; nothing is drawn at random, so that the
    same slides are always divided in the same way.

    Parameters
    ----------
    table
        A row per slide: patient, spots and, if known, dataset and organ.
    name
        What the number of folds is called in an error.

    Returns
    -------
    The fold of each slide, from 1 to `n_folds`.

    Raises
    ------
    InputError
        There are fewer groups than folds.
    """
    ordered = table.sort_index()
    groups = _groups(ordered)
    n_groups = int(groups.max()) + 1
    if n_groups < n_folds:
        raise InputError(
            f"{name} is {n_folds}: the slides are of {n_groups} separate datasets or patients; "
            "give at most as many"
        )
    organs = pd.factorize(_text(ordered, "organ"))[0]
    spots = ordered["spots"].to_numpy(dtype=float)
    of_organs = np.zeros((n_groups, organs.max() + 1))
    np.add.at(of_organs, (groups, organs), spots)
    totals = of_organs.sum(axis=1, keepdims=True)
    # Fractions of each organ, and of all spots as if that were as many organs more.
    parts = np.hstack(
        [of_organs / of_organs.sum(axis=0), of_organs.shape[1] ** 0.5 * totals / totals.sum()]
    )
    fold_of_group = np.zeros(n_groups, dtype=np.int64)
    loads = np.zeros((n_folds, parts.shape[1]))
    for place, group in enumerate(np.argsort(-totals[:, 0], kind="stable")):
        # The last groups fill the folds that are empty.
        empty = np.flatnonzero(~loads.any(axis=1))
        among = empty if len(empty) == n_groups - place else np.arange(n_folds)
        fold = among[np.argmin(loads[among] @ parts[group])]
        loads[fold] += parts[group]
        fold_of_group[group] = fold + 1
    return pd.Series(fold_of_group[groups], index=ordered.index, name="fold")[table.index]


def _groups(table: pd.DataFrame) -> NDArray[np.int64]:
    """Find the groups of slides that are connected by a dataset or a patient."""
    patients = pd.factorize(_text(table, "patient"))[0]
    dataset = _text(table, "dataset")
    datasets, names = pd.factorize(dataset.mask(dataset == ""))  # -1 where not known
    known, n_patients = datasets >= 0, int(patients.max()) + 1
    links = coo_matrix(
        (np.ones(known.sum()), (patients[known], n_patients + datasets[known])),
        shape=(n_patients + len(names),) * 2,
    )
    found = connected_components(links, directed=False)[1]
    return np.asarray(pd.factorize(found[patients])[0], dtype=np.int64)


def _text(table: pd.DataFrame, column: str) -> "pd.Series[str]":
    return table[column] if column in table else pd.Series("", index=table.index)
