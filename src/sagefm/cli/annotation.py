"""The verb annotate."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sagefm._errors import InputError
from sagefm._fetch import DEFAULT
from sagefm._files import replacing, require_free, require_own, require_writable
from sagefm._many import cached_model
from sagefm.cli._jobs import say
from sagefm.cli._many import per_slide
from sagefm.cli._options import (
    Device,
    Layer,
    ModelPath,
    Out,
    Overwrite,
    Seed,
    SlideKey,
    SlidePath,
    by_name,
    placed,
    require_result,
    require_suffix,
)

if TYPE_CHECKING:
    from anndata import AnnData

    from sagefm.tl import Annotator

Method = Literal["linear", "mlp"]
_TRAIN_FIRST = (
    "is for one slide: train on it (--known SLIDES... --save FILE), and give --annotator FILE for "
    "several"
)
Features = Literal["combined", "expression", "embedding"]


@per_slide(
    "out", ".h5ad", also={"plot": ""}, entry="annotate",
    alone=dict.fromkeys(("known", "save", "table"), _TRAIN_FIRST),
)  # fmt: skip
def annotate(
    slide: SlidePath,
    out: Out,
    model: ModelPath = DEFAULT,
    known: Annotated[
        list[str] | None,
        typer.Option(metavar="SLIDES...", help="Labeled slides to train on."),
    ] = None,
    annotator: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Instead of --known: a saved annotator.")
    ] = None,
    key: Annotated[str, typer.Option(help="obs column with the labels.")] = "label",
    method: Annotated[Method, typer.Option(help="Classifier.")] = "linear",
    features: Annotated[Features, typer.Option(help="Features of a spot.")] = "combined",
    error_rate: Annotated[
        float | None,
        typer.Option(
            help="Wrong labels that held-out patients may have (0.05); the rest is unknown."
        ),
    ] = None,
    save: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also save the annotator (.safetensors).")
    ] = None,
    table: Annotated[
        Path | None, typer.Option(metavar="CSV", help="Also write scores of held-out patients.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also draw the slide and the calibration.")
    ] = None,
    seed: Seed = 0,
    layer: Layer = None,
    slide_key: SlideKey = None,
    device: Device = None,
    overwrite: Overwrite = False,
) -> None:
    """Annotate a slide with the labels of other slides: .h5ad with obs["sagefm_label"].

    Patients are held out to measure how often labels are wrong, and to calibrate probabilities.
    """
    import sagefm
    from sagefm.pp.writing import write_slide

    if bool(known) == (annotator is not None):
        raise InputError(
            "give labeled slides (--known SLIDES...) or a saved one (--annotator FILE)"
        )
    require_result(out)
    for path, suffix in ((save, ".safetensors"), (table, ".csv")):
        if path is not None:
            require_suffix(path, [suffix])
            require_writable(path)
    require_free(save, table, overwrite=overwrite)
    if plot is not None:
        require_writable(plot / "annotation.png")
        require_free(plot / "annotation.png", plot / "held_out.png", overwrite=overwrite)
    loaded = cached_model(model, device)
    target = sagefm.read(slide, layer=layer, slide_key=slide_key, backed=None)
    require_own(target, slide, out, overwrite=overwrite)
    if annotator is not None:
        fitted = sagefm.tl.Annotator.load(annotator, loaded)
    else:
        fitted = sagefm.tl.learn_annotator(
            {name: sagefm.read(path, layer=layer, slide_key=slide_key)
             for name, path in by_name(known or []).items()},
            loaded, key, method=method, features=features, seed=seed, slide_key=slide_key,
        )  # fmt: skip
    try:
        sagefm.tl.annotate(fitted, target, loaded, error_rate=error_rate, slide_key=slide_key)
    except InputError as error:
        raise InputError(placed(slide, error)) from error
    write_slide(target, out)
    if save is not None:
        fitted.save(save)
    if table is not None:
        with replacing(table) as beside:
            fitted.score().to_csv(beside, float_format="%.6g")
    if plot is not None:
        _draw(target, fitted, slide_key, plot)
    _print_summary(target, fitted, error_rate, out)


def _draw(slide: "AnnData", annotator: "Annotator", slide_key: str | None, folder: Path) -> None:
    """Draw the first section, and the predictions for held-out spots."""
    import sagefm
    from sagefm.pp.sections import section_codes

    first = section_codes(slide, slide_key) == 0
    sagefm.pl.annotation(slide[first], save=folder / "annotation.png")
    sagefm.pl.annotator(annotator, save=folder / "held_out.png")


def _print_summary(
    slide: "AnnData", annotator: "Annotator", error_rate: float | None, out: Path
) -> None:
    """Print the number of spots of each label, the held-out scores, and the agreement."""
    from sagefm._keys import LABEL
    from sagefm._text import numbered
    from sagefm.pp.labels import labels_of
    from sagefm.tl.annotation import UNKNOWN

    sizes = slide.obs[LABEL].value_counts()
    say(f"{out}: " + ", ".join(f"{name} {n:,}" for name, n in sizes[sizes > 0].items()))
    score = annotator.score()
    mean = score.mean()
    say(
        f"held out, {numbered(len(score), annotator.held_out.unit)}: "
        f"accuracy {mean['accuracy']:.2f} (most frequent class {mean['majority']:.2f}), "
        f"balanced {mean['balanced_accuracy']:.2f} "
        f"(any constant prediction {1 / len(annotator.classes):.2f})"
    )
    if error_rate is not None:
        _print_realized(annotator, error_rate)
    key = annotator.settings.key
    if key in slide.obs:
        truth, labels = labels_of(slide, key), slide.obs[LABEL].astype(str)
        both = truth.notna() & (labels != UNKNOWN)
        n_equal = int((labels[both] == truth[both]).sum())
        new = sorted(set(truth.dropna()) - set(annotator.classes))
        not_trained = f"; the annotator has no class {', '.join(new)}" if new else ""
        say(
            f"obs[{key!r}] agrees in {n_equal:,} of {int(both.sum()):,} spots that have both"
            f"{not_trained}"
        )


def _print_realized(annotator: "Annotator", error_rate: float) -> None:
    """Print what the tolerated error came to on each held-out group."""
    from sagefm._text import numbered

    held_out = annotator.held_out
    rows = [
        f"{name} {row['wrong']:.0%} of {numbered(int(row['n_labeled']), 'spot')} wrong"
        if row["n_labeled"]
        else f"{name} no spot labeled"
        for name, row in held_out.realized(held_out.tolerated(error_rate)).iterrows()
    ]
    unit = held_out.unit
    say(
        f"tolerated error {error_rate:g}; at the confidence that the other {unit}s need: "
        + (", ".join(rows) or f"not known, with one {unit}")
    )
