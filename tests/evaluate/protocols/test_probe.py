import numpy as np
import pytest

from sagefm import InputError
from sagefm.evaluate.baselines.embedding import Embedding
from sagefm.evaluate.protocols import probe as probes
from sagefm.pp.simulate import simulate
from sagefm.stats.pca import WhitenedPCA


def spots(n=400, width=20, n_classes=3, noise=0.3, seed=0):
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, n_classes, n)
    z = np.pad(np.eye(n_classes)[codes], ((0, 0), (0, width - n_classes)))
    return (z + noise * rng.normal(size=z.shape)).astype(np.float32), np.array(list("xyz"))[codes]


def accuracy(fitted, z, labels):
    return (fitted.classes[fitted.probabilities(z).argmax(axis=1)] == labels).mean()


@pytest.mark.parametrize("probe", probes.PROBES)
@pytest.mark.parametrize("width", [20, 80])
def test_finds_what_is_there_and_nothing_else(probe, width):
    (z, labels), (new, truth) = spots(width=width), spots(width=width, seed=1)
    fitted = probes.fit_probe(probe, z, labels)
    assert accuracy(fitted, new, truth) > 0.8
    np.testing.assert_allclose(fitted.probabilities(new).sum(axis=1), 1, rtol=1e-5)
    noise = np.random.default_rng(2).normal(size=(800, width)).astype(np.float32)
    assert accuracy(probes.fit_probe(probe, noise[:400], labels), noise[400:], truth) < 0.45


@pytest.mark.parametrize("probe", probes.PROBES)
def test_scale_does_not_matter_and_seeds_decide(probe):
    z, labels = spots(width=30)
    first = probes.fit_probe(probe, z, labels, seed=3).probabilities(z)
    np.random.seed(8)  # noqa: NPY002
    again = probes.fit_probe(probe, z, labels, seed=3).probabilities(z)
    np.testing.assert_array_equal(first, again)
    scaled = probes.fit_probe(probe, z * 1024 + 7, labels, seed=3).probabilities(z * 1024 + 7)
    np.testing.assert_allclose(scaled, first, atol=0.02)


def n_features(probe):
    return len(probe.classifier.layers[0][0])


def test_wide_embeddings_are_reduced_and_genes_are_not():
    z, labels = spots(width=120)
    assert n_features(probes.fit_probe("linear", z, labels)) == 50
    assert n_features(probes.fit_probe("linear", z[:30], labels[:30])) == 29
    whole = probes.fit_probe("linear", z, labels, method="raw HVG")
    assert n_features(whole) == 120
    assert probes.probes_of("raw HVG") == ("linear",)
    assert probes.probes_of("PCA") == ("linear", "mlp")


@pytest.mark.parametrize("probe", [*probes.PROBES, "majority"])
def test_degenerate_spots(probe):
    z, labels = spots(60)
    one = probes.fit_probe(probe, z, np.repeat("x", 60))
    assert one.probabilities(z).tolist() == [[1.0]] * 60
    rare = np.array(["x"] * 59 + ["y"])  # no spot of it to stop by
    assert accuracy(probes.fit_probe(probe, z, rare), z, rare) > 0.9
    same = probes.fit_probe(probe, np.ones_like(z), labels)  # constant columns
    assert np.isfinite(same.probabilities(z)).all()
    assert np.isfinite(probes.fit_probe(probe, z[:5], labels[:5]).probabilities(z)).all()
    flat = probes.fit_probe(probe, np.ones((60, 90)), labels)
    assert np.isfinite(flat.probabilities(np.ones((2, 90)))).all()


def test_majority_knows_the_frequencies():
    fitted = probes.fit_probe("majority", np.zeros((4, 1)), ["b", "a", "b", "b"])
    assert fitted.classes.tolist() == ["a", "b"]
    assert fitted.probabilities(np.zeros((2, 1))).tolist() == [[0.25, 0.75]] * 2


def test_unreadable_embeddings_are_refused():
    slide = simulate(30, seed=1)

    def of(give):
        return probes.embedded(Embedding("odd", "model", lambda *_: give), [slide], [False])

    assert of([np.ones((30, 2))])[0].dtype == np.float32
    for bad in ([np.ones((29, 2))], [], [np.ones((30, 2))] * 2):
        with pytest.raises(InputError, match="odd: not one row per spot"):
            of(bad)
    with pytest.raises(InputError, match="odd: NaN or infinite"):
        of([np.full((30, 2), np.nan)])


def test_a_model_is_asked_once_and_learns_from_nothing():
    asked = []

    def of(slides, learn_from):
        asked.append(list(learn_from))
        return [np.ones((slide.n_obs, 2)) for slide in slides]

    slides, folds = [simulate(30, seed=1), simulate(30, seed=2)], [[True, False], [False, True]]
    assert len(list(probes.embedded_by_fold(Embedding("m", "model", of), slides, folds))) == 2
    assert asked == [[False, False]]
    asked.clear()
    assert len(list(probes.embedded_by_fold(Embedding("b", "baseline", of), slides, folds))) == 2
    assert asked == folds


def test_what_labels_are_permuted_on():
    a, b, pca = (
        Embedding(name, kind, lambda *_: [])
        for name, kind in (("a", "model"), ("b", "baseline"), ("PCA", "baseline"))
    )
    assert probes.named_pca([a, b, pca]) is pca
    assert probes.named_pca([a, b]) is b
    assert probes.named_pca([a]) is a
    assert probes.named_pca([]) is None


def test_a_wide_embedding_of_low_rank_is_not_blown_up():
    z, labels = spots(width=3)
    wide = z @ np.random.default_rng(0).normal(size=(3, 200)).astype(np.float32)
    reduction = WhitenedPCA.fit(wide[:200], 50)
    reduced = reduction(wide[200:])
    assert reduced.shape == (200, 3)
    assert np.abs(reduced).max() < 10
    assert accuracy(probes.fit_probe("linear", wide, labels), wide, labels) > 0.85
    assert not WhitenedPCA.fit(np.ones((5, 90)), 50)(np.ones((2, 90))).any()


def test_what_learns_from_all_slides_anyway_is_asked_once():
    asked = []

    def of(slides, learn_from):
        asked.append(list(learn_from))
        return [np.ones((len(s), 2)) for s in slides]

    slides, folds = [simulate(30, seed=i) for i in (1, 2)], [[True, False], [False, True]]
    one = Embedding("t", "baseline", of, transductive=True)
    assert len(list(probes.embedded_by_fold(one, slides, folds))) == 2
    assert asked == [[True, True]]
