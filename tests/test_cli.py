"""The command, as a user types it."""

import os
import signal
import subprocess
import sys

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch

import sagefm
from reference import published
from sagefm.cli import main
from sagefm.pp.pseudonyms import pseudonym
from sagefm.pp.simulate import simulate
from tests.pretrain.commands import Command

TINY = ["--set", "network.widths=[16,8,8,8,12]", "--set", "data.genes=200"]


@pytest.fixture
def files(tmp_path, slide, model):
    slide.write_h5ad(tmp_path / "a.h5ad")
    other = simulate(150, seed=8, patient="p2", slide="b")
    other.write_h5ad(tmp_path / "b.h5ad")
    model.save(tmp_path / "m.safetensors")
    return tmp_path


def one_line(err):
    """The error line; notes may stand before it."""
    lines = [line for line in err.splitlines() if not line.startswith("note: ")]
    assert len(lines) == 1, err
    assert "Traceback" not in err
    return lines[0]


def test_help_lists_the_verbs(run):
    status, out, _ = run("--help")
    assert status == 0
    for verb in ("check", "embed", "domains", "pretrain", "convert", "info", "demo", "--debug"):
        assert verb in out
    assert run()[1] == out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["emb"], "No such command 'emb'"),
        (["embed", "x.h5ad"], "Missing option '--out'"),
        (["embed", "x.h5ad", "-o", "y.h5ad"], "x.h5ad: does not exist"),
        (["embed", "x.h5ad", "-m", "y.safetensors", "-o", "y.h5ad"], "y.safetensors: no such file"),
        (["embed"], "Missing argument 'SLIDES...'"),
        (["domains", "x.h5ad", "-o", "y.h5ad", "-n", "many"], "valid integer"),
        (["embed", "x.h5ad", "--colour"], "--colour"),
        (["check", "x.h5ad"], "x.h5ad: does not exist"),
        (["check", "."], ".: the folder is empty"),
        (["info", "x.safetensors"], "x.safetensors: no such file"),
        (["convert", "x.pt", "--genes", "g.txt", "-o", "m.safetensors"], "x.pt: no such file"),
        (["convert", "x.pt", "--genes", "g.txt", "-o", "m.pt"], "m.pt: give it a name that ends"),
        (["pretrain", "x.h5ad", "-o", "m.safetensors", "--recipe", "big"], "published or small"),
        (["pretrain", "x.h5ad", "-o", "m"], "ends with .safetensors"),
    ],
)
def test_mistakes_are_one_line_and_status_2(run, arguments, words):
    status, _, err = run(*arguments)
    assert status == 2
    line = one_line(err)
    assert line.startswith("error: ")
    assert words in line
    assert not os.listdir()  # nothing half written


def test_debug_shows_the_traceback(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["sagefm", "check", "x.h5ad", "--debug"])
    with pytest.raises(sagefm.InputError, match=r"x\.h5ad"):
        main()


