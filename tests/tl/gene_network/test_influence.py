"""Influence of genes on genes, against finite differences through the oracle."""

import sys

import networkx
import numpy as np
import pandas as pd
import pytest
import torch

import sagefm
from reference import published
from sagefm import InputError
from sagefm.tl import consensus_network, influence, to_edges, to_graph

EPS = 1e-6


@pytest.fixture(scope="module")
def genes(model):
    """Some that the slide has, in an order of their own."""
    return [model.vocabulary[i] for i in (300, 7, 150, 21, 88)]


@pytest.fixture(scope="module")
def everything(slide, model):
    """Every measured gene on every gene of the model, dense."""
    return influence(slide, model, list(model.vocabulary), sources="all")


@pytest.fixture(scope="module")
def table(slide, model):
    return influence(slide, model, n_edges=1200)


def test_it_is_what_the_oracle_does_when_a_gene_is_raised(slide, model, genes):
    """In all neighbors at once, or in the center."""
    spots = np.arange(slide.n_obs) % 3 == 0
    prepared = model.prepare(slide).at(np.flatnonzero(spots))
    graphs = published.subgraphs(prepared.log1p, prepared.neighbors)
    (batch,) = published.batches(graphs, size=len(prepared.neighbors))
    x = batch.x.double()
    network = published.of_ours(model.network.state_dict(), model.config.widths).double()

    def predicted(x):
        with torch.no_grad():
            return network(x, batch.edge_index)[::15].mean(dim=0).numpy()

    center = np.arange(len(x)) % 15 == 0
    for where, members in (("neighbors", ~center), ("center", center)):
        found = influence(slide, model, genes, sources=genes[:2], where=where, region=spots)
        for gene in genes[:2]:
            raised = x.clone()
            raised[members, model.vocabulary.index[gene]] += EPS
            wanted = (predicted(raised) - predicted(x)) / EPS
            wanted = wanted[model.vocabulary.positions(genes)]
            assert np.abs(wanted).max() > 1e-4
            np.testing.assert_allclose(found.loc[gene], wanted, atol=1e-7, rtol=1e-3)


def test_the_matrix_is_labeled(slide, model, genes):
    found = influence(slide, model, genes)
    assert list(found.index) == list(found.columns) == genes
    assert (found.index.name, found.columns.name) == ("source", "target")
    assert (np.diag(found) != 0).any()  # a gene on itself is in the matrix
    other = influence(slide, model, genes, sources=genes[3:0:-1])
    pd.testing.assert_frame_equal(other, found.loc[genes[3:0:-1]])
    center = influence(slide, model, genes, where="center")
    pd.testing.assert_frame_equal(14 * center, found)
    assert influence(slide, model, [genes[0]] * 2).shape == (1, 1)


@pytest.fixture(scope="module")
def sizes(slide, model, everything):
    """Every influence in standard deviations: of the source around spots, of the target in them."""
    prepared = model.prepare(slide)
    log1p = prepared.log1p.toarray().astype(float)
    around = log1p[prepared.neighbors[:, 1:]].mean(axis=1).std(axis=0)
    sd = pd.DataFrame({"around": around, "within": log1p.std(axis=0)}, list(model.vocabulary))
    sd[sd < 1e-6] = np.nan
    scaled = everything.mul(sd["around"], axis=0).div(sd["within"], axis=1)
    return to_edges(scaled.fillna(0)).set_index(["source", "target"])["neighbors"]


def test_the_table_is_the_top_of_the_dense_matrix(everything, sizes, table):
    assert list(table) == ["source", "target", "neighbors", "center", "standardized"]
    found = table.set_index(["source", "target"])
    assert len(found) == 1200 < len(sizes)
    assert found.index.is_unique
    assert found["standardized"].abs().is_monotonic_decreasing
    np.testing.assert_allclose(found["standardized"], sizes[found.index], rtol=1e-3, atol=1e-9)
    largest = sizes.abs().sort_values(ascending=False).to_numpy()
    np.testing.assert_allclose(found["standardized"].abs(), largest[:1200], rtol=1e-3)
    raw = [everything.loc[edge] for edge in found.index]
    np.testing.assert_allclose(found["neighbors"], raw, rtol=1e-4, atol=1e-9)
    np.testing.assert_allclose(found["neighbors"], 14 * found["center"], rtol=1e-5)


def test_it_is_small_by_default(slide, model, table):
    found = influence(slide, model)
    pd.testing.assert_frame_equal(found, table[:500])


def test_all_edges_on_request(slide, model, sizes):
    found = influence(slide, model, n_edges=10**9)
    assert len(found) == len(sizes)
    assert (found["source"] != found["target"]).all()
    assert not {*found["source"], *found["target"]} & {"NOT1A", "NOT2A"}  # not measured


