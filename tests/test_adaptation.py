"""Models that are adapted to a slide: predictions, provenance, and the difference on disk."""

import json
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

import sagefm
from sagefm import InputError, SageFM, _adaptation
from sagefm.nn import checkpoint
from sagefm.nn.context import adaptation
from sagefm.nn.context.absent import Absent
from sagefm.pp.pseudonyms import without_names


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Few steps, which go far."""
    monkeypatch.setattr("sagefm.nn.context.folds._STEPS", (6, 6))
    monkeypatch.setattr(adaptation, "_EVERY", 6)
    monkeypatch.setattr(adaptation, "_LEARNING_RATE", 2e-3)


@pytest.fixture(scope="module")
def adapted(context_model, slide):
    return context_model.adapt(slide)


@pytest.fixture
def hidden(slide, context_model):
    return np.random.default_rng(0).random((slide.n_obs, len(context_model.vocabulary))) < 0.3


def test_measured_genes_are_predicted_by_adapted_weights_and_others_as_before(
    slide, context_model, hidden
):
    before = context_model.predict(slide, hidden=hidden)
    after = context_model.predict(slide, hidden=hidden, adapt=True)
    measured = context_model.prepare(slide).measured
    assert not measured.all()
    assert (np.abs(after - before).max(axis=0)[measured] > 0).mean() > 0.9
    np.testing.assert_allclose(after[:, ~measured], before[:, ~measured], atol=1e-6)


def test_the_order_of_rows_makes_no_difference_to_adapted_predictions(slide, context_model, hidden):
    order = np.random.default_rng(1).permutation(slide.n_obs)
    one = context_model.predict(slide, hidden=hidden, adapt=True)
    other = context_model.predict(slide[order].copy(), hidden=hidden[order], adapt=True)
    np.testing.assert_allclose(one[order], other, atol=2e-5)


def test_the_seed_decides(slide, context_model, hidden):
    def predicted(seed):
        return context_model.predict(slide, hidden=hidden, adapt=True, seed=seed)

    np.testing.assert_array_equal(predicted(1), predicted(1))
    assert np.abs(predicted(1) - predicted(2)).max() > 1e-4


def test_a_slide_is_fitted_once(slide, context_model, monkeypatch):
    fits, fit = [], _adaptation.cross_fit
    monkeypatch.setattr(_adaptation, "cross_fit", lambda *words: fits.append(words) or fit(*words))
    prepared = context_model.prepare(slide)
    for _ in range(2):
        context_model.predict(prepared, adapt=True)
    assert len(fits) == 1
    context_model.predict(prepared, adapt=True, seed=1)
    assert len(fits) == 2


def test_masks_of_a_spot_do_not_move_what_others_are_predicted(slide, context_model, hidden):
    """What is fitted does not depend on what is asked."""
    prepared, other = context_model.prepare(slide), hidden.copy()
    other[:100] = ~other[:100]
    one, two = (context_model.predict(prepared, hidden=h, adapt=True) for h in (hidden, other))
    np.testing.assert_allclose(one[100:], two[100:], atol=1e-5)


def test_a_permuted_gene_stays_unpredictable(slide, context_model):
    """Neither its own count nor the fit on other spots helps where there is nothing to know."""
    counts = slide.X.toarray()
    names = [g for g in context_model.vocabulary if g in slide.var_names]
    columns = slide.var_names.get_indexer(names)
    chosen = columns[np.argsort(-counts[:, columns].mean(axis=0))[:12]]
    rng = np.random.default_rng(2)
    for column in chosen:
        counts[:, column] = rng.permutation(counts[:, column])
    shuffled = slide.copy()
    shuffled.X = csr_matrix(counts)
    genes = [str(slide.var_names[column]) for column in chosen]
    mask = np.zeros((slide.n_obs, len(context_model.vocabulary)), dtype=bool)
    mask[:, context_model.vocabulary.positions(genes)] = True
    predicted = context_model.predict(shuffled, hidden=mask, genes=genes, adapt=True)
    truth = np.log1p(counts[:, chosen])
    r = [np.corrcoef(a, b)[0, 1] for a, b in zip(predicted.T, truth.T, strict=True)]
    assert abs(np.mean(r)) < 0.1


def test_genes_that_the_whole_slide_lacks_are_predicted_by_the_weights_as_they_are(
    slide, context_model
):
    group = [np.arange(5, 15)]

    def predicted(adapt):
        [block] = context_model.predict_masked(slide, group, where="slide", adapt=adapt)
        return block.log1p

    np.testing.assert_array_equal(predicted(True), predicted(False))


def test_only_the_network_context_can_be_adapted(slide, model, context_model):
    for call in (
        lambda: model.predict(slide, adapt=True),
        lambda: model.adapt(slide),
        lambda: sagefm.tl.embed(slide.copy(), model, adapt=True),
    ):
        with pytest.raises(InputError, match="adapt: is for the network context"):
            call()
    with pytest.raises(InputError, match="is empty"):
        context_model.adapt([])
    some = context_model.prepare(slide).at(slice(0, 50))
    with pytest.raises(InputError, match="all spots"):
        context_model.predict(some, adapt=True)


def test_an_adapted_model_says_so(slide, context_model, adapted):
    assert adapted.fingerprint != context_model.fingerprint
    assert "adapted to 1 slide in" in repr(adapted)
    assert "adapted" not in repr(context_model)
    facts = adapted.provenance["adapted_to"]
    assert facts["base"] == context_model.fingerprint
    assert facts["slides"]["slide 1"]["spots"] == slide.n_obs
    assert facts["error"] < facts["error_before"]
    assert "adapted_to" not in context_model.provenance
    assert adapted.trained_on is None


def test_several_slides_are_adapted_to_together(slide, context_model):
    other = slide[:100].copy()
    both = context_model.adapt([slide, other], seed=3)
    assert [s["spots"] for s in both.provenance["adapted_to"]["slides"].values()] == [200, 100]


def test_embedding_records_what_the_model_was_adapted_to(slide, context_model):
    embedded = slide.copy()
    sagefm.tl.embed(embedded, context_model, adapt=True)
    entry = embedded.uns["sagefm"]["embed"]
    assert entry["base"] == context_model.fingerprint != entry["fingerprint"]
    assert "adapted_to" in json.loads(entry["model_provenance"])
    plain = slide.copy()
    sagefm.tl.embed(plain, context_model)
    assert "base" not in plain.uns["sagefm"]["embed"]
    assert np.abs(plain.obsm["X_sagefm"] - embedded.obsm["X_sagefm"]).max() > 1e-3


def test_the_difference_is_small_and_loads_as_the_same_model(
    slide, context_model, adapted, tmp_path
):
    adapted.save(tmp_path / "whole.safetensors")
    adapted.save(tmp_path / "small.safetensors", difference=True)
    sizes = [(tmp_path / f"{name}.safetensors").stat().st_size for name in ("small", "whole")]
    assert sizes[0] < sizes[1] / 2
    loaded = SageFM.load(tmp_path / "small.safetensors", base=context_model)
    assert loaded.provenance == json.loads(json.dumps(without_names(adapted.provenance)))
    assert loaded.fingerprint not in (adapted.fingerprint, context_model.fingerprint)
    moved = np.abs(adapted.embed(slide) - context_model.embed(slide)).max()
    assert np.abs(adapted.embed(slide) - loaded.embed(slide)).max() < moved / 50
    loaded.save(tmp_path / "again.safetensors", difference=True)
    whole = SageFM.load(tmp_path / "whole.safetensors")
    assert whole.fingerprint == adapted.fingerprint
    with pytest.raises(InputError, match="difference: is for a model of adapt"):
        whole.save(tmp_path / "no.safetensors", difference=True)
    with pytest.raises(InputError, match="needs no base"):
        SageFM.load(tmp_path / "whole.safetensors", base=context_model)


def test_an_adapted_model_keeps_what_predicts_genes_that_a_slide_lacks(
    slide, context_model, tmp_path
):
    network, width = deepcopy(context_model.network), len(context_model.vocabulary)
    draws = torch.Generator().manual_seed(0)
    usual, *parts = (torch.rand(width, n, generator=draws) for n in (1, 3, 4))
    network.absent = Absent.of(usual[:, 0], *parts)
    model = replace(context_model, network=network)
    adapted = model.adapt(slide)
    lacking = ~model.prepare(slide).measured
    assert lacking.any()
    before, after = (each.predict(slide)[:, lacking] for each in (model, adapted))
    np.testing.assert_array_equal(after, before)
    adapted.save(tmp_path / "small.safetensors", difference=True)
    loaded = SageFM.load(tmp_path / "small.safetensors", base=model)
    np.testing.assert_array_equal(loaded.predict(slide)[:, lacking], before)


def test_a_difference_from_another_model_is_refused(context_model, adapted, tmp_path):
    path = tmp_path / "small.safetensors"
    adapted.save(path, difference=True)
    for base in (None, SageFM.new(context_model.vocabulary, context_model.config, seed=1)):
        with pytest.raises(InputError, match="give the model that was adapted as base") as raised:
            SageFM.load(path, base=base)
        assert context_model.fingerprint[:16] in str(raised.value)


def test_damaged_differences_are_refused(context_model, adapted, tmp_path):
    path = tmp_path / "small.safetensors"
    adapted.save(path, difference=True)
    weights, header = checkpoint.read(path, "difference")
    whole = path.read_bytes()
    path.write_bytes(whole[:-100] + bytes(100))
    with pytest.raises(InputError, match="checksum"):
        SageFM.load(path, base=context_model)
    steps, scale, rows = (weights["first" + end] for end in ("", ".scale", ".rows"))
    n_genes = len(context_model.vocabulary)
    for wrong in (
        {"first": steps.float()},
        {"first": steps[:-1]},
        {"first": steps[:, :-1]},
        {"first.scale": scale.clone().fill_(torch.nan)},
        {"first.scale": scale[:, None]},
        {"first.scale": scale.double()},
        {"first.rows": rows + n_genes},
        {"first.rows": rows - 5},
        {"first.rows": rows.flip(0)},
        {"first.rows": rows[:-1]},
        {"first": steps[:0], "first.scale": scale[:0], "first.rows": rows[:0]},
        {"other": steps.clone()},
        {"other.scale": scale.clone()},
        {"first.rows": None},
    ):
        changed = {k: v for k, v in (weights | wrong).items() if v is not None}
        checkpoint.write(path, changed, header)
        with pytest.raises(InputError, match=r"small\.safetensors"):
            SageFM.load(path, base=context_model)
    for wrong in ({"base": 3}, {"provenance": None}, {"config": {}}, {"kind": "x"}, {"base": None}):
        checkpoint.write(path, weights, header | wrong)
        with pytest.raises(InputError, match=r"small\.safetensors"):
            SageFM.load(path, base=context_model)


def test_imputing_adapts_unless_told_otherwise(slide, context_model, model):
    genes = [g for g in context_model.vocabulary if g in slide.var_names][:6]
    made = {}
    for name, options in (("yes", {}), ("no", {"adapt": False}), ("slide", {"mask": "slide"})):
        one = slide.copy()
        sagefm.tl.impute(one, context_model, genes, **options)
        made[name] = one
    adapts = {name: one.uns["sagefm"]["imputed"]["adapt"] for name, one in made.items()}
    assert adapts == {"yes": True, "no": False, "slide": False}
    yes, no = (made[name].obsm["sagefm_imputed"].to_numpy() for name in ("yes", "no"))
    assert np.abs(yes - no).max() > 1e-4
    other = slide.copy()
    sagefm.tl.impute(other, model, [g for g in model.vocabulary if g in slide.var_names][:2])
    assert not other.uns["sagefm"]["imputed"]["adapt"]


def test_a_model_is_never_moved_by_predictions(slide, context_model):
    before = {n: v.clone() for n, v in context_model.network.state_dict().items()}
    context_model.predict(replace(context_model.prepare(slide)), adapt=True)
    after = context_model.network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
