"""Leave one patient out: probes, scores and permutations, against scikit-learn."""

import numpy as np
import pandas as pd
import pytest

from sagefm import InputError
from sagefm.stats.outcomes.folds import (
    Fold,
    Samples,
    average_over_patients,
    classes_of_patients,
    out_of_fold,
    permute,
    pseudobulk,
)
from sagefm.stats.outcomes.score import evaluate, scores


def test_scores_are_those_of_scikit_learn():
    from sklearn.metrics import balanced_accuracy_score, roc_auc_score

    rng = np.random.default_rng(0)
    truths = np.stack([rng.permutation(np.arange(13) % 3) for _ in range(4)])
    p = rng.dirichlet(np.ones(3), (4, 13)).round(1)
    p[..., 0] = 1 - p[..., 1:].sum(axis=-1)
    table = scores(truths, p)
    for i, truth in enumerate(truths):
        area = np.mean([roc_auc_score(truth == c, p[i, :, c]) for c in range(3)])
        balanced = balanced_accuracy_score(truth, p[i].argmax(axis=1))
        assert table.loc[i, "auroc"] == pytest.approx(area)
        assert table.loc[i, "balanced_accuracy"] == pytest.approx(balanced)


def test_permutations_come_after_the_truth():
    truth = np.arange(7) % 3
    labelings = permute(truth, 20, 0)
    assert (labelings[0] == truth).all()
    assert (np.sort(labelings, axis=1) == np.sort(truth)).all()
    assert len(np.unique(labelings, axis=0)) > 15


def test_all_samples_of_a_patient_are_left_out_together():
    """Samples of a patient are as good as alike: with one in training the other would be right."""
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(8), 2)
    truth = np.arange(8) % 2
    features = np.repeat(rng.normal(size=(8, 30)), 2, axis=0)
    samples = Samples([str(i) for i in range(16)], patients, truth, ["a", "b"])
    folds = [Fold.fit(training, features) for training in samples.training]
    for patient, fold in enumerate(folds):
        assert set(patients[~fold.training]) == {patient}
    labelings = permute(truth, 30, 1)
    means = average_over_patients(samples, out_of_fold(samples, folds, labelings))
    assert means.shape == (31, 8, 2)
    row, permuted = evaluate(labelings, means, 0)
    assert row["auroc"] < 0.9
    assert row["auroc_low"] <= row["auroc"] <= row["auroc_high"]
    assert len(permuted) == 30
    assert row["p"] == (1 + (permuted["auroc"] >= row["auroc"] - 1e-12).sum()) / 31


def test_pseudobulk_uses_common_genes_and_training_samples_only():
    rng = np.random.default_rng(0)
    genes = [f"g{i}" for i in range(9)]
    sums = [pd.Series(rng.poisson(50, 9), genes).iloc[i % 2 :].astype(float) for i in range(6)]
    training = np.array([True] * 5 + [False])
    before = pseudobulk(sums, [training])[0]
    sums[5] = sums[5] * rng.uniform(0.5, 2, len(sums[5]))
    np.testing.assert_allclose(pseudobulk(sums, [training])[0][:5], before[:5])
    assert before.shape == (6, 4)
    with pytest.raises(InputError, match="no gene in common"):
        pseudobulk([pd.Series({"a": 1.0}), pd.Series({"b": 1.0})], [training])


def test_a_patient_has_one_class():
    classes = classes_of_patients("grade", {"s": "x", "t": "y", "u": "x"}, ["b", "a", "b"])
    assert classes.to_dict() == {"b": "x", "a": "y"}
    assert list(classes.index) == ["b", "a"]
    with pytest.raises(InputError, match=r"grade: the slides of patient b have several \(x, y\)"):
        classes_of_patients("grade", {"s": "x", "t": "y"}, ["b", "b"])
