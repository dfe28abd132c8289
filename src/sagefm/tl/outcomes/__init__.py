"""Predict outcomes of patients from their slides."""

from sagefm.tl.outcomes._outcome import outcome
from sagefm.tl.outcomes._result import RESEARCH_USE, Outcome

__all__ = ["RESEARCH_USE", "Outcome", "outcome"]
