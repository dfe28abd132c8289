import json

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sagefm
from sagefm import InputError, SageFM
from sagefm.model import Config
from sagefm.pp import Vocabulary, nearest, simulate

WIDTH = 16


def new_model(vocabulary):
    return SageFM.new(vocabulary, Config(widths=(16, 8, 8, 8, WIDTH)), seed=0)


def assert_same(one, other):
    pd.testing.assert_frame_equal(one.obs, other.obs)
    pd.testing.assert_frame_equal(one.var, other.var)
    for slot in ("obsm", "layers", "uns"):
        assert list(getattr(one, slot)) == list(getattr(other, slot))
    for key in one.obsm:
        assert np.array_equal(one.obsm[key], other.obsm[key])
    assert (one.X != other.X).nnz == 0


@pytest.fixture(scope="module")
def original():
    return simulate(120, seed=1)


@pytest.fixture
def slide(original):
    return original.copy()


@pytest.fixture(scope="module")
def model(original):
    return new_model(Vocabulary(tuple(original.var_names[:400])))


@pytest.fixture(scope="module")
def embedding(original, model):
    slide = original.copy()
    sagefm.tl.embed(slide, model)
    return slide.obsm["X_sagefm"]


def test_returns_nothing_and_fills_its_slots(slide, model):
    assert sagefm.tl.embed(slide, model) is None
    z = slide.obsm["X_sagefm"]
    assert isinstance(z, np.ndarray)
    assert z.dtype == np.float32
    assert z.shape == (120, WIDTH)
    assert np.isfinite(z).all()
    assert len(np.unique(z, axis=0)) > 100  # spots differ
    spots = slide.obsm["X_sagefm_spot"]
    assert spots.dtype == np.float32
    assert spots.shape == z.shape


def test_leaves_the_rest_of_the_slide_alone(slide, original, model):
    slide.uns["sagefm"] = {"read": {"path": "outs"}}
    sagefm.tl.embed(slide, model)
    assert slide.uns["sagefm"].pop("embed")
    assert slide.uns.pop("sagefm") == {"read": {"path": "outs"}}
    del slide.obsm["X_sagefm"], slide.obsm["X_sagefm_spot"]
    assert_same(slide, original)


def test_provenance_survives_a_file(slide, model, tmp_path):
    sagefm.tl.embed(slide, model)
    slide.write_h5ad(tmp_path / "slide.h5ad")
    again = ad.read_h5ad(tmp_path / "slide.h5ad")
    told = again.uns["sagefm"]["embed"]
    assert told == slide.uns["sagefm"]["embed"]
    assert told["key"] == "X_sagefm"
    assert told["model"] == repr(model)
    assert json.loads(told["model_provenance"]) == model.provenance
    assert told["sagefm"] == sagefm.__version__
    assert "matched 400 of 400 model genes" in told["genes"]
    assert np.array_equal(again.obsm["X_sagefm"], slide.obsm["X_sagefm"])


def test_key_added(slide, model, embedding):
    sagefm.tl.embed(slide, model, key_added="mine")
    assert sorted(slide.obsm) == ["mine", "mine_spot", "spatial"]
    assert np.array_equal(slide.obsm["mine"], embedding)
    assert slide.uns["sagefm"]["embed"]["key"] == "mine"


@pytest.mark.parametrize(("place", "layer"), [("counts", None), ("umi", "umi")])
def test_counts_from_a_layer(slide, model, embedding, place, layer):
    slide.layers[place] = slide.X.copy()
    slide.X = slide.X.log1p()
    sagefm.tl.embed(slide, model, layer=layer)
    assert np.array_equal(slide.obsm["X_sagefm"], embedding)


def test_ensembl_names_give_the_same_embedding(slide, original, embedding):
    ids = [f"ENSG9{number:010d}" for number in range(slide.n_vars)]
    model = new_model(Vocabulary(tuple(original.var_names[:400]), tuple(ids[:400])))
    slide.var_names = [f"{name}.{number % 7}" for number, name in enumerate(ids)]
    sagefm.tl.embed(slide, model)
    assert np.array_equal(slide.obsm["X_sagefm"], embedding)
    assert "400 by Ensembl id" in slide.uns["sagefm"]["embed"]["genes"]


def test_order_of_genes_does_not_matter(slide, model, embedding):
    shuffled = slide[:, np.random.default_rng(0).permutation(slide.n_vars)].copy()
    sagefm.tl.embed(shuffled, model)
    np.testing.assert_allclose(shuffled.obsm["X_sagefm"], embedding, atol=1e-6)


def test_sections_in_one_object_are_independent(original, model, embedding):
    other = simulate(90, seed=2, slide="sim2")
    order = np.random.default_rng(0).permutation(210)
    both = ad.concat([original, other], index_unique="-")[order].copy()
    sagefm.tl.embed(both, model, slide_key="slide")
    sagefm.tl.embed(other, model)
    separate = np.concatenate([embedding, other.obsm["X_sagefm"]])
    np.testing.assert_allclose(both.obsm["X_sagefm"], separate[order], atol=1e-6)


def test_a_spot_affects_its_neighborhoods_only(slide, model, embedding):
    spot = 60
    dense = slide.X.tolil()
    dense[spot, :400] = 50
    slide.X = dense.tocsr()
    sagefm.tl.embed(slide, model)
    changed = (slide.obsm["X_sagefm"] != embedding).any(axis=1)
    expected = (nearest(slide.obsm["spatial"], 15) == spot).any(axis=1)
    assert np.array_equal(changed, expected)
    assert changed[spot]


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_order_of_spots_does_not_matter(original, model, seed):
    rng = np.random.default_rng(seed)
    slide = original.copy()
    order = rng.permutation(120)
    shuffled = slide[order].copy()
    sagefm.tl.embed(slide, model)
    sagefm.tl.embed(shuffled, model)
    np.testing.assert_allclose(shuffled.obsm["X_sagefm"], slide.obsm["X_sagefm"][order], atol=1e-6)


@pytest.mark.filterwarnings("ignore::anndata.ImplicitModificationWarning")
def test_a_view_does_not_write_to_its_parent(slide, original, model):
    part = slide[:50]
    sagefm.tl.embed(part, model)
    assert part.obsm["X_sagefm"].shape == (50, WIDTH)
    assert "embed" in part.uns["sagefm"]
    assert_same(slide, original)


def no_coordinates(slide):
    del slide.obsm["spatial"]
    return slide


def no_counts(slide):
    slide.X = slide.X.log1p()
    return slide


def other_genes(slide):
    slide.var_names = [f"probe{number}" for number in range(slide.n_vars)]
    return slide


def two_slides(slide):
    slide.obs["slide"] = np.repeat(["a", "b"], 60)
    return slide


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (no_coordinates, r"obsm\['spatial'\] is missing; put"),
        (no_counts, "not raw counts;.* layer="),
        (other_genes, "matched 0 of 400 model genes.*Put symbols into var_names"),
        (two_slides, "pass slide_key='slide'"),
        (lambda slide: slide[:14].copy(), "has 14 spots, but a neighborhood needs 15"),
    ],
)
def test_what_cannot_be_embedded_is_refused_and_left_alone(slide, model, spoil, message):
    slide = spoil(slide)
    before = slide.copy()
    with pytest.raises(InputError, match=message):
        sagefm.tl.embed(slide, model)
    assert_same(slide, before)
