"""Simulate antibody counts on the spots of a simulated slide, as of CytAssist gene and protein."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from sagefm._errors import InputError
from sagefm._types import Bools, Floats, Positions, Singles
from sagefm.pp.neighborhood import average
from sagefm.pp.proteins import clr
from sagefm.pp.visium_array import Rng, fields

ISOTYPES = ("mouse_IgG1k.1", "mouse_IgG2bk.1", "rat_IgG2a.1")
"""Controls that bind nothing: all of their counts are background."""

_DEPTH = 1500.0  # antibody counts of a typical spot
_ABUNDANCE_SD = 0.8  # of the log of the mean abundance of proteins
_SIGNAL_SD = 0.7  # of the log of a protein over the slide
_WEAK = 0.25  # fraction of the proteins that hardly follow their gene
_FOLLOWS = ((0.4, 0.95), (0.0, 0.15))  # variance that the gene explains: usual, and weak relation
_FLAT = 0.2  # sd of the log of a gene's rate, below which its protein varies less
_RESPONSE = 0.5  # of a receptor, as a fraction of the response of its gene
_PERSISTENCE = 0.5  # fraction of a protein that was translated in the spots nearby
_DRIFT = 4.0  # length of the field that is independent of the gene, in pitches
_SPILLOVER = (0.05, 0.25)  # fraction of the signal that binds on the six spots around
_BACKGROUND = (0.05, 0.3)  # of a protein's mean signal; isotype controls likewise
_AMBIENT_SD = 0.2  # of the log of free antibody, per spot
_DEPTH_SD = 0.2  # of the log of the antibody depth, per spot
_DISPERSION = 0.05
_RECEPTORS = 0.4  # at most this fraction of the proteins are targets of the slide's pairs
_DRAWS = 24  # for the recoverable correlation


@dataclass(frozen=True)
class Transcripts:
    """What proteins are made from: all but the counts is the truth, not the measurement.

    Attributes
    ----------
    names
        Of the genes.
    means
        Per gene, its usual fraction of the counts.
    varies
        Per gene, whether that fraction differs between places.
    fractions
        For some genes (columns), their expected fraction of the counts: spots × genes.
    depth
        Per spot, the expected total counts: how much tissue there is.
    places
        Spots × 2, in pitches.
    neighbors
        Spots × 15, the neighborhoods.
    pairs
        Pairs × (ligand, target), columns of the genes.
    strength
        Per pair, log fold of the target per unit of mean log1p ligand; 0 for controls.
    ligands
        Spots × pairs, mean log1p counts of the ligand in the neighbors.
    """

    names: Sequence[str]
    means: Floats
    varies: Bools
    fractions: Callable[[Positions], Floats]
    depth: Floats
    places: Floats
    neighbors: Positions
    pairs: Positions
    strength: Floats
    ligands: Floats


@dataclass(frozen=True)
class _Antibodies:
    """Properties of proteins that slides of one biology have in common."""

    genes: Positions  # column of the encoding gene
    pair: Positions  # the pair whose target the protein is, -1 for none
    abundance: Floats
    follows: Floats  # fraction of the variance of the log abundance
    spillover: Floats
    background: Floats  # the proteins, then the isotype controls


def simulate_proteins(
    transcripts: Transcripts, n_proteins: int, *, seed: int, biology_seed: int
) -> tuple[Singles, pd.DataFrame]:
    """Simulate antibody counts of proteins and isotype controls.

    The log abundance of a protein is a mix of its gene's rate (half from the spot, half from its
    neighborhood, because proteins outlive their transcripts) and of a smooth field that no
    transcript shows. Receptors also respond to the ligand transcripts of their neighbors. Signal
    spills over to the six spots around; ambient antibody adds background in proportion to the
    tissue of a spot; counts are negative binomial.

    Returns
    -------
    Counts, spots × (proteins, then :data:`ISOTYPES`), and the truth, a row per protein: gene,
    follows (fraction of the variance of its log abundance that transcripts explain), recoverable_r
    (correlation of its CLR value with the best prediction from all expression rates), spillover,
    background (fraction of its counts), ligand (empty for none), strength. A method that also
    learns from proteins nearby, or where a spot lies, can exceed recoverable_r.

    Raises
    ------
    InputError
        There are fewer genes than proteins.
    """
    drawn = _draw_antibodies(transcripts, n_proteins, np.random.default_rng([biology_seed, 2]))
    rng = np.random.default_rng([seed, 2])
    signal = _follow(transcripts, drawn)
    expected, background = _bind(transcripts, drawn, signal, rng)
    counts = _measure(expected, rng)
    recoverable = _recoverable(transcripts, drawn, signal, counts[:, :n_proteins], rng)
    names = np.array(transcripts.names, dtype=object)
    responds = drawn.pair >= 0
    responds[responds] = transcripts.strength[drawn.pair[responds]] != 0
    ligands = np.full(n_proteins, "", dtype=object)
    ligands[responds] = names[transcripts.pairs[drawn.pair[responds], 0]]
    strength = np.zeros(n_proteins)
    strength[responds] = _RESPONSE * transcripts.strength[drawn.pair[responds]]
    variance = signal.var(axis=0)
    follows = variance / (variance + _SIGNAL_SD**2 * (1 - drawn.follows))
    truth = {
        "gene": names[drawn.genes], "follows": follows, "recoverable_r": recoverable,
        "spillover": drawn.spillover,
        "background": (background / expected.sum(axis=0))[:n_proteins],
        "ligand": ligands, "strength": strength,
    }  # fmt: skip
    proteins = pd.Index([f"{gene}.1" for gene in names[drawn.genes]], name="protein")
    return counts.astype(np.float32), pd.DataFrame(truth, index=proteins)


def _draw_antibodies(given: Transcripts, n_proteins: int, rng: Rng) -> _Antibodies:
    """Choose encoding genes: targets of pairs, coupled and not, then genes that vary."""
    n_genes, half = len(given.names), len(given.pairs) // 2
    free = np.setdiff1d(np.arange(n_genes), given.pairs)
    n_receptors = min(len(given.pairs), int(_RECEPTORS * n_proteins))
    # Pairs are listed first coupled, then controls; take them in turn.
    turn = np.arange(2 * half).reshape(2, half).T.ravel()[:n_receptors]
    n_others = n_proteins - n_receptors
    if n_others > len(free):
        raise InputError(
            f"n_proteins is {n_proteins}; give at most {len(free)} with so few genes, or more genes"
        )
    # Proteins are of genes that vary over the tissue, and that are expressed.
    order = free[np.lexsort([-given.means[free], ~given.varies[free]])]
    pool = order[: max(n_others, int(given.varies[free].sum()) // 2)]
    others = rng.choice(pool, n_others, replace=False)
    is_weak = rng.permutation(n_others) < round(_WEAK * n_others)
    usual, weak = (rng.uniform(*limits, n_others) for limits in _FOLLOWS)
    receptors = rng.uniform(*_FOLLOWS[0], n_receptors)
    return _Antibodies(
        genes=np.concatenate([given.pairs[turn, 1], others]),
        pair=np.concatenate([turn, np.full(n_others, -1)]),
        abundance=rng.lognormal(0.0, _ABUNDANCE_SD, n_proteins),
        follows=np.concatenate([receptors, np.where(is_weak, weak, usual)]),
        spillover=rng.uniform(*_SPILLOVER, n_proteins),
        background=rng.uniform(*_BACKGROUND, n_proteins + len(ISOTYPES)),
    )


def _follow(given: Transcripts, drawn: _Antibodies) -> Floats:
    """Compute what transcripts determine of the log abundance: spots × proteins."""
    own = given.fractions(drawn.genes)
    around = average(given.neighbors) @ own
    log = np.log((1 - _PERSISTENCE) * own + _PERSISTENCE * around)
    log -= log.mean(axis=0)
    signal: Floats = _SIGNAL_SD * np.sqrt(drawn.follows) * log / np.maximum(log.std(axis=0), _FLAT)
    is_receptor = drawn.pair >= 0
    pair = drawn.pair[is_receptor]
    received = given.ligands[:, pair] - given.ligands[:, pair].mean(axis=0)
    signal[:, is_receptor] += _RESPONSE * given.strength[pair] * received
    return signal


def _bind(
    given: Transcripts, drawn: _Antibodies, signal: Floats, rng: Rng
) -> tuple[Floats, Floats]:
    """Draw the expected counts, spots × (proteins, controls), and sum those of background."""
    n_spots, n_proteins = signal.shape
    drift = fields(given.places, n_proteins, _DRIFT, rng)
    log = signal + _SIGNAL_SD * np.sqrt(1 - drawn.follows) * drift
    tissue = (given.depth / given.depth.mean())[:, None]
    bound = drawn.abundance * tissue * np.exp(log)
    around = average(given.neighbors[:, :7], center=False) @ bound
    bound = (1 - drawn.spillover) * bound + drawn.spillover * around
    usual = np.append(bound.mean(axis=0), np.full(len(ISOTYPES), np.median(bound.mean(axis=0))))
    background = drawn.background * usual * tissue
    background *= rng.lognormal(0.0, _AMBIENT_SD, (n_spots, 1))
    scale = rng.lognormal(0.0, _DEPTH_SD, (n_spots, 1)) * _DEPTH / bound.sum(axis=1).mean()
    expected = background * scale
    ambient = expected.sum(axis=0)
    expected[:, :n_proteins] += bound * scale
    return expected, ambient


def _measure(expected: Floats, rng: Rng) -> Floats:
    """Draw negative binomial counts."""
    counts = rng.negative_binomial(1 / _DISPERSION, 1 / (1 + _DISPERSION * expected))
    return counts.astype(np.float64)


def _recoverable(
    given: Transcripts, drawn: _Antibodies, signal: Floats, counts: Floats, rng: Rng
) -> Floats:
    """Correlate measured values with their mean given the transcripts, estimated from new draws."""
    n_proteins = signal.shape[1]
    total, squares = np.zeros(signal.shape), np.zeros(signal.shape)
    for _ in range(_DRAWS):
        expected = _bind(given, drawn, signal, rng)[0][:, :n_proteins]
        values = clr(_measure(expected, rng))
        total, squares = total + values, squares + values**2
    mean = total / _DRAWS
    within = ((squares - _DRAWS * mean**2) / (_DRAWS - 1)).mean(axis=0)
    spread = mean.var(axis=0)
    # The mean of some draws is still noisy: without its noise it would correlate better.
    reliable = np.clip(1 - within / _DRAWS / np.maximum(spread, 1e-12), 0.2, 1)
    measured = clr(counts)
    centered, mean = measured - measured.mean(axis=0), mean - mean.mean(axis=0)
    norm = np.sqrt(np.maximum((centered**2).sum(axis=0) * (mean**2).sum(axis=0), 1e-12))
    correlation: Floats = (centered * mean).sum(axis=0) / norm / np.sqrt(reliable)
    return np.clip(correlation, 0, 1)
