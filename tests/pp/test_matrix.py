import subprocess
import sys

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from tests.pp.folders import a_slide

from sagefm import InputError
from sagefm.pp.counts import counts
from sagefm.pp.matrix import canonical, require_sound, structure_fault, to_csr, value_fault


def damaged(fault, kind="csr"):
    matrix = a_slide().X.asformat(kind)
    if fault == "beyond":
        matrix.indices[3] = 2**30
    elif fault == "negative":
        matrix.indices[3] = -1
    elif fault == "order":
        matrix.indptr[2] = 2**30
    elif fault == "start":
        matrix.indptr[0] = 1
    elif fault == "values":
        matrix.data = matrix.data[:-3]
    elif fault == "rows":
        matrix.indptr = matrix.indptr[:-2]
    elif fault == "fractions":
        matrix.indices = matrix.indices.astype(float)
    elif fault == "table":
        matrix.indices = matrix.indices[:, None]
    return matrix


@pytest.mark.parametrize("kind", ["csr", "csc"])
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("beyond", "index 1,073,741,824 where there are"),
        ("negative", "index -1 where"),
        ("order", "not in order"),
        ("start", "not in order"),
        ("values", "values are stored"),
        ("rows", "where its shape says"),
        ("fractions", "not integers"),
        ("table", "dimensions"),
    ],
)
def test_damaged_structure_is_named(kind, fault, words):
    assert words in structure_fault(damaged(fault, kind))
    with pytest.raises(InputError, match=rf"X is damaged: .*{words}.*copy the file again"):
        to_csr(damaged(fault, kind), "X")


def test_sound_matrices_have_no_fault():
    x = a_slide().X
    for kind in ("csr", "csc", "coo", "bsr", "lil", "dok", "dia"):
        assert structure_fault(x.asformat(kind)) == ""
    assert structure_fault(sparse.csr_array(x)) == structure_fault(x.toarray()) == ""
    assert structure_fault(sparse.csr_matrix((0, 0))) == ""


def test_coordinates_of_a_coo_matrix_must_lie_in_it():
    matrix = a_slide().X.tocoo()
    matrix.row[3] = 10**6
    assert "index 1,000,000 where there are 30" in structure_fault(matrix)
    matrix = a_slide().X.tocoo()
    matrix.data = matrix.data[:-1]
    assert "differ in length" in structure_fault(matrix)


def test_a_row_of_lists_must_fit():
    matrix = a_slide().X.tolil()
    matrix.rows[2] = [99]
    assert "index 99" in structure_fault(matrix)
    matrix = a_slide().X.tolil()
    matrix.data[2] = matrix.data[2][:-1]
    assert "more indices than values" in structure_fault(matrix)


@pytest.mark.parametrize("place", ["X", "layers", "raw", "obsp", "obsm"])
def test_every_matrix_of_a_slide_is_checked(place):
    slide = a_slide()
    if place == "X":
        slide.X = damaged("beyond")
    elif place == "raw":
        slide.raw = slide.copy()
        slide.raw.X.indices[0] = -4
    else:
        square = sparse.csr_matrix(np.eye(30))
        matrix = square if place.startswith("obs") else slide.X.copy()
        matrix.indices[0] = 10**6
        getattr(slide, place)["m"] = matrix
    with pytest.raises(InputError, match="is damaged: it has an index"):
        require_sound(slide)


DEADLY = """
import sys, warnings
warnings.simplefilter("ignore")
from tests.pp.folders import a_slide
from sagefm import InputError
from sagefm.pp import check
from sagefm.pp.counts import counts
slide = a_slide()
matrix = slide.X.asformat(sys.argv[1])
matrix.indices[3] = 2**30
slide.X = matrix
for held in (slide, slide[5:], slide[5:][:, :4]):
    assert "is damaged" in check(held)[0].message
    try:
        counts(held)
    except InputError as error:
        print(error)
"""


