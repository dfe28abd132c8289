"""What features say of the outcome of patients: targets, fits, scores and tests."""

from sagefm.stats.outcomes.evaluation import Evaluation, FeatureSet, SetFit, evaluate_sets
from sagefm.stats.outcomes.kinds import ClassTarget, NumberTarget, OrdinalTarget, SurvivalTarget
from sagefm.stats.outcomes.reading import TargetKind, target_of
from sagefm.stats.outcomes.targets import Target

__all__ = [
    "ClassTarget",
    "Evaluation",
    "FeatureSet",
    "NumberTarget",
    "OrdinalTarget",
    "SetFit",
    "SurvivalTarget",
    "Target",
    "TargetKind",
    "evaluate_sets",
    "target_of",
]
