"""Changed genes, against the oracle that edits the expression and runs everything again."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import sagefm
from reference import published
from sagefm import InputError, SageFM
from sagefm.tl import KNOCKOUT, Change, respond


def edited(slide, model, changes, genes, where, *, hide=True, rows=None):
    """Edit every subgraph, literally, and run the published network before and after."""
    network = published.of_ours(model.network.state_dict(), model.config.widths)
    prepared = model.prepare(slide)
    wanted = model.vocabulary.positions(genes)
    values = {}
    for gene, change in changes.items():
        position = int(model.vocabulary.positions([gene])[0])
        old = prepared.log1p[:, [position]].toarray().ravel().astype(np.float64)
        values[position] = change(old)
    edges = published.complete_graph(prepared.neighbors.shape[1])
    answers = []
    for members in prepared.neighbors[rows if rows is not None else slice(None)]:
        pair = []
        for after in (False, True):
            x = prepared.log1p[members].toarray()
            if after:
                part = {
                    "neighbors": slice(1, None),
                    "center": slice(0, 1),
                    "neighborhood": slice(None),
                }
                for position, new in values.items():
                    x[part[where], position] = new[members[part[where]]]
            if hide:
                x[0, wanted] = 0
            with torch.no_grad():
                pair.append(network(torch.from_numpy(x), edges)[0, wanted].numpy())
        answers.append(pair[1] - pair[0])
    return np.array(answers)


WAYS = {
    "set": (Change("set", 1.5), lambda x: np.full_like(x, 1.5)),
    "knock-out": (KNOCKOUT, np.zeros_like),
    "down": (Change("add", -0.4), lambda x: np.maximum(x - 0.4, 0)),
    "up": (Change("add", 0.7), lambda x: x + 0.7),
    "fold": (Change("fold", 3.0), lambda x: np.log1p(3 * np.expm1(x))),
    "quantile": (Change("quantile", 0.9), lambda x: np.full_like(x, np.quantile(x, 0.9))),
}


@pytest.fixture(scope="module")
def genes(model, slide):
    """Those of the model that most spots have."""
    shown = [g for g in model.vocabulary if g in slide.var_names]
    depth = np.asarray(slide[:, shown].X.sum(axis=0)).ravel()
    return [shown[i] for i in np.argsort(-depth)[:6]]


@pytest.mark.parametrize("where", ["neighbors", "center", "neighborhood"])
@pytest.mark.parametrize("way", WAYS)
def test_every_change_is_exact(slide, model, genes, way, where):
    change, applied = WAYS[way]
    found = respond(slide.copy(), model, {genes[0]: change}, genes[1:3], where=where)
    exact = edited(slide, model, {genes[0]: applied}, genes[1:3], where)
    assert np.abs(exact).max() > 1e-4
    np.testing.assert_allclose(found, exact, atol=1e-5)


def test_several_genes_change_at_once_and_nothing_need_be_hidden(slide, model, genes):
    changes = {genes[0]: Change("add", 1.0), genes[3]: 0.5}
    applied = {genes[0]: lambda x: x + 1, genes[3]: lambda x: np.full_like(x, 0.5)}
    read = [genes[0], genes[4]]  # one of those that change
    found = respond(slide.copy(), model, changes, read, where="neighborhood", hide=False)
    np.testing.assert_allclose(
        found, edited(slide, model, applied, read, "neighborhood", hide=False), atol=1e-5
    )


def test_a_gene_that_is_hidden_in_the_center_does_not_change_there(slide, model, genes):
    found = respond(slide.copy(), model, {genes[0]: 3.0}, genes[:1], where="center")
    assert np.abs(found.to_numpy()).max() == 0


def test_a_region_is_read_and_the_rest_is_missing(slide, model, genes):
    whole, part = slide.copy(), slide.copy()
    domain = str(slide.obs["domain"].iloc[0])
    everywhere = respond(whole, model, {genes[0]: 2.0}, genes[1:3])
    found = respond(part, model, {genes[0]: 2.0}, genes[1:3], region=f"domain={domain}")
    inside = (slide.obs["domain"] == domain).to_numpy()
    pd.testing.assert_frame_equal(found, everywhere[inside], rtol=1e-5, atol=1e-6)
    kept = part.obsm["sagefm_response"]
    assert list(kept.columns) == genes[1:3]
    assert kept[~inside].isna().all(axis=None)
    assert kept[inside].notna().all(axis=None)


@given(st.lists(st.floats(0, 8), min_size=2, max_size=20), st.floats(0.01, 50))
def test_changes_keep_counts_possible(values, amount):
    x = np.array(values)
    for how in ("set", "add", "fold"):
        assert (Change(how, amount).of(x) >= 0).all()
    assert (Change("add", -amount).of(x) >= 0).all()
    assert (KNOCKOUT.of(x) == 0).all()
    np.testing.assert_allclose(Change("fold", 1.0).of(x), x, atol=1e-9)
    assert Change("quantile", 1.0).of(x)[0] == x.max()


@pytest.mark.parametrize(
    ("changes", "genes", "more", "said"),
    [
        ({}, ["NOT1A"], {}, "name at least one"),
        ({"NOPE": 1.0}, ["NOT1A"], {}, "not one of the model's genes"),
        ({"NOT1A": 1.0}, ["NOPE"], {}, "not one of the model's genes"),
        ({"NOT1A": 1.0}, ["NOT2A"], {"where": "around"}, "neighbors"),
        ({"NOT1A": 1.0}, ["NOT2A"], {"hold": "base"}, "choose of nothing, attention"),
        ({"NOT1A": 1.0}, ["NOT2A"], {"region": "domain=nowhere"}, "no spot has that value"),
        ({"NOT1A": 1.0}, ["NOT2A"], {"region": "tissue=1"}, "no column"),
        ({"NOT1A": 1.0}, ["NOT2A"], {"region": "domain"}, "KEY=VALUE"),
        ({"NOT1A": 1.0}, ["NOT2A"], {"region": np.zeros(200, dtype=bool)}, "no spot"),
        ({"NOT1A": 1.0}, ["NOT2A"], {"region": np.ones(3, dtype=bool)}, "each of the 200"),
        ({"NOT1A": -1.0}, ["NOT2A"], {}, "0 to inf"),
    ],
)
def test_bad_input_is_one_clear_line(slide, model, changes, genes, more, said):
    before = slide.copy()
    with pytest.raises(InputError, match=said):
        respond(before, model, changes, genes, **more)
    assert "sagefm_response" not in before.obsm


def test_changes_that_are_none():
    for how, amount in (("push", 1.0), ("quantile", 1.2), ("fold", -1.0), ("add", np.nan)):
        with pytest.raises(InputError, match="change"):
            Change(how, amount)


@pytest.mark.slow
def test_it_is_exact_on_a_real_slide_with_the_published_architecture(shared):
    slide = sagefm.read(shared / "slides" / "her2st_A1.h5ad")
    vocabulary = sagefm.pp.Vocabulary.read(shared.parent / "data" / "sagefm_published_genes.txt")
    model = SageFM.new(vocabulary, seed=1)
    torch.nn.init.normal_(model.network.decoder.bias, std=0.2, generator=torch.manual_seed(2))
    rows = np.arange(0, slide.n_obs, 12)
    changes, applied = (
        {"APOE": Change("quantile", 1.0)},
        {"APOE": lambda x: np.full_like(x, x.max())},
    )
    genes = ["LRP1", "COL1A1", "ERBB2", "CD74"]
    region = np.isin(np.arange(slide.n_obs), rows)
    found = respond(slide, model, changes, genes, region=region)
    exact = edited(slide, model, applied, genes, "neighbors", rows=rows)
    assert np.abs(exact).max() > 1e-4
    np.testing.assert_allclose(found, exact, atol=1e-5)


def test_genes_that_the_model_does_not_know_are_left_out(slide, model, genes, caplog):
    changes = {genes[0]: 1.0, "NO": 2.0}
    found = sagefm.tl.respond(slide.copy(), model, changes, ["NOTHING", genes[1]])
    wanted = sagefm.tl.respond(slide.copy(), model, {genes[0]: 1.0}, [genes[1]])
    pd.testing.assert_frame_equal(found, wanted)
    assert [line.split(":")[1] for line in caplog.messages] == [" NO", " NOTHING"]
