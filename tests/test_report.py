"""What a slide shows of a model: the facts, the verdicts, and the page."""

import base64
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import anndata as ad
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

mpl.use("Agg")

import sagefm
from sagefm import InputError, SageFM, report
from sagefm.evaluate import Cohort, recovery
from sagefm.evaluate.protocols.masks import FRACTION
from sagefm.model import Config
from sagefm.nn import draw_masks
from sagefm.pp.detection import most_detected
from sagefm.pp.neighborhood import average
from sagefm.pp.simulate import simulate
from sagefm.report import rules
from sagefm.report.recovery import LIBRARY_SIZE
from sagefm.report.rendering import picture
from sagefm.stats.reference import ReferenceSpots


@pytest.fixture(scope="module")
def learned(model, slide):
    """The model, knowing two slides that it was trained on."""
    both = [model.embed(simulate(150, seed=seed)) for seed in (3, 4)]
    row = {"spots": 150, "counts": 3000.0, "genes": 478, "measured": 1.0}
    records = {"trained_slides": {"a": row, "b": row}}
    sample = ReferenceSpots.learn(both, ["a", "b"])
    return replace(model, trained_on=sample, provenance=model.provenance | records)


@pytest.fixture(scope="module")
def judged(learned, slide):
    held = slide.copy()
    return held, report.quality(held, learned)


def dense(matrix):
    return np.asarray(matrix.todense(), dtype=np.float64)


def test_depth_genes_and_what_the_model_sees(judged, model):
    slide, found = judged
    counts = dense(slide.X)
    assert found.spots["counts"].tolist() == counts.sum(axis=1).tolist()
    assert found.spots["genes"].tolist() == (counts > 0).sum(axis=1).tolist()
    value = found.facts["value"]
    assert value["spots"] == 200
    assert value["counts"] == np.median(counts.sum(axis=1))
    assert value["genes"] == np.median((counts > 0).sum(axis=1))
    assert value["model_genes"] == 476 / 478
    seen = slide.var_names.isin(list(model.vocabulary))
    assert value["model_counts"] == pytest.approx(counts[:, seen].sum() / counts.sum())


def test_novelty_is_that_of_what_the_model_was_trained_on(judged, learned):
    slide, found = judged
    novelty = learned.trained_on.novelty(learned.embed(slide))
    np.testing.assert_array_equal(found.spots["novelty"], novelty)
    assert found.facts.loc["novelty", "value"] == np.median(novelty)
    assert found.facts.loc["novel", "value"] == (novelty > 0.95).mean()


def test_recovery_is_that_computed_the_slow_way(judged, model):
    """On one block, spots in the order of the curve: masks, errors and correlations."""
    from sagefm.pp.curve import along_curve

    slide, found = judged
    prepared = model.prepare(slide)
    order = along_curve(slide.obsm["spatial"])
    measured = np.flatnonzero(prepared.measured)
    drawn = draw_masks(200, len(measured), 0.3, np.random.default_rng(0)).dense().numpy()
    hidden = np.zeros((200, len(model.vocabulary)), dtype=bool)
    hidden[np.ix_(order, measured)] = drawn
    truth = dense(prepared.log1p)
    often = (truth > 0).mean(axis=0) > 0.1
    scored = hidden & often
    guesses = {
        "model": model.predict(prepared, hidden=hidden),
        "neighbor mean": dense(average(prepared.neighbors, center=False) @ prepared.log1p),
        "gene mean": np.broadcast_to(truth.mean(axis=0), truth.shape),
    }
    symbols = list(model.vocabulary)
    for name, guess in guesses.items():
        error = ((guess - truth) ** 2)[scored].mean()
        assert found.methods.loc[name, "error"] == pytest.approx(error, rel=1e-4)
    for name in ("model", "neighbor mean"):
        own = found.genes[found.genes["method"] == name].set_index("gene")
        assert own.index.tolist() == [symbols[i] for i in np.flatnonzero(often)]
        for i in np.flatnonzero(often)[:20]:
            here = hidden[:, i]
            constant = np.ptp(guesses[name][here, i]) == 0  # explains nothing
            r = 0 if constant else np.corrcoef(truth[here, i], guesses[name][here, i])[0, 1]
            assert own.loc[symbols[i], "r_within"] == pytest.approx(r, abs=1e-4)
    squared = np.where(scored, (guesses["model"] - truth) ** 2, 0).sum(axis=1) / scored.sum(axis=1)
    np.testing.assert_allclose(found.spots["error"], squared, rtol=1e-4)
    ratio = found.methods["error"]["model"] / found.methods["error"]["neighbor mean"]
    assert found.facts.loc["error_neighbor_mean", "value"] == pytest.approx(ratio)


