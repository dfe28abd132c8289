"""Weighted signatures as what responds: reading them, and testing ligands against them."""

import numpy as np
import pandas as pd
import pytest

from sagefm import InputError
from sagefm.pp.simulate import simulate
from sagefm.tl import perturb, signatures
from sagefm.tl.perturbation._coexpression import COMPONENTS, NEIGHBORS, SAME_SPOT
from sagefm.tl.perturbation._plan import Direction
from sagefm.tl.perturbation._readout import (
    N_REPLICAS,
    Signature,
    SignatureReadout,
    collapse,
    collapsed,
)
from sagefm.tl.perturbation._signature_test import _columns
from sagefm.tl.perturbation._signatures import signature_pairs
from sagefm.tl.perturbation._slides import prepare_slides

HOW = {"n_matched": 20, "n_null_spots": 50}
WEIGHTS = {"TGF_B": {"ID1": 2.0, "MYC": -1.5}, "Activin A": {"ID1": 1.0}}
SETS = {"TGF_B": ["ID1", "MYC"], "Activin A": ["ID1"]}


@pytest.fixture(scope="module")
def genes(slide, model):
    """Those of the model that the slide shows, the most frequent first."""
    shown = [g for g in model.vocabulary if g in slide.var_names]
    depth = np.asarray(slide[:, shown].X.sum(axis=0)).ravel()
    return [shown[i] for i in np.argsort(-depth)]


@pytest.fixture(scope="module")
def weighted(genes):
    weights = np.random.default_rng(1).normal(size=16)
    return dict(zip(genes[20:36], weights, strict=True))


def test_every_form_is_read_alike(tmp_path):
    rows = [(name, gene, w) for name, of in WEIGHTS.items() for gene, w in of.items()]
    table = pd.DataFrame(rows, columns=["source", "target", "weight"])
    table.assign(padj=0.1).to_csv(tmp_path / "w.tsv.gz", sep="\t", index=False)
    table.rename(columns={"weight": "mor", "source": "Source"}).to_csv(tmp_path / "w.csv")
    series = {name: pd.Series(of) for name, of in WEIGHTS.items()}
    wide = pd.DataFrame(WEIGHTS).reindex(["ID1", "MYC"])
    files = tmp_path / "w.tsv.gz", str(tmp_path / "w.csv")
    tables = table, table.assign(p_value=1)
    for form in (WEIGHTS, series, *tables, *files, wide.to_dict(), wide.astype(object).to_dict()):
        pd.testing.assert_frame_equal(signatures(form), table)
    (tmp_path / "s.gmt").write_text("TGF_B\t\tID1\tMYC\nActivin A\tsaid\tID1\n")
    for form in (SETS, tmp_path / "s.gmt", table[["target", "source"]]):
        pd.testing.assert_frame_equal(signatures(form), table.assign(weight=1.0))


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("nowhere.csv", "nowhere.csv: no such file"),
        ("nowhere.gmt", "nowhere.gmt: cannot be read"),
        (pd.DataFrame({"source": ["A"], "gene": ["B"]}), "no column target"),
        (pd.DataFrame({"source": ["A"], "target": ["B"], "weight": ["high"]}), "row 1: .*'high'"),
        (pd.DataFrame({"source": ["A", None], "target": ["B", "C"]}), "row 2: a name is missing"),
        (pd.DataFrame({"source": [], "target": []}), "holds no signature"),
        ({"A": {"B": 0.0}}, "holds no signature"),
        ({"A": "MYC"}, "'A' is 'MYC'"),
        ({"A": 3}, "'A' is 3"),
        (["MYC"], "is a list"),
        ({}, "holds no signature"),
    ],
)
def test_what_is_no_signature_is_one_clear_line(source, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=said) as error:
        signatures(source)
    assert "\n" not in str(error.value)


def test_rows_that_say_nothing_are_left_out_and_named(caplog):
    table = pd.DataFrame({
        "source": ["A", "A", "A", "A", None], "target": ["B", "C", "B", "D", " "],
        "weight": [1, "inf", 3, "NA", None],
    })  # fmt: skip
    found = signatures(table)
    assert found.to_numpy().tolist() == [["A", "B", 1.0]]
    assert "2 rows without a finite weight are left out" in caplog.text
    assert "1 row with a gene that its signature names before is left out" in caplog.text


