"""The page in a real browser: what a user clicks, draws and slides."""

import csv
import io
import math
from contextlib import suppress
from pathlib import Path

import anndata
import numpy as np
import pytest

from sagefm.tl import WhatIf

HOSTILE = "<script>window.hacked = 1</script>"
PLACE = """async row => {
    while (!Bokeh.documents[0].is_idle) await new Promise(requestAnimationFrame);
    const plot = Bokeh.documents[0].get_model_by_name("plot");
    const {frame, canvas_view} = Bokeh.index.find_one(plot);
    const {x, y} = Bokeh.documents[0].get_model_by_name("spots").data;
    const box = canvas_view.el.getBoundingClientRect();
    return [box.left + frame.x_scale.compute(x[row]), box.top + frame.y_scale.compute(y[row])];
}"""


@pytest.fixture
def tab(open_tab, server):
    tab = open_tab(server.url)
    yield tab
    assert not tab.faults
    assert not tab.outside


def property_of(tab, model, name):
    return tab.evaluate(f"() => Bokeh.documents[0].get_model_by_name('{model}').{name}")


def column(tab, name, source="spots"):
    script = f"() => Array.from(Bokeh.documents[0].get_model_by_name('{source}').data.{name})"
    return np.array(tab.evaluate(script), dtype=float)


def search(tab, label, gene):
    field = tab.get_by_label(label, exact=True)
    field.fill("")
    field.press_sequentially(gene)
    field.press("Enter")


def wait_for_model(tab):
    tab.wait_for_function("Bokeh.documents[0].get_model_by_name('amount').disabled === false")


SELECTED = "() => Bokeh.documents[0].get_model_by_name('spots').selected.indices.length > 3"


def draw_lasso(tab, row, radius=90):
    from playwright.sync_api import TimeoutError as Late

    tab.evaluate("""() => {
        const {toolbar} = Bokeh.documents[0].get_model_by_name("plot");
        toolbar.active_drag = toolbar.tools.find(tool => tool.type == "LassoSelectTool");
    }""")
    x, y = tab.evaluate(PLACE, row)
    for _ in range(6):  # a browser that is starved of time may miss the beginning of a drag
        tab.mouse.move(x + radius, y)
        tab.mouse.down()
        for step in range(1, 26):
            tab.mouse.move(x + radius * math.cos(step / 4), y + radius * math.sin(step / 4))
        tab.mouse.up()
        with suppress(Late):
            tab.wait_for_function(SELECTED, timeout=20_000)
            return
    raise AssertionError("no spot was selected by six drags")


@pytest.fixture(scope="module")
def genes(context_model, slide):
    """Two genes of the model with most counts."""
    counts = np.asarray(context_model.prepare(slide).counts.sum(axis=0)).ravel()
    return [context_model.vocabulary.symbols[i] for i in np.argsort(-counts)[:2]]


def test_a_gene_colors_the_spots(tab, hostile_slide):
    gene = hostile_slide.var_names[0]
    search(tab, "Gene", gene)
    tab.get_by_text("measured, log1p counts").wait_for()
    expected = np.log1p(hostile_slide[:, gene].X.toarray().ravel())
    tab.wait_for_function(f"() => {COLUMN}.some(x => x > {expected.max() * 0.99})")
    np.testing.assert_allclose(column(tab, "value"), expected, rtol=1e-6)
    colors = column(tab, "color")
    assert colors[expected.argmax()] != colors[expected.argmin()]


COLUMN = "Array.from(Bokeh.documents[0].get_model_by_name('spots').data.value)"


def test_a_gene_is_predicted_and_a_missing_one_imputed(tab, genes, hostile_slide, context_model):
    wait_for_model(tab)
    search(tab, "Gene", genes[0])
    tab.get_by_text("measured, log1p counts").wait_for()
    tab.get_by_role("button", name="Predicted").click()
    tab.get_by_text("predicted while masked in the spot").wait_for()
    [position] = context_model.vocabulary.positions(genes[:1])
    blocks = context_model.predict_masked(hostile_slide, [np.array([position])])
    expected = np.concatenate([block.log1p[:, 0] for block in blocks])
    np.testing.assert_allclose(column(tab, "value"), expected, rtol=1e-4)
    search(tab, "Gene", "NOT1A")
    tab.get_by_text("imputed: not measured here").wait_for()


def test_columns_are_classes_or_numbers(tab):
    assert set(column(tab, "value")) == {0, 1}
    tab.get_by_label("Or a column").select_option("number")
    tab.locator(".title", has_text="number").wait_for()
    assert column(tab, "value")[[0, -1]].tolist() == [-1, 1]


