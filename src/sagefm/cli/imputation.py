"""The command ``sagefm impute``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sagefm._errors import InputError
from sagefm._fetch import DEFAULT
from sagefm._files import replacing, require_free, require_own, require_writable
from sagefm._many import cached_model
from sagefm._text import numbered
from sagefm.cli._jobs import say
from sagefm.cli._many import per_slide
from sagefm.cli._options import (
    Adapt,
    Device,
    Layer,
    ModelPath,
    Out,
    Overwrite,
    Region,
    Seed,
    SlideKey,
    SlidePath,
    listed,
    placed,
    require_result,
    require_suffix,
)

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

Mask = Literal["center", "neighborhood", "slide"]


@per_slide("out", ".h5ad", also={"table": ".csv", "plot": ""}, entry="imputed")
def impute(
    slide: SlidePath,
    out: Out,
    model: ModelPath = DEFAULT,
    genes: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,...",
            help="Genes to impute, measured or not; all that are not measured if not given.",
        ),
    ] = None,
    region: Region = None,
    counts_per_10k: Annotated[
        bool,
        typer.Option("--counts-per-10k", help="Predict counts per 10,000 instead of log1p counts."),
    ] = False,
    mask: Annotated[
        Mask, typer.Option(help="Where a measured gene is masked while it is predicted.")
    ] = "center",
    table: Annotated[
        Path | None, typer.Option(metavar="CSV", help="Also write how well each gene is predicted.")
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Also draw up to 6 genes: measured and imputed."),
    ] = None,
    adapt: Adapt = True,
    seed: Seed = 0,
    layer: Layer = None,
    slide_key: SlideKey = None,
    device: Device = None,
    overwrite: Overwrite = False,
) -> None:
    """Predict genes that are not measured, or denoise others: obsm["sagefm_imputed"] of an .h5ad.

    Counts are not changed. Measured genes are masked to check how well each is predicted.
    """
    import sagefm
    from sagefm.pp.writing import write_slide

    require_result(out)
    if table is not None:
        require_suffix(table, [".csv"])
        require_writable(table)
    require_free(table, overwrite=overwrite)
    if plot is not None:
        require_writable(plot / "imputed.png")
        require_free(plot / "imputed.png", overwrite=overwrite)
    chosen = listed(genes)
    loaded = cached_model(model, device)
    loaded_slide = sagefm.read(slide, layer=layer, slide_key=slide_key, backed=None)
    require_own(loaded_slide, slide, out, overwrite=overwrite)
    try:
        confidence = sagefm.tl.impute(
            loaded_slide, loaded, chosen, region=region, mask=mask, adapt=adapt, seed=seed,
            slide_key=slide_key, scale="counts_per_10k" if counts_per_10k else "log1p",
        )  # fmt: skip
    except InputError as error:
        raise InputError(placed(slide, error)) from error
    write_slide(loaded_slide, out)
    if table is not None:
        with replacing(table) as beside:
            confidence.to_csv(beside, float_format="%.6g")
    if plot is not None:
        _draw(loaded_slide, slide_key, plot)
    say(f"{out}: {numbered(len(confidence), 'gene')} imputed")
    _print_summary(confidence)


def _print_summary(table: "pd.DataFrame") -> None:
    """Print how well genes are predicted: the measured ones, and the others."""
    measured = table["measured"]
    for name, r in (
        ("measured, correlation while masked", table.loc[measured, "r_model"].dropna()),
        ("not measured, expected correlation", table.loc[~measured, "r_expected"].dropna()),
    ):
        if len(r):
            say(f"{name}: {r.median():.2f} (median), {r.min():.2f} to {r.max():.2f}")
    good = table.loc[table["r_expected"] >= 0.3, "p_good"]
    if len(good):
        say(
            f"expected correlation of at least 0.3: {numbered(len(good), 'gene')}, and about "
            f"{good.mean():.0%} of them have it"
        )
    if measured.any():
        n_ahead = int(table["beats_neighbors"].sum())
        say(
            f"better than the mean of the neighbors, beyond chance: {n_ahead:,} of "
            f"{numbered(int(measured.sum()), 'measured gene')}"
        )


def _draw(slide: "AnnData", slide_key: str | None, folder: Path) -> None:
    """Draw the genes that are predicted best, on the first section."""
    import sagefm
    from sagefm.pp.sections import section_codes

    first = section_codes(slide, slide_key) == 0
    sagefm.pl.imputed(slide[first], save=folder / "imputed.png")
