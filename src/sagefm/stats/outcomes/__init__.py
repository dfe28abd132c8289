"""What features say of the outcome of patients: targets, fits, scores and tests."""

from sagefm.stats.outcomes.beyond import Gain, beyond
from sagefm.stats.outcomes.calibration import calibration
from sagefm.stats.outcomes.confounding import confounding
from sagefm.stats.outcomes.curve import NeededPatients, learning_curve, needed_patients
from sagefm.stats.outcomes.effects import effects
from sagefm.stats.outcomes.evaluation import Evaluation, FeatureSet, SetFit, evaluate_sets
from sagefm.stats.outcomes.groups import RiskGroups, kaplan_meier, log_rank, risk_groups
from sagefm.stats.outcomes.hazards import proportional_hazards
from sagefm.stats.outcomes.kinds import ClassTarget, NumberTarget, OrdinalTarget, SurvivalTarget
from sagefm.stats.outcomes.reading import TargetKind, target_of
from sagefm.stats.outcomes.targets import Target

__all__ = [
    "ClassTarget",
    "Evaluation",
    "FeatureSet",
    "Gain",
    "NeededPatients",
    "NumberTarget",
    "OrdinalTarget",
    "RiskGroups",
    "SetFit",
    "SurvivalTarget",
    "Target",
    "TargetKind",
    "beyond",
    "calibration",
    "confounding",
    "effects",
    "evaluate_sets",
    "kaplan_meier",
    "learning_curve",
    "log_rank",
    "needed_patients",
    "proportional_hazards",
    "risk_groups",
    "target_of",
]
