"""What a run trains and validates on."""

from itertools import pairwise
from types import SimpleNamespace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sagefm import InputError
from sagefm.pp.detection import most_detected
from sagefm.pp.sections import patients_of, sections_of
from sagefm.pp.simulate import simulate
from sagefm.pp.vocabulary import Vocabulary
from sagefm.pretrain import Recipe
from sagefm.pretrain.data import Split, gene_mean_of, of_corpus, of_memory, split_spots
from sagefm.pretrain.memory import Memory
from sagefm.pretrain.recipe import DataTable
from sagefm.pretrain.source import Selected
from sagefm.pretrain.split import hold_out

steady = settings(derandomize=True, deadline=None)


@pytest.fixture(scope="module")
def slides():
    """Six sections, two of each patient."""
    return {f"s{i}": simulate(100, seed=i, patient=f"p{i // 2}", slide=f"s{i}") for i in range(6)}


def recipe(*changes):
    return Recipe.load("small", ["data.genes=80", *changes])


def a_table(patients, spots=50, **columns):
    names = [f"s{i}" for i in range(len(patients))]
    return pd.DataFrame({"patient": patients, "spots": spots, **columns}, index=names)


def split(slides, *changes):
    return of_memory(slides, sections_of(slides), recipe(*changes))


# Patients


@steady
@given(
    st.lists(st.sampled_from("abcdef"), min_size=2, max_size=12),
    st.floats(0.01, 0.7),
    st.integers(0, 99),
)
def test_every_spot_is_on_one_side_and_so_is_every_patient(patients, share, seed):
    table = a_table(patients, spots=np.arange(20, 20 + len(patients)))
    if len(set(patients)) == 1 or round(share * len(set(patients))) == len(set(patients)):
        return
    training, validation = split_spots(table, DataTable(validation=share), seed)
    assert training
    assert not training.keys() & validation.keys()
    sides = training | validation
    assert sides.keys() == set(table.index)
    for name, spots in sides.items():
        assert spots.tolist() == list(range(table.loc[name, "spots"]))
    owners = [set(table.loc[list(side), "patient"]) for side in (training, validation)]
    assert not owners[0] & owners[1]
    assert len(owners[1]) == max(1, round(share * len(set(patients))))


def test_the_split_depends_on_the_seed_alone():
    table = a_table([f"p{i}" for i in range(20)])
    held = [list(split_spots(table, DataTable(), seed)[1]) for seed in (0, 0, 1, 2)]
    assert held[0] == held[1]
    assert held[0] != held[2] or held[0] != held[3]


def test_patients_left_out_are_on_neither_side():
    table = a_table(["a", "a", "b", "c", "d"])
    settings_ = DataTable(leave_out=["a"], validation=["c"])
    training, validation = split_spots(table, settings_, 0)
    assert list(training) == ["s2", "s4"]
    assert list(validation) == ["s3"]


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"leave_out": ["x"]}, r"data\.leave_out: no slide is of patient 'x'"),
        ({"leave_out": ["a", "b"]}, "no slides to train on"),
        ({"validation": ["x"]}, r"data\.validation: no slide is of patient 'x'; there is a, b"),
        ({"validation": ["a"], "leave_out": ["a"]}, "no slide is of patient 'a'; there is b"),
        ({"validation": ["a", "b"]}, "holds out every patient"),
    ],
)
def test_a_split_that_leaves_nothing_is_refused(settings_, message):
    with pytest.raises(InputError, match=message):
        split_spots(a_table(["a", "a", "b"]), DataTable(**settings_), 0)


