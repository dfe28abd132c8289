"""Join the embedding of the expression with a second modality of the same spots."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sagefm._errors import InputError, logger
from sagefm._keys import EMBEDDING, JOINT_SUFFIX, SPOT_SUFFIX
from sagefm._progress import stage
from sagefm._text import numbered
from sagefm._types import Codes, Floats, Reals
from sagefm._uns import provenance, record
from sagefm.pp.add_counts import add_to_each
from sagefm.pp.counts import coordinates
from sagefm.pp.neighborhood import average, nearest
from sagefm.pp.read import read
from sagefm.pp.sections import section_codes
from sagefm.pp.writing import write_slide
from sagefm.tl._second_modality import SecondModality, filled, mean_of_measured, missing_rows

if TYPE_CHECKING:
    from anndata import AnnData

_MOST_COMPONENTS = 20
_N_NEAREST = 15
"""Spots in the neighborhoods of the networks."""


def require_name(name: str) -> None:
    """Raise an error for a name whose coordinates would take the place of others."""
    if f"_{name}" in (JOINT_SUFFIX, SPOT_SUFFIX):
        raise InputError(f"with {name!r}: that key is taken; give the modality another name")


def join(
    slides: "Mapping[str, AnnData]", second: SecondModality, key: str, slide_key: str | None
) -> None:
    """Add coordinates of a second modality to embedded slides, and join them with the embedding.

    The coordinates are principal components, fitted over the slides together, of the normalized
    values averaged over neighborhoods. Where the embedding compares spots with the profile of their
    own slide, values are centered in each section likewise. In the joint embedding both have the
    same variance: weighted by what each explains of the other, they agree less with planted domains
    (see ``benchmarks/joint.py``).
    """
    stage("joining the embedding and %s", second.name)
    sections = {name: section_codes(slide, slide_key) for name, slide in slides.items()}
    ends = np.cumsum([slide.n_obs for slide in slides.values()])[:-1]
    averaged = [
        _averaged(slide, sections[name], values)
        for (name, slide), values in zip(slides.items(), np.split(second.values, ends), strict=True)
    ]
    own = [provenance(slide, "embed").get("reference") == "slide" for slide in slides.values()]
    centered = [
        _centered(values, codes if alone else None)
        for values, codes, alone in zip(averaged, sections.values(), own, strict=True)
    ]
    components, explained = _components(filled(np.concatenate(centered)), second.name)
    embedding = np.concatenate([np.asarray(slide.obsm[key]) for slide in slides.values()])
    joint = np.hstack([_scaled(embedding), _scaled(components)]).astype(np.float32)
    for slide, values, own_joint, raw in zip(
        slides.values(), np.split(components, ends), np.split(joint, ends), averaged, strict=True
    ):
        unknown = int(missing_rows(raw).sum())
        if unknown:
            logger.warning(
                "%s: %s without a measured spot in the neighborhood: the mean stands for them, and "
                "the joint embedding is that of their expression",
                second.name, numbered(unknown, "spot"),
            )  # fmt: skip
        slide.obsm[f"{key}_{second.name}"] = values.astype(np.float32)
        slide.obsm[f"{key}{JOINT_SUFFIX}"] = own_joint
        record(slide, "joint", {
            "key": f"{key}{JOINT_SUFFIX}", "with": second.name, "features": second.features,
            "explained": explained, "n_not_measured": unknown,
        })  # fmt: skip


def join_files(
    paths: Sequence[Path], name: str, slide_key: str | None, tables: Mapping[str, str | Path]
) -> None:
    """Do the same to embedded slides in files, which get these tables and are written again."""
    if not paths:
        return
    slides = {str(path): read(path, backed=None) for path in paths}
    for slide in slides.values():
        for modality in tables:
            slide.obsm.pop(modality, None)  # of an earlier run
    add_to_each(slides, tables)
    join(slides, SecondModality.of(slides, name), EMBEDDING, slide_key)
    for path, slide in zip(paths, slides.values(), strict=True):
        write_slide(slide, path)


def _averaged(slide: "AnnData", sections: Codes, values: Floats) -> Floats:
    n_nearest = min(_N_NEAREST, int(np.bincount(sections).min()))
    return mean_of_measured(average(nearest(coordinates(slide), n_nearest, sections)), values)


def _centered(values: Floats, sections: Codes | None) -> Floats:
    """Subtract the mean of each section, if they are given."""
    if sections is None:
        return values
    centered = values.copy()
    for code in np.unique(sections):
        rows = np.flatnonzero(sections == code)
        known = values[rows][~missing_rows(values[rows])]
        centered[rows] -= known.mean(axis=0) if len(known) else 0.0
    return centered


def _components(values: Floats, name: str) -> tuple[Floats, Floats]:
    """Compute the leading principal components, and the fraction of the variance of each."""
    values = values - values.mean(axis=0)
    variance, axes = np.linalg.eigh(values.T @ values)
    variance, axes = np.maximum(variance[::-1], 0.0), axes[:, ::-1]
    if not variance[0] > 0:
        raise InputError(f"{name}: is the same in every spot; leave it out")
    # Features may depend on each other: what is left is rounding.
    n_components = min(_MOST_COMPONENTS, int((variance > 1e-9 * variance[0]).sum()))
    axes = axes[:, :n_components]
    largest = np.abs(axes).argmax(axis=0)  # signs that do not depend on the order of the spots
    axes = axes * np.sign(axes[largest, np.arange(n_components)])
    return values @ axes, variance[:n_components] / variance.sum()


def _scaled(values: Reals) -> Floats:
    """Scale to total variance 1."""
    values = np.asarray(values, dtype=np.float64)
    return np.asarray(values / max(float(np.sqrt(values.var(axis=0).sum())), 1e-12))
