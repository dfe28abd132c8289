"""From slides to a model."""

import numpy as np
import pytest
import torch

from sagefm import InputError
from sagefm.pp.simulate import simulate
from sagefm.pretrain import Recipe, fit
from sagefm.pretrain.split import end_of_slide, hold_out, most_detected, patients_of

FAST = ["network.widths=[32,16,16,16,24]", "data.genes=300", "train.learning_rate=3e-3"]


@pytest.fixture(scope="module")
def slides():
    return {f"s{i}": simulate(150, seed=i, patient=f"p{i // 2}", slide=f"s{i}") for i in range(6)}


def recipe(*changes):
    return Recipe.load("small", [*FAST, *changes])


@pytest.fixture(scope="module")
def result(slides):
    return fit(slides, recipe("train.max_epochs=12"), progress=False)


def test_training_learns_and_keeps_the_best_epoch(result, slides):
    history = result.history
    assert history["epoch"].tolist() == list(range(1, len(history) + 1))
    assert history["validation_loss"].min() < history["validation_loss"].iloc[0]
    assert history["validation_loss"].min() < history["gene_mean"].iloc[0]
    assert result.model.provenance["best_epoch"] == history["validation_loss"].argmin() + 1
    assert result.model.predict(slides["s0"]).shape == (150, 300)


def test_the_model_says_where_it_comes_from(result, slides):
    provenance = result.model.provenance
    assert provenance["slides"] == dict.fromkeys(slides, 150)
    assert len(provenance["validation_spots"]) == 2  # both slides of one patient
    held = {slides[name].obs["patient"].iloc[0] for name in provenance["validation_spots"]}
    assert len(held) == 1
    assert provenance["recipe"]["train"]["seed"] == 0
    assert {"sagefm", "torch", "numpy", "python"} <= provenance.keys()


def test_the_model_is_the_one_of_the_best_epoch(result, slides):
    """Recompute the validation loss of the returned weights from scratch."""
    from sagefm.pretrain.module import Pretraining
    from sagefm.pretrain.spots import Spots

    model = result.model
    names = list(model.provenance["validation_spots"])
    rows = [i for i, name in enumerate(slides) if name in names]
    spots = Spots.of([model.prepare(slide) for slide in slides.values()])
    held = np.concatenate([np.arange(150 * i, 150 * (i + 1)) for i in rows])
    module = Pretraining(model.network, 15, recipe().train)
    batches = list(spots.batches(held.tolist(), 64))
    with torch.inference_mode():
        losses = [
            float(module.loss(b, module.validation_masks(b, i))) for i, b in enumerate(batches)
        ]
    weights = [len(batch.centers) for batch in batches]
    expected = result.history["validation_loss"].min()
    assert np.average(losses, weights=weights) == pytest.approx(expected, rel=1e-5)


def test_the_same_seed_gives_the_same_weights(slides):
    some = {name: slides[name] for name in ("s0", "s2")}
    torch.manual_seed(1)
    one = fit(some, recipe("train.max_epochs=2"), progress=False)
    torch.manual_seed(2)
    two = fit(some, recipe("train.max_epochs=2"), progress=False)
    other = fit(some, recipe("train.max_epochs=2", "train.seed=1"), progress=False)
    assert one.history.equals(two.history)
    assert torch.equal(one.model.network.first, two.model.network.first)
    assert not torch.equal(one.model.network.first, other.model.network.first)


def test_early_stopping(slides):
    stuck = recipe("train.max_epochs=50", "train.patience=2", "train.learning_rate=1e-30")
    history = fit({"s0": slides["s0"], "s2": slides["s2"]}, stuck, progress=False).history
    assert len(history) == 3  # the first, and two without improvement


def test_references_are_right(result, slides):
    """The neighbor mean, computed the slow way on unmasked entries, is of the same size."""
    history = result.history
    assert history["neighbor_mean"].nunique() == history["gene_mean"].nunique() == 1
    model = result.model
    (name, *_) = model.provenance["validation_spots"]
    prepared = model.prepare(slides[name])
    x = prepared.expression.toarray()
    error = (x[prepared.neighbors[:, 1:]].mean(axis=1) - x) ** 2
    assert history["neighbor_mean"].iloc[0] == pytest.approx(error.mean(), rel=0.1)


def test_one_slide_holds_out_its_end_and_says_so(slides, caplog):
    with caplog.at_level("WARNING", logger="sagefm"):
        result = fit({"s0": slides["s0"]}, recipe("train.max_epochs=1"), progress=False)
    assert "all slides are of one patient" in caplog.text
    assert result.model.provenance["validation_spots"] == {"s0": 15}


def test_a_slide_that_cannot_be_used_is_named(slides):
    bad = {"good": slides["s0"], "tiny": slides["s2"][:10].copy()}
    with pytest.raises(InputError, match=r"tiny: .*10 spots"):
        fit(bad, recipe(), progress=False)
    with pytest.raises(InputError, match="no slides"):
        fit({}, recipe(), progress=False)


