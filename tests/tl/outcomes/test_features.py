"""Features of labels, programs and clinical columns."""

import numpy as np
import pandas as pd
import pytest

from sagefm import InputError
from sagefm.pp.vocabulary import Vocabulary
from sagefm.stats.outcomes.folds import log_cpm
from sagefm.tl import signatures
from sagefm.tl.outcomes._clinical import Clinical, copies_of
from sagefm.tl.outcomes._labels import count_labels, label_features
from sagefm.tl.outcomes._programs import program_scores, program_weights

CHAIN = np.array([[0, 1], [1, 2], [2, 3], [3, 4]])


def labeled(words):
    labels = pd.Series([None if word == "." else word for word in words], dtype=object)
    return count_labels(labels, CHAIN)


def test_labels_are_counted_with_their_contacts():
    tables = label_features([labeled("AABB."), labeled("AAAA.")])
    np.testing.assert_array_equal(tables["fractions"], [[0.5, 0.5], [1, 0]])
    # One of three contacts of the first slide is between A and B; four spots have a label.
    assert list(tables["interfaces"]) == ["A - B"]
    np.testing.assert_array_equal(tables["interfaces"], [[0.25], [0]])
    # Shuffled, two of three pairs are A - B: 2 expected, 1 observed. The second slide has no B.
    np.testing.assert_allclose(tables["neighbors"]["A - B"], [np.log(1.5 / 2.5), 0])
    np.testing.assert_allclose(tables["neighbors"]["A - A"], [np.log(1.5 / 1.0), 0])
    np.testing.assert_allclose(tables["neighbors"]["B - B"], [np.log(1.5 / 1.0), 0])


def test_expected_contacts_are_those_of_shuffled_labels():
    rng = np.random.default_rng(0)
    edges = np.array([(i, j) for i in range(8) for j in range(i) if rng.random() < 0.4])
    words = np.array(list("AAABBCCC"), dtype=object)
    shuffled = [count_labels(pd.Series(rng.permutation(words)), edges) for _ in range(2000)]
    mean = np.mean([one.contacts.to_numpy() for one in shuffled], axis=0)
    counted = count_labels(pd.Series(words), edges)
    ratios = label_features([counted])["neighbors"].iloc[0]
    for pair, ratio in ratios.items():
        a, b = ("ABC".index(name) for name in pair.split(" - "))
        observed = counted.contacts.to_numpy()[a, b]
        assert ratio == pytest.approx(np.log((observed + 0.5) / (mean[a, b] + 0.5)), abs=0.04)


def test_programs_are_weighted_means_of_standardized_genes():
    vocabulary = Vocabulary(("TP53", "MYC", "EGFR", "GAPDH", "ACTB"))
    rng = np.random.default_rng(1)
    sums = [pd.Series(rng.poisson(50, 4).astype(float), [0, 1, 2, 4]) for _ in range(6)]
    cpm = log_cpm(sums)
    table = pd.DataFrame(
        [("a", "TP53", 1.0), ("a", "MYC", -2.0), ("a", "ACTB", 1.0), ("b", "GAPDH", 1.0),
         ("b", "EGFR", 1.0), ("b", "NOGENE1", 1.0)],
        columns=["source", "target", "weight"],
    )  # fmt: skip
    weights = program_weights(table, vocabulary, cpm.columns)
    assert list(weights) == ["a"]
    training = np.arange(6) < 4
    scores = program_scores(cpm.to_numpy(), weights.to_numpy(), training)
    x = cpm.to_numpy()
    z = (x - x[:4].mean(axis=0)) / x[:4].std(axis=0)
    np.testing.assert_allclose(scores[:, 0], (z[:, 0] - 2 * z[:, 1] + z[:, 3]) / 4)
    with pytest.raises(InputError, match="none has 3 genes that the model knows"):
        program_weights(signatures({"c": ["NOGENE1", "NOGENE2"]}), vocabulary, cpm.columns)


def test_clinical_columns_are_encoded_by_the_training_patients():
    rows = pd.DataFrame(
        {"age": [50.0, 60, 70, np.nan], "sex": ["f", "m", "f", "m"], "stage": ["1", "2", "3", None],
         "site": ["x"] * 4}
    )  # fmt: skip
    clinical = Clinical("table", rows, ["age", "sex", "stage", "site"])
    assert clinical.features == [
        "age", "sex: m", "stage: 1", "stage: 2", "stage: 3", "age missing",
    ]  # fmt: skip
    assert clinical.notes == ["'site' left out, all patients have the same value"]
    values = clinical(np.array([True, True, False, True]))
    training = [50, 60, 55]
    center, spread = np.mean(training), np.std(training)
    np.testing.assert_allclose(values[:, 0], (np.array([50, 60, 70, 55]) - center) / spread)
    np.testing.assert_allclose(values[[0, 1, 3]].mean(axis=0), 0, atol=1e-12)
    many = pd.DataFrame({"id": [f"x{i}" for i in range(30)]})
    with pytest.raises(InputError, match=r"'id' has 30 different texts \(x0, x1, x10, …\)"):
        Clinical("table", many, ["id"])


def test_copies_of_the_outcome_are_found():
    rng = np.random.default_rng(2)
    outcome = pd.Series(np.repeat([0.0, 1.0], 10))
    table = pd.DataFrame(
        {"word": np.repeat(["bad", "good"], 10), "number": outcome * -3 + 7,
         "other": rng.permutation(outcome), "age": rng.normal(size=20)}
    )  # fmt: skip
    assert copies_of(table, list(table), outcome) == ["word", "number"]
