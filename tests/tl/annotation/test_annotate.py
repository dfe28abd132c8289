"""Labels that travel from slide to slide, and what is said where they do not."""

import dataclasses
import logging

import anndata as ad
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax

import sagefm
from sagefm import InputError
from sagefm.nn import checkpoint
from sagefm.pp.simulate import simulate
from sagefm.tl import Annotator, annotate, learn_annotator
from sagefm.tl.annotation._calibration import HeldOutPredictions, fit_temperature
from sagefm.tl.annotation._classifier import weights_of
from sagefm.tl.annotation._features import section_features
from sagefm.tl.annotation._novelty import NoveltyReference

KEY = "domain"


@pytest.fixture(scope="module")
def slides():
    """Three labeled patients, and a fourth whose labels are only there to be compared with."""
    return {f"p{i}": simulate(150, n_domains=3, seed=i, patient=f"p{i}") for i in range(4)}


@pytest.fixture(scope="module")
def known(slides):
    return {name: slides[name] for name in ("p0", "p1", "p2")}


@pytest.fixture(scope="module")
def learned(known, model):
    return learn_annotator(known, model, KEY)


def agreement(slide):
    return (slide.obs["sagefm_label"].astype(str) == slide.obs[KEY].astype(str)).mean()


@pytest.mark.parametrize("method", ["linear", "mlp"])
def test_labels_travel_to_another_patient(known, slides, model, method):
    slide = slides["p3"].copy()
    before = slide.X.copy()
    annotate(known, slide, model, KEY, method=method)
    majority = slide.obs[KEY].value_counts(normalize=True).iloc[0]
    assert agreement(slide) > 0.67 > majority + 0.15
    p = slide.obsm["sagefm_label_probabilities"]
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(p.max(axis=1), slide.obs["sagefm_label_confidence"])
    assert list(slide.obs["sagefm_label"].cat.categories) == [*p.columns, "unknown"]
    assert (before != slide.X).nnz == 0
    assert slide.uns["sagefm"]["annotate"]["held_out"] == "patient"


def test_what_a_whole_slide_has_more_of_does_not_matter_to_expression(known, slides, model):
    learned = learn_annotator(known, model, KEY, features="expression", centered=True)
    slide = slides["p3"].copy()
    annotate(learned, slide, model)
    deeper = slides["p3"].copy()
    deeper.X = deeper.X * 3  # as if sequenced three times as deep
    annotate(learned, deeper, model)
    same = slide.obs["sagefm_label"].astype(str) == deeper.obs["sagefm_label"].astype(str)
    assert same.mean() > 0.97


def test_ten_labeled_spots_per_class_are_enough(slides, model):
    few = slides["p0"].copy()
    some = few.obs.groupby(KEY, observed=True).sample(10, random_state=0).index
    few.obs["few"] = few.obs[KEY].astype(object).where(few.obs_names.isin(some))
    slide = slides["p3"].copy()
    annotate(few, slide, model, "few")
    assert agreement(slide) > slide.obs[KEY].value_counts(normalize=True).iloc[0] + 0.05


def test_classes_with_fewer_spots_are_left_out(slides, model, caplog):
    few = slides["p0"].copy()
    few.obs["few"] = few.obs[KEY].astype(str)
    few.obs.iloc[:9, few.obs.columns.get_loc("few")] = "tiny"
    with caplog.at_level(logging.WARNING):
        learned = learn_annotator({"a": few, "b": slides["p1"].copy()}["a"], model, "few")
    assert "tiny" not in learned.classes
    assert "fewer than 10 labeled spots: tiny (9)" in caplog.text


def test_what_was_held_out_is_scored_beside_the_majority(learned, known):
    score = learned.score()
    assert list(score.index) == ["p0", "p1", "p2"]
    assert score["n_spots"].sum() == sum(slide.n_obs for slide in known.values())
    assert (score["accuracy"] > score["majority"]).all()
    held = learned.held_out
    own = held.groups == "p1"
    assert score.loc["p1", "accuracy"] == (held.truth[own] == held.predicted[own]).mean()


def test_no_patient_is_learned_from_and_held_out(known, model):
    """A patient whose labels are nonsense does not change what is said of it."""
    wrong = {name: slide.copy() for name, slide in known.items()}
    rng = np.random.default_rng(0)
    wrong["p1"].obs[KEY] = rng.permutation(wrong["p1"].obs[KEY].astype(str))
    there, here = (learn_annotator(s, model, KEY, centered=True).held_out for s in (known, wrong))
    own = here.groups == "p1"
    assert np.array_equal(here.predicted[own], there.predicted[own])
    assert not np.array_equal(here.predicted[~own], there.predicted[~own])


