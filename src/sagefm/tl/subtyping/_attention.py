"""Gated attention pooling (Ilse, Tomczak and Welling 2018, arXiv 1802.04712), for few patients."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sagefm._types import Codes, Floats
from sagefm.stats.probe import balanced, fit_probes, penalty

_HIDDEN = 4
_STEPS = 60
_RATE = 0.05
_EPS = 1e-2
"""Of Adam: gradients far below are left small. It starts at an optimum, where they are rounding."""
_PENALTY = 0.3
"""On half the squares of what attention has learned, in units of the spread of spots. Chosen on
simulated spots: with 1 it does not leave the mean, without it noise is attended to."""


@dataclass(frozen=True)
class Attention:
    """Attention and the linear readout behind it, one for each labeling.

    With components h of a spot its score is ``u · (tanh(V h) ⊙ sigmoid(U h))``; spots count as
    the softmax of the scores over their slide says.
    """

    signal: Tensor
    """V: labelings × components × hidden."""
    gate: Tensor
    """U: labelings × components × hidden."""
    score: Tensor
    """u: labelings × hidden."""
    readout: Tensor
    """Labelings × classes × components."""
    intercepts: Tensor
    """Labelings × classes."""

    def scores(self, h: Tensor) -> Tensor:
        """Get labelings × … × spots, given … × spots × components."""
        both = torch.cat([self.signal, self.gate], dim=2).transpose(0, 1)  # one product for all
        seen = (h @ both.flatten(1)).reshape(*h.shape[:-1], *both.shape[1:])
        signal, gate = seen.chunk(2, dim=-1)
        return ((torch.tanh(signal) * torch.sigmoid(gate)) * self.score).sum(dim=-1).movedim(-1, 0)

    def weights(self, h: Tensor) -> Tensor:
        """Say how much each spot (× components) counts: labelings × spots, which sum to 1."""
        return self.to(h).scores(h).softmax(dim=-1)

    def probabilities(self, slides: Sequence[Tensor]) -> Floats:
        """Predict a patient from the components of its slides: labelings × classes."""
        pooled = torch.stack([self.weights(h) @ h for h in slides]).mean(dim=0)
        own = self.to(pooled)
        logits = torch.einsum("pc,pkc->pk", pooled, own.readout) + own.intercepts
        return logits.softmax(dim=1).numpy()

    def probe(self, labeling: int) -> tuple[Floats, Floats]:
        """Get weights (classes × components) and intercepts of one labeling."""
        parts = (self.readout[labeling], self.intercepts[labeling])
        return parts[0].double().numpy(), parts[1].double().numpy()

    def to(self, like: Tensor) -> "Attention":
        """Take the type and the device of a tensor."""
        return Attention(*(part.to(like) for part in vars(self).values()))


def fit_attention(
    slides: Sequence[Floats],
    owner: Codes,
    labels: Codes,
    n_classes: int,
    means: Floats,
    seed: int,
) -> Attention:
    """Learn attention, one for each labeling, all at once.

    It starts as mean pooling with the probe that is best for it, and is kept near that by a penalty
    on all weights; the loss is that of the probe. A fixed number of steps of Adam, their size
    falling to zero.

    Parameters
    ----------
    slides
        For each slide spots × components.
    owner
        The patient of each.
    labels
        Labelings × patients.
    n_classes
        How many classes there are.
    means
        Patients × components: the means over their slides.
    seed
        Of the first weights.
    """
    h, hidden = _padded(slides)
    share = F.one_hot(torch.from_numpy(owner)).float()
    share = (share / share.sum(dim=0)).T  # patients × slides
    truth = torch.from_numpy(labels)
    weight = torch.from_numpy(balanced(labels, n_classes)).float()
    spread = torch.from_numpy(np.concatenate(slides).std(axis=0)).float().unsqueeze(1)
    own = _start(spread, means, labels, n_classes, seed)
    parts = [part.requires_grad_() for part in vars(own).values()]
    optimizer = torch.optim.Adam(parts, lr=_RATE, eps=_EPS)
    for step in range(_STEPS):
        optimizer.param_groups[0]["lr"] = _RATE * (1 - step / _STEPS)
        counts = own.scores(h).masked_fill(hidden, -torch.inf).softmax(dim=-1)
        pooled = share @ torch.einsum("psm,smc->psc", counts, h)
        logits = torch.einsum("pnc,pkc->pnk", pooled, own.readout) + own.intercepts.unsqueeze(1)
        error = F.cross_entropy(logits.transpose(1, 2), truth, reduction="none")
        learned = own.score.square().sum() + sum(
            (part * spread).square().sum() for part in (own.signal, own.gate)
        )
        loss = (weight * error).sum() + 0.5 * _PENALTY * learned
        loss = loss + 0.5 * penalty(n_classes) * own.readout.square().sum()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    return Attention(*(part.detach() for part in parts))


def _padded(slides: Sequence[Floats]) -> tuple[Tensor, Tensor]:
    """Put slides of different size into one tensor; say which of its spots are none."""
    most = max(map(len, slides))
    h = torch.zeros(len(slides), most, slides[0].shape[1])
    hidden = torch.ones(len(slides), most, dtype=torch.bool)
    for i, slide in enumerate(slides):
        h[i, : len(slide)] = torch.from_numpy(slide)
        hidden[i, : len(slide)] = False
    return h, hidden


def _start(spread: Tensor, means: Floats, labels: Codes, n_classes: int, seed: int) -> Attention:
    """Begin as mean pooling: with u = 0 all spots count alike."""
    probes = fit_probes(means, labels, n_classes)
    n_components = means.shape[1]
    chance = np.random.default_rng(seed)
    first = chance.normal(size=(2, n_components, _HIDDEN)) / np.sqrt(n_components)
    scaled = torch.from_numpy(first).float() / spread
    each = scaled.unsqueeze(1).repeat(1, len(labels), 1, 1)
    return Attention(
        each[0].clone(), each[1].clone(), torch.zeros(len(labels), _HIDDEN),
        torch.from_numpy(probes.weights).float(), torch.from_numpy(probes.intercepts).float(),
    )  # fmt: skip
