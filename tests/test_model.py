"""SageFM: arrays in, arrays out."""

import os
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from anndata import concat

import sagefm
from sagefm import InputError, SageFM
from sagefm._as_model import as_model
from sagefm.model import Config
from sagefm.nn import checkpoint
from sagefm.pp.vocabulary import Vocabulary
from sagefm.stats.reference import ReferenceSpots


def test_embedding_and_prediction_have_the_promised_shapes(slide, model):
    embedding = model.embed(slide)
    assert embedding.shape == (200, 20)
    assert embedding.dtype == np.float32
    predicted = model.predict(slide)
    assert predicted.shape == (200, len(model.vocabulary))
    assert (predicted >= 0).all()


def test_genes_choose_columns_in_the_asked_order(slide, model):
    wanted = [model.vocabulary.symbols[i] for i in (7, 2, 30)]
    some = model.predict(slide, genes=wanted)
    np.testing.assert_allclose(some, model.predict(slide)[:, [7, 2, 30]], atol=1e-6)
    with pytest.raises(InputError, match="not one of the model's genes"):
        model.predict(slide, genes=["NOPE"])


def test_hidden_dense_and_sparse_are_the_same(slide, model):
    hidden = np.random.default_rng(0).random((200, len(model.vocabulary))) < 0.3
    dense = model.predict(slide, hidden=hidden)
    for kind in (sp.csr_matrix, sp.csc_matrix, sp.coo_array):
        np.testing.assert_allclose(dense, model.predict(slide, hidden=kind(hidden)), atol=1e-6)
    assert np.abs(dense - model.predict(slide)).max() > 1e-3


def test_what_is_hidden_does_not_reach_its_own_prediction(slide, model):
    """Only the center is masked: hidden counts that change move the neighbors alone."""
    prepared = model.prepare(slide)
    hidden = np.zeros((200, len(model.vocabulary)), dtype=bool)
    hidden[17] = True
    changed = slide.copy()
    counts = slide.X.toarray()
    counts[17] += 5
    changed.X = sp.csr_matrix(counts)
    before, after = (model.predict(s, hidden=hidden) for s in (slide, changed))
    np.testing.assert_allclose(before[17], after[17], atol=1e-5)
    seen_by = (prepared.neighbors[:, 1:] == 17).any(axis=1)
    moved = np.abs(before - after).max(axis=1) > 1e-4
    assert seen_by.any()
    assert (moved == seen_by).all()


def test_hidden_of_another_shape_is_refused(slide, model):
    with pytest.raises(InputError, match=r"hidden is 200 × 3, but the slide has 200 spots"):
        model.predict(slide, hidden=np.zeros((200, 3), dtype=bool))


def test_preparing_leaves_the_slide_alone(slide, model):
    before = slide.copy()
    model.embed(slide)
    assert (before.X != slide.X).nnz == 0
    assert before.obs.equals(slide.obs)
    assert list(before.uns) == list(slide.uns)


def test_blocks_make_no_difference(slide, model, monkeypatch):
    whole = model.embed(slide)
    monkeypatch.setattr("sagefm.model.BLOCK", 37)
    np.testing.assert_allclose(model.embed(slide), whole, atol=1e-6)


def test_counts_in_a_layer_and_ids_for_names(slide, model):
    expected = model.embed(slide)
    layered = slide.copy()
    layered.layers["counts"] = layered.X.copy()
    layered.X = layered.X.log1p() * 0.37
    np.testing.assert_array_equal(model.embed(layered), expected)

    ids = {s: f"ENSG{i:011d}" for i, s in enumerate(model.vocabulary.symbols)}
    knowing = SageFM(
        model.network, Vocabulary(model.vocabulary.symbols, tuple(ids.values())), model.config
    )
    renamed = slide.copy()
    renamed.var_names = [
        f"{ids[s]}.7" if s in ids else f"ENSG9{i:010d}" for i, s in enumerate(slide.var_names)
    ]
    np.testing.assert_allclose(knowing.embed(renamed), expected, atol=1e-6)


def test_the_order_of_genes_and_spots_does_not_matter(slide, model):
    rng = np.random.default_rng(1)
    genes = rng.permutation(slide.n_vars)
    np.testing.assert_allclose(model.embed(slide[:, genes].copy()), model.embed(slide), atol=1e-5)


def test_slides_in_one_object_do_not_see_each_other(slide, model):
    other = slide[::-1].copy()
    other.X = other.X * 2
    both = concat({"a": slide, "b": other}, label="section", index_unique="-")
    with pytest.raises(InputError, match="slide_key"):
        model.embed(both)
    prepared = model.prepare(both, slide_key="section")
    together = model.embed(prepared)
    np.testing.assert_allclose(together[:200], model.embed(slide), atol=1e-5)


def test_log_normalized_slides_are_refused_with_the_remedy(slide, model):
    bad = slide.copy()
    bad.X = bad.X.log1p() * 1.3
    with pytest.raises(InputError, match=r"log-normalized.*layer="):
        model.embed(bad)


