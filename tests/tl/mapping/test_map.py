"""Labels that are carried over from annotated slides."""

import numpy as np
import pandas as pd
import pytest

import sagefm
from sagefm._errors import InputError
from sagefm.pp.simulate import simulate


@pytest.fixture(scope="module")
def patients():
    return [simulate(300, n_domains=3, seed=s, patient=f"p{s}") for s in range(3)]


def given(patients):
    slide = patients[2].copy()
    truth = slide.obs["domain"].astype(str)
    del slide.obs["domain"]
    return slide, [patients[0].copy(), patients[1].copy()], truth


def test_labels_are_carried_over(patients):
    slide, reference, truth = given(patients)
    table = sagefm.tl.map(slide, reference, key="domain")
    mapped = slide.obs["sagefm_mapped"]
    known = (mapped != "unknown").to_numpy()
    assert known.mean() > 0.8
    assert (mapped.astype(str)[known] == truth[known]).mean() > 0.8
    (row,) = table.to_dict("records")
    assert row["n_spots"] == 300
    assert row["mapped"] + row["unknown"] == pytest.approx(1)
    assert row["unknown"] == pytest.approx(1 - known.mean())
    confidence = slide.obs["sagefm_mapped_confidence"]
    assert row["confidence"] == pytest.approx(confidence[known].mean(), rel=1e-5)
    assert (confidence[~known] == 0).all()
    assert slide.uns["sagefm"]["map"]["reference_key"] == "domain"


def test_order_changes_nothing(patients):
    slide, reference, _ = given(patients)
    sagefm.tl.map(slide, reference, key="domain")
    spots = np.random.default_rng(0).permutation(slide.n_obs)
    genes = np.random.default_rng(1).permutation(slide.n_vars)
    other = slide[spots, genes].copy()
    turned = [reference[1][::-1].copy(), reference[0][:, ::-1].copy()]
    sagefm.tl.map([patients[2].copy(), other], turned, key="domain")
    for name in ("sagefm_mapped", "sagefm_mapped_confidence"):
        pd.testing.assert_series_equal(other.obs[name], slide.obs[name].iloc[spots])


def test_other_tissue_is_unknown_and_the_user_is_warned(patients, caplog):
    slide, reference, _ = given(patients)
    slide.X = slide.X[:, np.random.default_rng(0).permutation(slide.n_vars)]
    table = sagefm.tl.map(slide, reference, key="domain")
    assert table["unknown"].item() > 0.9
    assert "out of distribution: slide 1" in caplog.text


def test_spots_without_a_label_do_not_vote(patients):
    slide, reference, _ = given(patients)
    for one in reference:
        labels = one.obs["domain"].astype(object)
        one.obs["domain"] = labels.where(labels != labels.iloc[0], np.nan)
    sagefm.tl.map(slide, reference, key="domain")
    left = set().union(*(one.obs["domain"].dropna() for one in reference))
    assert list(slide.obs["sagefm_mapped"].cat.categories) == [*sorted(left), "unknown"]


def test_an_embedding_is_one_more_view(patients, model):
    slide, reference, _ = given(patients)
    sagefm.tl.map(slide, reference, key="domain")
    without = slide.obs["sagefm_mapped_confidence"].copy()
    sagefm.tl.map(slide, reference, model, "domain")
    assert (without != slide.obs["sagefm_mapped_confidence"]).any()
    assert slide.uns["sagefm"]["map"]["fingerprint"] == model.fingerprint


def test_a_part_of_the_tissue_is_not_centered(patients):
    slide, reference, truth = given(patients)
    part = slide[(truth == "D1").to_numpy()].copy()
    table = sagefm.tl.map(part, reference, key="domain")
    assert not table["centered"].item()
    assert (part.obs["sagefm_mapped"].astype(str) == "D1").mean() > 0.7


def test_a_reference_of_one_slide_is_enough(patients):
    slide, reference, truth = given(patients)
    sagefm.tl.map(slide, reference[0], key="domain")
    assert (slide.obs["sagefm_mapped"].astype(str) == truth).mean() > 0.6


def broken(patients, how):
    slide, reference, _ = given(patients)
    if how == "key":
        return slide, reference, "nothing"
    if how == "twice":
        return reference[0], reference, "domain"
    if how == "genes":
        slide.var_names = [f"OTHER{i}" for i in range(slide.n_vars)]
    if how in ("one", "unknown"):
        for one in reference:
            one.obs["domain"] = "x" if how == "one" else ["x", "unknown"] * 150
    if how == "none":
        reference = []
    return slide, reference, "domain"


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ("key", "no such column"), ("twice", "given twice"), ("genes", "no gene"),
        ("one", "only the label 'x'"), ("unknown", "rename it"), ("none", "there are none"),
    ],
)  # fmt: skip
def test_wrong_input_is_named(patients, how, text):
    slide, reference, key = broken(patients, how)
    with pytest.raises(InputError, match=text):
        sagefm.tl.map(slide, reference, key=key)
    assert "sagefm_mapped" not in slide.obs
