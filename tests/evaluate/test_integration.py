"""Slides are judged together by labels that are carried from one to the other."""

import sys

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score

from sagefm import InputError
from sagefm.evaluate.baselines.embedding import Embedding
from sagefm.evaluate.cohort import Cohort
from sagefm.evaluate.metrics.mixing import batch_mixing
from sagefm.evaluate.protocols.integration import integration
from sagefm.pp import simulate

NAMES = ["D1", "D2", "D3", "only s2"]


@pytest.fixture(scope="module")
def cohort():
    """Two patients, the first with two sections; the last slide has a label of its own."""
    slides = {}
    for i, patient in enumerate(("p0", "p0", "p1")):
        slide = simulate(90, n_domains=3, seed=i, patient=patient, slide=f"s{i}")
        slide.obs["domain"] = np.array(NAMES)[np.arange(90) % 3]
        slides[f"s{i}"] = slide
    own = slides["s2"].obs
    own.loc[own.index[:12], "domain"] = "only s2"
    own.loc[own.index[12:20], "domain"] = None
    return Cohort(slides)


@pytest.fixture(scope="module")
def labels(cohort):
    return {name: set(slide.obs["domain"].dropna()) for name, slide in cohort.items()}


def one_hot(slides, scale=1.0, shift=0.0):
    rng = np.random.default_rng(0)
    found = []
    for i, slide in enumerate(slides):
        hot = slide.obs["domain"].to_numpy()[:, None] == np.array(NAMES)
        noisy = scale * hot + rng.normal(scale=0.05, size=hot.shape)
        found.append(np.c_[noisy, shift * i + rng.normal(scale=0.05, size=len(slide))])
    return found


ORACLE = Embedding("oracle", "model", lambda slides, _: one_hot(slides), untrained="mixes")
APART = Embedding("apart", "baseline", lambda slides, _: one_hot(slides, shift=4.0))
MIXES = Embedding("mixes", "control", lambda slides, _: one_hot(slides, scale=0.0))


@pytest.fixture(scope="module")
def found(cohort, labels):
    return integration(cohort, labels, [APART, ORACLE, MIXES], "domain")


def table_of(found):
    [(caption, table)] = found[0].items()
    assert caption == "Slides together: s0, s1, s2"
    return table.set_index("method")


def test_labels_that_are_carried_are_right_and_what_only_mixes_loses_them(found):
    table = table_of(found)
    assert table.loc["oracle", "macro_f1"] > 0.99
    assert table.loc["oracle", "ari_carried"] > 0.97
    assert table.loc["oracle", "ari_together"] > 0.95
    assert table.loc["mixes", "macro_f1"] < 0.5
    assert abs(table.loc["mixes", "ari_carried"]) < 0.1
    # Slides that lie apart have their labels carried, and no domains in common.
    assert table.loc["apart", "macro_f1"] > 0.99
    assert table.loc["apart", "ari_together"] < 0.7
    assert (table["verdict"].drop("oracle") == "").all()
    assert "mixes" in table.loc["oracle", "verdict"]


def test_sources_are_other_patients_and_labels_that_they_have(found, cohort):
    rows = found[1]["domains_transfer"].set_index(["method", "slide"])
    assert rows.loc[("oracle", "s2"), "n_counted"] == 90 - 12 - 8
    assert rows.loc[("oracle", "s0"), "n_counted"] == 90
    slides = [cohort[name] for name in cohort]
    s0, _, s2 = one_hot(slides, scale=0.0)
    known = slides[2].obs["domain"].notna().to_numpy()
    apart = ((s0[:, None] - s2[known][None]) ** 2).sum(axis=2)
    near = np.argsort(apart, axis=1)[:, :15]
    votes = slides[2].obs["domain"].to_numpy()[known][near]
    carried = [pd.Series(row).value_counts().sort_index().idxmax() for row in votes]
    truth = slides[0].obs["domain"]
    wanted = f1_score(truth, carried, average="macro", labels=sorted(set(truth)), zero_division=0)
    assert rows.loc[("mixes", "s0"), "macro_f1"] == pytest.approx(wanted, abs=0.02)


def test_sections_of_one_patient_are_sources_for_each_other(cohort, labels):
    pair = cohort.only(["s0", "s1"])
    tables, details, _ = integration(pair, {n: labels[n] for n in pair}, [ORACLE], "domain")
    assert list(tables) == ["Slides together: s0, s1"]
    assert details["domains_transfer"]["macro_f1"].min() > 0.99


def test_mixing_is_that_of_the_metric(found, cohort):
    pytest.importorskip("scib_metrics", reason="no scib-metrics: pip install sagefm[evaluate]")
    slides = [cohort[name] for name in cohort]
    known = [slide.obs["domain"].notna().to_numpy() for slide in slides]
    space = np.concatenate([z[k] for z, k in zip(one_hot(slides), known, strict=True)])
    truth = np.concatenate([s.obs["domain"][k] for s, k in zip(slides, known, strict=True)])
    wanted = batch_mixing(space, truth, np.repeat(list(cohort), [k.sum() for k in known]))
    row = found[1]["domains_mixing"].set_index("method").loc["oracle"]
    assert {name: row[name] for name in wanted} == pytest.approx(wanted, abs=1e-6)
    table = table_of(found)
    assert table.loc["mixes", "ilisi"] > table.loc["apart", "ilisi"] + 0.3


def test_without_scib_metrics_a_note_says_so_and_labels_are_carried(cohort, labels, monkeypatch):
    monkeypatch.setitem(sys.modules, "scib_metrics", None)
    tables, _, notes = integration(cohort, labels, [ORACLE], "domain")
    [table] = tables.values()
    assert "ilisi" not in table
    assert any("pip install sagefm[evaluate]" in note for note in notes)


def test_a_method_that_fails_is_left_out_and_slides_alone_are_no_group(cohort, labels):
    def fails(slides, learn_from):
        raise InputError("no common genes; give some")

    broken = Embedding("broken", "baseline", fails)
    tables, _, notes = integration(cohort, labels, [broken, ORACLE], "domain")
    assert list(next(iter(tables.values()))["method"]) == ["oracle"]
    assert any("broken is left out of s0, s1, s2 together: no common genes" in n for n in notes)
    alone = {name: {f"{name} {i}" for i in range(3)} for name in labels}
    assert integration(cohort, alone, [ORACLE], "domain") == ({}, {}, [])
