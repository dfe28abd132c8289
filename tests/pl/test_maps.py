"""Maps of several sections, of what is in obsm, of groups and boxes, and their scales."""

import matplotlib as mpl

mpl.use("Agg")

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgba, to_rgba_array

import sagefm
from sagefm import InputError
from sagefm._colors import colors
from sagefm.pp import simulate

GRAY = to_rgba("#DDDDDD")


@pytest.fixture(scope="module")
def pair():
    return {name: simulate(n, seed=n) for name, n in (("a", 80), ("b", 60))}


@pytest.fixture
def one():
    return simulate(80, seed=80)


def spots_of(panel):
    return panel.collections[0]


def values_of(panel):
    return np.ma.filled(spots_of(panel).get_array(), np.nan)


def limits(panel):
    return spots_of(panel).get_clim()


def texts(figure):
    figure.draw_without_rendering()
    return [text for text in figure.findobj(mpl.text.Text) if text.get_text() and
            text.get_visible()]  # fmt: skip


def test_sections_share_the_scale_of_a_gene_that_one_spot_does_not_decide(pair):
    gene = str(pair["a"].var_names[np.argmax(pair["a"].X.sum(axis=0))])
    panels = sagefm.pl.spatial(pair, gene)
    assert [panel.get_title() for panel in panels] == ["a", "b"]
    both = np.concatenate([slide[:, gene].X.toarray().ravel() for slide in pair.values()])
    assert [limits(panel) for panel in panels] == [tuple(np.percentile(both, [1, 99]))] * 2
    bars = {id(spots_of(panel).colorbar) for panel in panels} - {id(None)}
    assert len(bars) == 1  # one bar serves both
    assert spots_of(panels[1]).colorbar.ax.get_ylabel() == f"{gene}, counts"


def test_sections_are_rows_and_colors_columns(pair):
    panels = sagefm.pl.spatial(pair, ["domain", "depth"])
    assert [panel.get_title() for panel in panels] == ["domain", "depth", "", ""]
    assert [panel.get_ylabel() for panel in panels] == ["a", "", "b", ""]
    places = [panel.get_subplotspec().get_geometry()[2] for panel in panels]
    assert places == [0, 1, 2, 3]
    assert limits(panels[1]) == limits(panels[3])


def test_a_category_has_one_color_in_all_sections(pair):
    pair = {name: slide.copy() for name, slide in pair.items()}
    pair["b"].obs["domain"] = pair["b"].obs["domain"].cat.rename_categories({"D1": "new"})
    panels = sagefm.pl.spatial(list(pair.values()), "domain")
    assert [panel.get_title() for panel in panels] == ["slide 1", "slide 2"]
    (legend,) = panels[0].figure.legends
    shades = dict(zip([t.get_text() for t in legend.get_texts()], legend.legend_handles,
                      strict=True))  # fmt: skip
    for panel, slide in zip(panels, pair.values(), strict=True):
        wanted = to_rgba_array([shades[name].get_color() for name in slide.obs["domain"]])
        assert np.array_equal(spots_of(panel).get_facecolors(), wanted)
    assert len({handle.get_color() for handle in shades.values()}) == 6
    assert not any("domain_colors" in slide.uns for slide in pair.values())


def test_colors_that_all_slides_keep_are_theirs(pair):
    pair = {name: slide.copy() for name, slide in pair.items()}
    kept = colors(8)[:2:-1]
    for slide in pair.values():
        slide.uns["domain_colors"] = kept
    for panel, slide in zip(sagefm.pl.spatial(pair, "domain"), pair.values(), strict=True):
        wanted = to_rgba_array(kept)[slide.obs["domain"].cat.codes]
        assert np.array_equal(spots_of(panel).get_facecolors(), wanted)


def test_sections_of_one_object(pair):
    both = ad.concat(pair, label="sample", index_unique="-")
    panels = sagefm.pl.spatial(both, "depth", slide_key="sample")
    assert [panel.get_title() for panel in panels] == ["a", "b"]
    for panel, slide in zip(panels, pair.values(), strict=True):
        assert np.array_equal(spots_of(panel).get_offsets(), slide.obsm["spatial"])
    with pytest.raises(InputError, match="pass slide_key='sample'"):
        sagefm.pl.spatial(both, "depth")


def test_columns_of_obsm(one):
    one.obsm["X_sagefm"] = np.arange(160.0).reshape(80, 2)
    table = pd.DataFrame({"x:y": np.arange(80), "kind": ["u", "v"] * 40}, index=one.obs_names)
    one.obsm["more"] = table
    assert np.array_equal(values_of(sagefm.pl.spatial(one, "X_sagefm:1")), np.arange(1, 160, 2))
    panel = sagefm.pl.spatial(one, "more:x:y")
    assert np.array_equal(values_of(panel), np.arange(80))
    assert panel.get_title() == "x:y (more)"
    assert sagefm.pl.spatial(one, "more:kind").get_legend().get_texts()[1].get_text() == "v"
    for name, said in (("X_sagefm:2", "give 0 to 1"), ("more:z", "but x:y, kind")):
        with pytest.raises(InputError, match=said):
            sagefm.pl.spatial(one, name)


