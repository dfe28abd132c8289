"""Domains as they are found, and how they are named."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from sagefm._types import Codes, Floats


@dataclass(frozen=True)
class Domains:
    """The domain of each spot of all slides, one after the other.

    Attributes
    ----------
    labels
        Numbers from 0.
    membership
        Spots × domains, rows sum to 1; None if there is one clustering.
    merges
        Merges × 3: two domains (the first stands for both from then on) and their similarity.
    facts
        What was chosen and measured, for ``uns``.
    """

    labels: Codes
    membership: Floats | None = None
    merges: Floats = field(default_factory=lambda: np.zeros((0, 3)))
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Names:
    """Names of domains: "1", "2", … from the largest to the smallest."""

    of_number: Mapping[int, str]

    def of(self, labels: Codes) -> "pd.Categorical[Any]":
        """Name domains; what is no domain (-1) has no name."""
        return pd.Categorical(
            [self.of_number.get(int(label)) for label in labels],
            categories=list(self.of_number.values()),
        )

    def merges(self, rows: Floats) -> pd.DataFrame:
        """Name the domains of merges."""
        return pd.DataFrame(
            {
                "domain": [self.of_number[int(row)] for row in rows[:, 0]],
                "merged": [self.of_number[int(row)] for row in rows[:, 1]],
                "similarity": rows[:, 2],
            }
        )


def named(labels: Codes) -> Names:
    """Name domains by their number of spots."""
    sizes = np.bincount(labels)
    order = [label for label in np.argsort(-sizes, kind="stable") if sizes[label]]
    return Names({int(label): str(i) for i, label in enumerate(order, start=1)})
