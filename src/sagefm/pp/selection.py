"""Select the spots of a region."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sagefm._errors import InputError
from sagefm._text import few

if TYPE_CHECKING:
    from anndata import AnnData


def selected_spots(slide: "AnnData", region: NDArray[np.bool_] | str | None) -> NDArray[np.bool_]:
    """Select the spots of a region: a boolean per spot.

    Parameters
    ----------
    slide
        The slide.
    region
        A boolean per spot, or ``"KEY=VALUE"`` for the spots whose ``obs[KEY]`` is VALUE; all spots
        if None.

    Raises
    ------
    InputError
        No such column or value, not one boolean per spot, or no spot in it.
    """
    if region is None:
        return np.ones(slide.n_obs, dtype=bool)
    if isinstance(region, str):
        key, separator, value = region.partition("=")
        if not separator:
            raise InputError(f"region {region!r}: write it KEY=VALUE, such as sagefm_domain=3")
        if key not in slide.obs:
            raise InputError(
                f"region {region!r}: obs has no column {key!r}, only "
                f"{few(slide.obs.columns, 20) or 'none'}"
            )
        words = slide.obs[key].astype(str)
        if not (words == value).any():
            raise InputError(
                f"region {region!r}: no spot has that value; it has {few(words.unique(), 20)}"
            )
        return np.asarray(words == value)
    chosen = np.asarray(region)
    if chosen.shape != (slide.n_obs,) or chosen.dtype != bool:
        raise InputError(
            f"region: has the shape {chosen.shape} and type {chosen.dtype}; give True or False for "
            f"each of the {slide.n_obs} spots"
        )
    if not chosen.any():
        raise InputError("region: has no spot; choose another")
    return chosen