def test_a_gene_that_was_not_measured_is_the_imputed_one(one):
    gene = str(one.var_names[0])
    held = {gene: np.zeros(80), "NOT1A": np.arange(80)}
    one.obsm["sagefm_imputed"] = pd.DataFrame(held, index=one.obs_names)
    panel = sagefm.pl.spatial(one, "NOT1A")
    assert panel.get_title() == "NOT1A (imputed)"
    assert np.array_equal(values_of(panel), np.arange(80))
    assert sagefm.pl.spatial(one, gene).get_title() == gene
    assert sagefm.pl.spatial(one, f"sagefm_imputed:{gene}").get_title() == f"{gene} (imputed)"


def test_groups_are_colored_and_the_rest_gray(one):
    panel = sagefm.pl.spatial(one, "domain", groups=["D2", "D1"])
    shades = to_rgba_array(one.uns["domain_colors"])
    for name, shade in (("D1", shades[0]), ("D2", shades[1]), ("D3", GRAY)):
        of = spots_of(panel).get_facecolors()[(one.obs["domain"] == name).to_numpy()]
        assert (of == shade).all()
    assert [t.get_text() for t in panel.get_legend().get_texts()] == ["D2", "D1", "other"]
    with pytest.raises(InputError, match="'D9' is no category of 'domain': D1"):
        sagefm.pl.spatial(one, "domain", groups="D9")


@pytest.mark.parametrize(
    ("wanted", "ends"),
    [({"vmin": 1, "vmax": "p50"}, (1, 50)), ({"vmax": [10]}, (1, 10)), ({"vcenter": 0}, (-99, 99)),
     ({"vmin": "p0", "vmax": "p100"}, (0, 100))],
)  # fmt: skip
def test_the_ends_of_a_scale(one, wanted, ends):
    one = one[:76].copy()
    one.obs["n"] = np.r_[np.zeros(0), np.linspace(0, 100, 76)]
    assert limits(sagefm.pl.spatial(one, "n", **wanted)) == pytest.approx(ends)


def test_a_bar_shows_that_values_lie_beyond_it(one):
    one.obs["n"] = np.arange(80)
    for wanted, beyond in (
        ({}, "both"),
        ({"vmin": 0}, "max"),
        ({"vmin": 0, "vmax": 79}, "neither"),
    ):
        assert spots_of(sagefm.pl.spatial(one, "n", **wanted)).colorbar.extend == beyond


def test_a_box_of_the_coordinates(one):
    (x0, y0), (x1, y1) = np.quantile(one.obsm["spatial"], [0.2, 0.6], axis=0)
    panel = sagefm.pl.spatial(one, "domain", crop=(x1, x0, y0, y1))
    assert panel.get_xlim() == (x0, x1)
    assert panel.get_ylim() == (y1, y0)
    one.obs["in_tissue"] = (one.obsm["spatial"][:, 0] < x1).astype(int)
    inside = one.obsm["spatial"][one.obs["in_tissue"] == 1, 0]
    assert sagefm.pl.spatial(one, "domain", crop="tissue").get_xlim()[1] == inside.max() + 200
    with pytest.raises(InputError, match="holds no spot; x is from"):
        sagefm.pl.spatial(one, "domain", crop=(-9, -8, -9, -8))


def bar_of(panel):
    """Length of the scale bar in the coordinates, and its name."""
    (line,), (name,) = panel.lines, panel.texts
    return float(np.ptp(line.get_xdata())), name.get_text().strip()


def test_the_scale_bar_has_the_length_that_it_says(one):
    length, name = bar_of(sagefm.pl.spatial(one, "domain"))
    assert name == "200 µm"
    assert length == pytest.approx(2 * 200)  # 100 µm between spots are 200 pixels
    factors = {"spot_diameter_fullres": 110.0}
    one.uns = {"spatial": {"x": {"images": {}, "scalefactors": factors}}}
    assert bar_of(sagefm.pl.spatial(one, "domain")) == (length, name)
    factors["spot_diameter_fullres"] = 200.0  # bins touch; those are no spots of 55 µm
    assert not sagefm.pl.spatial(one, "domain").lines
    factors["microns_per_pixel"] = 0.25
    assert bar_of(sagefm.pl.spatial(one, "domain")) == (2 * 200, "100 µm")
    assert not sagefm.pl.spatial(one, "domain", scale_bar=False).lines


def test_spots_let_the_tissue_through(one):
    opaque = spots_of(sagefm.pl.spatial(one, "depth"))
    assert opaque.get_alpha() is None
    factors = {"tissue_hires_scalef": 0.02}
    image = {"images": {"hires": np.ones((120, 120, 3))}, "scalefactors": factors}
    one.uns["spatial"] = {"x": image}
    panel = sagefm.pl.spatial(one, "depth")
    clear = spots_of(panel)
    assert clear.get_alpha() < 1
    assert clear.get_widths().max() < opaque.get_widths().max()
    panel = sagefm.pl.spatial(one, "depth", alpha=0.3, img_alpha=0.2, size=0.5)
    assert (spots_of(panel).get_alpha(), panel.images[0].get_alpha()) == (0.3, 0.2)
    assert spots_of(panel).get_widths().max() == pytest.approx(0.5 * 200)
    for wanted in ({"alpha": 1.5}, {"img_alpha": -1}, {"size": -1}, {"alpha": "x"}):
        with pytest.raises(InputError, match="give a number from 0 to"):
            sagefm.pl.spatial(one, "depth", **wanted)


