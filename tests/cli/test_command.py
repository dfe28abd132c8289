"""The command as a whole: its words, its messages and its progress."""

import io
import logging
import sys
import warnings

import pytest

import sagefm
from sagefm._errors import logger
from sagefm._progress import counted, stage
from sagefm.cli import _VERBS, _terminal
from sagefm.cli._messages import for_command
from sagefm.pp.simulate import simulate


@pytest.fixture
def annotated(monkeypatch):
    """Which slides `annotate` is called with, instead of annotating."""
    given = []
    monkeypatch.setattr("sagefm.SageFM.load", lambda *_, **__: None)

    def read(path, **_):
        given.append(path)
        raise sagefm.InputError(f"{path}: read")

    monkeypatch.setattr("sagefm.read", read)
    return given


@pytest.mark.parametrize(
    "words",
    [
        ["S", "--known", "A", "B", "-o", "o.h5ad"],
        ["--known", "A", "B", "S", "-o", "o.h5ad"],
        ["--known", "A", "B", "-o", "o.h5ad", "S"],
        ["--known", "A", "--known", "B", "-o", "o.h5ad", "S"],
        ["--known", "A", "--known", "B", "S", "-o", "o.h5ad"],
        ["--known", "A", "S", "--known", "B", "-o", "o.h5ad"],
        ["-o", "o.h5ad", "--known=A", "--known=B", "S"],
        ["-o", "o.h5ad", "--known", "A", "B", "--", "S"],
    ],
)
def test_an_option_of_several_values_does_not_take_the_slide(run, annotated, monkeypatch, words):
    status, _, err = run("annotate", *words)
    assert (status, err) == (2, "error: S: read\n")
    learned = []
    monkeypatch.setattr("sagefm.read", lambda path, **_: simulate(20, seed=1) and path)
    monkeypatch.setattr("sagefm.cli.annotation.require_own", lambda *_, **__: None)
    monkeypatch.setattr(
        "sagefm.tl.learn_annotator", lambda known, *_, **__: learned.append(known) or 1 / 0
    )
    run("annotate", *words)
    assert learned == [{"A": "A", "B": "B"}]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--known", "A", "B", "--seed", 1, "--known", "C", "D"], "write --known A --known B"),
        (["--known", "S"], "Missing argument 'SLIDES...'"),
        (["--known", "--seed", 1, "S"], "'--known' requires a value"),
        (["S", "T", "--known", "A"], "--known is for one slide"),
    ],
)
def test_words_that_have_two_meanings_are_refused(run, words, said):
    status, _, err = run("annotate", "-o", "o.h5ad", *words)
    assert status == 2
    assert said in err
    assert len(err.splitlines()) == 1


def test_every_option_of_several_values_of_evaluate(run, monkeypatch):
    given = {}

    def load(path, **_):
        given.setdefault("models", []).append(path)

    def cohort(paths, **_):
        given["slides"] = paths
        raise sagefm.InputError("enough")

    monkeypatch.setattr("sagefm.SageFM.load", load)
    monkeypatch.setattr("sagefm.evaluate.Cohort", cohort)
    words = ["--slides", "a", "b", "-m", "x", "y", "--protocol", "domains", "recovery", "-o", "o"]
    assert run("evaluate", *words, "--slides", "c")[2] == "error: enough\n"
    assert given == {"models": ["x", "y"], "slides": {"a": "a", "b": "b", "c": "c"}}


def test_versions(run):
    status, out, _ = run("--version")
    lines = [line.split() for line in out.splitlines()]
    assert status == 0
    assert [name for name, _ in lines] == ["sagefm", "python", "torch", "anndata"]
    assert lines[0][1] == sagefm.__version__


@pytest.mark.parametrize("words", [[], *([verb.__name__] for verb in _VERBS), ["corpus", "build"]])
def test_help_of_everything(run, words):
    status, out, _ = run(*words, "-h")
    assert status == 0
    assert out == run(*words, "--help")[1]
    assert "Usage: " in out