def test_a_click_shows_a_spot_its_neighbors_and_what_is_like_it(tab, server, slide):
    x, y = tab.evaluate(PLACE, 100)
    tab.mouse.click(x, y)
    tab.get_by_text(slide.obs_names[100]).first.wait_for()
    tab.get_by_text("14 neighbors", exact=True).wait_for()
    tab.get_by_text("most similar spots").wait_for()
    tab.get_by_text("integrated gradients").wait_for()
    near = server.explorer.neighbors(100)
    np.testing.assert_allclose(
        column(tab, "x", "outlined_neighbors"), server.explorer.tissue.points[near, 0]
    )
    assert len(column(tab, "x", "outlined_similar")) == 20


def test_a_lasso_finds_genes_and_becomes_a_column_that_is_exported(tab, server, tmp_path):
    draw_lasso(tab, 100)
    tab.get_by_text("random motions of the selection over").wait_for()
    chosen = property_of(tab, "spots", "selected.indices")
    assert 3 < len(chosen) < server.explorer.n_spots
    tab.get_by_text(f"{len(chosen)} spots").wait_for()
    field = tab.get_by_label("Save the selection")
    field.fill("my spots")
    field.press("Tab")
    tab.get_by_role("button", name="Save").click()
    tab.get_by_text("Saved as").wait_for()
    tab.get_by_role("button", name="Slide (.h5ad)").click()
    tab.get_by_text("Written:").wait_for()
    written = anndata.read_h5ad(server.explorer.output)
    assert np.flatnonzero(written.obs["my spots"] == "selected").tolist() == sorted(chosen)
    np.testing.assert_array_equal(written.X.toarray(), server.explorer.opened.slide.X.toarray())
    tab.get_by_role("button", name="Slide (.h5ad)").click()
    tab.get_by_text("exists already").wait_for()
    with tab.expect_download() as download:
        tab.get_by_role("button", name="Table (.csv)").click()
    download.value.save_as(tmp_path / "table.csv")
    rows = list(csv.reader(io.StringIO(Path(tmp_path / "table.csv").read_text())))
    assert len(rows) == 1 + server.explorer.n_spots
    assert "my spots" in rows[0]


def test_the_slider_changes_the_target(tab, genes, hostile_slide, context_model):
    wait_for_model(tab)
    search(tab, "Change this gene in the 14 neighbors", genes[0])
    search(tab, "Predict this gene in each spot", genes[1])
    tab.get_by_text("Now move the slider").or_(tab.get_by_text("mean change")).first.wait_for()
    handle = tab.locator(".noUi-handle").first
    for key, amount in (("Home", -1.0), ("End", 1.0)):
        handle.press(key)
        expected = WhatIf(hostile_slide, context_model).respond(*genes, amount)
        tab.get_by_text(f"{expected.mean():+.3f}", exact=True).wait_for()
        np.testing.assert_allclose(column(tab, "value"), expected, atol=1e-5)
    tab.get_by_text("matched genes (p = ").wait_for()


def test_tabs_are_independent_but_share_what_was_computed(tab, open_tab, server, hostile_slide):
    other = open_tab(server.url)
    search(tab, "Gene", hostile_slide.var_names[0])
    tab.get_by_text("measured, log1p counts").wait_for()
    other.get_by_label("Or a column").select_option("number")
    other.locator(".title", has_text="number").wait_for()
    assert tab.locator(".title", has_text="number").count() == 0
    assert not other.faults


def test_hostile_names_are_shown_as_text(tab, hostile_slide):
    search(tab, "Gene", HOSTILE)
    tab.locator(".title", has_text=HOSTILE).wait_for()
    tab.get_by_label("Or a column").select_option(HOSTILE)
    tab.locator(".detail", has_text="column of obs").wait_for()
    x, y = tab.evaluate(PLACE, 7)
    tab.mouse.move(x, y)
    tab.mouse.click(x, y)
    tab.locator(".name", has_text=HOSTILE).wait_for()
    for gene in hostile_slide.var_names:
        if len(gene) == 300 or "{{" in gene or "🧬" in gene:
            search(tab, "Gene", gene[:20])
            tab.locator(".title", has_text=gene).wait_for()
    assert tab.evaluate("() => window.hacked") is None


def test_a_stopped_server_says_so(open_tab, hostile_slide):
    from sagefm.explore import prepare_server

    server = prepare_server(hostile_slide, None)
    server.start()
    tab = open_tab(server.url)
    assert not tab.get_by_text("The server has stopped").is_visible()
    server.stop()
    tab.get_by_text("The server has stopped").wait_for()
