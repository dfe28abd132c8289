import numpy as np
import pandas as pd
import pytest
from tests.pp.folders import (
    Section,
    write_positions,
)

from sagefm import InputError
from sagefm.pp.positions import read_positions


@pytest.mark.parametrize("headed", [True, False])
@pytest.mark.parametrize(
    "name",
    [
        "tissue_positions_list.csv",
        "tissue_positions.csv",
        "tissue_positions_list.csv.gz",
        "tissue_positions.csv.gz",
        "tissue_positions.txt",
    ],
)
@pytest.mark.parametrize("separator", [",", "\t"])
def test_positions_never_lose_the_first_spot(tmp_path, name, headed, separator):
    section = Section()
    table = read_positions(
        write_positions(tmp_path / name, section, headed=headed, separator=separator)
    )
    pd.testing.assert_frame_equal(
        table, section.positions.set_index("barcode"), check_index_type=False
    )


def test_positions_in_parquet(tmp_path):
    section = Section()
    plain = write_positions(tmp_path / "tissue_positions.parquet", section, headed=True)
    assert read_positions(plain).equals(section.positions.set_index("barcode"))
    section.positions.set_index("barcode").to_parquet(plain)
    assert read_positions(plain).equals(section.positions.set_index("barcode"))


def test_positions_follow_the_header_in_any_order(tmp_path):
    section = Section()
    wanted = section.positions.set_index("barcode")
    section.positions = section.positions[section.positions.columns[::-1]].rename(
        columns={"pxl_row_in_fullres": "imagerow", "pxl_col_in_fullres": "imagecol"}
    )
    table = read_positions(write_positions(tmp_path / "p.csv", section, headed=True))
    assert table.equals(wanted)


def test_positions_with_a_first_line_that_is_neither_are_refused(tmp_path):
    section = Section()
    section.positions["in_tissue"] = "True"
    path = write_positions(tmp_path / "tissue_positions_list.csv", section, headed=False)
    with pytest.raises(InputError, match="no column barcode"):
        read_positions(path)


def test_a_missing_pixel_or_a_repeated_barcode_is_refused(tmp_path):
    section = Section()
    section.positions.loc[4, "barcode"] = section.barcodes[3]
    path = write_positions(tmp_path / "tissue_positions.csv", section, headed=True)
    with pytest.raises(InputError, match=rf"or two, for 1 barcode \({section.barcodes[3]}\)"):
        read_positions(path)
    section.positions = section.positions.astype({"pxl_row_in_fullres": float})
    section.positions.loc[4, ["barcode", "pxl_row_in_fullres"]] = ["fine", np.inf]
    with pytest.raises(InputError, match=r"no position, or two, for 1 barcode \(fine\)"):
        read_positions(write_positions(path, section, headed=True))
