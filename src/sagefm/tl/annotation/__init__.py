"""Transfer labels of spots from annotated slides."""

from sagefm._keys import UNKNOWN
from sagefm.tl.annotation._annotate import annotate, learn_annotator
from sagefm.tl.annotation._annotator import Annotator
from sagefm.tl.annotation._calibration import HeldOutPredictions

__all__ = ["UNKNOWN", "Annotator", "HeldOutPredictions", "annotate", "learn_annotator"]
