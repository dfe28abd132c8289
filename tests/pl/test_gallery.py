"""The gallery has every picture, as the script that makes it does."""

import importlib.util
import re
from pathlib import Path

import pytest

import sagefm

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def gallery():
    spec = importlib.util.spec_from_file_location("gallery", ROOT / "scripts" / "gallery.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def page():
    return (ROOT / "docs" / "gallery.md").read_text()


def test_every_picture_is_in_the_gallery_with_its_code(page):
    headings = set(re.findall(r"^### `(\w+)`", page, re.MULTILINE))
    pictures = set(sagefm.pl.__all__) - {"explore"}  # a page, with a guide of its own
    assert headings == pictures
    for name in pictures:
        assert f"sagefm.pl.{name}(" in page


def test_the_pictures_are_there_and_small(page):
    files = [ROOT / "docs" / name for name in re.findall(r"\]\((img/gallery/\w+\.png)\)", page)]
    assert len(files) == len(set(files)) > 20
    sizes = [file.stat().st_size for file in files]
    assert max(sizes) <= 120_000
    assert sum(sizes) <= 2_500_000
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in files)


def test_the_page_is_what_the_script_writes(gallery, page):
    assert gallery.page() == page
