import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

import sagefm
from sagefm import InputError
from sagefm.pp.simulate import simulate


@pytest.fixture(autouse=True)
def no_figure_is_left_to_the_next_test():
    yield
    plt.close("all")


@pytest.fixture
def table():
    """Five pairs, the best last but one: ties of q are broken by p, ties of p by the size of z."""
    rows = [
        ("A", "V", 0.3, 1.0, 0.20, 0.90),
        ("B", "W", 0.2, -3.0, 0.01, 0.04),
        ("C", "X", -0.1, 4.0, 0.01, 0.04),
        ("D", "Y", -0.4, -2.0, 0.001, 0.04),
        ("E", "$Z$", 0.0, 0.1, 0.90, 0.90),
    ]
    names = ["ligand", "target", "effect", "z", "p", "q"]
    found = pd.DataFrame(rows, columns=names)
    low, high = found["effect"] - 0.05, found["effect"] + 0.05
    found = found.assign(null_low=-0.2, null_median=0.01, null_high=0.25)
    return found.assign(effect_low=low, effect_high=high)


def names_of(ax):
    return [label.get_text() for label in ax.get_yticklabels()]


def dots(ax):
    """Effect and row of every dot, by color."""
    lines = [line for line in ax.lines if line.get_marker() == "o"]
    return {
        to_hex(line.get_color()): sorted(
            zip(line.get_ydata(), line.get_xdata(), strict=True)
        ) for line in lines
    }  # fmt: skip


