"""The context network: a slide is its own context, and the network weighs and corrects it.

What a spot shows is held against what a random draw of its depth from its slide would show; spots
of the slide that depart from that in the same way stand for each other. With the residuals

    R   = X W - e(depth) W          log1p counts (sparse) × gene embeddings, less a few rows per
                                    slide that are interpolated (:mod:`sagefm.nn.context.table`)

it has five operators: the center, the ring of its 6 nearest spots and that of the others of its
neighborhood, the spots of the slide that are similar, and the slide itself, by how its profile
differs from the usual one:

    A   = softmax(s · cos(R Q + R_ring Q', R K) + bonus of a ring)     who stands for a center
    P   = Σ_r A_r R M_r + facts
    z   = MLP(P)

Its prediction is what the similar spots and the slide show in the visible depth, corrected:

    base = (1 - u) · A × counts + u · slide,    u = sigmoid(level - slope · log mean count)
    x̂    = E[log1p Poisson(depth · base · exp(D z))]

The embedding says what tissue a spot is, at any depth: the keys ``R K`` and, at half their weight,
the residuals ``R``, each scaled to length 1, averaged over the neighborhood.

Each part of the base is normalized, and rare genes lean on the slide. A center has no weight in its
own base. For a gene that the slide lacks, the usual profile of the training slides takes the place
of the base, with a correction of its own.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sagefm.nn.base import Network
from sagefm.nn.sparse import SparseRows

NEAR = 6
"""Spots of the first ring: those that touch the center on the grid of the array."""
_LEAST = 1e-5
"""Counts: what is expected at least, so that a gene that no other spot shows can be predicted."""
_LIMIT = 5.0
"""Largest correction of a log rate."""
_OPERATOR_SCALE, _SLIDE_SCALE = 0.5, 0.3
"""They give operators a spread near 1 at the start."""
_RESIDUAL_VIEW = 0.5
"""Chosen on labeled slides of training and validation patients."""
_QUICK = ("sharpness", "level", "slope", "bonus")
"""Single numbers, which have a longer way to go than weights do."""
_QUICK_PACE = 10.0


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
    OPERATORS = ("center", "near", "far", "similar", "slide")
    N_KEYS = 96
    N_FACTS = 4
    MOST = 1024
    """Spots of a slide that any center is compared with, beside its neighbors."""

    usual: Tensor
    """Genes: mean over the training slides of log1p(10⁴ · profile)."""

    def __init__(self, n_genes: int, widths: Sequence[int] = DEFAULT_WIDTHS) -> None:
        super().__init__()
        self.widths, width, n_keys = tuple(widths), widths[0], self.n_keys(widths)
        self.first = nn.Parameter(torch.randn(n_genes, width) / 30)
        self.mixers = nn.ModuleDict(
            {name: nn.Linear(width, widths[1], bias=False) for name in self.OPERATORS}
        )
        self.facts = nn.Linear(self.N_FACTS, widths[1])
        self.norm = nn.LayerNorm(widths[1])
        self.encoder = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths[1:]))
        self.decoder = nn.Parameter(torch.randn(n_genes, widths[-1]) * 0.01)
        self.missing = nn.Parameter(self.decoder.detach().clone())
        self.query = nn.Linear(width, n_keys, bias=False)
        self.ring_query = nn.Linear(width, n_keys, bias=False)
        self.key = nn.Linear(width, n_keys, bias=False)
        self.sharpness = nn.Linear(self.N_FACTS, 1)
        self.level = nn.Linear(self.N_FACTS, 1)
        self.slope = nn.Parameter(torch.tensor(1.1))
        self.bonus = nn.Parameter(torch.tensor([0.5, 0.4]))
        self.register_buffer("usual", torch.zeros(n_genes))
        for layer in (self.query, self.key):
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

    def project_slide(self, profile: Tensor, measured: Tensor) -> Tensor:
        """Say how the profile of a slide differs from the usual one: (width)."""
        unusual = ((1e4 * profile).log1p() - self.usual) * measured
        return _SLIDE_SCALE * unusual @ self.first

    def queries(self, center: Tensor, around: Tensor) -> Tensor:
        """Make of residuals of centers and of their neighbors what keys are held against."""
        return F.normalize(self.query(center) + self.ring_query(around), dim=-1)

    def keys(self, residuals: Tensor) -> Tensor:
        """Make of residuals of spots what queries are held against: of length 1."""
        return F.normalize(self.key(residuals), dim=-1)

    @property
    def views(self) -> tuple[tuple[Tensor, float], ...]:
        """What residuals are seen through in an embedding, and what each view counts.

        Through the keys, spots of the same tissue lie near each other; the residuals themselves
        hold more that sets tissues of different patients apart.
        """
        weight: Tensor = self.key.weight
        return (weight, 1.0), (torch.eye(len(self.first.T), device=self.device), _RESIDUAL_VIEW)

    def sign(self, residuals: Tensor) -> Tensor:
        """Say what tissue a spot is, whatever its depth: spots × width of the embedding."""
        signs = [scale * F.normalize(residuals @ view.T, dim=-1) for view, scale in self.views]
        return torch.cat(signs, dim=-1)

    def describe(
        self, own: Tensor, around: Tensor, mean_depth: Tensor, n_measured: Tensor
    ) -> Tensor:
        """Tell the network how deep it sees: centers × facts.

        Parameters
        ----------
        own, around
            (centers) counts of the center, made up for what it hides, and their mean over its
            neighbors.
        mean_depth, n_measured
            Counts of a spot of the slide, on average; genes that are measured.
        """
        parts = (own, around, mean_depth.expand_as(own), n_measured.expand_as(own))
        return torch.stack([part.clamp(min=1).log() for part in parts], dim=1) - 6

    def pool(self, operators: Mapping[str, Tensor], facts: Tensor) -> Tensor:
        """Mix the operators: centers × hidden width.

        Parameters
        ----------
        operators
            Name → centers × width.
        facts
            From :meth:`describe`.
        """
        pooled: Tensor = self.facts(facts)
        for name, values in operators.items():
            pooled = pooled + self.mix(name, values)
        return pooled

    def mix(self, name: str, values: Tensor) -> Tensor:
        """Let one operator into what is pooled."""
        scale = 1.0 if name == "slide" else _OPERATOR_SCALE
        mixed: Tensor = self.mixers[name](scale * values)
        return mixed

    def unmix(self, name: str, gradient: Tensor) -> Tensor:
        """Turn derivatives by what is pooled into derivatives by the values of one operator."""
        scale = 1.0 if name == "slide" else _OPERATOR_SCALE
        weight: Tensor = self.mixers[name].weight  # type: ignore[assignment]
        return scale * gradient @ weight

    def embed(self, pooled: Tensor) -> Tensor:
        """Compute z, which the correction is read from: centers × last width."""
        z = F.gelu(self.norm(pooled))
        for layer in list(self.encoder)[:-1]:
            z = F.gelu(layer(z))
        found: Tensor = self.encoder[-1](z)
        return found

    def base(self, level: Tensor, similar: Tensor, slide: Tensor, mean: Tensor) -> Tensor:
        """Mix what similar spots and the slide show: centers × genes, shares of the counts.

        Parameters
        ----------
        level
            (centers) how much leans on the slide: the logit for a gene of mean count 1.
        similar, slide
            Centers × genes: profile of the similar spots, and of all other spots of the slide.
        mean
            Centers × genes: mean counts over the other spots of the slide.
        """
        share = torch.sigmoid(level[:, None] - self.slope * (mean + 1e-3).log())
        return torch.lerp(similar, slide, share)

    def usual_share(self, measured: Tensor) -> Tensor:
        """Give the usual profile, in units of the counts of the genes that are measured: genes."""
        counts = self.usual.expm1()
        return counts / (counts * measured).sum().clamp(min=1e-6)

    @staticmethod
    def correct(base: Tensor, z: Tensor, decoder: Tensor) -> Tensor:
        """Correct expected counts: centers × genes, those of `decoder`."""
        return (base + _LEAST) * (z @ decoder.T).clamp(-_LIMIT, _LIMIT).exp()

    @staticmethod
    def correction_counts(z: Tensor, decoder: Tensor) -> Tensor:
        """Say where a correction is not cut off, so that it has a derivative: centers × genes."""
        return (z @ decoder.T).abs() < _LIMIT
