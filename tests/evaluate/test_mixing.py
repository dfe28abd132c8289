import sys

import numpy as np
import pytest

pytest.importorskip("scib_metrics", reason="no scib-metrics: pip install sagefm[evaluate]")

from sagefm.evaluate.metrics.mixing import batch_mixing


@pytest.fixture(scope="module")
def field():
    """Labels and batches of 240 spots, and an embedding that knows the labels and no batch."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 240)
    batches = np.array(["x", "y"])[rng.integers(0, 2, 240)]
    return np.eye(3)[labels] * 6 + rng.normal(size=(240, 3)), labels, batches


@pytest.fixture(scope="module")
def mixed(field):
    return batch_mixing(*field)


def test_names_and_range(mixed):
    assert list(mixed) == ["silhouette_label", "clisi", "silhouette_batch", "ilisi"]
    assert all(isinstance(value, float) and 0 <= value <= 1 for value in mixed.values())


def test_labels_apart_and_batches_mixed(mixed):
    assert mixed["silhouette_label"] > 0.7
    assert mixed["clisi"] > 0.95
    assert mixed["silhouette_batch"] > 0.9
    assert mixed["ilisi"] > 0.7


def test_a_shifted_batch_is_seen(field, mixed):
    space, labels, batches = field
    shifted = space + 40.0 * (batches == "y")[:, None]
    found = batch_mixing(shifted, labels, batches)
    assert found["ilisi"] < 0.05
    assert found["silhouette_batch"] < mixed["silhouette_batch"] - 0.4


def test_lost_labels_are_seen(field, mixed):
    space, labels, batches = field
    shuffled = np.random.default_rng(1).permutation(labels)
    found = batch_mixing(space, shuffled, batches)
    assert found["clisi"] < 0.5
    assert found["silhouette_label"] == pytest.approx(0.5, abs=0.05)


def test_silhouette_is_that_of_sklearn(field, mixed):
    from sklearn.metrics import silhouette_score

    wanted = (silhouette_score(field[0], field[1]) + 1) / 2
    assert mixed["silhouette_label"] == pytest.approx(wanted, abs=1e-4)


def test_only_leading_components_count_and_the_same_every_time(field):
    space, labels, batches = field
    noise = np.random.default_rng(2).normal(size=(240, 20))
    wide = np.c_[5 * noise, space]
    found = batch_mixing(wide, labels, batches)
    assert found == batch_mixing(wide, labels, batches)
    centered = wide - wide.mean(axis=0)
    leading = centered @ np.linalg.svd(centered, full_matrices=False)[2][:20].T
    few = batch_mixing(leading, labels, batches)
    assert found == pytest.approx(few, abs=1e-4)


def test_it_is_silent(field, capfd, caplog):
    batch_mixing(*field)
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


def test_missing_package_is_an_import_error(field, monkeypatch):
    monkeypatch.setitem(sys.modules, "scib_metrics", None)
    with pytest.raises(ImportError):
        batch_mixing(*field)
