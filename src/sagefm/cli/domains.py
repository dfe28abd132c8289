"""The verb domains."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sagefm._errors import InputError
from sagefm._extras import require
from sagefm._files import require_free, require_own, require_writable
from sagefm.cli._options import (
    CountTables,
    Layer,
    Out,
    Overwrite,
    Protein,
    Seed,
    SlideKey,
    SlidePaths,
    With,
    add_tables,
    placed,
    require_suffix,
    require_used,
    results_of,
    tables_of,
)

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

Method = Literal[
    "consensus", "gmm", "kmeans", "leiden",
    "pca7", "pca15", "pca25", "niche", "similar", "rings", "residuals",
]  # fmt: skip
_PICTURES = (".png", ".pdf", ".svg")


def domains(
    slides: SlidePaths,
    out: Out,
    n_domains: Annotated[
        int | None,
        typer.Option("--n-domains", "-n", min=1, help="Number of domains; chosen if not given."),
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Also draw them (.png, .pdf, .svg).")] = None,
    curve: Annotated[
        Path | None, typer.Option(help="Also draw how stable each number of domains is.")
    ] = None,
    method: Annotated[Method, typer.Option(help="Clustering method.")] = "consensus",
    use_rep: Annotated[
        str | None,
        typer.Option(help="obsm key of an embedding, for gmm, kmeans and leiden (X_sagefm)."),
    ] = None,
    with_: With = None,
    protein: Protein = None,
    counts: CountTables = None,
    smooth: Annotated[
        int, typer.Option(min=0, max=100, help="Rounds of majority votes among neighbors.")
    ] = 0,
    batch_key: Annotated[
        str | None, typer.Option(help="obs column with the batch; each section if not given.")
    ] = None,
    seed: Seed = 0,
    layer: Layer = None,
    slide_key: SlideKey = None,
    overwrite: Overwrite = False,
) -> None:
    """Find tissue domains, the same for all slides: writes .h5ad with obs["sagefm_domain"].

    For several slides OUT is a folder, with fractions.csv beside the slides.
    """
    import sagefm
    from sagefm.pp.writing import write_slide

    require_used(tables_of(protein, counts), with_)
    targets = results_of(slides, out)
    for picture in (plot, curve):
        if picture is not None:
            require_suffix(picture, _PICTURES)
            require_writable(picture)
    require_free(plot, curve, overwrite=overwrite)
    if curve is not None and (method != "consensus" or n_domains is not None):
        raise InputError(
            f"{curve}: the curve is of the consensus that chooses the number; leave out -n"
        )
    if method == "leiden":
        require("igraph", "leiden", "Leiden clustering")
    table = out / "fractions.csv" if len(targets) > 1 else None
    require_free(table, overwrite=overwrite)
    loaded: dict[str, AnnData] = {}
    for name, (path, target) in targets.items():
        loaded[name] = sagefm.read(path, layer=layer, slide_key=slide_key, backed=None)
        require_own(loaded[name], path, target, overwrite=overwrite)
    add_tables(loaded, protein, counts)
    try:
        fractions = sagefm.tl.domains(
            loaded, n_domains, method=method, use_rep=use_rep, with_=with_, smooth=smooth,
            seed=seed, batch_key=batch_key, slide_key=slide_key,
        )  # fmt: skip
    except InputError as error:
        raise InputError(placed(slides[0], error) if len(slides) == 1 else str(error)) from error
    if plot is not None:
        sagefm.pl.spatial(loaded, save=plot)
    if curve is not None:
        sagefm.pl.stability(next(iter(loaded.values())), save=curve)
    for name, (_, target) in targets.items():
        write_slide(loaded[name], target)
    _report(fractions, out, table)
    if with_ is not None:
        _report_modalities(next(iter(loaded.values())))


def _report(fractions: "pd.DataFrame", out: Path, table: Path | None) -> None:
    """Write the fractions of several slides, and print the sizes of the domains."""
    from sagefm._files import replacing

    if table is not None:
        with replacing(table) as beside:
            fractions.to_csv(beside, float_format="%.6g")
    sizes = fractions.drop(columns="n_spots").mul(fractions["n_spots"], axis=0).sum()
    typer.echo(f"{out}: " + ", ".join(f"domain {d}: {n:,.0f} spots" for d, n in sizes.items()))


def _report_modalities(slide: "AnnData") -> None:
    """Print how the domains of each modality compare with those of both."""
    from sagefm._keys import PROVENANCE

    found = slide.uns[PROVENANCE]["domains"].get("modalities")
    for row in [] if found is None else found.to_dict("records"):
        typer.echo(
            f"domains of {row['modality']}: stability {row['stability']:.2f}, agreement with those "
            f"of both {row['agreement']:.2f}"
        )
