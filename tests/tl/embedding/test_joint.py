"""A second modality joined with the embedding of the expression."""

import logging

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from sagefm import InputError
from sagefm.pp.modalities import modality
from sagefm.pp.neighborhood import nearest
from sagefm.pp.simulate import simulate
from sagefm.tl import embed, embed_many

JOINT, PROTEIN, PROTEINS = "X_sagefm_joint", "X_sagefm_protein", "antibody_capture"


@pytest.fixture(scope="module")
def measured():
    return simulate(150, seed=4, n_proteins=8, n_couplings=2)


@pytest.fixture(scope="module")
def embedded(measured, model):
    slide = measured.copy()
    embed(slide, model, with_="protein")
    return slide


def test_the_embedding_of_the_expression_stays_as_it_is(measured, embedded, model):
    alone = measured.copy()
    embed(alone, model)
    for key in ("X_sagefm", "X_sagefm_spot"):
        assert (alone.obsm[key] == embedded.obsm[key]).all()
    assert not {JOINT, PROTEIN} & set(alone.obsm)
    assert embedded.uns["sagefm"]["embed"] == alone.uns["sagefm"]["embed"]


def test_both_modalities_have_the_same_variance(embedded):
    joint = embedded.obsm[JOINT]
    width = embedded.obsm["X_sagefm"].shape[1]
    assert joint.shape == (150, width + embedded.obsm[PROTEIN].shape[1])
    for own, values in ((joint[:, :width], "X_sagefm"), (joint[:, width:], PROTEIN)):
        assert own.var(axis=0).sum() == pytest.approx(1, rel=1e-3)
        values = embedded.obsm[values]
        assert own / own.std() == pytest.approx(values / values.std(), abs=1e-3)


def test_coordinates_are_components_of_means_over_neighborhoods(embedded):
    proteins = modality(embedded, "protein").normalized().to_numpy()
    near = nearest(embedded.obsm["spatial"], 15)
    means = proteins[near].mean(axis=1)
    means -= means.mean(axis=0)
    own = embedded.obsm[PROTEIN].astype(float)
    assert own @ own.T == pytest.approx(means @ means.T, abs=1e-4)
    assert embedded.uns["sagefm"]["joint"]["explained"].sum() == pytest.approx(1)
    assert (np.diff(own.var(axis=0)) < 0).all()


def test_a_spot_that_was_not_measured_has_the_coordinates_of_its_neighbors(
    measured, embedded, model, caplog
):
    slide = measured.copy()
    slide.obsm[PROTEINS] = slide.obsm[PROTEINS].copy()
    slide.obsm[PROTEINS].iloc[::10] = np.nan
    logging.getLogger("sagefm").addHandler(caplog.handler)
    embed(slide, model, with_="protein")
    assert np.corrcoef(slide.obsm[PROTEIN][::10, 0], embedded.obsm[PROTEIN][::10, 0])[0, 1] > 0.9
    assert "without a measured spot" not in caplog.text
    # Now a corner without any: its expression alone decides.
    x = slide.obsm["spatial"][:, 0]
    slide.obsm[PROTEINS].iloc[np.argsort(x)[:60]] = np.nan
    embed(slide, model, with_="protein")
    logging.getLogger("sagefm").removeHandler(caplog.handler)
    near = nearest(slide.obsm["spatial"], 15)
    unknown = slide.obsm[PROTEINS].isna().all(axis=1).to_numpy()[near].all(axis=1)
    assert unknown.any()
    assert (slide.obsm[PROTEIN][unknown] == slide.obsm[PROTEIN][unknown][0]).all()
    assert f"{unknown.sum()} spots without a measured spot" in caplog.text
    assert slide.uns["sagefm"]["joint"]["n_not_measured"] == unknown.sum()
    assert np.isfinite(slide.obsm[JOINT]).all()


def test_coordinates_of_several_slides_are_comparable(measured, model):
    a, b, c = measured.copy(), measured.copy(), simulate(150, seed=5, n_proteins=8, n_couplings=2)
    b.obsm[PROTEINS] = b.obsm[PROTEINS].iloc[:, ::-1].assign(other=1.0)
    embed({"a": a, "b": b, "c": c}, model, with_="protein")
    assert a.obsm[PROTEIN] == pytest.approx(b.obsm[PROTEIN], abs=1e-5)
    assert "other" not in a.uns["sagefm"]["joint"]["features"]
    before = a.obsm[JOINT]
    embed({"c": c, "a": a, "b": b}, model, with_="protein")
    assert a.obsm[JOINT] == pytest.approx(before, abs=1e-4)


def test_any_counts_are_a_second_modality(measured, model):
    slide = measured.copy()
    rng = np.random.default_rng(0)
    slide.obsm["genera"] = pd.DataFrame(
        rng.poisson(2.0, (150, 3)), slide.obs_names, ["x", "y", "z"]
    )
    embed(slide, model, with_="genera")
    assert slide.obsm["X_sagefm_genera"].shape == (150, 3)


@pytest.mark.parametrize(
    ("name", "message"), [("nothing", "nothing"), ("spot", "another name"), ("one", "2 are needed")]
)
def test_what_cannot_be_joined_is_refused_in_one_line(measured, model, name, message):
    slide = measured.copy()
    slide.obsm["one"] = pd.DataFrame({"a": np.ones(150)}, slide.obs_names)
    slide.obsm["spot"] = slide.obsm[PROTEINS]
    with pytest.raises(InputError, match=message) as error:
        embed(slide, model, with_=name)
    assert "\n" not in str(error.value)
    assert "X_sagefm" not in slide.obsm


def test_slides_in_files_are_joined_as_in_memory(measured, model, tmp_path):
    slides = {"a": measured.copy(), "b": simulate(150, seed=5, n_proteins=8, n_couplings=2)}
    for name, slide in slides.items():
        slide.write_h5ad(tmp_path / f"{name}.h5ad")
    model.save(tmp_path / "m.safetensors")
    targets = {tmp_path / f"{n}_out.h5ad": tmp_path / f"{n}.h5ad" for n in slides}
    how = {"with_": "protein", "workers": 1, "device": "cpu"}
    for text in ("2 embedded, 0 already there", "0 embedded, 2 already there"):
        assert str(embed_many(targets, tmp_path / "m.safetensors", **how)) == text
    embed(slides, model, with_="protein")
    for name, slide in slides.items():
        found = ad.read_h5ad(tmp_path / f"{name}_out.h5ad")
        assert found.obsm[JOINT] == pytest.approx(slide.obsm[JOINT], abs=1e-5)
