"""Counts that stay on disk: the same numbers as in memory, whatever the file and the order."""

import warnings

import anndata as ad
import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csc_matrix, csr_matrix

import sagefm
from sagefm import InputError
from sagefm.pp import backed, on_disk
from sagefm.pp.columns import ColumnMap, remapped
from sagefm.pp.on_disk import counts_on_disk
from sagefm.pp.writing import write_slide
from sagefm.stats.sums import column_sums, row_sums


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(on_disk, "BLOCK", 3000)
    monkeypatch.setattr(on_disk, "_GAP", 500)


@pytest.fixture(scope="module")
def files(slide, tmp_path_factory):
    folder = tmp_path_factory.mktemp("on_disk")
    slide.write_h5ad(folder / "s.h5ad", compression="gzip")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of how zarr stores text
        slide.write_zarr(folder / "s.zarr")
    dense = slide.copy()
    dense.X = dense.X.toarray()
    dense.write_h5ad(folder / "dense.h5ad")
    integers = slide.copy()
    integers.X = integers.X.astype(np.int64)
    integers.write_h5ad(folder / "integers.h5ad")
    layered = slide.copy()
    layered.layers["counts"], layered.X = layered.X.copy(), layered.X.log1p()
    layered.write_h5ad(folder / "layered.h5ad")
    layered.raw = slide
    del layered.layers["counts"]
    layered.write_h5ad(folder / "raw.h5ad")
    return folder


@pytest.mark.parametrize(
    "name", ["s.h5ad", "s.zarr", "dense.h5ad", "integers.h5ad", "layered.h5ad", "raw.h5ad"]
)
def test_the_counts_are_those_in_memory(files, slide, name):
    opened, whole = (sagefm.read(files / name, backed=backed) for backed in (True, False))
    counts = counts_on_disk(opened)
    assert opened.X is None and counts.load().dtype == np.float32
    assert (counts.load() != slide.X).nnz == 0
    assert opened.var_names.equals(whole.var_names) and opened.obs_names.equals(whole.obs_names)
    assert opened.uns["sagefm"]["read"] == whole.uns["sagefm"]["read"] | {
        "told": opened.uns["sagefm"]["read"]["told"],
        "lost": opened.uns["sagefm"]["read"]["lost"],
    }


def test_all_spots_come_once_in_blocks_and_in_any_order_that_is_asked_for(files, slide):
    order = np.random.default_rng(0).permutation(slide.n_obs)[:120]
    counts = counts_on_disk(sagefm.read(files / "s.h5ad", backed=True)[order].copy())
    blocks = list(counts.blocks())
    assert len(blocks) == counts.n_blocks > 5
    assert sorted(np.concatenate([spots for spots, _ in blocks])) == list(range(120))
    for spots, block in blocks:
        assert (block != slide.X[order[spots]]).nnz == 0
    rest = [spots for spots, _ in counts.blocks(3)]
    assert np.array_equal(np.concatenate(rest), np.concatenate([s for s, _ in blocks[3:]]))
    some = np.array([7, 3, 90, 4])
    assert (counts.take(some) != slide.X[order[some]]).nnz == 0


def test_genes_can_be_reordered_and_left_out(files, slide, tmp_path):
    genes = np.random.default_rng(0).permutation(slide.n_vars)[:700]
    cut = sagefm.read(files / "s.h5ad", backed=True)[30:, genes].copy()
    assert (counts_on_disk(cut).load() != slide.X[30:][:, genes]).nnz == 0
    write_slide(cut, tmp_path / "o.h5ad")
    written = ad.read_h5ad(tmp_path / "o.h5ad")
    assert (slide.X[30:][:, genes] != written.X).nnz == 0 and "sagefm_gene" not in written.var


def test_parts_of_one_file_can_be_put_together_but_not_those_of_two(files, slide):
    a, b = (sagefm.read(files / name, backed=True) for name in ("s.h5ad", "s.zarr"))
    same = ad.concat([a[120:], a[:50]], uns_merge="first", merge="first")
    assert (counts_on_disk(same).load() != slide.X[np.r_[120:200, :50]]).nnz == 0
    for parts in ([a[:50], b[50:]], [a[:50], a[:50]]):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of repeated names
            mixed = ad.concat(parts, uns_merge="first", merge="first")
        with pytest.raises(InputError, match="put together from several"):
            counts_on_disk(mixed)


