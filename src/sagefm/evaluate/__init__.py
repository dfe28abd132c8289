"""Evaluate models in comparison with baselines."""

from sagefm.evaluate._markdown import markdown
from sagefm.evaluate._scorecard import PROTOCOLS, scorecard
from sagefm.evaluate.baselines.embeddings import competitors
from sagefm.evaluate.baselines.pca import pca
from sagefm.evaluate.cohort import Cohort
from sagefm.evaluate.protocols.annotation import annotation
from sagefm.evaluate.protocols.domain_recovery import domain_recovery
from sagefm.evaluate.protocols.domains import domains
from sagefm.evaluate.protocols.recovery import recovery
from sagefm.evaluate.protocols.subtype import require_subtypes, subtype
from sagefm.evaluate.result import Result

__all__ = [
    "PROTOCOLS", "Cohort", "Result", "annotation", "competitors", "domain_recovery", "domains",
    "markdown", "pca", "recovery", "require_subtypes", "scorecard", "subtype",
]  # fmt: skip
