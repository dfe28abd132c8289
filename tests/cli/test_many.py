"""Verbs for one slide do many: in workers, resumable, with the failures listed at the end."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import anndata as ad
import pandas as pd
import pytest

from sagefm.pp.simulate import simulate

MODEL = ["-m", "m.safetensors", "--device", "cpu"]
IMPUTE = ["impute", "a.h5ad", "b.h5ad", "-o", "out", "--genes", "NOT1A", "--no-adapt", *MODEL]


@pytest.fixture(scope="module")
def cluster():
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0", memory_limit=0
    ) as cluster:
        yield cluster


@pytest.fixture
def files(tmp_path, monkeypatch, slide, model):
    """Two slides, one that cannot be read, and a model."""
    monkeypatch.chdir(tmp_path)
    slide[:105].copy().write_h5ad("a.h5ad")
    simulate(100, seed=8).write_h5ad("b.h5ad")
    Path("bad.h5ad").write_bytes(b"no slide")
    model.save("m.safetensors")
    return tmp_path


def results(folder="out"):
    return sorted(path.name for path in Path(folder).iterdir() if path.name != ".sagefm")


def states(folder="out"):
    return {name: (Path(folder) / name).stat().st_mtime_ns for name in results(folder)}


def imputed(name, folder="out"):
    return ad.read_h5ad(f"{folder}/{name}.h5ad").obsm["sagefm_imputed"]


def test_a_cluster_gives_the_numbers_of_one_process_and_failures_come_last(run, files, cluster):
    words = ["impute", "a.h5ad", "bad.h5ad", "b.h5ad", *IMPUTE[5:], "--table", "t"]
    status, _, err = run(*words, "-o", "one", "--workers", 1)
    assert status == 2, err
    address = cluster.scheduler_address
    status, out, err = run(*words, "-o", "two", "--scheduler", address)
    assert status == 2
    assert err.splitlines()[-2].startswith("failed: bad.h5ad: ")
    assert err.splitlines()[-1].startswith("error: 1 of 3 slides failed and are not in two; ")
    assert out.splitlines()[-1] == "2 done, 0 already there, 1 failed"
    assert sorted(out.splitlines()[:-1]) == [f"two/{x}.h5ad: 1 gene imputed" for x in "ab"]
    assert results("one") == results("two") == ["a.h5ad", "b.h5ad"]
    assert results("t") == ["a.csv", "b.csv"]
    for name in "ab":
        pd.testing.assert_frame_equal(imputed(name, "one"), imputed(name, "two"))
    alone = ["impute", "b.h5ad", "-o", "b1.h5ad", *IMPUTE[5:]]
    assert run(*alone, "--scheduler", address)[0] == 0  # one slide there is the same as one here
    pd.testing.assert_frame_equal(imputed("b", "one"), imputed("b1", "."))


def test_what_is_there_is_skipped_unless_source_options_or_model_change(run, files, slide):
    here = (*IMPUTE, "--workers", 1)
    assert run(*here)[0] == 0
    before = states()
    status, out, _ = run(*here)
    assert (status, out) == (0, "0 done, 2 already there\n")
    assert states() == before
    assert "2 done, 0 already there" in run(*here, "--table", "t")[1]
    assert results("t") == ["a.csv", "b.csv"]
    state = Path("a.h5ad").stat()
    os.utime("a.h5ad", ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    assert "1 done, 1 already there" in run(*here)[1]
    assert "2 done, 0 already there" in run(*here, "--mask", "slide")[1]
    model = Path("m.safetensors").read_bytes()
    Path("copy.safetensors").write_bytes(model)
    again = [*here, "--mask", "slide", "-m", "copy.safetensors"]
    assert "0 done, 2 already there" in run(*again)[1]


def test_a_killed_run_continues_and_what_it_left_is_replaced(run, files, monkeypatch):
    """The second slide is computed, but the process dies before its table is written."""
    words = [*IMPUTE, "--table", "out", "--workers", "1"]
    code = (
        "import os, signal, sys\n"
        "import sagefm.cli.imputation as verb\n"
        "from sagefm import cli\n"
        "real = verb.replacing\n"
        "def replacing(path):\n"
        "    if path.name == 'b.csv':\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return real(path)\n"
        "verb.replacing = replacing\n"
        f"sys.argv = ['sagefm', *{words!r}]\n"
        "cli.main()\n"
    )
    died = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True)
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert results() == ["a.csv", "a.h5ad", "b.h5ad"]
    kept = states()["a.h5ad"]
    monkeypatch.setattr("sagefm._owner.os.getxattr", lambda *_: b"")  # as on a network file system
    status, out, err = run(*words)
    assert status == 0, err
    assert "1 done, 1 already there" in out
    assert results() == ["a.csv", "a.h5ad", "b.csv", "b.h5ad"]
    assert states()["a.h5ad"] == kept


def test_files_of_others_stay(run, files):
    Path("out").mkdir()
    simulate(60, seed=2).write_h5ad("out/a.h5ad")
    before = Path("out/a.h5ad").read_bytes()
    for _ in range(2):  # a failed run makes them no file of ours
        status, out, err = run(*IMPUTE, "--workers", 1)
        assert status == 2
        assert "failed: a.h5ad: out/a.h5ad: exists already and was not made from" in err
        assert Path("out/a.h5ad").read_bytes() == before
    assert out.startswith("0 done, 1 already there, 1 failed")
    assert "1 done, 1 already there" in run(*IMPUTE, "--workers", 1, "--overwrite")[1]


def test_further_steps_do_not_undo_a_result_but_its_loss_does(run, files):
    assert run(*IMPUTE, "--workers", 1)[0] == 0
    further = ad.read_h5ad("out/a.h5ad")
    further.obs["mine"] = 1
    further.write_h5ad("out/a.h5ad")
    assert "0 done, 2 already there" in run(*IMPUTE, "--workers", 1)[1]
    Path("out/b.h5ad").write_bytes(Path("out/a.h5ad").read_bytes())
    assert "failed: b.h5ad: out/b.h5ad: exists already" in run(*IMPUTE, "--workers", 1)[2]
    Path("out/b.h5ad").unlink()
    assert "1 done, 1 already there" in run(*IMPUTE, "--workers", 1)[1]
    Path("out").rename("moved")
    moved = ["moved" if word == "out" else word for word in IMPUTE]
    assert "0 done, 2 already there" in run(*moved, "--workers", 1)[1]
    for record in Path("moved/.sagefm/impute").iterdir():
        record.write_text('{"files": 3}')
    assert "2 done" in run(*moved, "--workers", 1)[1]


@pytest.mark.parametrize(
    ("words", "made"),
    [
        (["rare", "--genes", "g"], ["a.h5ad", "b.h5ad"]),
        (["influence", *MODEL, "--genes", "NOT1A", "--spots", 20], ["a.csv", "b.csv"]),
        (["map", "--reference", "r.h5ad", "--key", "domain"], ["a.h5ad", "b.h5ad"]),
    ],
)
def test_other_verbs_write_what_they_write_for_one_slide(run, files, words, made):
    simulate(100, seed=5, n_domains=3).write_h5ad("r.h5ad")
    verb, *more = words
    single = [f"{word}.csv" if word == "g" else word for word in more]
    for name in made:
        source = f"{Path(name).stem}.h5ad"
        assert run(verb, source, "-o", f"1{name}", *single, "--overwrite")[0] == 0
    status, _, err = run(verb, "a.h5ad", "b.h5ad", "-o", "out", *more, "--workers", 1)
    assert status == 0, err
    assert results() == made
    for name in made:
        if name.endswith(".csv"):
            assert Path(f"1{name}").read_text() == Path(f"out/{name}").read_text()
        else:
            one, many = ad.read_h5ad(f"1{name}"), ad.read_h5ad(f"out/{name}")
            pd.testing.assert_frame_equal(one.obs, many.obs)
    again = run(verb, "a.h5ad", "b.h5ad", "-o", "out", *more, "--workers", 1)
    assert again[1] == "0 done, 2 already there\n"


def test_a_check_of_many_is_a_table(run, files):
    words = ["check", "a.h5ad", "bad.h5ad", "b.h5ad", "--workers", 1]
    status, out, err = run(*words)
    assert status == 2
    assert out.startswith("a.h5ad: 105 spots; ")
    assert "failed: bad.h5ad: " in err
    assert run(*words, "-o", "out")[0] == 2
    assert results() == ["a.html", "b.html", "check.csv"]
    table = pd.read_csv("out/check.csv", index_col="name")
    assert list(table.index) == ["a", "b", "bad"]
    assert table["slide"]["bad"] == "errors"
    assert "bad.h5ad" in table["reason"]["bad"]
    before = states()
    status, out, _ = run("check", "a.h5ad", "b.h5ad", "--workers", 1, "-o", "out")
    assert status == 0
    assert "0 done, 2 already there" in out
    assert all(states()[page] == before[page] for page in ("a.html", "b.html"))
    assert list(pd.read_csv("out/check.csv")["name"]) == ["a", "b"]


def test_slides_are_perturbed_together_into_a_file_and_by_themselves_into_a_folder(run, files):
    genes = ad.read_h5ad("a.h5ad").var_names[::3][:2]
    words = ["perturb", "a.h5ad", "b.h5ad", "--ligand", genes[0], "--targets", genes[1], *MODEL]
    assert run(*words, "-o", "both.csv")[0] == 0
    status, _, err = run(*words, "-o", "out", "--workers", 1)
    assert status == 0, err
    assert {"a.csv", "b.csv"} <= set(results())
    assert run("perturb", "a.h5ad", *words[3:], "-o", "1.csv")[0] == 0
    assert Path("1.csv").read_text() == Path("out/a.csv").read_text()
    assert "0 done, 2 already there" in run(*words, "-o", "out", "--workers", 1)[1]
    status, _, err = run(*words, "-o", "both.csv", "--scheduler", "tcp://127.0.0.1:9")
    assert status == 2
    assert "name a folder for slides by themselves" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["rare", "-o", "o.h5ad"], "o.h5ad: name a folder for 2 slides"),
        (["rare", "-o", "o", "--genes", "g.csv"], "g.csv: name a folder for 2 slides"),
        (["rare", "-o", "o", "--genes", "g", "--table", "g"], "would be written to one file"),
        (["rare", "-o", "o", "--workers", "0"], "--workers"),
        (["rare", "-o", "o", "--workers", "2", "--scheduler", "x"], "leave them out"),
        (["impute", "-o", "o", "-m", "none.safetensors"], "none.safetensors: no such file"),
        (["annotate", "-o", "o", "--known", "bad.h5ad"], "--known is for one slide: train on it"),
    ],
)
def test_what_cannot_be_done_is_said_before_the_work(run, files, words, said):
    before = sorted(os.listdir())
    verb, *more = words
    status, _, err = run(verb, "a.h5ad", "b.h5ad", *more)
    assert status == 2
    assert said in err.splitlines()[-1]
    assert sorted(os.listdir()) == before


def test_a_name_that_is_also_a_file_is_no_path(run, files, slide, cluster):
    """Where workers are elsewhere, paths are made absolute, but a layer or a column is none."""
    counts = slide[:105].copy()
    counts.layers["mine"] = counts.X.copy()
    for name in ("c", "d"):
        counts.write_h5ad(f"{name}.h5ad")
    Path("mine").mkdir()
    words = ["rare", "c.h5ad", "d.h5ad", "-o", "out", "--layer", "mine"]
    status, out, err = run(*words, "--scheduler", cluster.scheduler_address)
    assert status == 0, err
    Path("mine/new").write_text("")
    assert run(*words, "--workers", 1)[1] == "0 done, 2 already there\n"
    assert sorted(out.splitlines()[:2])[0].startswith("out/c.h5ad: ")
