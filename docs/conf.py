"""How Sphinx builds the site: `make docs`."""

import hashlib
import os
import sys
from pathlib import Path

from sphinx.ext.napoleon import NumpyDocstring

import sagefm

HERE = Path(__file__).resolve().parent

project = "sagefm"
author = "The sagefm developers"
copyright = "2026, the sagefm developers"
version = release = sagefm.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
exclude_patterns = ["_build", "jupyter_execute"]
templates_path = ["_templates"]
default_role = "literal"

html_theme = "sphinx_book_theme"
html_title = f"sagefm {version}"
html_logo = "_static/logo.svg"
html_favicon = "_static/logo.svg"
html_static_path = ["_static"]
html_css_files = ["sagefm.css"]
html_theme_options = {
    "logo": {"text": "sagefm"},
    "show_toc_level": 2,
    "use_download_button": False,
    "use_fullscreen_button": False,
    "navbar_persistent": [],
}
html_show_sourcelink = False

autodoc_member_order = "bysource"
autosummary_imported_members = True
maximum_signature_line_length = 80
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
napoleon_google_docstring = False
python_use_unqualified_type_names = True


def package_version() -> str:
    """Hash the package, whose change makes all outputs of the notebooks old."""
    digest = hashlib.sha256()
    for path in sorted(Path(sagefm.__file__).parent.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


nb_execution_mode = "cache"
nb_execution_cache_path = str(HERE / "_build" / "notebooks" / package_version())
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 600
nb_merge_streams = True
nb_output_stderr = "remove-warn"  # what a notebook warns of ends the build
copybutton_exclude = ".linenos, .gp, .go"

# The notebooks find the command of this environment, and draw figures that fit the page.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
os.environ["MATPLOTLIBRC"] = str(HERE / "matplotlibrc")
os.environ.update(COLUMNS="100", TTY_COMPATIBLE="0")  # no colors in what a command prints


def parse_returns(self: NumpyDocstring, section: str) -> list[str]:
    """Keep what is returned as text: its type is in the signature, as in scanpy."""
    return [*self._format_block(":returns: ", self._dedent(self._consume_to_next_section())), ""]


NumpyDocstring._parse_returns_section = parse_returns
# The text below an attribute is text too, also where it has a colon.
NumpyDocstring._parse_attribute_docstring = lambda self: self._dedent(self._consume_to_end())
