"""The rules of the house that a machine can check."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import sagefm

SOURCE = Path(sagefm.__file__).parent
# From the door to the cellar: an import only ever points down this list.
ROOMS = [
    ("cli", "__main__"), ("demo",), ("report",), ("pl",), ("evaluate",), ("tl",), ("pretrain",),
    ("model",), ("nn",), ("pp",), ("stats",), ("_fetch", "_files", "_workers", "_cache", "_extras"),
    ("_keys", "_errors", "_text", "_types"),
]  # fmt: skip
RANK = {name: rank for rank, names in enumerate(ROOMS) for name in names}


def modules():
    return [p for p in SOURCE.rglob("*.py") if p != SOURCE / "__init__.py"]


def room(path):
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported_rooms(path):
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            parts = name.split(".")
            if parts[0] == "sagefm" and len(parts) > 1 and parts[1] in RANK:
                yield parts[1]


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_point_down(path):
    own = RANK[room(path)]
    up = {name for name in imported_rooms(path) if RANK[name] < own}
    assert not up, f"{path.name} imports from a room above its own: {up}"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(SOURCE)))
def test_files_stay_small(path):
    assert len(path.read_text().splitlines()) <= 400


def test_every_module_says_what_it_is():
    assert all(ast.get_docstring(ast.parse(path.read_text())) for path in modules())


def loaded_after(code):
    report = f"import sys\n{code}\nprint(*(m for m in sys.modules if '.' not in m))"
    done = subprocess.run(
        [sys.executable, "-c", report], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_importing_the_package_and_its_command_is_light():
    heavy = {"torch", "scanpy", "lightning", "anndata", "pandas", "matplotlib", "sklearn"}
    assert not loaded_after("import sagefm") & heavy
    assert not loaded_after("import sagefm.cli") & heavy


def test_reading_a_slide_needs_neither_torch_nor_scanpy():
    assert not loaded_after("import sagefm; sagefm.read") & {"torch", "scanpy", "lightning"}


def test_the_promised_names_are_there():
    for name in sagefm.__all__:
        assert getattr(sagefm, name) is not None
    assert callable(sagefm.tl.embed)
    assert callable(sagefm.tl.domains)
    assert callable(sagefm.pl.spatial)
    assert sagefm.InputError in ValueError.__subclasses__()
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        sagefm.nothing  # noqa: B018
