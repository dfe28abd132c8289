"""Fit what predicts the genes that a whole slide lacks, once the network is trained.

Everything is in closed form. The genes are cut into blocks, and the coefficients of a block are a
ridge regression on factors without it, without other blocks as well that are drawn for each slide
anew: so coefficients are right for factors of any genes. Ridge needs sums of products only, and
these are added up slide by slide, so that a gene learns from the slides that measured it.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, vstack
from torch import Tensor

from sagefm.nn import SparseRows
from sagefm.nn.context.absent import USUAL_SCALE, Absent, factors_of
from sagefm.nn.context.background import Background
from sagefm.pretrain.data import Split, read_tiles
from sagefm.pretrain.start import principal_axes
from sagefm.stats.sums import row_sums

FACTORS = 50
_SPOTS, _LEAST = 30_000, 20
"""Spots in all, evenly from all patients; and at least of each slide."""
_AXES_SPOTS = 4000
"""Spots whose residuals are dense, to find their axes."""
_BLOCKS = 10
_MISSING = (0, 2, 4, 6)
"""How many more blocks a slide lacks."""
_PENALTIES = (30.0, 100.0, 300.0, 1000.0, 3000.0, 10_000.0, 30_000.0)
_GROUPS, _BINS = 6, 16
"""Penalties are chosen by leaving out each of so many groups of patients, by bins of abundance."""
_CHOSEN_ON = (0, 5)
"""Blocks that they are chosen on."""
_ROUNDS = 5


class SlideSample(NamedTuple):
    """Some spots of a training slide."""

    patient: str
    counts: csr_matrix
    total: NDArray[np.float64]
    """Genes: counts over all training spots of the slide."""
    measured: NDArray[np.bool_]


class _Slide(NamedTuple):
    """A sample, with its residuals times the loadings, block by block of the genes."""

    blocks: list[csr_matrix]
    """Spots × genes of each block: log1p counts."""
    weight: float
    """Of each of its spots."""
    group: int
    """Of patients."""
    measured: Tensor
    background: Background
    library_size: Tensor
    """Spots × blocks."""
    usual: Tensor
    """(blocks) fraction of the counts that the genes that it has usually make up."""
    projected: Tensor
    """Blocks × spots × factors: log1p counts times loadings."""
    expected: Tensor
    """Blocks × sizes × factors: the table of the background times loadings."""
    grams: Tensor
    """Blocks × factors × factors."""


class _Sums(NamedTuple):
    """Sums of products over the spots of a slide, for one block of genes."""

    gram: Tensor
    """Features × features."""
    cross: Tensor
    """Features × genes of the block; 0 where the slide lacks the gene."""
    measured: Tensor
    """Genes of the block."""


def samples_of(split: Split, seed: int) -> Iterator[SlideSample]:
    """Draw training spots, as many of each patient: one pass over the data."""
    chance = np.random.default_rng(seed)
    patients = split.source.table["patient"].astype(str)[list(split.training)]
    n_slides = patients.value_counts()
    for slide, spots in split.training.items():
        patient = str(patients[slide])
        n_each = max(_LEAST, _SPOTS // len(n_slides) // int(n_slides[patient]))
        tiles = list(read_tiles(split.source, {slide: spots}))
        counts = csr_matrix(vstack([t.counts[t.neighbors[part, 0]] for t, part in tiles]))
        chosen = np.sort(chance.permutation(len(spots))[:n_each])
        total = np.asarray(counts.sum(axis=0, dtype=np.float64)).ravel()
        yield SlideSample(patient, counts[chosen], total, tiles[0][0].measured)


def fit_absent(samples: Sequence[SlideSample], seed: int, n_factors: int = FACTORS) -> Absent:
    """Fit loadings and coefficients.

    Parameters
    ----------
    samples
        From each training slide.
    seed
        Of the blocks of genes, and of what else is missing with each.
    """
    chance = np.random.default_rng(seed)
    usual = torch.from_numpy(usual_profile(samples)).float()
    loadings, scale = _loadings(samples, usual, n_factors, chance)
    absent = Absent.of(usual, loadings, loadings.new_zeros(len(usual), loadings.shape[1] + 1))
    order = torch.from_numpy(chance.permutation(len(usual)))
    blocks = torch.tensor_split(order, min(_BLOCKS, len(usual)))
    slides = [_of_slide(sample, samples, absent, blocks) for sample in samples]
    gone = _missing(len(slides), len(blocks), chance)

    def of_block(number: int) -> list[_Sums]:
        return [
            _sums(slide, number, blocks[number], gone[i, number], scale)
            for i, slide in enumerate(slides)
        ]

    bins, groups = _bins(usual), torch.tensor([slide.group for slide in slides])
    errors = torch.zeros(len(_PENALTIES), _BINS, dtype=torch.float64)
    for number in sorted({n % len(blocks) for n in _CHOSEN_ON}):
        errors += _errors(of_block(number), groups, bins[blocks[number]])
    best = torch.tensor(_PENALTIES, dtype=torch.float64)[errors.argmin(dim=0)]
    for number, block in enumerate(blocks):
        solved = _solve(of_block(number), best[bins[block]])
        absent.coefficients[block] = (scale[:, None] * solved.float()).T
    return absent


def usual_profile(samples: Sequence[SlideSample]) -> NDArray[np.float64]:
    """Compute log1p(10⁴ · profile) of a slide that would have all genes: genes.

    Mean of the patients. A slide that lacks genes has the others in too large fractions, by as much
    as the genes that it has make up of the profile: solved by iteration.
    """
    measured = np.stack([sample.measured for sample in samples])
    fractions = np.stack([sample.total / max(sample.total.sum(), 1.0) for sample in samples])
    patients = np.array([sample.patient for sample in samples])
    profile, part = np.zeros(measured.shape[1]), np.ones(len(samples))
    for _ in range(_ROUNDS):
        total, n = np.zeros((2, measured.shape[1]))
        for patient in np.unique(patients):
            own = patients == patient
            n_slides = measured[own].sum(axis=0)
            total += (part[own, None] * fractions[own]).sum(axis=0) / np.maximum(n_slides, 1)
            n += n_slides > 0
        profile = total / np.maximum(n, 1)
        profile /= max(profile.sum(), 1e-12)
        part = measured @ profile
    return np.log1p(USUAL_SCALE * profile)


def _loadings(
    samples: Sequence[SlideSample], usual: Tensor, n_factors: int, chance: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Compute principal axes of residuals.

    Returns
    -------
    Genes × axes, times their strength and in units of the noise; and (axes and a constant) what
    gives the factors a spread of their strength, relative to the mean one.
    """
    n_slides = Counter(sample.patient for sample in samples)
    nothing = Absent.of(usual, torch.zeros(len(usual), 0), torch.zeros(len(usual), 1))
    parts = []
    for sample in samples:
        n_each = max(1, _AXES_SPOTS // len(n_slides) // n_slides[sample.patient])
        counts = sample.counts[np.sort(chance.permutation(sample.counts.shape[0])[:n_each])]
        measured = torch.from_numpy(sample.measured)
        background, fraction = nothing.background(_sizes(counts), measured)
        log1p = SparseRows.from_scipy(counts.log1p())
        size = _sizes(counts) / fraction
        parts.append(background.residuals(log1p, size) * measured)
    residuals = torch.cat(parts)
    n_factors = min(n_factors, min(residuals.shape) - 1)
    axes, strength = principal_axes(residuals, n_factors, int(chance.integers(2**31)))
    strength = 2 * strength  # of residuals at half their size
    noise = residuals.square().mean() - strength.square().sum() / len(usual)
    noise = noise.clamp(min=1e-6).sqrt()
    scale = strength / noise / strength.square().mean().sqrt()
    return axes * (strength / noise), torch.cat([scale, scale.new_ones(1)])


def _of_slide(
    sample: SlideSample, samples: Sequence[SlideSample], absent: Absent, blocks: Sequence[Tensor]
) -> _Slide:
    patients = sorted({each.patient for each in samples})
    own = sum(each.counts.shape[0] for each in samples if each.patient == sample.patient)
    mean = sum(each.counts.shape[0] for each in samples) / len(patients)
    measured = torch.from_numpy(sample.measured)
    background, _ = absent.background(_sizes(sample.counts), measured)
    columns = sample.counts.tocsc()
    counts = [csr_matrix(columns[:, block.numpy()]) for block in blocks]
    log1p = [csr_matrix(block.log1p()) for block in counts]
    known = [absent.loadings[block] * measured[block, None] for block in blocks]
    pairs = list(zip(known, blocks, strict=True))
    return _Slide(
        blocks=log1p,
        weight=mean / own,
        group=patients.index(sample.patient) % _GROUPS,
        measured=measured,
        background=background,
        library_size=torch.stack([_sizes(block) for block in counts], dim=1),
        usual=torch.stack([(background.profile * measured)[block].sum() for block in blocks]),
        projected=torch.stack(
            [torch.from_numpy(x @ w.numpy()) for x, w in zip(log1p, known, strict=True)]
        ),
        expected=torch.stack([background.expected[:, block] @ w for w, block in pairs]),
        grams=torch.stack([w.T @ w for w in known]),
    )


def _missing(n_slides: int, n_blocks: int, chance: np.random.Generator) -> Tensor:
    """Draw what each slide lacks for the prediction of each block: slides × blocks × blocks."""
    ranks = chance.random((n_slides, n_blocks, n_blocks)).argsort(axis=2)
    n_more = chance.choice(_MISSING, size=(n_slides, n_blocks, 1))
    return torch.from_numpy((ranks < n_more) | np.eye(n_blocks, dtype=bool))


def _sums(slide: _Slide, number: int, block: Tensor, gone: Tensor, scale: Tensor) -> _Sums:
    """Add up products of the factors of a slide that lacks some blocks."""
    left = (~gone).float()
    sizes = (slide.library_size @ left) / (slide.usual @ left).clamp(min=1e-6)
    weights = slide.background.weights(sizes)
    projected = torch.tensordot(left, slide.projected, dims=1)
    projected -= weights @ torch.tensordot(left, slide.expected, dims=1)
    factors = factors_of(torch.tensordot(left, slide.grams, dims=1), projected)
    features = torch.cat([factors, factors.new_ones(len(factors), 1)], dim=1) * scale
    weighted = slide.weight * features
    cross = torch.from_numpy(slide.blocks[number].T @ weighted.numpy()).T
    cross = cross - (weighted.T @ weights) @ slide.background.expected[:, block]
    measured = slide.measured[block]
    return _Sums((weighted.T @ features).double(), cross.double() * measured, measured)


def _errors(sums: Sequence[_Sums], groups: Tensor, bins: Tensor) -> Tensor:
    """Add up squared errors of left-out groups, less those of the usual profile.

    Returns
    -------
    Penalties × bins.
    """
    errors = torch.zeros(len(_PENALTIES), _BINS, dtype=torch.float64)
    for group in sorted(set(groups.tolist())):
        rest = [s for s, g in zip(sums, groups.tolist(), strict=True) if g != group]
        test = [s for s, g in zip(sums, groups.tolist(), strict=True) if g == group]
        if not rest:
            continue
        target = sum(s.cross for s in test)
        for i, penalty in enumerate(_PENALTIES):
            solved = _solve(rest, torch.full(bins.shape, penalty, dtype=torch.float64))
            squares = sum((solved * (s.gram @ solved)).sum(dim=0) * s.measured for s in test)
            errors[i].index_add_(0, bins, squares - 2 * (solved * target).sum(dim=0))
    return errors


def _solve(sums: Sequence[_Sums], penalties: Tensor) -> Tensor:
    """Solve for the coefficients of each gene on the slides that measured it: features × genes."""
    cross = torch.stack([s.cross for s in sums]).sum(dim=0)
    grams, measured = torch.stack([s.gram for s in sums]), torch.stack([s.measured for s in sums])
    kinds = torch.cat([measured.double(), penalties[None]])
    unique, inverse = np.unique(kinds.numpy(), axis=1, return_inverse=True)
    which = inverse.ravel()
    solved, free = torch.zeros_like(cross), torch.ones(len(cross), dtype=cross.dtype)
    free[-1] = 0.01  # the constant
    for i, kind in enumerate(torch.from_numpy(unique.T)):
        genes = torch.from_numpy(np.flatnonzero(which == i))
        gram = torch.tensordot(kind[:-1], grams, dims=1) + torch.diag(kind[-1] * free)
        solved[:, genes] = torch.linalg.solve(gram, cross[:, genes])
    return solved


def _bins(usual: Tensor) -> Tensor:
    """Sort the genes into bins of abundance, as many in each."""
    return usual.argsort(stable=True).argsort() * _BINS // len(usual)


def _sizes(counts: csr_matrix) -> Tensor:
    return torch.from_numpy(row_sums(counts)).float()
