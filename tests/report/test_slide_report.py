"""The report on a slide, and the index of several."""

import re
from dataclasses import replace

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

mpl.use("Agg")

import importlib.util
from pathlib import Path

from sagefm import report
from sagefm.pp.simulate import simulate
from sagefm.report import SlideReport, index_page, slide_report
from sagefm.report.rendering import figure_png, figure_svg
from sagefm.report.slide import overview
from sagefm.report.slide.organ import groups_of, some_of_each, well_known

_spec = importlib.util.spec_from_file_location("pages", Path(__file__).with_name("pages.py"))
pages = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(pages)
Page = pages.Page

HOSTILE = '<img src=x onerror="alert(1)">'
SECTIONS = ["quality", "tissue", "domains", "recovery", "imputable", "rare", "limits", "made"]


@pytest.fixture(scope="module")
def given(slide):
    """A slide with an organ, and with a gene of a hostile name in all domains."""
    held = slide.copy()
    held.obs["organ"] = "breast"
    names = held.var_names.to_numpy().copy()
    most = np.asarray(held.X.sum(axis=0)).ravel().argsort()[::-1]
    names[most[:40]] = [f"{HOSTILE}{i}" for i in range(40)]
    held.var_names = names
    return held


@pytest.fixture(scope="module")
def made(given, model):
    return slide_report(
        given, model, name=f"a {HOSTILE}", n_domains=3, command="sagefm report a.h5ad -o a.html",
        path="a.h5ad",
    )  # fmt: skip


def test_the_page_is_valid_and_needs_nothing_but_itself(made):
    page = Page(made.page)
    assert [attrs["id"] for attrs in page.all("section")] == SECTIONS
    links = [attrs["href"] for attrs in page.all("a")]
    assert links == [f"#{name}" for name in SECTIONS]
    assert len(made.page) < 5e6
    assert "@page" in made.page


def test_names_of_others_are_text(made):
    assert "<img src=x" not in made.page
    assert HOSTILE in Page(made.page).text


def test_the_verdict_comes_first_and_in_words(made, given, model):
    found = report.quality(given.copy(), model)
    text = Page(made.page).text
    for use, row in found.verdicts.iterrows():
        assert made.verdicts[use] == row["verdict"]
        assert text.index(f"{use}: {row['verdict']}") < text.index("Counts per spot, genes per")
        assert row["reason"] in text
    assert made.spots == 200
    assert made.counts == found.facts["value"]["counts"]


def test_domains_have_their_numbers_on_the_page_and_not_only_colors(made):
    badges = re.findall(r'class="badge"[^>]*>([^<]+)<', made.page)
    assert badges == ["1", "2", "3"]
    assert made.n_domains == 3
    assert "3 domains were requested." in Page(made.page).text


def test_the_page_says_how_to_repeat_it(made, model):
    text = Page(made.page).text
    assert model.fingerprint in text
    assert "sagefm report a.h5ad -o a.html" in text
    assert "sagefm domains a.h5ad -n 3 --seed 0 -o domains.h5ad" in text
    assert "seed 0" in text
    assert re.search(r"torch \d", text)


def test_the_slide_of_the_caller_is_not_changed(given, made):
    assert "sagefm_domain" not in given.obs
    assert "sagefm_quality" not in given.obsm
    assert "sagefm_domain_colors" not in given.uns


def test_what_cannot_be_shown_says_why_and_the_rest_is_there():
    tiny = simulate(30, seed=1)
    made = slide_report(tiny, None, name="tiny", copy=False)
    text = Page(made.page).text
    assert made.grade == "bad"
    assert "Too little was measured: do not rely on the domains and genes below" in text
    assert "too few to choose a number of domains" in text
    assert "too few to find rare ones" in text
    assert text.count("No model was given") == 3
    assert "sagefm impute" not in text
    assert made.n_domains is None
    assert made.preview["source"].startswith("data:image/png")
    assert "sagefm_quality" in tiny.obsm  # it was not copied