def words(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def within(ax):
    """Whether all that is written lies within the picture."""
    figure = ax.figure
    figure.canvas.draw()
    whole = figure.bbox
    texts = [*ax.get_yticklabels(), ax.xaxis.label, *ax.get_legend().get_texts()]
    boxes = [text.get_window_extent() for text in texts]
    return all(
        box.x0 >= whole.x0 - 1 and box.x1 <= whole.x1 + 1
        and box.y0 >= whole.y0 - 1 and box.y1 <= whole.y1 + 1
        for box in boxes
    )  # fmt: skip


def apart(ax):
    """Whether the legend stands clear of the rows and the names."""
    ax.figure.canvas.draw()
    legend = ax.get_legend().get_window_extent()
    others = [ax.get_window_extent(), *(t.get_window_extent() for t in ax.get_yticklabels())]
    return legend.y0 >= max(box.y1 for box in others) - 2


def test_rows_go_from_the_smallest_q_then_p_then_the_largest_distance(table):
    ax = sagefm.pl.perturbation(table)
    assert names_of(ax) == ["D → Y", "C → X", "B → W", "A → V", r"E → \$Z\$"]
    low, high = ax.get_ylim()
    assert low > high  # the first on top
    found = dots(ax)
    assert found["#d55e00"] == [(0, -0.4), (1, -0.1), (2, 0.2)]
    assert found["#444444"] == [(3, 0.3), (4, 0.0)]
    bars = {(round(b.get_x(), 6), round(b.get_x() + b.get_width(), 6)) for b in ax.patches}
    assert bars == {(-0.2, 0.25)}
    assert words(ax) == [
        "q < 0.05", "q ≥ 0.05", "matched genes, 95 %", "their median", "95 % over slides",
    ]  # fmt: skip


def test_only_so_many_are_drawn(table):
    assert names_of(sagefm.pl.perturbation(table, 2)) == ["D → Y", "C → X"]


def test_intervals_are_drawn_where_they_are_known(table):
    one = table.assign(effect_low=[np.nan, *table["effect_low"][1:]])  # A has none
    (lines,) = sagefm.pl.perturbation(one, 4).collections
    drawn = [part for part in lines.get_segments() if np.size(part)]
    ends = [tuple(segment[:, 0].round(6)) for segment in drawn]
    assert ends == [(-0.45, -0.35), (-0.15, -0.05), (0.15, 0.25)]
    for missing in (table.assign(effect_low=np.nan, effect_high=np.nan),
                    table.drop(columns=["effect_low", "effect_high"])):  # fmt: skip
        ax = sagefm.pl.perturbation(missing)
        assert not ax.collections
        assert "95 % over slides" not in words(ax)


def test_pairs_without_a_null_stand_last(table):
    nothing = table["ligand"] == "D"
    for column in ("z", "p", "q", "null_low", "null_median", "null_high"):
        table.loc[nothing, column] = np.nan
    ax = sagefm.pl.perturbation(table)
    assert names_of(ax)[-1] == "D → Y"
    ax.figure.canvas.draw()


@pytest.mark.parametrize("n", [1, 3, 20, 60])
@pytest.mark.parametrize("gene", ["A", "ENSG00000141510"])
def test_nothing_is_cut_off_or_drawn_over(table, n, gene):
    many = pd.concat([table] * 12, ignore_index=True)[:n].assign(ligand=gene, target=gene)
    ax = sagefm.pl.perturbation(many, n)
    assert len(names_of(ax)) == n
    assert within(ax)
    assert apart(ax)


def test_it_is_drawn_on_axes_that_are_given(table):
    _, (one, _) = plt.subplots(1, 2, figsize=(7, 3), layout="constrained")
    assert sagefm.pl.perturbation(table, ax=one) is one
    assert within(one)


def test_it_is_saved(table, tmp_path):
    sagefm.pl.perturbation(table, save=tmp_path / "new" / "pairs.png")
    assert (tmp_path / "new" / "pairs.png").stat().st_size > 5000
    assert not plt.get_fignums()


@pytest.mark.parametrize(
    ("change", "n", "said"),
    [
        (lambda table: table[:0], 20, "empty"),
        (lambda table: table.drop(columns="z"), 20, "'z': no such column"),
        (lambda table: table, 0, "n=0"),
    ],
)
def test_mistakes_are_named(table, change, n, said):
    with pytest.raises(InputError, match=said):
        sagefm.pl.perturbation(change(table), n)


@pytest.fixture
def answered():
    """A slide with a response: one gene rises and falls, one never moves, one is read in part."""
    slide = simulate(60, seed=4)
    inside = np.arange(60) < 20
    slide.obsm["sagefm_response"] = pd.DataFrame(
        {
            "UP": np.linspace(-0.1, 0.4, 60, dtype=np.float32),
            "STILL": np.zeros(60, dtype=np.float32),
            "PART": np.where(inside, -0.2, np.nan).astype(np.float32),
        },
        slide.obs_names,
    )
    return slide


def limits(panel):
    return pytest.approx(panel.collections[-1].get_clim())


def test_the_map_has_colors_even_around_zero(answered):
    before = list(answered.obs)
    panel = sagefm.pl.response(answered, "UP")
    assert limits(panel) == (-0.4, 0.4)
    assert panel.get_title() == "UP"
    assert panel.collections[-1].colorbar.ax.get_ylabel() == "change of predicted log1p counts"
    np.testing.assert_allclose(
        panel.collections[-1].get_array(), answered.obsm["sagefm_response"]["UP"]
    )
    assert list(answered.obs) == before


def test_a_panel_per_gene(answered):
    panels = sagefm.pl.response(answered, ["PART", "STILL", "UP"])
    assert [panel.get_title() for panel in panels] == ["PART", "STILL", "UP"]
    assert limits(panels[0]) == (-0.2, 0.2)
    assert limits(panels[1]) == (-1, 1)
    panels[0].figure.canvas.draw()


def test_spots_outside_the_region_are_gray(answered):
    sagefm.pl.response(answered, "PART").figure.canvas.draw()
    outside = answered[20:].copy()  # none of its spots was read
    panel = sagefm.pl.response(outside, "PART")
    assert limits(panel) == (-1, 1)
    panel.figure.canvas.draw()


def test_a_map_on_given_axes_with_a_title(answered, tmp_path):
    _, ax = plt.subplots()
    save = tmp_path / "map.png"
    assert sagefm.pl.response(answered, "UP", ax=ax, title="UP, A raised", save=save) is ax
    assert ax.get_title() == "UP, A raised"
    assert save.stat().st_size > 5000
    assert not plt.get_fignums()


def test_what_cannot_be_drawn_is_named(answered):
    with pytest.raises(InputError, match=r"run sagefm\.tl\.respond first"):
        sagefm.pl.response(answered, "UP", key="other")
    with pytest.raises(InputError, match=r"NOT9A.*has no such gene, but UP, STILL, PART"):
        sagefm.pl.response(answered, ["UP", "NOT9A"])
    answered.obs["library_id"] = np.repeat(["a", "b"], 30)
    with pytest.raises(InputError, match="several sections in one object cannot share a plot"):
        sagefm.pl.response(answered, "UP")