def test_of_one_patient_a_connected_piece_is_held_out_and_that_is_told(caplog):
    points = np.argwhere(np.ones((16, 16))).astype(float)[np.random.default_rng(0).permutation(256)]
    slide = simulate(256, seed=0, patient="p")
    slide.obsm["spatial"] = points
    found = split({"a": slide}, "data.validation=0.25")
    assert "all slides are of one patient" in caplog.text
    assert "25 %" in caplog.text
    assert found.training["a"].tolist() == list(range(192))
    assert found.validation["a"].tolist() == list(range(192, 256))
    [piece] = sections_of({"a": slide})
    held = points[piece.rows[192:]]
    assert np.abs(np.diff(held, axis=0)).sum(axis=1).max() == 1  # each beside the one before
    assert len(np.unique(held // 8, axis=0)) == 1  # a quarter of the slide


def test_so_it_is_of_every_slide_of_the_one_patient():
    training, validation = split_spots(a_table(["a", "a"], spots=40), DataTable(), 0)
    assert {name: len(own) for name, own in training.items()} == {"s0": 36, "s1": 36}
    assert {name: own.tolist() for name, own in validation.items()} == {
        name: [36, 37, 38, 39] for name in ("s0", "s1")
    }


def test_named_patients_are_held_out():
    patients = np.array(["a", "b", "c", "a"])
    assert hold_out(patients, ["a"], seed=0).tolist() == [True, False, False, True]
    with pytest.raises(InputError, match="no slide is of patient 'd'; there is a, b, c"):
        hold_out(patients, ["d"], seed=0)
    with pytest.raises(InputError, match="holds out every patient"):
        hold_out(patients, ["a", "b", "c"], seed=0)


def test_patients_come_from_the_table_then_the_column_then_the_name(slides):
    slide = slides["s3"]
    assert set(patients_of("s3", slide, "patient", {"s3": "x"})) == {"x"}
    assert set(patients_of("s3", slide, "patient", None)) == {"p1"}
    assert set(patients_of("s3", slide, "nothing", None)) == {"s3"}
    with pytest.raises(InputError, match="s3: is not in the table of patients"):
        patients_of("s3", slide, "patient", {"s1": "x"})


# Pieces


def test_sections_and_patients_inside_an_object_are_told_apart(slides):
    both = ad.concat([slides[name] for name in ("s0", "s2", "s3")], index_unique="-")
    both.obs["patient"] = both.obs["patient"].astype(str)
    both.obs.iloc[150:200, both.obs.columns.get_loc("patient")] = "guest"
    pieces = list(sections_of({"tma": both}, slide_key="slide"))
    assert [(p.name, p.patient, len(p.rows)) for p in pieces] == [
        ("tma_s0_p0", "p0", 100),
        ("tma_s2_p1", "p1", 50),
        ("tma_s2_guest", "guest", 50),
        ("tma_s3_p1", "p1", 100),
    ]
    rows = np.concatenate([piece.rows for piece in pieces])
    assert sorted(rows.tolist()) == list(range(300))
    whole = {"tma": both}
    found = of_memory(whole, pieces, recipe('data.validation=["p1"]'))
    assert set(found.validation) == {"tma_s2_p1", "tma_s3_p1"}
    for piece in pieces:  # neighborhoods reach into no other piece
        region = found.source.read(piece.name, 0, len(piece.rows))
        assert region.log1p.shape[0] == len(piece.rows)


def test_two_pieces_never_share_a_name(slides):
    """A section of one object may be called as another object is: one of them would be lost."""
    both = ad.concat([slides[name] for name in ("s0", "s2")], index_unique="-")
    named = {"a": both, "a_s2": slides["s4"]}
    with pytest.raises(InputError, match="a_s2"):
        of_memory(named, sections_of(named, slide_key="slide"), recipe())


def test_a_piece_that_cannot_be_used_is_named(slides):
    with pytest.raises(InputError, match=r"tiny: .*10 spots"):
        split({"good": slides["s0"], "tiny": slides["s2"][:10].copy()})


# Vocabulary


def with_a_gene_of_patient(slides, owner):
    """One gene is detected everywhere in the slides of one patient, and nowhere else."""
    changed = {}
    for name, slide in slides.items():
        changed[name] = slide.copy()
        x = slide.X.tolil()
        x[:, 0] = 9 if slide.obs["patient"].iloc[0] == owner else 0
        changed[name].X = x.tocsr()
    return changed, slides["s0"].var_names[0]


@pytest.mark.parametrize("owner", ["p0", "p1"])
def test_the_vocabulary_is_of_the_training_spots_alone(slides, owner):
    changed, gene = with_a_gene_of_patient(slides, owner)
    changes = ['data.validation=["p1"]', "data.genes=1427"]
    whole = Memory(sections_of(changed), Vocabulary(tuple(changed["s0"].var_names)), 15)
    for found in (split(changed, *changes), of_corpus(whole, recipe(*changes))):
        assert (gene in found.source.vocabulary.symbols) == (owner == "p0")


def test_it_is_so_where_a_piece_of_each_slide_is_held_out(slides):
    [piece] = sections_of({"s0": slides["s0"]})
    slide = slides["s0"].copy()
    x = slide.X.tolil()
    x[:, :2] = 0
    x[piece.rows[:90], 0] = 9
    x[piece.rows[90:], 1] = 9
    slide.X = x.tocsr()
    shown, hidden = slide.var_names[:2]
    whole = Memory(sections_of({"s0": slide}), Vocabulary(tuple(slide.var_names)), 15)
    for found in (split({"s0": slide}), of_corpus(whole, recipe())):
        assert shown in found.source.vocabulary.symbols
        assert hidden not in found.source.vocabulary.symbols


def test_a_corpus_gives_the_vocabulary_that_its_slides_give(slides):
    held = 'data.validation=["p1"]'
    whole = Memory(sections_of(slides), Vocabulary(tuple(slides["s0"].var_names)), 15)
    ours, theirs = split(slides, held), of_corpus(whole, recipe(held))
    assert ours.source.vocabulary.symbols == theirs.source.vocabulary.symbols


def test_a_gene_list_is_taken_as_it_is(slides, tmp_path):
    genes = slides["s0"].var_names[400:1000][::-1].tolist()
    (tmp_path / "genes.txt").write_text("\n".join(genes))
    found = split(slides, f"data.genes={tmp_path / 'genes.txt'}")
    assert list(found.source.vocabulary.symbols) == genes


def test_most_detected_counts_the_spots_it_is_told_to(slides, caplog):
    slide = slides["s0"].copy()
    only_held = slide.var_names[0]
    x = slide.X.tolil()
    x[:, 0] = 0
    x[70:, 0] = 9
    slide.X = x.tocsr()
    training = np.arange(100) < 70
    chosen = most_detected([slide], [training], 5000)
    assert only_held not in chosen.symbols
    assert "all are used" in caplog.text
    spots_with = np.asarray((slide.X[:70] > 0).sum(axis=0)).ravel()
    top = most_detected([slide], [training], 10)
    assert len(top) == 10
    assert min(spots_with[slide.var_names.get_indexer(top.symbols)]) >= np.sort(spots_with)[-10]


def test_the_vocabulary_takes_ensembl_ids_from_the_slides(slides, monkeypatch, tmp_path):
    header = "symbol\tprev_symbol\talias_symbol\tensembl_gene_id\n"
    (tmp_path / "hgnc_complete_set.txt").write_text(f"{header}TP53\t\t\tENSG00000141510\n")
    monkeypatch.setenv("SAGEFM_GENES", str(tmp_path))  # nothing else is known
    slide = slides["s0"].copy()
    slide.var["gene_ids"] = [f"ENSG{i:011d}.2;ENSG9" for i in range(slide.n_vars)]
    chosen = most_detected([slide], [np.ones(100, dtype=bool)], 20)
    where = slide.var_names.get_indexer(chosen.symbols)
    assert chosen.ensembl == tuple(f"ENSG{i:011d}" for i in where)


def test_stored_zeros_are_no_detections(slides):
    slide = slides["s0"].copy()
    lost = slide.var_names[(slide.X > 0).sum(axis=0).A1.argmax()]
    slide.X.data[slide.X.indices == slide.var_names.get_loc(lost)] = 0
    assert lost not in most_detected([slide], [np.ones(100, dtype=bool)], 50).symbols


def test_slides_named_by_ids_join_those_named_by_symbols(slides, monkeypatch, tmp_path):
    symbols = slides["s0"].var_names
    rows = "".join(f"{s}\t\t\tENSG{i:011d}\n" for i, s in enumerate(symbols))
    header = "symbol\tprev_symbol\talias_symbol\tensembl_gene_id\n"
    (tmp_path / "hgnc_complete_set.txt").write_text(header + rows)
    monkeypatch.setenv("SAGEFM_GENES", str(tmp_path))
    by_id = slides["s0"].copy()
    by_id.var_names = [f"ENSG{i:011d}" for i in range(by_id.n_vars)]
    everywhere = np.ones(100, dtype=bool)
    assert most_detected([by_id], [everywhere], 40) == most_detected(
        [slides["s0"]], [everywhere], 40
    )


# Sources seen through another vocabulary


def test_a_source_can_be_seen_through_another_vocabulary(slides):
    names = slides["s0"].var_names
    wide = Vocabulary(tuple(names[:1000]))
    narrow = Vocabulary(("NOT1A", *names[400:900][::-1], *names[990:1010]))
    source = Memory(sections_of(slides), wide, 15)
    seen = Selected.of(source, narrow)
    own = Memory(sections_of(slides), narrow, 15)
    assert seen.vocabulary == narrow
    assert seen.n_neighbors == 15
    assert seen.table.equals(source.table)
    common = np.isin(narrow.symbols, wide.symbols)
    assert common.sum() == 510
    for name in slides:
        ours, theirs = seen.read(name, 10, 40), own.read(name, 10, 40)
        np.testing.assert_array_equal(ours.neighbors, theirs.neighbors)
        expected = theirs.log1p.toarray() * common  # the other genes are not in the source
        np.testing.assert_array_equal(ours.log1p.toarray(), expected)
        np.testing.assert_array_equal(seen.detected(name), own.detected(name) * common)
        assert ours.log1p.dtype == np.float32


def test_detected_counts_spots(slides):
    source = Memory(sections_of(slides), Vocabulary(tuple(slides["s0"].var_names[:200])), 15)
    expected = (slides["s1"].X[:, :200] > 0).sum(axis=0).A1
    np.testing.assert_array_equal(source.detected("s1"), expected)


def test_the_mean_of_each_gene_is_that_of_the_training_spots(slides, monkeypatch):
    monkeypatch.setattr("sagefm.pretrain.plan.TILE", 30)
    whole = split(slides, 'data.validation=["p1"]')
    ragged = Split(whole.source, {"s0": np.arange(17, 95, 2), "s5": np.arange(100)}, {})
    for found in (whole, ragged):
        rows = []
        for piece in sections_of(slides):
            if piece.name in found.training:
                columns = slides["s0"].var_names.get_indexer(found.source.vocabulary.symbols)
                counts = piece.slide.X[piece.rows[found.training[piece.name]]][:, columns]
                rows.append(np.log1p(counts.toarray()))
        expected = np.concatenate(rows).mean(axis=0)
        np.testing.assert_allclose(gene_mean_of(found), expected, rtol=1e-5)


# Weights


def weights_of(table, wanted, **more):
    class Source:
        pass

    source = Source()
    source.table = table
    spots = {name: np.arange(50) for name in table.index}
    entry = ", ".join(f"{name} = {weight}" for name, weight in wanted.items())
    plan = Split(source, spots, {}).plan(spots, recipe(f"data.weights={{{entry}}}"), **more)
    return plan.weights


def test_a_slide_counts_by_its_own_weight_else_by_that_of_its_organ():
    table = a_table(list("abcd"), organ=["breast", "breast", "brain", ""])
    wanted = {"breast": 0.5, "s1": 3.0, "s3": 2}
    assert weights_of(table, wanted) == {"s0": 0.5, "s1": 3.0, "s3": 2.0}
    assert weights_of(table, {}) == {}
    assert weights_of(table, wanted, mixed=False) == {}  # validation: every spot once


def test_organs_are_balanced_without_more_spots_in_an_epoch(caplog):
    table = a_table(list("abcd"), spots=[900, 100, 400, 77], organ=["lung", "skin", "lung", "eye"])
    spots = {name: np.arange(table.loc[name, "spots"]) for name in ("s0", "s1", "s2")}
    source = SimpleNamespace(table=table)  # the eye is not trained on

    def organs(*changes):
        plan = Split(source, spots, {}).plan(spots, recipe(*changes))
        often = pd.Series({name: plan.weights[name] * len(spots[name]) for name in spots})
        return often.groupby(table["organ"]).sum()

    assert organs("data.balance=1").tolist() == pytest.approx([700, 700])
    half = organs("data.balance=0.5")
    assert half["lung"] / half["skin"] == pytest.approx(13**0.5)
    assert half.sum() == pytest.approx(1400)
    twice = organs("data.balance=1", "data.weights={skin=2}")
    assert twice["skin"] == pytest.approx(1400)
    assert not caplog.text
    bare = Split(SimpleNamespace(table=table[["patient", "spots"]]), spots, {})
    assert set(bare.plan(spots, recipe("data.balance=1")).weights.values()) == {1.0}
    assert "data.balance does nothing" in caplog.text


def test_slides_without_organs_have_weights_too():
    assert weights_of(a_table(list("ab")), {"s1": 2.0}) == {"s1": 2.0}


def test_a_weight_of_nothing_is_refused():
    table = a_table(list("ab"), organ=["breast", ""])
    with pytest.raises(
        InputError,
        match=r"data\.weights: 'brest' is neither a slide nor an organ; there is breast, s0, s1",
    ):
        weights_of(table, {"breast": 1.0, "brest": 2.0})


def test_a_plan_is_of_the_spots_it_is_given(slides):
    found = split(slides, 'data.validation=["p1"]', "train.batch_size=32", "data.patch=8")
    plan = found.plan(found.training, recipe("train.batch_size=32", "data.patch=8"))
    assert (plan.batch_size, plan.patch, plan.n_spots) == (32, 8, 400)
    assert plan.window == len(plan.tiles)  # all of it is in memory anyway
    assert {tile.slide for tile in plan.tiles} == {"s0", "s1", "s4", "s5"}
    batches = plan.shuffled(0, 0)
    mixed = [len({p.tile.slide for p in batch}) for batch in batches]
    assert sum(a > 1 for a in mixed) >= 0.8 * len(batches)
    assert all(a.stop == b.start for a, b in pairwise(plan.tiles) if a.slide == b.slide)