@pytest.mark.parametrize(("n", "unit"), [(2, "slide"), (1, "block")])
def test_one_patient_alone_is_calibrated_on_its_parts_and_that_is_told(
    slides, model, caplog, n, unit
):
    mine = [slides[f"p{i}"].copy() for i in range(n)]
    for slide in mine:
        slide.obs["patient"] = "same"
    with caplog.at_level(logging.WARNING):
        learned = learn_annotator(mine, model, KEY)
    assert learned.held_out.unit == unit
    assert f"one patient: probabilities are calibrated on held-out {unit}s" in caplog.text
    assert len(learned.score()) == (n if n > 1 else 4)


def test_a_file_with_options_of_before_is_read_and_smoothing_is_refused(learned, model, tmp_path):
    learned.save(tmp_path / "a.safetensors")
    tensors, header = checkpoint.read(tmp_path / "a.safetensors", "annotator")
    header["settings"] |= {"balanced": True, "smooth": False}
    checkpoint.write(tmp_path / "b.safetensors", tensors, header)
    assert Annotator.load(tmp_path / "b.safetensors", model).settings == learned.settings
    older = {k: v for k, v in tensors.items() if k != "novelty.patient_distances"}
    checkpoint.write(tmp_path / "b.safetensors", older, header)
    with pytest.raises(InputError, match=r"b.safetensors: is of an older version; train the"):
        Annotator.load(tmp_path / "b.safetensors", model)
    header["settings"]["smooth"] = True
    checkpoint.write(tmp_path / "b.safetensors", tensors, header)
    with pytest.raises(InputError, match=r"b.safetensors: uses smoothing, which was removed"):
        Annotator.load(tmp_path / "b.safetensors", model)


def test_other_tissue_is_novel_and_unknown(model):
    """With few spots the threshold of confidence is set by single spots: these slides have many."""

    def tissue(seed, **options):
        return simulate(800, n_domains=3, seed=seed, patient=f"p{seed}", **options)

    learned = learn_annotator([tissue(seed) for seed in range(3)], model, KEY)
    same, other = tissue(3), tissue(3, biology_seed=9)
    for slide in (same, other):
        annotate(learned, slide, model, error_rate=0.1)
    novelty = [slide.obs["sagefm_label_novelty"].median() for slide in (same, other)]
    assert novelty[0] < 0.9 < 0.99 < novelty[1]
    unknown = [(slide.obs["sagefm_label"] == "unknown").mean() for slide in (same, other)]
    assert unknown[0] < 0.5 < unknown[1] == 1
    far = [slide.uns["sagefm"]["annotate"]["out_of_distribution"] for slide in (same, other)]
    assert far == [False, True]


def test_a_patient_that_is_unlike_the_labeled_ones_is_unknown_as_a_whole(learned, model, caplog):
    """Confident labels of other tissue are wrong: no threshold of confidence keeps them out."""
    other = simulate(150, n_domains=3, seed=3, biology_seed=9)
    with caplog.at_level(logging.WARNING):
        annotate(learned, other, model)
    assert (other.obs["sagefm_label"] != "unknown").all()
    assert "out of distribution: the slide is farther from the labeled patients" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        annotate(learned, other, model, error_rate=0.9)
    assert (other.obs["sagefm_label"] == "unknown").all()
    assert caplog.text.count("sagefm:") == 1
    assert "all its spots are unknown" in caplog.text


def test_a_patient_like_the_others_is_rarely_taken_for_another_tissue(model):
    """Of P + 1 patients that are alike, each is the farthest with the same chance."""
    everyone = [simulate(80, n_domains=3, seed=i, patient=f"q{i}") for i in range(16)]
    sections = list(section_features(
        {str(i): slide for i, slide in enumerate(everyone)}, model, "expression",
        patient_key="patient", layer=None, slide_key=None,
    ))  # fmt: skip
    far = []
    for i in range(0, 16, 4):
        four = sections[i : i + 4]
        for section in four:
            reference = NoveltyReference.fit([s for s in four if s is not section], seed=0)
            assert len(reference.patient_distances) == 3
            far.append(reference.is_out_of_distribution(reference.distances(section)))
    assert np.mean(far) <= 0.3
    alone = NoveltyReference.fit(sections[:1], seed=0)
    assert not alone.is_out_of_distribution(alone.distances(sections[1]))


