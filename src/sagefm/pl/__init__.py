"""Plots that return Axes and take `show` and `save`, as those of scanpy do."""

from sagefm.pl._annotation import annotation, annotator
from sagefm.pl._cross import cross
from sagefm.pl._domain_maps import domain_maps
from sagefm.pl._domains import contacts, domain_markers
from sagefm.pl._evaluation import calibration, gene_scatter, method_intervals
from sagefm.pl._explore import explore
from sagefm.pl._imputation import imputed
from sagefm.pl._influence import influence
from sagefm.pl._outcome import outcome
from sagefm.pl._outcome_map import outcome_map
from sagefm.pl._outcome_panels import forest, learning_curve
from sagefm.pl._outcome_risks import outcome_calibration
from sagefm.pl._perturbation import perturbation, response
from sagefm.pl._perturbation_sets import perturbation_sets
from sagefm.pl._predicted import predicted
from sagefm.pl._quality import quality
from sagefm.pl._rare import rare
from sagefm.pl._scorecard import confusion, scorecard
from sagefm.pl._spatial import spatial
from sagefm.pl._stability import stability
from sagefm.pl._style import journal
from sagefm.pl._subtype import subtype, subtype_evidence
from sagefm.pl._survival import kaplan_meier
from sagefm.pl._training import training

__all__ = [
    "annotation", "annotator", "calibration", "confusion", "contacts", "cross", "domain_maps",
    "domain_markers", "explore", "forest", "gene_scatter", "imputed", "influence", "journal",
    "kaplan_meier", "learning_curve", "method_intervals", "outcome", "outcome_calibration",
    "outcome_map", "perturbation", "perturbation_sets", "predicted", "quality", "rare", "response",
    "scorecard", "spatial", "stability", "subtype", "subtype_evidence", "training",
]  # fmt: skip
