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
    lines = [line for line in ax.lines if line.get_marker() in ("o", "D")]
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
    texts = [ax.title, *ax.get_yticklabels(), ax.xaxis.label, *ax.get_legend().get_texts()]
    boxes = [text.get_window_extent() for text in texts]
    return all(
        box.x0 >= whole.x0 - 1 and box.x1 <= whole.x1 + 1
        and box.y0 >= whole.y0 - 1 and box.y1 <= whole.y1 + 1
        for box in boxes
    )  # fmt: skip


def apart(ax):
    """Whether the legend stands clear of the rows and the names, and the title of the legend."""
    ax.figure.canvas.draw()
    legend = ax.get_legend().get_window_extent()
    others = [ax.get_window_extent(), *(t.get_window_extent() for t in ax.get_yticklabels())]
    below = legend.y0 >= max(box.y1 for box in others) - 2
    return below and ax.title.get_window_extent().y0 >= legend.y1 - 2


def test_rows_go_from_the_smallest_q_then_p_then_the_largest_distance(table):
    ax = sagefm.pl.perturbation(table)
    assert names_of(ax) == [
        "D \u2013 Y", "C \u2013 X", "B \u2013 W", "A \u2013 V", "E \u2013 \\$Z\\$",
    ]  # fmt: skip
    low, high = ax.get_ylim()
    assert low > high  # the first on top
    found = dots(ax)
    assert found["#d55e00"] == [(0, -0.4), (1, -0.1), (2, 0.2)]
    assert found["#444444"] == [(3, 0.3), (4, 0.0)]
    bars = {(round(b.get_x(), 6), round(b.get_x() + b.get_width(), 6)) for b in ax.patches}
    assert bars == {(-0.2, 0.25)}
    assert words(ax) == [
        "q < 0.05", "q ≥ 0.05", "matched genes, 95 %", "their median", "range of refits",
    ]  # fmt: skip


def test_only_so_many_are_drawn(table):
    assert names_of(sagefm.pl.perturbation(table, 2)) == ["D \u2013 Y", "C \u2013 X"]


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
        assert "range of refits" not in words(ax)


def test_pairs_without_a_null_stand_last(table):
    nothing = table["ligand"] == "D"
    for column in ("z", "p", "q", "null_low", "null_median", "null_high"):
        table.loc[nothing, column] = np.nan
    ax = sagefm.pl.perturbation(table)
    assert names_of(ax)[-1] == "D \u2013 Y"
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


def test_the_title_says_how_many_pairs_pass(table):
    assert sagefm.pl.perturbation(table, 2).get_title() == "q < 0.05: 3 of 5 pairs"
    table["q"] = [0.9, 0.05, 0.2, np.nan, 0.05]
    assert sagefm.pl.perturbation(table).get_title() == "no pair has q < 0.05, of 4 tested"
    assert sagefm.pl.perturbation(table[:1]).get_title() == "no pair has q < 0.05"
    ax = sagefm.pl.perturbation(table.assign(q=np.nan))
    assert ax.get_title() == "no pair was tested: none has a q"
    assert words(ax)[0] == "no q"


def test_small_effects_are_drawn_in_a_power_of_ten(table):
    shown = ["effect", "null_low", "null_median", "null_high", "effect_low", "effect_high"]
    table[shown] *= 1e-5
    ax = sagefm.pl.perturbation(table)
    assert ax.get_xlabel().endswith("(10$^{-6}$ log1p counts)")
    ax.figure.canvas.draw()
    ticks = [label.get_text().replace("\N{MINUS SIGN}", "-") for label in ax.get_xticklabels()]
    np.testing.assert_allclose([float(tick) for tick in ticks], ax.get_xticks() / 1e-6, rtol=0.01)
    assert not ax.xaxis.get_offset_text().get_text()
    assert within(ax)


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
    largest = np.percentile(np.abs(answered.obsm["sagefm_response"]["UP"]), 99.5)
    low, high = panel.collections[-1].get_clim()
    assert -low == high == pytest.approx(largest, rel=1e-6)
    assert panel.get_title() == "UP"
    label = panel.collections[-1].colorbar.ax.get_ylabel()
    assert label.replace("\n", " ") == "change of predicted log1p counts"
    np.testing.assert_allclose(
        panel.collections[-1].get_array(), answered.obsm["sagefm_response"]["UP"]
    )
    assert list(answered.obs) == before


def test_a_panel_per_gene_each_of_its_own_scale_with_a_color_bar(answered):
    panels = sagefm.pl.response(answered, ["PART", "STILL", "UP"])
    assert [panel.get_title() for panel in panels] == ["PART", "STILL", "UP"]
    part, still, up = (panel.collections[-1].get_clim()[1] for panel in panels)
    assert 0.15 < part < 0.21 < 0.3 < up < 0.4 < still == 1  # where nothing changes, all is white
    assert all(panel.collections[-1].colorbar for panel in panels)
    panels[0].figure.canvas.draw()
    assert limits(sagefm.pl.response(answered, "STILL")) == (-1, 1)


def test_maps_of_several_calls_share_a_limit_that_is_given(answered):
    for gene in ("PART", "STILL", "UP"):
        assert limits(sagefm.pl.response(answered, gene, limit=0.7)) == (-0.7, 0.7)


@pytest.mark.parametrize(
    ("q", "said"),
    [
        (0.63, "(q = 0.63: not significant)"),
        (0.05, "(q = 0.05: not significant)"),
        (0.0499, "(q < 0.05)"),
        (0.012, "(q = 0.012)"),
        (0.0004, "(q < 0.001)"),
        (np.nan, "(not tested: no q)"),
    ],
)
def test_the_title_of_a_map_says_what_is_not_significant(answered, q, said):
    panel = sagefm.pl.response(answered, "UP", title="UP, A at its highest", q=q)
    assert panel.get_title() == f"UP, A at its highest\n{said}"


def test_every_panel_has_its_own_title_and_q(answered):
    panels = sagefm.pl.response(answered, ["PART", "UP"], title=["a", "$b$"], q=[0.5, 0.01])
    titles = [panel.get_title() for panel in panels]
    assert titles == ["a\n(q = 0.5: not significant)", "\\$b\\$\n(q = 0.01)"]


def test_long_titles_of_maps_are_not_cut_off(answered):
    title = "ENSG00000141510, ENSG00000141511 at its highest in the neighbors"
    several = sagefm.pl.response(answered, ["PART", "UP"], title=[title] * 2, q=[0.5, 0.01])
    for panel in (sagefm.pl.response(answered, "UP", title=title, q=0.3), *several):
        panel.figure.canvas.draw()
        box, whole = panel.title.get_window_extent(), panel.figure.bbox
        assert box.x0 >= whole.x0
        assert box.x1 <= whole.x1
        assert box.y1 <= whole.y1 + 1
    first, second = (panel.title.get_window_extent() for panel in several)
    assert first.x1 < second.x0


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
    for limit in (0, -1, np.nan, np.inf):
        with pytest.raises(InputError, match=r"limit=.*give a number above 0"):
            sagefm.pl.response(answered, "UP", limit=limit)
    with pytest.raises(InputError, match="2 values of q for 1 panels"):
        sagefm.pl.response(answered, "UP", q=[0.1, 0.2])
    answered.obsm["other"] = np.zeros((60, 1))
    with pytest.raises(InputError, match="is no table of genes"):
        sagefm.pl.response(answered, "UP", key="other")
    answered.obs["library_id"] = np.repeat(["a", "b"], 30)
    with pytest.raises(InputError, match="several slides in one object"):
        sagefm.pl.response(answered, "UP")
