import numpy as np
import pandas as pd
import pytest

from sagefm import InputError
from sagefm.evaluate.baselines.embedding import Embedding
from sagefm.evaluate.cohort import Cohort
from sagefm.evaluate.protocols.subtype import CAPTION, subtype
from sagefm.pp.simulate import simulate


def section(patient, number, biology):
    seed = 10 * int(patient[1:]) + number
    name = f"{patient}_{number}"
    return simulate(
        40, seed=seed, biology_seed=biology, n_domains=2, patient=patient, slide=name
    )  # fmt: skip


@pytest.fixture(scope="module")
def slides():
    """Ten patients of two biologies in turn; the first two have two sections."""
    found = {}
    for i in range(10):
        for number in range(2 if i < 2 else 1):
            slide = section(f"p{i}", number, biology=1 + i % 2)
            slide.obs["subtype"] = ["classical", "mesenchymal"][i % 2]
            found[f"p{i}_{number}"] = slide
    return found


def oracle(asked=None, kind="model", noise=0.1):
    def of(slides, learn_from):
        if asked is not None:
            asked.append(([slide.obs["slide"].iloc[0] for slide in slides], list(learn_from)))
        rng = np.random.default_rng(0)
        known = [slide.obs["subtype"].iloc[0] == "classical" for slide in slides]
        shape = [(slide.n_obs, 60) for slide in slides]
        return [one + noise * rng.normal(size=s) for one, s in zip(known, shape, strict=True)]

    return Embedding("oracle", kind, of)


def random():
    def of(slides, learn_from):
        rng = np.random.default_rng(4)
        return [rng.normal(size=(slide.n_obs, 20)) for slide in slides]

    return Embedding("random numbers", "control", of, "drawn at random")


@pytest.fixture(scope="module")
def result(slides):
    return subtype(Cohort(slides), [oracle(), random()], "subtype", n_permutations=60)


def test_truth_is_found_and_noise_is_not(result):
    table = result.summary[CAPTION].set_index("method")
    assert list(table.index) == ["pseudobulk PCA", "oracle", "permuted labels", "random numbers"]
    assert table["kind"].tolist() == ["baseline", "model", "control", "control"]
    assert (table[["n_patients", "n_slides"]] == [10, 12]).all(axis=None)
    for method in ("pseudobulk PCA", "oracle"):
        row = table.loc[method]
        assert (row[["auroc", "auroc_low", "auroc_high", "accuracy"]] == 1).all()
        assert row["p"] < 0.06
        assert row["q"] >= row["p"]
    assert table.loc["random numbers", "p"] > 0.06
    assert table.loc["permuted labels", "auroc"] < 0.6
    assert np.isnan(table.loc["permuted labels", ["p", "q"]].astype(float)).all()
    assert "random numbers: drawn at random." in result.notes
    assert any("compared with the permutations" in note for note in result.notes)


def test_details_are_out_of_fold_probabilities(result):
    rows = result.details["subtype"]
    assert len(rows) == 3 * 12
    columns = ["probability_classical", "probability_mesenchymal"]
    np.testing.assert_allclose(rows[columns].sum(axis=1), 1)
    of_oracle = rows[rows["method"] == "oracle"]
    assert ((of_oracle[columns[0]] > 0.5) == (of_oracle["truth"] == "classical")).all()


def test_a_patient_is_held_out_with_all_sections(slides):
    asked = []
    cohort = Cohort(slides)
    subtype(cohort, [oracle(asked, "baseline")], "subtype", n_permutations=2)
    assert len(asked) == 10
    for names, learn_from in asked:
        out = {cohort.patient(n) for n, known in zip(names, learn_from, strict=True) if not known}
        taught = {cohort.patient(n) for n, known in zip(names, learn_from, strict=True) if known}
        assert len(out) == 1
        assert not out & taught
        assert len(names) == 12
    asked.clear()  # a model learns from nobody, and needs one slide at a time
    subtype(cohort, [oracle(asked)], "subtype", n_permutations=2)
    assert [names for names, _ in asked] == [[name] for name in slides]
    assert not any(known for _, learn_from in asked for known in learn_from)


def test_deterministic(slides, result):
    again = subtype(
        Cohort(slides), [oracle(), random()], "subtype", n_permutations=60
    )  # fmt: skip
    pd.testing.assert_frame_equal(again.summary[CAPTION], result.summary[CAPTION])
    pd.testing.assert_frame_equal(again.details["subtype"], result.details["subtype"])


def test_labels_from_the_table_three_classes_and_rare_ones(slides):
    words = ["a", "b", "c"] * 3 + ["rare"]
    facts = pd.DataFrame(
        {"grade": [words[int(name[1])] for name in slides]}, index=list(slides)
    )  # fmt: skip
    facts.loc["p0_1", "grade"] = None
    cohort = Cohort(slides, facts=facts)
    found = subtype(cohort, [random()], "grade", n_permutations=5)
    table = found.summary[CAPTION]
    assert (table["n_patients"] == 9).all()
    assert (table["n_slides"] == 10).all()
    assert {"probability_a", "probability_b", "probability_c"} <= set(found.details["subtype"])
    assert "Left out, fewer than 3 patients: rare (1)." in found.notes
    assert "Left out, no grade: p0_1." in found.notes


def test_embeddings_that_tell_nothing(slides):
    same = Embedding("same", "model", lambda s, _: [np.ones((one.n_obs, 30)) for one in s])

    def of(slides, learn_from):
        raise InputError("too few genes; give more")

    methods = [same, Embedding("broken", "baseline", of)]
    found = subtype(Cohort(slides), methods, "subtype", n_permutations=5)
    table = found.summary[CAPTION].set_index("method")
    assert table.loc["same", "auroc"] == 0.5
    assert "broken" not in table.index
    assert "broken is left out: too few genes; give more" in found.notes


def test_errors_are_one_clear_line(slides):
    cohort = Cohort(slides)

    def message(cohort, key):
        with pytest.raises(InputError) as caught:
            subtype(cohort, [random()], key)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "obs['grade']: no such column" in message(cohort, "grade")
    assert "obs['domain'] has several values" in message(cohort, "domain")
    few = cohort.only(["p0_0", "p1_0", "p2_0", "p3_0", "p4_0"])
    assert "two classes of 3 patients" in message(few, "subtype")
    assert "classical 3, mesenchymal 2" in message(few, "subtype")
    facts = pd.DataFrame({"grade": [name[-1] for name in slides]}, index=list(slides))
    mixed = message(Cohort(slides, facts=facts), "grade")
    assert mixed.startswith("grade: the slides of patient p0 have several (0, 1)")


def test_the_size_of_the_signal_survives_columns_of_noise(slides):
    """One column tells the subtype, 49 faint ones tell nothing: as in principal components."""

    def of(slides, learn_from):
        rng = np.random.default_rng(0)
        known = [slide.obs["subtype"].iloc[0] == "classical" for slide in slides]
        faint = [0.1 * rng.normal(size=(1, 50)) for _ in slides]
        return [
            np.repeat(noise + one * np.eye(1, 50), slide.n_obs, axis=0)
            for one, noise, slide in zip(known, faint, slides, strict=True)
        ]

    methods = [Embedding("PCA", "baseline", of)]
    found = subtype(Cohort(slides), methods, "subtype", n_permutations=1)
    assert found.summary[CAPTION].set_index("method").loc["PCA", "auroc"] == 1