def test_a_model_that_does_not_fit_leaves_the_rest(slide, model):
    other = slide[:30].copy()
    other.var_names = [f"Gene{i}a" for i in range(slide.n_vars)]
    text = Page(slide_report(other, model).page).text
    assert "look like mouse genes" in text
    assert "domains" in text


def test_a_slide_that_was_trained_on_supports_nothing():
    verdicts = pd.DataFrame(
        {"verdict": ["supported", "do not"], "reason": ["It is better.", "Too few genes."]},
        index=["imputation", "perturbation"],
    )
    withdrawn = overview.of_a_known_slide(verdicts)
    assert withdrawn["verdict"].tolist() == ["not shown", "do not"]
    assert "among the training slides" in withdrawn.loc["imputation", "reason"]
    assert verdicts["verdict"].tolist() == ["supported", "do not"]


def test_the_model_is_shown_adapted_and_as_it_is(slide, context_model):
    part = slide[:120].copy()
    plain = report.quality(part.copy(), context_model)
    both = report.quality(part.copy(), context_model, compare_unadapted=True)
    alone = report.quality(part.copy(), context_model, adapt=False)
    same = both.methods.drop("model, not adapted")
    assert same.to_dict() == plain.methods.to_dict()
    assert both.verdicts.equals(plain.verdicts)
    assert both.methods.loc["model, not adapted"].to_dict() == pytest.approx(
        alone.methods.loc["model"].to_dict()
    )


def test_names_are_of_the_organ_of_the_slide():
    assert groups_of("Mammary gland") == ("breast",)
    assert groups_of("brain DLPFC") == ("brain", "cortex")
    assert groups_of("nobody knows") == ()
    known = well_known(["general", "breast"])
    assert known["ANKRD30A"].endswith("breast")
    assert "GFAP" not in known
    genes = ["CD3D", "CD3E", "CD3G", "ANKRD30A", "CD2"]
    assert some_of_each(genes, ["general", "breast"], 2) == ["ANKRD30A", "CD3D"]
    assert some_of_each(genes, ["general"], 2) == ["CD3D", "CD3E"]


def test_the_index_has_the_worst_slides_last_and_those_that_failed(made):
    use = "imputation"
    reports = [
        replace(made, name=name, grade=grade, counts=counts, verdicts={use: verdict})
        for name, grade, counts, verdict in (
            ("bad one", "bad", 90, "do not"), ("deep", "good", 9000, "supported"),
            ("doubtful", "good", 9500, "with care"), ("shallow", "good", 500, "supported"),
            (f"x {HOSTILE}", "care", 400, "with care"),
        )
    ]  # fmt: skip
    page = Page(index_page(reports, {"broken": "has no counts"}, command="sagefm report *"))
    files = [attrs["href"] for attrs in page.all("a")]
    assert files[:3] == ["deep.html", "shallow.html", "doubtful.html"]
    assert files[-1] == "bad%20one.html"
    assert "broken : has no counts" in page.text
    assert len(page.all("img")) == 5


def test_an_index_of_slides_that_all_failed_is_a_page():
    assert "why" in Page(index_page([], {"a": "why"})).text


def test_figures_are_encoded_with_their_size_and_closed():
    for encode, kind in ((figure_png, "png"), (figure_svg, "svg+xml")):
        figure, ax = plt.subplots(figsize=(2, 1))
        ax.plot([0, 1])
        shown = encode(figure, "a line")
        assert shown["source"].startswith(f"data:image/{kind};base64,")
        assert shown["alt"] == shown["caption"] == "a line"
        assert 100 < shown["width"] < 300
        assert not plt.fignums() if hasattr(plt, "fignums") else not plt.get_fignums()


def test_a_report_holds_what_an_index_needs():
    assert SlideReport("a", "<html>", "good").verdicts == {}
