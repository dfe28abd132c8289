"""What a protocol gives: tables, and what a reader must know to read them."""

from dataclasses import dataclass, field

import pandas as pd


@dataclass(frozen=True)
class Result:
    """The outcome of one protocol.

    Attributes
    ----------
    protocol
        Its name.
    summary
        Caption → table with a row per method: what the scorecard prints, in this order.
    details
        Name → tidy table behind the summary (a row per slide, gene, spot, …): a CSV file each.
    notes
        Sentences that belong under the tables: the readout, what was left out, controls.
    """

    protocol: str
    summary: dict[str, pd.DataFrame]
    details: dict[str, pd.DataFrame] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
