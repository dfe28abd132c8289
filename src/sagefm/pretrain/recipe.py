"""What to train and how: a TOML file with three tables, checked before anything runs."""

import tomllib
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from sagefm._errors import InputError
from sagefm.nn import NETWORKS, Published

_Share = Annotated[float, Field(gt=0, lt=1)]
_Count = Annotated[int, Field(gt=0)]
_CONTEXT_WIDTHS = 3


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class NetworkTable(_Table):
    """``[network]``: which network, and how wide."""

    name: str = "published"
    widths: list[_Count] = Field(default=list(Published.PUBLISHED_WIDTHS), min_length=2)
    """Of the layers; of ``context`` those of the gene embeddings, the hidden layers, and z."""

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in NETWORKS:
            raise ValueError(f"no network {name!r}; there is {', '.join(NETWORKS)}")
        return name

    @field_validator("widths")
    @classmethod
    def _enough(cls, widths: list[int], info: ValidationInfo) -> list[int]:
        if info.data.get("name") == "context" and len(widths) < _CONTEXT_WIDTHS:
            raise ValueError(f"the network context needs at least {_CONTEXT_WIDTHS}")
        return widths


class DataTable(_Table):
    """``[data]``: which genes, and who is held out."""

    genes: _Count | str = 14558
    """A gene list file, or how many of the most detected genes of the training slides."""
    patient_key: str = "patient"
    """``obs`` column; a slide without it counts as a patient of its own."""
    validation: _Share | list[str] = 0.1
    """Share of the patients to hold out, or their names; an empty list holds nobody out, and the
    last epoch is kept."""
    leave_out: list[str] = []
    """Patients that are neither trained nor validated on: those to test on."""
    patch: _Count = 16
    """Spots of a patch of tissue; a batch is made of patches from several slides."""
    weights: dict[str, Annotated[float, Field(gt=0)]] = {}
    """How often a spot comes in an epoch, by organ or slide; once where nothing is said."""


class TrainTable(_Table):
    """``[train]``: the task and the optimizer."""

    mask_fraction: _Share = 0.3
    missing_fraction: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the batches in which some genes are missing from the whole slide, as if it did not
    measure them; for the network ``context``."""
    batch_size: _Count = 64
    learning_rate: Annotated[float, Field(gt=0)] = 5e-5
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    schedule: Literal["plateau", "cosine"] = "plateau"
    """Of the learning rate: lower it when the validation loss stalls, or along half a wave."""
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Steps over which the learning rate rises."""
    clip_norm: Annotated[float, Field(ge=0)] = 0.0
    """Longest gradient, longer ones are scaled down; 0 leaves them."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of matrix products; auto is bfloat16 on CUDA devices that have it, float32 elsewhere."""
    max_epochs: _Count = 200
    patience: _Count = 10
    """Epochs without a better validation loss (training loss, where nobody is held out) before
    training ends."""
    save_minutes: Annotated[float, Field(ge=0)] = 5.0
    """A run is saved that often, and after every epoch, for ``--resume``."""
    seed: Annotated[int, Field(ge=0)] = 0


class Recipe(_Table):
    """A whole recipe; its defaults are those of the paper."""

    network: NetworkTable = NetworkTable()
    data: DataTable = DataTable()
    train: TrainTable = TrainTable()

    @field_validator("train")
    @classmethod
    def _of_the_network(cls, train: TrainTable, info: ValidationInfo) -> TrainTable:
        network = info.data.get("network")
        if network and network.name != "context" and train.missing_fraction:
            raise ValueError(
                f"missing_fraction is for the network context; {network.name} needs it 0"
            )
        return train

    @classmethod
    def load(cls, name: str | Path = "published", overrides: Sequence[str] = ()) -> Self:
        """Read a recipe.

        Parameters
        ----------
        name
            A shipped recipe (``published``, ``small``, ``context``) or the path of a TOML file.
        overrides
            Entries to replace, such as ``train.max_epochs=3``; values are written as in TOML, and
            what is not TOML is taken as text.

        Raises
        ------
        InputError
            No such recipe, not TOML, an entry that does not exist, or a value that it cannot have.
        """
        try:
            content = tomllib.loads(_text(name))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InputError(f"{name}: is not a TOML file ({error})") from error
        for override in overrides:
            _apply(content, override)
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            raise InputError(f"{name}: {_explain(error.errors()[0])}") from error


def shipped() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(Path(r.name).stem for r in (files("sagefm.pretrain") / "recipes").iterdir())


def _text(name: str | Path) -> str:
    if str(name) in shipped():
        return (files("sagefm.pretrain") / "recipes" / f"{name}.toml").read_text(encoding="utf-8")
    if not Path(name).is_file():
        raise InputError(
            f"{name}: no such recipe; give {' or '.join(shipped())}, or the path of a TOML file"
        )
    return Path(name).read_text(encoding="utf-8")


def _apply(content: dict[str, Any], override: str) -> None:
    entry, equals, value = override.partition("=")
    table, dot, key = entry.strip().partition(".")
    if not (equals and dot):
        raise InputError(f"--set {override}: write it as table.entry=value, train.max_epochs=3")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value.strip()
    content.setdefault(table, {})[key] = parsed


def _explain(error: Any) -> str:
    """Say in one line which entry is wrong and what it can be."""
    table, *entry = [str(part) for part in error["loc"][:2]]
    place = ".".join([table, *entry])
    if error["type"] != "extra_forbidden":
        return f"{place}: {error['msg']}"
    if not entry:
        return f"{place}: no such table; there is {', '.join(Recipe.model_fields)}"
    there = type(getattr(Recipe(), table)).model_fields
    return f"{place}: no such entry; there is {', '.join(f'{table}.{e}' for e in there)}"
