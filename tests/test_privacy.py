"""Names of patients stay out of model files, pages, pictures and logs; so do those of slides.

A slide is called what the user calls its file: the page about it has its name, and nothing else.
`sagefm outcome` is tested with its command.
"""

import contextlib
import io
import json
import logging
import os
import re
import sys
from pathlib import Path

import pytest

from sagefm import SageFM, cli
from sagefm.evaluate import Cohort
from sagefm.evaluate.presentation import introduction
from sagefm.nn import checkpoint
from sagefm.pp.pseudonyms import is_among, pseudonym, without_names
from sagefm.pp.simulate import simulate

PATIENT, SLIDE = re.compile(r"MRN-47|-Doe"), re.compile(r"ACC-08|-Roe")
PATIENTS = [f"MRN-47{i:02}-Doe" for i in range(6)]
NAMES = [f"ACC-08{i:02}-Roe" for i in range(6)]
FILES = [f"{name}.h5ad" for name in NAMES]
SETTINGS = [
    "network.widths=[16,8,8,8,12]", "data.genes=60", "train.batch_size=16", "train.max_epochs=1",
    f'data.validation=["{PATIENTS[1]}"]', f'data.leave_out=["{PATIENTS[2]}"]',
    f'data.weights={{"{NAMES[0]}"=2.0}}',
]  # fmt: skip
TRAIN = ["--recipe", "small", *(word for entry in SETTINGS for word in ("--set", entry))]
COMMANDS = {
    "corpus": ["corpus", "build", *FILES[:3], "-o", "corpus"],
    "pretrain": ["pretrain", "corpus", *TRAIN, "-o", "model.safetensors"],
    "info": ["info", "model.safetensors"],
    "report": ["report", FILES[0], "-m", "model.safetensors", "-o", "report.html"],
    "subtype": ["subtype", *FILES, "--subtype-key", "grade", "-m", "model.safetensors",
                "-o", "subtype.csv"],
    "evaluate": ["evaluate", "--slides", FILES[0], "-m", "model.safetensors", "-o", "card",
                 "--protocol", "recovery", "--no-adapt"],
}  # fmt: skip


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    """What each command prints and logs, in the folder that it fills."""
    folder, before = tmp_path_factory.mktemp("names"), Path.cwd()
    genes = simulate(15).var_names[:80]
    for i, (patient, file) in enumerate(zip(PATIENTS, FILES, strict=True)):
        slide = simulate(40, genes=genes, seed=i, biology_seed=i % 2, patient=patient, slide="s")
        slide.obs["grade"] = ["low", "high"][i % 2]
        slide.obs["region"] = ["left", "right"] * (slide.n_obs // 2)
        slide.write_h5ad(folder / file)
    lines: list[str] = []

    call = logging.Logger.callHandlers
    level = logging.getLogger("sagefm").level
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logging.Logger, "callHandlers", lambda self, record: (
            lines.append(record.getMessage()), call(self, record)
        ))  # fmt: skip
        patch.chdir(folder)
        logging.getLogger("sagefm").setLevel(logging.DEBUG)
        told = {}
        for name, words in COMMANDS.items():
            lines.clear()
            patch.setattr(sys, "argv", ["sagefm", *words, "--debug"])
            stream = io.StringIO()
            with (
                contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream),
                pytest.raises(SystemExit) as stopped,
            ):  # fmt: skip
                cli.main()
            assert not stopped.value.code, stream.getvalue()
            told[name] = stream.getvalue() + "\n".join(lines)
    logging.getLogger("sagefm").setLevel(level)
    os.chdir(before)
    return folder, told


def header_of(path):
    """The header of a safetensors file, as text."""
    data = path.read_bytes()
    return data[8 : 8 + int.from_bytes(data[:8], "little")].decode()


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_prints_or_logs_a_patient(printed, command):
    assert not PATIENT.search(printed[1][command])


