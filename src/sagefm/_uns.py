"""Read ``uns``, where anything may be: what is of another type than expected is not there."""

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from sagefm._keys import PROVENANCE, SPATIAL

if TYPE_CHECKING:
    from anndata import AnnData


def table(value: object) -> Mapping[str, Any]:
    """Get a mapping; empty for anything else."""
    return value if isinstance(value, Mapping) else {}


def text(value: object) -> str:
    """Get a text; an empty one of anything else."""
    return str(value) if isinstance(value, str) else ""


def texts(value: object) -> list[str]:
    """Get a list of texts, also from one text or an array of them; empty for anything else."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping) or not isinstance(value, Iterable) or np.ndim(value) != 1:  # type: ignore[arg-type]
        return []
    return [str(entry) for entry in value if isinstance(entry, str)]


def positive(value: object) -> float | None:
    """Get a positive number, also from an array with a single one; None of anything else."""
    try:
        number = float(np.asarray(value).reshape(()).astype(np.float64))
    except (TypeError, ValueError, OverflowError):
        return None
    real = not isinstance(value, str | bytes | bool | np.bool_)
    return number if real and np.isfinite(number) and number > 0 else None


def libraries(slide: "AnnData") -> dict[str, Mapping[str, Any]]:
    """Get the libraries of ``uns["spatial"]``, which may hold flags such as ``is_single`` too."""
    stored = table(slide.uns.get(SPATIAL))
    return {str(key): value for key, value in stored.items() if isinstance(value, Mapping)}


def own_library(slide: "AnnData") -> dict[str, Mapping[str, Any]]:
    """Get the library of a slide, which may come from an object of several slides.

    Returns
    -------
    The only library, or that which a column of ``obs`` or the names of the spots name; nothing if
    none or several are named, or the column ``library_id`` names one that is not there.
    """
    found = libraries(slide)
    constant = {str(key): str(slide.obs[key].iloc[0]) for key in _constant(slide)}
    if len(found) == 1:
        elsewhere = constant.get("library_id", *found) not in found
        return {} if elsewhere else found
    named = [name for name in found if name in constant.values()]
    named = named or [name for name in found if _in_all(name, slide.obs_names)]
    return {named[0]: found[named[0]]} if len(named) == 1 else {}


def _constant(slide: "AnnData") -> list[Any]:
    """List the columns of ``obs`` in which all spots have the same value."""
    if not slide.n_obs:
        return []
    obs = slide.obs.loc[:, ~slide.obs.columns.duplicated()]
    first, last = obs.iloc[0].astype(str), obs.iloc[-1].astype(str)
    constant = obs.columns[(first == last).to_numpy()]
    return [key for key in constant if (obs[key].astype(str) == first[key]).all()]


def _in_all(name: str, spots: Iterable[str]) -> bool:
    """Whether the names of all spots start or end with a name and a sign between."""
    form = re.compile(rf"{re.escape(name)}[-_.:].*|.*[-_.:]{re.escape(name)}", re.DOTALL)
    return all(form.fullmatch(str(spot)) for spot in spots)


def scale_factor(library: Mapping[str, Any], name: str) -> float | None:
    """Get a scale factor of a library; None if it is missing or no positive number."""
    return positive(table(library.get("scalefactors")).get(name))


def provenance(slide: "AnnData", step: str, **types: type | tuple[type, ...]) -> Mapping[str, Any]:
    """Get what a step recorded in ``uns["sagefm"]``.

    Parameters
    ----------
    step
        Such as ``"read"`` or ``"embed"``.
    types
        Entries that must be there, and their types.

    Returns
    -------
    The entries; none at all if one that must be there is missing or of another type.
    """
    entries = table(table(slide.uns.get(PROVENANCE)).get(step))
    complete = all(isinstance(entries.get(name), kind) for name, kind in types.items())
    return entries if complete else {}


def record(slide: "AnnData", step: str, entries: Mapping[str, Any]) -> None:
    """Record a step in ``uns["sagefm"]``, in place of what is there if that is no mapping."""
    slide.uns[PROVENANCE] = {**table(slide.uns.get(PROVENANCE)), step: dict(entries)}
