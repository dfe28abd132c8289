"""Many aligned slides on disk: what is built, and what is read back."""

import pickle
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from sagefm import InputError, SageFM
from sagefm.model import Config
from sagefm.pp.detection import DetectionTally
from sagefm.pp.simulate import simulate
from sagefm.pp.vocabulary import Vocabulary
from sagefm.pretrain.corpus import Corpus, build

NAMES = ["s0", "s1", "s2", "s3"]


@pytest.fixture(scope="module")
def slides():
    return {
        name: simulate(150 + 20 * i, seed=i, patient=f"p{i // 2}", slide=name)
        for i, name in enumerate(NAMES)
    }


@pytest.fixture(scope="module")
def files(slides, tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    for name, slide in slides.items():
        slide.write_h5ad(folder / f"{name}.h5ad")
    return {name: folder / f"{name}.h5ad" for name in slides}


@pytest.fixture(scope="module")
def corpus(files, tmp_path_factory):
    out = tmp_path_factory.mktemp("corpus") / "c"
    assert build(files, out).added == NAMES
    return Corpus.open(out)


def stored(corpus, slide):
    """The slide as any other tool reads it."""
    return ad.read_zarr(corpus.path / "slides" / f"{slide}.zarr")


def wide(n_spots, n_genes, per_spot, seed=0):
    """A slide on a square grid with random counts."""
    rng = np.random.default_rng(seed)
    columns = np.sort(rng.integers(0, n_genes, (n_spots, per_spot), dtype=np.int32), axis=1)
    ends = np.arange(0, columns.size + 1, per_spot)
    counts = csr_matrix(
        (rng.integers(1, 9, columns.size).astype(np.float32), columns.ravel(), ends),
        shape=(n_spots, n_genes),
    )
    counts.sum_duplicates()
    side = int(np.ceil(np.sqrt(n_spots)))
    place = rng.permutation(n_spots)
    return ad.AnnData(
        counts,
        obs=pd.DataFrame(index=[f"spot{i}" for i in range(n_spots)]),
        var=pd.DataFrame(index=[f"GENE{i}" for i in range(n_genes)]),
        obsm={"spatial": np.c_[place % side, place // side].astype(float)},
    )


def test_what_is_read_is_what_a_model_sees(corpus, slides):
    model = SageFM.new(corpus.vocabulary, Config(widths=(8, 8, 8, 8, 8)))
    for name, slide in slides.items():
        prepared = model.prepare(slide)
        row = stored(corpus, name).obs["row"].to_numpy()
        region = corpus.read(name, 0, slide.n_obs)
        assert (region.log1p != prepared.log1p[row]).nnz == 0
        assert region.log1p.dtype == np.float32
        assert np.array_equal(row[region.neighbors], prepared.neighbors[row])


@settings(max_examples=40, deadline=None)
@given(ends=st.lists(st.integers(0, 150), min_size=2, max_size=2, unique=True))
def test_a_part_is_the_same_part_of_the_whole(corpus, ends):
    start, stop = sorted(ends)
    whole, part = corpus.read("s0", 0, 150), corpus.read("s0", start, stop)
    rows = np.unique(whole.neighbors[start:stop])
    assert (part.log1p != whole.log1p[rows]).nnz == 0
    assert np.array_equal(rows[part.neighbors], whole.neighbors[start:stop])


@pytest.mark.parametrize("ends", [(0, 151), (-1, 5), (5, 5), (9, 3)])
def test_spots_that_are_not_there(corpus, ends):
    with pytest.raises(InputError, match="has spots 0 to 150"):
        corpus.read("s0", *ends)


def test_other_tools_read_it(corpus, slides):
    read = stored(corpus, "s1")
    slide = slides["s1"][:, corpus.vocabulary.symbols]
    row = read.obs["row"].to_numpy()
    assert read.obs_names.tolist() == slide.obs_names[row].tolist()
    assert (slide.X[row] != read.X).nnz == 0
    assert read.X.has_canonical_format
    assert np.array_equal(read.X @ np.ones(read.n_vars), slide.X[row].sum(axis=1).A1)
    assert np.array_equal(read.obsm["spatial"], slide.obsm["spatial"][row])
    assert read.var_names.tolist() == list(corpus.vocabulary)
    assert read.var["measured"].all()
    assert read.var["detected"].tolist() == (slide.X > 0).sum(axis=0).A1.tolist()
    assert read.uns["sagefm"]["corpus"]["patient"] == "p0"
    assert corpus.detected("s1").tolist() == read.var["detected"].tolist()


def test_spots_that_follow_each_other_lie_near_each_other(tmp_path):
    wide(2500, 200, 20).write_h5ad(tmp_path / "w.h5ad")
    build({"w": tmp_path / "w.h5ad"}, tmp_path / "c")
    corpus = Corpus.open(tmp_path / "c")
    points = stored(corpus, "w").obsm["spatial"]
    steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
    assert steps.mean() < 1.5
    assert np.ptp(points[:256], axis=0).max() < 32  # a patch, not a stripe
    read = corpus.read("w", 0, 256).log1p.shape[0]
    assert read < 1.6 * 256  # with all the neighbors


def test_the_table(corpus, slides):
    table = corpus.table
    assert table.index.tolist() == NAMES
    assert table["patient"].tolist() == ["p0", "p0", "p1", "p1"]
    assert table["spots"].tolist() == [150, 170, 190, 210]
    depth = np.median(slides["s2"].X.sum(axis=1).A1)
    assert table.at["s2", "depth"] == depth
    assert (table["genes"] == len(corpus.vocabulary)).all()
    assert table["nonzeros"].tolist() == [slide.X.nnz for slide in slides.values()]
    assert table["checksum"].nunique() == 4
    assert repr(corpus).endswith(
        f"c: 4 slides of 2 patients, 720 spots × {len(corpus.vocabulary):,} genes)"
    )
    assert corpus.verify() == []


def test_a_slide_comes_back_as_it_was(corpus, slides):
    model = SageFM.new(corpus.vocabulary, Config(widths=(8, 8, 8, 8, 8)))
    back = corpus.slide("s3")
    assert back.obs_names.tolist() == slides["s3"].obs_names.tolist()
    assert set(back.obs["patient"]) == {"p1"}
    assert back.uns["sagefm"]["corpus"]["spots"] == 210
    # The order of summands differs; one neighborhood that differs would show a hundred times more.
    np.testing.assert_allclose(model.embed(back), model.embed(slides["s3"]), atol=1e-6)
    with pytest.raises(InputError, match=r"c: has no slide 's33'; is it 's3'\?"):
        corpus.slide("s33")


def test_genes_that_a_slide_lacks_are_missing_not_zero(slides, tmp_path):
    slides["s0"].write_h5ad(tmp_path / "whole.h5ad")
    slides["s1"][:, 300:].copy().write_h5ad(tmp_path / "part.h5ad")
    build({n: tmp_path / f"{n}.h5ad" for n in ("whole", "part")}, tmp_path / "c")
    corpus = Corpus.open(tmp_path / "c")
    measured = stored(corpus, "part").var["measured"]
    assert measured.sum() == corpus.table.at["part", "genes"] == len(corpus.slide("part").var)
    assert not measured[slides["s1"].var_names[:300].intersection(measured.index)].any()


def test_genes_of_later_slides_are_left_out_and_told(slides, tmp_path):
    told = []
    slides["s0"][:, 300:].copy().write_h5ad(tmp_path / "a.h5ad")
    slides["s1"].write_h5ad(tmp_path / "b.h5ad")
    build({"a": tmp_path / "a.h5ad"}, tmp_path / "c")
    vocabulary = Corpus.open(tmp_path / "c").vocabulary
    built = build({"b": tmp_path / "b.h5ad"}, tmp_path / "c", progress=told.append)
    assert str(built) == "1 slide added, 0 there already"
    assert Corpus.open(tmp_path / "c").vocabulary == vocabulary
    (line,) = told
    assert line.startswith("b: 170 spots; matched ")
    lost = slides["s1"].n_vars - len(vocabulary)
    assert f"{lost} genes with" in line
    assert "of the counts are left out" in line


def test_the_vocabulary_can_be_chosen(files, tmp_path, slides):
    build(files, tmp_path / "n", genes=50)
    top = Corpus.open(tmp_path / "n").vocabulary
    assert len(top) == 50
    Vocabulary(top.symbols[:40]).write(tmp_path / "genes.txt")
    build(files, tmp_path / "f", genes=tmp_path / "genes.txt")
    assert Corpus.open(tmp_path / "f").vocabulary.symbols == top.symbols[:40]
    for folder, same, other in [("n", 50, 60), ("f", tmp_path / "genes.txt", 50)]:
        assert len(build(files, tmp_path / folder, genes=same).skipped) == 4
        with pytest.raises(InputError, match=r"has \d+ genes, not \d+; leave --genes out"):
            build(files, tmp_path / folder, genes=other)
    with pytest.raises(InputError, match="50 genes that are not those of"):
        build(files, tmp_path / "n", genes=tmp_path / "genes.txt")
    with pytest.raises(InputError, match="neighborhoods of 15 spots, not 9"):
        build(files, tmp_path / "n", n_neighbors=9)


def test_genes_are_tallied_in_any_order(slides):
    def tally(*names):
        whole = DetectionTally()
        for name in names:
            part = DetectionTally()
            part.add(slides[name])
            whole.merge(part)
        return whole.vocabulary(200)

    assert tally("s0", "s1", "s2") == tally("s2", "s0", "s1")


def test_neighborhoods_of_another_size(files, tmp_path):
    build({"s0": files["s0"]}, tmp_path / "c", n_neighbors=7)
    corpus = Corpus.open(tmp_path / "c")
    assert corpus.n_neighbors == 7
    assert corpus.read("s0", 0, 20).neighbors.shape == (20, 7)


def test_facts_come_from_the_table_then_from_the_slide(slides, tmp_path, caplog):
    slide = slides["s0"].copy()
    slide.obs["organ"], slide.uns["license"] = "Brain", "CC0"
    slide.obs["disease"] = np.where(np.arange(150) < 9, "Healthy", "Cancer")
    slide.write_h5ad(tmp_path / "a.h5ad")
    del slide.obs["patient"]
    slide.write_h5ad(tmp_path / "b.h5ad")
    slide.write_h5ad(tmp_path / "c.h5ad")
    facts = pd.DataFrame(
        {"slide": ["a", "b", "typo"], "patient": [" x ", None, "y"], "organ": ["Heart", "", "z"]}
    )
    build({n: tmp_path / f"{n}.h5ad" for n in "abc"}, tmp_path / "out", facts=facts)
    table = Corpus.open(tmp_path / "out").table
    assert table["patient"].tolist() == ["x", "b", "c"]
    assert table["organ"].tolist() == ["Heart", "Brain", "Brain"]
    assert table["disease"].tolist() == ["", "", ""]  # two values are no fact about the slide
    assert table["license"].tolist() == ["CC0"] * 3
    assert table["source"].tolist() == ["a.h5ad", "b.h5ad", "c.h5ad"]
    assert "2 of 3 slides name no patient and count as a patient each (b, c)" in caplog.text
    assert "1 of 3 rows of the table match no slide (typo)" in caplog.text


def test_sections_and_patients_in_one_file_become_slides(slides, tmp_path):
    sections = {name: slides[name].copy() for name in ("s0", "s1")}
    sections["s1"].obs["patient"] = np.where(np.arange(170) % 2, "left", "right")
    both = ad.concat(sections, index_unique="-", merge="same")
    both.obs["section"] = both.obs["slide"].map({"s0": "A/1", "s1": "B"})
    both.write_h5ad(tmp_path / "f.h5ad")
    build({"f": tmp_path / "f.h5ad"}, tmp_path / "c", slide_key="section")
    corpus = Corpus.open(tmp_path / "c")
    assert set(corpus.table.index) == {"f_A-1_p0", "f_B_left", "f_B_right"}
    assert corpus.table["patient"].to_dict() == {
        "f_A-1_p0": "p0", "f_B_left": "left", "f_B_right": "right",
    }  # fmt: skip
    assert corpus.table["spots"].to_dict() == {"f_A-1_p0": 150, "f_B_left": 85, "f_B_right": 85}
    again = build({"f": tmp_path / "f.h5ad"}, tmp_path / "c", slide_key="section")
    assert sorted(again.skipped) == sorted(corpus.table.index)


def test_large_counts(slides, tmp_path):
    slide = slides["s0"].copy()
    slide.X.data[5] = 70_000
    slide.write_h5ad(tmp_path / "a.h5ad")
    build({"a": tmp_path / "a.h5ad"}, tmp_path / "c")
    corpus = Corpus.open(tmp_path / "c")
    assert stored(corpus, "a").X.max() == 70_000
    assert corpus.read("a", 0, 150).log1p.max() == np.log1p(np.float32(70_000))


def test_every_array_is_one_file_also_of_hardly_a_count(tmp_path):
    slide = wide(100, 200, 1)
    slide.X.data[slide.X.indptr[50] :] = 0
    slide.X.eliminate_zeros()
    slide.write_h5ad(tmp_path / "a.h5ad")
    build({"a": tmp_path / "a.h5ad"}, tmp_path / "c")
    corpus = Corpus.open(tmp_path / "c")
    assert corpus.read("a", 0, 100).log1p.nnz == 50
    files = list((tmp_path / "c" / "slides").rglob("*"))
    arrays = [file.name for file in files if file.is_file() and file.name != "zarr.json"]
    assert set(arrays) == {"0", "c"}
    assert corpus.verify() == []


def test_it_can_be_sent_to_processes_and_read_by_threads(corpus):
    sent = pickle.loads(pickle.dumps(corpus))
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(lambda at: sent.read("s0", at, at + 10), range(0, 150, 10)))
    whole = corpus.read("s0", 0, 150)
    for i, part in enumerate(parts):
        centers = part.log1p[part.neighbors[:, 0]]
        assert (centers != whole.log1p[10 * i : 10 * i + 10]).nnz == 0


def test_reading_a_region_takes_the_memory_of_the_region(tmp_path):
    slide = wide(20_000, 600, 150)
    slide.write_h5ad(tmp_path / "w.h5ad")
    build({"w": tmp_path / "w.h5ad"}, tmp_path / "c", genes=600)
    corpus = Corpus.open(tmp_path / "c")
    tracemalloc.start()
    corpus.read("w", 9_000, 9_200)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 0.2 * 8 * slide.X.nnz


def test_processes_make_the_same_corpus(corpus, files, tmp_path, caplog):
    corpus.vocabulary.write(tmp_path / "genes.txt")
    (tmp_path / "bad.h5ad").write_text("nothing")
    files = {**files, "bad": tmp_path / "bad.h5ad"}
    built = build(files, tmp_path / "c", workers=2, genes=tmp_path / "genes.txt")
    assert sorted(built.added) == NAMES
    assert list(built.failed) == ["bad"]
    made = Corpus.open(tmp_path / "c")
    assert made.table.equals(corpus.table)
    assert made.checksum == corpus.checksum


def test_a_real_slide_takes_few_bytes(shared, tmp_path):
    name = "dlpfc_151673"
    build({name: shared / "slides" / f"{name}.h5ad"}, tmp_path / "c", genes=6000)
    corpus = Corpus.open(tmp_path / "c")
    assert corpus.n_bytes / corpus.table["nonzeros"].sum() <= 8
