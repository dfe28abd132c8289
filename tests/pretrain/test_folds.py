"""Folds: what belongs together stays together."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sagefm import InputError
from sagefm.pretrain.data import split_spots
from sagefm.pretrain.folds import folds_of
from sagefm.pretrain.recipe import DataTable

names = st.sampled_from("abcdefghij")
slides = st.lists(
    st.tuples(names, st.sampled_from(["", *"ABCDEF"]), st.sampled_from(["", "Lung", "Skin"]),
              st.integers(1, 9999)),
    min_size=1, max_size=30,
)  # fmt: skip
steady = settings(derandomize=True, deadline=None)


def a_table(rows):
    columns = ["patient", "dataset", "organ", "spots"]
    return pd.DataFrame(rows, columns=columns, index=[f"s{i:02}" for i in range(len(rows))])


def n_groups(table):
    """Count what must be kept together, by merging sets until none touch."""
    groups = []
    for row in table.itertuples():
        keys = {("patient", row.patient)} | ({("dataset", row.dataset)} if row.dataset else set())
        touching = [group for group in groups if group & keys]
        groups = [group for group in groups if not group & keys] + [keys.union(*touching)]
    return len(groups)


@steady
@given(slides, st.integers(2, 6))
def test_no_dataset_and_no_patient_is_divided(rows, n_folds):
    table = a_table(rows)
    if n_groups(table) < n_folds:
        with pytest.raises(InputError, match=f"of {n_groups(table)} separate datasets or patients"):
            folds_of(table, n_folds)
        return
    fold = folds_of(table, n_folds)
    assert fold.index.equals(table.index)
    assert set(fold) == set(range(1, n_folds + 1))  # none is empty
    assert (fold.groupby(table["patient"]).nunique() == 1).all()
    known = table["dataset"] != ""
    assert (fold[known].groupby(table["dataset"][known]).nunique() == 1).all()


@steady
@given(slides, st.randoms())
def test_the_order_of_the_slides_does_not_matter(rows, chance):
    table = a_table(rows)
    if n_groups(table) < 2:
        return
    mixed = chance.sample(list(table.index), len(table))
    pd.testing.assert_series_equal(folds_of(table, 2), folds_of(table.loc[mixed], 2)[table.index])


@steady
@given(slides, st.integers(1, 2), st.sampled_from([[], 0.3]))
def test_a_fold_is_neither_trained_nor_validated_on(rows, number, validation):
    table = a_table(rows)
    fold = folds_of(table, 2) if n_groups(table) > 1 else None
    if fold is None:
        return
    data = DataTable(fold=number, folds=2, validation=validation)
    used = set().union(*split_spots(table, data, 0))
    assert used == set(table.index[fold != number])


def test_folds_are_of_one_size_and_each_has_every_organ():
    rng = np.random.default_rng(0)
    rows = [
        (f"p{i}", f"d{i // 3}", ("Lung", "Skin")[i // 3 % 2], int(n))
        for i, n in enumerate(rng.integers(500, 4000, 90))
    ]
    table = a_table(rows)
    sizes = table.assign(fold=folds_of(table, 3)).pivot_table(
        index="fold", columns="organ", values="spots", aggfunc="sum"
    )
    assert sizes.notna().all(axis=None)
    assert (sizes.max() < 1.15 * sizes.min()).all()


def test_slides_of_unknown_dataset_and_organ_are_divided_by_patient():
    table = a_table([(f"p{i // 2}", "", "", 10) for i in range(8)])[["patient", "spots"]]
    fold = folds_of(table, 4)
    assert fold.tolist()[::2] == fold.tolist()[1::2]
    assert sorted(fold[::2]) == [1, 2, 3, 4]