def test_patients_come_from_the_table_then_the_column_then_the_name(slides):
    slide = slides["s3"]
    assert set(patients_of("s3", slide, "patient", {"s3": "x"})) == {"x"}
    assert set(patients_of("s3", slide, "patient", None)) == {"p1"}
    assert set(patients_of("s3", slide, "nothing", None)) == {"s3"}
    with pytest.raises(InputError, match="s3: is not in the table of patients"):
        patients_of("s3", slide, "patient", {"s1": "x"})


@pytest.mark.parametrize("share", [0.01, 0.3, 0.6])
def test_sections_of_one_patient_stay_on_one_side(share):
    patients = np.repeat([f"p{i}" for i in range(9)], 20)
    held = hold_out(patients, share, seed=0)
    assert held.any()
    assert not held.all()
    for patient in set(patients):
        assert len(set(held[patients == patient])) == 1
    assert len(set(patients[held])) == max(1, round(9 * share))


def test_named_patients_are_held_out():
    patients = np.array(["a", "b", "c", "a"])
    assert hold_out(patients, ["a"], seed=0).tolist() == [True, False, False, True]
    with pytest.raises(InputError, match="no slide is of patient 'd'; there is a, b, c"):
        hold_out(patients, ["d"], seed=0)
    with pytest.raises(InputError, match="holds out every patient"):
        hold_out(patients, ["a", "b", "c"], seed=0)


def test_the_end_of_a_slide_is_one_piece():
    coordinates = np.c_[np.arange(100.0), np.zeros(100)]
    assert end_of_slide(coordinates, 0.1).tolist() == [False] * 90 + [True] * 10


def test_the_vocabulary_is_of_the_training_spots_alone(slides, caplog):
    slide = slides["s0"].copy()
    only_held = slide.var_names[0]
    x = slide.X.tolil()
    x[:, 0] = 0
    x[100:, 0] = 9
    slide.X = x.tocsr()
    training = np.arange(150) < 100
    chosen = most_detected([slide], [training], 5000)
    assert only_held not in chosen.symbols
    assert "all are used" in caplog.text
    spots_with = np.asarray((slide.X[:100] > 0).sum(axis=0)).ravel()
    top = most_detected([slide], [training], 10)
    assert len(top) == 10
    assert min(spots_with[slide.var_names.get_indexer(top.symbols)]) >= np.sort(spots_with)[-10]


def test_the_vocabulary_takes_ensembl_ids_from_the_slides(slides, monkeypatch, tmp_path):
    monkeypatch.setenv("SAGEFM_GENES", str(tmp_path))  # nothing else is known
    slide = slides["s0"].copy()
    slide.var["gene_ids"] = [f"ENSG{i:011d}.2;ENSG9" for i in range(slide.n_vars)]
    chosen = most_detected([slide], [np.ones(150, dtype=bool)], 20)
    where = slide.var_names.get_indexer(chosen.symbols)
    assert chosen.ensembl == tuple(f"ENSG{i:011d}" for i in where)


def test_training_that_diverges_is_an_error_and_no_model(slides):
    wild = recipe("train.max_epochs=2", "train.learning_rate=1e18")
    with pytest.raises(InputError, match="diverged"):
        fit({"s0": slides["s0"], "s2": slides["s2"]}, wild, progress=False)


def test_ctrl_c_is_given_back_when_training_fails(slides, monkeypatch):
    import signal

    def fail(*_):
        raise RuntimeError("the reason")

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr("sagefm.pretrain.module.Pretraining.training_step", fail)
    with pytest.raises(RuntimeError, match="the reason"):
        fit({"s0": slides["s0"], "s2": slides["s2"]}, recipe(), progress=False)
    assert signal.getsignal(signal.SIGINT) is before


def test_slides_without_a_patient_are_told(slides, caplog):
    bare = slides["s2"].copy()
    del bare.obs["patient"]
    fit({"s0": slides["s0"], "bare": bare}, recipe("train.max_epochs=1"), progress=False)
    assert "1 of 2 slides have no obs column 'patient'" in caplog.text


def test_stored_zeros_are_no_detections(slides):
    slide = slides["s0"].copy()
    lost = slide.var_names[(slide.X > 0).sum(axis=0).A1.argmax()]
    slide.X.data[slide.X.indices == slide.var_names.get_loc(lost)] = 0
    assert lost not in most_detected([slide], [np.ones(150, dtype=bool)], 50).symbols


def test_slides_named_by_ids_join_those_named_by_symbols(slides, monkeypatch, tmp_path):
    symbols = slides["s0"].var_names
    rows = "".join(f"{s}\t\t\tENSG{i:011d}\n" for i, s in enumerate(symbols))
    header = "symbol\tprev_symbol\talias_symbol\tensembl_gene_id\n"
    (tmp_path / "hgnc_complete_set.txt").write_text(header + rows)
    monkeypatch.setenv("SAGEFM_GENES", str(tmp_path))
    by_id = slides["s0"].copy()
    by_id.var_names = [f"ENSG{i:011d}" for i in range(by_id.n_vars)]
    everywhere = np.ones(150, dtype=bool)
    assert most_detected([by_id], [everywhere], 40) == most_detected(
        [slides["s0"]], [everywhere], 40
    )