def test_slides_smaller_than_a_neighborhood_are_refused(slide, model):
    with pytest.raises(InputError, match="has 10 spots, but a neighborhood needs 15"):
        model.embed(slide[:10].copy())


def test_the_number_of_neighbors_comes_with_the_model(slide, vocabulary):
    wide = SageFM.new(vocabulary, Config(widths=(8, 8, 8, 8, 8), n_neighbors=31))
    assert wide.prepare(slide).neighbors.shape == (200, 31)
    assert wide.prepare(slide[:100].copy()).log1p.shape[0] == 100


def test_the_summary_of_a_prepared_slide_counts_missing_genes(slide, model):
    prepared = model.prepare(slide)
    assert prepared.alignment.n_matched == len(model.vocabulary) - 2
    assert "2 model genes are not on the slide" in prepared.summary
    frame = pd.DataFrame.sparse.from_spmatrix(prepared.log1p)
    assert (frame.iloc[:, [0, -1]] == 0).to_numpy().all()


@pytest.fixture
def learned(slide, model):
    """The model, knowing what it was trained on."""
    z = model.embed(slide)
    trained_on = ReferenceSpots.learn([z[:120], z[120:]], ["a", "b"])
    return replace(model, trained_on=trained_on)


def test_what_a_model_was_trained_on_goes_with_it(learned, model, slide, tmp_path):
    learned.save(tmp_path / "a.safetensors")
    SageFM.load(tmp_path / "a.safetensors").save(tmp_path / "b.safetensors")  # a copy of a copy
    again = SageFM.load(tmp_path / "b.safetensors")
    for name, values in learned.trained_on.arrays().items():
        assert np.array_equal(again.trained_on.arrays()[name], values)
    z = model.embed(slide)
    assert np.array_equal(again.trained_on.novelty(z), learned.trained_on.novelty(z))
    assert again.fingerprint == model.fingerprint  # of the embedding, which is the same
    assert np.array_equal(again.embed(slide), z)


def test_a_file_without_it_is_read_as_before(model, tmp_path):
    model.save(tmp_path / "m.safetensors")
    assert not any(name.startswith("trained_on") for name in checkpoint.read(
        tmp_path / "m.safetensors")[0])  # fmt: skip
    assert SageFM.load(tmp_path / "m.safetensors").trained_on is None


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        ("own", None, "own is missing"),
        ("axes", torch.zeros(3, 4), "axes 3×4 is not what it was"),
        ("center", torch.full((20,), torch.nan), "center 20 is not what it was"),
    ],
)
def test_what_is_damaged_is_one_line(learned, tmp_path, name, values, said):
    path = tmp_path / "m.safetensors"
    learned.save(path)
    weights, header = checkpoint.read(path)
    del weights[f"trained_on.{name}"]
    checkpoint.write(path, weights | ({} if values is None else {f"trained_on.{name}": values}),
                     header)  # fmt: skip
    with pytest.raises(InputError, match=rf"m\.safetensors: .*{said}.*copy it again") as caught:
        SageFM.load(path)
    assert "\n" not in str(caught.value)


def test_masked_genes_are_predicted_block_by_block(model, slide):
    aligned = model.prepare(slide)
    mask = np.random.default_rng(0).random((slide.n_obs, len(model.vocabulary))) < 0.3
    genes, spots = np.array([4, 1, 9]), np.arange(150, 7, -3)
    expected = model.predict(slide, hidden=mask)[np.ix_(spots, genes)]
    for given in (mask[spots], sp.csr_matrix(mask[spots]), lambda block: mask[spots][block]):
        blocks = list(
            model.predict_masked(aligned, [genes], mask=given, spots=spots, block_size=20)
        )
        assert [block.group for block in blocks] == [0, 0, 0]
        np.testing.assert_allclose(
            np.concatenate([block.log1p for block in blocks]), expected, atol=1e-6
        )


@pytest.mark.parametrize(
    "options", [{"where": "neighbors"}, {"where": "slide", "mask": np.ones((1, 1), dtype=bool)}]
)
def test_masks_that_cannot_be_are_refused(model, slide, options):
    with pytest.raises(InputError, match="where="):
        list(model.predict_masked(slide, [np.array([1])], **options))


def test_every_verb_takes_the_name_of_a_model(slide, model, tmp_path):
    slide = slide.copy()
    path = tmp_path / "small.safetensors"
    model.save(path)
    sagefm.tl.embed(slide, path)
    by_path = slide.obsm["X_sagefm"].copy()
    np.testing.assert_allclose(by_path, model.embed(slide), atol=1e-5)
    assert as_model(path) is as_model(str(path))  # loaded once
    other = SageFM.new(model.vocabulary, model.config, seed=7)
    path.unlink()
    other.save(path)
    os.utime(path, ns=(1, 1))
    sagefm.tl.embed(slide, path)
    assert np.abs(slide.obsm["X_sagefm"] - by_path).max() > 1e-3  # the file has changed
    with pytest.raises(InputError, match=r"nothing\.safetensors"):
        sagefm.tl.impute(slide, tmp_path / "nothing.safetensors", ["GFAP"])
