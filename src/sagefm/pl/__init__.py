"""Pictures, after the conventions of scanpy: they return Axes and take `show` and `save`."""

from sagefm.pl.annotation import annotation, annotator
from sagefm.pl.evaluation import calibration, gene_scatter, method_intervals
from sagefm.pl.imputation import imputed
from sagefm.pl.influence import influence
from sagefm.pl.perturbation import perturbation, response
from sagefm.pl.quality import quality
from sagefm.pl.rare import rare
from sagefm.pl.scorecard import confusion, domain_maps, scorecard
from sagefm.pl.spatial import spatial
from sagefm.pl.subtype import subtype, subtype_evidence
from sagefm.pl.training import training

__all__ = [
    "annotation", "annotator", "calibration", "confusion", "domain_maps", "gene_scatter", "imputed",
    "influence", "method_intervals", "perturbation", "quality", "rare", "response", "scorecard",
    "spatial", "subtype", "subtype_evidence", "training",
]  # fmt: skip
