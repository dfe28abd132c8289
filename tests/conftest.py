"""What the tests share: where the real data lie, small slides and models, and the command."""

import logging
import os
import sys
from pathlib import Path

# Before torch is imported, and for the processes that tests start: what is computed here is so
# small that a second thread costs more than it gives, a hundred times as much on a busy machine.
# numba, which scanpy uses, would bring the second thread of OpenMP back, and torch's with it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_NUM_THREADS", "1")

import pytest
import torch

from sagefm import cli
from sagefm.model import Config, SageFM
from sagefm.pp.simulate import simulate
from sagefm.pp.vocabulary import Vocabulary

sys.path.insert(0, str(Path(__file__).parent))  # for `reference`, the oracle

SHARED = Path(__file__).resolve().parents[1].parent / "shared" / "data"


@pytest.fixture(autouse=True)
def nothing_left_behind():
    """Neither levels of loggers nor open figures reach the next test."""
    loggers = [logging.getLogger(name) for name in ("sagefm", "sagefm.progress")]
    before = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, before, strict=True):
        logger.setLevel(level)
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.fixture(scope="session")
def shared():
    """The folder of real data, which is not part of the repository."""
    if not SHARED.is_dir():
        pytest.skip(f"no real data: {SHARED} is missing")
    return SHARED


@pytest.fixture(scope="session")
def slide():
    """A simulated slide; copy it before changing it."""
    return simulate(200, seed=3)


@pytest.fixture(scope="session")
def vocabulary(slide):
    """Some genes of the slide in another order, and two that it lacks."""
    return Vocabulary(("NOT1A", *slide.var_names[::3][::-1], "NOT2A"))


@pytest.fixture(scope="session")
def model(vocabulary):
    model = SageFM.new(vocabulary, Config(widths=(24, 16, 16, 16, 20)), seed=5)
    # Fresh biases are zero: random ones make every part of the network count.
    torch.manual_seed(6)
    for name, parameter in model.network.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.3)
    return model


@pytest.fixture(scope="session")
def context_model(vocabulary):
    """An untrained context network, whose corrections are large enough to be seen."""
    model = SageFM.new(vocabulary, Config("context", (16, 24, 24, 12)), seed=5)
    with torch.no_grad():
        for weights in (model.network.decoder, model.network.missing):
            weights.mul_(20)
        model.network.usual.fill_(1.0)
    return model


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Run `sagefm WORDS...` in an empty folder; give status, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def command(*words):
        monkeypatch.setattr(sys, "argv", ["sagefm", *map(str, words)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        return stopped.value.code or 0, *capsys.readouterr()

    return command