@pytest.mark.parametrize(("rate", "promised"), [(0.2, False), (0.3, True)])
def test_what_few_patients_cannot_promise_is_said(learned, slides, model, caplog, rate, promised):
    with caplog.at_level(logging.WARNING):
        annotate(learned, slides["p3"].copy(), model, error_rate=rate)
    said = "with 3 labeled patients none below 25 % can be promised for a new one" in caplog.text
    assert said != promised


def test_the_realized_error_is_that_of_the_threshold_of_the_others(learned):
    held, table = learned.held_out, learned.held_out.realized(0.05)
    assert list(table.index) == ["p0", "p1", "p2"]
    for name, row in table.iterrows():
        own = held.groups == name
        others = HeldOutPredictions(
            held.unit, *(a[~own] for a in (held.groups, held.truth, held.predicted)),
            held.confidence[~own],
        )  # fmt: skip
        labeled = own & (held.confidence >= others.threshold(0.05))
        assert row["n_labeled"] == labeled.sum()
        assert row["labeled"] == pytest.approx(labeled.sum() / own.sum())
        wrong = (held.truth != held.predicted)[labeled]
        assert row["wrong"] == pytest.approx(wrong.mean()) if labeled.any() else row.isna()["wrong"]
    alone = held.groups == "p0"
    one = HeldOutPredictions(
        held.unit, *(a[alone] for a in (held.groups, held.truth, held.predicted)),
        held.confidence[alone],
    )  # fmt: skip
    assert not len(one.realized(0.05))


def test_a_stricter_error_rate_leaves_more_unknown_and_fewer_errors(learned, slides, model):
    shares, errors = [], []
    for rate in (0.5, 0.05, 0.005):
        slide = slides["p3"].copy()
        if np.isnan(learned.held_out.tolerated(rate)):  # refused: see below
            shares.append(0)
            errors.append(0)
            continue
        annotate(learned, slide, model, error_rate=rate)
        there = slide.obs["sagefm_label"] != "unknown"
        shares.append(there.mean())
        errors.append(1 - agreement(slide[there]) if there.any() else 0)
    assert shares[0] > shares[1] >= shares[2]
    assert errors[0] >= errors[1] >= errors[2]
    assert errors[1] <= 0.1


@given(st.integers(0, 1000), st.sampled_from([0.05, 0.1, 0.2, 0.3]))
def test_a_tolerated_rate_is_kept_by_every_patient_with_the_threshold_of_the_others(seed, rate):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(20, 200))
    held = HeldOutPredictions(
        "patient", rng.choice(["a", "b", "c", "d"], n), rng.integers(0, 3, n),
        np.zeros(n, dtype=np.int64), rng.random(n),
    )  # fmt: skip
    tolerated = held.tolerated(rate)
    if np.isnan(tolerated):
        assert (held.realized(rate)["wrong"] > rate).any()
    else:
        assert tolerated <= rate
        assert not (held.realized(tolerated)["wrong"] > rate).any()


def test_a_rate_that_a_labeled_patient_exceeds_is_refused(learned, slides, model):
    """The confident labels of one patient are wrong, and those of the others right."""
    n = 60
    groups = np.repeat(["p0", "p1", "p2"], n)
    truth = np.where(groups == "p2", 1, 0)
    held = HeldOutPredictions("patient", groups, truth, 0 * truth, np.tile(np.linspace(0, 1, n), 3))
    doubtful = dataclasses.replace(learned, held_out=held)
    said = r"^error_rate=0.1: is not kept by the labeled patients: .* p2 has 100% of its labels"
    with pytest.raises(InputError, match=said):
        annotate(doubtful, slides["p3"].copy(), model, error_rate=0.1)


@pytest.mark.parametrize("features", ["combined", "expression", "embedding"])
def test_the_order_of_spots_changes_nothing(known, slides, model, features):
    rng = np.random.default_rng(3)
    shuffled = {name: slide[rng.permutation(slide.n_obs)].copy() for name, slide in known.items()}
    one, two = slides["p3"].copy(), slides["p3"][::-1].copy()
    annotate(known, one, model, KEY, features=features, centered=True)
    annotate(shuffled, two, model, KEY, features=features, centered=True)
    for column in ("sagefm_label", "sagefm_label_confidence", "sagefm_label_novelty"):
        assert (two.obs.loc[one.obs_names, column] == one.obs[column]).all(), column


