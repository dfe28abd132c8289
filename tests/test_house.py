"""The rules of the house that a machine can check."""

import ast
import re
import subprocess
import sys
import tomllib
from collections import Counter, defaultdict
from pathlib import Path
from types import ModuleType

import pytest

import sagefm

SOURCE = Path(sagefm.__file__).parent
# An import only points down this list.
ROOMS = [
    ("cli", "__main__"), ("demo",), ("report",), ("pl",), ("explore",), ("evaluate",), ("tl",),
    ("pretrain",), ("_as_model",), ("_many",), ("model",),
    ("_streaming",), ("_prediction", "_model_file", "_adaptation", "_difference"),
    ("nn",), ("pp",), ("stats",), ("_row_file",),
    ("_fetch", "_files", "_workers", "_cache", "_extras", "_hdf5", "_owner", "_spatialdata",
     "_strays", "_writable"),
    ("_validate", "_device"),
    ("_signals", "_keys", "_colors", "_errors", "_text", "_types", "_uns", "_progress"),
]  # fmt: skip
RANK = {name: rank for rank, names in enumerate(ROOMS) for name in names}
TREES = {
    ".".join(("sagefm", *path.relative_to(SOURCE).with_suffix("").parts)): ast.parse(
        path.read_text()
    )
    for path in SOURCE.rglob("*.py")
}
TREES = {name.removesuffix(".__init__"): tree for name, tree in sorted(TREES.items())}
LENGTHS = {path: len(path.read_text().splitlines()) for path in SOURCE.rglob("*.py")}
# Names that the glossary has replaced.
BANNED_CLASSES = {
    "Familiar", "Joined", "Piece", "Prepared", "Reading", "Reduction", "Scale", "Screen", "Shelf",
    "Sight", "Standing", "Stretch",
}  # fmt: skip
BANNED = {
    "alike", "familiar", "piece", "pieces", "shelf", "sight", "strangers", "stretch", "stretches",
    "told",
}  # fmt: skip


def imports(module, *, typing=False):
    """The modules of the package that a module imports, at the top or inside functions."""
    skipped = set()
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test) and not typing:
            skipped |= {id(inner) for inner in ast.walk(node)}
    for node in ast.walk(TREES[module]):
        if id(node) in skipped:
            continue
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module}: name the package, not dots"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            target = name if name in TREES else name.rpartition(".")[0]
            if target in TREES and target not in (module, "sagefm"):
                yield target


def room(module):
    return module.split(".")[1]


HOUSED = [module for module in TREES if module != "sagefm"]


@pytest.mark.parametrize("module", HOUSED)
def test_imports_point_down(module):
    up = {name for name in imports(module, typing=True) if RANK[room(name)] < RANK[room(module)]}
    assert not up, f"{module} imports from a room above its own: {up}"


def test_no_import_goes_in_a_circle():
    """Whether at the top or inside a function; a package's own modules may be what it exports."""
    graph = {module: set(imports(module)) for module in HOUSED}
    done, path = set(), []

    def visit(module):
        assert module not in path, " → ".join([*path[path.index(module) :], module])
        if module not in done:
            path.append(module)
            for target in sorted(graph[module]):
                visit(target)
            done.add(path.pop())

    for module in HOUSED:
        visit(module)


@pytest.mark.parametrize("module", HOUSED)
def test_nobody_imports_a_private_module_of_another_package(module):
    for name in imports(module, typing=True):
        parent, _, last = name.rpartition(".")
        private = last.startswith("_") and parent != "sagefm"
        assert not private or f"{module}.".startswith(f"{parent}."), f"{module} imports {name}"


def test_nothing_comes_from_a_folder_beside_the_package():
    beside = re.compile(r"\.\./shared|\b(?:from|import) (?:tests|benchmarks|scripts)\b")
    assert not [path for path in LENGTHS if beside.search(path.read_text())]


@pytest.mark.parametrize("package", [sagefm.tl, sagefm.pl])
def test_public_names_are_functions_and_classes_and_no_module_has_one_of_them(package):
    for name in package.__all__:
        assert not isinstance(getattr(package, name), ModuleType), name
    modules = {module.rpartition(".")[2] for module in TREES if f"{package.__name__}." in module}
    assert not modules & set(package.__all__)


def test_no_class_name_stands_twice():
    places = defaultdict(list)
    for module, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(module)
    assert not {name: where for name, where in places.items() if len(where) > 1}


def test_files_and_functions_stay_small():
    assert not {str(path): length for path, length in LENGTHS.items() if length > 400}
    long = Counter()
    for module, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                documented = ast.get_docstring(node) is not None
                body = node.body[1:] if documented else node.body
                lines = node.end_lineno - body[0].lineno + 1 if body else 0
                long[f"{module}.{node.name}"] = lines
    assert not {name: lines for name, lines in long.items() if lines > 60}


def test_no_banned_word_names_anything():
    found = defaultdict(set)
    for module, tree in TREES.items():
        for node in ast.walk(tree):
            names = [getattr(node, field, None) for field in ("id", "name", "arg", "attr")]
            for name in filter(lambda name: isinstance(name, str), names):
                replaced = name in BANNED_CLASSES or BANNED & set(name.lower().split("_"))
                found[module] |= {name} if replaced else set()
    for module in ("building", "stored"):  # a key of the format of a corpus
        found[f"sagefm.pretrain.corpus.{module}"] -= {"pieces"}
    assert not {module: names for module, names in found.items() if names}


def test_every_module_says_what_it_is():
    assert all(ast.get_docstring(tree) for tree in TREES.values())


def loaded_after(code):
    report = f"import sys\n{code}\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", report], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_importing_the_package_and_its_command_is_light():
    heavy = {"torch", "scanpy", "lightning_fabric", "anndata", "pandas", "matplotlib", "sklearn"}
    assert not loaded_after("import sagefm") & heavy
    assert not loaded_after("import sagefm.cli") & heavy


def test_reading_a_slide_needs_neither_torch_nor_scanpy():
    assert not loaded_after("import sagefm; sagefm.read") & {"torch", "scanpy", "lightning_fabric"}


def test_embedding_loads_neither_statistics_nor_a_compiler():
    code = "import sagefm; sagefm.tl.embed_many; sagefm.SageFM.load('default')"
    assert not loaded_after(code) & {"scipy.stats", "sympy"}


def test_the_promised_names_are_there():
    for name in sagefm.__all__:
        assert getattr(sagefm, name) is not None
    assert callable(sagefm.tl.embed)
    assert callable(sagefm.tl.domains)
    assert callable(sagefm.pl.spatial)
    assert sagefm.InputError in ValueError.__subclasses__()
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        sagefm.nothing  # noqa: B018


def test_the_lowest_versions_tested_are_those_declared():
    root = Path(__file__).parents[1]
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    declared = [project["dependencies"], *project["optional-dependencies"].values()]
    bounds = {bound.replace(">=", "==") for bounds in declared for bound in bounds}
    pins = (root / "constraints-lowest.txt").read_text().splitlines()[1:]
    assert set(pins) == {bound for bound in bounds if not bound.startswith("sagefm[")}
    assert len(project["dependencies"]) <= 12
