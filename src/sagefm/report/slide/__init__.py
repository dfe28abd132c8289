"""Write what a slide shows as one page, and an index of several such pages."""

from sagefm.report.slide.index import index_page
from sagefm.report.slide.page import SlideReport, slide_report

__all__ = ["SlideReport", "index_page", "slide_report"]
