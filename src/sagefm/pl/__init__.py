"""Pictures, after the conventions of scanpy: they return Axes and take `show` and `save`."""

from sagefm.pl.evaluation import calibration, gene_scatter, method_intervals
from sagefm.pl.imputation import imputed
from sagefm.pl.influence import influence
from sagefm.pl.perturbation import perturbation, response
from sagefm.pl.scorecard import confusion, domain_maps, scorecard
from sagefm.pl.spatial import spatial
from sagefm.pl.training import training

__all__ = [
    "calibration", "confusion", "domain_maps", "gene_scatter", "imputed", "influence",
    "method_intervals", "perturbation", "response", "scorecard", "spatial", "training",
]  # fmt: skip