def test_a_class_counts_by_the_patients_that_have_it():
    codes = np.repeat([0, 0, 1], [16, 4, 50])
    weights = weights_of(codes, np.repeat(["a", "b", "a"], [16, 4, 50]))
    assert weights.mean() == pytest.approx(1)
    of_class = np.bincount(codes, weights)
    assert of_class[0] == pytest.approx(2 * of_class[1])
    assert weights[:16].sum() == pytest.approx(2 * weights[16:20].sum())


def test_where_no_confidence_is_enough_all_is_unknown_with_a_warning(model, caplog):
    """Patients contradict each other, so that the most confident predictions are wrong."""
    contradicting = [simulate(300, n_domains=3, seed=i, patient=f"p{i}") for i in range(4)]
    for i, slide in enumerate(contradicting):
        first = (slide.obs[KEY] == "D1").to_numpy()
        slide.obs["odd"] = np.where(first == (i % 2 == 0), "a", "b")
    target = simulate(150, n_domains=3, seed=4)
    with caplog.at_level(logging.WARNING):
        learned = annotate(contradicting, target, model, "odd", error_rate=0.01)
    assert learned.held_out.threshold(0.01) == np.inf
    assert (target.obs["sagefm_label"] == "unknown").all()
    assert "every spot is unknown: no confidence keeps an error rate of 0.01" in caplog.text


@given(st.integers(0, 1000), st.sampled_from([0.0, 0.05, 0.2, 0.5]))
def test_the_threshold_is_the_least_that_keeps_every_group_in_bounds(seed, rate):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 40))
    held = HeldOutPredictions(
        "patient", rng.choice(["a", "b", "c"], n), rng.integers(0, 2, n),
        rng.integers(0, 2, n), rng.choice([0.4, 0.5, 0.6, 0.7, 0.8, 0.9], n),
    )  # fmt: skip

    def kept(least):
        for group in np.unique(held.groups):
            own = (held.groups == group) & (held.confidence >= least)
            if own.any() and (held.truth != held.predicted)[own].mean() > rate:
                return False
        return True

    wanted = min((c for c in held.confidence if kept(c)), default=np.inf)
    assert held.threshold(rate) == wanted


def test_the_temperature_makes_up_for_too_sure_scores():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(4000, 3)) * 2
    truth = np.array([rng.choice(3, p=p) for p in softmax(scores, axis=1)])
    temperature, _ = fit_temperature(5 * scores, truth, np.repeat(["a", "b"], 2000))
    assert temperature == pytest.approx(5, rel=0.15)


@pytest.mark.parametrize("how", [{}, {"method": "mlp"}, {"features": "embedding"}])
def test_a_file_says_the_same(slides, model, tmp_path, how):
    slide, again = slides["p3"].copy(), slides["p3"].copy()
    learned = annotate([slides["p0"], slides["p1"]], slide, model, KEY, error_rate=0.9, **how)
    learned.save(tmp_path / "a.safetensors")
    loaded = Annotator.load(tmp_path / "a.safetensors", model)
    annotate(loaded, again, model, error_rate=0.9)
    for column in ("sagefm_label", "sagefm_label_confidence", "sagefm_label_novelty"):
        assert (slide.obs[column] == again.obs[column]).all(), column
    assert loaded.score().equals(learned.score())


def test_the_same_seed_gives_the_same(known, model):
    one, two = (learn_annotator(known, model, KEY, method="mlp", seed=4) for _ in range(2))
    assert np.array_equal(one.held_out.confidence, two.held_out.confidence)


def test_slides_in_one_object_are_each_beside_themselves(learned, slides, model):
    both = ad.concat({"a": slides["p2"], "b": slides["p3"]}, label="lane", index_unique="-")
    annotate(learned, both, model, slide_key="lane")
    alone = slides["p3"].copy()
    annotate(learned, alone, model)
    mine = both.obs.loc[both.obs["lane"] == "b", "sagefm_label_confidence"]
    np.testing.assert_allclose(mine, alone.obs["sagefm_label_confidence"], atol=1e-5)


def test_a_slide_that_lacks_genes_is_still_labeled(learned, slides, model):
    rng = np.random.default_rng(2)
    slide = slides["p3"][:, rng.random(slides["p3"].n_vars) < 0.5].copy()
    annotate(learned, slide, model)
    assert agreement(slide) > 0.5
    assert np.isfinite(slide.obs["sagefm_label_novelty"]).all()


