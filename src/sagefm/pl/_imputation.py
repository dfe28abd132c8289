"""Plot imputed genes on the tissue, next to the measured counts."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from sagefm._errors import InputError
from sagefm._keys import IMPUTED, SPATIAL
from sagefm._text import few
from sagefm._uns import provenance
from sagefm.pl._spatial import require_one_slide, spatial
from sagefm.pl._style import finish, journal
from sagefm.pp.counts import coordinates, counts
from sagefm.pp.image import image_of

if TYPE_CHECKING:
    from anndata import AnnData

_MOST = 6
"""Maximum number of genes."""
_SIDE, _BAR, _TITLE = 1.9, 0.5, 0.4
"""Inches: width of a panel and of its color bar, height of its title."""
_UNITS = {"log1p": "log1p counts", "counts_per_10k": "counts per 10,000"}


def clearest(table: pd.DataFrame, n: int = _MOST) -> list[str]:
    """Choose genes to draw, those with the highest observed or expected correlation."""
    r = table["r_model"].fillna(table["r_expected"]).fillna(-1.0)
    return [str(gene) for gene in r.sort_values(ascending=False, kind="stable").index[:n]]


def imputed(
    slide: "AnnData",
    genes: str | Sequence[str] | None = None,
    *,
    layer: str | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> list[list[Axes]]:
    """Plot imputed genes on the tissue, to the right of the measured counts.

    Parameters
    ----------
    slide
        With the result of :func:`sagefm.tl.impute`.
    genes
        One of its genes, or up to six; the six that are recovered best if not given.
    layer
        Where the raw counts are, if not in ``X`` or ``layers["counts"]``.
    show, save
        As in scanpy; `save` is a file name.

    Returns
    -------
    For each gene its Axes: measured (where it is) and imputed. Both have the unit of the
    imputation, each its own range (1st to 99th percentile); spots that were not imputed are gray in
    both. The title of the imputed gene has the observed correlation and that of the neighbor mean,
    or the expected correlation and its range.

    Raises
    ------
    InputError
        No such result or gene, more than six genes, or the object holds several slides.
    """
    made = provenance(slide, "imputed", key=str, scale=str, confidence=pd.DataFrame)
    if not made or not isinstance(slide.obsm.get(made["key"]), pd.DataFrame):
        raise InputError(f"obsm[{IMPUTED!r}]: is missing; run sagefm.tl.impute first")
    table, values = made["confidence"], slide.obsm[made["key"]]
    names = clearest(table) if genes is None else [genes] if isinstance(genes, str) else list(genes)
    if missing := [name for name in names if name not in values]:
        raise InputError(
            f"{missing[0]}: was not imputed; the imputed genes are {few(values.columns)}"
        )
    if not 0 < len(names) <= _MOST:
        raise InputError(f"{len(names)} genes: name 1 to {_MOST} of them")
    imputed_spots = values[names].notna().any(axis=1)
    truth = _measured(slide, table.loc[names], made["scale"], layer)
    require_one_slide(slide)
    points = coordinates(slide)
    drawn = ad.AnnData(
        obs=pd.DataFrame(index=slide.obs_names),
        uns=image_of(slide, points),
        obsm={SPATIAL: points},
    )
    rows: list[list[Axes]] = []
    with journal():
        for name, axes in zip(
            names, _grid(drawn, len(names), bool(len(truth.columns))), strict=True
        ):
            panels = [(axes[-1], values[name], f"{name}, imputed\n{_correlation(table.loc[name])}")]
            if name in truth:
                panels.insert(0, (axes[0], truth[name].where(imputed_spots), f"{name}, measured\n"))
            for panel, colored, title in panels:
                _draw(drawn, colored, title, _UNITS[made["scale"]], panel)
            if len(axes) > len(panels):
                axes[0].set_title(f"{name}, not measured\n")
            rows.append([panel for panel, _, _ in panels])
        finish([panel for row in rows for panel in row], show, save)
    return rows


def _grid(drawn: "AnnData", n_genes: int, in_pairs: bool) -> list[list[Axes]]:
    """Create one Axes for each gene, or two next to each other."""
    per_gene = 1 + in_pairs
    across = min(n_genes, 3 if not in_pairs else 1 if n_genes < 4 else 2)
    down = -(-n_genes // across)
    wide, high = np.ptp(drawn.obsm[SPATIAL], axis=0)
    height = _SIDE * min(max(high / max(wide, 1e-9), 0.4), 2.0) + _TITLE
    size = ((_SIDE + _BAR) * across * per_gene, height * down)
    _, grid = plt.subplots(
        down, across * per_gene, figsize=size, squeeze=False, layout="compressed"
    )
    for panel in grid.flat:
        panel.set_axis_off()
    return [list(pair) for pair in grid.reshape(-1, per_gene)[:n_genes]]


def _draw(drawn: "AnnData", values: "pd.Series[float]", title: str, unit: str, panel: Axes) -> None:
    """Color the spots by a value, from the 1st to the 99th percentile."""
    drawn.obs["value"] = values.to_numpy(dtype=np.float64)
    panel.set_axis_on()
    spatial(drawn, "value", title=title.replace("$", r"\$"), ax=panel, show=False)
    spots = panel.collections[-1]
    if values.notna().any():
        low, high = np.nanpercentile(drawn.obs["value"], [1, 99])
        if high > low:
            spots.set_clim(low, high)
    if spots.colorbar is not None:
        spots.colorbar.set_label(unit, fontsize=6)


def _measured(slide: "AnnData", table: pd.DataFrame, scale: str, layer: str | None) -> pd.DataFrame:
    """Get the measured genes of a table in the unit of the imputation: spots × genes."""
    raw = counts(slide, layer)
    names = raw.var.index.astype(str)
    library_size = np.asarray(raw.matrix.sum(axis=1), dtype=np.float64).ravel()
    measured = {}
    for gene, called in table.loc[table["measured"].astype(bool), "slide_gene"].items():
        columns = np.flatnonzero(names.isin(called.split(";")))
        total = np.asarray(raw.matrix[:, columns].sum(axis=1), dtype=np.float64).ravel()
        if scale == "log1p":
            measured[gene] = np.log1p(total)
        else:
            measured[gene] = total / np.where(library_size > 0, library_size, np.nan) * 1e4
    return pd.DataFrame(measured, index=slide.obs_names)


def _correlation(row: "pd.Series[float]") -> str:
    """Describe in a few words how well a gene is predicted."""
    measured = bool(row["measured"])
    r = row["r_model"] if measured else row["r_expected"]
    if np.isnan(r):
        return "r unknown"
    if not measured:
        return f"expected r = {r:.2f} ({row['r_expected_low']:.2f} to {row['r_expected_high']:.2f})"
    return f"r = {r:.2f} (neighbors {row['r_neighbor_mean']:.2f})"