def test_a_model_file_names_neither_slides_nor_patients(printed):
    path = printed[0] / "model.safetensors"
    assert not PATIENT.search(header_of(path))
    assert not SLIDE.search(header_of(path))
    assert not re.search(rb"MRN-47|ACC-08", path.read_bytes())
    made = SageFM.load(path).provenance
    assert set(made["slides"]) == {pseudonym(name) for name in NAMES[:2]}
    assert made["recipe"]["data"]["leave_out"] == [pseudonym(PATIENTS[2])]
    assert made["trained_slides"].keys() == {pseudonym(NAMES[0])}  # the other one is validated on
    assert made["trained_slides"][pseudonym(NAMES[0])]["patient"] == pseudonym(PATIENTS[0])


def test_the_state_of_a_run_names_none_and_is_resumed(tmp_path, monkeypatch, printed):
    monkeypatch.chdir(printed[0])
    words = ["pretrain", "corpus", *TRAIN, "-o", tmp_path / "out.safetensors"]
    runs = []
    save = checkpoint.write

    def write(path, weights, header):
        save(path, weights, header)
        if "progress" in header:
            runs.append(header_of(Path(path)))

    monkeypatch.setattr(checkpoint, "write", write)
    monkeypatch.setattr(sys, "argv", ["sagefm", *map(str, words)])
    with pytest.raises(SystemExit):
        cli.main()
    assert runs
    assert not [header for header in runs if PATIENT.search(header) or SLIDE.search(header)]


def test_a_slide_that_was_trained_on_is_recognized(printed):
    folder, told = printed
    page = (folder / "report.html").read_text()
    assert f"The model was trained on a slide called {NAMES[0]}" in page
    model = SageFM.load(folder / "model.safetensors")
    cohort = Cohort({name: folder / f"{name}.h5ad" for name in NAMES[:3]})
    _, [line] = introduction(cohort, {"ours": model})
    assert f"was trained or validated on 2 of these slides: {NAMES[0]}, {NAMES[1]}" in line
    assert pseudonym(NAMES[0]) in told["info"]


def test_pages_and_pictures_have_no_patient(printed):
    folder, _ = printed
    files = [p for p in folder.rglob("*") if p.suffix in (".html", ".png", ".svg", ".md")]
    assert {"report.html", "scorecard.html"} <= {path.name for path in files}
    for path in files:
        assert not PATIENT.search(path.read_bytes().decode(errors="replace")), path
    others = {name for name in NAMES[1:] if name in (folder / "report.html").read_text()}
    assert not others


def test_the_explorer_sends_no_patient(printed):
    document = pytest.importorskip("bokeh.document").Document()
    from sagefm.explore.opening import open_for_exploring
    from sagefm.explore.page import Page
    from sagefm.explore.state import Explorer

    slide = open_for_exploring(printed[0] / FILES[0])
    Page(Explorer(slide, None), "token").build(document)
    assert not PATIENT.search(json.dumps(document.to_json(), default=str))


def test_names_are_replaced_at_any_depth_and_once_only():
    made = {
        "slides": {"a": 1, "b": 2}, "patients": ["p"], "weights": "pretrained", "seed": 3,
        "recipe": {"data": {"validation": 0.1, "leave_out": ["p"], "weights": {"a": 2.0}}},
        "trained_slides": {
            "a": {"patient": "p", "source": "a.h5ad", "organ": "liver"},
            "b_1": {"patient": "", "source": "b"},
            "c": {"source": "https://example.org/data"},
        },
    }  # fmt: skip
    found = without_names(made)
    a, p = pseudonym("a"), pseudonym("p")
    assert found["slides"] == {a: 1, pseudonym("b"): 2}
    assert found["patients"] == [p]
    assert (found["weights"], found["seed"]) == ("pretrained", 3)
    assert found["recipe"]["data"] == {"validation": 0.1, "leave_out": [p], "weights": {a: 2.0}}
    assert found["trained_slides"] == {
        a: {"patient": p, "organ": "liver"},
        pseudonym("b_1"): {"patient": ""},
        pseudonym("c"): {"source": "https://example.org/data"},
    }
    assert without_names(found) == found
    assert is_among("a", found["slides"])
    assert is_among("a", made["slides"])
    assert not is_among("c", found["slides"])
