"""What predicts genes that a slide lacks, as a part of a model and of its file."""

import numpy as np
import pytest
import torch

from sagefm import InputError, SageFM
from sagefm.model import Config
from sagefm.nn import checkpoint
from sagefm.nn.context.absent import Absent
from sagefm.pp.simulate import simulate
from sagefm.pp.vocabulary import Vocabulary

N_GENES, LACKING = 40, [3, 7, 30]


@pytest.fixture
def slide():
    """One that lacks some genes of the model."""
    genes = simulate(15).var_names[:N_GENES]
    whole = simulate(60, genes=genes, seed=3)
    return whole[:, np.setdiff1d(np.arange(N_GENES), LACKING)].copy()


@pytest.fixture
def model():
    genes = tuple(simulate(15).var_names[:N_GENES])
    vocabulary = Vocabulary(genes, tuple("" for _ in genes))
    return SageFM.new(vocabulary, Config("context", (8, 12, 12, 6)))


def fitted(seed=0):
    torch.manual_seed(seed)
    return Absent.of(torch.rand(N_GENES) * 5, torch.randn(N_GENES, 5), torch.rand(N_GENES, 6))


def test_only_what_the_slide_lacks_is_predicted_by_it(model, slide):
    before = model.predict(slide)
    model.network.absent = fitted()
    after = model.predict(slide)
    changed = (before != after).any(axis=0)
    assert np.flatnonzero(changed).tolist() == LACKING
    assert (after[:, LACKING] >= 0).all()
    np.testing.assert_allclose(
        model.predict(slide, genes=[model.vocabulary.symbols[7]])[:, 0], after[:, 7], atol=1e-5
    )


def test_genes_taken_from_a_slide_are_predicted_as_if_it_never_had_them(model):
    """Also where they are measured: ``where="slide"`` is how imputation asks."""
    model.network.absent = fitted()
    whole = simulate(60, genes=list(model.vocabulary.symbols), seed=3)
    [block] = model.predict_masked(whole, [np.array(LACKING)], where="slide")
    kept = whole[:, np.setdiff1d(np.arange(N_GENES), LACKING)].copy()
    np.testing.assert_allclose(block.log1p, model.predict(kept)[:, LACKING], atol=1e-5)


def test_a_file_without_it_predicts_as_before(model, slide, tmp_path):
    model.save(tmp_path / "old.safetensors")
    assert not any("absent" in name for name in checkpoint.read(tmp_path / "old.safetensors")[0])
    loaded = SageFM.load(tmp_path / "old.safetensors", device="cpu")
    assert loaded.network.absent is None and loaded.fingerprint == model.fingerprint
    assert np.array_equal(loaded.predict(slide), model.predict(slide))


@pytest.mark.parametrize("half", [False, True])
def test_it_goes_with_the_file(model, slide, tmp_path, half):
    bare = model.fingerprint
    model = SageFM(model.network, model.vocabulary, model.config)
    model.network.absent = fitted()
    model.save(tmp_path / "m.safetensors", half=half)
    loaded = SageFM.load(tmp_path / "m.safetensors", device="cpu")
    assert model.fingerprint != bare and (loaded.fingerprint == model.fingerprint) is not half
    one, two = loaded.predict(slide)[:, LACKING], model.predict(slide)[:, LACKING]
    np.testing.assert_allclose(one, two, atol=0.05 if half else 0)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("absent.loadings", torch.zeros(N_GENES)),
        ("absent.loadings", torch.zeros(N_GENES + 1, 5)),
        ("absent.coefficients", torch.zeros(N_GENES, 5)),
        ("absent.usual", torch.full((N_GENES,), torch.nan)),
    ],
)
def test_damage_is_one_line(model, tmp_path, name, values):
    model.network.absent = fitted()
    path = tmp_path / "m.safetensors"
    model.save(path)
    weights, header = checkpoint.read(path)
    checkpoint.write(path, weights | {name: values}, header)
    with pytest.raises(InputError, match="absent"):
        SageFM.load(path)


def test_spots_in_any_order_and_number(model, slide):
    model.network.absent = fitted()
    prepared = model.prepare(slide)
    some = np.array([40, 3, 17])
    [block] = model.predict_masked(prepared, [np.array(LACKING)], where=None, spots=some)
    np.testing.assert_allclose(block.log1p, model.predict(slide)[some][:, LACKING], atol=1e-5)
