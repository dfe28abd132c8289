"""The command ``sagefm report``."""

from pathlib import Path

import numpy as np
import pytest

from sagefm.pp.simulate import simulate


@pytest.fixture
def files(tmp_path):
    for name, seed in (("a", 1), ("b", 2)):
        simulate(40, seed=seed).write_h5ad(tmp_path / f"{name}.h5ad")
    bad = simulate(40, seed=3)
    bad.X = np.log1p(bad.X.toarray() / 7)
    bad.write_h5ad(tmp_path / "bad.h5ad")
    return tmp_path


def test_one_slide_is_one_page_called_after_it(run, files):
    status, out, err = run("report", "a.h5ad", "-m", "none", "-n", "2")
    assert status == 0, err
    assert out.startswith("a.html: the slide: ")
    assert "2 domains" in out
    assert "sagefm report a.h5ad -m none -n 2" in Path("a.html").read_text()


def test_what_is_there_stays_unless_it_was_made_from_the_slide(run, files):
    Path("a.html").write_text("mine")
    status, _, err = run("report", "a.h5ad", "-m", "none")
    assert status == 2
    assert "a.html: exists already" in err
    assert Path("a.html").read_text() == "mine"
    words = ("report", "a.h5ad", "-m", "none", "-n", "2", "-o", "p.html")
    assert run(*words)[0] == run(*words)[0] == 0  # its own is replaced


def test_several_slides_are_pages_with_an_index_and_one_that_fails_stops_no_other(run, files):
    status, out, err = run(
        "report", "a.h5ad", "bad.h5ad", "b.h5ad", "-m", "none", "-n", "2", "--workers", 1
    )
    assert status == 2
    failed, last = err.strip().splitlines()[-2:]
    assert failed.startswith("failed: bad.h5ad: ")
    assert last.startswith("error: 1 of 3 slides failed and are not in report")
    assert sorted(path.name for path in Path("report").glob("[a-z]*")) == [
        "a.html", "b.html", "index.html"
    ]  # fmt: skip
    index = Path("report/index.html").read_text()
    assert 'href="a.html"' in index
    assert "bad.h5ad: " in index
    assert "report/index.html: 2 slides" in out
    made = Path("report/a.html").stat().st_mtime_ns
    status, out, err = run("report", "a.h5ad", "b.h5ad", "-m", "none", "-n", "2")
    assert status == 0, err
    assert "0 done, 2 already there" in out
    assert Path("report/a.html").stat().st_mtime_ns == made
    again = Path("report/index.html").read_text()
    assert 'href="a.html"' in again  # an index of pages that were there before
    assert "bad.h5ad: " not in again


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["bad.h5ad"], "bad.h5ad: "),
        (["none.h5ad"], "none.h5ad: does not exist"),
        (["a.h5ad", "-o", "a.pdf"], "a.pdf: give it a name that ends with .html"),
        (["a.h5ad", "b.h5ad", "-o", "x.html"], "x.html: name a folder for 2 slides"),
        (["a.h5ad", "-o", "a.h5ad/x.html"], "a.h5ad/x.html: cannot be written"),
    ],
)
def test_bad_words_are_one_line(run, files, words, said):
    status, _, err = run("report", *words, "-m", "none")
    assert status == 2
    assert said in err.strip().splitlines()[-1]
