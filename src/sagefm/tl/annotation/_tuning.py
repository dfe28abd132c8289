"""Fine-tuning: a network that was trained on hidden genes goes on with labels of spots."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

import lightning as L
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, vstack
from torch import Tensor, nn

from sagefm._types import Floats, Positions
from sagefm.nn import Published, SparseRows
from sagefm.pp.neighborhood import average
from sagefm.pretrain.loop import keeping_memory, quiet_lightning
from sagefm.tl.annotation._features import View
from sagefm.tl.annotation._heads import class_weights

if TYPE_CHECKING:
    from sagefm.model import SageFM

Depth = Literal["last", "all"]

_EPOCHS = 15
_BATCH = 128
_HEAD_RATE, _NETWORK_RATE = 1e-3, 1e-4
_DECAY = 0.05
_AT_ONCE = 1024


@dataclass(frozen=True)
class Tuned:
    """A fine-tuned network and its head.

    If it is centered, a slide's mean neighborhood is moved to the mean of the training slides
    before the network sees it: what is left is how a spot differs from the rest of its slide.

    Attributes
    ----------
    network
        A copy, with other weights than the model's.
    head
        From embeddings to a score per class in `known`.
    profile
        Genes: mean log1p counts over neighborhoods, averaged over the training slides; None where
        slides are read as they are.
    known, n_classes
        As of :class:`sagefm.tl.annotation._heads.Reader`.
    """

    network: Published
    head: nn.Linear
    profile: Tensor | None
    known: Positions
    n_classes: int

    @torch.inference_mode()
    def scores(self, view: View) -> Floats:
        """Score the classes: spots × classes, logits."""
        pooled = _pooled(self.network, view)
        if self.profile is not None:
            shift = torch.from_numpy(_profile(view)) - self.profile
            pooled = pooled - shift.to(pooled.device) @ self.network.first
        parts = [
            self.head(self.network.embed(part)).cpu() for part in torch.split(pooled, _AT_ONCE)
        ]
        found = np.full((len(pooled), self.n_classes), -np.inf)
        found[:, self.known] = torch.cat(parts).numpy()
        return found


def fine_tune(
    views: Sequence[View],
    codes: Sequence[Positions],
    n_classes: int,
    model: "SageFM",
    depth: Depth,
    *,
    balanced: bool,
    centered: bool,
    seed: int,
) -> Tuned:
    """Train a head and the last layers of a published network, or all of it, on labeled spots.

    Parameters
    ----------
    views, codes, balanced, centered
        As for :func:`sagefm.tl.annotation._heads.fit_reader`.
    depth
        ``"last"``: all but the first layer, whose weights are most of the network. ``"all"``.
    """
    labels = np.concatenate([own[own >= 0] for own in codes])
    known, y = np.unique(labels, return_inverse=True)
    profiles = np.stack([_profile(view) for view in views])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = cast(Published, copy.deepcopy(model.network)).train()
        network.first.requires_grad_(depth == "all")
        task = _Task(network, profiles if centered else 0 * profiles, len(known))
        spots = _Spots(views, codes, y, class_weights(y, balanced))
        task.start(spots)
        _train(task, spots, model.device, seed)
    network.requires_grad_(True).eval().to(model.device)  # Lightning may have left it elsewhere
    profile = torch.from_numpy(profiles.mean(axis=0)) if centered else None
    return Tuned(
        network, task.folded().to(model.device), profile, known.astype(np.int64), n_classes
    )


class _Spots:
    """The labeled spots that are learned from."""

    def __init__(
        self, views: Sequence[View], codes: Sequence[Positions], y: Positions, weights: Floats
    ) -> None:
        self.views = views
        self.rows = [np.flatnonzero(own >= 0) for own in codes]
        slides = np.repeat(np.arange(len(views)), [len(own) for own in self.rows])
        self.slides, self.labels = torch.from_numpy(slides), torch.from_numpy(y)
        self.weights = torch.from_numpy(weights.astype(np.float32))

    def pooled(self, network: Published) -> Tensor:
        """Give their neighborhoods behind the first layer: spots × width."""
        with torch.no_grad():
            pairs = zip(self.views, self.rows, strict=True)
            return torch.cat([_pooled(network, view, own) for view, own in pairs])

    def averaged(self) -> csr_matrix:
        """Give their neighborhoods before the first layer: spots × genes, log1p counts."""
        parts = [
            average(view.prepared.neighbors[own], n_spots=len(view.rows)) @ view.prepared.log1p
            for view, own in zip(self.views, self.rows, strict=True)
        ]
        return csr_matrix(vstack(parts, format="csr"))


class _Task(L.LightningModule):
    """Labels of spots from their neighborhoods."""

    shifts: Tensor
    center: Tensor
    spread: Tensor

    def __init__(self, network: Published, profiles: NDArray[np.float32], n_known: int) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("shifts", torch.from_numpy(profiles - profiles.mean(axis=0)))
        width = network.widths[-1]
        self.head = nn.Linear(width, n_known)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.register_buffer("center", torch.zeros(width))
        self.register_buffer("spread", torch.ones(width))

    def moved(self, pooled: Tensor, slides: Tensor) -> Tensor:
        """Move each slide to the common mean, behind the first layer."""
        moves: Tensor = self.shifts @ self.network.first
        return pooled - moves[slides]

    @torch.no_grad()
    def start(self, spots: _Spots) -> None:
        """Let the head see columns of mean 0 and standard deviation 1, as the network begins."""
        device = self.network.first.device
        self.shifts = self.shifts.to(device)
        z = self.network.embed(
            self.moved(spots.pooled(self.network).to(device), spots.slides.to(device))
        )
        self.center, self.spread = z.mean(dim=0).cpu(), z.std(dim=0).cpu() + 1e-3

    def forward(self, pooled: Tensor) -> Tensor:
        """Score the known classes."""
        scores: Tensor = self.head((self.network.embed(pooled) - self.center) / self.spread)
        return scores

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Compare with the labels: weighted cross-entropy."""
        inputs, slides, y, weights = batch
        # Either neighborhoods before the first layer, or behind it where that one stays.
        pooled = inputs @ self.network.first if self.network.first.requires_grad else inputs
        losses = F.cross_entropy(self(self.moved(pooled, slides)), y, reduction="none")
        loss: Tensor = (losses * weights).mean()
        return loss

    def configure_optimizers(self) -> Any:
        """AdamW, the network at a tenth of the pace of its new head, both slowing down."""
        tuned = [p for p in self.network.parameters() if p.requires_grad]
        groups = [
            {"params": self.head.parameters(), "lr": _HEAD_RATE},
            {"params": tuned, "lr": _NETWORK_RATE},
        ]
        optimizer = torch.optim.AdamW(groups, weight_decay=_DECAY)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(steps, 1))
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    def folded(self) -> nn.Linear:
        """Give the head with the scaling of its columns folded in."""
        head = nn.Linear(self.head.in_features, self.head.out_features)
        center, spread = (value.cpu() for value in (self.center, self.spread))
        with torch.no_grad():
            weight, bias = self.head.weight.cpu() / spread, self.head.bias.cpu()
            head.weight.copy_(weight)
            head.bias.copy_(bias - weight @ center)
        return head.requires_grad_(False)


