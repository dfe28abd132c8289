import numpy as np
import pandas as pd
import pytest

from sagefm import InputError
from sagefm.evaluate import domain_recovery
from sagefm.pp import simulate


@pytest.fixture(scope="module")
def original():
    return simulate(240, n_domains=4, seed=2)


@pytest.fixture
def slide(original):
    return original.copy()


@pytest.fixture(scope="module")
def perfect(original):
    one_hot = np.eye(4)[original.obs["domain"].cat.codes]
    return one_hot + np.random.default_rng(0).normal(scale=0.01, size=(240, 4))


@pytest.fixture(scope="module")
def chance():
    return np.random.default_rng(1).normal(size=(240, 30))


def test_perfect_is_one_and_chance_is_near_zero(slide, perfect, chance):
    scores = domain_recovery(
        slide,
        "domain",
        {"perfect": perfect, "chance": chance},
        methods=["gmm", "kmeans", "leiden"],
        seeds=[0, 1],
    )
    good, bad = (scores[scores["embedding"] == name] for name in ("perfect", "chance"))
    np.testing.assert_allclose(good[["ari", "nmi"]], 1)
    assert bad["ari"].abs().max() < 0.1
    assert bad["nmi"].between(0, 0.15).all()


def test_one_row_for_each_embedding_method_and_seed(slide, perfect, chance):
    scores = domain_recovery(
        slide, "domain", {"b": perfect, "a": chance}, methods=["kmeans", "gmm"], seeds=[4, 2, 9]
    )
    assert list(scores) == ["embedding", "method", "seed", "ari", "nmi", "n_spots"]
    rows = [(e, m, s) for e in "ba" for m in ("kmeans", "gmm") for s in (4, 2, 9)]
    assert list(scores[["embedding", "method", "seed"]].itertuples(index=False, name=None)) == rows
    assert (scores["n_spots"] == 240).all()
    usual = domain_recovery(slide, "domain", {"b": perfect})
    assert usual[["method", "seed"]].to_numpy().tolist() == [["gmm", s] for s in range(5)]


def test_the_same_numbers_every_time(slide, chance):
    one, other = (domain_recovery(slide, "domain", {"x": chance}, seeds=[0, 1]) for _ in range(2))
    pd.testing.assert_frame_equal(one, other)
    assert one["ari"].nunique() == 2


def test_spots_without_label_are_not_counted(slide, perfect):
    """What lies on unlabeled spots may be wrong: they are clustered, and nobody asks."""
    hidden = np.random.default_rng(3).permutation(240)[:60]
    slide.obs.loc[slide.obs_names[hidden], "domain"] = np.nan
    wrong = perfect.copy()
    wrong[hidden] = perfect[np.random.default_rng(4).permutation(hidden)]
    scores = domain_recovery(slide, "domain", {"x": wrong}, seeds=[0])
    assert scores["ari"].item() == pytest.approx(1)
    assert scores["n_spots"].item() == 180


def test_a_label_that_no_spot_has_is_not_asked_for(slide, perfect):
    slide.obs["domain"] = slide.obs["domain"].cat.add_categories(["nowhere"])
    assert domain_recovery(slide, "domain", {"x": perfect})["ari"].min() == pytest.approx(1)


@pytest.mark.parametrize("rename", [lambda code: 10 - code, lambda code: f"tissue {code}"])
def test_names_of_labels_do_not_matter(slide, chance, rename):
    wanted = domain_recovery(slide, "domain", {"x": chance}, seeds=[0])
    slide.obs["other"] = [rename(code) for code in slide.obs["domain"].cat.codes]
    found = domain_recovery(slide, "other", {"x": chance}, seeds=[0])
    pd.testing.assert_frame_equal(found, wanted)


def test_only_leading_components_are_read(slide, perfect):
    strong = 100 * np.random.default_rng(5).normal(size=(240, 2))
    both = np.c_[strong, perfect]
    few, all_of_them = (
        domain_recovery(slide, "domain", {"x": both}, seeds=[0], n_components=n)["ari"].item()
        for n in (2, 6)
    )
    assert abs(few) < 0.1
    assert all_of_them != few


def test_the_slide_is_left_alone(slide, original, perfect):
    domain_recovery(slide, "domain", {"x": perfect}, seeds=[0])
    pd.testing.assert_frame_equal(slide.obs, original.obs)
    assert list(slide.obsm) == list(original.obsm)
    assert list(slide.uns) == list(original.uns)


@pytest.mark.parametrize(
    ("key", "spoil", "message"),
    [
        ("layer", None, r"obs\['layer'\]: no such column; obs has .*domain"),
        ("patient", None, "has 1 labels; at least two are needed"),
        ("empty", None, "has 0 labels; at least two are needed"),
        ("domain", lambda z: z[:-1], r"embedding 'x': has the shape \(239, 4\); .* the 240 spots"),
        ("domain", lambda z: z[:, 0], r"has the shape \(240,\)"),
        ("domain", lambda z: z * np.nan, "NaN or infinite"),
    ],
)
def test_what_cannot_be_compared_is_refused(slide, perfect, key, spoil, message):
    slide.obs["empty"] = np.nan
    with pytest.raises(InputError, match=message):
        domain_recovery(slide, key, {"x": spoil(perfect) if spoil else perfect})
