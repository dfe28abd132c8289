"""Run the main functions on a simulated slide, without training."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

import sagefm
from sagefm import __version__
from sagefm._fetch import DEFAULT
from sagefm._files import replacing, require_free, require_writable, write_slide
from sagefm._hdf5 import recorded
from sagefm._keys import DOMAIN, EMBEDDING, PROVENANCE, TRUTH
from sagefm.evaluate import domain_recovery, pca
from sagefm.evaluate.protocols.domain_recovery import agreement
from sagefm.tl.perturbation import top_pairs

if TYPE_CHECKING:
    from anndata import AnnData

Progress = Callable[[str], None]

_SPOTS = 1200
_IMPUTED = 100
"""Number of genes to impute."""


def run(
    folder: str | Path = "demo",
    *,
    seed: int = 0,
    overwrite: bool = False,
    progress: Progress = print,
) -> None:
    """Simulate a slide, embed it, find domains, impute genes and perturb ligands.

    Writes to `folder`: the slide with its results (``slide.h5ad``), ``domains.png`` (the true
    domains and those of each method), ``imputed.png``, ``perturbed.png`` and ``response.png``, and
    the tables ``domains.csv``, ``imputed.csv`` and ``perturbed.csv``.

    Parameters
    ----------
    folder
        Folder of the results; files of an earlier run are replaced.
    seed
        Seed of all random numbers.
    overwrite
        Whether to write into a folder that holds other things.
    progress
        Called with each line of the report.

    Raises
    ------
    InputError
        The folder cannot be written to, or holds other things.
    """
    folder = Path(folder)
    written = folder / "slide.h5ad"
    require_writable(written)
    if recorded(written, "demo") is None:
        require_free(folder, overwrite=overwrite)
    progress(f"1. simulating a slide of {_SPOTS:,} spots in {folder}/, and loading the model")
    slide = sagefm.pp.simulate(_SPOTS, seed=seed, biology_seed=seed)
    slide.uns[PROVENANCE] = {"demo": __version__}
    write_slide(slide, written)  # from now on the folder is of a demo
    model = sagefm.SageFM.load(DEFAULT)
    progress(f"   {model}")
    _find_domains(slide, model, folder, seed, progress)
    _impute(slide, model, folder, seed, progress)
    _perturb(slide, model, folder, seed, progress)
    write_slide(slide, written)
    progress(
        f"The plots are in {folder}/. Coexpression in the simulated tissue is random, so that what "
        "the model learned from human tissue is of little use there. Try your own slide: "
        "sagefm check SLIDE -m default"
    )


def _find_domains(
    slide: "AnnData", model: sagefm.SageFM, folder: Path, seed: int, progress: Progress
) -> None:
    progress("2. embedding the spots and finding domains")
    sagefm.tl.embed(slide, model)
    n_domains = slide.obs["domain"].nunique()
    sagefm.tl.domains(slide, n_domains, seed=seed)
    embeddings = {
        "sagefm": slide.obsm[EMBEDDING],
        "PCA": pca(slide, seed=seed),
        "PCA of 15-spot means": pca(slide, smooth=15, seed=seed),
    }
    scores = domain_recovery(slide, "domain", embeddings)
    consensus = agreement(slide.obs["domain"], slide.obs[DOMAIN].to_numpy(dtype=str))
    progress(f"   {'consensus of views':<24}adjusted Rand index {consensus['ari']:.2f}")
    _write(scores, folder / "domains.csv")
    _draw(slide, embeddings, n_domains, seed, folder / "domains.png")
    for method, rows in scores.groupby("embedding", sort=False):
        progress(
            f"   {method!s:<24}adjusted Rand index {rows['ari'].mean():.2f} (sd over "
            f"{len(rows)} seeds {rows['ari'].std():.2f})"
        )


def _impute(
    slide: "AnnData", model: sagefm.SageFM, folder: Path, seed: int, progress: Progress
) -> None:
    """Impute the genes that differ most between domains."""
    progress(f"3. imputing {_IMPUTED} marker genes, each masked while it is predicted")
    profiles = slide.uns[TRUTH]["domain_profiles"]
    spread = pd.Series(profiles.max(axis=0) - profiles.min(axis=0), index=slide.var_names)
    in_model = spread[spread.index.isin(model.vocabulary.symbols)]
    table = sagefm.tl.impute(slide, model, in_model.nlargest(_IMPUTED).index.tolist(), adapt=False)
    sagefm.pl.imputed(slide, save=folder / "imputed.png")
    _write(table.reset_index(), folder / "imputed.csv")
    r = table[["r_model", "r_neighbor_mean", "r_depth"]].median()
    progress(
        f"   median correlation with the masked counts {r['r_model']:.2f}; neighbor mean "
        f"{r['r_neighbor_mean']:.2f}, library size {r['r_depth']:.2f}"
    )


def _perturb(
    slide: "AnnData", model: sagefm.SageFM, folder: Path, seed: int, progress: Progress
) -> None:
    """Raise ligands in the neighbors of every spot, and draw the strongest response."""
    couplings = slide.uns[TRUTH]["couplings"]
    pairs = couplings[couplings[["ligand", "target"]].isin(model.vocabulary.symbols).all(axis=1)]
    progress(f"4. raising {len(pairs)} ligands in the neighbors, and predicting their targets")
    table = sagefm.tl.perturb(slide, model, pairs[["ligand", "target"]], seed=seed)
    sagefm.pl.perturbation(table, save=folder / "perturbed.png")
    _write(table, folder / "perturbed.csv")
    first = top_pairs(table, 1).iloc[0]
    highest = {str(first["ligand"]): sagefm.tl.Change("quantile", 1.0)}
    sagefm.tl.respond(slide, model, highest, [str(first["target"])])
    title = f"{first['target']}, {first['ligand']} at its highest in the neighbors"
    sagefm.pl.response(
        slide, str(first["target"]), title=title, q=first["q"], save=folder / "response.png"
    )
    coupled = (pairs["strength"] > 0).to_numpy()
    passed = (table["q"] < 0.05).to_numpy()
    progress(
        f"   significant (q < 0.05): {passed[coupled].sum()} of {coupled.sum()} pairs that are "
        f"coupled in this simulation, {passed[~coupled].sum()} of {(~coupled).sum()} that are not"
    )


def _write(table: pd.DataFrame, path: Path) -> None:
    with replacing(path) as beside:
        table.to_csv(beside, index=False, float_format="%.6g")


def _draw(
    slide: "AnnData", embeddings: dict[str, object], n_domains: int, seed: int, save: Path
) -> None:
    """Draw the true domains and those of each method."""
    drawn = slide.copy()
    panels = {"domain": "truth", DOMAIN: "consensus of views"}
    for name, embedding in embeddings.items():
        drawn.obsm[name] = embedding
        sagefm.tl.domains(
            drawn, n_domains, method="gmm", use_rep=name, seed=seed, key_added=f"{name} domains"
        )
        panels[f"{name} domains"] = f"{name} embedding" if name == "sagefm" else name
    for key in panels:
        drawn.obs[key] = _renamed(drawn.obs[key], drawn.obs["domain"])
    sagefm.pl.spatial(drawn, list(panels), title=list(panels.values()), save=save)


def _renamed(domains: "pd.Series[str]", truth: "pd.Series[str]") -> "pd.Series[str]":
    """Rename domains after the true domains so that as many spots as possible agree."""
    from scipy.optimize import linear_sum_assignment

    shared = pd.crosstab(domains, truth)
    rows, columns = linear_sum_assignment(-shared.to_numpy())
    names = dict(zip(shared.index[rows], shared.columns[columns], strict=True))
    return pd.Series(
        pd.Categorical(domains.astype(str).map(names), truth.cat.categories), index=domains.index
    )
