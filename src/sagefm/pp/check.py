"""Check a slide for errors, warnings and notes, each in one line."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from sagefm import _keys
from sagefm._errors import InputError
from sagefm._text import few, numbered
from sagefm._uns import libraries, provenance, table, text
from sagefm.pp.axes import flags
from sagefm.pp.count_summary import CountSummary
from sagefm.pp.counts import coordinates, duplicate_names
from sagefm.pp.gene_forms import fault, name_kind, recognize
from sagefm.pp.gene_names import is_date
from sagefm.pp.modalities import summarize_modalities
from sagefm.pp.scale import microns_per_unit, spacing_um, usual_pitch
from sagefm.pp.sections import find_slide_key, section_codes
from sagefm.pp.tiling import whole

Level = Literal["error", "warning", "note"]
T = TypeVar("T")

LOW_DEPTH = 250
"""Median counts per spot below which the depth of a slide is low: Visium slides have thousands, and
cells are then predicted better as larger bins (benchmarks/bins.py)."""
FINE_UM = 50.0
"""Spots that lie closer are bins or cells: those of arrays are 100 µm apart."""


@dataclass(frozen=True)
class Finding:
    """A finding: an ``error`` must be fixed, a ``warning`` should be considered."""

    level: Level
    message: str


def check(
    slide: AnnData,
    *,
    layer: str | None = None,
    slide_key: str | None = None,
    n_neighbors: int = 15,
    counts: bool = True,
) -> list[Finding]:
    """Check a slide, without raising errors.

    Parameters
    ----------
    slide
        Any AnnData; it is not modified.
    layer
        Where the counts are, as in :func:`sagefm.pp.counts.counts`.
    slide_key
        ``obs`` column with the slide of each spot, if there are several.
    n_neighbors
        Spots in a neighborhood, the center included.
    counts
        Whether to look at the counts too.

    Returns
    -------
    Findings, errors first.
    """
    if 0 in slide.shape:
        what = "spots" if slide.n_obs == 0 else "genes"
        return [Finding("error", f"the slide has no {what}; give one with raw counts")]
    findings: list[Finding] = []
    raw = _attempt(lambda: CountSummary.of(slide, layer), findings) if counts else None
    xy = _attempt(lambda: coordinates(slide), findings)
    codes = _attempt(lambda: section_codes(slide, slide_key), findings)
    findings += _spot_names(slide.obs_names)
    findings += _outside_tissue(slide.obs)
    findings += _gene_names(slide.var if raw is None else raw.var)
    if raw is not None:
        apart_um = None if xy is None or codes is None else spacing_um(slide, xy, codes)
        findings += _library_sizes(raw, slide.obs_names, apart_um)
    if codes is not None:
        findings += few_spots(slide, codes, slide_key, n_neighbors)
        findings += [] if xy is None else _same_place(xy, codes)
    order = ["error", "warning", "note"]
    return sorted(findings, key=lambda finding: order.index(finding.level))


def _attempt(step: Callable[[], T], findings: list[Finding]) -> T | None:
    try:
        return step()
    except InputError as error:
        findings.append(Finding("error", str(error)))
        return None


def _spot_names(names: pd.Index) -> list[Finding]:
    if names.is_unique:
        return []
    return [Finding("error", duplicate_barcodes(names))]


def background(obs: pd.DataFrame) -> str | None:
    """Find the column that says which spots lie under the tissue, if there is one."""
    columns = {str(column).lower(): column for column in reversed(obs.columns.tolist())}
    names = [columns[name] for name in ("in_tissue", "intissue", "tissue") if name in columns]
    return next((name for name in names if flags(obs[name]) is not None), None)


def _outside_tissue(obs: pd.DataFrame) -> list[Finding]:
    column = background(obs)
    inside = None if column is None else flags(obs[column])
    if inside is None or inside.all():
        return []
    return [
        Finding(
            "warning",
            f"{numbered(int((~inside).sum()), 'spot')} outside the tissue (obs['{column}'] is 0); "
            "leave them out",
        )
    ]


def duplicate_barcodes(names: pd.Index) -> str:
    """Describe duplicated barcodes and the remedy."""
    repeated = names[names.duplicated()].unique()
    verb = "is" if len(repeated) == 1 else "are"
    return (
        f"{numbered(len(repeated), 'barcode')} {verb} duplicated ({few(repeated)}); "
        "if these are several slides, pass slide_key=, else give each spot its own name"
    )


def _gene_names(var: pd.DataFrame) -> list[Finding]:
    names, ids = var.index, None
    if _keys.GENE_IDS in var:
        ids = var[_keys.GENE_IDS].astype(str).tolist()
    findings = []
    if not names.is_unique:
        findings.append(
            Finding("warning", f"{duplicate_names(names)}; sagefm.read sums their counts")
        )
    forms = recognize(names.astype(str).tolist())
    findings += [Finding("note", note) for note in forms.notes]
    kind = name_kind(forms.names)[0]
    if kind == "ensembl":
        findings.append(Finding("note", "the gene names are Ensembl ids; they are matched as such"))
    if wrong := fault(forms.names, ids):
        findings.append(Finding("warning", wrong))
    elif dates := list(filter(is_date, forms.names)):
        what = f"{numbered(len(dates), 'gene name')} a spreadsheet has made dates of ({few(dates)})"
        findings.append(Finding("warning", f"{what}: these genes are not matched; restore them"))
    return findings


def _library_sizes(raw: CountSummary, barcodes: pd.Index, apart_um: float | None) -> list[Finding]:
    findings = []
    per_spot = raw.per_spot
    empty = barcodes[per_spot == 0]
    if len(empty):
        findings.append(
            Finding("warning", f"{numbered(len(empty), 'spot')} without any count ({few(empty)})")
        )
    median = float(np.median(per_spot))
    if apart_um is not None and apart_um < FINE_UM:
        findings.append(_fine(median, apart_um))
    elif median < LOW_DEPTH:
        findings.append(
            Finding(
                "warning",
                f"low sequencing depth: the median spot has {median:,.0f} counts "
                f"({numbered(len(raw.var), 'gene')} measured); expect noise",
            )
        )
    n_undetected = int((~raw.detected).sum())
    if n_undetected:
        findings.append(Finding("note", f"{numbered(n_undetected, 'gene')} without any count"))
    if raw.note:
        findings.append(Finding("note", raw.note))
    return findings


def _fine(depth: float, apart_um: float) -> Finding:
    """Describe bins or cells, and what to sum them to."""
    what = f"bins or cells {apart_um:.3g} µm apart, with {depth:,.0f} counts (median)"
    if depth >= LOW_DEPTH:
        return Finding("note", f"{what}; models were trained on spots 100 to 200 µm apart")
    larger = whole(apart_um) * np.ceil(np.sqrt(LOW_DEPTH / max(depth, 1)))
    return Finding(
        "warning",
        f"{what}: below {LOW_DEPTH} counts, larger bins are predicted better; sum them by "
        f"sagefm.pp.aggregate, such as to='{np.ceil(larger):g}um', and copy results back by "
        "sagefm.pp.disaggregate",
    )


def few_spots(
    slide: AnnData, codes: NDArray[np.int64], slide_key: str | None, n_neighbors: int
) -> list[Finding]:
    """Find slides with fewer spots than a neighborhood."""
    key = find_slide_key(slide, slide_key)
    findings = []
    for code, size in enumerate(np.bincount(codes)):
        if size < n_neighbors:
            name = (
                "the slide"
                if key is None
                else f"slide {slide.obs[key].iloc[codes == code].iloc[0]}"
            )
            findings.append(
                Finding(
                    "error",
                    f"{name} has {numbered(int(size), 'spot')}, but a neighborhood needs "
                    f"{n_neighbors}; leave it out or use a model with smaller neighborhoods",
                )
            )
    return findings


def _same_place(xy: NDArray[np.float64], codes: NDArray[np.int64]) -> list[Finding]:
    places = pd.DataFrame({"slide": codes, "x": xy[:, 0], "y": xy[:, 1]})
    together = int(places.duplicated(keep=False).sum())
    if not together:
        return []
    return [
        Finding(
            "warning",
            f"{together:,} spots share their coordinates with another spot; if these are several "
            "slides, pass slide_key=, else check obsm['spatial']",
        )
    ]


def summarize(
    slide: AnnData, *, layer: str | None = None, slide_key: str | None = None
) -> dict[str, Any]:
    """Summarize a slide in a few numbers.

    Returns
    -------
    ``spots``, ``genes``, ``slides``, ``counts_in`` (where the counts are), ``counts_per_spot`` and
    ``genes_per_spot`` (medians), ``gene_names`` (their kind), ``pitch_px`` (median distance to the
    nearest spot, in the unit of the coordinates), ``um_per_px``, ``image`` (whether there is one).
    None if not known. ``other_counts``: proteins and other tables of counts, if there are any.
    """
    ignored: list[Finding] = []
    raw = _attempt(lambda: CountSummary.of(slide, layer), ignored)
    xy = _attempt(lambda: coordinates(slide), ignored)
    codes = _attempt(lambda: section_codes(slide, slide_key), ignored)
    pitch = None if xy is None or codes is None else usual_pitch(xy, codes)
    counts_in = text(provenance(slide, "read").get("counts"))
    genes = slide.var_names if raw is None else raw.var.index
    summary: dict[str, Any] = {
        "spots": slide.n_obs,
        "genes": slide.n_vars if raw is None else len(raw.var),
        "slides": None if codes is None else len(np.unique(codes)),
        "counts_in": None if raw is None else counts_in or raw.where,
        "counts_per_spot": None,
        "genes_per_spot": None,
        "gene_names": name_kind(genes.tolist())[0],
        "pitch_px": pitch,
        "um_per_px": None if xy is None else microns_per_unit(slide, xy, pitch),
        "image": any(table(library.get("images")) for library in libraries(slide).values()),
    }
    if raw is not None and slide.n_obs:
        summary["counts_per_spot"] = float(np.median(raw.per_spot))
        summary["genes_per_spot"] = float(np.median(raw.genes_per_spot))
    if modalities := summarize_modalities(slide):
        summary["other_counts"] = modalities
    return summary