def labeled(slide, **columns):
    slide = slide.copy()
    for name, values in columns.items():
        slide.obs[name] = values
    return slide


@pytest.mark.parametrize(
    ("change", "options", "said"),
    [
        (
            {"x": "one"},
            {"key": "x"},
            r"needs two classes with at least 10 .* one 150",
        ),
        ({"x": np.nan}, {"key": "x"}, r"obs\['x'\]: no spot has a label; label some"),
        ({"x": "unknown", "y": None}, {"key": "y"}, "no spot has a label"),
        ({}, {"key": "nothing"}, r"^obs\['nothing'\]: no such column; obs has"),
        ({"x": ["unknown"] * 75 + ["a"] * 75}, {"key": "x"}, "has a class 'unknown'; rename it"),
        ({}, {"method": "forest"}, "method='forest': choose one of linear, mlp"),
        (
            {},
            {"features": "pixels"},
            "features='pixels': choose one of combined, expression, embedding",
        ),
        ({}, {"centered": False}, "centered=False: combined features are standardized"),
        ({}, {"error_rate": 0}, "error_rate=0: give a number between 0 and 1"),
        ({}, {"error_rate": 1.5}, "error_rate=1.5: give a number"),
    ],
)
def test_bad_input_is_one_clear_line(slides, model, change, options, said):
    with pytest.raises(InputError, match=said) as raised:
        annotate(labeled(slides["p0"], **change), slides["p3"].copy(), model,
                 **{"key": KEY, **options})  # fmt: skip
    assert "\n" not in str(raised.value)


def test_log_normalized_values_are_refused_by_name(slides, model):
    bad = slides["p0"].copy()
    bad.X = bad.X.log1p()
    with pytest.raises(InputError, match=r"^p0: "):
        learn_annotator({"p0": bad}, model, KEY)
    with pytest.raises(InputError, match=r"^X holds values"):
        annotate(slides["p0"], bad, model, KEY)


def test_labels_of_one_place_cannot_be_checked(slides, model):
    slide = slides["p0"].copy()
    slide.obs["x"] = None
    with pytest.raises(InputError, match="no spot has a label"):
        learn_annotator(slide, model, "x")


def test_files_that_are_no_annotator_of_this_model_are_refused(learned, model, tmp_path):
    learned.save(tmp_path / "a.safetensors")
    other = sagefm.SageFM.new(model.vocabulary, model.config, seed=99)
    with pytest.raises(InputError, match=r"a.safetensors: belongs to another model"):
        Annotator.load(tmp_path / "a.safetensors", other)
    model.save(tmp_path / "m.safetensors")
    with pytest.raises(InputError, match=r"m.safetensors: is no annotator"):
        Annotator.load(tmp_path / "m.safetensors", model)
    with pytest.raises(InputError, match=r"a.safetensors: is no model but one of the kind annot"):
        sagefm.SageFM.load(tmp_path / "a.safetensors")
    with pytest.raises(InputError, match="no such file"):
        Annotator.load(tmp_path / "nothing.safetensors", model)
    with pytest.raises(InputError, match="belongs to another model"):
        annotate(learned, simulate(60), other)
    with pytest.raises(InputError, match="method: is an option of training; give labeled slides"):
        annotate(learned, simulate(60), model, method="mlp")


def test_a_file_with_a_fine_tuned_network_is_refused(learned, model, tmp_path):
    learned.save(tmp_path / "a.safetensors")
    tensors, header = checkpoint.read(tmp_path / "a.safetensors", "annotator")
    header["settings"]["method"] = "last"
    checkpoint.write(tmp_path / "t.safetensors", tensors | {"head.weight": torch.zeros(1)}, header)
    with pytest.raises(InputError, match=r"t.safetensors: uses fine-tuning, which was removed"):
        Annotator.load(tmp_path / "t.safetensors", model)


@pytest.mark.slow
def test_a_real_patient_whose_confident_labels_are_wrong_gets_none(shared):
    """Patient B has tissue that the others lack: half of the confident labels were wrong."""
    known = {p: sagefm.read(shared / "slides" / f"her2st_{p}1.h5ad") for p in "CDEF"}
    slide = sagefm.read(shared / "slides" / "her2st_B1.h5ad")
    annotate(known, slide, sagefm.SageFM.load("default"), error_rate=0.1)
    assert (slide.obs["sagefm_label"] == "unknown").all()
