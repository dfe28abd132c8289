"""The verb evaluate, as a user types it."""

import json
import re

import numpy as np
import pandas as pd
import pytest

from sagefm.cli import evaluation
from sagefm.evaluate import Cohort, _scorecard
from sagefm.evaluate.baselines import embeddings
from sagefm.evaluate.baselines.clustering import Clustering
from sagefm.model import Config, SageFM
from sagefm.pp.simulate import simulate
from sagefm.pp.vocabulary import Vocabulary
from sagefm.pp.writing import write_slide


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("evaluate")
    few = {"genes": simulate(15).var_names[:300], "biology_seed": 1}
    for i in (1, 2):
        slide = simulate(100, seed=i, patient=f"p{i}", slide=f"s{i}", **few)
        write_slide(slide, place / f"s{i}.h5ad")
    vocabulary = Vocabulary(tuple(slide.var_names[:200]))
    SageFM.new(vocabulary, Config(widths=(16, 12, 12, 12, 14))).save(place / "net.safetensors")
    return place


@pytest.fixture
def run(run, folder, monkeypatch):
    """With few baselines, whose own tests are elsewhere."""
    kept = {"raw HVG", "PCA", "joint PCA", "net", "random weights", "random numbers"}
    every = _scorecard.competitors
    monkeypatch.setattr(
        _scorecard,
        "competitors",
        lambda *given, **how: [one for one in every(*given, **how) if one.name in kept],
    )
    monkeypatch.setattr(embeddings, "N_DRAWS", 1)
    halves = Clustering(
        "halves", "model", lambda slide, *_: np.where(np.arange(len(slide)) % 2, "1", "2")
    )
    monkeypatch.setattr(_scorecard, "CONSENSUS", halves)
    monkeypatch.chdir(folder)
    return lambda *words: run("evaluate", *words)


def test_a_users_own_two_slides(run, folder):
    """All protocols that two labeled slides allow; a second call does nothing again."""
    words = ["--slides", "s1.h5ad", "s2.h5ad", "-m", "net.safetensors", "--label-key", "domain"]
    words += ["--no-mofa", "-o", "card"]
    status, _, err = run(*words)
    assert status == 0, err
    assert "subtype is left out: a label per slide is needed" in err
    card = folder / "card"
    held = json.loads((card / "scorecard.json").read_text())
    assert set(held["protocols"]) == {"recovery", "imputation", "domains", "annotation"}
    assert held["command"].startswith("sagefm evaluate --slides s1.h5ad s2.h5ad")
    assert held["settings"]["seed"] == 0
    assert len(held["slides"]["s1"]["checksum"]) == 64
    for protocol in held["protocols"].values():
        for rows in protocol["summary"].values():
            assert all("n_slides" in row and "kind" in row for row in rows)
    page = (card / "scorecard.md").read_text()
    assert "neighbor mean" in page
    assert (card / "scorecard.csv").is_file()
    html = (card / "scorecard.html").read_text()
    assert "neighbor mean" in html
    assert "sagefm evaluate --slides s1.h5ad" in html
    assert html.count("data:image/png;base64,") == page.count("![")
    assert not [link for link in re.findall(r'(?:src|href)="([^"]*)"', html)
                if not link.startswith(("data:image/png", "#"))]  # fmt: skip
    widths = [line.count("|") - 1 for line in page.splitlines() if line.startswith("|")]
    assert max(widths) <= 8
    for line in page.splitlines():
        if line.startswith("!["):
            assert (card / line.split("](")[1][:-1]).is_file()
    before = (card / "recovery" / "result.json").stat().st_mtime_ns
    status, _, err = run(*words)
    assert status == 0
    assert "recovery: already done" in err
    assert (card / "recovery" / "result.json").stat().st_mtime_ns == before


def test_another_scorecard_is_not_mixed_in(run, folder):
    words = ["--slides", "s1.h5ad", "--protocol", "domains", "--no-mofa", "-o", "other"]
    assert run(*words, "--label-key", "domain")[0] == 0
    status, _, err = run(*words, "--label-key", "domain", "--seed", "1")
    assert status == 2
    assert "--overwrite" in err


def test_a_subtype_that_cannot_be_learned_is_left_out_of_all(folder, capsys):
    """And told before the other protocols take their time."""
    facts = pd.DataFrame({"grade": ["low", "high"]}, index=["s1", "s2"])
    cohort = Cohort({name: folder / f"{name}.h5ad" for name in facts.index}, facts=facts)
    found = evaluation._protocols(["all"], cohort, "domain", "grade")
    assert found == ["recovery", "imputation", "domains", "annotation"]
    said = capsys.readouterr().err
    assert said.startswith("subtype is left out: grade: at least two classes")


def test_a_page_covers_what_earlier_calls_did(run, folder):
    words = ["--slides", "s1.h5ad", "--no-mofa", "--label-key", "domain", "-o", "grows"]
    assert run(*words, "--protocol", "domains")[0] == 0
    assert run(*words, "--protocol", "recovery")[0] == 0
    page = (folder / "grows" / "scorecard.md").read_text()
    assert "## Recovery" in page
    assert "## Domains" in page


def test_counts_of_a_layer_are_what_every_protocol_sees():
    slide = simulate(60, seed=1)
    plain = Cohort({"s": slide})
    other = slide.copy()
    other.layers["raw counts"] = slide.X.copy()
    other.X = slide.X.log1p()
    found = Cohort({"s": other}, layer="raw counts")["s"]
    assert (found.X != plain["s"].X).nnz == 0
    assert list(found.obs) == list(slide.obs)


def test_new_labels_make_another_scorecard():
    slide = simulate(60, seed=1)
    before = Cohort({"s": slide}).table["checksum"]["s"]
    slide.obs["domain"] = slide.obs["domain"].astype(str).replace("D1", "D2")
    assert Cohort({"s": slide}).table["checksum"]["s"] != before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--slides", "nothing.h5ad"], "nothing.h5ad"),
        (["--slides", "s1.h5ad", "--protocol", "magic"], "magic"),
        (["--slides", "s1.h5ad", "--protocol", "subtype"], "--subtype-key"),
        (["--slides", "s1.h5ad", "--protocol", "subtype", "--subtype-key", "domain"], "several"),
        (["--slides", "s1.h5ad", "--table", "none.csv"], "none.csv"),
        (["--slides", "s1.h5ad", "--label-key", "tissue"], "no slide has labels"),
        (["--slides", "s1.h5ad", "-m", "s1.h5ad"], "s1.h5ad"),
    ],
)
def test_bad_input_is_one_clear_line(run, words, said):
    status, _, err = run(*words, "-o", "bad")
    assert status == 2
    assert said in err.splitlines()[-1]
