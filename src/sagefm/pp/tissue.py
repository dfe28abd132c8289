"""Simulate human tissue: real genes, regions, co-expression and noise, learned from real slides."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from sagefm import _keys
from sagefm._errors import InputError
from sagefm._types import Floats, Singles
from sagefm.pp.stain import stain
from sagefm.pp.tissue_layout import LAYOUTS, field
from sagefm.pp.visium_array import (
    PITCH_UM,
    PIXELS_PER_UM,
    Integers,
    Rng,
    barcodes,
    hexagons,
    negative_binomial,
    pitches,
    squares,
)  # fmt: skip

_MARGIN = 5.0
"""Pitches between the tissue and the edge of the image."""
_SPOT_UM = 55.0
_SMOOTH_SHARE = 0.4
"""Fraction of the variance of the log library size within regions that varies smoothly."""
_ENTRIES = 2**23
_FEWEST, _MOST = 100, 2**17
_CELLS = 0.3
"""Length over which what differs between neighboring spots varies, in pitches, where bins are
smaller than that."""

Local = Callable[[Floats, Rng], Floats]
"""Draws a number of mean 0 and sd 1 for each place."""


@dataclass(frozen=True)
class TissueProfiles:
    """What slides of a tissue have in common, as ``scripts/tissue_profiles.py`` learns it."""

    genes: list[str]
    regions: list[str]
    profiles: Singles
    """Regions × genes, log of the expected fraction of the counts."""
    loadings: Singles
    """Factors × genes, log fold per standard deviation of a factor."""
    smoothness: Floats
    dispersion: Singles
    richness: Floats
    depth_sd: float
    patient_sd: float


def simulate_tissue(
    tissue: str = "cortex",
    n_spots: int = 1200,
    *,
    patient: int = 0,
    seed: int = 0,
    depth: float = 4000.0,
    image: bool = True,
    bin_um: float | None = None,
) -> AnnData:
    """Simulate a Visium slide of human tissue: the layers of the cortex, or a breast tumor.

    Counts are drawn from what was learned from real slides of training patients: the mean profile
    of each labeled region, the factors by which the default model predicts genes to vary together
    within regions, the dispersion of each gene, how far patients differ, and how library sizes
    vary. The layout, the patient and the noise are random; no spot is one of a real slide. The
    tissue image is drawn to look like hematoxylin and eosin, and knows no gene.

    Parameters
    ----------
    tissue
        ``"cortex"``: six layers and white matter, 5,020 genes; ``"breast"``: invasive carcinoma
        and its margin, carcinoma in situ, stroma, lymphoid infiltrate and
        ducts, 13,223 genes.
    n_spots
        Spots, 100 to 131,072. They lie 100 µm apart, as on Visium.
    patient
        Number of the patient: slides of one patient share their profiles. A tumor differs more
        between patients than what surrounds it.
    seed
        Seed of the layout and the noise: another seed is another slide of the patient.
    depth
        Median library size, about (counts).
    image
        Whether to draw a tissue image into ``uns["spatial"]``.
    bin_um
        Side of square bins without gaps, 2 to 50 µm, as of Visium HD, in place of spots.

    Returns
    -------
    Raw counts as float32 CSR in ``X``; ``obsm["spatial"]`` in pixels, 2 to a micrometer;
    ``obs``: array_row, array_col, slide, patient, region (the largest fraction of a spot);
    ``uns["simulation"]``: tissue, patient, seed, and regions (spots × regions, fractions).

    Raises
    ------
    InputError
        There is no such tissue, or a number is out of its range.
    """
    if tissue not in LAYOUTS:
        raise InputError(f"tissue {tissue!r}: choose of {', '.join(LAYOUTS)}")
    for name, value, least, most in (
        ("n_spots", n_spots, _FEWEST, _MOST), ("patient", patient, 0, 1e9),
        ("seed", seed, 0, 1e9), ("depth", depth, 1, 1e6), ("bin_um", bin_um or 50, 2, 50),
    ):  # fmt: skip
        if not least <= value <= most:
            raise InputError(f"{name} is {value}; give a number from {least:g} to {most:g}")
    learned = load_profiles(tissue)
    profiles = _of_patient(learned, patient, first=tissue == "breast")
    rng = np.random.default_rng([seed, patient, 2])
    square = tissue == "cortex"
    area = 3.4 if square else np.pi  # of a tissue of radius 1
    side = None if bin_um is None else bin_um / PITCH_UM
    radius = float(np.sqrt(n_spots * (np.sqrt(0.75) if side is None else side**2) / area))
    if side is None:
        grid = hexagons(n_spots, radius, rng, square=square)
        places = pitches(grid)
    else:
        grid = squares(n_spots, radius / side, rng, square=square)
        places = side * (grid[:, ::-1].astype(np.float64) + 0.5)
    middle = places.mean(axis=0)
    layout = LAYOUTS[tissue](radius, rng)
    regions = layout(places - middle)
    local = _of_spots if side is None else _of_cells
    library_sizes = _library_sizes(learned, regions, places - middle, radius, depth, local, rng)
    counts = _count(learned, profiles, regions, places - middle, library_sizes, local, rng)
    name = f"{tissue}_{patient}_{seed}"
    pixels = PITCH_UM * PIXELS_PER_UM * (places + _MARGIN)
    uns: dict[str, Any] = {"spot_pitch_um": PITCH_UM if bin_um is None else bin_um}
    uns[_keys.TRUTH] = {"tissue": tissue, "patient": patient, "seed": seed, "regions": regions}
    if image:
        span = places.max(axis=0) + 2 * _MARGIN
        picture, scale = stain(layout, places - middle, middle + _MARGIN, span, tissue, rng)
        uns[_keys.SPATIAL] = {name: _library(picture, scale, bin_um or _SPOT_UM)}
    obs = _describe_spots(grid, learned.regions, regions, name, f"patient {patient}")
    return AnnData(
        counts, obs=obs, var=pd.DataFrame(index=learned.genes), obsm={_keys.SPATIAL: pixels},
        uns=uns,
    )  # fmt: skip


@cache
def load_profiles(tissue: str) -> TissueProfiles:
    """Load what was learned of a tissue."""
    with (resources.files("sagefm.pp") / "tissues" / f"{tissue}.npz").open("rb") as file:
        held = np.load(file, allow_pickle=False)
        return TissueProfiles(
            genes=held["genes"].tolist(), regions=held["regions"].tolist(),
            profiles=held["profiles"].astype(np.float32),
            loadings=held["loadings"].astype(np.float32), smoothness=held["smoothness"],
            dispersion=held["dispersion"].astype(np.float32), richness=held["richness"],
            depth_sd=float(held["depth_sd"]), patient_sd=float(held["patient_sd"]),
        )  # fmt: skip


def _of_patient(learned: TissueProfiles, patient: int, *, first: bool) -> Singles:
    """Draw the profiles of a patient: all regions by one fold, a tumor (the first) by another."""
    rng = np.random.default_rng([patient, 3])
    logs = learned.profiles.astype(np.float64)
    logs = logs + rng.normal(0.0, learned.patient_sd, logs.shape[1])
    if first:
        logs[0] += rng.normal(0.0, learned.patient_sd, logs.shape[1])
    profiles = np.exp(logs)
    profiles /= profiles.sum(axis=1, keepdims=True)
    return np.asarray(profiles, dtype=np.float32)


def _of_spots(places: Floats, rng: Rng) -> Floats:
    """Draw what differs from spot to spot."""
    return rng.normal(size=len(places))


def _of_cells(places: Floats, rng: Rng) -> Floats:
    """Draw what differs from cell to cell, of bins that may share a cell."""
    return field(_CELLS, rng)(places)


def _library_sizes(
    learned: TissueProfiles,
    regions: Floats,
    places: Floats,
    radius: float,
    depth: float,
    local: Local,
    rng: Rng,
) -> Singles:
    """Draw the expected library size of every spot, counts."""
    smooth = field(0.3 * radius, rng)(places)
    noise = local(places, rng)
    within = np.sqrt(_SMOOTH_SHARE) * smooth + np.sqrt(1 - _SMOOTH_SHARE) * noise
    logs = regions @ learned.richness + learned.depth_sd * within
    return np.asarray(depth * np.exp(logs - np.median(logs)), dtype=np.float32)


def _count(
    learned: TissueProfiles,
    profiles: Singles,
    regions: Floats,
    places: Floats,
    library_sizes: Singles,
    local: Local,
    rng: Rng,
) -> sparse.csr_matrix:
    """Draw the counts of all spots."""
    factors = np.empty((len(places), len(learned.loadings)), dtype=np.float32)
    for number, share in enumerate(learned.smoothness):
        smooth, noise = field(3.0, rng)(places), local(places, rng)
        factors[:, number] = np.sqrt(share) * smooth + np.sqrt(1 - share) * noise
    shares, n_genes, blocks = regions.astype(np.float32), profiles.shape[1], []
    step = max(1, _ENTRIES // n_genes)
    for start in range(0, len(places), step):
        block = slice(start, start + step)
        rate = np.exp(factors[block] @ learned.loadings)
        rate *= shares[block] @ profiles
        rate *= (library_sizes[block] / rate.sum(axis=1))[:, None]
        blocks.append(negative_binomial(rate, learned.dispersion, rng))
    counts: sparse.csr_matrix = sparse.vstack(blocks, format="csr")
    return counts


def _describe_spots(
    grid: Integers, names: list[str], regions: Floats, slide: str, patient: str
) -> pd.DataFrame:
    obs = pd.DataFrame(grid, columns=["array_row", "array_col"])
    obs["slide"] = pd.Categorical([slide] * len(obs))
    obs["patient"] = pd.Categorical([patient] * len(obs))
    obs["region"] = pd.Categorical(np.array(names)[regions.argmax(axis=1)], categories=names)
    obs["region"] = obs["region"].cat.remove_unused_categories()
    return obs.set_axis(barcodes(grid))


def _library(picture: Any, scale: float, spot_um: float) -> dict[str, Any]:
    """Store an image as Space Ranger and scanpy do."""
    full = PIXELS_PER_UM * spot_um
    factors = {"tissue_hires_scalef": scale, "spot_diameter_fullres": full}
    return {"images": {"hires": picture}, "scalefactors": factors}