def test_the_baselines_are_those_of_the_scorecard(slide, model, learned):
    """The same methods, ranked the same, on other draws of what is hidden."""
    ours = report.quality(slide.copy(), learned).methods
    card = recovery(Cohort({"s": slide}), {"model": model}, seed=1)
    table = card.details["recovery_genes"]
    table = table[table["task"] == "random genes of the center"]
    for method in ("model", "neighbor mean", LIBRARY_SIZE, "neighbor profile × library size"):
        own = table[table["method"] == method]
        theirs = np.average(own["mse"], weights=own["n"])
        assert ours.loc[method, "error"] == pytest.approx(theirs, rel=0.05)
        assert ours.loc[method, "r"] == pytest.approx(own["r_within"].median(), abs=0.05)
    assert FRACTION == 0.3


def test_blocks_make_no_difference(slide, learned, judged, monkeypatch):
    monkeypatch.setattr("sagefm.report.recovery._BLOCK", 37)
    again = report.quality(slide.copy(), learned)
    pd.testing.assert_frame_equal(again.facts, judged[1].facts, rtol=1e-4)
    pd.testing.assert_frame_equal(again.spots, judged[1].spots, rtol=1e-3)


def test_chance_comes_from_the_seed_alone(slide, learned, judged):
    one, other = (report.quality(slide.copy(), learned, seed=seed) for seed in (0, 1))
    pd.testing.assert_frame_equal(one.facts, judged[1].facts)
    assert not one.spots["error"].equals(other.spots["error"])


def test_the_result_stays_with_the_slide(judged, tmp_path):
    slide, found = judged
    slide.write_h5ad(tmp_path / "s.h5ad")
    again = ad.read_h5ad(tmp_path / "s.h5ad")
    kept = again.uns["sagefm"]["quality"]
    pd.testing.assert_frame_equal(again.obsm["sagefm_quality"], found.spots)
    for name in ("facts", "verdicts", "methods", "genes"):
        table = getattr(found, name)
        assert kept[name].index.tolist() == table.index.tolist()
        assert kept[name].astype(str).to_numpy().tolist() == table.astype(str).to_numpy().tolist()
    assert kept["fingerprint"] == found.made["fingerprint"]


def test_several_slides_in_one_object_do_not_see_each_other(slide, learned):
    both = ad.concat({"a": slide, "b": slide}, label="section", index_unique="-")
    found = report.quality(both, learned, slide_key="section")
    alone = report.quality(slide.copy(), learned)
    np.testing.assert_allclose(found.spots["error"][:200], alone.spots["error"], rtol=1e-3)
    np.testing.assert_allclose(found.spots["error"][200:], alone.spots["error"], rtol=1e-3)
    np.testing.assert_allclose(found.methods, alone.methods, rtol=1e-3, atol=1e-6)
    with pytest.raises(InputError, match="slide_key"):
        report.quality(both, learned)


def test_a_model_that_does_not_know_its_training_is_never_supported(slide, model):
    found = report.quality(slide.copy(), model)
    assert found.facts.loc[["novelty", "novel"], "shown"].tolist() == ["not known"] * 2
    assert found.facts.loc["novel", "grade"] == "unknown"
    assert found.verdicts["verdict"].ne("supported").all()