@pytest.mark.parametrize("kind", ["csr", "csc"])
def test_a_damaged_matrix_does_not_end_the_process(kind):
    done = subprocess.run(
        [sys.executable, "-c", DEADLY, kind], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("X is damaged: it has an index 1,073,741,824") == 3


@pytest.mark.parametrize(
    "dtype", [np.float16, np.longdouble, ">f4", ">i4", bool, np.int8, np.uint64]
)
@pytest.mark.parametrize("dense", [True, False])
def test_numbers_of_every_type_are_the_same_counts(dtype, dense):
    x = a_slide().X.toarray().clip(0, 100).astype(dtype)
    matrix = x
    if not dense:
        matrix = sparse.csr_matrix(x.astype(np.float64))
        matrix.data = matrix.data.astype(dtype)
    found, note = canonical(to_csr(matrix, "X"), "X")
    assert (found.dtype, note) == (np.float32, "")
    np.testing.assert_array_equal(found.toarray(), x.astype(np.float32))


@pytest.mark.parametrize("dtype", [complex, object, "U5", "datetime64[s]", [("a", "f4")]])
def test_what_is_no_number_is_refused(dtype):
    with pytest.raises(InputError, match="not numbers; give raw counts"):
        to_csr(np.zeros((3, 2), dtype=dtype), "X")


def test_indices_of_any_integer_type_are_taken():
    x = a_slide().X
    for dtype in (np.uint8, np.int16, np.uint64):
        matrix = x.copy()
        matrix.indices = matrix.indices.astype(dtype)
        np.testing.assert_array_equal(to_csr(matrix, "X").toarray(), x.toarray())


def test_lazy_matrices_are_computed():
    da = pytest.importorskip("dask.array")
    x = a_slide().X.toarray()
    lazy = da.from_array(x, chunks=(7, 3))
    blocks = lazy.map_blocks(sparse.csr_matrix)
    whole_rows = da.from_array(x, chunks=(7, -1)).map_blocks(sparse.csc_array)
    for values in (lazy, blocks, whole_rows):
        np.testing.assert_array_equal(to_csr(values, "X").toarray(), x)

    def damage(block):
        matrix = sparse.csr_matrix(block)
        matrix.indices[0] = 2**30
        return matrix

    lost = da.from_array(x, chunks=(7, -1)).map_blocks(damage, meta=sparse.csr_matrix((0, 0)))
    with pytest.raises(InputError, match="X is damaged"):
        to_csr(lost, "X")


@pytest.mark.parametrize("dense", [True, False])
def test_a_slide_that_stays_on_disk_has_the_same_counts(tmp_path, dense):
    slide = a_slide()
    x = slide.X.toarray()
    slide.X = x if dense else slide.X
    slide.write_h5ad(tmp_path / "a.h5ad")
    backed = anndata.read_h5ad(tmp_path / "a.h5ad", backed="r")
    np.testing.assert_array_equal(counts(backed).matrix.toarray(), x)
    np.testing.assert_array_equal(counts(backed[3:9]).matrix.toarray(), x[3:9])
    backed.file.close()


def test_masked_values_are_missing():
    x = np.ma.masked_array(a_slide().X.toarray(), mask=False)
    np.testing.assert_array_equal(to_csr(x, "X").toarray(), x.data)
    x[2, 3] = np.ma.masked
    with pytest.raises(InputError, match="X has 1 masked value; fill them in"):
        to_csr(x, "X")


@pytest.mark.parametrize("large", [2.0**24 + 2, 1e15, 1e39, 1e300])
def test_no_count_is_too_large_for_float32(large):
    slide = a_slide()
    x = slide.X.toarray().astype(np.float64)
    x[0, 0] = large
    slide.X = x
    with pytest.raises(InputError, match=r"X holds values up to .*no count is above 16,777,216"):
        counts(slide)
    x[0, 0] = 2.0**24
    assert counts(slide).matrix.max() == 2.0**24


def test_sums_of_duplicates_are_exact_or_refused_and_the_slide_is_not_changed():
    large = 2.0**24
    for dtype in (np.float32, np.float64):
        parts = np.array([large, large], dtype), np.array([1, 1]), np.array([0, 2])
        twice = sparse.csr_matrix(parts, shape=(1, 3))
        with pytest.raises(InputError, match="counts that add up to"):
            canonical(to_csr(twice, "X"), "X")
        twice.data[:] = 3
        assert canonical(to_csr(twice, "X"), "X")[0].toarray().tolist() == [[0, 6, 0]]
        assert twice.nnz == 2


def test_counts_with_rounding_errors_are_rounded_and_that_is_told():
    slide = a_slide()
    x = slide.X.toarray()
    size = x.sum(axis=1, keepdims=True)
    normalized = np.log1p(x / size * 1e4).astype(np.float32)
    for values in (np.expm1(normalized) / 1e4 * size, x * 1.0000001, x - 1e-6):
        slide.X = sparse.csr_matrix(values)
        found = counts(slide)
        np.testing.assert_array_equal(found.matrix.toarray(), x)
        assert found.note == "X holds counts with rounding errors; they were rounded"


def test_fractions_are_not_rounded():
    x = a_slide().X.toarray()
    for values in (x * 0.97, x / x.sum() / 1e4, x * 1e5 + 0.3):
        assert "not integers" in value_fault(sparse.csr_matrix(values))


@pytest.mark.parametrize("dense", [True, False])
def test_corrected_counts_come_with_the_remedy_and_that_works(dense):
    slide = a_slide()
    values = slide.X.toarray() * 0.97
    slide.X = values if dense else sparse.csr_matrix(values)
    with pytest.raises(InputError, match="corrected counts") as caught:
        counts(slide)
    exec(str(caught.value).partition("round them: ")[2], {"slide": slide})
    np.testing.assert_array_equal(counts(slide).matrix.toarray(), values.round())


def test_a_table_in_a_layer_is_a_matrix():
    x = a_slide().X.toarray()
    np.testing.assert_array_equal(to_csr(pd.DataFrame(x), "X").toarray(), x)
