"""The verb influence, as a user types it."""

import networkx
import pandas as pd
import pytest

import sagefm
from sagefm.model import Config, SageFM
from sagefm.pp.simulate import simulate
from sagefm.pp.vocabulary import Vocabulary
from sagefm.pp.writing import write_slide


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("influence")
    slide = simulate(150, seed=1, slide="s")
    write_slide(slide, place / "s.h5ad")
    vocabulary = Vocabulary(tuple(slide.var_names[:200]))
    SageFM.new(vocabulary, Config(widths=(16, 12, 12, 12, 14))).save(place / "m.safetensors")
    return place


@pytest.fixture(scope="module")
def held(folder):
    return sagefm.read(folder / "s.h5ad"), SageFM.load(folder / "m.safetensors", device="cpu")


@pytest.fixture
def run(run, folder, monkeypatch):
    monkeypatch.chdir(folder)
    return lambda *words: run("influence", *words, "--device", "cpu")


def test_genome_wide(run, folder, held):
    words = ["s.h5ad", "-m", "m.safetensors", "-o", "all.csv", "--edges", 300, "--plot", "all"]
    status, out, err = run(*words)
    assert status == 0, err
    wanted, found = sagefm.tl.influence(*held, n_edges=300), pd.read_csv(folder / "all.csv")
    pd.testing.assert_frame_equal(found, wanted, rtol=1e-4, check_dtype=False)
    assert out.startswith("all.csv: 300 edges on ")
    assert "influence: 150 of 150 spots" in err
    assert out.endswith("; all: 6 pictures\n")
    assert len(list((folder / "all").glob("*.png"))) == 6


def test_as_a_graph(run, folder, held):
    words = ["-o", "g.graphml", "--spots", 20, "--seed", 2]
    status, _, err = run("s.h5ad", "-m", "m.safetensors", *words)
    assert status == 0, err
    graph = networkx.read_graphml(folder / "g.graphml")
    wanted = sagefm.tl.influence(*held, n_spots=20, seed=2)
    assert len(wanted) == 500
    assert set(graph.edges) == set(zip(wanted["source"], wanted["target"], strict=True))
    assert set(graph.edges[next(iter(graph.edges))]) == {"neighbors", "center", "standardized"}


def test_chosen_genes_in_a_region(run, folder, held):
    slide, model = held
    genes, region = list(model.vocabulary)[3:40:4], f"domain={slide.obs['domain'].iloc[0]}"
    words = ["--genes", ",".join(genes), "--sources", "all", "--region", region]
    words += ["--where", "center"]
    status, _, err = run("s.h5ad", "-m", "m.safetensors", "-o", "m.csv", *words, "--plot", "few")
    assert status == 0, err
    wanted = sagefm.tl.influence(*held, genes, sources="all", region=region, where="center")
    assert wanted.shape == (200, 10)
    found = pd.read_csv(folder / "m.csv", index_col=0)
    pd.testing.assert_frame_equal(found, wanted, rtol=1e-4, check_names=False, check_dtype=False)
    drawn = {path.stem for path in (folder / "few").iterdir()}
    assert drawn
    assert drawn <= set(genes)
    status, _, err = run("s.h5ad", "-m", "m.safetensors", "-o", "m.graphml", *words)
    assert status == 0, err
    graph = networkx.read_graphml(folder / "m.graphml")
    source, target = next(iter(graph.edges))
    assert graph.edges[source, target]["center"] == pytest.approx(wanted.loc[source, target])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-o", "x.txt"], "x.txt: give it a name that ends with .csv or .graphml"),
        (["-o", "x.csv", "--genes", "NOT9A"], "s.h5ad: NOT9A: not one of the model's genes"),
        (["-o", "x.csv", "--genes", ","], "has no gene"),
        (["-o", "x.csv", "--region", "domain"], "write it KEY=VALUE"),
        (["-o", "x.csv", "--region", "organ=brain"], "obs has no column 'organ'"),
        (["-o", "x.csv", "--region", "domain=brain"], "no spot has that value"),
        (["-o", "x.csv", "--edges", "0"], "--edges"),
        (["-o", "x.csv", "--plot", "s.h5ad"], "s.h5ad"),
        (["-o", ".", "--edges", "2"], "give it a name"),
    ],
)
def test_bad_input_is_one_clear_line(run, folder, words, said):
    status, out, err = run("s.h5ad", "-m", "m.safetensors", *words)
    assert status == 2
    assert said in err
    assert len(err.splitlines()) == 1
    assert not out
    assert not list(folder.glob("*x.csv"))
