"""What a network predicts after genes were changed, without a second look at the expression.

The first layer is linear: a gene that changes adds a number per spot times its row of weights to
the pooled neighborhood. So the pooled neighborhoods of a slide are kept, a change costs the layers
behind them, and spots that it does not touch cost nothing. The last layer of the encoder and the
decoder are one linear layer for the genes that are read.
"""

from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from sagefm.nn.published.network import Published

_BLOCK = 1024
"""Spots at a time: their hidden layers stay in the processor's cache."""


class Responses:
    """Predictions at some spots, as they are and after changes around them.

    Parameters
    ----------
    network
        The network.
    pooled
        Spots × first width, what :meth:`Published.pool` gives: nothing is changed there yet, and
        what shall be hidden is hidden.
    """

    def __init__(self, network: Published, pooled: Tensor) -> None:
        self._network, self._pooled = network, pooled
        self._readers: dict[bytes, tuple[Tensor, Tensor]] = {}

    def __len__(self) -> int:
        return len(self._pooled)

    @cached_property
    def _hidden(self) -> Tensor:
        """Of every spot, unchanged: a change that reaches every spot has no need of it."""
        return torch.cat([self._network.hidden(part) for part in torch.split(self._pooled, _BLOCK)])

    @torch.inference_mode()
    def unchanged(self, wanted: Tensor) -> Tensor:
        """Predict before anything changes: spots × genes `wanted`, log1p counts."""
        return F.relu(F.linear(self._hidden, *self._reader(wanted)))

    @torch.inference_mode()
    def changed(self, genes: Tensor, change: Tensor, wanted: Tensor) -> Tensor:
        """Predict after a change.

        Parameters
        ----------
        genes
            Positions of the genes that change.
        change
            Spots × `genes`: by how much the mean log1p count of the neighborhood changes.
        wanted
            Positions of the genes to predict.

        Returns
        -------
        Spots × `wanted`, log1p counts.
        """
        reader = self._reader(wanted)
        moved = (change != 0).any(dim=1)
        at, still = moved.nonzero().squeeze(1), (~moved).nonzero().squeeze(1)
        predicted = self._pooled.new_empty(len(self), len(wanted))
        if len(still):
            predicted[still] = F.linear(self._hidden[still], *reader)
        weights = self._network.first[genes]
        for rows in torch.split(at, _BLOCK):
            pooled = torch.addmm(self._pooled[rows], change[rows], weights)
            predicted[rows] = F.linear(self._network.hidden(pooled), *reader)
        return F.relu(predicted)

    def _reader(self, wanted: Tensor) -> tuple[Tensor, Tensor]:
        """Make the last layer for some genes, once."""
        key = wanted.cpu().numpy().tobytes()
        if key not in self._readers:
            self._readers[key] = self._network.reader(wanted)
        return self._readers[key]
