"""What all pairs say together, as a picture."""

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

import sagefm
from sagefm import InputError

EVIDENCE = ["model", "neighbors", "same spot", "beyond co-expression", "given library size"]


@pytest.fixture(autouse=True)
def no_figure_is_left_to_the_next_test():
    yield
    plt.close("all")


@pytest.fixture
def sets():
    """Five kinds of evidence; in the same spot there is one direction, and the last is a null."""
    rows = [
        (name, direction, 1284, 351, auroc, auroc - 0.02, auroc + 0.03, 4.8, p, 0.004, 0.01)
        for name, auroc, p in zip(
            EVIDENCE, (0.545, 0.53, 0.558, 0.54, 0.51), (0.0004, 0.003, 0.012, 0.0499, 0.2),
            strict=True,
        ) for direction in ("reversed", "forward") if name != "same spot" or direction == "forward"
    ]  # fmt: skip
    names = ["evidence", "direction", "n_pairs", "n_ligands", "auroc", "low", "high", "z", "p"]
    return pd.DataFrame(rows, columns=[*names, "p_ligands", "p_targets"])


def rows_of(ax):
    """AUROC, row, color and whether it is filled, of every dot from top to bottom."""
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    found = [
        (float(dot.get_ydata()[0]), float(dot.get_xdata()[0]), to_hex(dot.get_color()),
         to_hex(dot.get_markerfacecolor()) != "#ffffff")
        for dot in dots
    ]  # fmt: skip
    return sorted(found)


def texts(ax):
    return [text.get_text() for text in ax.texts]


def labels(ax):
    return [label.get_text() for label in ax.get_yticklabels()]


def boxes(ax):
    ax.figure.canvas.draw()
    heading = [ax.title, *ax.get_legend().get_texts()]
    written = [*heading, *ax.get_yticklabels(), ax.xaxis.label, *ax.texts]
    return [text.get_window_extent() for text in written if text.get_text()]


def within(ax):
    found, whole = boxes(ax), ax.figure.bbox
    return all(
        box.x0 >= whole.x0 and box.x1 <= whole.x1 and box.y0 >= whole.y0 and box.y1 <= whole.y1
        for box in found
    )


def overlaps(ax):
    found = boxes(ax)
    return [(a, b) for i, a in enumerate(found) for b in found[:i] if a.overlaps(b)]


def test_a_row_per_evidence_forward_filled_and_reversed_hollow_below_it(sets):
    ax = sagefm.pl.perturbation_sets(sets)
    assert labels(ax) == EVIDENCE
    low, high = ax.get_ylim()
    assert low > high  # the first on top
    found = rows_of(ax)
    assert [filled for *_, filled in found] == [True, False, True, False, True, True, False,
                                                True, False]  # fmt: skip
    assert found[4][:2] == (2, 0.558)  # alone, in the middle of its row
    assert [shade for _, _, shade, _ in found] == ["#d55e00"] * 7 + ["#444444"] * 2
    ends = [tuple(np.round(line.get_xdata(), 3)) for line in ax.lines if len(line.get_xdata()) == 2]
    assert (0.525, 0.575) in ends
    assert (0.5, 0.5) in ends
    assert texts(ax)[:3] == ["0.545", "< 0.001", "0.004"]
    assert texts(ax)[-5:-3] == ["0.2", "0.004"]
    assert "< 0.05" in texts(ax)  # 0.0499 is not rounded to what is not significant


def test_it_takes_the_table_of_pairs(sets):
    pairs = pd.DataFrame({"ligand": ["A"], "target": ["B"]})
    pairs.attrs["sets"] = sets
    assert rows_of(sagefm.pl.perturbation_sets(pairs)) == rows_of(sagefm.pl.perturbation_sets(sets))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "above its null (p < 0.001)"),
        ({"p": 0.214}, "not above its null (p = 0.21)"),
        ({"p": 0.05}, "not above its null (p = 0.05)"),
        ({"p_ligands": 0.3}, "above matched genes (p < 0.001),\nnot above other ligands"),
        ({"p": np.nan}, "not tested against a null"),
    ],
)
def test_the_title_says_what_the_set_is_and_whether_the_model_is_above_its_null(sets, values, said):
    sets.loc[(sets["evidence"] == "model") & (sets["direction"] == "forward"), [*values]] = [
        *values.values()
    ]
    title = sagefm.pl.perturbation_sets(sets).get_title()
    assert title == f"set of 1,284 pairs (351 ligands)\nmodel: {said}"


def test_without_the_model_the_title_is_about_the_first_evidence(sets):
    title = sagefm.pl.perturbation_sets(sets[sets["evidence"] != "model"]).get_title()
    assert title.endswith("neighbors: above its null (p = 0.003)")


def test_numbers_of_pairs_are_given_where_they_differ(sets):
    sets.loc[sets["evidence"] == "given library size", "n_pairs"] = 1203
    assert labels(sagefm.pl.perturbation_sets(sets))[-2:] == [
        "beyond co-expression", "given library size\n(1,203 pairs)",
    ]  # fmt: skip


def test_what_is_missing_is_said_and_not_drawn(sets):
    sets.loc[sets["evidence"] == "neighbors", ["auroc", "low", "high", "z", "p"]] = np.nan
    sets[["n_pairs", "n_ligands"]] = np.nan
    ax = sagefm.pl.perturbation_sets(sets)
    assert texts(ax).count("n/a") == 4
    assert ax.get_title().startswith("set of pairs\n")
    assert within(ax)


@pytest.mark.parametrize("n", [1, 2, 12])
@pytest.mark.parametrize("name", ["model", "residuals after all of the $components$ of the slide"])
def test_nothing_is_cut_off_or_drawn_over(sets, n, name):
    many = pd.concat([sets[:2].assign(evidence=f"{name} {i}", n_pairs=1284 - i) for i in range(n)])
    ax = sagefm.pl.perturbation_sets(many)
    assert len(labels(ax)) == n
    assert within(ax)
    assert not overlaps(ax)


def test_it_is_drawn_on_given_axes_and_saved(sets, tmp_path):
    _, (one, _) = plt.subplots(1, 2, figsize=(10, 3), layout="constrained")
    assert sagefm.pl.perturbation_sets(sets, ax=one, save=tmp_path / "sets.png") is one
    assert (tmp_path / "sets.png").stat().st_size > 5000
    assert not plt.get_fignums()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda sets: sets[:0], "empty"),
        (lambda sets: sets.drop(columns="auroc"), "'auroc': no such column"),
        (lambda sets: pd.DataFrame({"ligand": ["A"]}), "attrs.*which a CSV does not keep"),
        (lambda sets: {"p": 1}, "'evidence': no such column"),
        (lambda sets: sets.assign(direction="backward"), "direction backward: choose of forward"),
        (lambda sets: pd.concat([sets, sets]), "model reversed: has several rows"),
        (lambda sets: sets.assign(p="low"), "'p': holds what is no number"),
    ],
)
def test_mistakes_are_named(sets, change, said):
    with pytest.raises(InputError, match=said):
        sagefm.pl.perturbation_sets(change(sets))


def test_shuffled_pairs_have_a_tick_where_they_are_known(sets):
    def ticks(table):
        lines = sagefm.pl.perturbation_sets(table, show=False).lines
        places = [line.get_xdata()[0] for line in lines if line.get_marker() == "|"]
        return [place for place in places if np.isfinite(place)]

    assert ticks(sets.assign(auroc_shuffled=0.515)) == [0.515] * len(sets)
    assert not ticks(sets)
