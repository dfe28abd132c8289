"""The context network: a slide is its own context, and the network weighs and corrects it.

Every spot is compared with a random draw of the same library size from its slide (the background);
spots whose residuals point the same way are similar. With the residuals

    R   = X W - e(library size) W   log1p counts (sparse) × gene embeddings, minus the background
                                    (:mod:`sagefm.nn.context.background`)

there are five operators: the center, the ring of its 6 nearest spots, the ring of the other
neighbors, the similar spots of the slide, and the slide itself (how its profile differs from the
usual one):

    A   = softmax(s · cos(R Q + R_ring Q', R K) + bonus of a ring)     attention over spots
    P   = Σ_r A_r R M_r + facts
    z   = MLP(P)

The prediction is the mean of the similar spots and of the slide, corrected:

    base = (1 - u) · A × counts + u · slide,    u = sigmoid(level - slope · log mean count)
    x̂    = E[log1p Poisson(library size · base · exp(D z))]

The embedding does not depend on the library size: the keys ``R K`` and, at half their weight, the
residuals ``R``, each scaled to length 1, averaged over the neighborhood.

Training (:mod:`~sagefm.nn.context.loss`) and prediction (:mod:`~sagefm.nn.context.centers`) both
run the formula by the methods of :class:`Context`; they differ in how they gather its inputs.

Each profile in the base sums to 1, and rare genes lean on the slide. A center has no weight in its
own base. For a gene that the slide lacks, the usual profile of the training slides takes the place
of the base, with a correction of its own; once a network is trained, what is fitted then predicts
such genes instead (:mod:`~sagefm.nn.context.absent`).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sagefm.nn.base import Network
from sagefm.nn.context.absent import Absent
from sagefm.nn.context.background import Background, log1p_mean
from sagefm.nn.sparse import SparseRows

NEAR = 6
"""Spots of the first ring: those that touch the center on the grid of the array."""
_LEAST = 1e-5
"""Counts: what is expected at least, so that a gene that no other spot shows can be predicted."""
_LIMIT = 5.0
"""Largest correction of a log rate."""
_OPERATOR_SCALE, _SLIDE_SCALE = 0.5, 0.3
"""They give operators a spread near 1 at the start."""
_RESIDUAL_WEIGHT = 0.5
"""Chosen on labeled slides of training and validation patients."""
_QUICK = ("sharpness", "level", "slope", "bonus")
"""Single numbers, which have a longer way to go than weights do."""
_QUICK_PACE = 10.0


class Spots(NamedTuple):
    """What is computed once of the spots of a slide, or of a tile in training."""

    background: Background
    """Of spots none of which is a center with masked genes."""
    library_size: Tensor
    """(spots) counts of each."""
    residuals: Tensor
    """Spots × width."""
    keys: Tensor
    """Spots × keys."""
    landmarks: Tensor
    """Rows that every center is compared with."""
    place: Tensor
    """(spots) the place of each among the landmarks; one past the last for all others."""
    measured: Tensor
    """Genes: which of them the slide has."""


class Visible(NamedTuple):
    """What is not masked of some neighborhoods.

    Library sizes are scaled up for what is masked, as if that had the profile of the slide.
    """

    residuals: tuple[Tensor, Tensor, Tensor]
    """Of the center and means over the near and the far ring: each centers × width."""
    library_sizes: tuple[Tensor, Tensor, Tensor]
    """Of the same: each (centers)."""
    library_size: Tensor
    """(centers) counts of the center that are visible."""
    neighbors_masked: bool = False
    """Whether genes are masked in the neighbors too: then nothing attends to these."""


class Attention(NamedTuple):
    """What some centers attend to, and what is computed from it whatever the gene."""

    pooled: Tensor
    """Centers × hidden width: P of the formula."""
    to_landmarks: Tensor
    """Centers × landmarks."""
    to_neighbors: Tensor
    """Centers × neighbors; each row of both together sums to 1."""
    similar_size: Tensor
    """(centers) mean library size, weighted by attention."""
    level: Tensor
    """(centers) how much the base leans on the slide: the logit for a gene of mean count 1."""
    library_size: Tensor
    """(centers) visible counts of the center."""


class Context(Network):
    """The context network.

    Parameters
    ----------
    n_genes
        Size of the vocabulary.
    widths
        Of the gene embeddings, of the hidden layers, and of `z`.
    """

    DEFAULT_WIDTHS = (256, 512, 512, 128)
    MIN_WIDTHS, MIN_NEIGHBORS = 3, 1 + NEAR + 1  # the center, and a spot of the far ring
    OPERATORS = ("center", "near", "far", "similar", "slide")
    N_KEYS = 96
    N_FACTS = 4
    MOST = 1024
    """Landmarks of a slide at most: spots that every center is compared with."""

    usual: Tensor
    """Genes: mean over the training slides of log1p(10⁴ · profile)."""
    absent: Absent | None
    """What predicts genes that a slide lacks, of a network that was trained; without it they are
    predicted by the usual profile and `missing`."""

    def __init__(self, n_genes: int, widths: Sequence[int] = DEFAULT_WIDTHS) -> None:
        super().__init__()
        self.widths, width, n_keys = tuple(widths), widths[0], self.n_keys(widths)
        self.first = nn.Parameter(_drawn(n_genes, width, lambda w: w.div_(30)))
        self.mixers = nn.ModuleDict(
            {name: nn.Linear(width, widths[1], bias=False) for name in self.OPERATORS}
        )
        self.facts = nn.Linear(self.N_FACTS, widths[1])
        self.norm = nn.LayerNorm(widths[1])
        self.encoder = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths[1:]))
        self.decoder = nn.Parameter(_drawn(n_genes, widths[-1], lambda w: w.mul_(0.01)))
        self.missing = nn.Parameter(self.decoder.detach().clone())
        by_key = (nn.Linear(width, n_keys, bias=False) for _ in range(3))
        self.query, self.ring_query, self.key = by_key
        self.sharpness, self.level = (nn.Linear(self.N_FACTS, 1) for _ in range(2))
        self.slope = nn.Parameter(torch.tensor(1.1))
        self.bonus = nn.Parameter(torch.tensor([0.5, 0.4]))
        self.register_buffer("usual", torch.zeros(n_genes))
        self.register_module("absent", None)
        for layer in (self.query, self.key):
            if not layer.weight.is_meta:
                nn.init.eye_(layer.weight)
        for layer in (self.ring_query, self.sharpness, self.level):
            nn.init.zeros_(layer.weight)
        nn.init.constant_(self.sharpness.bias, math.log(5.0))
        nn.init.constant_(self.level.bias, -3.0)

    @staticmethod
    def embedding_width(widths: Sequence[int]) -> int:
        """Width of the embedding: keys, by which spots are compared, and residuals."""
        return Context.n_keys(widths) + widths[0]

    @staticmethod
    def n_keys(widths: Sequence[int]) -> int:
        """How many numbers a key has."""
        return min(Context.N_KEYS, widths[0])

    def make_room(self, weights: Mapping[str, Tensor]) -> None:
        """Add what predicts absent genes, which files of earlier versions lack."""
        loadings = weights.get("absent.loadings")
        if loadings is not None and loadings.ndim == 2:
            self.absent = Absent(len(self.first), loadings.shape[1])

    @torch.no_grad()
    def start_from(self, loadings: Tensor, strength: Tensor, usual: Tensor) -> None:
        """Begin with the principal axes of residuals: then spots can be compared untrained.

        Parameters
        ----------
        loadings
            Genes × width, orthonormal, of residuals of training spots.
        strength
            (width) standard deviation of the residuals along each.
        usual
            What the buffer of that name holds.
        """
        self.first.copy_(loadings / (strength * strength.mean()).sqrt())
        n = min(self.decoder.shape[1], loadings.shape[1])
        self.decoder[:, :n] = loadings[:, :n] * 0.01 * math.sqrt(len(loadings))
        self.missing.copy_(self.decoder)
        self.usual.copy_(usual)

    def optimizer(self, learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
        """AdamW, which lets matrices decay; single numbers go faster (entry `pace`)."""
        groups: dict[bool | None, list[nn.Parameter]] = {True: [], False: [], None: []}
        for name, parameter in self.named_parameters():
            quick = name.startswith(_QUICK)
            groups[None if quick else parameter.ndim > 1].append(parameter)
        return torch.optim.AdamW(
            [
                {"params": groups[True], "weight_decay": weight_decay, "pace": 1.0},
                {"params": groups[False], "weight_decay": 0.0, "pace": 1.0},
                {"params": groups[None], "weight_decay": 0.0, "pace": _QUICK_PACE},
            ],
            lr=learning_rate,
            fused=True,
        )

    def project(self, rows: SparseRows) -> Tensor:
        """Multiply log1p counts by the gene embeddings: spots × width."""
        return rows.times(self.first)

    def keys(self, residuals: Tensor) -> Tensor:
        """Compute the keys of spots, of length 1: spots × keys."""
        return F.normalize(self.key(residuals), dim=-1)

    def embed(self, residuals: Tensor) -> Tensor:
        """Embed single spots: spots × width of the embedding.

        Keys bring spots of the same tissue together; the residuals themselves hold more of what
        sets tissues of different patients apart.
        """
        own = _RESIDUAL_WEIGHT * F.normalize(residuals, dim=-1)
        return torch.cat([self.keys(residuals), own], dim=-1)

    @property
    def views(self) -> tuple[tuple[Tensor, float], ...]:
        """The linear maps of residuals that make up the embedding, and their weights."""
        weight: Tensor = self.key.weight
        return (weight, 1.0), (torch.eye(self.widths[0], device=self.device), _RESIDUAL_WEIGHT)

    def visible(self, spots: Spots, neighbors: Tensor) -> Visible:
        """Average over the rings of some neighborhoods, with nothing masked."""
        rings = split_rings(neighbors)
        near, far = (F.embedding_bag(ring, spots.residuals, mode="mean") for ring in rings[1:])
        sizes = [spots.library_size[ring].mean(dim=1) for ring in rings]
        center = F.embedding(neighbors[:, 0], spots.residuals)
        return Visible((center, near, far), (sizes[0], sizes[1], sizes[2]), sizes[0])

    def attend(
        self, spots: Spots, neighbors: Tensor, visible: Visible, sharpen: float = 1.0
    ) -> Attention:
        """Compare centers with their neighbors and the landmarks, and pool the operators.

        Parameters
        ----------
        neighbors
            Centers × 15 row numbers, the center first.
        sharpen
            Factor of the sharpness: above 1, the most similar spots weigh more.
        """
        facts = self.facts_of(spots, visible, neighbors.shape[1])
        query = self.ask(visible, facts, neighbors.shape[1], sharpen)
        to_landmarks = query @ F.embedding(spots.landmarks, spots.keys).T
        to_neighbors = torch.einsum("ck,crk->cr", query, F.embedding(neighbors[:, 1:], spots.keys))
        if visible.neighbors_masked:
            to_neighbors = torch.full_like(to_neighbors, -torch.inf)
        to_landmarks, to_neighbors = self.weigh(to_landmarks, to_neighbors, spots.place[neighbors])

        def similar(values: Tensor) -> Tensor:
            of_neighbors = F.embedding(neighbors[:, 1:], values)
            average = torch.einsum("cr,crw->cw", to_neighbors, of_neighbors)
            average += to_landmarks @ F.embedding(spots.landmarks, values)
            return average

        center, near, far = visible.residuals
        unusual = ((1e4 * spots.background.profile).log1p() - self.usual) * spots.measured
        slide = (_SLIDE_SCALE * unusual @ self.first).expand(len(neighbors), -1)
        values = (center, near, far, similar(spots.residuals), slide)
        pooled = self.facts(facts)
        for name, value in zip(self.OPERATORS, values, strict=True):
            pooled = pooled + self.mix(name, value)
        size = similar(spots.library_size[:, None]).squeeze(1)
        level = self.level(facts).squeeze(1)
        return Attention(pooled, to_landmarks, to_neighbors, size, level, visible.library_size)

    def facts_of(self, spots: Spots, visible: Visible, size: int) -> Tensor:
        """Stack logarithms of mean library sizes and of the number of measured genes.

        `size` is that of a neighborhood.
        """
        center, near, far = visible.library_sizes
        slide, n_measured = spots.background.mean_size, spots.measured.sum()
        around = _over_rings(near, far, size)
        facts = (center, around, slide.expand_as(center), n_measured.expand_as(center))
        return torch.stack([fact.clamp(min=1).log() for fact in facts], dim=1) - 6

    def ask(self, visible: Visible, facts: Tensor, size: int, sharpen: float = 1.0) -> Tensor:
        """Compute the queries of centers: centers × keys."""
        center, near, far = visible.residuals
        query: Tensor = self.query(center) + self.ring_query(_over_rings(near, far, size))
        sharpness: Tensor = sharpen * self.sharpness(facts).exp()
        return sharpness * F.normalize(query, dim=-1)

    def weigh(
        self, to_landmarks: Tensor, to_neighbors: Tensor, place: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Turn products of queries and keys into attention.

        `place` has for each spot of the neighborhoods its place among the landmarks.
        """
        # A neighbor that is a landmark counts as a neighbor; the center does not count.
        to_landmarks = F.pad(to_landmarks, (0, 1)).scatter_(1, place, -torch.inf)[:, :-1]
        n_each = torch.tensor([NEAR, to_neighbors.shape[1] - NEAR], device=place.device)
        to_neighbors = to_neighbors + self.bonus.repeat_interleave(n_each)
        weights = torch.cat([to_landmarks, to_neighbors], dim=1).softmax(dim=1)
        weights = weights.nan_to_num(0)  # where no spot is left to attend to
        sizes = [to_landmarks.shape[1], to_neighbors.shape[1]]
        to_landmarks, to_neighbors = torch.split(weights, sizes, dim=1)
        return to_landmarks, to_neighbors

    def mix(self, name: str, values: Tensor) -> Tensor:
        """Compute what one operator adds to P."""
        scale = 1.0 if name == "slide" else _OPERATOR_SCALE
        mixed: Tensor = self.mixers[name](scale * values)
        return mixed

    def z(self, pooled: Tensor) -> Tensor:
        """Compute z of P: centers × last width."""
        z = F.gelu(self.norm(pooled))
        for layer in list(self.encoder)[:-1]:
            z = F.gelu(layer(z))
        last: Tensor = self.encoder[-1](z)
        return last

    def base(self, level: Tensor, similar: Tensor, slide: Tensor, mean: Tensor) -> Tensor:
        """Mix the profiles of similar spots and of the slide: centers × genes.

        Parameters
        ----------
        level
            (centers) from :class:`Attention`.
        similar, slide
            Centers × genes: profile of the similar spots, and of all other spots of the slide.
        mean
            Centers × genes: mean counts over the other spots of the slide.
        """
        u = torch.sigmoid(level[:, None] - self.slope * (mean + 1e-3).log())
        return torch.lerp(similar.float(), slide, u)  # a product may be of half precision

    @staticmethod
    def scale(library_size: Tensor, level: Tensor, similar: Tensor, slide: Tensor) -> Tensor:
        """Estimate the library size of centers from what is visible of them.

        Parameters
        ----------
        library_size, level
            (centers) from :class:`Attention`.
        similar, slide
            (centers) fraction of either profile that is masked in the center.
        """
        masked = torch.lerp(similar.float(), slide, torch.sigmoid(level.float()))
        return library_size / (1 - masked).clamp(min=1e-6)

    def usual_profile(self, measured: Tensor) -> Tensor:
        """Compute the usual profile as fractions of the counts of the measured genes: genes."""
        counts = self.usual.expm1()
        return counts / (counts * measured).sum().clamp(min=1e-6)

    @staticmethod
    def predict(expected: Tensor, correction: Tensor) -> Tensor:
        """Predict log1p counts: centers × genes.

        Parameters
        ----------
        expected
            Centers × genes: expected counts, the base times :meth:`scale`.
        correction
            Centers × genes: ``D z``, added to the logarithm of the rate.
        """
        return log1p_mean((expected + _LEAST) * correction.clamp(-_LIMIT, _LIMIT).exp())


def _drawn(n_genes: int, width: int, scale: Callable[[Tensor], Tensor]) -> Tensor:
    """Draw weights, but not on the meta device: that would import the compiler of torch."""
    weights = torch.empty(n_genes, width)
    return weights if weights.is_meta else scale(weights.normal_())


def split_rings(neighbors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Split neighborhoods into the center, the near and the far ring."""
    sizes = [1, NEAR, neighbors.shape[1] - 1 - NEAR]
    center, near, far = torch.split(neighbors, sizes, dim=1)
    return center, near, far


def _over_rings(near: Tensor, far: Tensor, size: int) -> Tensor:
    """Average means over the near and the far ring, by their numbers of spots."""
    n_each = torch.tensor([NEAR, size - 1 - NEAR], device=near.device)
    shares: Tensor = n_each / n_each.sum()
    return shares[0] * near + shares[1] * far
