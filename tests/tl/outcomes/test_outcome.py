"""Outcomes of a small simulated cohort whose truth is known, from slides to files."""

import logging
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

from sagefm import InputError, SageFM
from sagefm._keys import DOMAIN
from sagefm.model import Config
from sagefm.pp.simulate import simulate
from sagefm.pp.vocabulary import Vocabulary
from sagefm.stats.outcomes import FeatureSet, SetFit, target_of
from sagefm.tl import domains, outcome
from sagefm.tl.outcomes import RESEARCH_USE, _outcome
from sagefm.tl.outcomes._cohort import Columns, join
from sagefm.tl.outcomes._evaluate import Procedure, _about, evaluate
from sagefm.tl.outcomes._features import SlidesOfPatients
from sagefm.tl.outcomes._labels import LabelCounts
from sagefm.tl.outcomes._maps import LinearScores
from sagefm.tl.outcomes._slides import (
    common_keys,
    differing_genes,
    disagreement,
    summarize_slides,
)
from sagefm.tl.outcomes._table import patient_table
from sagefm.tl.patients import SlideSource

RAISED = tuple(simulate(15).var_names[100:700:100])
N_PATIENTS = 22


def section(number, patient, raised):
    """A slide of 40 spots; genes are raised in one of its two domains if `raised`."""
    slide = simulate(40, seed=number, n_domains=2, patient=patient, slide=f"slide-of-{patient}")
    columns = [slide.var_names.get_loc(gene) for gene in RAISED]
    inside = (slide.obs["domain"] == slide.obs["domain"].cat.categories[0]).to_numpy()
    counts = slide.X.toarray()
    extra = np.random.default_rng(number).poisson(9, (40, len(columns)))
    counts[:, columns] += extra * raised * inside[:, None]
    slide.X = csr_matrix(counts)
    return slide


