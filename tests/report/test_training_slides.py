"""What is said of a slide that is like the training slides, or of another kind."""

import gzip
from dataclasses import replace
from importlib import resources

import numpy as np
import pytest

from sagefm import report
from sagefm.pp.simulate import simulate
from sagefm.pp.slide_record import TRAINED_SLIDES, SlideRecord, described
from sagefm.report import rules
from sagefm.report.training_slides import compare
from sagefm.stats.reference import ReferenceSpots

ORGANS = {"s0": "breast", "s1": "breast", "s2": "heart", "s3": ""}
COMPARED = [
    "nearest_slide", "same_array", "same_gene_set", "range_counts", "range_measured",
    "range_pitch_um",
]  # fmt: skip


@pytest.fixture(scope="module")
def trained(model):
    """A model that records four slides, of a patient each."""
    slides = {name: simulate(100, seed=i) for i, name in enumerate(ORGANS)}
    embeddings = [model.embed(slide) for slide in slides.values()]
    sample = ReferenceSpots.learn(embeddings, list(slides), unit=True)
    rows = {}
    for (name, slide), z in zip(slides.items(), embeddings, strict=True):
        known = described(slide, np.arange(100)) | {"patient": name, "technology": "10x"}
        record = SlideRecord.of(model.prepare(slide), model.vocabulary.symbols, **known)
        record = record.with_profile(sample.reduce(z).mean(axis=0)).stated(organ=ORGANS[name])
        rows[name] = record.entries()
    return replace(model, trained_on=sample, provenance={TRAINED_SLIDES: rows})


def compared(slide, model):
    """The grade and the sentence of each rule."""
    prepared = model.prepare(slide)
    profile = model.trained_on.reduce(model.embed(prepared)).mean(axis=0)
    found = compare(slide, model, prepared, profile)
    grades = {name: rules.RULE[name].grade(value) for name, value in found.values.items()}
    return {
        name: (grade, rules.RULE[name].said[grade].format(**found.words))
        for name, grade in grades.items()
    }


def test_a_slide_like_the_training_slides_is_good_in_all(trained):
    found = compared(simulate(100, seed=8), trained)
    assert list(found) == ["recorded", "same_array", "same_gene_set", *COMPARED[3:], COMPARED[0]]
    assert {grade for grade, _ in found.values()} == {"good"}
    assert found["recorded"][1] == "Organs of the training slides: breast 2, heart 1, not known 1."
    assert "that of 4 training slides (10x)" in found["same_array"][1]
    assert "as in 4 training slides (10x)" in found["same_gene_set"][1]


def visium_v1(slide):
    file = resources.files("sagefm.pp") / "visium_v1_barcodes.txt.gz"
    slide.obs_names = gzip.decompress(file.read_bytes()).decode().split()[: slide.n_obs]


def shallow(slide):
    slide.X.data = np.random.default_rng(0).binomial(slide.X.data.astype(int), 0.05).astype("f4")


def close(slide):
    slide.uns["spot_pitch_um"] = 16.0


OTHER_KINDS = {
    "same_array": (visium_v1, "barcodes and grid show it: Visium, that of no training slide."),
    "range_counts": (shallow, "counts per spot are far outside the range"),
    "range_pitch_um": (close, "Spots 16 µm apart, outside the range"),
}


@pytest.mark.parametrize("name", OTHER_KINDS)
def test_a_slide_of_another_kind_is_named_by_what_is_new(name, trained):
    change, words = OTHER_KINDS[name]
    slide = simulate(100, seed=8)
    change(slide)
    grade, said = compared(slide, trained)[name]
    assert grade == "care"
    assert words in said


def test_another_set_of_genes_is_new(trained):
    slide = simulate(100, seed=8)
    known = np.flatnonzero(slide.var_names.isin(list(trained.vocabulary)))
    found = compared(slide[:, known[::9]].copy(), trained)
    for name in ("same_gene_set", "range_measured"):
        assert found[name][0] == "care"
    assert "a panel or few genes" in found["same_gene_set"][1]


def test_the_nearest_training_slides_are_named_one_per_patient(trained):
    slide = simulate(100, seed=1)
    prepared = trained.prepare(slide)
    profile = trained.trained_on.reduce(trained.embed(prepared)).mean(axis=0)
    found = compare(slide, trained, prepared, profile)
    assert found.values["nearest_slide"] == 0
    assert found.words["nearest"].startswith("s1 (breast), ")
    far = compare(slide, trained, prepared, profile + 9)
    assert far.values["nearest_slide"] == 1
    rows = {
        name: row | {"patient": row["patient"].replace("s1", "s0")}
        for name, row in trained.provenance[TRAINED_SLIDES].items()
    }
    merged = replace(trained, provenance={TRAINED_SLIDES: rows})
    assert "s0" not in compare(slide, merged, prepared, profile).words["nearest"]


def test_every_comparison_is_printed_with_the_range_of_training(trained):
    facts = report.quality(simulate(100, seed=8), trained).facts
    assert set(COMPARED) | {"recorded"} <= set(facts.index)
    assert facts.loc["range_pitch_um", "expected"] == "100 µm to 100 µm"
    assert " to " in facts.loc["range_counts", "expected"]
    assert facts.loc["same_array", "expected"].endswith("(CytAssist) 4")


def test_what_a_slide_does_not_show_does_not_count(trained):
    slide = simulate(100, seed=8)
    usual = report.quality(slide.copy(), trained)
    slide.obs_names = [f"spot{i}" for i in range(100)]
    slide.uns = {}
    found = report.quality(slide, trained)
    for name in ("same_array", "range_pitch_um"):
        assert found.facts.loc[name, "grade"] == "unknown"
    assert "unknown" in found.facts.loc["same_array", "said"]
    assert found.verdicts.equals(usual.verdicts)


@pytest.mark.parametrize("provenance", [{}, {TRAINED_SLIDES: {"a": 1}}, {TRAINED_SLIDES: {}}])
def test_a_model_without_records_is_judged_and_says_that_it_has_none(trained, provenance):
    bare = replace(trained, provenance=provenance)
    found = report.quality(simulate(100, seed=8), bare)
    assert found.facts.loc["recorded", "shown"] == "0"
    assert "does not record" in found.facts.loc["recorded", "said"]
    assert not set(COMPARED) & set(found.facts.index)
    assert not found.verdicts["reason"].str.contains("does not record").any()


@pytest.mark.parametrize("use", rules.USES)
def test_a_new_kind_of_slide_is_never_supported_and_never_forbidden(use):
    good = {rule.name: ("good", rule.said["good"]) for rule in report.RULES}
    for name in COMPARED:
        assert rules.RULE[name].grade(0 if not rules.RULE[name].less else 1e9) == "care"
        verdict, reason = rules.verdict(use, good | {name: ("care", "Of another kind.")})
        assert verdict in ("with care", "not shown")
        assert reason.endswith("Of another kind.")
        unknown = rules.verdict(use, good | {name: ("unknown", "Who knows.")})
        assert unknown == rules.verdict(use, good)