def test_counts_of_a_layer_are_not_taken_for_those_of_another(files):
    opened = sagefm.read(files / "layered.h5ad", backed=True)
    for layer in (None, "X", "counts"):
        assert counts_on_disk(opened, layer).group == "layers/counts"
    with pytest.raises(InputError, match="read it with layer='other'"):
        sagefm.tl.domains(opened, n_domains=2, layer="other")


def test_what_is_not_read_is_told(slide, tmp_path):
    more = slide.copy()
    more.layers["X"], more.layers["scaled"] = more.X.log1p(), more.X * 0.5
    more.varm["PCs"], more.obsp["graph"] = np.ones((slide.n_vars, 2)), csr_matrix(np.eye(200))
    more.write_h5ad(tmp_path / "more.h5ad")
    opened = sagefm.read(tmp_path / "more.h5ad", backed=True)
    assert "PCs" in opened.varm and "graph" in opened.obsp
    assert (counts_on_disk(opened).load() != slide.X).nnz == 0
    lost = opened.uns["sagefm"]["read"]["lost"]
    assert lost == ["not read and left out: layers['X'], layers['scaled']"]


def test_sums_of_small_integers_do_not_overflow_and_repeated_entries_are_summed(slide, tmp_path):
    odd = slide[:40].copy()
    indices, values = np.tile([3, 9, 9, 3], 40), np.full(160, 50_000, dtype=np.uint16)
    odd.X = csr_matrix((values, indices, np.arange(0, 161, 4)), shape=odd.shape)
    names = odd.var_names.to_numpy(dtype=object).copy()
    names[5] = names[9]
    odd.var_names = names
    odd.write_h5ad(tmp_path / "odd.h5ad")
    counts = counts_on_disk(sagefm.read(tmp_path / "odd.h5ad", backed=True)).load()
    assert counts.has_canonical_format and counts.sum() == 160 * 50_000
    assert counts.max() == 100_000


@pytest.mark.parametrize("name", ["none.h5ad", "s.zip", "text.h5ad", "."])
def test_what_cannot_stay_on_disk_is_named(files, tmp_path, name):
    (tmp_path / "s.zip").write_bytes(b"PK")
    (tmp_path / "text.h5ad").write_text("x")
    with pytest.raises(InputError, match=r"does not exist|only an \.h5ad or a \.zarr"):
        sagefm.read(tmp_path / name, backed=True)


def test_a_file_that_links_to_others_is_refused(files, slide, tmp_path):
    slide.write_h5ad(tmp_path / "link.h5ad")
    with h5py.File(tmp_path / "link.h5ad", "r+") as file:
        del file["X"]
        file["X"] = h5py.ExternalLink(str(files / "s.h5ad"), "X")
    with pytest.raises(InputError, match="link to another file"):
        sagefm.read(tmp_path / "link.h5ad", backed=True)


def test_reads_are_short_however_spots_are_scattered(files, slide, monkeypatch):
    monkeypatch.setattr(on_disk, "_GAP", 10**9)
    counts, read = counts_on_disk(sagefm.read(files / "s.h5ad", backed=True)), []
    whole = type(counts)._read_run

    def read_run(self, data, indices, ends, run, first):
        read.append(int(ends[-1] - ends[0]))
        return whole(self, data, indices, ends, run, first)

    monkeypatch.setattr(type(counts), "_read_run", read_run)
    assert (counts.take(np.arange(0, 200, 3)) != slide.X[::3]).nnz == 0
    assert max(read) <= 3000 + counts.sizes().max()


