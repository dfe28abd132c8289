"""Judge a slide and a model on it; write this, or a scorecard, as one self-contained page."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sagefm.report.card import scorecard_page
    from sagefm.report.html import page
    from sagefm.report.judge import Quality, quality
    from sagefm.report.rules import RULES, Rule
    from sagefm.report.slide import SlideReport, index_page, slide_report
    from sagefm.report.words import contents, remarks

__all__ = [
    "RULES", "Quality", "Rule", "SlideReport", "contents", "index_page", "page", "quality",
    "remarks", "scorecard_page", "slide_report",
]  # fmt: skip

# The contents of a slide are printed without loading torch and matplotlib.
_HOMES = {
    "RULES": "rules",
    "Quality": "judge",
    "Rule": "rules",
    "SlideReport": "slide",
    "contents": "words",
    "index_page": "slide",
    "page": "html",
    "quality": "judge",
    "remarks": "words",
    "scorecard_page": "card",
    "slide_report": "slide",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"sagefm.report.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'sagefm.report' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
