"""The demo: simulate slides or read one, compare, and write one page."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sagefm import __version__
from sagefm._errors import InputError
from sagefm._fetch import DEFAULT
from sagefm._files import replacing, require_free, require_writable
from sagefm._hdf5 import recorded
from sagefm._keys import PROVENANCE
from sagefm.demo.comparisons import (
    MethodComparison,
    compare,
    compare_labels,
    detected,
    shared_with_neighbors,
)
from sagefm.demo.page import ComparedSlide, render
from sagefm.model import SageFM
from sagefm.pp.counts import counts, sum_duplicates
from sagefm.pp.labels import labels_of
from sagefm.pp.tissue import simulate_tissue
from sagefm.pp.writing import write_slide

if TYPE_CHECKING:
    from anndata import AnnData

Progress = Callable[[str], None]

PAGE = "demo.html"
REGION = "region"
SPOTS = 1200
GENES = {
    "cortex": ("GFAP", "MBP", "PCP4", "HPCAL1"), "breast": ("COL1A1", "KRT5", "CD3E", "CCL19"),
}  # fmt: skip
DEPTHS = {"cortex": 4000.0, "breast": 10_000.0}
"""Median library sizes: of the cortex on Visium, and of a tumor on newer slides."""
_DRAWN = 4
"""Genes of a slide of the user that are drawn."""


@dataclass(frozen=True)
class _DemoSlide:
    """A slide of the demo."""

    name: str
    slide: "AnnData"
    genes: list[str]
    label_key: str | None
    reference: "AnnData | None" = None


def run(
    folder: str | Path = "demo",
    slide: "AnnData | None" = None,
    *,
    name: str = "slide",
    label_key: str | None = None,
    seed: int = 0,
    overwrite: bool = False,
    progress: Progress = print,
) -> Path:
    """Compare the default model with simple methods, and write one page about it.

    Without a slide, cortex and a breast tumor, of two patients each, are simulated from what
    training has learned of real tissue. Writes to `folder`: ``demo.html``, the table
    ``comparisons.csv``, and each slide with its results (``NAME.h5ad``).

    Parameters
    ----------
    folder
        Folder of the results; files of an earlier run are replaced.
    slide
        A slide of yours, with raw counts: domains are compared if it has labels, labels of another
        patient not at all. It is not changed.
    name
        Its name.
    label_key
        ``obs`` column of its labels.
    seed
        Seed of all random numbers.
    overwrite
        Whether to write into a folder that holds other things.
    progress
        Called with each line of the report.

    Returns
    -------
    Path of the page.

    Raises
    ------
    InputError
        The folder cannot be written to, or holds other things; the slide has no such labels.
    """
    folder = Path(folder)
    page = folder / PAGE
    record = folder / f"{'cortex' if slide is None else name}.h5ad"
    require_writable(page)
    if recorded(record, "demo") is None:
        require_free(folder, overwrite=overwrite)
    model = SageFM.load(DEFAULT)
    parts = _simulate(seed, progress) if slide is None else [_given(slide, name, label_key, model)]
    for part in parts:
        part.slide.uns.setdefault(PROVENANCE, {})["demo"] = __version__
    write_slide(parts[0].slide, record)  # from now on the folder is of a demo
    chapters = [_compare(part, model, seed, progress) for part in parts]
    for part in parts:
        write_slide(part.slide, folder / f"{part.name}.h5ad")
    with replacing(folder / "comparisons.csv") as beside:
        _tabulate(chapters).to_csv(beside, index=False, float_format="%.6g")
    text = render(chapters, len(model.vocabulary), simulated=slide is None, seed=seed)
    with replacing(page) as beside:
        beside.write_text(text, encoding="utf-8")
    progress(f"The page: {page.resolve()}")
    return page


def _simulate(seed: int, progress: Progress) -> list[_DemoSlide]:
    """Simulate slides of patients that the seed chooses, two of each tissue."""
    progress(f"simulating a cortex and a breast tumor, of two patients each ({SPOTS:,} spots)")
    parts = []
    for tissue, genes in GENES.items():
        slide, other = (
            simulate_tissue(
                tissue, SPOTS, patient=2 * seed + i, seed=seed, depth=DEPTHS[tissue], image=i == 0
            )
            for i in range(2)
        )
        parts.append(_DemoSlide(tissue, slide, list(genes), REGION, other))
    return parts


def _given(slide: "AnnData", name: str, label_key: str | None, model: SageFM) -> _DemoSlide:
    """Choose genes to draw on a slide of the user: those that neighbors share most."""
    slide = _counted(slide)
    if label_key is not None:
        slide.obs[label_key] = labels_of(slide, label_key).astype("category")
    often = detected(slide, model)
    if not len(often):
        raise InputError(
            f"{name}: no gene that the model knows is detected in more than 10 % of the spots; "
            "run sagefm check to see why"
        )
    r = shared_with_neighbors(slide, often)
    return _DemoSlide(name, slide, list(often[np.argsort(-r)[:_DRAWN]]), label_key)


def _counted(slide: "AnnData") -> "AnnData":
    """Copy a slide, with raw counts in ``X`` and one column for each gene."""
    from anndata import AnnData

    found, copied = sum_duplicates(counts(slide)), slide.copy()
    return AnnData(found.matrix, copied.obs, found.var.copy(), copied.uns, obsm=dict(copied.obsm))


def _compare(part: _DemoSlide, model: SageFM, seed: int, progress: Progress) -> ComparedSlide:
    """Run the comparisons of a slide, and report each."""
    progress(f"{part.name}: {part.slide.n_obs:,} spots, {part.slide.n_vars:,} genes")
    comparisons = []
    for comparison in compare(
        part.slide, model, part.genes, label_key=part.label_key, reference=part.reference,
        seed=seed,
    ):  # fmt: skip
        comparisons.append(comparison)
        progress(_line(comparison))
    if part.reference is not None:
        comparisons.append(compare_labels(part.slide, part.reference, model, REGION, seed))
        progress(_line(comparisons[-1]))
    return ComparedSlide(part.name, part.slide, part.genes, part.label_key, comparisons)


def _line(comparison: MethodComparison) -> str:
    """Write a comparison in one line."""
    shown = [f"{comparison.ours[1]:.3f} ({comparison.ours[0]})"]
    if comparison.baseline is not None:
        shown.append(f"{comparison.baseline[1]:.3f} ({comparison.baseline[0]})")
    shown.append(f"{comparison.random[1]:.3f} (random weights)")
    return f"  {comparison.question}, {comparison.measure}: {', '.join(shown)}: {comparison.winner}"


def _tabulate(chapters: list[ComparedSlide]) -> pd.DataFrame:
    rows = [
        comparison.table.reset_index().assign(
            slide=chapter.name, question=comparison.question, measure=comparison.measure
        )
        for chapter in chapters
        for comparison in chapter.comparisons
    ]
    return pd.concat(rows)[["slide", "question", "measure", "method", "value"]]