@pytest.mark.parametrize("words", [[], ["corpus"]])
def test_without_a_command_the_help_is_printed(run, words):
    assert run(*words) == run(*words, "--help")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["emebd"], "No such command 'emebd'; did you mean embed? (see sagefm --help)"),
        (["corpus", "biuld"], "did you mean build? (see sagefm corpus --help)"),
        (["xyzzy"], "No such command 'xyzzy' (see sagefm --help)"),
        (["embed", "x", "--devise", "cpu"], "did you mean --device? (see sagefm embed --help)"),
        (["embed", "--dev", "cpu", "x", "-o", "y"], "No such option: --dev"),
        (["--versoin"], "did you mean --version?"),
        (["domains", "x", "-n", 0, "-o", "y.h5ad"], "'-n'"),
        (["domains", "x", "-n", 3, "-o", "y.h5ad", "--seed", 2**63], "'--seed'"),
        (["domains", "x", "-n", 3, "-o", "y.h5ad", "--seed", -1], "'--seed'"),
        (["perturb", "x", "--levels", 10**9, "-o", "y.csv"], "'--levels'"),
        (["domains", "x", "-n", 3, "-o", "x/y/z"], "ends with .h5ad"),
        (["domains", "x", "-n", 3, "-o", ""], "-o is empty"),
        (["influence", "x", "-o", "y.csv", "--genes", ",,"], "has no gene"),
        (["influence", "x", "-o", "y.csv", "--sources", ""], "--sources is empty"),
        (["embed", "x", "", "-o", "y"], "slides is empty"),
        (["evaluate", "--slides", "x", "", "-o", "y"], "--slides is empty"),
    ],
)
def test_mistakes_name_the_nearest_word_or_the_option(run, words, said):
    status, out, err = run(*words)
    assert (status, out) == (2, "")
    assert said in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("pass slide_key='the section' (or not)", "pass --slide-key 'the section' (or not)"),
        ("slides, pass slide_key=, else", "slides, pass --slide-key, else"),
        ("and pass it as slide_key", "and pass it as --slide-key"),
        ("pass layer='raw' (counts are in raw)", "pass --layer raw (counts are in raw)"),
        ("add one and pass layer=", "add one and pass --layer"),
        ("error_rate=2.0: give less", "--error-rate 2.0: give less"),
        ("run sagefm.tl.embed first", "run `sagefm embed` first"),
        ("obs['slide_key'] and --layer=x stay", "obs['slide_key'] and --layer=x stay"),
        ("run sagefm.tl.domains(slides) on all", "run `sagefm domains` on all"),
    ],
)
def test_remedies_are_written_as_options(message, said):
    assert for_command(message) == said


def test_every_verb_that_reads_slides_has_the_options_of_remedies(run):
    for verb in _VERBS:
        if {"slide", "slides"} & verb.__annotations__.keys():
            assert {"slide_key", "layer"} <= verb.__annotations__.keys(), verb


def test_a_remedy_of_a_slide_works_as_it_is_printed(run, slide, model):
    other = slide.copy()
    other.layers["raw counts"] = slide.X.copy()
    other.X = slide.X.log1p() * 0.7
    other.write_h5ad("s.h5ad")
    model.save("m.safetensors")
    words = ["embed", "s.h5ad", "-m", "m.safetensors", "-o", "o.h5ad"]
    assert "pass --layer 'raw counts'" in run(*words)[2]
    assert run(*words, "--layer", "raw counts")[0] == 0


def test_a_message_is_printed_once(run, monkeypatch):
    def load(*_, **__):
        logger.warning("pass slide_key=%r", "a")
        logger.warning("pass slide_key=%r", "a")
        logger.warning("another")
        warnings.showwarning("of a library", FutureWarning, "lib.py", 1)
        raise sagefm.InputError("the end")

    monkeypatch.setattr("sagefm.SageFM.load", load)
    _, out, err = run("check", "x.h5ad", "-m", "m.safetensors")
    assert err.splitlines() == ["note: pass --slide-key a", "note: another", "error: the end"]
    assert not out


