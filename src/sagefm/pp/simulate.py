"""Simulate Visium slides with known domains, library sizes, and genes coupled to neighbors."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from numbers import Integral

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from sagefm import _keys
from sagefm._errors import InputError
from sagefm._types import Floats, Singles
from sagefm.pp.neighborhood import average, nearest
from sagefm.pp.simulate_proteins import ISOTYPES, Transcripts, simulate_proteins
from sagefm.pp.visium_array import (
    PITCH_UM,
    PIXELS_PER_UM,
    Integers,
    Rng,
    barcodes,
    fields,
    hexagons,
    negative_binomial,
    pitches,
    soft,
)  # fmt: skip

NEIGHBORHOOD = 15  # spots, the center included; the other 14 send the ligands

_PAIRS = """
ANGPT1-TEK APOE-LRP1 BDNF-NTRK2 BMP4-ID1 CCL19-CCR7 CCL2-CCR2 CCL5-CCR5 CSF1-CSF1R CX3CL1-CX3CR1
CXCL12-CXCR4 CXCL13-CXCR5 DLL4-HEY1 EDN1-EDNRB EGF-EGFR FGF2-FGFR1 FLT3LG-FLT3 GAS6-AXL HGF-MET
IFNG-CXCL10 IL10-STAT3 IL13-CCL26 IL17A-LCN2 IL1B-CXCL8 IL22-REG3A IL6-SOCS3 IL7-IL7R JAG1-HES1
KITLG-KIT LTB-LTBR NRG1-ERBB3 PDGFA-PDGFRA PDGFB-PDGFRB SHH-PTCH1 SLIT2-ROBO1 SPP1-CD44
TGFB1-COL1A1 TNF-NFKBIA VEGFA-KDR WNT3A-AXIN2 WNT5A-ROR2
"""
PAIRS = [(pair.split("-")[0], pair.split("-")[1]) for pair in _PAIRS.split()]
"""Pairs of a ligand and its receptor or response gene; each gene is in one pair only."""

# Tuned so that clusters of the 20 first components of 1,000 spots (log1p, equal library sizes)
# find the domains with an adjusted Rand index of 0.5 to 0.7, and more after averaging over 7 spots.
_BASE_SD = 1.8  # of the log of the mean expression of genes
_MARKERS = (0.03, 0.55, 0.3)  # fraction of the genes; mean and sd of their log fold in the domain
_PROGRAMS = 3
_MEMBERS = (0.05, 0.0, 0.25)  # the same for the genes of a program
_PAIR_FRACTION = (3e-4, 1e-3)  # of all counts, per gene of a pair: one to three by default
_LIGAND_SD = 0.8  # of the log of a ligand's rate over the slide
_VARIES = 0.3  # log fold between domains above which proteins may be of a gene
_RICHNESS_SD = 0.35  # of the log depth between domains, which differ in cell density
_SMOOTH_DEPTH_SD = 0.1  # within domains, between places
_SPOT_DEPTH_SD = 0.15  # between neighboring spots
_SLIDE_DEPTH_SD = 0.1
_ENTRIES = 2**23  # spots × genes that are simulated at once


@dataclass(frozen=True)
class _Biology:
    """Properties that slides of one `biology_seed` have in common."""

    profiles: Singles  # domains × genes, expected fraction of the counts; rows sum to 1
    richness: Floats  # per domain, log fold of the depth
    loadings: Singles  # programs × genes, log fold of a gene per unit of a program
    dispersion: Singles  # per gene; variance = mean + dispersion × mean²
    ligands: Integers  # per pair, column of the ligand; first the coupled pairs, then the controls
    targets: Integers  # per pair, column of the target
    strength: Singles  # per pair, log fold of the target per unit of mean log1p ligand of neighbors


@dataclass(frozen=True)
class _Tissue:
    """Properties of a slide before counts are drawn."""

    grid: Integers  # spots × (array_row, array_col)
    domains: Singles  # spots × domains, fraction of a spot in each domain; rows sum to 1
    programs: Singles  # spots × programs, activity; mean 0 and sd 1 over the slide
    ligands: Singles  # spots × pairs, log fold of the ligand
    depth: Singles  # per spot, expected counts without programs and couplings


def simulate(
    n_spots: int = 1000,
    *,
    n_domains: int = 5,
    genes: Sequence[str] | None = None,
    n_couplings: int = 8,
    coupling_strength: float = 1.0,
    n_proteins: int = 0,
    depth: float = 3000.0,
    dispersion: float = 0.2,
    seed: int = 0,
    biology_seed: int = 0,
    patient: str = "p1",
    slide: str = "sim",
) -> AnnData:
    """Simulate a slide with known domains and couplings.

    Domains are layers and patches of a round tissue; each has its own markers. Counts are
    negative binomial. The rate of a coupled target in a spot is multiplied by
    exp(`coupling_strength` × m), where m is the mean of log1p(ligand counts) over the 14 nearest
    spots. As many control pairs are chosen and expressed in the same way, but not coupled.

    Parameters
    ----------
    n_spots
        Spots of the slide, at least 15.
    n_domains
        Tissue domains. A small slide may lack some of them.
    genes
        Names of the genes, at least 4 × `n_couplings` + 1; by default some 1,400 human symbols.
    n_couplings
        Number of coupled pairs, taken from `PAIRS`, then drawn from the other genes.
    coupling_strength
        Log fold of a target per unit of mean log1p ligand.
    n_proteins
        Proteins that antibodies measure on the same spots, each encoded by a gene of the slide;
        three isotype controls are added. The counts of genes do not depend on it.
    depth
        Counts of a typical spot.
    dispersion
        Of a typical gene: variance = mean + dispersion × mean².
    seed
        Seed of the layout and the counts: another seed is another slide.
    biology_seed
        Seed of gene means, domain profiles and couplings, which slides have in common.
    patient, slide
        Names, stored in ``obs``. Barcodes are those of array positions, as on Visium: slides have
        the same barcodes.

    Returns
    -------
    Raw counts as float32 CSR in ``X``; ``obsm["spatial"]`` in pixels, 200 to a pitch of 100 µm;
    ``obs``: array_row, array_col, slide, patient, domain (the largest fraction), depth (expected
    total counts); ``uns["simulation"]``: couplings (ligand, target, strength; 0 for controls),
    domain_profiles (domains × genes, rows sum to 1), seed, biology_seed. With `n_proteins`, their
    counts in ``obsm["antibody_capture"]``, and ``uns["simulation"]["proteins"]``: for each its
    gene, follows (the fraction of its variance that transcripts explain), recoverable_r (the
    correlation of its CLR values with the best prediction from expression rates), spillover,
    background, and for receptors that respond to a ligand of the neighbors: ligand, strength.

    Raises
    ------
    InputError
        A number is out of its range, or genes are too few or not unique.
    """
    names = _default_genes() if genes is None else [str(name) for name in genes]
    _check_numbers(n_spots=(n_spots, NEIGHBORHOOD, 2**20), n_domains=(n_domains, 1, 100))
    _check_numbers(n_couplings=(n_couplings, 0, 1e4), coupling_strength=(coupling_strength, -5, 5))
    _check_numbers(depth=(depth, 1, 1e6), dispersion=(dispersion, 1e-3, 10))
    _require_whole("n_proteins", n_proteins)
    _check_numbers(n_proteins=(n_proteins, 0, 1e4))
    _check_numbers(seed=(seed, 0, 1e9), biology_seed=(biology_seed, 0, 1e9))
    _check_genes(names, n_couplings)
    numbers = (n_domains, n_couplings, coupling_strength, dispersion)
    biology = _draw_biology(names, *numbers, biology_seed)
    rng = np.random.default_rng([seed, 1])
    tissue = _draw_tissue(n_spots, biology, depth, rng)
    pixels = PITCH_UM * PIXELS_PER_UM * (pitches(tissue.grid) + 5.0)
    neighbors = nearest(pixels, NEIGHBORHOOD)
    counts, expected = _count(biology, tissue, neighbors, rng)

    truth = {"couplings": _list_couplings(names, biology), "domain_profiles": biology.profiles}
    truth |= {"seed": seed, "biology_seed": biology_seed}
    obs, tables = _describe_spots(tissue, expected, patient, slide), dict[str, pd.DataFrame]()
    if n_proteins:
        made_from = _transcripts(names, biology, tissue, counts, neighbors)
        seeds = {"seed": seed, "biology_seed": biology_seed}
        values, proteins = simulate_proteins(made_from, n_proteins, **seeds)
        truth["proteins"] = proteins
        columns = [*proteins.index, *ISOTYPES]
        tables[_keys.PROTEINS] = pd.DataFrame(values, index=obs.index, columns=columns)
    return AnnData(
        counts,
        obs=obs,
        var=pd.DataFrame(index=names),
        obsm={_keys.SPATIAL: pixels, **tables},
        uns={"spot_pitch_um": PITCH_UM, _keys.TRUTH: truth},
    )


def _default_genes() -> list[str]:
    return (resources.files("sagefm.pp") / "genes_for_simulation.txt").read_text("utf-8").split()


def _check_numbers(**numbers: tuple[float, float, float]) -> None:
    """Check arguments, each given as (value, minimum, maximum)."""
    for name, (value, least, most) in numbers.items():
        if not least <= value <= most:
            raise InputError(f"{name} is {value}; give a number from {least:g} to {most:g}")


def _require_whole(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise InputError(f"{name} is {value!r}; give a whole number")


def _check_genes(names: list[str], n_couplings: int) -> None:
    repeated = pd.Index(names).duplicated()
    if repeated.any():
        first = names[int(repeated.argmax())]
        raise InputError(f"genes has {first!r} more than once; give each gene once")
    needed = 4 * n_couplings + 1
    if len(names) < needed:
        raise InputError(
            f"genes has {len(names)} names; give at least {needed} or lower n_couplings"
        )


def _draw_biology(
    names: list[str],
    n_domains: int,
    n_couplings: int,
    strength: float,
    dispersion: float,
    seed: int,
) -> _Biology:
    rng = np.random.default_rng([seed, 0])
    n_genes = len(names)
    pairs = _draw_pairs(names, 2 * n_couplings, rng)
    others = np.setdiff1d(np.arange(n_genes), pairs)
    base = np.empty(n_genes)
    base[others] = rng.lognormal(0.0, _BASE_SD, len(others))
    # Genes of pairs are in no domain profile and no program: only the coupling links them.
    base[pairs] = rng.uniform(*_PAIR_FRACTION, pairs.shape)
    base[others] *= max(0.5, 1 - base[pairs].sum()) / base[others].sum()
    profiles = base * np.exp(_draw_folds((n_domains, n_genes), others, _MARKERS, rng))
    profiles /= profiles.sum(axis=1, keepdims=True)
    richness = rng.normal(0.0, _RICHNESS_SD, n_domains)
    return _Biology(
        profiles=profiles.astype(np.float32),
        richness=richness - richness.mean(),
        loadings=_draw_folds((_PROGRAMS, n_genes), others, _MEMBERS, rng).astype(np.float32),
        dispersion=(dispersion * rng.lognormal(0.0, 0.3, n_genes)).astype(np.float32),
        ligands=pairs[:, 0],
        targets=pairs[:, 1],
        strength=np.repeat([strength, 0.0], n_couplings).astype(np.float32),
    )


def _draw_folds(
    shape: tuple[int, int], candidates: Integers, members: tuple[float, float, float], rng: Rng
) -> Floats:
    """Draw log folds, rows × genes, of a few members per row and 0 for the other genes."""
    fraction, mean, sd = members
    folds = np.zeros(shape)
    for row in folds:
        chosen = rng.choice(candidates, max(1, round(fraction * len(candidates))), replace=False)
        row[chosen] = rng.normal(mean, sd, len(chosen))
    return folds


def _draw_pairs(names: list[str], n_pairs: int, rng: Rng) -> Integers:
    """Choose pairs (ligand, target), those of `PAIRS` first; no gene is in two pairs."""
    column = {name: number for number, name in enumerate(names)}
    listed = [(column[a], column[b]) for a, b in PAIRS if a in column and b in column]
    pairs = rng.permutation(np.array(listed, dtype=np.int64).reshape(-1, 2))[:n_pairs]
    free = np.setdiff1d(np.arange(len(names)), pairs)
    invented = rng.choice(free, (n_pairs - len(pairs), 2), replace=False)
    return rng.permutation(np.concatenate([pairs, invented]))


def _draw_tissue(n_spots: int, biology: _Biology, depth: float, rng: Rng) -> _Tissue:
    radius = float(np.sqrt(n_spots * np.sqrt(0.75) / np.pi))  # of a round tissue, in pitches
    grid = hexagons(n_spots, radius, rng)
    places = pitches(grid)
    places -= places.mean(axis=0)
    domains = _lay_out_domains(places, len(biology.richness), radius, rng)
    log_depth = domains @ biology.richness
    log_depth += _SMOOTH_DEPTH_SD * fields(places, 1, 0.4 * radius, rng)[:, 0]
    log_depth += rng.normal(0.0, _SPOT_DEPTH_SD, n_spots) + rng.normal(0.0, _SLIDE_DEPTH_SD)
    ligands = _LIGAND_SD * fields(places, len(biology.ligands), min(3.0, 0.4 * radius), rng)
    return _Tissue(
        grid=grid,
        domains=domains.astype(np.float32),
        programs=fields(places, _PROGRAMS, 0.6 * radius, rng).astype(np.float32),
        ligands=(ligands - _LIGAND_SD**2 / 2).astype(np.float32),  # the mean fold is about 1
        depth=(depth * np.exp(log_depth)).astype(np.float32),
    )


def _lay_out_domains(places: Floats, n_domains: int, radius: float, rng: Rng) -> Floats:
    """Draw wavy layers and patches over them: spots × domains, fractions."""
    n_layers = (n_domains + 1) // 2
    angle = rng.uniform(0, 2 * np.pi)
    wobble = radius * fields(places, 2, 0.6 * radius, rng)
    height = places @ [np.cos(angle), np.sin(angle)] + 0.12 * wobble[:, 0]
    cuts = np.quantile(height, rng.dirichlet(np.full(n_layers, 12.0)).cumsum()[:-1])
    above = soft(height[:, None] - cuts)
    edges = np.ones((len(places), 1))
    fractions = -np.diff(np.hstack([edges, above, 0 * edges]), axis=1)

    size = 0.9 * radius / np.sqrt(n_domains)
    middles = np.empty((0, 2))
    for _ in range(n_domains - n_layers):
        candidates = places[rng.integers(len(places), size=20)]
        candidates = candidates[np.hypot(*candidates.T) < 0.8 * radius][:10]
        gaps = np.hypot(*(candidates[:, None] - middles).T).min(axis=0, initial=radius)
        middle = candidates[gaps.argmax()]
        middles = np.vstack([middles, middle])
        reach = size * rng.uniform(0.85, 1.15) + 0.05 * wobble[:, 1]
        patch = soft(reach - np.hypot(*(places - middle).T))[:, None]
        fractions = np.hstack([fractions * (1 - patch), patch])
    return fractions


def _count(
    biology: _Biology, tissue: _Tissue, neighbors: Integers, rng: Rng
) -> tuple[sparse.csr_matrix, Floats]:
    """Draw all counts, ligands first; also return the expected total of every spot."""
    n_spots, n_genes = len(tissue.grid), biology.profiles.shape[1]
    ligand_rate = tissue.domains @ biology.profiles[:, biology.ligands]
    ligand_rate *= tissue.depth[:, None] * np.exp(tissue.ligands)
    ligand_counts = negative_binomial(ligand_rate, biology.dispersion[biology.ligands], rng)
    received = average(neighbors, center=False) @ ligand_counts.log1p()
    response = np.exp(received.toarray() * biology.strength)
    n_pairs = len(biology.ligands)
    places = (np.ones(n_pairs, dtype=np.float32), (np.arange(n_pairs), biology.ligands))
    ligand_counts = ligand_counts @ sparse.csr_matrix(places, shape=(n_pairs, n_genes))
    ligand_counts.sort_indices()

    blocks = []
    expected = ligand_rate.sum(axis=1, dtype=np.float64)
    step = max(1, _ENTRIES // n_genes)
    for start in range(0, n_spots, step):
        block = slice(start, start + step)
        rate = np.exp(tissue.programs[block] @ biology.loadings)
        rate *= tissue.domains[block] @ biology.profiles
        rate *= tissue.depth[block, None]
        rate[:, biology.targets] *= response[block]
        rate[:, biology.ligands] = 0.0
        expected[block] += rate.sum(axis=1, dtype=np.float64)
        blocks.append(negative_binomial(rate, biology.dispersion, rng) + ligand_counts[block])
    return sparse.vstack(blocks, format="csr"), expected


def _transcripts(
    names: list[str],
    biology: _Biology,
    tissue: _Tissue,
    counts: sparse.csr_matrix,
    neighbors: Integers,
) -> Transcripts:
    """Collect what proteins are made from."""
    received = average(neighbors, center=False) @ counts[:, biology.ligands].log1p()
    ligands = np.asarray(received.toarray(), dtype=np.float64)

    def fractions(genes: Integers) -> Floats:
        log = tissue.programs @ biology.loadings[:, genes]
        for pair, target in enumerate(biology.targets):
            log[:, genes == target] += biology.strength[pair] * ligands[:, [pair]]
        return np.asarray(np.exp(log) * (tissue.domains @ biology.profiles[:, genes]), np.float64)

    profiles = biology.profiles
    varies = np.ptp(np.log(profiles), axis=0) > _VARIES
    return Transcripts(
        names=names,
        means=profiles.mean(axis=0, dtype=np.float64),
        varies=varies | (biology.loadings != 0).any(axis=0),
        fractions=fractions,
        depth=tissue.depth.astype(np.float64),
        places=pitches(tissue.grid),
        neighbors=neighbors,
        pairs=np.column_stack([biology.ligands, biology.targets]),
        strength=biology.strength.astype(np.float64),
        ligands=ligands,
    )


def _describe_spots(tissue: _Tissue, depth: Floats, patient: str, slide: str) -> pd.DataFrame:
    labels = [f"D{number + 1}" for number in range(tissue.domains.shape[1])]
    domains = np.array(labels)[tissue.domains.argmax(axis=1)]
    obs = pd.DataFrame(tissue.grid, columns=["array_row", "array_col"])
    obs["slide"] = pd.Categorical([slide] * len(obs))
    obs["patient"] = pd.Categorical([patient] * len(obs))
    obs["domain"] = pd.Categorical(domains, categories=labels)
    obs["depth"] = depth
    return obs.set_axis(barcodes(tissue.grid))


def _list_couplings(names: list[str], biology: _Biology) -> pd.DataFrame:
    symbols = np.array(names)
    pairs = {"ligand": symbols[biology.ligands], "target": symbols[biology.targets]}
    return pd.DataFrame({**pairs, "strength": biology.strength.astype(np.float64)})
