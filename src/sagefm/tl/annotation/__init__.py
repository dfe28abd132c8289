"""Transfer labels of spots from annotated slides."""

from sagefm.tl.annotation._annotate import annotate, learn_annotator
from sagefm.tl.annotation._annotator import UNKNOWN, Annotator
from sagefm.tl.annotation._calibration import HeldOutPredictions

__all__ = ["UNKNOWN", "Annotator", "HeldOutPredictions", "annotate", "learn_annotator"]