def test_sources_can_be_chosen_genome_wide(slide, model, genes, table):
    found = influence(slide, model, sources=genes, n_edges=40)
    assert len(found) == 40
    assert set(found["source"]) <= set(genes)
    whole = influence(slide, model, n_edges=10**9)
    wanted = whole[whole["source"].isin(genes)][:40].reset_index(drop=True)
    pd.testing.assert_frame_equal(found, wanted, rtol=1e-4)


def test_nothing_varies_over_one_spot(slide, model):
    with pytest.raises(InputError, match=r"no source varies over 1 spot.*take more spots"):
        influence(slide, model, n_spots=1)
    with pytest.raises(InputError, match="no source varies"):
        influence(slide, model, sources=["NOT1A"])


def test_regions_add_up_to_the_slide(slide, model, genes):
    """The mean over all spots is the weighted mean of the regions'."""
    whole = influence(slide, model, genes)
    domains = slide.obs["domain"].astype(str)
    parts = [
        influence(slide, model, genes, region=f"domain={name}") * (domains == name).mean()
        for name in domains.unique()
    ]
    np.testing.assert_allclose(sum(parts), whole, rtol=1e-4, atol=1e-8)
    first = (domains == domains.iloc[0]).to_numpy()
    np.testing.assert_allclose(
        influence(slide, model, genes, region=first) * first.mean(), parts[0], rtol=1e-6
    )


def test_a_sample_of_spots(slide, model, genes):
    whole = influence(slide, model, genes)
    some = influence(slide, model, genes, n_spots=40, seed=1)
    pd.testing.assert_frame_equal(some, influence(slide, model, genes, n_spots=40, seed=1))
    assert not np.allclose(some, influence(slide, model, genes, n_spots=40, seed=2))
    assert np.corrcoef(np.ravel(some), np.ravel(whole))[0, 1] > 0.9
    pd.testing.assert_frame_equal(influence(slide, model, genes, n_spots=10**6), whole)
    region = np.arange(slide.n_obs) < 30
    alone = influence(slide, model, genes, region=region, n_spots=30)
    pd.testing.assert_frame_equal(alone, influence(slide, model, genes, region=region))


def test_genes_that_the_slide_lacks(slide, model, genes, caplog):
    found = influence(slide, model, ["NOT1A"], sources=genes)
    assert found.shape == (len(genes), 1)
    assert not caplog.records  # it can be predicted
    influence(slide, model, genes, sources=["NOT1A", genes[0]])
    assert "1 source not measured on this slide (NOT1A)" in caplog.text


def test_progress_is_told(slide, model, genes):
    told = []
    influence(slide, model, genes, progress=told.append)
    assert told[-1] == "influence: 200 of 200 spots"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"genes": ["VEGFAA"]}, "VEGFAA: not one of the model's genes"),
        ({"sources": ["VEGFAA"]}, "VEGFAA: not one of the model's genes"),
        ({"genes": []}, "no genes"),
        ({"sources": []}, "no sources"),
        ({"where": "around"}, "choose one of neighbors, center"),
        ({"n_edges": 0}, "n_edges=0"),
        ({"n_spots": 0}, "n_spots=0"),
        ({"region": np.zeros(200, dtype=bool)}, "region: has no spot"),
        ({"region": np.ones(3, dtype=bool)}, "region"),
        ({"region": "domain=nowhere"}, "no spot has that value"),
    ],
)
def test_mistakes_are_named(slide, model, arguments, said):
    with pytest.raises(InputError, match=said) as caught:
        influence(slide, model, **arguments)
    assert "\n" not in str(caught.value)


def test_nearest_names_are_offered(slide, model):
    gene = model.vocabulary[5]
    with pytest.raises(InputError, match=f"did you mean .*{gene}"):
        influence(slide, model, [gene + "X"])


def test_a_matrix_becomes_edges():
    matrix = pd.DataFrame([[9.0, -2.0], [1.0, 0.0], [-3.0, 2.0]], list("ABC"), list("AB"))
    found = to_edges(matrix, "center")
    wanted = [("C", "A", -3, 1), ("B", "A", 1, 2), ("A", "B", -2, 1), ("C", "B", 2, 2)]
    assert list(found.columns) == ["source", "target", "center", "rank"]
    assert list(found.itertuples(index=False, name=None)) == wanted


def edges(**values):
    """`AB=1.0`: the edge from A to B."""
    rows = [(*pair, value) for pair, value in values.items()]
    return pd.DataFrame(rows, columns=["source", "target", "neighbors"])


