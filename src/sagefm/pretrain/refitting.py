"""Models of one recipe that each lack some of the patients."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import numpy as np
import pandas as pd
import torch

from sagefm._errors import InputError, logger
from sagefm._files import require_writable
from sagefm._text import few
from sagefm.model import SageFM, pick_device
from sagefm.pp.sections import patients_of
from sagefm.pretrain.data import Split
from sagefm.pretrain.fitting import facts_of, fit_split, split_of
from sagefm.pretrain.folds import folds_of
from sagefm.pretrain.recipe import Recipe
from sagefm.pretrain.run import Run
from sagefm.pretrain.start import require_axes

if TYPE_CHECKING:
    from anndata import AnnData

    from sagefm.pretrain.source import Source

_LEFT_OUT, _DIGEST = "left_out", "refit"
_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|%]')
"""Characters that the name of a file cannot have, and the one that replaces them begins with."""
_LONGEST = 48
"""Characters of a patient in the name of a file."""


def refits(
    slides: "Mapping[str, AnnData] | Source",
    recipe: Recipe | None = None,
    n: int | None = None,
    *,
    patients: Mapping[str, str] | None = None,
    facts: Mapping[str, Mapping[str, str]] | None = None,
    slide_key: str | None = None,
    device: str | None = None,
    folder: str | Path | None = None,
    overwrite: bool = False,
    workers: int = 1,
    progress: bool = True,
) -> Iterator[tuple[str, SageFM]]:
    """Train a recipe several times, each time without one of the training patients.

    What all of these models say does not rest on a single patient. They have the same genes and
    validate on the same patients, which are chosen once; patients that the recipe leaves out are
    in none of them.

    Parameters
    ----------
    slides, recipe, patients, facts, slide_key, device, workers, progress
        As for :func:`fit`; the patient of every slide must be known.
    n
        Number of groups, of which each model lacks one; whole datasets and patients are kept
        together, as in folds. If not given, each patient is left out once.
    folder
        Where to save the models, as ``without_PATIENT.safetensors``. A model that is there is not
        trained again, and a run that was killed is resumed. If not given, nothing is saved.
    overwrite
        Whether models of other slides or of another recipe in `folder` are replaced, and
        unfinished runs started again.

    Returns
    -------
    Name and model of each refit, as soon as it is trained; ``dict(refits(…))`` keeps all in
    memory. ``model.provenance["left_out"]`` names the patients that it lacks.

    Raises
    ------
    InputError
        As :func:`fit`; the patient of a slide is not known, there is a single patient to train on,
        or fewer groups than `n`; `folder` holds other models.
    """
    recipe, where = recipe or Recipe(), pick_device(device)
    if "TORCHELASTIC_RUN_ID" in os.environ:
        raise InputError("refits are trained in one process; start the command without torchrun")
    if n is not None and n < 2:
        raise InputError(f"the number of refits is {n}: give 2 at least")
    _require_patients(slides, recipe.data.patient_key, patients)
    planned = _planned(split_of(slides, recipe, patients, slide_key), recipe, n)
    place = None if folder is None else Path(folder)
    if place:
        _require_free(place, planned, overwrite=overwrite)

    def trained() -> Iterator[tuple[str, SageFM]]:
        for number, refit in enumerate(planned, start=1):
            logger.info("%s: model %d of %d", refit.name, number, len(planned))
            yield refit.name, refit.model(where, facts or {}, place, overwrite, workers, progress)

    return trained()


@dataclass(frozen=True)
class _Refit:
    """A model to train."""

    left_out: Sequence[str]
    """The patients that it lacks."""
    split: Split
    recipe: Recipe

    @property
    def name(self) -> str:
        """Name of its file, without suffix."""
        patient = self.left_out[0]
        first = _FORBIDDEN.sub(lambda found: quote(found[0], safe=""), patient)
        if len(first) > _LONGEST:
            digest = hashlib.sha256(patient.encode()).hexdigest()
            first = f"{first[:_LONGEST]}_{digest[:8]}"
        more = len(self.left_out) - 1
        return f"without_{first}" + (f"_and_{more}_more" if more else "")

    @cached_property
    def digest(self) -> str:
        """Distinguishes it from models of other slides or of another recipe."""
        train = self.recipe.train.model_dump(exclude={"save_minutes"})
        described = facts_of(self.split, self.recipe) | {"train": train}
        return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()

    def path(self, folder: Path) -> Path:
        """Get its file."""
        return folder / f"{self.name}.safetensors"

    def load(self, path: Path) -> SageFM | None:
        """Load a file if it is this model."""
        if not path.exists():
            return None
        try:
            model = SageFM.load(path, device="cpu")
        except InputError:
            return None
        return model if model.provenance.get(_DIGEST) == self.digest else None

    def model(
        self, device: torch.device, facts: Mapping[str, Mapping[str, str]], folder: Path | None,
        overwrite: bool, workers: int, progress: bool,
    ) -> SageFM:  # fmt: skip
        """Load the model from the folder; if it is not there, train and save it."""
        path = self.path(folder) if folder else None
        run = path.with_suffix(".run") if path else None
        model = self.load(path) if path else None
        if model:
            logger.info("%s: is trained already", path)
        else:
            resume = run is not None and Run(run).last.is_file() and not overwrite
            result = fit_split(
                self.split, self.recipe, device, facts=facts, folder=run, resume=resume,
                workers=workers, progress=progress,
            )  # fmt: skip
            if result.interrupted:
                raise KeyboardInterrupt  # no other is trained, and the run can be resumed
            model = result.model
            model.provenance |= {_LEFT_OUT: list(self.left_out), _DIGEST: self.digest}
            if path:
                model.save(path)
        if run:
            shutil.rmtree(run, ignore_errors=True)
        return model


def _require_patients(
    slides: "Mapping[str, AnnData] | Source", key: str, patients: Mapping[str, str] | None
) -> None:
    """Refuse slides whose patient is not known, and slides of a single patient."""
    if isinstance(slides, Mapping):
        lacking = [name for name in slides if patients is None and key not in slides[name].obs]
        if lacking:
            raise InputError(
                f"{few(lacking)}: obs has no column {key!r}, and refits leave out patients; name "
                "the column with patient_key=, or give a table with columns slide and patient "
                "(--patients)"
            )
        each = [patients_of(name, slide, key, patients) for name, slide in slides.items()]
        names = {name for own in each for name in np.unique(own).tolist()}
    else:
        names = set(slides.table["patient"])
    if len(names) == 1:
        raise InputError(
            f"all slides are of the patient {names.pop()!r}, and each refit leaves a patient out; "
            "add slides of other patients"
        )


def _planned(whole: Split, recipe: Recipe, n: int | None) -> list[_Refit]:
    """Plan a refit for each patient, or for each of `n` groups of patients."""
    table = whole.source.table
    validation = sorted(set(table.loc[list(whole.validation), "patient"]))
    planned = []
    for left_out in _groups(table.loc[list(whole.training)], validation, n):
        training = {
            slide: spots
            for slide, spots in whole.training.items()
            if table.loc[slide, "patient"] not in left_out
        }
        changes = {"leave_out": [*recipe.data.leave_out, *left_out], "validation": validation}
        own = recipe.model_copy(update={"data": recipe.data.model_copy(update=changes)})
        planned.append(_Refit(left_out, Split(whole.source, training, whole.validation), own))
        require_axes(planned[-1].split, own.network)
    return planned


def _groups(table: pd.DataFrame, validation: Sequence[str], n: int | None) -> list[list[str]]:
    """Divide the patients to train on into those that each refit lacks."""
    patients = sorted(set(table["patient"]))
    if len(patients) == 1:
        held = remedy = ""
        if validation and validation != patients:
            held = f", and {few(validation)} to validate on"
            remedy = ", or validate on none (--set 'data.validation=[]')"
        raise InputError(
            f"there is one patient to train on ({patients[0]}){held}, and each refit leaves one "
            f"out; add slides of other patients{remedy}"
        )
    if n is None:
        return [[patient] for patient in patients]
    folds = folds_of(table, n, "the number of refits")
    return [sorted(set(own["patient"])) for _, own in table.groupby(folds)]


def _require_free(folder: Path, planned: Sequence[_Refit], *, overwrite: bool) -> None:
    """Refuse a folder with other models, before any is trained."""
    paths = [refit.path(folder) for refit in planned]
    for path, refit in zip(paths, planned, strict=True):
        require_writable(path)
        if path.exists() and not overwrite and refit.load(path) is None:
            raise InputError(
                f"{path}: exists already and is not of these slides and this recipe; choose "
                "another OUT, or add --overwrite"
            )
    if others := sorted(set(folder.glob("without_*.safetensors")) - set(paths)):
        raise InputError(
            f"{others[0]}: is none of these refits; choose another OUT, or move it elsewhere"
        )
