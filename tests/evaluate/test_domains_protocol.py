import numpy as np
import pandas as pd
import pytest

from sagefm import InputError
from sagefm.evaluate.baselines.clustering import CONSENSUS, Clustering
from sagefm.evaluate.baselines.embedding import Embedding
from sagefm.evaluate.baselines.embeddings import competitors
from sagefm.evaluate.baselines.pca import pca
from sagefm.evaluate.cohort import Cohort
from sagefm.evaluate.metrics.clusters import separation, spatial_coherence
from sagefm.evaluate.protocols.domain_recovery import (
    cluster,
    domain_recovery,
    leading_components,
)
from sagefm.evaluate.protocols.domains import domains
from sagefm.model import Config, SageFM
from sagefm.pp import nearest, simulate
from sagefm.pp.vocabulary import Vocabulary

AGREEMENT = "Agreement with labels"
WITHOUT = "Without labels, on the principal components of expression"


def knows(slides, learn_from):
    """Read the labels off, with a little noise: another for each slide."""
    names = sorted({label for slide in slides for label in slide.obs["domain"]})
    rng = np.random.default_rng(0)
    found = []
    for slide in slides:
        hot = slide.obs["domain"].to_numpy()[:, None] == np.array(names)
        found.append(hot + rng.normal(scale=0.05, size=hot.shape))
    return found


@pytest.fixture(scope="module")
def slides():
    """Two slides that share labels, one that shares one label, one without any."""
    made = {
        f"s{i}": simulate(n, n_domains=4, depth=2e4, seed=i, patient=f"p{i}", slide=f"s{i}")
        for i, n in enumerate((120, 100, 90, 80))
    }
    own = made["s2"].obs["domain"]
    made["s2"].obs["domain"] = [x if x == "D1" else f"only here {x}" for x in own]
    assert "D1" in set(made["s2"].obs["domain"]) & set(made["s0"].obs["domain"])
    del made["s3"].obs["domain"]
    return made


@pytest.fixture(scope="module")
def field():
    some = [one for one in competitors({}, mofa=False) if "raw" not in one.name]
    return [*some[:1], Embedding("oracle", "model", of_labeled, "has seen the labels"), some[-1]]


def of_labeled(slides, learn_from):
    if any("domain" not in slide.obs for slide in slides):
        raise InputError("labels: are missing; label the slide")
    return knows(slides, learn_from)


ORACLE = Embedding("oracle", "model", of_labeled)


@pytest.fixture(scope="module")
def lines():
    return []


@pytest.fixture(scope="module")
def result(slides, field, lines):
    return domains(
        Cohort(slides), field, "domain", seeds=[0, 1], n_domains=3, progress=lines.append
    )


def of(table, method):
    return table.set_index("method").loc[method]


def test_tables_have_their_rows_and_columns(result):
    assert list(result.summary)[:2] == [AGREEMENT, WITHOUT]
    agreement, without = (result.summary[name] for name in (AGREEMENT, WITHOUT))
    assert list(agreement["method"]) == ["PCA", "oracle", "random numbers", "permuted labels"]
    assert list(agreement["kind"]) == ["baseline", "model", "control", "control"]
    assert list(without["method"]) == ["PCA", "oracle", "random numbers"]
    for table in result.summary.values():
        assert list(table)[:2] == ["method", "kind"]
    wanted = ["ari", "ari_low", "nmi", "n_slides", "n_patients", "unit", "sd_seeds", "verdict"]
    assert {*wanted, "ari_kmeans", "ari_leiden"} < set(agreement)
    assert set(agreement["n_slides"]) == {3}
    assert {"silhouette", "calinski_harabasz", "coherence", "largest"} < set(without)
    assert of(without, "PCA")["n_slides"] == 4
    assert of(without, "oracle")["n_slides"] == 3


def test_who_knows_wins_and_chance_is_near_zero(result):
    table = result.summary[AGREEMENT]
    assert of(table, "oracle")["ari"] == pytest.approx(1)
    assert of(table, "oracle")["verdict"].startswith("beats PCA (+0.")
    assert 0.2 < of(table, "PCA")["ari"] < 1
    for control in ("random numbers", "permuted labels"):
        assert abs(of(table, control)["ari"]) < 0.06
        assert of(table, control)["verdict"] == ""
    coherence = result.summary[WITHOUT].set_index("method")["coherence"]
    assert coherence["oracle"] > coherence["random numbers"] + 0.2


