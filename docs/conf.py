"""How Sphinx builds the pages: `sphinx-build -W -b html docs docs/_build`."""

from sphinx.ext.napoleon import NumpyDocstring

import sagefm

project = "sagefm"
author = "The sagefm developers"
copyright = "2026, the sagefm developers"
version = release = sagefm.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
templates_path = ["_templates"]
default_role = "literal"
html_theme = "sphinx_book_theme"
html_title = f"sagefm {version}"

autodoc_member_order = "bysource"
autosummary_imported_members = True
maximum_signature_line_length = 80
myst_heading_anchors = 3
napoleon_google_docstring = False
python_use_unqualified_type_names = True


def parse_returns(self: NumpyDocstring, section: str) -> list[str]:
    """Keep what is returned as text: its type is in the signature, as in scanpy."""
    return [*self._format_block(":returns: ", self._dedent(self._consume_to_next_section())), ""]


NumpyDocstring._parse_returns_section = parse_returns
# The text below an attribute is text too, also where it has a colon.
NumpyDocstring._parse_attribute_docstring = lambda self: self._dedent(self._consume_to_end())
