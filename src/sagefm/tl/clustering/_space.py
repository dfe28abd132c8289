"""The leading principal components of an embedding."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from sagefm._errors import InputError
from sagefm._keys import EMBEDDING
from sagefm._types import Positions, Reals
from sagefm.stats.components import scores_of_many
from sagefm.stats.sampling import is_many

if TYPE_CHECKING:
    from anndata import AnnData

_SORTED_BY = 3
"""Numbers of the embedding by which many spots are sorted."""


@dataclass(frozen=True)
class Space:
    """Spots of all slides in an embedding.

    Attributes
    ----------
    points
        Spots × components.
    order
        The row of each in the slides, one after the other: their own order, or, of many spots, one
        that depends on their embedding only.
    """

    points: Reals
    order: Positions

    @classmethod
    def of(cls, slides: "Sequence[AnnData]", use_rep: str, n_components: int, seed: int) -> Self:
        """Compute the leading principal components of ``obsm[use_rep]``."""
        from sklearn.decomposition import PCA

        values = _values(slides, use_rep)
        n_components = min(n_components, *values.shape)
        if is_many(len(values)):
            order = np.lexsort(values.T[:_SORTED_BY][::-1])
            return cls(scores_of_many(values, n_components, order), order)
        values = values.astype(np.float64)
        points = PCA(n_components, random_state=seed).fit_transform(values)
        return cls(np.asarray(points), np.arange(len(values)))

    @property
    def rank(self) -> Positions:
        """For each row of the slides its number among the points."""
        rank = np.empty_like(self.order)
        rank[self.order] = np.arange(len(rank))
        return rank


def _values(slides: "Sequence[AnnData]", use_rep: str) -> Reals:
    """Join the embeddings of slides; many spots are not copied where they are in float32."""
    arrays: list[Reals] = []
    many = is_many(sum(slide.n_obs for slide in slides))
    for slide in slides:
        if use_rep not in slide.obsm:
            available = ", ".join(slide.obsm) or "nothing"
            remedy = "run sagefm.tl.embed first" if use_rep == EMBEDDING else "choose one"
            raise InputError(
                f"obsm[{use_rep!r}]: is not in the slide, which has {available}; {remedy}"
            )
        stored = slide.obsm[use_rep]
        single = many and getattr(stored, "dtype", None) == np.float32
        array: Reals = np.asarray(stored, dtype=np.float64) if not single else stored
        arrays.append(array)
    if len({array.shape[1] for array in arrays}) > 1:
        raise InputError(
            f"obsm[{use_rep!r}]: differs in width between slides; embed all with one model"
        )
    values: Reals = arrays[0]
    if len(arrays) > 1:
        values = np.concatenate(arrays)  # type: ignore[assignment]
    if not np.isfinite(values).all():
        raise InputError(f"obsm[{use_rep!r}]: has NaN or infinite values; embed the slide again")
    if (values == values[0]).all():
        raise InputError(f"obsm[{use_rep!r}]: is the same in every spot; choose another embedding")
    return values
