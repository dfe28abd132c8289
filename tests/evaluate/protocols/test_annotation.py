import numpy as np
import pandas as pd
import pytest

from sagefm import InputError
from sagefm.evaluate.baselines.embedding import Embedding
from sagefm.evaluate.baselines.pca import joint_pca
from sagefm.evaluate.cohort import Cohort
from sagefm.evaluate.protocols import probe as probes
from sagefm.evaluate.protocols.annotation import annotation
from sagefm.pp.simulate import simulate

METRICS = ["accuracy", "balanced_accuracy", "macro_f1", "ece"]


def section(patient, number, n_spots=80):
    seed = 10 * int(patient[1:]) + number
    return simulate(n_spots, n_domains=3, seed=seed, patient=patient, slide=f"{patient}_{number}")


@pytest.fixture(scope="module")
def slides():
    places = [("p1", 0), ("p1", 1), ("p2", 0), ("p3", 0)]
    found = {f"{patient}_{number}": section(patient, number) for patient, number in places}
    for slide in found.values():
        slide.obs["domain"] = slide.obs["domain"].astype(str)
    return found


def oracle(name="oracle", kind="model", noise=0.05):
    """The truth, one-hot, with a little noise; learns nothing."""

    def of(slides, learn_from):
        rng = np.random.default_rng(0)
        kinds = sorted({word for slide in slides for word in slide.obs["domain"].dropna()})
        hot = [slide.obs["domain"].to_numpy()[:, None] == np.array(kinds) for slide in slides]
        return [one + noise * rng.normal(size=one.shape) for one in hot]

    return Embedding(name, kind, of)


def random(name="random numbers", kind="control"):
    def of(slides, learn_from):
        rng = np.random.default_rng(1)
        return [rng.normal(size=(slide.n_obs, 10)) for slide in slides]

    return Embedding(name, kind, of, "drawn at random")


def plain_pca(asked=None):
    def of(slides, learn_from):
        if asked is not None:
            asked.append(dict(zip([s.obs["slide"].iloc[0] for s in slides], learn_from)))  # noqa: B905
        return joint_pca(slides, learn_from, n_components=10)

    return Embedding("PCA", "baseline", of)


@pytest.fixture(scope="module")
def asked():
    return []


@pytest.fixture(scope="module")
def told():
    return []


@pytest.fixture(scope="module")
def result(slides, asked, told):
    methods = [plain_pca(asked), oracle(), random()]
    return annotation(Cohort(slides), methods, "domain", progress=told.append)


def test_a_table_for_each_probe(result, told):
    assert len(result.summary) == 2
    for (caption, table), probe in zip(result.summary.items(), ("linear", "mlp"), strict=True):
        assert caption.startswith(f"Annotation, leave one patient out, {probe} probe, ")
        assert caption.endswith("(3 patients)")
        rows = ["majority class", "PCA", "permuted labels", "oracle", "random numbers"]
        assert table["method"].tolist() == rows
        kinds = ["baseline", "baseline", "control", "model", "control"]
        assert table["kind"].tolist() == kinds
        assert (table[["n_slides", "n_patients"]] == [4, 3]).all(axis=None)
        assert (table["unit"] == "patient").all()
        assert {"accuracy_low", "macro_f1_high", "ece", "verdict"} <= set(table)
        assert "ece_low" not in table
    assert "random numbers: drawn at random." in result.notes
    assert [line.split(": ")[1] for line in told] == ["PCA", "oracle", "random numbers"]


def test_truth_is_found_and_noise_is_not(result):
    for table in result.summary.values():
        accuracy = table.set_index("method")["accuracy"]
        balanced = table.set_index("method")["balanced_accuracy"]
        assert balanced["oracle"] > 0.97
        assert balanced["oracle"] > balanced["PCA"] > balanced["permuted labels"] + 0.1
        assert abs(accuracy["permuted labels"] - accuracy["majority class"]) < 0.2
        assert abs(balanced["random numbers"] - balanced["majority class"]) < 0.15
        verdict = table.set_index("method")["verdict"]
        assert verdict["oracle"].startswith("beats PCA")
        assert (verdict.drop("oracle") == "").all()


def test_sections_of_a_patient_are_held_out_together(asked):
    assert asked == [
        {"p1_0": False, "p1_1": False, "p2_0": True, "p3_0": True},
        {"p1_0": True, "p1_1": True, "p2_0": False, "p3_0": True},
        {"p1_0": True, "p1_1": True, "p2_0": True, "p3_0": False},
    ]


def test_probes_learn_from_the_other_patients_alone(slides, monkeypatch):
    taught = []
    fit = probes.fit_probe

    def spy(probe, z, labels, **options):
        taught.append((len(z), sorted(labels)))
        return fit(probe, z, labels, **options)

    monkeypatch.setattr(probes, "fit_probe", spy)
    two = {name: slides[name] for name in ("p1_0", "p2_0")}
    annotation(Cohort(two), [plain_pca()], "domain")
    expected = [(80, sorted(slides[name].obs["domain"])) for name in ("p2_0", "p1_0")]
    assert taught[:2] == expected  # the majority class
    assert taught[2:] == [expected[0]] * 4 + [expected[1]] * 4  # permuted labels too