def test_loggers_are_restored(run):
    before = logger.handlers, logger.propagate, logger.level, warnings.showwarning
    run("check", "x.h5ad")
    assert before == (logger.handlers, logger.propagate, logger.level, warnings.showwarning)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def waited(status, seconds):
    """Let a status be drawn as if so much time had passed."""
    status._show(status._since + seconds)


def test_a_terminal_shows_the_stage_and_results_replace_it():
    stream = Terminal()
    status = _terminal._Status(stream)
    waited(status, 0.5)
    assert not stream.getvalue()  # short commands show nothing
    status.emit(logging.makeLogRecord({"msg": "reading %s", "args": ("a",)}))
    waited(status, 3)
    assert stream.getvalue() == "\r\x1b[Kreading a (3 s)"
    status.above(stream).write("a result\n")
    assert stream.getvalue().endswith("(3 s)\r\x1b[Ka result\n")
    status.emit(logging.makeLogRecord({"msg": ""}))
    waited(status, 100)
    assert stream.getvalue().endswith("a result\n")


def test_a_file_gets_a_line_only_of_long_work():
    stream = io.StringIO()
    status = _terminal._Status(stream)
    status.emit(logging.makeLogRecord({"msg": "reading a"}))
    waited(status, 5)
    assert not stream.getvalue()
    for seconds in (31, 32, 80):
        waited(status, seconds)
    assert stream.getvalue() == "reading a (31 s)\n"


def test_stages_of_functions_are_lines_of_a_logger(caplog, slide, model):
    with caplog.at_level("INFO", "sagefm.progress"):
        sagefm.tl.embed(slide.copy(), model)
        assert list(counted("ab", "letter")) == ["a", "b"]
        stage("at %d", 5)
    said = [record.getMessage() for record in caplog.records]
    assert said[0].endswith("the neighborhoods of 200 spots")
    assert said[-4:] == ["embedding, block: 1 of 1", "letter: 1 of 2", "letter: 2 of 2", "at 5"]


def test_what_is_missing_for_the_output_is_noticed_before_a_slide_is_read(run, monkeypatch):
    monkeypatch.setattr("sagefm.read", lambda *_, **__: pytest.fail("read in vain"))
    monkeypatch.setitem(sys.modules, "networkx", None)
    monkeypatch.setitem(sys.modules, "igraph", None)
    assert "needs networkx" in run("influence", "x.h5ad", "-o", "g.graphml")[2]
    leiden = ["domains", "x.h5ad", "-n", 3, "--method", "leiden", "-o"]
    assert "needs igraph" in run(*leiden, "o.h5ad")[2]
    open("file", "w").close()
    assert "file/o.h5ad: cannot be written" in run(*leiden, "file/o.h5ad")[2]


def test_the_verdict_of_check_comes_first(run, slide):
    slide.write_h5ad("s.h5ad")
    status, out, _ = run("check", "s.h5ad")
    assert (status, out.splitlines()[0]) == (0, f"{'ok':<16} s.h5ad can be used")
    shallow = slide.copy()
    shallow.X.data[: shallow.X.indptr[3]] = 0
    shallow.write_h5ad("w.h5ad")
    status, out, _ = run("check", "w.h5ad")
    first, *lines = out.splitlines()
    assert first == f"{'warnings':<16} w.h5ad can be used, but read the 1 warning below"
    assert sum(line.startswith("warning ") for line in lines) == 1
    shallow.obsm["spatial"][:] = 0
    shallow.write_h5ad("e.h5ad")
    status, out, err = run("check", "e.h5ad")
    assert (status, out.splitlines()[0]) == (
        2, f"{'errors':<16} e.h5ad cannot be used: 1 error",
    )  # fmt: skip
    assert (out + err).count("the same coordinates") == 1
