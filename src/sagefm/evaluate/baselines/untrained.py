"""Networks with random weights: what an architecture does that has learned nothing."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sagefm.model import SageFM

RANDOM_WEIGHTS = "random weights"


@dataclass(frozen=True)
class Untrained:
    """The network of one or several models, which differ in nothing but weights.

    Attributes
    ----------
    name
        Its name in tables.
    models
        Names of the models.
    """

    name: str
    models: tuple[str, ...]
    example: "SageFM"

    def draw(self, seed: int) -> "SageFM":
        """Draw random weights."""
        from sagefm.model import SageFM

        blank = SageFM.new(self.example.vocabulary, self.example.config, seed=seed)
        return blank.to(str(self.example.device))


def untrained(models: "Mapping[str, SageFM]") -> list[Untrained]:
    """List the networks of models: one for all models with the same genes and sizes."""
    groups: dict[object, list[str]] = {}
    for name, model in models.items():
        key = model.vocabulary.symbols, str(model.config)
        groups.setdefault(key, []).append(name)
    alone = len(groups) == 1
    return [
        Untrained(
            RANDOM_WEIGHTS if alone else f"{RANDOM_WEIGHTS} ({names[0]})",
            tuple(names),
            models[names[0]],
        )
        for names in groups.values()
    ]


def untrained_models(models: "Mapping[str, SageFM]") -> dict[str, str]:
    """Map each model to the name of its network with random weights."""
    return {name: group.name for group in untrained(models) for name in group.models}