def test_a_model_of_one_slide_calls_no_other_unlike_all_it_knows(slide, model):
    z = model.embed(slide)
    one = replace(model, trained_on=ReferenceSpots.learn([z * 1e-3], ["a"]))
    two = replace(
        model, trained_on=ReferenceSpots.learn([z[:99] * 1e-3, z[99:] * 1e-3], ["a", "b"])
    )
    grades = [report.quality(slide.copy(), m).facts.loc["novel", "grade"] for m in (one, two)]
    assert grades == ["care", "bad"]


def test_without_a_model_there_are_facts_and_no_verdict(slide):
    found = report.quality(slide.copy())
    assert found.facts.index.tolist() == ["spots", "counts", "genes"]
    assert not len(found.verdicts)
    assert found.spots.columns.tolist() == ["counts", "genes"]


def test_a_slide_of_rare_genes_has_nothing_to_score(slide, learned, no_pictures):
    rare = slide.copy()
    counts = slide.X.toarray()
    keep = np.random.default_rng(0).random(counts.shape) < 0.05
    rare.X = csr_matrix(np.where(keep, np.minimum(counts, 1), 0).astype(np.float32))
    found = report.quality(rare, learned)
    assert found.facts.loc["error_neighbor_mean", "shown"] == "not known"
    assert "nothing to score" in found.facts.loc["error_neighbor_mean", "said"]
    assert found.verdicts.loc[rules.EMBEDDING, "verdict"] == "do not"  # of its depth
    assert "Recovery of masked genes" not in report.page(rare, found, name="rare")


