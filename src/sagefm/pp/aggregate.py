"""Sum bins or cells into larger bins or into spots."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.sparse import csr_matrix

from sagefm import _keys
from sagefm._errors import InputError, logger
from sagefm._text import few, numbered
from sagefm._types import Floats, Positions
from sagefm._uns import libraries, provenance, record, table
from sagefm.pp.counts import coordinates, counts
from sagefm.pp.labels import text_of
from sagefm.pp.matrix import require_exact
from sagefm.pp.modalities import modality, modality_names
from sagefm.pp.scale import microns_per_unit, usual_pitch
from sagefm.pp.sections import find_slide_key, section_codes
from sagefm.pp.tiling import Frame, Tiling, bins_of, located, whole

STEP = "aggregate"
"""Entry of the provenance."""
N_AGGREGATED = "n_aggregated"
"""``obs``: how many bins or cells a spot is the sum of."""
ARRAY = ["array_row", "array_col"]
OF_BINS = {*ARRAY, N_AGGREGATED, "in_tissue", "pxl_row_in_fullres", "pxl_col_in_fullres"}
"""Columns of ``obs`` that describe a bin, not its section."""
_TOLERANCE = 0.02
"""Tolerated difference of the ratio of two sizes from a whole number."""


class _Places(NamedTuple):
    """Tiles that have bins or cells, sorted by section, row and column."""

    section: Positions
    row: Positions
    column: Positions
    member: Positions
    """For each bin or cell the number of its tile; -1 outside all."""

    @property
    def size(self) -> Positions:
        """Count the bins or cells of each tile."""
        return np.bincount(self.member[self.member >= 0], minlength=len(self.row))


def aggregate(
    slide: AnnData,
    to: str | float,
    *,
    layer: str | None = None,
    slide_key: str | None = None,
) -> AnnData:
    """Sum bins or cells into larger bins, or into spots like those that models were trained on.

    Sum until a spot has some 250 counts, and not much further: what differs between cells is lost
    in larger spots. Bins are recognized by ``obs["array_row"]`` and ``obs["array_col"]``, else by
    their coordinates, and larger bins are a whole multiple of them, aligned as those of Space
    Ranger are. Cells belong to where their centroid lies. Time and memory are linear in the size of
    the slide.

    Parameters
    ----------
    slide
        Raw counts and ``obsm["spatial"]``. It must say its scale: ``microns_per_pixel`` of Space
        Ranger, or ``uns["spot_pitch_um"]``. It is not changed.
    to
        ``"16um"``, or another side in micrometers: square bins. ``"hexagons"``: hexagons 100 µm
        apart, without gaps: all counts are kept. ``"spots"``: the circles of Visium, 55 µm wide and
        100 µm apart, and what lies between them (73 % of the area) is left out.
    layer
        Where the raw counts are, if not in ``X`` or ``layers["counts"]``.
    slide_key
        ``obs`` column with the section of each bin, if the object holds several; nothing is summed
        across sections.

    Returns
    -------
    Raw counts in ``X`` (CSR float32): the exact sums, and likewise those of proteins and other
    tables of counts in ``obsm``. ``obsm["spatial"]``: the centers. ``obs``: array_row, array_col,
    n_aggregated (bins or cells of each), and the columns that are constant within a section.
    ``uns``: spot_pitch_um, the images with the scale factors of the new spots, and under
    ``["sagefm"]["aggregate"]`` how many counts and bins were kept or lie outside, and the
    grid, by which :func:`disaggregate` finds the spot of a bin.

    Raises
    ------
    InputError
        There are no raw counts or coordinates, or the slide does not say its scale; `to` is not
        larger than the bins, or no whole multiple of them.

    Examples
    --------
    >>> bins = sagefm.read("outs/binned_outputs/square_008um")  # doctest: +SKIP
    >>> spots = sagefm.pp.aggregate(bins, "24um")  # doctest: +SKIP
    >>> sagefm.tl.domains(spots)  # doctest: +SKIP
    >>> sagefm.pp.disaggregate(spots, bins)  # doctest: +SKIP
    """
    tiling = Tiling.of(to)
    raw = counts(slide, layer)
    points, key = coordinates(slide), find_slide_key(slide, slide_key)
    codes = section_codes(slide, key)
    rows = [np.flatnonzero(codes == code) for code in range(codes.max() + 1)]
    frames = [_frame(slide, points, own, tiling) for own in rows]
    placed = _place(points, codes, dict(enumerate(frames)), tiling)
    if not len(placed.row):
        raise InputError("to='spots': no bin lies within a spot; choose 'hexagons'")
    summed = _sum(raw.matrix, placed)
    sections = [""] if key is None else text_of(slide.obs[key]).iloc[[r[0] for r in rows]].tolist()
    obs = _describe(slide, codes, placed)
    obs.index = _names(placed, tiling, frames, sections)
    um = tiling.centers(placed.row, placed.column)
    spatial = np.empty_like(um)
    for code, frame in enumerate(frames):
        spatial[placed.section == code] = frame.inverse(um[placed.section == code])
    tables = _sum_tables(slide, placed, obs.index)
    result = AnnData(summed, obs=obs, var=raw.var.copy(), obsm={_keys.SPATIAL: spatial, **tables})
    _copy_uns(slide, result, tiling, frames[0])
    outside = placed.member < 0
    lost = int(raw.matrix[outside].sum(dtype=np.float64)) if outside.any() else 0
    entry = {
        "to": tiling.name, "slide_key": key or "", "sections": sections,
        "frames": np.stack([frame.matrix for frame in frames]),
        "bin_um": frames[0].bin_um or 0.0, "n_bins": slide.n_obs,
        "n_outside": int(outside.sum()), "counts": int(summed.sum(dtype=np.float64)),
        "counts_outside": lost,
    }  # fmt: skip
    record(result, STEP, entry)
    _log(slide, result, entry)
    return result


def summary(aggregated: AnnData) -> str:
    """Describe what was summed, in one line."""
    entry = provenance(aggregated, STEP)
    kept, lost = entry["counts"], entry["counts_outside"]
    whence = numbered(entry["n_bins"], "bin" if entry["bin_um"] else "cell")
    if not entry["n_outside"]:
        return f"{numbered(aggregated.n_obs, 'spot')} from {whence}; all {kept:,} counts are kept"
    return (
        f"{numbered(aggregated.n_obs, 'spot')} from {whence}, of which {entry['n_outside']:,} lie "
        f"outside all spots; {kept:,} of {kept + lost:,} counts are kept"
    )


def _frame(slide: AnnData, points: Floats, rows: Positions, tiling: Tiling) -> Frame:
    """Find where a section lies in micrometers, and check that tiles are larger than its spots."""
    section, points = slide[rows] if len(rows) < slide.n_obs else slide, points[rows]
    found = bins_of(points, array_of(section.obs))
    pitch = (
        usual_pitch(points, np.zeros(len(points), dtype=np.int64)) if found is None else found[2]
    )
    scale = microns_per_unit(section, points, pitch)
    if scale is None:
        raise InputError(
            "the slide does not say how many micrometers a unit of its coordinates is; set "
            "uns['spot_pitch_um'] to the distance of neighboring spots in micrometers"
        )
    size = whole(pitch * scale) if pitch else 0.0
    if tiling.diameter_um < (1 + _TOLERANCE) * size:
        raise InputError(
            f"to='{tiling.name}': the spots of the slide are {size:.4g} µm apart already; choose "
            "something larger"
        )
    if found is None:
        return Frame.scaled(scale)
    if not tiling.hexagonal:
        ratio = tiling.size_um / size
        if abs(ratio - np.rint(ratio)) > _TOLERANCE:
            raise InputError(
                f"to='{tiling.name}': is no whole multiple of the bins of {size:.4g} µm; choose "
                f"{size * max(2, np.floor(ratio)):.4g}um or {size * max(3, np.ceil(ratio)):.4g}um"
            )
        size = tiling.size_um / np.rint(ratio)
    return Frame.of_bins(points, found[0], found[1], float(size))


def array_of(obs: pd.DataFrame) -> Floats | None:
    """Get the row and column of each bin, if all are whole numbers."""
    if not set(ARRAY) <= set(obs):
        return None
    columns = [pd.to_numeric(obs[name], errors="coerce") for name in ARRAY]
    array = np.column_stack([column.to_numpy(np.float64, na_value=np.nan) for column in columns])
    return array if (np.abs(array) < 1e6).all() and (array == np.rint(array)).all() else None


def _place(
    points: Floats, codes: Positions, frames: Mapping[int, Frame], tiling: Tiling
) -> _Places:
    """Find the tile of each point, and number the tiles."""
    tiles = located(points, codes, frames, tiling)
    order = np.lexsort(tiles.T[::-1])[int((tiles[:, 0] < 0).sum()) :]
    tiles = tiles[order]
    first = np.ones(len(order), dtype=bool)
    first[1:] = (tiles[1:] != tiles[:-1]).any(axis=1)
    member = np.full(len(points), -1, dtype=np.int64)
    member[order] = np.cumsum(first) - 1
    section, row, column = tiles[first].T
    return _Places(section, row, column, member)


def _sum(matrix: csr_matrix, placed: _Places) -> csr_matrix:
    """Sum the counts of the bins of each tile: a sparse product."""
    inside = placed.member >= 0
    order = np.argsort(placed.member, kind="stable")[int((~inside).sum()) :]
    starts = np.concatenate([[0], np.cumsum(placed.size)])
    ones = np.ones(len(order), dtype=np.float32)
    operator = csr_matrix((ones, order, starts), shape=(len(placed.row), len(inside)))
    summed = csr_matrix(operator @ matrix)
    summed.sort_indices()
    require_exact(summed, "the aggregated slide")
    return summed


def _sum_tables(slide: AnnData, placed: _Places, names: pd.Index) -> dict[str, pd.DataFrame]:
    """Sum the counts of other modalities; a tile is measured if one of its bins is."""
    tables = {}
    for name in modality_names(slide):
        found = modality(slide, name)
        counts = pd.concat([found.counts, found.controls], axis=1)
        summed = _sum(csr_matrix(counts.fillna(0).to_numpy(np.float32)), placed).toarray()
        measured = _sum(csr_matrix(found.measured[:, None].astype(np.float32)), placed)
        summed[measured.toarray()[:, 0] == 0] = np.nan
        tables[found.key] = pd.DataFrame(summed, index=names, columns=counts.columns)
    return tables


def _describe(slide: AnnData, codes: Positions, placed: _Places) -> pd.DataFrame:
    """Make ``obs`` of the tiles, with the columns that are constant within each section."""
    first = np.unique(codes, return_index=True)[1]
    kept: dict[str, Any] = {}
    for name in slide.obs.columns.difference(list(OF_BINS), sort=False):
        values = pd.factorize(slide.obs[name].astype(str))[0]
        if (values == values[first][codes]).all():
            column = slide.obs[name].iloc[first[placed.section]].reset_index(drop=True)
            kept[name] = column
    array = pd.DataFrame({"array_row": placed.row, "array_col": placed.column})
    return pd.concat([array, pd.DataFrame({N_AGGREGATED: placed.size, **kept})], axis=1)


def _names(
    placed: _Places, tiling: Tiling, frames: Sequence[Frame], sections: Sequence[str]
) -> pd.Index:
    on_array = all(frame.bin_um for frame in frames) and int(placed.row.min()) >= 0
    names = tiling.names(placed.row, placed.column, on_array=on_array)
    if len(sections) > 1:
        names = [f"{sections[at]}_{name}" for at, name in zip(placed.section, names, strict=True)]
    return pd.Index(names, dtype=object)


def _copy_uns(slide: AnnData, result: AnnData, tiling: Tiling, frame: Frame) -> None:
    """Keep images, scale factors of the new spots, and where the slide was read from."""
    result.uns[_keys.PITCH] = tiling.size_um
    if read := provenance(slide, "read"):  # but not what was noted of the bins
        record(result, "read", {name: read[name] for name in read if name not in ("told", "lost")})
    kept = {}
    for name, library in libraries(slide).items():
        factors = dict(table(library.get("scalefactors")))
        factors["spot_diameter_fullres"] = tiling.diameter_um * frame.units_per_um
        if "bin_size_um" in factors:
            factors["bin_size_um"] = tiling.diameter_um
        kept[name] = {**library, "scalefactors": factors}
    if kept:
        result.uns[_keys.SPATIAL] = kept


def _log(slide: AnnData, result: AnnData, entry: Mapping[str, Any]) -> None:
    """Log what is left out."""
    if entry["n_outside"]:
        logger.warning(
            "%s of %s bins lie outside all spots and are left out, with %s of %s counts; "
            "to='hexagons' keeps all", f"{entry['n_outside']:,}", f"{entry['n_bins']:,}",
            f"{entry['counts_outside']:,}", f"{entry['counts'] + entry['counts_outside']:,}",
        )  # fmt: skip
    columns = [name for name in slide.obs if name not in result.obs and name not in OF_BINS]
    lost = [f"obs['{name}']" for name in columns]
    lost += [f"obsm['{name}']" for name in slide.obsm if name not in result.obsm]
    if lost:
        logger.warning("left out, as it differs between the bins of a spot: %s", few(lost, 8))
