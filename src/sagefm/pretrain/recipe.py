"""Recipes: what to train and how, as TOML files with three tables."""

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
from sagefm._model_file import MAX_WIDTH, MAX_WIDTHS
from sagefm._validate import short
from sagefm.nn import NETWORKS, Published

_Fraction = Annotated[float, Field(gt=0, lt=1)]
_Count = Annotated[int, Field(gt=0, le=10**9)]
_Width = Annotated[int, Field(gt=0, le=MAX_WIDTH)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class NetworkTable(_Table):
    """``[network]``: the network and its widths."""

    name: str = "published"
    widths: list[_Width] = Field(
        default=list(Published.PUBLISHED_WIDTHS), min_length=2, max_length=MAX_WIDTHS
    )
    """Widths of the layers; of ``context``: gene embeddings, hidden layers, z."""

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in NETWORKS:
            raise ValueError(f"no network {name!r}; there is {', '.join(NETWORKS)}")
        return name

    @field_validator("widths")
    @classmethod
    def _enough(cls, widths: list[int], info: ValidationInfo) -> list[int]:
        name = info.data.get("name")
        if name and len(widths) < (least := NETWORKS[name].MIN_WIDTHS):
            raise ValueError(f"the network {name} needs at least {least}")
        return widths


class DataTable(_Table):
    """``[data]``: the genes, and the patients that are held out."""

    genes: _Count | str = 14558
    """A gene list file, or the number of most detected genes of the training slides to keep."""
    patient_key: str = "patient"
    """``obs`` column; a slide without it counts as a patient of its own."""
    validation: _Fraction | list[str] = 0.1
    """Fraction of the patients to hold out, or their names; with an empty list nobody is held out,
    and the last epoch is kept."""
    leave_out: list[str] = []
    """Patients to use neither for training nor for validation: those to test on."""
    folds: Annotated[int, Field(ge=2, le=1000)] = 5
    """Number of parts that whole datasets and patients are divided into."""
    fold: Annotated[int, Field(ge=0)] = 0
    """The part to use neither for training nor for validation; 0 for none."""
    patch: _Count = 16
    """Spots of a patch of tissue; a batch consists of patches from several slides."""
    weights: dict[str, Annotated[float, Field(gt=0)]] = {}
    """How often a spot is used in an epoch, by organ or slide; 1 where not given."""
    balance: Annotated[float, Field(ge=0, le=1)] = 0.0
    """0: all spots are used equally often; 1: all organs. The spots of an epoch are as many."""

    @field_validator("fold")
    @classmethod
    def _one_of_the_folds(cls, fold: int, info: ValidationInfo) -> int:
        if fold > (folds := info.data.get("folds", fold)):
            raise ValueError(f"there are {folds} folds (data.folds)")
        return fold


class TrainTable(_Table):
    """``[train]``: the task and the optimizer."""

    mask_fraction: _Fraction = 0.3
    missing_fraction: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Fraction of the batches in which some genes are missing from the whole slide, as if it had
    not measured them; for the network ``context``."""
    thin_fraction: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Fraction of the batches of which some of the counts are dropped, as on shallower slides; like
    the next for the network ``context``."""
    panel_fraction: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Fraction of the batches of which only some genes are measured, as by a panel."""
    batch_size: _Count = 64
    learning_rate: Annotated[float, Field(gt=0)] = 5e-5
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    schedule: Literal["plateau", "cosine"] = "plateau"
    """Of the learning rate: lower it when the validation loss stalls, or along half a cosine."""
    warmup_steps: Annotated[int, Field(ge=0, le=10**9)] = 0
    """Steps over which the learning rate rises."""
    clip_norm: Annotated[float, Field(ge=0)] = 0.0
    """Maximal norm of the gradient; 0 for no clipping."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of matrix products; auto is bfloat16 on CUDA devices that have it, float32 elsewhere."""
    max_epochs: _Count = 200
    patience: _Count = 10
    """Epochs without a better validation loss (training loss, where nobody is held out) before
    training ends."""
    save_minutes: Annotated[float, Field(ge=0)] = 5.0
    """Minutes between saves within an epoch, for ``--resume``; every epoch is saved at its end."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0


class Recipe(_Table):
    """A recipe; the defaults are those of the paper."""

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
            A recipe of the package (``published``, ``small``, ``context``, ``atlas``), or the path
            of a file.
        overrides
            Entries to replace, such as ``train.max_epochs=3``. Values that are not TOML are text.

        Raises
        ------
        InputError
            No such recipe, not TOML, an entry that does not exist, or a value that it cannot have.
        """
        try:
            content = tomllib.loads(_text(name))
        except InputError:
            raise
        except OSError as error:
            raise InputError(f"{name}: cannot be read ({error.strerror})") from error
        except (ValueError, RecursionError) as error:
            raise InputError(f"{name}: is not a TOML file ({short(error)})") from error
        for override in overrides:
            _apply(content, override)
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            raise InputError(f"{name}: {_explain(error.errors()[0])}") from error


def shipped() -> list[str]:
    """Names of the recipes in the package."""
    return sorted(Path(r.name).stem for r in (files("sagefm.pretrain") / "recipes").iterdir())


def _text(name: str | Path) -> str:
    if str(name) in shipped():
        return (files("sagefm.pretrain") / "recipes" / f"{name}.toml").read_text(encoding="utf-8")
    if not Path(name).is_file():
        raise InputError(
            f"{name}: no such recipe; give {' or '.join(shipped())}, or the path of a TOML file"
        )
    return Path(name).read_text(encoding="utf-8-sig")


def _apply(content: dict[str, Any], override: str) -> None:
    entry, equals, value = override.partition("=")
    table, dot, key = entry.strip().partition(".")
    if not (equals and dot):
        raise InputError(f"--set {override}: write it as table.entry=value, train.max_epochs=3")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value.strip()
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"--set {short(override)}: is no value of TOML ({short(error)})"
        ) from error
    entries = content.setdefault(table, {})
    if not isinstance(entries, dict):
        raise InputError(f"--set {override}: {table} is no table in the recipe; mend the recipe")
    entries[key] = parsed


def _explain(error: Any) -> str:
    """Describe in one line which entry is wrong and what it can be."""
    table, *entry = [str(part) for part in error["loc"][:2]]
    place = short(".".join([table, *entry])).strip("'")
    if error["type"] != "extra_forbidden":
        return f"{place}: {error['msg'].removeprefix('Value error, ')}"
    if not entry:
        return f"{place}: no such table; there is {', '.join(Recipe.model_fields)}"
    there = type(getattr(Recipe(), table)).model_fields
    return f"{place}: no such entry; there is {', '.join(f'{table}.{e}' for e in there)}"
