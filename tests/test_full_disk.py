"""A full disk (here: a limit on the size of a file) while each command writes; and SIGTERM."""

import os
import signal

import pytest
import torch

import sagefm
from sagefm.model import Config
from sagefm.pp.vocabulary import Vocabulary

from .pretrain.commands import Command, line_of
from .reference import published

MODEL = ["-m", "m.safetensors", "--device", "cpu"]
TRAINING = ["--recipe", "small", "--set", "train.max_epochs=2"]
TRAINING += ["--set", "network.widths=[16,8,8,8,12]"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Slides of six patients, a model, and a published checkpoint."""
    folder = tmp_path_factory.mktemp("made")
    for number, name in enumerate("abcdef"):
        slide = sagefm.pp.simulate(110, seed=number, biology_seed=1)[:, :70].copy()
        slide.obs["label"] = ["x", "y"] * 55
        slide.obs["patient"], slide.obs["subtype"] = name, "pq"[number % 2]
        if name == "a":
            vocabulary = Vocabulary(tuple(slide.var_names[:40]))
            model = sagefm.SageFM.new(vocabulary, Config(widths=(24, 16, 16, 16, 20)), seed=5)
            model.save(folder / "m.safetensors")
        sagefm.tl.embed(slide, model)
        slide.write_h5ad(folder / f"{name}.h5ad")
        if name == "a":
            slide.to_df().iloc[:, :5].astype(int).to_csv(folder / "panel.csv")
    network = published.PublishedNetwork(4, (60, 50, 50, 50, 70))
    torch.save({"model_state_dict": network.state_dict(), "epoch": 1}, folder / "pub.pt")
    (folder / "genes.txt").write_text("A\nB\nC\nD\n")
    return folder


@pytest.fixture
def folder(made, tmp_path):
    for path in made.iterdir():
        os.link(path, tmp_path / path.name)
    return tmp_path


def new(folder, made):
    """What a command has made."""
    own = {path.name for path in made.iterdir()}
    names = {path.name for path in folder.iterdir() if not path.name.startswith(".told_")}
    return names - own


SLIDES = ["a.h5ad", "b.h5ad", "c.h5ad", "d.h5ad"]
GENES = ["--genes", "MT-ND1,MT-CO2"]
COMMANDS = {
    "embed": ["embed", "a.h5ad", "-o", "o.h5ad", *MODEL],
    "embed many": ["embed", *SLIDES, "-o", "o", *MODEL, "--workers", 1],
    "impute": ["impute", "a.h5ad", "-o", "o.h5ad", *GENES, *MODEL],
    "domains": ["domains", "a.h5ad", "-n", 3, "-o", "o.h5ad"],
    "picture": ["domains", "a.h5ad", "-n", 3, "-o", "o.h5ad", "--plot", "p.png"],
    "annotate": ["annotate", "a.h5ad", "-o", "o.h5ad", "--known", *SLIDES[1:], *MODEL],
    "subtype": ["subtype", *SLIDES, "e.h5ad", "f.h5ad", "-o", "o.csv", "--subtype-key", "subtype",
                *MODEL, "--genes", "g.csv"],
    "cross": ["cross", "a.h5ad", "-o", "o.csv", "--with", "panel", "--counts", "panel=panel.csv"],
    "rare": ["rare", "a.h5ad", "-o", "o.h5ad"],
    "perturb": ["perturb", "a.h5ad", "-o", "o.csv", "--ligand", "MT-ND1", "--targets", "MT-CO2",
                *MODEL],
    "influence": ["influence", "a.h5ad", "-o", "o.csv", *MODEL],
    "graph": ["influence", "a.h5ad", "-o", "o.graphml", *MODEL],
    "evaluate": ["evaluate", "--slides", *SLIDES[:2], "--protocol", "domains", "-o", "o", *MODEL,
                 "--no-mofa"],
    "check": ["check", "a.h5ad", "--page", "o.html"],
    "convert": ["convert", "pub.pt", "--genes", "genes.txt", "-o", "o.safetensors"],
    "corpus build": ["corpus", "build", *SLIDES, "-o", "o"],
    "pretrain": ["pretrain", *SLIDES, "-o", "o.safetensors", *TRAINING],
    "demo": ["demo", "-o", "o"],
}  # fmt: skip
SLOW = pytest.mark.slow  # seconds
ROOM = {"perturb": 900, "cross": 500, "corpus build": 700, "evaluate": 8000}
"""Bytes of a file that there is room for, where it is not 3,000 (progress is written too)."""
LEFT = {
    "perturb": {"o.csv.parts"},  # the same command goes on from there
    "subtype": {"o.csv"},  # is complete: the genes are not
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=SLOW if name in ("evaluate", "subtype") else ())
        for name in COMMANDS
    ],
)
def test_a_full_disk_is_one_line_and_nothing_is_left(folder, made, name):
    status, told = Command(folder, COMMANDS[name], largest_file=ROOM.get(name, 3000)).end()
    assert status == 2, told
    assert "Traceback" not in told
    last = told.splitlines()[-1]
    assert last.startswith("error: ")
    if name == "embed many":
        assert "4 of 4 slides failed" in last
    else:
        assert "File too large" in last
        assert "free some space, or choose another place" in last
    assert new(folder, made) == LEFT.get(name, set())


@pytest.mark.parametrize("room", [1, 100, 2000, 9000, 40000, 80000, 100000])
def test_the_old_file_stays_wherever_the_new_one_ends(folder, room):
    before = (folder / "a.h5ad").read_bytes()
    assert len(before) > 100000
    command = ["embed", "a.h5ad", "-o", "a.h5ad", *MODEL]
    status, told = Command(folder, command, before=QUIET, largest_file=room).end()
    assert status == 2, told
    assert (folder / "a.h5ad").read_bytes() == before
    assert not [path for path in folder.iterdir() if path.name.startswith(".a")]


QUIET = """
import io, sys
sys.stdout = sys.stderr = io.StringIO()  # what is printed is on another disk
"""
TERMINATED = """
import os, signal, sagefm._files
write = sagefm._files.write_h5ad
def terminated(*arguments):
    os.kill(os.getpid(), signal.SIGTERM)
    write(*arguments)
sagefm._files.write_h5ad = terminated
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_terminated_run_leaves_nothing(folder, made, number):
    before = TERMINATED.replace("SIGTERM", number.name)
    status, told = Command(folder, COMMANDS["embed"], before=before).end()
    assert status == 128 + number, told
    assert line_of(told) == "terminated"
    assert not new(folder, made)


def test_a_signal_that_is_ignored_stays_ignored(folder):
    """As nohup does."""
    before = TERMINATED.replace("SIGTERM", "SIGHUP")
    before += "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    status, told = Command(folder, COMMANDS["embed"], before=before).end()
    assert status == 0, told
    assert (folder / "o.h5ad").is_file()
