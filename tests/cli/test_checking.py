"""The verb check, as a user types it."""

import os
import sys
from dataclasses import replace

import anndata as ad
import numpy as np
import pytest

import sagefm
from sagefm import cli, report
from sagefm.stats.reference import ReferenceSpots


@pytest.fixture
def run(monkeypatch, capsys, tmp_path, slide, model):
    """Run `sagefm check ...` in a folder with a slide and a model."""
    monkeypatch.chdir(tmp_path)
    slide.write_h5ad("s.h5ad")
    z = model.embed(slide)
    learned = replace(model, trained_on=ReferenceSpots.learn([z[:100], z[100:]], ["a", "b"]))
    learned.save("m.safetensors")

    def command(*words):
        monkeypatch.setattr(sys, "argv", ["sagefm", "check", *map(str, words)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        return stopped.value.code or 0, *capsys.readouterr()

    return command


def test_the_verdict_and_the_facts_behind_it(run):
    status, out, err = run("s.h5ad", "-m", "m.safetensors", "--device", "cpu", "--seed", 3)
    assert status == 0, err
    model = sagefm.SageFM.load("m.safetensors", device="cpu")
    found = report.quality(sagefm.read("s.h5ad"), model, seed=3)
    lines = out.splitlines()
    for _, fact in found.facts.iterrows():
        assert f"{fact['grade']:<16} {fact['what']}: {fact['shown']}. {fact['said']}" in lines
    for use, row in found.verdicts.iterrows():
        assert f"{'verdict':<16} {use}: {row['verdict']}. {row['reason']}" in lines
    assert any(line.startswith("spots            200") for line in lines)
    assert "matched 476 of 478 model genes" in out
    assert sorted(os.listdir()) == ["m.safetensors", "s.h5ad"]


def test_all_of_it_as_a_page(run):
    status, out, err = run("s.h5ad", "-m", "m.safetensors", "--page", "new/q.html")
    assert status == 0, err
    assert out.splitlines()[-1] == "page             new/q.html"
    assert os.listdir("new") == ["q.html"]
    slide, model = sagefm.read("s.h5ad"), sagefm.SageFM.load("m.safetensors")
    wanted = report.page(slide, report.quality(slide, model), name="s")
    with open("new/q.html", encoding="utf-8") as page:
        assert page.read() == wanted


def test_a_page_without_a_model_of_a_file_with_an_odd_name(run):
    os.rename("s.h5ad", "a<b>&c.h5ad")
    status, out, err = run("a<b>&c.h5ad", "--page", "q.html")
    assert status == 0, err
    assert "verdict" not in out
    with open("q.html", encoding="utf-8") as page:
        text = page.read()
    assert "a&lt;b&gt;&amp;c" in text
    assert "<b>" not in text
    assert "No model was given" in text


def test_without_model_and_page_nothing_more_is_said(run):
    status, out, _ = run("s.h5ad")
    assert status == 0
    assert "good" not in out
    assert "verdict" not in out


def test_several_slides_in_one_file(run, slide):
    ad.concat({"a": slide, "b": slide}, label="section", index_unique="-").write_h5ad("b.h5ad")
    words = ["-m", "m.safetensors", "--slide-key", "section", "--page", "q.html"]
    status, out, err = run("b.h5ad", *words)
    assert status == 0, err
    assert "good             spots: 400." in out
    with open("q.html", encoding="utf-8") as page:
        assert "The first of 2 slides is drawn." in page.read()


def log_normalized(slide):
    slide.X = slide.X.log1p() * 0.7


def few_spots(slide):
    slide._inplace_subset_obs(slide.obs_names[:10])


def strange_genes(slide):
    slide.var_names = [f"Gene{i}a" for i in range(slide.n_vars)]


def nan(slide):
    slide.X.data[3] = np.nan


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (log_normalized, "it looks log-normalized"),
        (few_spots, "has 10 spots, but a neighborhood needs 15"),
        (strange_genes, "map them to human orthologs first"),
        (nan, "1 NaN or infinite value"),
    ],
)
def test_a_bad_slide_is_one_line_and_no_page(run, slide, spoil, said):
    bad = slide.copy()
    spoil(bad)
    bad.write_h5ad("bad.h5ad")
    status, _, err = run("bad.h5ad", "-m", "m.safetensors", "--page", "q.html")
    assert status == 2
    assert err.startswith("error: bad.h5ad: ")
    assert said in err
    assert len(err.splitlines()) == 1
    assert sorted(os.listdir()) == ["bad.h5ad", "m.safetensors", "s.h5ad"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["s.h5ad", "--page", "q.pdf"], "q.pdf: give it a name that ends with .html"),
        (["s.h5ad", "--page", "s.h5ad/q.html"], "s.h5ad/q.html: cannot be written"),
        (["x.h5ad", "--page", "q.html"], "x.h5ad: does not exist"),
        (["s.h5ad", "-m", "x.safetensors", "--page", "q.html"], "x.safetensors: no such file"),
        (
            ["s.h5ad", "-m", "m.safetensors", "--device", "nonsense"],
            "is not available on this machine",
        ),
    ],
)
def test_bad_words_are_one_line_and_no_page(run, words, said):
    status, out, err = run(*words)
    assert status == 2
    assert said in err
    assert len(err.splitlines()) == 1
    assert not out
    assert sorted(os.listdir()) == ["m.safetensors", "s.h5ad"]


def test_a_full_disk_leaves_the_old_page(run, monkeypatch):
    with open("q.html", "w") as page:
        page.write("old")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", full)
    status, _, err = run("s.h5ad", "--page", "q.html", "--overwrite")
    assert status == 2
    assert "No space left" in err
    assert sorted(os.listdir()) == ["m.safetensors", "q.html", "s.h5ad"]
    with open("q.html") as page:
        assert page.read() == "old"
