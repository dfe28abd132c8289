"""A slide of a simulated patient: its domains, their interface, a gene program and a site."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from sagefm import _keys
from sagefm._types import Floats, Positions, Singles
from sagefm.pp.neighborhood import average, nearest
from sagefm.pp.simulate import simulate
from sagefm.pp.visium_array import (
    PITCH_UM,
    PIXELS_PER_UM,
    Rng,
    barcodes,
    fields,
    hexagons,
    negative_binomial,
    pitches,
)

DOMAINS = ("tumor", "stroma", "immune", "normal")
FROM_SLIDES = ("fraction", "program", "interface")
"""What differs between patients in their slides."""

_IMMUNE = (-1.6, 0.8)  # logit of the fraction of immune spots: mean and sd over patients
_NORMAL = (0.05, 0.3)  # fraction of the spots in normal tissue, which is where a section was cut
_TUMOR = (0.45, 0.6)  # fraction of tumor in what is left
_INTERFACE = (-1.0, 0.45)  # log of the contacts of tumor and stroma per spot: mean and sd
_NESTS = np.geomspace(0.4, 8.0, 16)  # sizes of tumor nests to choose from, in pitches
_SECTION_SD = 0.3  # between sections of a patient, of what differs between patients by 1
_OWN = 0.7  # fraction of a spot that is of its domain; the rest is the mean of its neighborhood
_CONTRAST = 1.6  # log folds between domains, in units of those of `simulate`
_MEMBERS = 0.05  # fraction of the genes that are in the program
_PROGRAM = (0.25, 0.55)  # log fold of a gene of the program per unit of its activity
_PROGRAM_SD = 0.5  # of the activity within a section
_PATIENT_SD = 0.08  # of the log fold of genes between patients
_RICHNESS = (0.25, -0.1, 0.1, -0.25)  # log fold of the depth in each domain
_SPOT_SD, _SLIDE_SD = 0.2, 0.15  # of the log depth


@dataclass(frozen=True)
class CohortBiology:
    """What all slides of a simulated cohort have in common."""

    genes: list[str]
    profiles: Singles
    """Domains × genes, expected fraction of the counts."""
    program: Positions
    loadings: Singles
    """Per gene, log fold per unit of the program's activity: 0 for the genes that are not in it."""


@dataclass(frozen=True)
class SimulatedPatient:
    """What the slides of one patient have in common."""

    name: str
    traits: Floats
    """Of `FROM_SLIDES`, each of mean 0 and sd 1 over patients."""
    log_folds: Singles
    """Of genes, in this patient and at this site."""
    log_depth: float


def draw_cohort_biology(genes: Sequence[str] | None, seed: int) -> CohortBiology:
    """Draw domain profiles, and a program of genes that mark no domain."""
    example = simulate(15, n_domains=len(DOMAINS), genes=genes, n_couplings=0, biology_seed=seed)
    profiles: Singles = example.uns[_keys.TRUTH]["domain_profiles"]
    middle = np.exp(np.log(profiles).mean(axis=0))
    profiles = middle * (profiles / middle) ** _CONTRAST
    profiles /= profiles.sum(axis=1, keepdims=True)
    rng = np.random.default_rng([seed, 3])
    size = max(1, round(_MEMBERS * profiles.shape[1]))
    # Of the genes that vary least between domains, those with the most counts.
    even = np.argsort(np.ptp(np.log(profiles), axis=0), kind="stable")[: 10 * size]
    high = even[np.argsort(-profiles[:, even].sum(axis=0), kind="stable")][: 5 * size]
    program = np.sort(rng.choice(high, size, replace=False))
    loadings = np.zeros(profiles.shape[1], dtype=np.float32)
    loadings[program] = rng.uniform(*_PROGRAM, size)
    return CohortBiology(list(example.var_names), profiles, program, loadings)


def draw_patient_folds(n_genes: int, rng: Rng) -> Singles:
    """Draw by how much genes differ in a patient: log folds."""
    return rng.normal(0.0, _PATIENT_SD, n_genes).astype(np.float32)


