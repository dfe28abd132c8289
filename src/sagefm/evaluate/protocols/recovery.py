"""Recovery of hidden genes, and imputation of missing ones: models beside all baselines."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sagefm._errors import InputError
from sagefm.evaluate.baselines import predictors
from sagefm.evaluate.baselines.predictors import Baseline
from sagefm.evaluate.baselines.reference import Reference, SlideSummary, sample_size
from sagefm.evaluate.baselines.shown import Guess, Predictor, Shown, View, Where
from sagefm.evaluate.cohort import Cohort
from sagefm.evaluate.protocols import masks
from sagefm.evaluate.protocols.recovery_tables import Tallies
from sagefm.evaluate.result import Result
from sagefm.model import SageFM
from sagefm.nn.masking import Masks
from sagefm.pp.detection import DetectionTally
from sagefm.pp.vocabulary import Vocabulary
from sagefm.stats.genes import GeneSums, MaskedTruth
from sagefm.stats.poisson import log1p_variance

_AT_ONCE = 4096
"""Spots whose predictions stand in memory together."""


@dataclass(frozen=True)
class Task:
    """One way to hide genes."""

    name: str
    where: Where
    modules: bool
    yardstick: str
    """The baseline that genes are compared with, and whose answers are permuted as a control."""


TASKS = {
    "recovery": (
        Task("random genes of the center", "center", False, predictors.NEIGHBOR_MEAN),
        Task("co-expression modules of the center", "center", True, predictors.NEIGHBOR_MEAN),
    ),
    "imputation": (
        Task("random genes missing from the slide", "slide", False, predictors.REFERENCE_PROFILE),
        Task("modules missing from the slide", "slide", True, predictors.REFERENCE_PROFILE),
        Task(
            "random genes missing from center and neighbors", "neighborhood", False,
            predictors.REFERENCE_PROFILE,
        ),
    ),
}  # fmt: skip


def recovery(
    cohort: Cohort,
    models: Mapping[str, SageFM],
    reference: Cohort | None = None,
    *,
    protocol: str = "recovery",
    seed: int = 0,
    progress: Callable[[str], None] = lambda line: None,
) -> Result:
    """Hide genes, let models and baselines predict them, and score them gene by gene.

    Slides are read one at a time. 30 % of the measured genes of each spot are hidden; all
    predictors see the same visible genes, as far as they know them, and are scored on the hidden
    genes that every model knows.

    Parameters
    ----------
    cohort
        Slides to score on.
    models
        Name → model.
    reference
        Slides that baselines may learn from, never those of the patient they are scored on; the
        others of `cohort` if not given.
    protocol
        ``"recovery"``: hidden in the center, as in pretraining; random genes, then whole
        co-expression modules. ``"imputation"``: missing from the whole slide (random genes and
        modules), or from the center and all its neighbors as in the paper.
    seed
        Of masks, modules, samples and resampling.
    progress
        Called with a line per slide.

    Returns
    -------
    A summary table per task, and details: ``recovery`` (slide × task × method), ``recovery_genes``
    and ``recovery_calibration`` (or ``imputation…``).

    Raises
    ------
    InputError
        The models have no gene in common, or a slide hardly any with them.
    """
    panel, scored = _panel(models, cohort)
    pieces = _pieces(cohort if reference is None else reference, panel, seed, progress)
    tallies = Tallies(
        protocol, TASKS[protocol], [panel[i] for i in np.flatnonzero(scored).tolist()], seed
    )
    for i, name in enumerate(cohort):
        progress(f"{protocol}: {name} ({i + 1} of {len(cohort)})")
        slide, patient = cohort[name], cohort.patient(name)
        try:
            view = View.of(slide, panel)
        except InputError as error:
            raise InputError(f"{name}: {error}") from error
        known = Reference.without(patient, pieces, seed)
        methods = [*predictors.baselines(known, seed), *predictors.models(models, panel, seed)]
        if view.best is not None:
            methods.append(Baseline("best possible", predictors.best_possible, "control"))
        for task in TASKS[protocol]:
            _score(tallies, task, name, view, methods, scored, seed + i)
    return tallies.result(cohort.table["patient"], _notes(cohort, reference, pieces))


def _panel(models: Mapping[str, SageFM], cohort: Cohort) -> tuple[Vocabulary, NDArray[np.bool_]]:
    """Join the vocabularies of all models; and say which genes every one of them has."""
    if not models:
        tally = DetectionTally()
        for slide in cohort.values():
            tally.add(slide)
        panel = tally.vocabulary()
        return panel, np.ones(len(panel), dtype=bool)
    genes: dict[str, str] = {}
    for model in models.values():
        for symbol, ensembl in zip(model.vocabulary.symbols, model.vocabulary.ensembl, strict=True):
            genes[symbol] = genes.get(symbol) or ensembl
    panel = Vocabulary(tuple(genes), tuple(genes.values()))
    shared = np.all([[g in m.vocabulary for g in genes] for m in models.values()], axis=0)
    if not shared.any():
        raise InputError("the models have no gene in common; evaluate them one by one")
    return panel, shared


def _pieces(
    slides: Cohort, panel: Vocabulary, seed: int, progress: Callable[[str], None]
) -> dict[str, SlideSummary]:
    """Read what baselines learn from, once."""
    size, found = sample_size(len(slides)), {}
    for i, name in enumerate(slides):
        progress(f"reference: {name} ({i + 1} of {len(slides)})")
        try:
            view = View.of(slides[name], panel)
        except InputError as error:
            raise InputError(f"{name}: {error}") from error
        found[name] = SlideSummary.of(view, slides.patient(name), size, seed + i)
    return found


def _score(
    tallies: Tallies,
    task: Task,
    name: str,
    view: View,
    methods: list[Predictor],
    scored: NDArray[np.bool_],
    seed: int,
) -> None:
    """Score every method on a slide, some thousand spots at a time."""
    genes = np.flatnonzero(scored & view.measured)
    if task.where == "slide":
        genes = genes[_draw(task, view, seed).dense()[0].numpy()[_within(view, genes)]]
    drawn = _draw(task, view, seed)
    sums: dict[str, GeneSums] = {}
    for start in range(0, len(view.neighbors), _AT_ONCE):
        spots = np.arange(len(view.neighbors))[start : start + _AT_ONCE]
        shown = Shown(view, task.where, spots, drawn.of(slice(start, start + _AT_ONCE)), genes)
        hidden = MaskedTruth(shown.counts[:, genes], shown.hidden[:, genes], shown.depth)
        for method, kind, guess in _answers(methods, shown, task, seed):
            sums.setdefault(method, GeneSums.zeros(len(genes))).add(hidden.score(*guess))
            tallies.calibrate(task.name, method, kind, hidden, guess)
            if method == predictors.NEIGHBOR_PROFILE and guess.rate is not None:
                tallies.noise(task.name, name, hidden.n, hidden.mean(log1p_variance(guess.rate)))
    at = np.searchsorted(np.flatnonzero(scored), genes)
    tallies.add(task.name, name, sums, at, view.detected[genes])


def _answers(
    methods: list[Predictor], shown: Shown, task: Task, seed: int
) -> Iterator[tuple[str, str, Guess]]:
    """Ask every method in turn; those that cannot answer are left out."""
    for method in methods:
        guess = method(shown)
        if guess is None:
            continue
        yield method.name, method.kind, guess
        if method.name == task.yardstick:
            yield f"{method.name}, spots permuted", "control", predictors.permuted(guess, seed)


def _draw(task: Task, view: View, seed: int) -> Masks:
    """Draw what every spot hides, over the measured genes."""
    chance = np.random.default_rng([seed, task.modules])
    n_spots = len(view.neighbors)
    if task.modules:
        modules = masks.coexpression_modules(view.counts[:, np.flatnonzero(view.measured)], seed)
        drawn = masks.module_masks(n_spots, modules, chance)
    else:
        drawn = masks.random_masks(n_spots, int(view.measured.sum()), chance)
    return masks.whole_slide(drawn) if task.where == "slide" else drawn


def _within(view: View, genes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Say where genes of the panel stand among the measured ones."""
    return np.searchsorted(np.flatnonzero(view.measured), genes)


def _notes(
    cohort: Cohort, reference: Cohort | None, pieces: Mapping[str, SlideSummary]
) -> list[str]:
    patients = pd.unique(cohort.table["patient"])
    n_learned = {len(Reference.without(p, pieces, 0).pieces) for p in patients}
    what = "the other patients' slides among these" if reference is None else "the reference slides"
    notes = [
        "30 % of the measured genes are hidden; errors are of log1p counts, deviances of counts "
        "(2 times the log-likelihood ratio of a Poisson count, per entry).",
        f"Baselines that learn, learned from {what} ({min(n_learned)} to {max(n_learned)} slides), "
        "never from the patient they are scored on.",
    ]
    if 0 in n_learned:
        notes.append("Some patients have nobody to learn from: there, such baselines are left out.")
    return notes
