"""The pages of the documentation run as they stand, and list every public name."""

import re
import shlex
import sys
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import pytest

import sagefm
from sagefm.cli import main

DOCS = Path(__file__).resolve().parents[1] / "docs"
PACKAGES = ("evaluate", "pl", "pp", "pretrain", "report", "tl")


def blocks(page):
    """The blocks of a page in order: language and text."""
    return re.findall(r"```(python|sh)\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


def run(page, monkeypatch, shorter=("", "")):
    """Run the blocks of a page one after the other, in the current folder.

    `shorter` is what stands on the page and what stands in its place here.
    """
    names = {}
    assert shorter[0] in blocks(page)[0][1]
    for language, text in blocks(page):
        text = text.replace(*shorter)
        if language == "python":
            exec(compile(text, page, "exec"), names)
            continue
        for line in text.replace("\\\n", " ").splitlines():
            monkeypatch.setattr(sys, "argv", shlex.split(line))
            with pytest.raises(SystemExit) as stopped:
                main()
            assert not stopped.value.code, line
    plt.close("all")


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    matplotlib.use("Agg")
    monkeypatch.chdir(tmp_path)


@pytest.mark.slow
def test_the_tutorial_runs(tmp_path, monkeypatch, capsys):
    assert len(blocks("tutorial.md")) == 8
    run("tutorial.md", monkeypatch)
    out = capsys.readouterr().out
    assert "SageFM(context, " in out
    assert "(600, 2)" in out
    assert "neighbor_mean" in out
    assert "the same, random weights" in out
    for picture in ("domains.png", "training.png"):
        assert (tmp_path / picture).stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of scanpy, about its own defaults
def test_the_page_about_embeddings_runs(monkeypatch, capsys):
    assert len(blocks("embedding.md")) == 3
    run("embedding.md", monkeypatch)
    assert "(200, 352) (200, 352)" in capsys.readouterr().out


@pytest.mark.slow
def test_the_page_about_perturbation_runs(tmp_path, monkeypatch, capsys):
    assert len(blocks("perturbation.md")) == 15
    run("perturbation.md", monkeypatch, ("max_epochs=35", "max_epochs=2"))
    assert "coupled pairs found" in capsys.readouterr().out
    assert (tmp_path / "pictures" / "CX3CL1_CX3CR1.png").is_file()


@pytest.mark.slow
def test_the_page_about_training_runs(tmp_path, monkeypatch, capsys):
    assert len(blocks("training.md")) == 8
    run("training.md", monkeypatch)
    assert "best epoch" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "embedded").iterdir()) == [
        f"{patient}.h5ad" for patient in ("ann", "ben", "cyd", "dan")
    ]
    history = (tmp_path / "model.csv").read_text().splitlines()
    assert len(history) == 4  # a header, two epochs, and one more after --resume


@pytest.mark.parametrize("package", [sagefm, *(getattr(sagefm, name) for name in PACKAGES)])
def test_every_public_name_stands_on_a_page_of_the_api(package):
    page = DOCS / "api" / f"{package.__name__.rpartition('.')[2]}.md"
    text = page.read_text()
    listed = re.findall(r"^   (\w+)$", text, re.MULTILINE)
    listed += re.findall(rf"py:data:: {package.__name__}\.(\w+)$", text, re.MULTILINE)
    assert sorted(listed) == sorted(set(package.__all__) - set(PACKAGES))
