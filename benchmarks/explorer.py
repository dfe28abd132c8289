"""Measure the explorer in a headless browser: start, colors, what-if, memory, and large slides.

Run ``python benchmarks/explorer.py [spots]``. Frame times are those of this machine: without a GPU
the browser draws WebGL in software.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from anndata import AnnData
from playwright.sync_api import sync_playwright

import sagefm
from _common import machine

FLAGS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
GENES, RUNS, MOVES = 15_000, 3, 12
CHANGE = """async ([name, property, value]) => {
    const doc = Bokeh.documents[0], spots = doc.get_model_by_name("spots");
    const before = spots.data.color, start = performance.now();
    doc.get_model_by_name(name)[property] = value;
    while (spots.data.color === before) await new Promise(requestAnimationFrame);
    await new Promise(requestAnimationFrame);
    return performance.now() - start;
}"""
FRAMES = """async zoom => {
    const {x_range, y_range} = Bokeh.documents[0].get_model_by_name("plot");
    const times = [];
    const [x0, x1, y0, y1] = [x_range.start, x_range.end, y_range.start, y_range.end];
    for (let step = 0; step < 30; step++) {
        const start = performance.now(), by = step / 100;
        x_range.setv({start: x0 + by * (x1 - x0), end: x1 - (zoom ? by : -by) * (x1 - x0)});
        y_range.setv({start: y0 + by * (y1 - y0), end: y1 - (zoom ? by : -by) * (y1 - y0)});
        await new Promise(requestAnimationFrame);
        await new Promise(requestAnimationFrame);
        times.push(performance.now() - start);
    }
    return times;
}"""


def write_slide(path, n_spots):
    tissue = sagefm.pp.simulate_tissue("breast", n_spots=min(n_spots, 4000))
    rng = np.random.default_rng(0)
    if n_spots <= 4000:
        n_more = GENES - tissue.n_vars
        more = sp.csr_matrix(rng.poisson(0.05, (tissue.n_obs, n_more)).astype(np.float32))
        names = [*tissue.var_names, *(f"MORE{i}" for i in range(n_more))]
        counts = sp.hstack([tissue.X, more]).tocsr()
        slide = AnnData(counts, tissue.obs, uns=tissue.uns, obsm=dict(tissue.obsm))
        slide.var_names = names
    else:
        rows = rng.integers(0, tissue.n_obs, n_spots)
        slide = AnnData(sp.csr_matrix(tissue.X)[rows][:, :3000])
        slide.var_names = tissue.var_names[:3000]
        side = int(np.ceil(np.sqrt(n_spots)))
        grid = np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).reshape(-1, 2)
        slide.obsm["spatial"] = grid[:n_spots].astype(np.float64) * 10
        slide.obs["region"] = tissue.obs["region"].to_numpy()[rows]
    slide.write_h5ad(path)


def started(path):
    """Start the command; get it with the address that it prints, and when it was started."""
    command = [sys.executable, "-m", "sagefm", "explore", str(path), "--no-browser"]
    start = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=path.parent
    )
    return process, process.stdout.readline().strip(), start


def opened(browser, address):
    tab = browser.new_page(viewport={"width": 1280, "height": 800})
    tab.goto(address)
    tab.wait_for_function("document.body.dataset.ready && Bokeh.documents[0].is_idle")
    return tab


def memory(process, entry):
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith(entry):
            return round(int(line.split()[1]) / 1024)
    raise RuntimeError(f"no {entry}")


def usable(browser, path):
    """Measure the seconds from the command to an address, and to spots on the screen."""
    process, address, start = started(path)
    printed = time.perf_counter() - start
    tab = opened(browser, address)
    drawn = time.perf_counter() - start
    tab.close()
    process.kill()
    process.wait()
    return {"address_s": printed, "drawn_s": drawn}


def interaction(browser, path):
    process, address, _ = started(path)
    tab = opened(browser, address)
    tab.wait_for_function("Bokeh.documents[0].get_model_by_name('amount').disabled === false")
    genes = ["CD3E", "KRT5", "COL1A1", "ESR1", "MS4A1", "EPCAM", "CD68", "VIM"]
    color = [tab.evaluate(CHANGE, ["gene", "value", gene]) for gene in genes]
    doc = "Bokeh.documents[0]"
    tab.evaluate(f"{doc}.get_model_by_name('changed').value = 'TGFB1'")
    amounts = np.linspace(-1, 1, MOVES + 1).tolist()
    tab.evaluate(f"{doc}.get_model_by_name('amount').value = -0.5")
    first = tab.evaluate(CHANGE, ["target", "value", "COL1A1"])
    beside = [tab.evaluate(CHANGE, ["amount", "value", x]) for x in amounts]
    tab.get_by_text("matched genes (p = ").wait_for()
    moves = [tab.evaluate(CHANGE, ["amount", "value", x]) for x in amounts[::-1][1:]]
    found = {
        "color_ms": color, "what_if_first_ms": first, "what_if_while_testing_ms": beside,
        "what_if_ms": moves, "peak_mb": memory(process, "VmHWM"),
    }  # fmt: skip
    tab.close()
    process.kill()
    process.wait()
    return found


def frames(browser, path):
    process, address, start = started(path)
    tab = opened(browser, address)
    drawn = time.perf_counter() - start
    tab.wait_for_timeout(15_000)  # the model is loaded meanwhile
    found = {
        "drawn_s": drawn,
        "pan_ms": tab.evaluate(FRAMES, False),
        "zoom_ms": tab.evaluate(FRAMES, True),
        "color_ms": [tab.evaluate(CHANGE, ["gene", "value", g]) for g in ("CD3E", "AHR", "ACTB")],
        "peak_mb": memory(process, "VmHWM"),
    }
    tab.close()
    process.kill()
    process.wait()
    return found


def summary(values):
    """Give the median and the largest of several."""
    if not isinstance(values, list):
        return round(values, 2)
    return {"median": round(statistics.median(values), 1), "most": round(max(values), 1)}


def main():
    n_spots = int(sys.argv[1]) if len(sys.argv) > 1 else 4000
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        path = Path(folder) / "slide.h5ad"
        write_slide(path, n_spots)
        browser = driver.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        if n_spots > 4000:
            found = frames(browser, path)
        else:
            runs = [usable(browser, path) for _ in range(RUNS)]
            found = {name: [run[name] for run in runs] for name in runs[0]}
            found |= interaction(browser, path)
        browser.close()
    print(json.dumps({name: summary(value) for name, value in found.items()}, indent=1))
    print(machine())


if __name__ == "__main__":
    main()