def test_without_labels_by_hand(result, slides, field):
    slide = slides["s2"]
    space = pca(slide, n_components=20)
    domains = cluster("PCA", leading_components(field[0].of([slide], [True])[0]), 4, seed=1)
    scores = result.details["domains"].set_index(["slide", "method", "seed"])
    row = scores.loc["s2", "PCA", 1]
    for name, value in separation(space, domains).items():
        assert row[name] == pytest.approx(value)
    near = nearest(slide.obsm["spatial"], 7)
    assert row["coherence"] == spatial_coherence(domains, near)
    assert row["largest"] == np.unique(domains, return_counts=True)[1].max() / 90


def test_scores_are_those_of_domain_recovery(result, slides, field):
    scores = result.details["domains"]
    slide = slides["s1"]
    readouts = {"gmm": "ari", "kmeans": "ari_kmeans", "leiden": "ari_leiden"}
    values = {"PCA": field[0].of([slide], [True])[0]}
    wanted = domain_recovery(slide, "domain", values, seeds=[0, 1], methods=list(readouts))
    found = scores[(scores["slide"] == "s1") & (scores["method"] == "PCA")]
    for method, column in readouts.items():
        rows = wanted[wanted["method"] == method]
        assert found[column].tolist() == rows["ari"].tolist()
        if method == "gmm":
            assert found["nmi"].tolist() == rows["nmi"].tolist()
    assert set(found["n_domains"]) == {slide.obs["domain"].nunique()}


def test_means_and_spread_follow_from_the_rows(result):
    scores = result.details["domains"]
    assert not scores.duplicated(["slide", "method", "seed"]).any()
    pca = scores[(scores["method"] == "PCA") & scores["ari"].notna()]
    row = of(result.summary[AGREEMENT], "PCA")
    assert row["ari"] == pytest.approx(pca.groupby("slide")["ari"].mean().mean())
    assert row["sd_seeds"] == pytest.approx(pca.groupby("slide")["ari"].std().mean())


def test_a_slide_without_labels_is_judged_without_them(result):
    scores = result.details["domains"]
    bare = scores[scores["slide"] == "s3"]
    assert bare[["ari", "nmi"]].isna().all(axis=None)
    assert bare["silhouette"].notna().all()
    assert set(bare["n_domains"]) == {3}
    assert set(bare["method"]) == {"PCA", "random numbers"}
    assert any("Fewer than two labels in obs['domain']: s3" in note for note in result.notes)


def test_failures_and_notes_are_told(result):
    notes = "\n".join(result.notes)
    assert "oracle is left out on s3: labels: are missing" in notes
    assert "oracle: has seen the labels." in notes
    assert "20 leading principal components" in notes
    assert "The verdict is about ari." in notes


def test_spots_with_their_domains(result, slides):
    spots = result.details["domains_spots"]
    assert list(spots) == ["slide", "spot", "x", "y", "label", "PCA", "oracle", "random numbers"]
    assert len(spots) == 390
    own = spots[spots["slide"] == "s0"]
    np.testing.assert_array_equal(own[["x", "y"]], slides["s0"].obsm["spatial"])
    pd.testing.assert_series_equal(
        own["label"], slides["s0"].obs["domain"].astype(str), check_index=False, check_names=False,
        check_dtype=False,
    )  # fmt: skip
    assert pd.crosstab(own["label"], own["oracle"]).gt(0).to_numpy().sum() == 4
    assert spots.loc[spots["slide"] == "s3", ["label", "oracle"]].isna().all(axis=None)


def test_every_seed_of_a_random_method_is_another_draw(slides):
    truth = of_labeled([slides["s0"]], [True])
    noise = [np.random.default_rng(1).normal(size=truth[0].shape)]
    drawn = Embedding("drawn", "control", lambda *_: truth, draws=(lambda *_: noise,))
    scores = domains(Cohort({"s0": slides["s0"]}), [drawn], "domain", seeds=[0, 1, 2]).details
    first, second, third = scores["domains"]["ari"]
    assert first == pytest.approx(1)
    assert abs(second) < 0.1
    assert third == pytest.approx(1)


