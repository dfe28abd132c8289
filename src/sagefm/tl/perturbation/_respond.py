"""Predict how genes respond, spot by spot, when other genes change."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sagefm._as_model import as_model
from sagefm._errors import InputError
from sagefm._keys import RESPONSE
from sagefm._types import Floats, Hold, Where
from sagefm.pp.selection import selected_spots
from sagefm.tl.perturbation._perturber import PLACES, Perturber

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData

    from sagefm.model import SageFM

How = Literal["set", "add", "fold", "quantile"]


@dataclass(frozen=True)
class Change:
    """How a gene changes.

    Attributes
    ----------
    how
        ``"set"`` to `amount` (log1p counts; 0 is a knock-out), ``"add"`` `amount` (log1p counts,
        never below 0; negative lowers it), ``"fold"``: counts times `amount`, or ``"quantile"``:
        set to that quantile of the gene's values on the slide (0 to 1).
    amount
        A number.

    Raises
    ------
    InputError
        No such way, or an amount that is out of its range.
    """

    how: How
    amount: float

    def __post_init__(self) -> None:
        if self.how not in get_args(How):
            raise InputError(f"change {self.how!r}: choose of {', '.join(get_args(How))}")
        least, most = {"add": (-np.inf, np.inf), "quantile": (0, 1)}.get(self.how, (0, np.inf))
        if not (np.isfinite(self.amount) and least <= self.amount <= most):
            raise InputError(
                f"change {self.how} {self.amount}: give a number from {least:g} to {most:g}"
            )

    def of(self, values: Floats) -> Floats:
        """Change the log1p counts of one gene over a slide."""
        if self.how == "set":
            return np.full_like(values, self.amount)
        if self.how == "quantile":
            return np.full_like(values, np.quantile(values, self.amount))
        if self.how == "fold":
            return np.log1p(self.amount * np.expm1(values))
        return np.maximum(values + self.amount, 0.0)


KNOCKOUT = Change("set", 0.0)


def respond(
    slide: "AnnData",
    model: "SageFM | str | Path",
    changes: Mapping[str, Change | float],
    genes: Sequence[str],
    *,
    where: Where = "neighbors",
    region: "NDArray[np.bool_] | str | None" = None,
    hide: bool = True,
    hold: Hold = "nothing",
    layer: str | None = None,
    slide_key: str | None = None,
    key_added: str = RESPONSE,
) -> pd.DataFrame:
    """Change genes and predict others spot by spot, to see where the tissue would respond.

    The result is exact: each spot is predicted as if the counts had changed in its neighborhood,
    with all that follows from them: library sizes, residuals, the weights of similar spots, and the
    profile of these. Only what is expected of a library size on the slide stays as it is; the
    neighborhood of one spot is a vanishing part of that.

    Parameters
    ----------
    slide
        Raw counts and ``obsm["spatial"]``.
    model
        A model, or its path or address; ``"default"`` is that of the package.
    changes
        Gene → how it changes; a number is the log1p count that it is set to. All at once.
    genes
        Genes to predict.
    where
        Whether genes change in the ``"neighbors"`` of the spot that is predicted, in it (the
        ``"center"``), or in both (the ``"neighborhood"``).
    region
        Spots to predict: a boolean per spot, or ``"KEY=VALUE"``; all if not given.
    hide
        Whether `genes` are masked in the center, as in :func:`sagefm.tl.perturb`. A gene that is
        masked there does not change there.
    hold
        ``"nothing"``, or ``"attention"``, which is faster: then the weights of similar spots, the
        library sizes and the profile of a ``context`` network stay as they are too, and the
        response goes through the residuals alone. In a ``published`` network the two are the same.
    layer, slide_key
        As for :meth:`sagefm.SageFM.prepare`.
    key_added
        Where in ``obsm`` the result goes.

    Returns
    -------
    Spots of the region × `genes`: predicted log1p counts after the change minus before. Also sets
    ``obsm["sagefm_response"]``, missing outside the region.

    Raises
    ------
    InputError
        No gene is left that the model knows, nothing changes, no such place, the region is empty,
        or as :meth:`sagefm.SageFM.prepare`.
    """
    model = as_model(model)
    for name, value, choices in (("where", where, PLACES), ("hold", hold, get_args(Hold))):
        if value not in choices:
            raise InputError(f"{name}={value!r}: choose of {', '.join(choices)}")
    if not changes:
        raise InputError("changes: name at least one gene and how it changes")
    changes = {gene: changes[gene] for gene in model.vocabulary.known(changes)}
    names = model.vocabulary.known(list(genes))
    changed, wanted = map(model.vocabulary.positions, (changes, names))
    prepared = model.prepare(slide, layer=layer, slide_key=slide_key)
    spots = np.flatnonzero(selected_spots(slide, region))
    masked = wanted if hide else wanted[:0]
    encoded = model.encode(prepared)
    perturber = Perturber(encoded, prepared.log1p, prepared.neighbors[spots], masked, hold)
    before = prepared.log1p[:, changed].toarray().astype(np.float64)
    after = np.empty_like(before)
    for column, change in enumerate(changes.values()):
        way = change if isinstance(change, Change) else Change("set", float(change))
        after[:, column] = way.of(before[:, column])
    [predicted] = perturber.predict(changed, after[None], wanted, where)
    difference = predicted - perturber.unchanged(wanted)
    response = pd.DataFrame(
        difference.cpu().numpy(), index=slide.obs_names[spots], columns=pd.Index(names)
    )
    whole = np.full((slide.n_obs, len(wanted)), np.nan, dtype=np.float32)
    whole[spots] = response
    slide.obsm[key_added] = pd.DataFrame(whole, slide.obs_names, response.columns)
    return response
