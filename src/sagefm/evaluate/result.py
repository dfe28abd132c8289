"""The result of a protocol: tables and notes."""

from dataclasses import dataclass, field

import pandas as pd


@dataclass(frozen=True)
class Result:
    """The result of one protocol.

    Attributes
    ----------
    protocol
        Its name.
    summary
        Caption → table with a row per method, in the order of the scorecard.
    details
        Name → tidy table with a row per slide, gene or spot, which the summary is computed from.
    notes
        Sentences to print below the tables: the readout, what was left out, controls.
    """

    protocol: str
    summary: dict[str, pd.DataFrame]
    details: dict[str, pd.DataFrame] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
