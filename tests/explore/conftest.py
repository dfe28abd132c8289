"""A server of a simulated slide, and a browser to look at it."""

import os
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("bokeh", reason="the explorer needs bokeh: pip install 'sagefm[explore]'")

from sagefm.explore import prepare_server

CHROMIUM = Path(os.environ.get("CHROMIUM", "/usr/bin/chromium"))
HOSTILE = "<script>window.hacked = 1</script>"
NAMES = [HOSTILE, "\"quoted\" & 'more'", "🧬 gene", "G" * 300, "$$x^2$$ @name ${y} {{z}}"]


@pytest.fixture(scope="package")
def hostile_slide(slide, vocabulary):
    """A slide whose names of genes, spots and columns are as bad as they can be."""
    taken = slide.copy()
    genes = taken.var_names.tolist()
    free = [i for i, gene in enumerate(genes) if gene not in vocabulary]
    for at, name in zip(free, NAMES, strict=False):
        genes[at] = name
    taken.var_names = genes
    spots = taken.obs_names.tolist()
    spots[7] = HOSTILE
    taken.obs_names = spots
    columns = [("label", ["left", HOSTILE]), (HOSTILE, ["a", "b"]), ("$$x$$", ["c", "d"])]
    left = taken.obsm["spatial"][:, 0] < np.median(taken.obsm["spatial"][:, 0])
    for name, (first, second) in columns:
        taken.obs[name] = np.where(left, first, second)
    taken.obs["number"] = np.linspace(-1, 1, taken.n_obs)
    return taken


@pytest.fixture(scope="package")
def server(hostile_slide, context_model, tmp_path_factory):
    output = tmp_path_factory.mktemp("explored") / "slide_explored.h5ad"
    server = prepare_server(hostile_slide, context_model, output=output)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="package")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM.exists():
        pytest.skip(f"no browser: {CHROMIUM} is missing; set CHROMIUM to one")
    flags = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=str(CHROMIUM), args=flags)
        yield browser
        browser.close()


@pytest.fixture
def open_tab(browser):
    """Open pages in tabs of their own, and wait until spots are drawn."""
    tabs = []

    def opened(url):
        tab = browser.new_page(viewport={"width": 1280, "height": 800})
        tab.set_default_timeout(150_000)  # of a machine that is busy with other tests
        tabs.append(tab)
        tab.faults, tab.outside = [], []
        tab.on("pageerror", lambda error: tab.faults.append(str(error)))
        tab.on("request", lambda sent: note(tab, sent.url))
        tab.goto(url)
        tab.wait_for_selector("body[data-ready]")
        return tab

    def note(tab, url):
        if not url.startswith(("http://127.0.0.1:", "data:", "blob:")):
            tab.outside.append(url)

    yield opened
    for tab in tabs:
        tab.close()
