import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reference.published import nearest_spots
from sagefm import InputError
from sagefm.pp.neighborhood import average, nearest


def hexagonal(rows, columns, pitch=137.0):
    y, x = np.mgrid[:rows, :columns]
    return np.c_[(x + 0.5 * (y % 2)).ravel(), (y * np.sqrt(3) / 2).ravel()] * pitch


# Few distinct values: many exact ties, and spots at the same place.
points = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=15, max_size=90).map(
    lambda pairs: np.array(pairs, dtype=float)
)


@given(points, st.integers(1, 15))
@settings(max_examples=60, deadline=None)
def test_exact_with_ties_by_place(coordinates, k):
    np.testing.assert_array_equal(nearest(coordinates, k), nearest_spots(coordinates, k))


@given(points, st.integers(1, 15), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_the_order_of_the_spots_changes_no_neighborhood(coordinates, k, random):
    order = np.array(random.sample(range(len(coordinates)), len(coordinates)))
    shuffled = coordinates[order]
    np.testing.assert_array_equal(
        shuffled[nearest(shuffled, k)], coordinates[nearest(coordinates, k)][order]
    )


@pytest.mark.parametrize("name", ["model", "context_model"])
def test_a_shuffled_slide_has_the_same_embeddings_to_the_bit(name, slide, request):
    model = request.getfixturevalue(name)
    order = np.random.default_rng(0).permutation(slide.n_obs)
    np.testing.assert_array_equal(model.embed(slide[order].copy()), model.embed(slide)[order])


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_exact_for_any_coordinates(seed):
    coordinates = np.random.default_rng(seed).normal(size=(120, 2)) * 1e4
    np.testing.assert_array_equal(nearest(coordinates), nearest_spots(coordinates))


def test_more_ties_than_candidates():
    coordinates = np.zeros((400, 2))
    coordinates[:10] = 1.0
    expected = nearest_spots(coordinates)
    np.testing.assert_array_equal(nearest(coordinates), expected)
    assert expected[399].tolist() == [399, *range(10, 24)]  # at one place the center leads


def test_a_hexagonal_grid_has_two_rings_and_two_of_the_third():
    coordinates = hexagonal(21, 21)
    center = 10 * 21 + 10
    near = nearest(coordinates)[center]
    rings = np.linalg.norm(coordinates[near] - coordinates[center], axis=1) / 137
    np.testing.assert_allclose(rings, [0] + [1] * 6 + [3**0.5] * 6 + [2] * 2, rtol=1e-9)


@pytest.mark.parametrize("scale", [1.0, 137.3, 200.0])
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_ties_of_an_ideal_grid_go_by_place_whatever_rounding_does(scale, offset):
    column, row = np.meshgrid(np.arange(24), np.arange(24))
    column, row = (2 * column + row % 2).ravel(), row.ravel()
    by_place = np.lexsort((row, column))
    exact = (column[:, None] - column[by_place]) ** 2 + 3 * (row[:, None] - row[by_place]) ** 2
    expected = by_place[np.argsort(exact, axis=1, kind="stable")[:, :15]]
    coordinates = np.c_[column / 2, row * np.sqrt(3) / 2] * scale + offset
    np.testing.assert_array_equal(nearest(coordinates), expected)


def test_real_slides(shared):
    import anndata

    for name in ("her2st_A1", "dlpfc_151510", "stahl_BC_layer1"):
        coordinates = anndata.read_h5ad(shared / "slides" / f"{name}.h5ad").obsm["spatial"]
        np.testing.assert_array_equal(nearest(coordinates), nearest_spots(coordinates))


def test_neighborhoods_never_cross_sections():
    one = hexagonal(5, 6)
    both = np.concatenate([one, one + 1.0])  # nearly on top of each other
    sections = np.repeat(["b", "a"], 30)
    shuffled = np.random.default_rng(0).permutation(60)
    near = nearest(both[shuffled], 15, sections[shuffled])
    assert (sections[shuffled][near] == sections[shuffled][:, None]).all()
    np.testing.assert_array_equal(
        nearest(both, 15, sections), np.concatenate([nearest(one), nearest(one) + 30])
    )


def test_a_section_of_one_spot_is_its_own_neighborhood():
    assert nearest([[0.0, 0.0], [1.0, 0.0], [5.0, 5.0]], 1, [0, 0, 1]).tolist() == [[0], [1], [2]]


def test_too_few_spots_are_refused_by_name():
    with pytest.raises(InputError, match="the slide has 12 spots, but a neighborhood needs 15"):
        nearest(hexagonal(3, 4))
    sections = ["good"] * 20 + ["tiny"] * 5
    with pytest.raises(InputError, match="slide tiny has 5 spots"):
        nearest(hexagonal(5, 5), 15, sections)


@pytest.mark.parametrize("center", [True, False])
def test_the_operator_is_the_mean_over_the_neighborhood(center):
    near = nearest(hexagonal(6, 6))
    values = np.random.default_rng(0).random((36, 3), dtype=np.float32)
    members = near if center else near[:, 1:]
    np.testing.assert_allclose(
        average(near, center=center) @ values, values[members].mean(axis=1), rtol=1e-5
    )


def a_grid(n=400):
    rows, columns = np.divmod(np.arange(n), 20)
    return np.column_stack([2.0 * columns + rows % 2, rows * np.sqrt(3)]) * 50


@pytest.mark.parametrize("scale", [2.0**-20, 1e-5, 1e-3, 1e3, 1e5])
def test_neighborhoods_do_not_depend_on_the_unit(scale):
    np.testing.assert_array_equal(nearest(a_grid() * scale, 7), nearest(a_grid(), 7))


@pytest.mark.parametrize("shift", [1e5, 1e6, -1e7])
def test_neighborhoods_do_not_depend_on_the_origin(shift):
    members = np.sort(nearest(a_grid() + shift, 15))
    np.testing.assert_array_equal(members, np.sort(nearest(a_grid(), 15)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda xy: xy * 1e200, "out of scale; correct"),
        (lambda xy: xy * 1e7, "out of scale; correct"),
        (lambda xy: xy * 1e-170, "all coordinates lie within"),
        (lambda xy: xy * 1e-14, "all coordinates lie within"),
        (lambda xy: xy + 1e12, "out of scale; correct"),
        (lambda xy: xy + 9e8, "rounding hides their distances; subtract"),
        (lambda xy: xy * 1e-4 + 1e5, "rounding hides their distances; subtract"),
        (lambda xy: np.vstack([xy, [[1e200, 0]]]), "out of scale; correct"),
    ],
)
def test_coordinates_that_hide_distances_are_refused(change, words):
    with pytest.raises(InputError, match=words):
        nearest(change(a_grid()), 7)


def test_a_far_spot_changes_no_other_neighborhood():
    far = np.vstack([a_grid(), [[9e8, 9e8]]])
    np.testing.assert_array_equal(nearest(far, 7)[:-1], nearest(a_grid(), 7))
