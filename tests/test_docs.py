"""The site lists every public name, and its commands and links exist; `make docs` executes it."""

import re
import shlex
from pathlib import Path

import pytest
import typer.main

import sagefm
from sagefm.cli import app

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.glob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"])
NOTEBOOKS = [page for page in PAGES if "```{code-cell}" in page.read_text()]
GUIDE = ("quickstart", "domains", "embedding", "slides", "imputation", "annotation", "subtypes",
         "outcomes", "modalities", "rare", "perturbation", "quality", "training")  # fmt: skip
PACKAGES = ("evaluate", "pl", "pp", "pretrain", "report", "tl")
COMMAND = typer.main.get_command(app)


def commands(page):
    """The commands of a page: lines of code, continued ones as one, and code within a sentence."""
    text = re.sub(r" *\\\n *", " ", page.read_text())
    fenced = "\n".join(re.findall(r"```.*?```", text, re.DOTALL))
    within = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    lines = re.findall(r"^(sagefm [a-z].*)$", fenced, re.MULTILINE)
    lines += re.findall(r"^    (sagefm [a-z].*)$", within, re.MULTILINE)
    return lines + [
        " ".join(words.split()) for words in re.findall(r"`(sagefm [a-z][^`]*)`", within)
    ]


def unknown_words(line):
    """Verbs and options of a command that do not exist."""
    words = shlex.split(line.split("|")[0], comments=True)[1:]
    verb = COMMAND
    while words and (found := getattr(verb, "commands", {}).get(words[0])) is not None:
        verb, words = found, words[1:]
    if hasattr(verb, "commands"):
        return words[:1]
    listed = {name for each in verb.params for name in (*each.opts, *each.secondary_opts)}
    known = listed | {"--help", "-h", "--debug"}
    return [word for word in words if re.match(r"--?[a-z]", word) and word not in known]


def test_a_verb_or_an_option_that_does_not_exist_is_noticed():
    assert unknown_words("sagefm domains a.h5ad -n 7 -o b.h5ad") == []
    assert unknown_words("sagefm domains a.h5ad --number 7") == ["--number"]
    assert unknown_words("sagefm cluster a.h5ad") == ["cluster"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_exist_as_they_are_written(page):
    wrong = {line: unknown_words(line) for line in commands(page)}
    assert {line: words for line, words in wrong.items() if words} == {}


def test_the_guide_consists_of_notebooks_that_name_their_kernel():
    assert {page.stem for page in NOTEBOOKS} >= set(GUIDE)
    for page in NOTEBOOKS:
        head = page.read_text().split("---")[1]
        assert "file_format: mystnb" in head, page.name
        assert "name: python3" in head, page.name


@pytest.mark.parametrize("name", GUIDE)
def test_every_page_of_the_guide_says_how_to_take_a_slide_of_your_own(name):
    before, _, _ = (DOCS / f"{name}.md").read_text().partition("```{code-cell}")
    assert "```python" in before


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_files_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_every_page_of_the_site_is_in_a_table_of_contents():
    listed = set()
    for page in DOCS.rglob("*.md"):
        for block in re.findall(r"```\{toctree\}\n(.*?)```", page.read_text(), re.DOTALL):
            listed |= {(page.parent / line).resolve() for line in block.split() if line[0] != ":"}
    pages = {page.with_suffix("") for page in DOCS.rglob("*.md")}
    built = {path for path in pages if {"_build", "generated"} & set(path.parts)}
    assert pages - built - listed == {DOCS / "index"}


@pytest.mark.parametrize("package", [sagefm, *(getattr(sagefm, name) for name in PACKAGES)])
def test_every_public_name_stands_on_a_page_of_the_api(package):
    page = DOCS / "api" / f"{package.__name__.rpartition('.')[2]}.md"
    text = page.read_text()
    listed = re.findall(r"^   (\w+)$", text, re.MULTILINE)
    listed += re.findall(rf"py:data:: {package.__name__}\.(\w+)$", text, re.MULTILINE)
    assert sorted(listed) == sorted(set(package.__all__) - set(PACKAGES))