def test_the_consensus_of_slides_by_hand():
    slides = {"s1": edges(AB=1.0, BA=-5.0), "s2": edges(AB=3.0), "s3": edges(CB=-0.3, AB=2.0)}
    found = consensus_network(slides, seed=1)
    assert list(found.columns) == ["source", "target", "mean", "low", "high", "share"]
    assert list(found["source"] + found["target"]) == ["AB", "BA", "CB"]
    np.testing.assert_allclose(found["mean"], [2, -5 / 3, -0.1])
    np.testing.assert_allclose(found["share"], [1, 1 / 3, 1 / 3])
    # One draw in 27 has one slide three times: more than one in 40, so that it is the end.
    np.testing.assert_allclose(found["low"], [1, -5, -0.3])
    np.testing.assert_allclose(found["high"], [3, 0, 0])


def test_the_interval_of_many_slides_is_that_of_the_mean():
    values = np.random.default_rng(0).normal(2, 1, 60)
    found = consensus_network({str(i): edges(AB=v) for i, v in enumerate(values)}, draws=4000)
    half = 1.96 * values.std() / np.sqrt(60)
    assert found["low"][0] == pytest.approx(values.mean() - half, abs=0.03)
    assert found["high"][0] == pytest.approx(values.mean() + half, abs=0.03)


def test_two_slides_have_no_interval():
    found = consensus_network({"s1": edges(AB=1.0), "s2": edges(AB=2.0)})
    assert found["mean"].tolist() == [1.5]
    assert found[["low", "high"]].isna().all(axis=None)


def test_a_consensus_of_whole_tables(model, table, slide, monkeypatch):
    other = [influence(slide, model, n_spots=20, seed=seed) for seed in (1, 2)]
    found = consensus_network(dict(enumerate([table, *other])), draws=200)
    assert (found["low"] <= found["mean"] + 1e-12).all()
    assert (found["mean"] <= found["high"] + 1e-12).all()
    assert found["share"].isin([1 / 3, 2 / 3, 1]).all()
    monkeypatch.setattr(sys.modules["sagefm.tl.gene_network._influence"], "_EDGES", 100)
    blocks = consensus_network(dict(enumerate([table, *other])), draws=200)
    pd.testing.assert_frame_equal(blocks, found)


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ({}, "no tables"),
        ({"s1": edges(AB=1.0).drop(columns="neighbors")}, "s1: no column neighbors"),
        ({"s1": pd.concat([edges(AB=1.0)] * 2)}, "s1: an edge is duplicated"),
    ],
)
def test_tables_without_a_consensus(tables, said):
    with pytest.raises(InputError, match=said):
        consensus_network(tables)


def test_a_graph_survives_its_file(table, tmp_path):
    graph = to_graph(table)
    assert graph.number_of_edges() == len(table)
    networkx.write_graphml(graph, tmp_path / "g.graphml")
    back = networkx.read_graphml(tmp_path / "g.graphml")
    assert back.is_directed()
    assert set(back.nodes) == set(table["source"]) | set(table["target"])
    for row in table.sample(50, random_state=0).itertuples():
        held = back.edges[row.source, row.target]
        assert held["standardized"] == pytest.approx(row.standardized, rel=1e-6)
        assert held["neighbors"] == pytest.approx(row.neighbors, rel=1e-6)
        assert held["center"] == pytest.approx(row.center, rel=1e-6)


def test_a_matrix_is_no_table_of_edges(everything):
    with pytest.raises(InputError, match="to_edges"):
        to_graph(everything)


@pytest.mark.slow
def test_chosen_genes_of_a_real_slide_both_ways(shared):
    """At published widths: more than 512 targets share the units, 20 go one by one."""
    slide = sagefm.read(shared / "slides" / "dlpfc_151673.h5ad")
    vocabulary = sagefm.pp.Vocabulary.read(shared / "sagefm_published_genes.txt")
    model = sagefm.SageFM.new(vocabulary, seed=0)
    torch.nn.init.normal_(model.network.first_bias, std=0.1)
    measured = [gene for gene in slide.var_names if gene in vocabulary][:600]
    many = influence(slide, model, measured, n_spots=60)
    few = influence(slide, model, measured[:20], sources=measured, n_spots=60)
    scale = float(np.abs(few.to_numpy()).max())
    assert scale > 0
    np.testing.assert_allclose(many[measured[:20]], few, atol=1e-5 * scale, rtol=1e-4)


def test_genes_that_the_model_does_not_know_are_left_out(slide, model, genes, caplog):
    found = influence(slide, model, [genes[0], "NOTHING", *genes[:2]], sources=["NO", *genes])
    pd.testing.assert_frame_equal(found, influence(slide, model, genes[:2], sources=genes))
    assert [line.split(":")[1] for line in caplog.messages] == [" NOTHING", " NO"]
