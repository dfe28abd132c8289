"""Small SpatialData as spatialdata-io makes them, from the same simulated slide.

``python tests/pp/spatialdatas.py`` writes the archives in ``spatialdata/`` with the installed
version, for tests without the library.
"""

import shutil
import tempfile
import warnings
from pathlib import Path

import anndata
import numpy as np
import pandas as pd

from sagefm.pp.simulate import simulate

N = 48
PIXEL_UM = 0.2125
"""Of Xenium."""
HIRES = 0.25
"""Scale factor of the hires image."""


ARCHIVES = Path(__file__).with_name("spatialdata")


def counts(*, seed=1):
    """A table of counts, and its places in pixels of an image of 640 × 800."""
    slide = simulate(N, genes=[f"GENE{number}" for number in range(60)], seed=seed)
    table = anndata.AnnData(slide.X.copy(), var=slide.var[[]].copy())
    table.obs_names = slide.obs_names
    xy = slide.obsm["spatial"]
    xy = (xy - xy.min(axis=0)) / np.ptp(xy, axis=0).max() * 560 + 40
    return table, xy


def pixels(height=800, width=640, n_channels=3, dtype="uint8"):
    """An image with a gradient along each axis."""
    y, x = np.mgrid[:height, :width]
    channels = [x * 255 // width, y * 255 // height, (x + y) % 256, x, y][:n_channels]
    return np.stack(channels).astype(dtype)


def annotated(table, region, ids, *, column="region"):
    from spatialdata.models import TableModel

    table.obs[column] = pd.Categorical(np.broadcast_to(region, table.n_obs))
    table.obs["instance"] = ids
    regions = list(table.obs[column].cat.categories)
    return TableModel.parse(
        table, region=regions if len(regions) > 1 else regions[0],
        region_key=column, instance_key="instance",
    )  # fmt: skip


def visium():
    """Circles in pixels of the full image, which is left out; a hires image beside."""
    from spatialdata import SpatialData
    from spatialdata.models import Image2DModel, ShapesModel
    from spatialdata.transformations import Identity, Scale

    table, xy = counts()
    table.obsm["spatial"] = xy.copy()
    hires = Scale([HIRES, HIRES], axes=("x", "y"))
    ids = np.arange(N) + 7
    return SpatialData(
        images={
            "V1_hires_image": Image2DModel.parse(
                pixels(200, 160), dims=("c", "y", "x"),
                transformations={"downscaled_hires": Identity()},
            )
        },
        shapes={
            "V1": ShapesModel.parse(
                xy[::-1], geometry=0, radius=9.0, index=ids[::-1],
                transformations={"global": Identity(), "downscaled_hires": hires},
            )
        },
        tables={"table": annotated(table, "V1", ids)},
    )  # fmt: skip


def visium_hd():
    """Squares and a table for each size of bins; the full image at several scales."""
    from geopandas import GeoDataFrame
    from shapely import box
    from spatialdata import SpatialData
    from spatialdata.models import Image2DModel, ShapesModel
    from spatialdata.transformations import Identity, Scale

    hires = Scale([HIRES, HIRES], axes=("x", "y"))
    to = {"HD": Identity(), "HD_downscaled_hires": hires}
    shapes, tables = {}, {}
    for size, n in ((8, N), (16, N // 4)):
        table, xy = counts()
        xy = xy[:n]
        name = f"HD_square_{size:03d}um"
        ids = np.arange(n)
        squares = [box(x - size / 2, y - size / 2, x + size / 2, y + size / 2) for x, y in xy]
        frame = GeoDataFrame({"geometry": squares}, index=ids)
        shapes[name] = ShapesModel.parse(frame, transformations=to)
        tables[f"square_{size:03d}um"] = annotated(table[:n].copy(), name, ids)
    images = {
        "HD_full_image": Image2DModel.parse(
            pixels(), dims=("c", "y", "x"), scale_factors=[2, 2], transformations={"HD": Identity()}
        ),
        "HD_hires_image": Image2DModel.parse(
            pixels(200, 160), dims=("c", "y", "x"),
            transformations={"HD_downscaled_hires": Identity()},
        ),
    }  # fmt: skip
    return SpatialData(images=images, shapes=shapes, tables=tables)


def xenium(*, region="cell_circles"):
    """Cells in micrometers, an image of five stains and labels in pixels."""
    from spatialdata import SpatialData
    from spatialdata.models import Image2DModel, Labels2DModel, ShapesModel
    from spatialdata.transformations import Identity, Scale

    table, xy = counts()
    names = [f"cell{number:03d}-1" for number in range(N)]
    table.obsm["spatial"] = xy * PIXEL_UM
    labels = np.zeros((800, 640), dtype=np.uint32)
    for number, (x, y) in enumerate(xy.astype(int), start=1):
        labels[y - 3 : y + 3, x - 3 : x + 3] = number
    ids = names if region == "cell_circles" else np.arange(1, N + 1)
    return SpatialData(
        images={
            "morphology_focus": Image2DModel.parse(
                pixels(n_channels=5, dtype="uint16"), dims=("c", "y", "x"), scale_factors=[2],
                c_coords=["DAPI", "a", "b", "c", "d"], transformations={"global": Identity()},
            )
        },
        labels={
            "cell_labels": Labels2DModel.parse(
                labels, dims=("y", "x"), transformations={"global": Identity()}
            )
        },
        shapes={
            "cell_circles": ShapesModel.parse(
                xy * PIXEL_UM, geometry=0, radius=2.0, index=names,
                transformations={"global": Scale([1 / PIXEL_UM] * 2, axes=("x", "y"))},
            )
        },
        tables={"table": annotated(table, region, ids)},
    )  # fmt: skip


def write(whole, path, version=3):
    """Write a SpatialData in zarr v2 or v3."""
    from spatialdata._io import format

    old = {} if version == 3 else {"sdata_formats": format.SpatialDataContainerFormatV01()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole.write(path, **old)
    return path


def unpack(name, folder):
    """Unpack an archive: the path of its SpatialData."""
    shutil.unpack_archive(ARCHIVES / f"{name}.zip", folder / f"{name}.zarr")
    return folder / f"{name}.zarr"


def write_archives():
    """Write visium_2.zip, visium_3.zip, …: a kind of slide and a version of zarr."""
    ARCHIVES.mkdir(exist_ok=True)
    labels = xenium(region="cell_labels")
    for name, whole in (("visium", visium()), ("hd", visium_hd()), ("cells", labels)):
        for version in (2, 3):
            with tempfile.TemporaryDirectory() as folder:
                path = write(whole, Path(folder) / "a.zarr", version)
                shutil.make_archive(str(ARCHIVES / f"{name}_{version}"), "zip", path)


if __name__ == "__main__":
    write_archives()