def test_an_unexpected_error_is_one_line_too(run, files, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("the reason")

    monkeypatch.setattr("sagefm.tl.embedding._many.embed_with", fail)
    status, _, err = run("embed", "a.h5ad", "-m", "m.safetensors", "-o", "out.h5ad")
    assert status == 1
    assert one_line(err) == "error: RuntimeError: the reason (add --debug for the traceback)"
    assert not (files / "out.h5ad").exists()


def test_check_says_what_the_file_holds(run, files):
    status, out, _ = run("check", "a.h5ad", "--model", "m.safetensors")
    assert status == 0
    assert "spots" in out
    assert "200" in out
    assert "matched 476 of 478 model genes" in out


def test_check_refuses_what_is_wrong(run, files, slide):
    bad = slide.copy()
    bad.X = bad.X.log1p() * 0.9
    bad.write_h5ad("bad.h5ad")
    status, _, err = run("check", "bad.h5ad")
    assert status == 2
    assert "bad.h5ad: X holds values" in one_line(err)
    assert "log-normalized" in err
    del bad.obsm["spatial"]
    bad.write_h5ad("worse.h5ad")
    status, out, _ = run("check", "worse.h5ad")
    assert status == 2
    assert "log-normalized" in out
    assert "no coordinates" in out


def test_embed_one_slide(run, files, model, slide):
    status, out, _ = run("embed", "a.h5ad", "-m", "m.safetensors", "-o", "out.h5ad")
    assert status == 0
    assert "200 spots × 20" in out
    written = ad.read_h5ad("out.h5ad")
    np.testing.assert_allclose(written.obsm["X_sagefm"], model.embed(slide), atol=1e-6)
    assert (written.X != slide.X).nnz == 0
    assert "matched 476 of 478" in written.uns["sagefm"]["embed"]["genes"]
    assert written.uns["sagefm"]["read"]["source"] == str(files / "a.h5ad")


def test_embed_in_place(run, files):
    assert run("embed", "a.h5ad", "-m", "m.safetensors", "-o", "a.h5ad")[0] == 0
    assert "X_sagefm" in ad.read_h5ad("a.h5ad").obsm
    assert sorted(os.listdir()) == ["a.h5ad", "b.h5ad", "m.safetensors"]


def test_embed_several_slides_into_a_folder_and_go_on_after_a_bad_one(run, files):
    (files / "broken.h5ad").write_bytes(b"not an h5ad")
    slides = ["a.h5ad", "broken.h5ad", "b.h5ad"]
    command = ["embed", *slides, "-m", "m.safetensors", "-o", "out"]
    status, out, err = run(*command, "--workers", 1)
    assert status == 2
    failed, error = err.splitlines()
    assert failed.startswith("failed: broken.h5ad: ")
    assert error.startswith("error: 1 of 3 slides failed and are not in out; fix")
    lines = out.splitlines()
    assert lines[0].startswith("out/a.h5ad: 200 spots × 20; matched 476 of 478")
    assert not any("broken" in line for line in lines)  # printed once
    assert lines[-1] == "2 embedded, 0 already there, 1 failed"
    assert sorted(os.listdir("out")) == ["a.h5ad", "b.h5ad"]

    status, out, _ = run(*command)
    assert status == 2
    assert out.splitlines()[-1] == "0 embedded, 2 already there, 1 failed"
    status, _, err = run("embed", *slides, "-m", "m.safetensors", "-o", "out.h5ad")
    assert status == 2
    assert "name a folder for 3 slides" in one_line(err)


def test_embed_one_slide_is_always_done_but_not_into_a_folder(run, files):
    for _ in range(2):
        status, out, _ = run("embed", "a.h5ad", "-m", "m.safetensors", "-o", "x.h5ad")
        assert status == 0
        assert out.startswith("x.h5ad: 200 spots")
        assert len(out.splitlines()) == 1
    assert run("embed", "a.h5ad", "-m", "m.safetensors", "-o", "out")[0] == 0
    status, out, _ = run("embed", "a.h5ad", "-m", "m.safetensors", "-o", "out")
    assert (status, out) == (0, "0 embedded, 1 already there\n")


def test_embed_corpora(run, files):
    assert run("corpus", "build", "a.h5ad", "b.h5ad", "-o", "corpus")[0] == 0
    (files / "b.h5ad").rename(files / "c.h5ad")
    command = ["embed", "corpus", "-m", "m.safetensors", "-o"]
    status, out, _ = run("embed", "c.h5ad", *command[1:], "out")
    assert status == 0
    assert out.splitlines()[-1] == "3 embedded, 0 already there"
    assert sorted(os.listdir("out")) == ["a.h5ad", "b.h5ad", "c.h5ad"]
    one, other = (ad.read_h5ad(f"out/{name}.h5ad").obsm["X_sagefm"] for name in "bc")
    np.testing.assert_allclose(one, other, atol=1e-5)
    status, _, err = run(*command, "out.h5ad")
    assert status == 2
    assert "name a folder for the slides of a corpus" in one_line(err)
    status, _, err = run("embed", "a.h5ad", *command[1:], "out")
    assert status == 2
    assert "corpus: a second slide called 'a'" in one_line(err)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--scheduler", "nonsense"], "nonsense: no dask scheduler answers"),
        (["--scheduler", "tcp://127.0.0.1:9"], "such as tcp://10.0.0.1:8786"),
        (["--scheduler", "tcp://127.0.0.1:9", "--workers", 2], "leave them out with a scheduler"),
        (["--workers", 0], "--workers"),
    ],
)
def test_workers_that_cannot_be_had(run, files, monkeypatch, options, words):
    monkeypatch.setattr("sagefm._workers._TIMEOUT", 0.5)
    command = ["embed", "a.h5ad", "b.h5ad", "-m", "m.safetensors", "-o", "out", *options]
    status, _, err = run(*command)
    assert status == 2
    assert words in one_line(err)
    assert not (files / "out").exists()