def test_a_clustering_is_scored_as_it_is(slides):
    """It has no embedding, and so no other readout; the slide is left alone."""
    calls = []

    def find(slide, n_domains, seed):
        calls.append((n_domains, seed))
        return np.array([label[1:] for label in slide.obs["domain"]])

    own = Clustering("own", "model", find, "finds all")
    found = domains(
        Cohort({"s0": slides["s0"]}), [ORACLE], "domain", clusterings=[own], seeds=[0, 1]
    )
    table = found.summary[AGREEMENT]
    assert list(table["method"]) == ["oracle", "own"]
    assert of(table, "own")["ari"] == pytest.approx(1)
    assert np.isnan(of(table, "own")["ari_kmeans"])
    assert calls == [(4, 0), (4, 1)]
    assert "own: finds all." in found.notes


def test_the_default_of_the_tool_is_one_of_them(slides):
    slide = slides["s0"]
    before = list(slide.obs)
    found = CONSENSUS.of(slide, 3, 0)
    assert set(found) == {"1", "2", "3"}
    assert list(slide.obs) == before


def test_what_needs_several_slides_is_not_scored_on_one(slides):
    joint = Embedding("joint", "baseline", of_labeled, joint=True)
    pair = Cohort({name: slides[name] for name in ("s0", "s1")})
    found = domains(pair, [joint, Embedding("oracle", "model", of_labeled)], "domain", seeds=[0])
    assert list(found.summary[AGREEMENT]["method"]) == ["oracle"]
    [together] = [table for name, table in found.summary.items() if name.startswith("Slides tog")]
    assert list(together["method"]) == ["joint", "oracle"]


def test_the_same_numbers_every_time(slides, field):
    pair = Cohort({"s1": slides["s1"]})
    one, other = (domains(pair, field, "domain", seeds=[3], seed=2) for _ in range(2))
    for name in one.summary:
        pd.testing.assert_frame_equal(one.summary[name], other.summary[name])
    for name in one.details:
        pd.testing.assert_frame_equal(one.details[name], other.details[name])
    assert one.notes == other.notes


def test_no_labels_at_all(slides, field):
    found = domains(Cohort({"s2": slides["s2"]}), field[:1], None, seeds=[0])
    assert list(found.summary) == [WITHOUT]
    assert found.details["domains"]["n_domains"].tolist() == [7]
    assert list(found.details["domains"]["method"]) == ["PCA"]


def test_spots_without_label_are_not_counted(slides, field):
    slide = slides["s0"].copy()
    hidden = np.random.default_rng(0).permutation(120)[:40]
    slide.obs.loc[slide.obs_names[hidden], "domain"] = np.nan
    found = domains(Cohort({"s0": slide}), field[:1], "domain", seeds=[0])
    scores = found.details["domains"]
    assert set(scores["n_labeled"]) == {80}
    assert set(scores["n_spots"]) == {120}
    permuted = scores[scores["method"] == "permuted labels"]
    assert abs(permuted["ari"].item()) < 0.1


def test_one_that_fails_everywhere_does_not_stop_the_others(slides, field):
    stranger = SageFM.new(Vocabulary(("NOT1A", "NOT2A")), Config(widths=(4, 4, 4, 4, 4)))
    added = competitors({"stranger": stranger}, obsm=["X_a"], mofa=False)
    some = [one for one in added if one.name in ("PCA", "obsm X_a", "stranger")]
    found = domains(Cohort({"s0": slides["s0"]}), some, "domain", seeds=[0])
    assert list(found.summary[WITHOUT]["method"]) == ["PCA"]
    notes = "\n".join(found.notes)
    assert "stranger is left out on s0: " in notes
    assert "obsm X_a is left out on s0: obsm['X_a']: is missing in a slide" in notes
    nobody = domains(Cohort({"s0": slides["s0"]}), some[1:], "domain", seeds=[0])
    assert nobody.summary == {}
    assert len(nobody.notes) > 2


def test_a_line_before_each_embedding(result, lines):
    assert lines[0] == "s0: PCA"
    assert len([line for line in lines if "together" not in line]) == 12


@pytest.mark.slow
def test_smoothed_expression_beats_chance_on_a_real_slide(shared):
    places = {"her2st_A1": shared / "slides" / "her2st_A1.h5ad"}
    asked = ("PCA", "PCA of 7-spot means", "random numbers")
    field = [one for one in competitors({}, mofa=False) if one.name in asked]
    found = domains(Cohort(places), field, "label", seeds=[0])
    ari = found.summary[AGREEMENT].set_index("method")["ari"]
    assert ari["PCA of 7-spot means"] > 0.15
    assert ari[["random numbers", "permuted labels"]].abs().max() < 0.1
