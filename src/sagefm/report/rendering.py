"""Templates of the pages, and pictures inside them."""

import base64
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template


@cache
def template(name: str) -> Template:
    """Load a template; what it is given is escaped."""
    environment = Environment(
        loader=PackageLoader("sagefm.report"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    return environment.get_template(name)


def picture(png: bytes, caption: str) -> dict[str, str]:
    """Encode a picture as text, for a page that includes it."""
    return {"png": base64.b64encode(png).decode(), "caption": caption}