def test_details_agree(result, slides):
    rows = result.details["annotation"]
    assert len(rows) == 4 * 5 * 2
    assert not rows[METRICS].isna().any(axis=None)
    by_class = result.details["annotation_classes"]
    keys = ["slide", "method", "probe"]
    recall = by_class.groupby(keys)["recall"].mean()
    pd.testing.assert_series_equal(
        rows.set_index(keys)["balanced_accuracy"].sort_index(), recall, check_names=False
    )
    confusion = result.details["annotation_confusion"]
    n_spots = sum(slide.n_obs for slide in slides.values())
    assert (confusion.groupby(["method", "probe"])["n"].sum() == n_spots).all()
    right = confusion[confusion["truth"] == confusion["predicted"]]
    found = right.set_index(["method", "probe"])["n"].groupby(level=[0, 1]).sum() / n_spots
    weighted = rows.assign(n=rows["accuracy"] * rows["n_spots"]).groupby(["method", "probe"])["n"]
    for key, value in found.items():
        assert value == pytest.approx(weighted.sum()[key] / n_spots)


def test_deterministic(slides):
    few = {name: slides[name] for name in ("p1_0", "p2_0")}
    first, second = (annotation(Cohort(few), [plain_pca()], "domain", seed=4) for _ in range(2))
    for one, other in zip(first.summary.values(), second.summary.values(), strict=True):
        pd.testing.assert_frame_equal(one, other)
        assert one["accuracy_low"].isna().all()  # two patients are no sample of patients


def test_classes_that_nobody_else_has_and_spots_without_a_label(slides):
    changed = {name: slide.copy() for name, slide in slides.items()}
    own = changed["p3_0"].obs
    own.loc[own.index[:7], "domain"] = "only here"
    own.loc[own.index[7:12], "domain"] = None
    found = annotation(Cohort(changed), [oracle()], "domain")
    assert any("7 spots of 315 have a class that no other patient has" in n for n in found.notes)
    rows = found.details["annotation"].query("slide == 'p3_0' and method == 'oracle'")
    assert (rows["n_spots"] == 75).all()
    assert (rows["accuracy"] <= 68 / 75 + 1e-9).all()
    by_class = found.details["annotation_classes"]
    assert (by_class.loc[by_class["class"] == "only here", "recall"] == 0).all()


def test_groups_and_what_is_left_out(slides):
    changed = {name: slide.copy() for name, slide in slides.items()}
    for number, patient in enumerate(("p4", "p5", "p6")):
        slide = section(patient, 0)
        slide.obs["domain"] = [f"layer {i % 4}" for i in range(slide.n_obs)]
        if number == 2:
            slide.obs["domain"] = "alone"
        changed[f"{patient}_0"] = slide
    changed["bare"] = section("p7", 0)
    del changed["bare"].obs["domain"]
    changed["p2_0"].obs["domain"] = None
    found = annotation(Cohort(changed), [random()], "domain")
    groups = found.details["annotation"].groupby("group", sort=False)["slide"].unique()
    assert [list(members) for members in groups] == [["p1_0", "p1_1", "p3_0"], ["p4_0", "p5_0"]]
    assert "layer 0, layer 1, layer 2, … (2 patients)" in groups.index[1]
    assert "Left out, no labels: p2_0, bare." in found.notes
    assert any("no other patient shares" in note and "p6_0" in note for note in found.notes)


def test_a_method_that_fails_is_left_out(slides):
    def of(slides, learn_from):
        raise InputError("no common genes; give some")

    broken = Embedding("broken", "model", of)
    found = annotation(Cohort(slides), [broken, random()], "domain")
    assert "broken" not in found.details["annotation"]["method"].tolist()
    assert any(
        note.startswith("broken is left out") and "no common genes" in note for note in found.notes
    )


def test_errors_are_one_clear_line(slides):
    with pytest.raises(InputError, match=r"obs\['region'\]: no such column; obs has"):
        annotation(Cohort(slides), [random()], "region")
    one = {name: slides[name] for name in ("p1_0", "p1_1")}
    with pytest.raises(InputError, match="no two patients share 2 labels") as caught:
        annotation(Cohort(one), [random()], "domain")
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_real_breast_cancer(shared):
    places = {name: shared / "slides" / f"her2st_{name}.h5ad" for name in ("A1", "B1", "C1")}
    found = annotation(Cohort(places), [plain_pca()], "label")
    table = next(iter(found.summary.values())).set_index("method")
    assert table.loc["PCA", "balanced_accuracy"] > table.loc["permuted labels", "balanced_accuracy"]
    assert table.loc["PCA", "n_patients"] == 3