def test_duplicated_genes_are_summed_and_spots_outside_the_tissue_left_out(slide, tmp_path):
    odd = slide.copy()
    names = odd.var_names.to_numpy(dtype=object).copy()
    names[5] = names[9]
    odd.var_names = names
    odd.obs["in_tissue"] = (np.arange(odd.n_obs) % 3 > 0).astype(int)
    odd.write_h5ad(tmp_path / "odd.h5ad")
    opened, whole = (sagefm.read(tmp_path / "odd.h5ad", backed=backed) for backed in (True, False))
    assert opened.shape == whole.shape == (odd.n_obs * 2 // 3, odd.n_vars - 1)
    assert (counts_on_disk(opened).load() != whole.X).nnz == 0
    write_slide(opened, tmp_path / "o.h5ad")
    assert (ad.read_h5ad(tmp_path / "o.h5ad").X != whole.X).nnz == 0


@pytest.mark.parametrize("name", ["s.h5ad", "s.zarr", "dense.h5ad", "integers.h5ad"])
def test_a_written_slide_has_its_counts(files, slide, name, tmp_path):
    opened = sagefm.read(files / name, backed=True)
    opened.obs["new"] = 1.0
    write_slide(opened, tmp_path / "o.h5ad")
    written = ad.read_h5ad(tmp_path / "o.h5ad")
    assert (written.X != slide.X).nnz == 0 and (written.obs["new"] == 1).all()
    assert "on_disk" not in written.uns["sagefm"] and "sagefm_row" not in written.obs


def test_other_functions_read_the_counts_too(files):
    opened, whole = (sagefm.read(files / "s.h5ad", backed=backed) for backed in (True, False))
    assert sagefm.pp.check(opened) == sagefm.pp.check(whole)
    gene = whole.var_names[7]
    drawn = [sagefm.pl.spatial(slide, gene).collections[0] for slide in (opened, whole)]
    assert np.array_equal(*(one.get_array() for one in drawn))
    influence = [sagefm.pp.counts.counts(slide).matrix for slide in (opened, whole)]
    assert (influence[0] != influence[1]).nnz == 0


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda data: np.where(np.arange(len(data)) == 9000, 0.5, data), "not integers"),
        (lambda data: np.where(np.arange(len(data)) == 9000, np.nan, data), "NaN"),
        (lambda data: -data, "negative"),
    ],
)
def test_what_is_no_count_is_found_where_it_stands(slide, tmp_path, spoil, reason):
    bad = slide.copy()
    bad.write_h5ad(tmp_path / "bad.h5ad")
    opened = sagefm.read(tmp_path / "bad.h5ad", backed=True)
    with h5py.File(tmp_path / "bad.h5ad", "r+") as file:
        file["X/data"][...] = spoil(file["X/data"][...]).astype(np.float32)
    opened.uns["sagefm"]["on_disk"] |= on_disk._state(tmp_path / "bad.h5ad")
    with pytest.raises(InputError, match=rf"bad\.h5ad: X holds .*{reason}"):
        list(counts_on_disk(opened).blocks())


def test_a_file_that_was_changed_or_is_gone_is_named(slide, tmp_path):
    path = tmp_path / "s.h5ad"
    slide.write_h5ad(path)
    opened = sagefm.read(path, backed=True)
    slide[:100].write_h5ad(path)
    with pytest.raises(InputError, match=r"s\.h5ad: was changed"):
        counts_on_disk(opened)
    path.unlink()
    with pytest.raises(InputError, match=r"s\.h5ad: .*gone"):
        counts_on_disk(opened)


def test_damaged_and_transposed_counts_are_refused(slide, tmp_path, monkeypatch):
    path = tmp_path / "s.h5ad"
    slide.write_h5ad(path)
    opened = sagefm.read(path, backed=True)
    with h5py.File(path, "r+") as file:
        file["X/indices"][-1] = 10**6
    opened.uns["sagefm"]["on_disk"] |= on_disk._state(path)
    with pytest.raises(InputError, match=r"s\.h5ad: X has an index outside"):
        counts_on_disk(opened).load()
    by_gene = slide.copy()
    by_gene.X = csc_matrix(by_gene.X)
    by_gene.write_h5ad(path)
    with pytest.raises(InputError, match="stored by genes"):
        sagefm.read(path, backed=True)
    monkeypatch.setattr(backed, "LARGE", 0)
    assert sagefm.read(path, backed=None).X is not None


def test_sums_are_exact_where_single_counts_would_be_lost():
    counts = csr_matrix(np.array([[2.0**24, 1], [1, 0], [1, 0], [0, 0]], dtype=np.float32))
    assert column_sums(counts).tolist() == [2**24 + 2, 1]
    assert column_sums(counts, np.array([True, True, False, True])).tolist() == [2**24 + 1, 1]
    assert row_sums(counts).tolist() == [2**24 + 1, 1, 1, 0]


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_columns_move_as_a_product_moves_them(data):
    n_columns, n_places = data.draw(st.integers(1, 8)), data.draw(st.integers(1, 8))
    places = data.draw(
        st.lists(st.integers(-1, n_places - 1), min_size=n_columns, max_size=n_columns)
    )
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    matrix = rng.poisson(0.7, (5, n_columns)).astype(np.float32)
    operator = np.zeros((n_columns, n_places))
    for column, place in enumerate(places):
        if place >= 0:
            operator[column, place] = 1
    columns = ColumnMap(np.array(places, dtype=np.int32), n_places)
    assert np.array_equal(remapped(csr_matrix(matrix), columns).toarray(), matrix @ operator)