def _train(task: _Task, spots: _Spots, device: torch.device, seed: int) -> None:
    deep = task.network.first.requires_grad
    averaged = spots.averaged() if deep else None
    pooled = None if deep else spots.pooled(task.network).cpu()

    def gather(chosen: list[int]) -> Any:
        if averaged is None:
            inputs = pooled[chosen]  # type: ignore[index]
        else:  # half of it is not zero, so that a dense product is the faster one
            inputs = torch.from_numpy(averaged[chosen].toarray())
        return inputs, spots.slides[chosen], spots.labels[chosen], spots.weights[chosen]

    loader: Any = torch.utils.data.DataLoader(
        range(len(spots.labels)), _BATCH, shuffle=True, collate_fn=gather,  # type: ignore[arg-type]
        generator=torch.Generator().manual_seed(seed),
    )  # fmt: skip
    with quiet_lightning(), keeping_memory(device):
        trainer = L.Trainer(
            max_epochs=_EPOCHS, accelerator=device.type,
            devices=1 if device.type == "cpu" else [device.index or 0],
            gradient_clip_val=1.0, logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(task, loader)


def _pooled(network: Published, view: View, rows: Positions | None = None) -> Tensor:
    """Give neighborhoods behind the first layer: spots × width."""
    device = network.first.device
    projected = network.project(SparseRows.from_scipy(view.prepared.log1p, device))
    neighbors = view.prepared.neighbors if rows is None else view.prepared.neighbors[rows]
    return network.pool(projected, torch.from_numpy(neighbors).to(device))


def _profile(view: View) -> NDArray[np.float32]:
    """Average log1p counts over all neighborhoods: genes."""
    share = average(view.prepared.neighbors).mean(axis=0)
    return np.asarray(share @ view.prepared.log1p, dtype=np.float32).ravel()
