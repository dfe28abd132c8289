"""Simulate patients with slides, clinical data and outcomes whose causes are known."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.special import logit, ndtri

from sagefm._errors import InputError
from sagefm._types import Floats, Positions
from sagefm.pp.cohort_slide import (
    FROM_SLIDES,
    SimulatedPatient,
    draw_cohort_biology,
    draw_patient_folds,
    simulate_cohort_slide,
)

_CLINICAL = ("age", "stage")
_TRAITS = (*FROM_SLIDES, *_CLINICAL)
_AGE = (62.0, 10.0)  # mean and sd, years
_STAGES = (0.25, 0.3, 0.3, 0.15)  # probabilities of stages 1 to 4
_MEDIAN_MONTHS = 24.0  # of the time to the event, where the linear predictor is 0
_DEPTH_FOLD = 1.0  # sd of the log depth between sites, for a site effect of 1


@dataclass(frozen=True)
class SimulatedCohort:
    """Patients of `simulate_cohort`: their slides, their table, and the truth."""

    slides: Mapping[str, AnnData] = field(repr=False)
    """Name of a slide → slide, simulated when it is first asked for."""
    table: pd.DataFrame = field(repr=False)
    """A row per patient: patient, site, age, sex, stage, response, grade, time, event, score."""
    truth: pd.DataFrame = field(repr=False)
    """A row per patient: the traits, each of mean 0 and sd 1 over all patients there could be;
    from_slides and from_clinical, the sums of effect × trait; and linear_predictor, their sum."""
    effects: dict[str, float]
    """Per trait, log hazard ratio (log odds, slope) per standard deviation."""
    program: list[str] = field(repr=False)
    """Genes of the program."""

    def oracle(self, target: str | tuple[str, str], part: str = "linear_predictor") -> float:
        """Compute the concordance that a prediction by the truth itself has.

        No method can be expected to do better: what is left is chance.

        Parameters
        ----------
        target
            ``"response"``, ``"grade"``, ``"score"``, or ``("time", "event")``.
        part
            Column of `truth`: ``"linear_predictor"``, or ``"from_slides"`` for what slides show.

        Returns
        -------
        Of the pairs of patients whose order is known, the fraction that the truth orders in the
        same way; where the truth is equal, a half.

        Raises
        ------
        InputError
            There is no such target or part.
        """
        columns = (target,) if isinstance(target, str) else tuple(target)
        if columns not in {("response",), ("grade",), ("score",), ("time", "event")}:
            raise InputError(
                f"target {target!r}: choose of response, grade, score, ('time', 'event')"
            )
        if part not in self.truth:
            raise InputError(f"part {part!r}: choose of {', '.join(self.truth.columns)}")
        worse = self.table[columns[0]].to_numpy()
        worse = worse == "no" if columns == ("response",) else worse.astype(np.float64)
        if len(columns) == 1:
            ordered = worse[:, None] > worse
        else:  # the earlier of two is known if it is an event
            ordered = (worse[:, None] < worse) & (self.table["event"].to_numpy() == 1)[:, None]
        risk = self.truth[part].to_numpy()
        right = np.sign(risk[:, None] - risk)[ordered]
        return float((1 + right).mean() / 2) if len(right) else float("nan")


class _Slides(Mapping[str, AnnData]):
    """Slides that are simulated when they are first asked for."""

    def __init__(self, names: Sequence[str], draw: Callable[[int], AnnData]) -> None:
        self._numbers = {name: number for number, name in enumerate(names)}
        self._draw = draw
        self._drawn: dict[str, AnnData] = {}

    def __getitem__(self, name: str) -> AnnData:
        if name not in self._drawn:
            self._drawn[name] = self._draw(self._numbers[name])
        return self._drawn[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)


def simulate_cohort(
    n_patients: int = 40,
    *,
    effects: Mapping[str, float] | None = None,
    n_slides: int = 1,
    n_spots: int = 100,
    genes: Sequence[str] | None = None,
    depth: float = 3000.0,
    n_sites: int = 2,
    site_effect: float = 0.1,
    confounding: float = 0.0,
    censoring: float = 0.3,
    seed: int = 0,
    biology_seed: int = 0,
) -> SimulatedCohort:
    """Simulate patients with slides, clinical data and outcomes whose causes are known.

    Slides have four domains: tumor, stroma, immune and normal. Three traits differ between
    patients and show in their slides: ``"fraction"``, how much of the tissue is immune;
    ``"program"``, the activity of a gene program; ``"interface"``, how long the border between
    tumor and stroma is while their areas stay the same. Two are clinical: ``"age"`` and
    ``"stage"``. The linear predictor of a patient is the sum of effect × trait; a higher one means
    an earlier event, a higher grade and score, and no response. All outcomes of a patient share
    one random number: they are not independent of each other.

    Parameters
    ----------
    n_patients
        Patients, at least 2.
    effects
        Trait → log hazard ratio per standard deviation of the trait, which is the log odds of
        response and grade and the slope of the score as well. Traits that are not named have no
        effect: with ``{}``, outcomes are independent of slides and clinical data. By default
        ``{"fraction": 1.0, "stage": 0.5}``.
    n_slides
        Slides of each patient.
    n_spots
        Spots of each slide.
    genes
        Names of the genes, at least 20; by default some 1,400 human symbols.
    depth
        Counts of a typical spot.
    n_sites
        Sites at which patients were measured.
    site_effect
        Standard deviation of the log fold of each gene between sites, and of the log depth.
    confounding
        Correlation of site with outcome, chance included: from 0, where patients are assigned to
        sites at random, to 1, where those with the worst outcomes are all measured at the last.
    censoring
        Fraction of the patients that leave before their event.
    seed
        Seed of patients, outcomes and slides. Traits and slides do not depend on effects, and
        without confounding sites do not either.
    biology_seed
        Seed of the gene program and of domain profiles, which have the markers of `simulate`.

    Returns
    -------
    The slides, a table with a row per patient, and the truth.

    Raises
    ------
    InputError
        A number is out of its range, an effect is of no trait, or genes are too few or repeated.
    """
    _check(True, n_patients=(n_patients, 2, 1e5), n_slides=(n_slides, 1, 1e3))
    _check(True, n_spots=(n_spots, 15, 1e5), n_sites=(n_sites, 1, 100))
    _check(True, seed=(seed, 0, 1e9), biology_seed=(biology_seed, 0, 1e9))
    _check(False, depth=(depth, 1, 1e6), site_effect=(site_effect, 0, 5))
    _check(False, confounding=(confounding, 0, 1), censoring=(censoring, 0, 0.95))
    if isinstance(genes, str) or (genes is not None and len(genes) < 20):
        raise InputError("genes: give a list of at least 20 names")
    chosen = _all_effects({"fraction": 1.0, "stage": 0.5} if effects is None else effects)
    biology = draw_cohort_biology(genes, biology_seed)

    names = [f"P{number + 1:0{len(str(n_patients))}d}" for number in range(n_patients)]
    truth, stage = _draw_traits(names, chosen, seed)
    risk = truth["linear_predictor"].to_numpy()
    luck, sites = np.random.default_rng([seed, 5]).uniform(size=(2, n_patients))
    outcomes = _draw_outcomes(risk, luck, censoring, seed)
    site = _assign_sites(risk + logit(luck), sites, n_sites, confounding)
    table = pd.DataFrame({"patient": names})
    table["site"] = [f"site {chr(65 + code) if n_sites <= 26 else code + 1}" for code in site]
    table["age"] = (_AGE[0] + _AGE[1] * truth["age"].to_numpy()).round().astype(np.int64)
    table["sex"] = np.random.default_rng([seed, 6]).choice(["female", "male"], n_patients)
    table["stage"] = stage
    table = table.assign(**outcomes)

    n_genes = len(biology.genes)
    at_sites = np.random.default_rng([seed, 7]).normal(0.0, site_effect, (n_sites, n_genes + 1))
    traits = truth[list(FROM_SLIDES)].to_numpy()

    def draw(number: int) -> AnnData:
        owner, section = divmod(number, n_slides)
        folds = draw_patient_folds(n_genes, np.random.default_rng([seed, 8, owner]))
        folds += at_sites[site[owner], :-1].astype(np.float32)
        log_depth = _DEPTH_FOLD * float(at_sites[site[owner], -1])
        patient = SimulatedPatient(names[owner], traits[owner], folds, log_depth)
        rng = np.random.default_rng([seed, 9, owner, section])
        return simulate_cohort_slide(biology, patient, of_slides[number], n_spots, depth, rng)

    of_slides = [
        name if n_slides == 1 else f"{name}_{section + 1}"
        for name in names
        for section in range(n_slides)
    ]
    program = [biology.genes[column] for column in biology.program]
    return SimulatedCohort(_Slides(of_slides, draw), table, truth, chosen, program)


def _check(whole: bool, **numbers: tuple[float, float, float]) -> None:
    """Check arguments, each given as (value, minimum, maximum)."""
    for name, (value, least, most) in numbers.items():
        types = (int, np.integer) if whole else (int, float, np.integer, np.floating)
        if isinstance(value, bool) or not isinstance(value, types) or not least <= value <= most:
            kind = "whole number" if whole else "number"
            raise InputError(f"{name} is {value!r}; give a {kind} from {least:g} to {most:g}")


def _all_effects(effects: Mapping[str, float]) -> dict[str, float]:
    if not isinstance(effects, Mapping):
        raise InputError(f"effects is {effects!r}; give a dictionary such as {{'fraction': 1.0}}")
    if strange := [name for name in effects if name not in _TRAITS]:
        raise InputError(f"effects has {strange[0]!r}: choose of {', '.join(_TRAITS)}")
    for name, effect in effects.items():
        _check(False, **{f"the effect of {name}": (effect, -10, 10)})
    return {name: float(effects.get(name, 0.0)) for name in _TRAITS}


def _draw_traits(
    names: list[str], effects: Mapping[str, float], seed: int
) -> tuple[pd.DataFrame, Positions]:
    """Draw the traits of patients, and the stage that one of them stands for."""
    rng = np.random.default_rng([seed, 4])
    traits = pd.DataFrame(rng.normal(size=(len(names), len(_TRAITS))), names, list(_TRAITS))
    stages = np.arange(1, len(_STAGES) + 1)
    cuts = ndtri(np.cumsum(_STAGES)[:-1])
    stage: Positions = stages[np.searchsorted(cuts, traits["stage"].to_numpy())]
    mean = float(stages @ _STAGES)
    traits["stage"] = (stage - mean) / np.sqrt((stages - mean) ** 2 @ _STAGES)
    for part, members in (("from_slides", FROM_SLIDES), ("from_clinical", _CLINICAL)):
        traits[part] = sum(effects[name] * traits[name] for name in members)
    traits["linear_predictor"] = traits["from_slides"] + traits["from_clinical"]
    return traits.rename_axis("patient"), stage


def _draw_outcomes(
    risk: Floats, luck: Floats, censoring: float, seed: int
) -> dict[str, Floats | list[str] | Positions]:
    """Draw outcomes from one random number per patient; half of the patients respond."""
    n_patients = len(risk)
    liability = risk + logit(luck)
    rank = liability.argsort(kind="stable").argsort(kind="stable")
    # Proportional hazards: the time of an exponential hazard.
    months = -np.log(luck) * np.exp(-risk) * _MEDIAN_MONTHS / np.log(2)
    leaving = np.random.default_rng([seed, 10]).uniform(0.05, 1.0, n_patients)
    # Times of leaving are scaled so that exactly this fraction leaves before the event.
    n_censored = min(round(censoring * n_patients), n_patients - 1)
    ratios = np.sort(months / leaving)[::-1]
    scale = np.inf if n_censored == 0 else np.sqrt(ratios[n_censored - 1] * ratios[n_censored])
    return {
        "response": ["no" if worse else "yes" for worse in rank >= (n_patients + 1) // 2],
        "grade": 1 + 3 * rank // n_patients,
        "time": np.minimum(months, scale * leaving).round(2).clip(0.01),
        "event": (months <= scale * leaving).astype(np.int64),
        "score": (risk + ndtri(luck)).round(4),
    }


def _assign_sites(liability: Floats, chance: Floats, n_sites: int, confounding: float) -> Positions:
    """Assign equal numbers of patients to sites, by outcome and by chance."""
    n_patients = len(liability)
    rank = liability.argsort(kind="stable").argsort(kind="stable")
    outcome = ndtri((rank + 0.5) / n_patients)
    wanted = confounding * outcome + np.sqrt(1 - confounding**2) * ndtri(chance)
    order = wanted.argsort(kind="stable").argsort(kind="stable")
    site: Positions = n_sites * order // n_patients
    return site
