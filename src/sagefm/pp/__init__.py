"""Read, check, align and simulate slides, and find neighborhoods."""

from sagefm.pp.add_counts import add_counts
from sagefm.pp.aggregate import aggregate
from sagefm.pp.check import Finding, check, summarize
from sagefm.pp.disaggregate import disaggregate
from sagefm.pp.markers import marker_sets
from sagefm.pp.mudata import from_mudata, to_mudata
from sagefm.pp.neighborhood import average, nearest
from sagefm.pp.plant import plant
from sagefm.pp.proteins import clr
from sagefm.pp.read import open_slide, read
from sagefm.pp.simulate import simulate
from sagefm.pp.simulate_cohort import SimulatedCohort, simulate_cohort
from sagefm.pp.spatialdata import write_back
from sagefm.pp.tissue import simulate_tissue
from sagefm.pp.vocabulary import Alignment, Vocabulary

__all__ = [
    "Alignment",
    "Finding",
    "SimulatedCohort",
    "Vocabulary",
    "add_counts",
    "aggregate",
    "average",
    "check",
    "clr",
    "disaggregate",
    "from_mudata",
    "marker_sets",
    "nearest",
    "open_slide",
    "plant",
    "read",
    "simulate",
    "simulate_cohort",
    "simulate_tissue",
    "summarize",
    "to_mudata",
    "write_back",
]
