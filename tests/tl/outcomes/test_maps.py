"""Contributions of spots and domains: found where an effect was planted, and only there."""

import numpy as np
import pandas as pd
import pytest

from sagefm.stats.outcomes import FeatureSet, SetFit, target_of
from sagefm.tl.outcomes._maps import LinearScores, _map, _over_patients

N_PATIENTS, N_SPOTS, WIDTH = 30, 40, 8
DOMAINS = pd.Index(["core", "edge", "rim"])


def mapped(effect, seed):
    """Embeddings of patients of two classes; one dimension is raised in the core of the second."""
    rng = np.random.default_rng(seed)
    classes = rng.permutation(np.arange(N_PATIENTS) % 2)
    codes = rng.integers(0, 3, (N_PATIENTS, N_SPOTS))
    z = rng.normal(size=(3, WIDTH))[codes] + rng.normal(size=(*codes.shape, WIDTH))
    z += rng.normal(size=(N_PATIENTS, 1, WIDTH)) / 2
    z[..., 0] += effect * (codes == 0) * classes[:, None]
    target = target_of(pd.DataFrame({"class": classes}), "class")
    names = [f"z{i}" for i in range(WIDTH)]
    features = FeatureSet("means", names, z.mean(axis=1), scaled=False)
    orders = target.permuted(59, seed)
    fold = features.fold(target.known, target.n_components)
    fit = SetFit(fold, target.fit(fold.features, orders))
    scores = LinearScores.of(target, features, fit, orders, seed)
    maps = [
        _map(z[i].astype(np.float32), codes[i], 3, scores.weights_for(i), 1, 0)
        for i in range(N_PATIENTS)
    ]
    parts = [(i, DOMAINS, one.by_label) for i, one in enumerate(maps)]
    return maps, codes, _over_patients(scores, parts, seed)


@pytest.fixture(scope="module")
def planted():
    return mapped(3, 0)


def test_the_domain_with_the_effect_is_found_and_no_other(planted):
    rows = {row["domain"]: row for row in planted[2]}
    assert rows["core"]["p"] == pytest.approx(1 / 60)
    assert rows["core"]["low"] > 0
    assert min(rows["edge"]["p"], rows["rim"]["p"]) > 0.05
    assert rows["core"]["contribution"] > 3 * abs(rows["edge"]["contribution"])


def test_spots_of_a_domain_add_up_to_it(planted):
    maps, codes, _ = planted
    for one, own in zip(maps, codes, strict=True):
        sums = np.bincount(own, one.contribution, minlength=3)
        np.testing.assert_allclose(one.by_label[:, 0, 0], sums, atol=1e-12)
    means = [np.mean([one.p[own == code].mean() for one, own in zip(maps, codes, strict=True)])
             for code in range(3)]  # fmt: skip
    assert np.argmin(means) == 0


def test_without_an_effect_few_spots_and_domains_are_significant():
    found = [mapped(0, seed) for seed in range(1, 7)]
    domains = [row["p"] < 0.05 for *_, rows in found for row in rows]
    spots = [(one.p < 0.05).mean() for maps, *_ in found for one in maps]
    assert sum(domains) <= 4
    assert np.mean(spots) < 0.2
