"""Put together what a call found: the table of pairs, and the tables about all of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sagefm._types import Floats
from sagefm.stats.resampling import benjamini_hochberg
from sagefm.tl.perturbation._coexpression import (
    COMPONENTS,
    NEIGHBORS,
    SAME_SPOT,
    Coexpression,
    correlate_slides,
)
from sagefm.tl.perturbation._cross_modality import CrossModality, across
from sagefm.tl.perturbation._effects import SlideEffects, mean
from sagefm.tl.perturbation._evidence import set_row, sets_table
from sagefm.tl.perturbation._plan import PerturbationPlan
from sagefm.tl.perturbation._refits import agreement
from sagefm.tl.perturbation._significance import significance
from sagefm.tl.perturbation._slides import PerturbedSlide

if TYPE_CHECKING:
    from sagefm.pp.modalities import Modality
    from sagefm.pp.vocabulary import Vocabulary

YES, NOTHING = 0.05, 1.96
"""p of the model, and z of the slide, for a pair that was only learned."""
LEAD = ("ligand", "target", "effect", "z", "q", "z_components", "learned_only", "agreement")
"""The columns that decide; they come first."""
LEAST_PAIRS = 3
"""Fewer have no correlation."""


class AttachedTable(pd.DataFrame):
    """A table in ``attrs`` of another.

    ``pd.concat`` and ``merge`` compare the attributes of tables as a whole, which a DataFrame does
    not allow.
    """

    @property
    def _constructor(self) -> "type[AttachedTable]":
        return AttachedTable  # also of copies, which pandas makes of attributes

    def __eq__(self, other: object) -> Any:
        """Compare with another such table as a whole, with anything else entry by entry."""
        return self.equals(other) if isinstance(other, AttachedTable) else super().__eq__(other)


@dataclass(frozen=True)
class PerturbationResult:
    """All that was computed in a call."""

    plan: PerturbationPlan
    slides: Sequence[PerturbedSlide]
    effects: Sequence[SlideEffects]
    """Of each slide."""
    refits: Sequence[dict[str, Floats]]
    """Of each refit: direction → raised genes × columns."""
    detected: Floats
    """(genes) fraction of the spots with a count, mean over slides."""
    seed: int
    modalities: "Sequence[Modality | None] | None" = None
    """The second modality of each slide."""
    vocabulary: "Vocabulary | None" = None

    @cached_property
    def by_direction(self) -> dict[str, Floats]:
        """Effects, means over slides, and over the model and its refits."""
        own = {
            "forward": mean([one.forward for one in self.effects]),
            "reversed": mean([one.reversed for one in self.effects]),
        }
        return {name: mean([one[name] for one in (own, *self.refits)]) for name in own}

    @cached_property
    def ready(self) -> list[Coexpression]:
        """Slides, ready for correlations."""
        return [Coexpression.of(one.prepared) for one in self.slides]

    @cached_property
    def correlations(self) -> dict[str, dict[str, Floats]]:
        """Evidence of the slides themselves in each direction."""
        return {
            one.name: correlate_slides(self.ready, one.raised, one.columns)
            for one in (self.plan.forward, self.plan.reversed)
        }

    @cached_property
    def crossed(self) -> CrossModality | None:
        """Evidence of the second modality, if there is one and a target is in it."""
        if self.modalities is None or self.vocabulary is None:
            return None
        return across(self.plan.forward, self.ready, self.modalities, self.vocabulary)

    def table(self, levels: int) -> pd.DataFrame:
        """Make a row per pair; the columns are explained at :func:`sagefm.tl.perturb`."""
        forward, of_slide = self.plan.forward, self.correlations["forward"]
        of_refits = {}
        if self.refits:
            refits = [one["forward"] for one in self.refits]
            of_refits = agreement(forward, self.by_direction["forward"], refits)
        doses = self._doses(levels, of_refits.get("effect"))
        table = self.plan.pairs.drop(columns=["sign"]).assign(**doses | of_refits)
        for name, values in significance(forward, self.by_direction["forward"]).items():
            table[name] = values
        itself = forward.source == forward.target
        table.loc[itself, "p"] = np.nan  # no pair
        table["q"] = benjamini_hochberg(table["p"])
        for name, evidence in (
            ("z_components", COMPONENTS), ("z_neighbors", NEIGHBORS), ("z_same_spot", SAME_SPOT),
        ):  # fmt: skip
            table[name] = forward.of_pairs(of_slide[evidence])
        of_slides = table[["z_components", "z_neighbors", "z_same_spot"]]
        table["learned_only"] = (table["p"] < YES) & (of_slides.abs().fillna(0) < NOTHING).all(
            axis=1
        )
        table["z_reversed"] = significance(self.plan.reversed, self.by_direction["reversed"])["z"]
        table["effect_shuffled"] = mean([one.shuffled for one in self.effects])
        known = ~np.isnan([one.response[:, -1] for one in self.effects])
        table["n_slides"] = known.sum(axis=0)
        table["n_spots"] = known.T @ [one.n_spots for one in self.effects]
        table = table[[name for name in (*LEAD, *_REST) if name in table]]
        return table if self.crossed is None else table.assign(**self.crossed.table())

    def _doses(self, levels: int, effect: Floats | None) -> dict[str, Any]:
        """Summarize the responses over the levels: columns of the table.

        `effect` takes the place of that of the model alone, if given.
        """
        response = mean([one.response for one in self.effects])
        span = mean([np.where(one.span > 0, one.span, np.nan) for one in self.effects])
        effect = response[:, -1] - response[:, 0] if effect is None else effect
        size = np.abs(response).max(axis=1)
        least = 1e-7 * np.maximum(size, 1e-3)  # what float32 leaves of nothing
        moves = np.abs(effect) > least
        way = np.where(moves, np.sign(effect), 0.0)
        steps = np.sign(np.diff(response, axis=1)) == way[:, None]
        dose = np.linspace(-0.5, 0.5, levels)
        with np.errstate(invalid="ignore", divide="ignore"):
            slope = response @ dose / (dose @ dose) / span
        expected = self.plan.pairs["sign"]
        as_expected = pd.array(np.sign(expected.fillna(0)) == way, "boolean")
        as_expected[(expected.isna() | (way == 0)).to_numpy()] = pd.NA
        return {
            "effect": effect, "slope": slope,
            "direction": np.select([way > 0, way < 0], ["up", "down"], "none"),
            "monotone": np.where(way == 0, np.nan, steps.mean(axis=1)),
            "sign": expected, "as_expected": as_expected,
        }  # fmt: skip

    def attributes(self) -> dict[str, pd.DataFrame]:
        """Make the tables about all pairs."""
        plan = self.plan
        tables = {
            "sets": sets_table(
                (plan.forward, plan.reversed), self.by_direction, self.correlations,
                self.detected, self.seed,
            )
        }  # fmt: skip
        if self.crossed is not None:
            of_second = self.crossed.sets(self.detected, self.seed)
            tables["sets"] = pd.concat([tables["sets"], of_second], ignore_index=True)
        if len(self.slides) > 1:
            per_slide = {
                one.name: significance(plan.forward, effects.forward)["z"]
                for one, effects in zip(self.slides, self.effects, strict=True)
            }
            tables["slides"] = pd.DataFrame(per_slide).corr(min_periods=LEAST_PAIRS)
        if self.refits:
            own = significance(plan.forward, self.by_direction["forward"])["z"]
            rows = []
            for number, refit in enumerate(self.refits, start=1):
                effects = refit["forward"]
                z = significance(plan.forward, effects)["z"]
                r = pd.Series(own).corr(pd.Series(z), min_periods=LEAST_PAIRS)
                row = set_row(plan.forward, effects, self.detected, self.seed)
                rows.append({"refit": number, "r": r, **row})
            tables["refits"] = pd.DataFrame(rows)
        return {name: AttachedTable(table) for name, table in tables.items()}


_REST = (
    "z_neighbors", "z_same_spot", "p", "p_coexpressed", "p_partners", "z_reversed", "effect_low",
    "effect_high", "slope", "direction", "monotone", "sign", "as_expected", "null_low",
    "null_median", "null_high", "effect_shuffled", "complex", "n_slides", "n_spots",
)  # fmt: skip
