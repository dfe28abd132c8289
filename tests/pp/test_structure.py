import h5py
import numpy as np
import pytest
from scipy.sparse import csr_matrix, random_array

from sagefm import InputError
from sagefm.pp.structure import csr_of, require_counts, require_own_data


def parts(**changed):
    matrix = csr_matrix(np.rint(random_array((6, 5), density=0.6, rng=0).toarray() * 9))
    arrays = {name: getattr(matrix, name).copy() for name in ("data", "indices", "indptr")}
    for name, change in changed.items():
        arrays[name] = change(arrays[name])
    return (*arrays.values(), matrix.shape), matrix


@pytest.mark.parametrize("kind", [np.uint8, np.int64, np.uint64, ">i4"])
def test_sound_arrays_of_any_integer_type_are_the_matrix(kind):
    arrays, wanted = parts(**{name: lambda v: v.astype(kind) for name in ("indices", "indptr")})
    made = csr_of(*arrays)
    assert made.dtype == np.float32
    np.testing.assert_array_equal(made.toarray(), wanted.toarray())


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("indices", lambda v: v.astype(float), "indices are no list of whole numbers"),
        ("indices", lambda v: v[None], "indices are no list of whole numbers"),
        ("indices", lambda v: np.where(v == 4, 5, v), "0 to 5, outside of 5 columns"),
        ("indices", lambda v: np.where(v == 4, -1, v), "-1 to 3, outside of 5 columns"),
        ("indices", lambda v: v[:-1], "values and"),
        ("indptr", lambda v: v[:-1], "indptr has 6 entries and its shape 6 rows"),
        ("indptr", lambda v: v[::-1], "does not rise"),
        ("indptr", lambda v: v + 1, "does not rise"),
        ("data", lambda v: v.astype("S"), "data are no list of numbers"),
        ("data", lambda v: -v, "negative values"),
        ("data", lambda v: v * np.nan, "NaN"),
        ("data", lambda v: v * 1e9, "more than any gene"),
    ],
)
def test_arrays_that_are_no_matrix_of_counts_are_refused(name, change, words):
    arrays, _ = parts(**{name: change})
    with pytest.raises(InputError, match=words):
        csr_of(*arrays)


def test_the_largest_count_is_exact():
    require_counts(np.array([2**24]))
    with pytest.raises(InputError, match="16,777,217"):
        require_counts(np.array([2**24 + 1]))


def store(path, kind):
    with h5py.File(path, "w") as file:
        if kind == "link":
            file["a"] = h5py.ExternalLink("other.h5", "/a")
        elif kind == "storage":
            outside = [(str(path.with_name("raw")), 0, h5py.h5f.UNLIMITED)]
            file.create_dataset("a", (3,), "i4", external=outside)
        elif kind == "virtual":
            layout = h5py.VirtualLayout((3,), "i4")
            layout[:] = h5py.VirtualSource("other.h5", "a", shape=(3,))
            file.create_virtual_dataset("a", layout)
        elif kind == "claim":
            file.create_dataset("a", (10**12,), "i4", chunks=(10**6,))
        else:
            file["b"] = np.zeros(10)
            file["a"] = h5py.SoftLink("/b")
            file["loop"] = file["/"]
            file["dangling"] = h5py.SoftLink("/nothing")


@pytest.mark.parametrize("kind", ["link", "storage", "virtual", "claim", "fine"])
def test_a_file_must_hold_what_it_claims(tmp_path, kind):
    store(tmp_path / "a.h5", kind)
    with h5py.File(tmp_path / "a.h5") as file:
        if kind == "fine":
            require_own_data(file)
            return
        words = "claims 4,000,000,000,000 bytes" if kind == "claim" else "its a lies in another"
        with pytest.raises(InputError, match=words):
            require_own_data(file)
