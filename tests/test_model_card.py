"""The script that fills the model card, and the card of the model of the package."""

import importlib.util
from pathlib import Path

import pytest

from sagefm import InputError, SageFM
from sagefm.model import Config
from sagefm.pp.pseudonyms import PUBLIC
from sagefm.pp.slide_record import TRAINED_SLIDES, records_of
from sagefm.pp.vocabulary import Vocabulary

ROOT = Path(__file__).resolve().parents[1]
CARD = ROOT / "docs" / "model_card.md"
ROW = {"spots": 100, "counts": 1500.0, "genes": 2, "measured": 1.0, "organ": "breast"}
MADE = {"recipe": {"train": {"seed": 3, "max_epochs": 6}}, "sagefm": "1", "torch": "2"}
SLIDES = {
    "a1": ROW | {"patient": "ann", "license": "GPL-3 (repo)", "source": "x|y"},
    "a2": ROW | {"patient": "ann", "license": "GPL-3 (repo)", "source": "x|y"},
    "b1": ROW | {"patient": "ben", "license": "no file; 10x data sets are CC BY 4.0"},
    "c1": ROW | {"patient": "cyd", "organ": "liver", "license": "none in the repository"},
    "d1": ROW | {"patient": "dan", "license": "MIT"},
}


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("model_card", ROOT / "scripts" / "model_card.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def saved(tmp_path):
    model = SageFM.new(Vocabulary(("A", "B")), Config(widths=(8, 8, 8, 8, 8)))
    model.provenance = MADE | {PUBLIC: True, TRAINED_SLIDES: SLIDES}
    model.save(tmp_path / "m.safetensors")
    return str(tmp_path / "m.safetensors")


def test_the_tables_hold_what_the_file_records(script, saved):
    found = script.blocks(saved)
    assert "5 sections of 4 patients, 500 spots, 2 organs" in found["summary"]
    assert found["kinds"].splitlines()[2].startswith("| breast | not known | most genes | 4 | 3 |")
    assert "| a1, a2 | ann | 200 | breast | x/y |" in found["slides"]
    rows = found["licenses"].splitlines()
    assert rows[2].startswith("| GPL | 2 | 200 (40%) | ann |")
    assert rows[3].startswith("| none in the repository, CC BY 4.0 said elsewhere | 1 |")
    assert rows[4].startswith("| none stated | 1 |")
    assert rows[5].startswith("| MIT, Apache or BSD | 1 |")
    assert "--leave-out ann\n" in found["licenses"]
    assert "--leave-out ann ben cyd" in found["licenses"]
    assert "1 of 4 patients" in found["licenses"]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("GPL-3 (retrofit package)", "GPL"), ("", "none stated"), ("None", "none stated"),
        ("HumanPilot Artistic-2.0; see repo licences", "Artistic"),
        ("MIT (repo); 10x data CC BY 4.0", "CC BY"), ("Apache-2.0", "MIT, Apache or BSD"),
        ("notes on paper", "other"),
    ],
)  # fmt: skip
def test_licenses_are_recognized(script, text, name):
    assert script.license_of(text) == name


def test_the_card_is_filled_in_place_and_again(script, saved, tmp_path):
    card = tmp_path / "card.md"
    card.write_text(CARD.read_text())
    script.main([saved, str(card)])
    once = card.read_text()
    assert "5 sections of 4 patients" in once
    assert (
        once.split("## Before you trust it")[1]
        == CARD.read_text().split("## Before you trust it")[1]
    )
    script.main([saved, str(card)])
    assert card.read_text() == once


def test_what_cannot_be_filled_is_refused(script, saved, tmp_path):
    card = tmp_path / "card.md"
    card.write_text("no places")
    with pytest.raises(InputError, match="from the file: summary"):
        script.main([saved, str(card)])
    bare = SageFM.load(saved)
    bare.provenance = {}
    bare.save(saved)
    with pytest.raises(InputError, match="does not record"):
        script.main([saved, str(card)])
    assert card.read_text() == "no places"


def test_the_card_is_that_of_the_model_of_the_package(script):
    model = SageFM.load("default", device="cpu")
    if not records_of(model.provenance):
        pytest.skip("the model of the package does not record its training slides yet")
    text = CARD.read_text()
    assert script.fill(text, script.blocks("default")) == text