def test_high_values_lie_on_top_where_spots_overlap(one):
    values = one.obs["depth"].to_numpy()
    assert np.array_equal(values_of(sagefm.pl.spatial(one, "depth")), values)
    overlapping = sagefm.pl.spatial(one, "depth", size=2)
    assert np.array_equal(values_of(overlapping), np.sort(values))
    order = np.argsort(values, kind="stable")
    assert np.array_equal(spots_of(overlapping).get_offsets(), one.obsm["spatial"][order])


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7])
def test_a_figure_is_as_wide_as_a_column_with_type_that_can_be_read(one, n):
    names = ["depth", "domain", *map(str, one.var_names)][:n]
    panels = sagefm.pl.spatial(one, names)
    figure = panels[0].figure
    assert figure.get_size_inches()[0] * 25.4 <= 85.1
    written = texts(figure)
    assert min(text.get_fontsize() for text in written) >= 6
    headings = [panel.title.get_window_extent() for panel in panels]
    assert not any(a.overlaps(b) for i, a in enumerate(headings) for b in headings[:i])
    columns = {panel.get_subplotspec().colspan.start for panel in panels}
    assert len(columns) == {1: 1, 2: 2, 3: 3, 4: 2, 7: 3}[n]
    two = sagefm.pl.spatial(one, names, ncols=2)
    assert len({panel.get_subplotspec().colspan.start for panel in two}) == min(n, 2)


HOSTILE = ["$x_{a$", "a_b^c", "<b>&amp;", "x" * 200, r"\frac{", "$", "a$b$c", "line\none", "{} %s"]


def test_hostile_names_are_shown_as_they_are(one):
    one.var_names = [*HOSTILE, *one.var_names[len(HOSTILE) :]]
    one.obs["$k$"] = pd.Categorical([HOSTILE[i % len(HOSTILE)] for i in range(80)])
    for panels in (sagefm.pl.spatial(one, [*HOSTILE, "$k$"]), [sagefm.pl.spatial(one, "$k$")],
                   sagefm.pl.spatial(dict.fromkeys(HOSTILE, one), "$k$")):  # fmt: skip
        assert all(
            not text._preprocess_math(text.get_text())[1] for text in texts(panels[0].figure)
        )
        panels[0].figure.canvas.draw()


def test_a_legend_of_many_categories_ends(one):
    one.obs["cell"] = pd.Categorical([f"a long name of a cell, {i}" for i in range(80)])
    panel = sagefm.pl.spatial(one, "cell")
    written = [text.get_text() for text in panel.get_legend().get_texts()]
    assert written[-1] == "… and 16 more"
    panel.figure.canvas.draw()
    assert panel.figure.get_size_inches()[0] * 25.4 <= 85.1


@pytest.mark.parametrize("n", [1, 2, 5])
def test_few_spots_and_values_that_are_all_missing_or_the_same(one, n):
    one = one[:n].copy()
    one.obs = one.obs.assign(nothing=np.nan, same=3.0, far=np.inf)
    panels = sagefm.pl.spatial(one, ["nothing", "same", "far", "domain"])
    panels[0].figure.canvas.draw()
    assert all(np.diff(limits(panel)) > 0 for panel in panels[:3])


@pytest.mark.parametrize(
    ("slides", "wanted", "message"),
    [
        ([], {}, "there are none; give one at least"),
        (["x.h5ad"], {}, r"str: is no slide \(AnnData\); use sagefm.read"),
        (None, {"vmin": "p101"}, "a percentile such as 'p99'"),
        (None, {"vmin": [1, 2]}, "2 values for 1 colors"),
        (None, {"vmin": 9, "vmax": 1}, "vmin=9 is above vmax=1"),
        (None, {"cmap": "nope"}, "no such colormap"),
        (None, {"crop": (0, 1)}, "give 'tissue' or x0, x1, y0 and y1"),
        (None, {"ncols": 0}, "give a whole number from 1 on"),
    ],
)
def test_mistakes_are_named_in_a_line(one, slides, wanted, message):
    with pytest.raises(InputError, match=message) as raised:
        sagefm.pl.spatial(one if slides is None else slides, "depth", **wanted)
    assert "\n" not in str(raised.value)


def test_numbers_in_one_slide_and_words_in_another(pair, one):
    one.obs["depth"] = "deep"
    with pytest.raises(InputError, match="numbers in one slide and categories in another"):
        sagefm.pl.spatial([pair["a"], one], "depth")
    del one.obs["depth"]
    with pytest.raises(InputError, match=r"^b: 'depth' is neither"):
        sagefm.pl.spatial({"a": pair["a"], "b": one}, "depth")
