"""What the tests share: where the real data lie, and small slides and models."""

import sys
from pathlib import Path

import pytest
import torch

from sagefm.model import Config, SageFM
from sagefm.pp.simulate import simulate
from sagefm.pp.vocabulary import Vocabulary

sys.path.insert(0, str(Path(__file__).parent))  # for `reference`, the oracle

SHARED = Path(__file__).resolve().parents[1].parent / "shared" / "data"


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