# A worker may run this twice.
ENDLESS_READING = """
import time
import sagefm.tl.embedding._jobs as jobs
whole = getattr(jobs.read, "whole", jobs.read)
def read(path, **options):
    if path.name == "b.h5ad":
        time.sleep(1000)
    return whole(path, **options)
read.whole = whole
jobs.read = read
"""


def test_interrupting_processes_keeps_what_is_finished(files):
    slides = ["a.h5ad", "b.h5ad", "-m", "m.safetensors", "-o", "out", "--workers", "2"]
    with subprocess.Popen(
        [sys.executable, "-m", "sagefm", "embed", *slides],
        cwd=files,
        env=os.environ | {"DASK_DISTRIBUTED__WORKER__PRELOAD": ENDLESS_READING},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as running:
        first = running.stdout.readline()
        os.killpg(running.pid, signal.SIGINT)  # as a terminal does: to all processes
        _, err = running.communicate(timeout=60)
    assert first.startswith("out/a.h5ad: 200 spots")
    assert running.returncode == 130
    progress, last = err.splitlines()[:-1], err.splitlines()[-1]
    assert last == "interrupted"
    assert all(line.startswith("embedding ") for line in progress)  # of a slow machine
    assert os.listdir(files / "out") == ["a.h5ad"]


def test_two_slides_of_one_name_are_refused(run, files):
    (files / "c").mkdir()
    (files / "a.h5ad").rename(files / "c" / "b.h5ad")
    status, _, err = run("embed", "b.h5ad", "c/b.h5ad", "-m", "m.safetensors", "-o", "out")
    assert status == 2
    assert "a second slide called 'b'" in one_line(err)


def test_domains_and_picture(run, files):
    run("embed", "a.h5ad", "-m", "m.safetensors", "-o", "e.h5ad")
    status, out, _ = run("domains", "e.h5ad", "-n", 3, "-o", "d.h5ad", "--plot", "d.png")
    assert status == 0
    assert "domain 1" in out
    found = ad.read_h5ad("d.h5ad")
    assert found.obs["sagefm_domain"].cat.categories.tolist() == ["1", "2", "3"]
    assert "X_sagefm" in found.obsm
    assert (files / "d.png").stat().st_size > 10_000


def test_domains_need_no_embedding_and_choose_their_number(run, files):
    options = ["--curve", "c.png"]
    status, out, _ = run("domains", "a.h5ad", "-o", "d.h5ad", *options)
    assert status == 0
    found = ad.read_h5ad("d.h5ad")
    n_found = found.uns["sagefm"]["domains"]["n_domains"]
    assert f"domain {n_found}:" in out
    assert found.obs["sagefm_domain_confidence"].between(0, 1).all()
    assert (files / "c.png").stat().st_size > 10_000
    status, _, err = run("domains", "a.h5ad", "-n", 3, "-o", "x.h5ad", "--method", "kmeans")
    assert status == 2
    assert "run `sagefm embed` first" in one_line(err)
    assert not (files / "x.h5ad").exists()


def test_domains_of_several_slides(run, files):
    words = ["domains", "a.h5ad", "b.h5ad", "-n", 3, "-o", "out", "--plot", "d.png"]
    status, out, _ = run(*words)
    assert status == 0
    assert out.startswith("out: domain 1: ")
    table = pd.read_csv("out/fractions.csv", index_col="section")
    assert list(table.index) == ["a", "b"]
    np.testing.assert_allclose(table[["1", "2", "3"]].sum(axis=1), 1, atol=1e-5)
    for name in "ab":
        categories = ad.read_h5ad(f"out/{name}.h5ad").obs["sagefm_domain"].cat.categories
        assert list(categories) == ["1", "2", "3"]
    assert (files / "d.png").stat().st_size > 10_000
    assert run(*words)[0] == 0  # its own results are replaced
    status, _, err = run("domains", "a.h5ad", "b.h5ad", "-n", 3, "-o", "out.h5ad")
    assert status == 2
    assert "name a folder for 2 slides" in one_line(err)


def test_pretrain_then_use_it(run, files):
    options = ["--recipe", "small", *TINY, "--set", "train.max_epochs=2", "--seed", 3]
    status, out, _ = run("pretrain", "a.h5ad", "b.h5ad", "-o", "new.safetensors", *options)
    assert status == 0
    assert "best epoch" in out
    assert "neighbor mean" in out
    history = pd.read_csv("new.csv")
    assert len(history) == 2
    assert (files / "new.png").stat().st_size > 5_000
    assert run("embed", "b.h5ad", "-m", "new.safetensors", "-o", "e.h5ad")[0] == 0
    assert ad.read_h5ad("e.h5ad").obsm["X_sagefm"].shape == (150, 12)
    status, out, _ = run("info", "new.safetensors")
    assert '"seed": 3' in out
    assert "200 genes" in out

    before = (files / "new.safetensors").read_bytes()
    status, _, err = run("pretrain", "a.h5ad", "b.h5ad", "-o", "new.safetensors", *options)
    assert status == 2
    assert "--overwrite" in one_line(err)
    assert (files / "new.safetensors").read_bytes() == before


def test_pretrain_with_a_table_of_patients(run, files):
    options = ["--recipe", "small", *TINY, "--set", "train.max_epochs=1"]
    (files / "who.csv").write_text("slide,patient\na,ann\nb,ben\n")
    held = ["--patients", "who.csv", "--set", 'data.validation=["ben"]']
    assert run("pretrain", "a.h5ad", "b.h5ad", "-o", "m1.safetensors", *options, *held)[0] == 0
    assert sagefm.SageFM.load("m1.safetensors").provenance["validation_spots"] == {
        pseudonym("b"): 150
    }
    (files / "who.csv").write_text("slide,patient\na,ann\n")
    status, _, err = run(
        "pretrain", "a.h5ad", "b.h5ad", "-o", "m2.safetensors", *options, "--patients", "who.csv"
    )
    assert status == 2
    assert "b: is not in the table of patients" in one_line(err)
    (files / "who.csv").write_text("name\na\n")
    status, _, err = run("pretrain", "a.h5ad", "-o", "m2.safetensors", "--patients", "who.csv")
    assert status == 2
    assert "it needs slide and patient" in one_line(err)


def test_convert_and_info(run, tmp_path):
    network = published.PublishedNetwork(4, (6, 5, 5, 5, 7))
    torch.save({"model_state_dict": network.state_dict(), "epoch": 126}, "pub.pt")
    np.save("genes.npy", np.array(["A", "B", "C", "D"], dtype=object))
    status, out, _ = run("convert", "pub.pt", "--genes", "genes.npy", "-o", "m.safetensors")
    assert status == 0
    status, out, _ = run("info", "m.safetensors")
    assert status == 0
    assert '"epoch": 126' in out
    assert "widths: 6, 5, 5, 5, 7" in out
    assert "does not record organ, technology and genes" in out


def test_pretrain_never_writes_over_its_table_of_patients(run, files):
    (files / "who.csv").write_text("slide,patient\na,ann\nb,ben\n")
    command = ["pretrain", "a.h5ad", "b.h5ad", "-o", "who.safetensors", "--patients", "who.csv"]
    status, _, err = run(*command, "--recipe", "small", *TINY, "--overwrite")
    assert status == 2
    assert "who.csv: exists already" in one_line(err)
    assert (files / "who.csv").read_text().startswith("slide,patient")


@pytest.mark.parametrize(
    "table", ["slide,patient\na,\nb,ben\n", "slide,patient\na,ann\na,ben\nb,ben\n"]
)
def test_a_table_with_gaps_or_two_patients_for_a_slide_is_refused(run, files, table):
    (files / "who.csv").write_text(table)
    status, _, err = run("pretrain", "a.h5ad", "-o", "m2.safetensors", "--patients", "who.csv")
    assert status == 2
    assert "slide 'a' has no patient, or two" in one_line(err)


def test_a_patient_key_that_no_slide_has_is_refused(run, files):
    status, _, err = run(
        "pretrain", "a.h5ad", "b.h5ad", "-o", "n.safetensors", "--recipe", "small", *TINY,
        "--patient-key", "donr",
    )  # fmt: skip
    assert status == 2
    assert "no slide has a column 'donr'" in one_line(err)


def test_out_is_tried_before_the_work(run, files, monkeypatch):
    monkeypatch.setattr("sagefm.pretrain.fit", lambda *_, **__: pytest.fail("trained in vain"))
    status, _, err = run("pretrain", "a.h5ad", "-o", "a.h5ad/new.safetensors")
    assert status == 2
    assert "cannot be written" in one_line(err)


def test_a_slide_that_would_lose_something_is_not_written_over(run, files, slide):
    processed = slide.copy()
    processed.layers["counts"] = processed.X.copy()
    processed.X = processed.X.log1p() * 0.7
    processed.write_h5ad("p.h5ad")
    before = (files / "p.h5ad").read_bytes()
    status, _, err = run("embed", "p.h5ad", "-m", "m.safetensors", "-o", "p.h5ad")
    assert status == 2
    assert "p.h5ad: is not overwritten" in one_line(err)
    assert (files / "p.h5ad").read_bytes() == before
    assert run("embed", "p.h5ad", "-m", "m.safetensors", "-o", "q.h5ad")[0] == 0
    # The new file has nothing more to lose.
    assert run("domains", "q.h5ad", "-n", 3, "-o", "q.h5ad")[0] == 0


@pytest.mark.parametrize("options", [["--device", "nonsense"], ["--device", "cuda:99"]])
def test_a_device_that_is_not_there(run, files, options):
    command = ["embed", "a.h5ad", "-m", "m.safetensors", "-o", "e.h5ad", *options]
    status, _, err = run(*command)
    assert status == 2
    assert "is not available on this machine" in one_line(err)


SLEEPY_WRITE = """
import os, signal
import sagefm._files
def write(_, path):
    with open(path, "wb") as file:
        file.write(b"half of a slide")
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
sagefm._files.write_h5ad = write
"""


def test_a_run_killed_while_writing_leaves_the_old_file(files):
    before = (files / "a.h5ad").read_bytes()
    command = ["embed", "a.h5ad", "-m", "m.safetensors", "-o", "a.h5ad"]
    status, told = Command(files, command, before=SLEEPY_WRITE).end()
    assert status == -signal.SIGKILL, told
    assert (files / "a.h5ad").read_bytes() == before


INTERRUPTED = """
import os, signal
from sagefm.pretrain.loop import Training
step = Training.train_step
def interrupted(self, batch, rate):
    if self.progress.epoch == 2:
        os.kill(os.getpid(), signal.SIGINT)
    return step(self, batch, rate)
Training.train_step = interrupted
"""


def test_interrupting_training_keeps_the_best_epoch(files):
    command = ["pretrain", "a.h5ad", "b.h5ad", "-o", "new.safetensors", "--recipe", "small", *TINY]
    command += ["--set", "train.max_epochs=500", "--set", "train.patience=500"]
    status, told = Command(files, command, before=INTERRUPTED).end()
    assert status == 0, told
    assert "the best epoch so far is kept" in told
    assert pd.read_csv(files / "new.csv")["epoch"].tolist() == [1, 2]  # not the one cut short
    assert sagefm.SageFM.load(files / "new.safetensors").config.widths == (16, 8, 8, 8, 12)