def test_without_a_model_a_slide_is_described_without_torch():
    code = (
        "import sys; from sagefm import report; report.contents, report.remarks\n"
        "print({'torch', 'matplotlib', 'sklearn'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("share", [0.0, 1.0, -0.3, float("nan")])
def test_a_share_to_hide_is_a_share(slide, model, share):
    with pytest.raises(InputError, match="mask_fraction"):
        report.quality(slide.copy(), model, mask_fraction=share)


@pytest.mark.parametrize("rule", report.RULES, ids=lambda rule: rule.name)
def test_every_rule_grades_in_order_and_says_so(rule):
    sign = -1 if rule.less else 1
    assert sign * rule.good >= sign * rule.care
    assert rule.grade(rule.good) == "good"
    assert rule.grade(rule.good - sign * 1e-6) == ("bad" if rule.good == rule.care else "care")
    if np.isfinite(rule.care):
        assert rule.grade(rule.care) == "care"
        assert rule.grade(rule.care - sign * 1e-6) == "bad"
    assert rule.grade(float("nan")) == "unknown"
    possible = {"good", "care", *(["bad"] if np.isfinite(rule.care) else [])}
    assert possible <= set(rule.said)


@given(st.sampled_from(report.RULES), st.floats(-10, 1e5), st.floats(-10, 1e5))
def test_better_values_have_no_worse_grades(rule, one, other):
    worse, better = sorted((one, other), reverse=rule.less)
    order = ["bad", "care", "good"]
    assert order.index(rule.grade(worse)) <= order.index(rule.grade(better))


def test_the_verdict_is_the_worst_grade_that_counts():
    good = {rule.name: ("good", rule.said["good"]) for rule in report.RULES}
    assert rules.verdict(rules.IMPUTATION, good)[0] == "supported"
    lost = good | {"error_neighbor_mean": ("bad", "The neighbors are better.")}
    both = lost | {"counts": ("care", "Shallow.")}
    for use in (rules.IMPUTATION, rules.PERTURBATION):
        assert rules.verdict(use, lost) == ("do not", "The neighbors are better.")
        assert rules.verdict(use, both) == ("do not", "The neighbors are better.")
    twice = good | dict.fromkeys(("novel", "novelty"), ("unknown", "Who knows."))
    assert rules.verdict(rules.IMPUTATION, twice) == ("with care", "Who knows.")
    far = twice | {"novel": ("bad", "Unlike all.")}
    for use in rules.USES:
        assert rules.verdict(use, far) == ("do not", "Unlike all.")


@pytest.mark.parametrize("use", [rules.EMBEDDING, rules.PERTURBATION])
def test_masked_genes_are_no_evidence_for_domains_and_perturbation(use):
    good = {rule.name: ("good", rule.said["good"]) for rule in report.RULES}
    for grade in ("good", "care", "unknown"):
        verdict, reason = rules.verdict(use, good | {"counts": (grade, "Of the counts.")})
        assert verdict == "not shown"
        assert reason.startswith("No number here shows")
        assert reason.endswith("Of the counts.") == (grade != "good")


def test_no_gene_in_common_is_refused(slide, learned):
    other = slide.copy()
    other.var_names = [f"Gene{i}a" for i in range(slide.n_vars)]
    with pytest.raises(InputError, match="look like mouse genes"):
        report.quality(other, learned)
    assert "sagefm_quality" not in other.obsm


class Page(HTMLParser):
    """What stands on a page; complains of tags that are not closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.words = [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip() and self.open[-1] != "style":
            self.words.append(data.strip())

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture(scope="module")
def text(judged):
    return report.page(*judged, name='<b>&"x"')


def test_the_page_needs_nothing_but_itself(text):
    page = Page(text)
    assert not {name for name, _ in page.tags} & {"script", "link", "iframe", "object"}
    assert "http" not in text
    assert "url(" not in text
    for image in page.all("img"):
        assert image["alt"]
        kind, data = image["src"].split(",")
        assert kind == "data:image/png;base64"
        assert base64.b64decode(data, validate=True).startswith(b"\x89PNG")
    assert len(page.all("img")) == 2
    assert page.all("html") == [{"lang": "en"}]
    assert all(cell["scope"] in ("row", "col") for cell in page.all("th"))


@pytest.fixture
def no_pictures(monkeypatch):
    for name in ("_maps", "_genes"):
        monkeypatch.setattr(f"sagefm.report.html.{name}", lambda *_: picture(b"", ""))


def test_the_page_escapes_what_others_wrote(text, judged, no_pictures):
    assert "<b>" not in text
    assert "&lt;b&gt;&amp;&#34;x&#34;" in text
    slide = judged[0].copy()
    slide.uns["sagefm"]["read"] = {"told": ["<script>alert(1)</script>"]}
    again = report.page(slide, judged[1], name="s")
    assert "<script" not in again
    assert "&lt;script&gt;alert(1)" in again


def test_the_page_says_the_verdict_the_facts_and_the_rules(text, judged):
    words = " ".join(Page(text).words)
    found = judged[1]
    for use, row in found.verdicts.iterrows():
        assert f"{use}: {row['verdict']}" in words
        assert row["reason"] in words
    assert words.index("embedding and domains:") < words.index("Facts fact value")
    for _, fact in found.facts.iterrows():
        assert fact["said"] in words
        assert fact["shown"] in words
    for rule in report.RULES:
        assert rule.why in words
    for method in found.methods.index:
        assert method in words
    assert found.made["fingerprint"] in words
    assert "No problem was found" not in words or not sagefm.pp.check(judged[0])


def test_a_page_without_a_model(slide):
    held = slide.copy()
    text = report.page(held, report.quality(held), name="s")
    words = " ".join(Page(text).words)
    assert "No model was given: there is no verdict" in words
    assert len(Page(text).all("img")) == 1
    assert not re.search(r"neighbor|novelty", words)


def test_a_real_slide_of_few_genes(shared):
    """A liver of which 2,000 genes were kept, and the genes of a breast."""
    breast, liver = (
        sagefm.read(shared / "slides" / f"{n}.h5ad") for n in ("her2st_C1", "hcc_HCC1")
    )
    common = most_detected([breast], [np.ones(breast.n_obs, dtype=bool)], 1500)
    model = SageFM.new(common, Config(widths=(24, 16, 16, 16, 20)))
    z = model.embed(breast)
    model.trained_on = ReferenceSpots.learn([z], ["C"])
    found = report.quality(liver, model)
    assert found.verdicts["verdict"].tolist() == ["do not"] * 3
    assert found.facts.loc["model_genes", "grade"] == "bad"
    assert found.facts["value"].notna().all()
    assert found.spots.notna().all(axis=None)
    simple = found.methods.drop("model")
    assert simple.index[-1] == "gene mean"
    assert (simple["r"].drop("gene mean") > 0.1).all()