@pytest.fixture(scope="module")
def slides():
    """Patients of two classes in turn; the first has two slides."""
    owners = ["Ann0", *(f"Ann{i}" for i in range(N_PATIENTS))]
    return {
        f"slide-of-{owner}-{number}": section(number, owner, int(owner[3:]) % 2)
        for number, owner in enumerate(owners)
    }


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    responds = np.arange(N_PATIENTS) % 2
    return pd.DataFrame(
        {
            "patient": [f"Ann{i}" for i in range(N_PATIENTS)],
            "response": np.where(responds, "yes", "no"),
            "age": rng.normal(60, 9, N_PATIENTS),
            "hospital": np.where(np.arange(N_PATIENTS) // 2 % 2, "north", "south"),
            "months": rng.exponential(10, N_PATIENTS) * (1 + 4 * (1 - responds)),
            "died": 1,
        }
    )


@pytest.fixture(scope="module")
def net(slides):
    symbols = next(iter(slides.values())).var_names
    genes = (*RAISED, *(gene for gene in symbols[::8] if gene not in RAISED))
    return SageFM.new(Vocabulary(genes), Config(widths=(40, 24, 24, 24, 16)), seed=5)


@pytest.fixture(scope="module")
def lines():
    return []


@pytest.fixture(scope="module")
def written(slides):
    return {name: slide.copy() for name, slide in slides.items()}


@pytest.fixture(scope="module")
def result(written, table, net, lines):
    sets = {"planted": list(RAISED), "others": list(net.vocabulary)[10:20]}
    return outcome(
        written, table, "response", model=net, clinical="age", site="hospital", keys="domain",
        gene_sets=sets, n_permutations=39, progress=lines.append,
    )  # fmt: skip


@pytest.fixture(scope="module")
def summaries(slides, net):
    source = SlideSource(slides, None, None, "patient", None)
    return summarize_slides(source, net, ["domain"], 0, lambda _: None)


def test_every_set_of_features_is_scored(result):
    assert result.scores["set"].tolist() == [
        "clinical", "pseudobulk", "embedding mean", "embedding quantiles", "fractions of domain",
        "neighbors of domain", "interfaces of domain", "gene programs",
    ]  # fmt: skip
    scores = result.scores.set_index("set")
    assert scores.loc["gene programs", "concordance"] > 0.9
    assert scores.loc["embedding mean", "p_adjusted"] < 0.05
    assert scores.loc["embedding mean", "beyond_p"] < 0.05
    assert pd.isna(scores.loc["clinical", "beyond_p"])
    assert scores.loc["fractions of domain", "p"] > 0.05
    assert (scores["n_patients"] == N_PATIENTS).all()
    assert (result.kind, result.target, result.note) == ("classes", "response", RESEARCH_USE)
    assert result.permuted.shape == (39, 8)
    best = result.features.sort_values("p").iloc[0]
    assert (best["set"], best["feature"]) == ("gene programs", "planted")
    assert result.curve.attrs["needed"] < N_PATIENTS


def test_patients_have_their_predictions(result, table):
    patients = result.patients
    assert list(patients.columns[:4]) == ["response", "n_slides", "site", "held_out"]
    assert patients.index.tolist() == table["patient"].tolist()
    assert patients["n_slides"].tolist() == [2] + [1] * (N_PATIENTS - 1)
    assert patients["response"].astype(str).tolist() == table["response"].tolist()
    right = patients["predicted"].to_numpy() == patients["response"].astype(str).to_numpy()
    assert right.mean() > 0.8
    assert set(patients["group"]) == {"low", "high"}


def test_contributions_add_up_to_the_scores_of_patients(result, table, net, summaries):
    cohort = join(Columns.of(patient_table(table), "response", (), None), summaries)
    target = target_of(cohort.rows, "response")
    means = np.concatenate([one.summary.z for one in summaries]).astype(float)
    [features] = [
        one
        for one in _outcome.feature_sets(
            cohort.slides, _outcome.Clinical("", cohort.rows, []), [], None, net.vocabulary, 0
        )
        if one.name == "embedding mean"
    ]
    assert cohort.rows.index[0] == "Ann0"
    np.testing.assert_allclose(features.values[0], means[:2].mean(axis=0))
    fold = features.fold(target.known, target.n_components)
    orders = np.arange(N_PATIENTS)[None]
    fit = SetFit(fold, target.fit(fold.features, orders))
    scores = LinearScores.of(target, features, fit, orders, 0)
    owners = result.spots["slide"].str.split("-").str[2]
    sums = result.spots["contribution"].groupby(owners).sum()
    assert sums.index.tolist() == cohort.rows.index.tolist()
    for patient, (name, total) in enumerate(sums.items()):
        own = [fit for training, fit in scores.fits if not training[patient]]
        assert len(own) == 5
        intercept = np.mean([fit.intercepts[0, 0] for fit in own])
        risk = result.patients.loc[name, "risk_embedding mean"]
        assert total + intercept == pytest.approx(risk, abs=1e-5)


def test_contributions_are_written_into_slides_in_memory(result, written):
    for name, slide in written.items():
        own = result.spots[result.spots["slide"] == name]
        assert own["spot"].tolist() == slide.obs_names.tolist()
        np.testing.assert_array_equal(slide.obs["sagefm_outcome"], own["contribution"])
        np.testing.assert_array_equal(slide.obs["sagefm_outcome_p"], own["p"])
        assert slide.uns["sagefm"]["outcome"]["note"] == RESEARCH_USE
    assert result.spots["p"].between(1 / 40, 1).all()


def test_domains_that_carry_the_outcome_are_found(result):
    cohort = result.domains[result.domains["slide"] == "all"].set_index("domain")
    assert cohort["p"].min() <= 0.05
    # The parts of domains add up to the difference between the classes.
    sums = result.spots.groupby("slide", sort=False)["contribution"].sum().to_numpy()
    sums = np.r_[sums[:2].sum(), sums[2:]]
    difference = sums[1::2].mean() - sums[::2].mean()
    assert cohort["contribution"].sum() == pytest.approx(difference)
    assert (cohort["low"] < cohort["contribution"]).all()
    one = result.domains[result.domains["slide"] == "slide-of-Ann0-0"]
    spots = result.spots[result.spots["slide"] == "slide-of-Ann0-0"]
    assert one["contribution"].sum() == pytest.approx(spots["contribution"].sum())


def test_the_site_is_checked(result):
    checks = result.confounding.query("site == ''").groupby("check", sort=False).first()
    assert list(checks.index) == [
        "site against outcome", "site predicted", "within sites", "site left out",
    ]  # fmt: skip
    assert checks.loc["site against outcome", "p"] > 0.05
    assert checks.loc["within sites", "value"] > 0.8
    assert checks.loc["site left out", "value"] > 0.8


def test_nothing_that_is_logged_names_a_slide_or_a_patient(result, lines):
    assert "slide 3: 40 spots" in lines
    assert not [line for line in [*lines, str(result)] if "Ann" in line]


def test_a_summary_claims_nothing_that_is_not_shown(result):
    curve = result.curve.copy()
    curve.attrs["needed_text"] = "about 40 patients (12 to 12,375)"
    nothing = replace(result, scores=result.scores.assign(p_adjusted=0.2), curve=curve)
    text = str(nothing)
    assert "No set of features of the slides predicts" in text
    assert f"needed for {result.best}, if its effect is real, which is not shown: about 40" in text
    assert "if its effect is real" not in str(replace(result, curve=curve))
    assert "of each set alone, not corrected" in text
    assert "permuted within their sites" in text
    alone = replace(nothing, patients=result.patients.drop(columns="site"))
    assert "permuted within their sites" not in str(alone)


def test_a_result_is_saved_with_its_note(result, tmp_path):
    folder = tmp_path / "out"
    result.save(folder)
    for path in folder.glob("*.csv"):
        assert pd.read_csv(path)["note"][0] == RESEARCH_USE
    assert RESEARCH_USE in (folder / "summary.txt").read_text()
    saved = pd.read_csv(folder / "scores.csv", index_col="set")
    assert saved.loc["clinical", "concordance"] == pytest.approx(
        result.scores["concordance"][0], rel=1e-5
    )
    with pytest.raises(InputError, match="holds files already"):
        result.save(folder)
    result.save(folder, overwrite=True)


def test_slides_on_disk_give_survival_in_spite_of_changed_names(
    slides, table, net, tmp_path, caplog
):
    paths = []
    for name, slide in list(slides.items())[1:13]:
        paths.append(tmp_path / f"{name}.h5ad")
        slide.write_h5ad(paths[-1])
    rows = table.assign(patient=table["patient"].str.upper() + " ")
    rows.to_csv(tmp_path / "patients.csv", sep=";", index=False)
    caplog.set_level(logging.INFO)
    found = outcome(
        paths, tmp_path / "patients.csv", ("months", "died"), model=net, n_permutations=3
    )
    assert (found.kind, found.best in set(found.scores["set"])) == ("survival", True)
    assert len(found.spots) == 40 * 12
    assert list(found.patients.columns[:3]) == ["months", "died", "n_slides"]
    assert "matched without regard to case" in caplog.text
    assert found.scores["p_proportional"].between(0, 1).all()
    assert "Proportional hazards: smallest p" in str(found)
    assert any("`sagefm domains`" in line for line in found.warnings)
    assert "reading slide 2" in caplog.text
    assert not [one for one in caplog.messages if "Ann" in one or "ANN" in one]


@pytest.mark.parametrize(
    ("changed", "options", "said"),
    [
        ({}, {"target": "grade"}, r"no column 'grade' \(target\); it has response, age"),
        ({}, {"target": ("months", "event")}, r"no column 'event' \(event\)"),
        ({}, {"clinical": ["response"]}, "'response' is both the outcome and a clinical column"),
        ({"response": ["yes"] * 5 + ["no"] * 17}, {}, "10 patients of each class .* 17 no, 5 yes"),
        ({}, {"n_permutations": 0}, "n_permutations=0"),
        ({}, {"n_permutations": 1.5}, "n_permutations=1.5: give a whole number"),
        ({}, {"seed": None}, "seed=None: give a whole number"),
        ({}, {"clinical": 5}, "clinical=.5.: give names of columns"),
        ({}, {"site": ["hospital"]}, "give the name of a column"),
        ({}, {"patients": 5}, "patients: give a mapping"),
        ({}, {"keys": "cell_type"}, r"slide-of-Ann0-0: keys: has no obs column 'cell_type'; it"),
        (
            {"patient": [f"x{i}" for i in range(22)]},
            {},
            r"has no patient of the slides \(Ann0\), but x0",
        ),
    ],
)
def test_input_that_cannot_be_used_is_refused(slides, table, net, changed, options, said):
    some = dict(list(slides.items())[:2])
    target = options.pop("target", "response")
    with pytest.raises(InputError, match=said):
        outcome(some, table.assign(**changed), target, model=net, **options)


def test_patients_that_have_no_slide_do_not_count(slides, table, net):
    some = dict(list(slides.items())[:5])
    with pytest.raises(InputError, match=r"4 patients with slides: .* 2 no, 2 yes"):
        outcome(some, table, "response", model=net)


def test_a_slide_may_not_stand_twice(slides, table, net):
    twice = [next(iter(slides.values()))] * 2
    with pytest.raises(InputError, match="slide-of-Ann0 2: is the same slide as slide-of-Ann0 1"):
        outcome(twice, table, "response", model=net)
    with pytest.raises(InputError, match="is a int; give slides"):
        outcome({"a": 3}, table, "response", model=net)
    one = slides["slide-of-Ann3-4"].copy()
    with pytest.raises(InputError, match="a: has no spots; leave it out"):
        outcome({"a": one[:0].copy()}, table, "response", model=net)
    del one.obsm["spatial"]
    with pytest.raises(InputError, match="a: no coordinates"):
        outcome({"a": one}, table, "response", model=net)


def test_slides_without_a_row_are_left_out_with_their_numbers(table, summaries):
    cohort = join(Columns.of(patient_table(table[1:8]), "response", (), None), summaries)
    assert cohort.notes == [
        "16 slides of 15 patients left out, for the table has no row for them "
        "(number 1, 2, 10, 11, 12, 13, 14, 15, 16, 17, … of 23)"
    ]
    assert cohort.slides.patients.tolist() == list(range(7))


def test_patients_of_slides_may_be_in_the_table(slides, table):
    rows = pd.DataFrame({"slide": ["slide-of-Ann0-0"], "patient": ["other"], "x": [1]})
    source = SlideSource(
        {"slide-of-Ann0-0": slides["slide-of-Ann0-0"]}, None, None, "patient", None
    )
    assert [one.patient for one in source] == ["Ann0"]
    named = source.with_patients(patient_table(rows).patient_of)
    assert [one.patient for one in named] == ["other"]


def test_labels_that_are_not_common_to_slides_are_warned_of(summaries):
    used, notes = common_keys(summaries, ["domain"])
    assert (used, notes, disagreement(summaries, "domain")) == (["domain"], [], "")
    assert "`sagefm domains`" in common_keys(summaries, None)[1][-1]


def test_labels_that_differ_in_case_and_labels_without_end_are_said(summaries):
    def labeled(one, names):
        spots = pd.Series(1.0, names)
        counts = LabelCounts(spots, pd.DataFrame(0.0, names, names))
        return replace(one, labels={"cell": counts})

    two = [labeled(summaries[0], ["Tumor", "B"]), labeled(summaries[1], ["tumor", "B"])]
    assert "Tumor, tumor count as different" in disagreement(two, "cell")
    own = [labeled(one, [f"{one.number}_{i}" for i in range(20)]) for one in summaries[:6]]
    with pytest.raises(InputError, match="120 different values in all slides"):
        common_keys(own, ["cell"])


def test_domains_of_each_slide_alone_are_left_out_if_not_asked_for(summaries):
    alone = [replace(one, labels={DOMAIN: one.labels["domain"]}, domains_of=1) for one in summaries]
    used, [note] = _outcome._labels(alone, None)
    assert used == []
    assert note.endswith("it is left out")
    assert _outcome._labels(alone, [DOMAIN])[0] == [DOMAIN]


def test_sites_that_say_little_are_noted():
    [unknown, one] = _about(pd.Series([None, None], dtype=object))
    assert unknown.startswith("2 patients without a site")
    assert one.startswith("all patients are of one site")
    assert _about(pd.Series(["a", "b"])) == []


def test_domains_of_each_slide_alone_are_warned_of(slides, net):
    own = [slide.copy() for slide in list(slides.values())[:2]]
    for together in (False, True):
        for given in [own] if together else [[one] for one in own]:
            domains(given, 2, method="kmeans", use_rep="spatial", n_components=2)
        source = SlideSource(own, None, None, "patient", None)
        found = summarize_slides(source, net, None, 0, lambda _: None)
        assert common_keys(found, None) == (["sagefm_domain"], [])
        assert ("each slide alone" in disagreement(found, "sagefm_domain")) != together
    assert disagreement(found, "sagefm_domain") == ""


def test_slides_of_different_panels_are_warned_of(summaries):
    assert differing_genes(summaries, 182) == []
    one = summaries[4]
    few = replace(one, summary=replace(one.summary, sums=one.summary.sums.iloc[:40]))
    panel, pseudobulk = differing_genes([*summaries[:4], few], 182)
    assert panel.startswith("slides have 40 (slide 5) to 182 of the 182 genes of the model")
    assert pseudobulk == "no pseudobulk: slides have fewer than 50 genes in common"


def test_sites_with_one_outcome_each_are_warned_of(table, summaries):
    rows = table.assign(hospital=np.where(table["response"] == "yes", 1, 2))
    cohort = join(Columns.of(patient_table(rows), "response", (), "hospital"), summaries)
    assert set(cohort.sites("hospital")) == {"1", "2"}
    x = np.random.default_rng(0).normal(size=(N_PATIENTS, 2))
    features = FeatureSet("embedding mean", ["a", "b"], x)
    found = evaluate(
        target_of(cohort.rows, "response"), [features], cohort.sites("hospital"),
        Procedure(9, 0, lambda _: None),
    )  # fmt: skip
    assert found.scores["p"].tolist() == [1.0]
    assert any("all patients of a site have the same outcome" in note for note in found.notes)


def test_a_patient_has_the_mean_features_of_its_slides(summaries):
    cohort = SlidesOfPatients(summaries[:3], np.array([0, 0, 1]), 2)
    assert cohort.sizes.tolist() == [2, 1]
    np.testing.assert_allclose(cohort.average(np.array([[1.0], [3.0], [5.0]])), [[2.0], [5.0]])


def test_the_order_of_slides_and_of_rows_changes_nothing(table, summaries):
    def scores(table, slides):
        cohort = join(Columns.of(patient_table(table), "response", "age", None), slides)
        target = target_of(cohort.rows, "response")
        clinical = _outcome.Clinical("", cohort.rows, ["age"])
        names = tuple(map(str, range(10_000)))
        sets = _outcome.feature_sets(cohort.slides, clinical, [], None, Vocabulary(names), 0)
        return evaluate(target, sets, None, Procedure(1, 0, lambda _: None)).scores

    pd.testing.assert_frame_equal(
        scores(table, summaries), scores(table[::-1], summaries[5:] + summaries[:5])
    )
