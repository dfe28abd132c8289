"""Compare models with baselines on masked genes, and on genes that are missing from a slide."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sagefm._errors import InputError
from sagefm._types import Where
from sagefm.evaluate.baselines import predictors
from sagefm.evaluate.baselines.masked import (
    Baseline,
    MaskedSpots,
    PanelSlide,
    Prediction,
    Predictor,
)
from sagefm.evaluate.baselines.reference import Reference, SlideSummary, sample_size
from sagefm.evaluate.baselines.training_free import NEIGHBOR_MEAN, TRAINING_FREE
from sagefm.evaluate.baselines.untrained import untrained_models
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

_BLOCK = 4096
"""Spots whose predictions are in memory together."""


@dataclass(frozen=True)
class MaskingTask:
    """One way to mask genes."""

    name: str
    where: Where
    modules: bool
    yardstick: str
    """The baseline to compare with, whose predictions are also permuted as a control."""


TASKS = {
    "recovery": (
        MaskingTask("random genes of the center", "center", False, NEIGHBOR_MEAN),
        MaskingTask("co-expression modules of the center", "center", True, NEIGHBOR_MEAN),
    ),
    "imputation": (
        MaskingTask(
            "random genes missing from the slide", "slide", False, predictors.REFERENCE_PROFILE
        ),
        MaskingTask("modules missing from the slide", "slide", True, predictors.REFERENCE_PROFILE),
        MaskingTask(
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
    adapt: bool = True,
    seed: int = 0,
    progress: Callable[[str], None] = lambda line: None,
) -> Result:
    """Mask genes, predict them by models and baselines, and score the predictions by gene.

    Slides are read one at a time. 30 % of the measured genes of each spot are masked. All
    predictors are given the same other genes (a model those of its vocabulary), and are scored on
    the masked genes that are in the vocabularies of all models.

    Parameters
    ----------
    cohort
        Slides to score on.
    models
        Name → model.
    reference
        Slides that baselines are fitted to, never those of the patient they are scored on; the
        other slides of `cohort` if not given.
    protocol
        ``"recovery"``: masked in the center, as in pretraining; random genes, then whole
        co-expression modules. ``"imputation"``: missing from the whole slide (random genes and
        modules), or from the center and all its neighbors as in the paper.
    adapt
        Whether models are adapted to each slide where genes are masked in the center, so that every
        spot is predicted by weights that were adapted on others; networks that cannot be are not.
        So is the same network with random weights: what it then knows is of the slide alone.
    seed
        Of masks, modules, samples, resampling and adaptation.
    progress
        Called with a line per slide.

    Returns
    -------
    A summary table per task, and details: ``recovery`` (slide × task × method), ``recovery_genes``
    and ``recovery_calibration`` (or ``imputation…``).

    Raises
    ------
    InputError
        The models have no gene in common, or a slide has too few of their genes.
    """
    panel, scored = _panel(models, cohort)
    summaries = _summarize(cohort if reference is None else reference, panel, seed, progress)
    tallies = Tallies(
        protocol, TASKS[protocol], [panel[i] for i in np.flatnonzero(scored).tolist()], seed,
        untrained_models(models),
    )  # fmt: skip
    for i, name in enumerate(cohort):
        progress(f"{protocol}: {name} ({i + 1} of {len(cohort)})")
        slide = _on_panel(cohort, name, panel)
        others = Reference.without(cohort.patient(name), summaries, seed)
        methods = predictors.models(models, panel, seed, adapt=adapt)
        if slide.best is not None:
            methods.append(Baseline("best possible", predictors.best_possible, "control"))
        for task in TASKS[protocol]:
            masked = _mask(task, slide, scored, seed + i)
            fitted = predictors.baselines(others, masked, seed)
            columns = np.searchsorted(np.flatnonzero(scored), masked.genes)
            _score(tallies, task, name, masked, columns, [*fitted, *methods], seed + i)
    notes = _notes(cohort, reference, summaries)
    if models and adapt:
        notes.append("Random weights are adapted to the slide as those of the models are.")
    return tallies.result(cohort.table["patient"], notes)


def _panel(models: Mapping[str, SageFM], cohort: Cohort) -> tuple[Vocabulary, NDArray[np.bool_]]:
    """Join the vocabularies of all models, and get which genes are in all of them."""
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


def _summarize(
    slides: Cohort, panel: Vocabulary, seed: int, progress: Callable[[str], None]
) -> dict[str, SlideSummary]:
    """Summarize the slides that baselines are fitted to."""
    size, summaries = sample_size(len(slides)), {}
    for i, name in enumerate(slides):
        progress(f"reference: {name} ({i + 1} of {len(slides)})")
        slide = _on_panel(slides, name, panel)
        summaries[name] = SlideSummary.of(slide, slides.patient(name), size, seed + i)
    return summaries


def _on_panel(slides: Cohort, name: str, panel: Vocabulary) -> PanelSlide:
    """Read and align a slide; an error names the slide."""
    try:
        return PanelSlide.of(slides[name], panel)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error


def _mask(
    task: MaskingTask, slide: PanelSlide, scored: NDArray[np.bool_], seed: int
) -> MaskedSpots:
    """Mask genes of all spots of a slide."""
    genes = np.flatnonzero(scored & slide.measured)
    if task.where == "slide":
        genes = genes[_draw(task, slide, seed).dense()[0].numpy()[_within(slide, genes)]]
    spots = np.arange(len(slide.neighbors))
    return MaskedSpots(slide, task.where, spots, _draw(task, slide, seed), genes)


def _score(
    tallies: Tallies,
    task: MaskingTask,
    name: str,
    whole: MaskedSpots,
    columns: NDArray[np.int64],
    methods: list[Predictor],
    seed: int,
) -> None:
    """Score every method on a slide, a block of spots at a time."""
    genes = whole.genes
    sums: dict[str, GeneSums] = {}
    for start in range(0, len(whole.spots), _BLOCK):
        masked = whole.of(slice(start, start + _BLOCK))
        truth = MaskedTruth(masked.counts[:, genes], masked.mask[:, genes], masked.library_size)
        for method, kind, prediction in _predictions(methods, masked, task, seed):
            sums.setdefault(method, GeneSums.zeros(len(genes))).add(truth.score(*prediction))
            tallies.calibrate(task.name, method, kind, truth, prediction)
            if task.where == "center" and method in TRAINING_FREE and prediction.rate is not None:
                variance = truth.mean(log1p_variance(prediction.rate))
                tallies.noise(task.name, name, method, truth.n, variance)
    tallies.add(task.name, name, sums, columns, whole.slide.detected[genes])


def _predictions(
    methods: list[Predictor], masked: MaskedSpots, task: MaskingTask, seed: int
) -> Iterator[tuple[str, str, Prediction]]:
    """Predict by every method in turn, except those that do not apply to these masks."""
    for method in methods:
        prediction = method(masked)
        if prediction is None:
            continue
        yield method.name, method.kind, prediction
        if method.name == task.yardstick:
            yield f"{method.name}, spots permuted", "control", predictors.permuted(prediction, seed)


def _draw(task: MaskingTask, slide: PanelSlide, seed: int) -> Masks:
    """Draw masks of every spot over the measured genes."""
    rng = np.random.default_rng([seed, task.modules])
    n_spots = len(slide.neighbors)
    if task.modules:
        modules = masks.coexpression_modules(slide.counts[:, np.flatnonzero(slide.measured)], seed)
        drawn = masks.module_masks(n_spots, modules, rng)
    else:
        drawn = masks.random_masks(n_spots, int(slide.measured.sum()), rng)
    return masks.same_in_all_spots(drawn) if task.where == "slide" else drawn


def _within(slide: PanelSlide, genes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Get the positions of genes of the panel among the measured genes."""
    return np.searchsorted(np.flatnonzero(slide.measured), genes)


def _notes(
    cohort: Cohort, reference: Cohort | None, summaries: Mapping[str, SlideSummary]
) -> list[str]:
    patients = pd.unique(cohort.table["patient"])
    n_learned = {len(Reference.without(p, summaries, 0).summaries) for p in patients}
    source = (
        "the other patients' slides among these" if reference is None else "the reference slides"
    )
    notes = [
        "30 % of the measured genes are masked; errors are of log1p counts, deviances of counts "
        "(2 times the log-likelihood ratio of a Poisson count, per entry).",
        f"Baselines are fitted to {source} ({min(n_learned)} to {max(n_learned)} slides), "
        "never to those of the patient they are scored on.",
    ]
    if 0 in n_learned:
        notes.append("Fitted baselines are left out for patients without slides of other patients.")
    return notes
