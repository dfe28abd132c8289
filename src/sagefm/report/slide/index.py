"""An index of the reports of several slides."""

from collections.abc import Mapping, Sequence
from urllib.parse import quote

from sagefm.report.rendering import template
from sagefm.report.rules import GRADES, IMPUTATION
from sagefm.report.slide.page import SlideReport

_WORST_LAST = ("good", "unknown", "care", "bad")


def index_page(
    reports: Sequence[SlideReport],
    failed: Mapping[str, str] | None = None,
    *,
    command: str = "",
) -> str:
    """Write the index of reports, whose pages are called after their slides.

    Parameters
    ----------
    reports
        In any order: those of the worst slides come last, and of slides of the same grade those
        with fewer counts.
    failed
        Name → why there is no report.
    command
        The command line.

    Returns
    -------
    HTML with a link to ``NAME.html`` for each report.
    """
    rows = [
        {
            "name": report.name, "file": quote(page_name(report.name)), "grade": report.grade,
            "verdict": report.verdicts.get(IMPUTATION, ""), "spots": f"{report.spots:,}",
            "counts": f"{report.counts:,.0f}", "genes": f"{report.genes:,.0f}",
            "domains": "" if report.n_domains is None else str(report.n_domains),
            "verdict_grade": GRADES.get(report.verdicts.get(IMPUTATION, ""), ""),
            "preview": report.preview,
        }
        for report in sorted(reports, key=_rank)
    ]  # fmt: skip
    return template("index.html.jinja").render(
        rows=rows, failed=dict(failed or {}), command=command, n=len(rows)
    )


def page_name(name: str) -> str:
    """Name the page of a slide."""
    return f"{name}.html"


def _rank(report: SlideReport) -> tuple[int, int, float, str]:
    verdict = GRADES.get(report.verdicts.get(IMPUTATION, ""), "unknown")
    return (
        _WORST_LAST.index(report.grade), _WORST_LAST.index(verdict), -report.counts, report.name
    )  # fmt: skip
