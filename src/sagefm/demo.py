"""What the model of the package does with a slide, on a simulated one: nothing is trained."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

import sagefm
from sagefm._fetch import DEFAULT
from sagefm._files import replacing, require_writable, write_slide
from sagefm._keys import EMBEDDING, TRUTH
from sagefm.evaluate import domain_recovery, pca
from sagefm.tl.perturbation import top_pairs

if TYPE_CHECKING:
    from anndata import AnnData

Tell = Callable[[str], None]

_SPOTS = 1200
_IMPUTED = 100
"""Genes that are predicted anew."""


def run(folder: str | Path = "demo", *, seed: int = 0, tell: Tell = print) -> None:
    """Simulate a slide; embed it, find its domains, predict hidden genes, perturb a ligand.

    Leaves in `folder`: the slide with its results (``slide.h5ad``), ``domains.png`` (the truth
    beside what each method finds), ``imputed.png``, ``perturbed.png`` and ``response.png``, and the
    tables ``domains.csv``, ``imputed.csv`` and ``perturbed.csv``.

    Parameters
    ----------
    folder
        Where everything goes; files of an earlier run are replaced.
    seed
        Source of all chance.
    tell
        Called with each line of the report.

    Raises
    ------
    InputError
        The folder cannot be written to.
    """
    folder = Path(folder)
    require_writable(folder / "slide.h5ad")
    tell(f"1. simulating a slide of {_SPOTS:,} spots in {folder}/, and loading the model")
    slide = sagefm.pp.simulate(_SPOTS, seed=seed, biology_seed=seed)
    model = sagefm.SageFM.load(DEFAULT)
    tell(f"   {model}")
    _find_domains(slide, model, folder, seed, tell)
    _impute(slide, model, folder, seed, tell)
    _perturb(slide, model, folder, seed, tell)
    write_slide(slide, folder / "slide.h5ad")
    tell(
        f"Look at the pictures in {folder}/. The tissue is simulated: which genes go together in "
        "it was drawn by chance, and what the model knows of human tissue says little there. Try "
        "your own slide: sagefm check SLIDE -m default"
    )


def _find_domains(
    slide: "AnnData", model: sagefm.SageFM, folder: Path, seed: int, tell: Tell
) -> None:
    tell("2. embedding the spots and finding domains; the true ones are known")
    sagefm.tl.embed(slide, model)
    n_domains = slide.obs["domain"].nunique()
    sagefm.tl.domains(slide, n_domains, seed=seed)
    embeddings = {
        "sagefm": slide.obsm[EMBEDDING],
        "PCA": pca(slide, seed=seed),
        "PCA of 15-spot means": pca(slide, smooth=15, seed=seed),
    }
    scores = domain_recovery(slide, "domain", embeddings)
    _write(scores, folder / "domains.csv")
    _draw(slide, embeddings, n_domains, seed, folder / "domains.png")
    for method, rows in scores.groupby("embedding", sort=False):
        tell(
            f"   {method!s:<24}adjusted Rand index {rows['ari'].mean():.2f} (sd over "
            f"{len(rows)} seeds {rows['ari'].std():.2f})"
        )


def _impute(slide: "AnnData", model: sagefm.SageFM, folder: Path, seed: int, tell: Tell) -> None:
    """Predict the genes anew that differ the most between domains."""
    tell(f"3. predicting {_IMPUTED} marker genes, each hidden while it is predicted")
    profiles = slide.uns[TRUTH]["domain_profiles"]
    # What a spot of the usual depth shows more of in one domain than in another.
    spread = pd.Series(profiles.max(axis=0) - profiles.min(axis=0), index=slide.var_names)
    known = spread[spread.index.isin(model.vocabulary.symbols)]
    table = sagefm.tl.impute(slide, model, known.nlargest(_IMPUTED).index.tolist(), seed=seed)
    sagefm.pl.imputed(slide, save=folder / "imputed.png")
    _write(table.reset_index(), folder / "imputed.csv")
    r = table[["r_model", "r_neighbor_mean", "r_depth"]].median()
    tell(
        f"   median correlation with what was hidden {r['r_model']:.2f}; neighbor mean "
        f"{r['r_neighbor_mean']:.2f}, depth alone {r['r_depth']:.2f}"
    )


def _perturb(slide: "AnnData", model: sagefm.SageFM, folder: Path, seed: int, tell: Tell) -> None:
    """Raise ligands around every spot, and draw where the one answers that stands out the most."""
    known = slide.uns[TRUTH]["couplings"]
    pairs = known[known[["ligand", "target"]].isin(model.vocabulary.symbols).all(axis=1)]
    tell(f"4. raising {len(pairs)} ligands around every spot, and reading their targets in it")
    table = sagefm.tl.perturb(slide, model, pairs[["ligand", "target"]], seed=seed)
    sagefm.pl.perturbation(table, save=folder / "perturbed.png")
    _write(table, folder / "perturbed.csv")
    first = top_pairs(table, 1).iloc[0]
    highest = {str(first["ligand"]): sagefm.tl.Change("quantile", 1.0)}
    sagefm.tl.respond(slide, model, highest, [str(first["target"])])
    title = f"{first['target']}, {first['ligand']} at its highest around"
    sagefm.pl.response(slide, str(first["target"]), title=title, save=folder / "response.png")
    coupled = (pairs["strength"] > 0).to_numpy()
    passed = (table["q"] < 0.05).to_numpy()
    tell(
        f"   beyond chance (q < 0.05): {passed[coupled].sum()} of {coupled.sum()} pairs that are "
        f"coupled in this simulation, {passed[~coupled].sum()} of {(~coupled).sum()} that are not"
    )


def _write(table: pd.DataFrame, path: Path) -> None:
    with replacing(path) as beside:
        table.to_csv(beside, index=False, float_format="%.6g")


def _draw(
    slide: "AnnData", embeddings: dict[str, object], n_domains: int, seed: int, save: Path
) -> None:
    """Draw the truth beside the domains of each method."""
    shown = slide.copy()
    panels = {"domain": "truth", "sagefm_domain": "sagefm"}
    for name in ("PCA", "PCA of 15-spot means"):
        shown.obsm[name] = embeddings[name]
        sagefm.tl.domains(shown, n_domains, use_rep=name, seed=seed, key_added=name)
        panels[name] = name
    for key in panels:
        shown.obs[key] = _renamed(shown.obs[key], shown.obs["domain"])
    sagefm.pl.spatial(shown, list(panels), title=list(panels.values()), save=save)


def _renamed(found: "pd.Series[str]", truth: "pd.Series[str]") -> "pd.Series[str]":
    """Give each domain the name of the true domain that it shares the most spots with."""
    from scipy.optimize import linear_sum_assignment

    shared = pd.crosstab(found, truth)
    rows, columns = linear_sum_assignment(-shared.to_numpy())
    names = dict(zip(shared.index[rows], shared.columns[columns], strict=True))
    return pd.Series(
        pd.Categorical(found.astype(str).map(names), truth.cat.categories), index=found.index
    )
