"""The verb annotate."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sagefm._errors import InputError
from sagefm._fetch import DEFAULT
from sagefm._files import replacing, require_nothing_lost, require_writable, write_slide
from sagefm.cli._options import (
    Device,
    Layer,
    ModelPath,
    Out,
    Seed,
    SlideKey,
    SlidePath,
    by_name,
    placed,
    require_suffix,
)

if TYPE_CHECKING:
    from anndata import AnnData

    from sagefm.tl import Annotator

Method = Literal["linear", "mlp"]
Features = Literal["expression", "embedding"]


def annotate(
    slide: SlidePath,
    out: Out,
    model: ModelPath = DEFAULT,
    known: Annotated[
        list[str] | None,
        typer.Option(metavar="SLIDES...", help="Slides with labels to learn from."),
    ] = None,
    annotator: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Instead: what --save wrote.")
    ] = None,
    key: Annotated[str, typer.Option(help="obs column with the labels.")] = "label",
    method: Annotated[Method, typer.Option(help="Classifier.")] = "linear",
    features: Annotated[Features, typer.Option(help="What a head reads.")] = "expression",
    balanced: Annotated[
        bool, typer.Option(help="Let rare classes count as much as common ones.")
    ] = True,
    smooth: Annotated[bool, typer.Option("--smooth", help="Average over 7 spots.")] = False,
    error_rate: Annotated[
        float | None,
        typer.Option(help="Wrong labels that you can bear (0.05); the rest is unknown."),
    ] = None,
    save: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Keep the annotator (.safetensors).")
    ] = None,
    table: Annotated[
        Path | None, typer.Option(metavar="CSV", help="Also write how held-out patients did.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also draw the slide, and held-out patients.")
    ] = None,
    patient_key: Annotated[str, typer.Option(help="obs column with the patient.")] = "patient",
    seed: Seed = 0,
    layer: Layer = None,
    slide_key: SlideKey = None,
    device: Device = None,
) -> None:
    """Label the spots of a slide by labeled slides: .h5ad with obs["sagefm_label"].

    Patients are held out to say how often labels are wrong, and to calibrate probabilities.
    """
    import sagefm

    if bool(known) == (annotator is not None):
        raise InputError("say what is known: --known SLIDES..., or --annotator FILE")
    for path, suffix in ((out, ".h5ad"), (save, ".safetensors"), (table, ".csv")):
        if path is not None:
            require_suffix(path, [suffix])
            require_writable(path)
    if plot is not None:
        require_writable(plot / "annotation.png")
    loaded = sagefm.SageFM.load(model, device=device)
    found = sagefm.read(slide, layer=layer, slide_key=slide_key)
    require_nothing_lost(found, slide, out)
    if annotator is not None:
        learned = sagefm.tl.Annotator.load(annotator, loaded)
    else:
        learned = sagefm.tl.learn_annotator(
            {name: sagefm.read(path, layer=layer, slide_key=slide_key)
             for name, path in by_name(known or []).items()},
            loaded, key, method=method, features=features, balanced=balanced, smooth=smooth,
            patient_key=patient_key, seed=seed, slide_key=slide_key,
        )  # fmt: skip
    try:
        sagefm.tl.annotate(learned, found, loaded, error_rate=error_rate, slide_key=slide_key)
    except InputError as error:
        raise InputError(placed(slide, error)) from error
    write_slide(found, out)
    if save is not None:
        learned.save(save)
    if table is not None:
        with replacing(table) as beside:
            learned.score().to_csv(beside, float_format="%.6g")
    if plot is not None:
        _draw(found, learned, slide_key, plot)
    _tell(found, learned, out)


def _draw(slide: "AnnData", learned: "Annotator", slide_key: str | None, folder: Path) -> None:
    """Draw the first of several slides, and what was held out."""
    import sagefm
    from sagefm.pp.counts import section_codes

    first = section_codes(slide, slide_key) == 0
    sagefm.pl.annotation(slide[first], save=folder / "annotation.png")
    sagefm.pl.annotator(learned, save=folder / "held_out.png")


def _tell(slide: "AnnData", learned: "Annotator", out: Path) -> None:
    import numpy as np

    from sagefm._keys import LABEL
    from sagefm._text import numbered
    from sagefm.pp.labels import labels_of
    from sagefm.tl.annotation import UNKNOWN

    sizes = slide.obs[LABEL].value_counts()
    said = ", ".join(f"{name} {n:,}" for name, n in sizes[sizes > 0].items())
    typer.echo(f"{out}: {said}")
    score = learned.score()
    mean = score.mean()
    typer.echo(
        f"held out, {numbered(len(score), learned.held_out.unit)}: accuracy {mean['accuracy']:.2f} "
        f"(most frequent class {mean['majority']:.2f}), balanced {mean['balanced_accuracy']:.2f} "
        f"(any constant answer {1 / len(learned.classes):.2f})"
    )
    if learned.settings.key in slide.obs:
        truth = labels_of(slide, learned.settings.key).to_numpy()
        given = slide.obs[LABEL].astype(str).to_numpy()
        known = np.array([label is not None for label in truth])
        both = known & (given != UNKNOWN)
        right = int((given[both] == truth[both]).sum())
        new = sorted({str(name) for name in truth[known]} - set(learned.classes))
        unlearned = f"; it has classes that were not learned: {', '.join(new)}" if new else ""
        typer.echo(
            f"obs[{learned.settings.key!r}] agrees in {right:,} of {int(both.sum()):,} spots "
            f"that have both{unlearned}"
        )
