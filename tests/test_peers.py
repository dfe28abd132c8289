"""The comparison with other methods: what runs is scored, the rest listed with the reason."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

from sagefm.pp.simulate import simulate

PEERS = Path(__file__).resolve().parents[1] / "benchmarks" / "peers"
SCRIPT = """
from kit import run

def method(slide, n_domains, *mode):
    if mode == ("fail",):
        raise RuntimeError("no convergence")
    if mode == ("wait",):
        import time
        time.sleep(60)
    assert not len(slide.obs.columns)
    left = slide.obsm["spatial"][:, :1] < 0
    return slide.obsm["spatial"] * [1, 0], {"its own": left[:, 0]}

run(method)
"""


@pytest.fixture
def peers(monkeypatch):
    monkeypatch.syspath_prepend(str(PEERS))
    yield importlib.import_module("run")
    del sys.modules["run"]


@pytest.fixture
def runner(peers, monkeypatch, tmp_path):
    script = tmp_path / "peer.py"
    script.write_text(SCRIPT)
    monkeypatch.setenv("PYTHONPATH", str(PEERS), prepend=":")
    monkeypatch.setattr(peers, "OUT", tmp_path / "out" / "peers")
    monkeypatch.setattr(peers, "PEERS", {
        "works": (str(script),), "fails": (str(script), "fail"), "waits": (str(script), "wait"),
        "gone": (str(script),),
    })  # fmt: skip
    monkeypatch.setattr(peers, "PACKAGES", {"gone": "no_such_package"})
    python = tmp_path / "environments" / "gone" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    return peers


@pytest.fixture
def section(tmp_path):
    """Two halves, 100 apart, and a spot without a label."""
    slide = simulate(60, seed=0)
    side = np.where(np.arange(slide.n_obs) % 2, 100.0, -100.0)
    slide.obsm["spatial"] = np.column_stack([side + np.arange(slide.n_obs) / 10, side])
    slide.obs["label"] = np.where(side < 0, "left", "right").astype(object)
    slide.obs.loc[slide.obs_names[0], "label"] = None
    slide.write_h5ad(path := tmp_path / "halves.h5ad")
    return path


def table(runner, capsys, tmp_path, *arguments):
    runner.main([*map(str, arguments), "--environments", str(tmp_path / "environments")])
    return capsys.readouterr().out.splitlines()


def test_own_readout_and_ours_are_scored_and_the_rest_listed(runner, section, capsys, tmp_path):
    found = table(runner, capsys, tmp_path, "works", "fails", "gone", "--sections", section)
    cells = [line.strip("| ").split(" | ") for line in found]
    assert cells[0][:4] == ["method", "readout", "halves", "mean"]
    assert [row[:4] for row in cells[2:4]] == [
        ["works", "its own", "1.000", "1.000"], ["works", "ours", "1.000", "1.000"],
    ]  # fmt: skip
    assert found[4] == "fails (halves): RuntimeError: no convergence"
    assert found[5].startswith("gone (halves): ") and "no_such_package" in found[5]
    assert len(found) == 6
    again = table(runner, capsys, tmp_path, "works", "fails", "--sections", section, "--stored")
    assert again == [*found[:4], "fails (halves): not run"]
    assert (tmp_path / "out" / "peers.csv").read_text().startswith("method,readout,halves,mean,s")


def test_what_takes_too_long_is_stopped_and_listed(runner, section, capsys, tmp_path):
    found = table(
        runner, capsys, tmp_path, "waits", "--sections", section, "--timeout", "0.1"
    )  # fmt: skip
    assert found[2:] == ["waits (halves): over 0.1 s"]


def test_an_unknown_peer_or_section_is_an_error(runner, capsys):
    for arguments, message in (
        (["x"], "no such peer: x"),
        (["--sections", "x"], "no such section"),
    ):
        with pytest.raises(SystemExit):
            runner.main(arguments)
        assert message in capsys.readouterr().err


def test_every_peer_has_a_script_and_pinned_requirements(peers):
    for name, (script, *_) in peers.PEERS.items():
        assert (PEERS / script).exists()
        if name in peers.PACKAGES:
            lines = (PEERS / "requirements" / f"{name}.txt").read_text().splitlines()
            assert all("==" in line for line in lines)