def test_pairs_of_ligands_and_signatures(tmp_path, caplog):
    names = ["HALLMARK_TGF_BETA", "Activin A"]
    asked = [("IL12A_IL12B", "Activin A"), ("TGFB1", "HALLMARK_TGF_BETA"), ("TGFB1", "NO"),
             ("", ""), ("some complex", "Activin A"), ("TGFB1", "HALLMARK_TGF_BETA")]  # fmt: skip
    wanted = [["IL12A", "Activin A"], ["IL12B", "Activin A"], ["TGFB1", "HALLMARK_TGF_BETA"]]
    assert signature_pairs(asked, names).to_numpy().tolist() == wanted
    assert "1 whose target is no signature (NO; there are HALLMARK" in caplog.text
    assert "1 whose ligand is no gene (some complex)" in caplog.text
    (tmp_path / "p.csv").write_text("TGFB1,Activin A\nIL6,HALLMARK_TGF_BETA\n")
    assert signature_pairs(tmp_path / "p.csv", names).to_numpy().tolist() == [
        ["TGFB1", "Activin A"], ["IL6", "HALLMARK_TGF_BETA"],
    ]  # fmt: skip
    with pytest.raises(InputError, match="none is a ligand with one of the signatures"):
        signature_pairs([("TGFB1", "ID1")], names)


@pytest.fixture(scope="module")
def readout(slide, model, genes):
    """A signature of four genes, one of them a ligand."""
    slides = prepare_slides(slide, model, None, layer=None, slide_key=None)
    at = model.vocabulary.positions(genes)
    own, sources = np.sort(at[10:14]), np.sort([at[0], at[11]])
    pairs = np.repeat(sources, 4), np.tile(own, 2)
    direction = Direction.of("", pairs, slides, slides[0].facts.features(), at[20:], 10, 40)
    return SignatureReadout.of(
        [Signature("S", own, np.array([2.0, -1.0, 0.5, 1.0]))], direction, seed=0
    )


def test_scores_are_those_of_the_formula(readout):
    """The signature's against that of its replicas, by plain loops."""
    direction, own = readout.direction, readout.signatures[0].genes
    sources, weights = direction.sources, readout.signatures[0].weights
    values = np.random.default_rng(0).normal(size=(len(direction.raised), len(direction.columns)))

    columns, raised = direction.columns.tolist(), direction.raised.tolist()
    x = np.zeros(values.shape)
    for j, gene in enumerate(columns):
        rows = [i for i, other in enumerate(raised) if other != gene]
        x[rows, j] = (values[rows, j] - values[rows, j].mean()) / values[rows, j].std()
    found, effects = readout.scores(values), readout.effects(values)
    matrix = readout.weights.toarray()
    assert matrix.shape[0] == 1 + N_REPLICAS
    for replica in matrix[1:]:
        assert not replica[: len(direction.targets)].any()
        assert replica.sum() == pytest.approx(weights.sum())
    y = [sum(w * x[:, columns.index(g)] for w, g in zip(weights, own, strict=True))]
    y += [x @ replica for replica in matrix[1:]]
    expected = (np.array(y) - np.mean(y[1:], axis=0)) / np.sqrt((weights**2).sum())
    np.testing.assert_allclose(found[0], expected, atol=1e-12)
    for i, ligand in enumerate(sources):
        others = own != ligand
        row = values[raised.index(ligand), [columns.index(g) for g in own[others]]]
        mean = row @ weights[others] / np.abs(weights[others]).sum()
        assert effects[0, 0, i] == pytest.approx(mean)


def test_a_row_per_pair_and_the_set(slide, model, genes, weighted, caplog):
    asked = [(genes[0], "w"), (genes[1], "plain_set"), (genes[21], "w")]
    named = {"w": weighted | {"NOPE": 9.0, "NOT1A": 9.0}, "plain_set": genes[40:46], "x": ["NOPE"]}
    found = perturb(slide, model, asked, signatures=named, **HOW)
    assert found[["ligand", "target"]].to_numpy().tolist() == [list(pair) for pair in asked]
    assert found["n_genes"].tolist() == [16, 6, 15]  # a ligand does not count in its own response
    assert list(found)[:5] == ["ligand", "target", "effect", "z", "q"]
    assert not found.isna().any(axis=None)
    for name in ("p", "q", "p_coexpressed", "p_partners", "p_random"):
        assert found[name].between(0, 1).all()
    assert (found["n_slides"] == 1).all()
    sets = found.attrs["sets"]
    assert set(sets["evidence"]) >= {"model", "neighbors", "same spot", "given components"}
    assert (sets["direction"] == "forward").all()
    assert (sets["n_pairs"] == 3).all()
    assert (
        "2 of 24 genes of the signatures are left out: 1 that the model does not know (NOPE)"
        in (caplog.text)
    )
    assert "1 that fewer than 3% of the spots have (NOT1A)" in caplog.text


def test_weights_with_the_other_sign_turn_the_scores(slide, model, genes, weighted):
    one, other = (
        perturb(slide, model, [(genes[0], "w")], signatures={"w": of}, **HOW)
        for of in (weighted, {gene: -2 * w for gene, w in weighted.items()})
    )
    for name in ("effect", "z", "z_components", "z_neighbors", "z_same_spot", "effect_random"):
        np.testing.assert_allclose(one[name], -other[name], atol=1e-9)
    np.testing.assert_allclose(one[["p", "p_random"]], other[["p", "p_random"]])