def simulate_cohort_slide(
    biology: CohortBiology,
    patient: SimulatedPatient,
    name: str,
    n_spots: int,
    depth: float,
    rng: Rng,
) -> AnnData:
    """Simulate one slide of a patient."""
    traits = patient.traits + rng.normal(0.0, _SECTION_SD, len(FROM_SLIDES))
    radius = float(np.sqrt(n_spots * np.sqrt(0.75) / np.pi))
    grid = hexagons(n_spots, radius, rng)
    places = pitches(grid)
    pixels = PITCH_UM * PIXELS_PER_UM * (places + 5.0)
    neighbors = nearest(pixels, 7)
    domains = _lay_out(places - places.mean(axis=0), neighbors, traits, rng)
    activity = traits[1] + _PROGRAM_SD * fields(places, 1, 0.6 * radius, rng)[:, 0]
    of_domain = np.eye(len(DOMAINS))[domains]
    mixed = average(neighbors, center=True) @ of_domain
    fractions = _OWN * of_domain + (1 - _OWN) * mixed
    log_depth = patient.log_depth + fractions @ _RICHNESS + rng.normal(0.0, _SPOT_SD, n_spots)
    log_depth += rng.normal(0.0, _SLIDE_SD)
    rate = fractions.astype(np.float32) @ (biology.profiles * np.exp(patient.log_folds))
    rate *= np.exp(activity[:, None].astype(np.float32) * biology.loadings)
    rate *= (depth * np.exp(log_depth))[:, None].astype(np.float32) / rate.sum(
        axis=1, keepdims=True
    )
    counts: sparse.csr_matrix = negative_binomial(rate, np.full(rate.shape[1], 0.2, "f4"), rng)
    obs = pd.DataFrame(grid, columns=["array_row", "array_col"], index=barcodes(grid))
    obs["slide"] = pd.Categorical([name] * n_spots)
    obs["patient"] = pd.Categorical([patient.name] * n_spots)
    obs["domain"] = pd.Categorical(np.array(DOMAINS)[domains], list(DOMAINS))
    truth = {"traits": dict(zip(FROM_SLIDES, traits.tolist(), strict=True)), "program": activity}
    return AnnData(
        counts,
        obs=obs,
        var=pd.DataFrame(index=biology.genes),
        obsm={_keys.SPATIAL: pixels},
        uns={"spot_pitch_um": PITCH_UM, _keys.TRUTH: truth},
    )


def _lay_out(places: Floats, neighbors: Positions, traits: Floats, rng: Rng) -> Positions:
    """Lay out domains of exactly the wanted sizes: those of a random field's highest places."""
    n_spots = len(places)
    radius = float(np.hypot(*places.T).max())
    angle = rng.uniform(0, 2 * np.pi)
    height = places @ [np.cos(angle), np.sin(angle)] / radius
    height += 0.15 * fields(places, 1, 0.6 * radius, rng)[:, 0]
    infiltrate = fields(places, 1, 0.4 * radius, rng)[:, 0]
    immune = 1 / (1 + np.exp(-(_IMMUNE[0] + _IMMUNE[1] * traits[0])))
    domains = np.full(n_spots, DOMAINS.index("stroma"))
    _fill(domains, "normal", height, rng.uniform(*_NORMAL) * n_spots)
    _fill(domains, "immune", infiltrate, immune * n_spots)

    wanted = np.exp(_INTERFACE[0] + _INTERFACE[1] * traits[2])
    tumor = rng.uniform(*_TUMOR) * (domains == DOMAINS.index("stroma")).sum()
    layouts = []
    for length in _NESTS:
        layout = domains.copy()
        _fill(layout, "tumor", fields(places, 1, length, rng)[:, 0], tumor)
        layouts.append(layout)
    lengths = np.array([interface_length(layout, neighbors) for layout in layouts])
    return layouts[int(np.abs(np.log((lengths + 0.01) / wanted)).argmin())]


def _fill(domains: Positions, name: str, values: Floats, size: float) -> None:
    """Give the places of the highest values to a domain, of those that no other has."""
    free = np.flatnonzero(domains == DOMAINS.index("stroma"))
    domains[free[np.argsort(-values[free], kind="stable")[: round(size)]]] = DOMAINS.index(name)


def interface_length(domains: Positions, neighbors: Positions) -> float:
    """Count the contacts of tumor and stroma, per spot; `neighbors` includes each center."""
    tumor, stroma = (domains == DOMAINS.index(name) for name in ("tumor", "stroma"))
    return float((tumor[:, None] & stroma[neighbors]).sum() / len(domains))
