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


HEADED = Section().positions.to_csv(index=False)
BARE = Section().positions.to_csv(index=False, header=False)
ROWS = Section().positions.set_index("barcode")


def of(path, text):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_positions(path)


FORMS = {
    "semicolons": HEADED.replace(",", ";"),
    "semicolons without header": BARE.replace(",", ";"),
    "line of Excel": "sep=;\n" + HEADED.replace(",", ";"),
    "spaces": BARE.replace(",", "  "),
    "spaces after commas": HEADED.replace(",", ", "),
    "quotes": Section().positions.to_csv(index=False, quoting=1).replace(",", ", "),
    "blank first lines": "\n\n" + HEADED,
    "blank last lines": HEADED + "\n\n,,,,,\n",
    "byte order mark": b"\xef\xbb\xbf" + BARE.encode(),
    "unicode of Excel": HEADED.encode("utf-16"),
    "lines of Windows": HEADED.replace("\n", "\r\n"),
    "flags": BARE.replace("-1,1,", "-1,True,"),
    "flags in capitals": HEADED.replace("-1,1,", "-1,TRUE,"),
    "capitals": HEADED.replace("array_row", "Array_Row").replace("barcode", "BARCODES"),
    "row numbers": Section().positions.to_csv(),
    "row numbers without header": Section().positions.to_csv(header=False),
    "row names of R": "\n".join([",".join(ROWS.columns), *BARE.splitlines()]),
    "exponents": HEADED.replace(",2000", ",2.000e3"),
    "a line twice": HEADED + BARE.splitlines()[3] + "\n",
    "another column": Section().positions.assign(more="x").to_csv(index=False),
}


@pytest.mark.parametrize("form", FORMS)
def test_positions_as_people_store_them(tmp_path, form):
    table = of(tmp_path / "tissue_positions.csv", FORMS[form])
    assert table.astype(float).equals(ROWS.astype(float))


def test_five_columns_with_a_header_have_no_tissue(tmp_path):
    text = Section().positions.drop(columns="in_tissue").to_csv(index=False)
    assert of(tmp_path / "p.csv", text).equals(ROWS.drop(columns="in_tissue"))


FAULTS = {
    "five columns without header": (BARE.replace("-1,1,", "-1,"), "no column barcode"),
    "other order": (BARE.replace("-1,1,", "-1,7,"), "in_tissue 7 for AAAAAAAA-1"),
    "decimal commas": (
        BARE.replace(",", ";").replace(";2000", ";2000,5"),
        "'2000,5' as pxl_col_in_fullres of AAAAAAAA-1.*no commas",
    ),
    "text": (HEADED.replace("2000", "abc"), "'abc' as pxl_col_in_fullres"),
    "no value": (HEADED.replace(",2000", ","), "no position, or two"),
    "two columns": (HEADED.replace("array_row", "pxl_row_in_fullres"), "two columns"),
    "empty": ("", "is empty"),
    "header only": (HEADED.splitlines()[0], "no spots"),
    "a page": ("<html>\n<body>Not found</body>\n</html>", "has no column"),
    "binary": (b"\x89PNG\r\n\x1a\n\0", "cannot be read"),
    "ragged": (HEADED + "X,1,2,3,4,5,6,7\n", "cannot be read"),
    "other encoding": (HEADED.replace("barcode", "bärcode").encode("latin1"), "cannot be read"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_positions_that_cannot_be_trusted_are_refused_in_one_line(tmp_path, fault):
    text, words = FAULTS[fault]
    with pytest.raises(InputError, match=rf"tissue_positions\.csv.*{words}") as caught:
        of(tmp_path / "tissue_positions.csv", text)
    assert "\n" not in str(caught.value)


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
