"""The whole story on simulated slides: train, embed, find domains, compare with what is simpler."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

import sagefm
from sagefm._files import replacing, write_slide
from sagefm._keys import EMBEDDING
from sagefm.evaluate import domain_recovery, pca
from sagefm.pretrain import Recipe

if TYPE_CHECKING:
    from anndata import AnnData

_TRAINING_SLIDES = 5
_SPOTS = 1200
_CHANGES = ("train.max_epochs=15", "data.genes=1000", 'data.validation=["patient 5"]')


def run(folder: str | Path = "demo", *, seed: int = 0, tell: Callable[[str], None] = print) -> None:
    """Simulate patients, pretrain on all but one, find the domains of the one left.

    Leaves in `folder`: the slides and the unseen one with its results (.h5ad), the model and its
    loss curve, `domains.png` (the truth beside what each method finds) and `scores.csv`.

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
    tell(f"1. simulating {_TRAINING_SLIDES + 1} slides of {_SPOTS:,} spots in {folder}/")
    slides = {f"patient_{i}": _patient(i, seed) for i in range(1, _TRAINING_SLIDES + 2)}
    for name, slide in slides.items():
        write_slide(slide, folder / f"{name}.h5ad")
    unseen_name, unseen = slides.popitem()

    tell("2. pretraining the small recipe on five patients (the fifth for validation)")
    recipe = Recipe.load("small", [*_CHANGES, f"train.seed={seed}"])
    result = sagefm.pretrain.fit(slides, recipe, progress=False)
    result.model.save(folder / "model.safetensors")
    sagefm.pl.training(result.history, save=folder / "training.png")
    losses = result.model.provenance
    tell(
        f"   {result.model}; validation loss {losses['validation_loss']:.4f}, neighbor mean "
        f"{losses['neighbor_mean_loss']:.4f}, gene mean {losses['gene_mean_loss']:.4f}"
    )

    tell(f"3. embedding {unseen_name}, whom the model has never seen, and finding its domains")
    sagefm.tl.embed(unseen, result.model)
    n_domains = unseen.obs["domain"].nunique()
    sagefm.tl.domains(unseen, n_domains, seed=seed)
    embeddings = {
        "sagefm": unseen.obsm[EMBEDDING],
        "sagefm, random weights": sagefm.SageFM.new(
            result.model.vocabulary, result.model.config, seed=seed
        ).embed(unseen),
        "PCA": pca(unseen, seed=seed),
        "PCA of 7-spot means": pca(unseen, smooth=7, seed=seed),
        "PCA of 15-spot means": pca(unseen, smooth=15, seed=seed),
    }
    scores = domain_recovery(unseen, "domain", embeddings)
    _draw(unseen, embeddings, n_domains, seed, folder / "domains.png")
    write_slide(unseen, folder / f"{unseen_name}.h5ad")
    with replacing(folder / "scores.csv") as beside:
        scores.to_csv(beside, index=False)

    tell(f"4. agreement with the true domains: mean (sd) over {scores['seed'].nunique()} seeds")
    tell(f"   {'':<24}{'ARI':>15}{'NMI':>15}")
    for method, rows in scores.groupby("embedding", sort=False):
        cells = [f"{rows[m].mean():.3f} ({rows[m].std():.3f})" for m in ("ari", "nmi")]
        tell(f"   {method!s:<24}{cells[0]:>15}{cells[1]:>15}")
    tell(f"Look at {folder / 'domains.png'} and {folder / 'training.png'}.")


def _patient(number: int, seed: int) -> "AnnData":
    return sagefm.pp.simulate(
        _SPOTS,
        seed=1000 * seed + number,
        biology_seed=seed,
        patient=f"patient {number}",
        slide=f"patient_{number}",
    )


def _draw(
    slide: "AnnData", embeddings: dict[str, object], n_domains: int, seed: int, save: Path
) -> None:
    """Draw the truth beside the domains of the three methods that matter."""
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