def test_neither_order_nor_other_names_count(slide, model, genes, weighted):
    asked = [(genes[0], "w"), (genes[1], "w"), (genes[1], "set")]
    named = {"w": weighted, "set": genes[40:46]}
    turned = {
        "set": genes[40:46][::-1],
        "w": dict(list(weighted.items())[::-1]),
        "unasked": [genes[3]],
    }
    found = perturb(slide, model, asked, signatures=named, **HOW)
    again = perturb(slide, model, asked[::-1], signatures=turned, **HOW)[::-1]
    pd.testing.assert_frame_equal(found, again.reset_index(drop=True))


def test_a_ligand_that_moves_its_signature_stands_out(readout):
    """Effects that are noise, but for a ligand on the genes of its signature, by their signs."""
    direction, own = readout.direction, readout.signatures[0]
    values = np.random.default_rng(0).normal(size=(len(direction.raised), len(direction.columns)))
    ligand, other = direction.sources
    row = np.searchsorted(direction.raised, ligand)
    values[row, np.searchsorted(direction.columns[: len(own.genes)], own.genes)] += 4 * own.weights
    pairs = np.array([ligand, other]), np.array([0, 0])
    flat = collapsed([readout], pairs, direction.columns.max() + 1)
    scores = collapse([readout], [values])
    nothing = np.zeros(scores.shape)
    found = _columns(flat, scores, dict.fromkeys((SAME_SPOT, NEIGHBORS, COMPONENTS), nothing))
    assert found["z"][0] > 4
    assert found["p"][0] < 0.06
    assert found["p_random"][0] < 0.02
    assert found["learned_only"][0]
    assert abs(found["z"][1]) < 3
    assert found["p_random"][1] > 0.02


def test_many_signatures_are_masked_in_parts(slide, model, genes, monkeypatch):
    named = {"a": genes[20:30], "b": genes[30:40], "c": genes[35:50]}
    asked = [(genes[0], name) for name in named]
    lines = []
    together = perturb(slide, model, asked, signatures=named, **HOW, progress=lines.append)
    assert not any("part" in line for line in lines)
    limit = 2 * 21 / len(model.vocabulary)
    monkeypatch.setattr("sagefm.tl.perturbation._signature_test._MASKED", limit)
    found = perturb(slide, model, asked, signatures=named, **HOW, progress=lines.append)
    assert any("part 2 of 2" in line for line in lines)
    np.testing.assert_allclose(found["effect"], together["effect"], atol=0.02)
    assert found["n_genes"].tolist() == together["n_genes"].tolist()


def test_the_genes_that_weigh_most_are_kept(slide, model, genes, monkeypatch):
    monkeypatch.setattr("sagefm.tl.perturbation._signature_test._MOST_GENES", 3)
    weights = dict(zip(genes[20:25], [1.0, -9.0, 2.0, 8.0, 0.5], strict=True))
    heavy = {gene: w for gene, w in weights.items() if abs(w) > 1}
    found, wanted = (
        perturb(slide, model, [(genes[0], "w")], signatures={"w": of}, **HOW)
        for of in (weights, heavy)
    )
    pd.testing.assert_frame_equal(found, wanted)


def test_several_slides_refits_and_what_is_held(slide, model, genes, weighted, tmp_path):
    slides = {"a": slide, "b": simulate(120, seed=21)}
    how = {**HOW, "signatures": {"w": weighted}}
    alone = [perturb(one, model, [(genes[0], "w")], **how) for one in slides.values()]
    together = perturb(slides, model, [(genes[0], "w")], models=[model, model], **how,
                       keep=tmp_path / "parts")  # fmt: skip
    assert together["agreement"].tolist() == [1.0]
    assert together["n_slides"].tolist() == [2]
    mean = np.mean([one["effect"][0] for one in alone])
    assert together["effect"][0] == pytest.approx(mean, abs=1e-4)
    assert not (tmp_path / "parts").exists()
    held = perturb(slide, model, [(genes[0], "w")], hold="attention", **how)
    np.testing.assert_allclose(held["z"], alone[0]["z"], atol=1e-3)  # the same in this network


def test_what_cannot_be_asked_is_one_clear_line(slide, model, genes):
    for named, said in (
        ({"w": ["NOPE", "NOT1A"]}, "none has a gene that the model knows"),
        ({"w": [genes[0]]}, "no gene but the ligand itself"),
    ):
        with pytest.raises(InputError, match=said):
            perturb(slide, model, [(genes[0], "w")], signatures=named)
    with pytest.raises(InputError, match="not one of the model's genes"):
        perturb(slide, model, [("NOPE", "w")], signatures={"w": genes[:3]})
    with pytest.raises(InputError, match="none is a ligand with one of the signatures"):
        perturb(slide, model, [(genes[0], genes[1])], signatures={"w": genes[:3]})
