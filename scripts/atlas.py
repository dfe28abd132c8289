"""Train on all human Visium slides of HEST-1k, or on all but a fold of them, and test on it.

    python scripts/atlas.py HEST -o OUT --workers 8             # the model: OUT/atlas.safetensors
    python scripts/atlas.py HEST -o OUT --workers 8 --fold 1    # its test, for each of five folds

HEST is a download as it comes: HEST_v1_1_0.csv and st/ID.h5ad. The first call builds OUT/corpus and
writes two tables: OUT/left_out.csv, the slides that cannot be used and why (delete it for the next
call to try them again, or to add slides), and OUT/folds.csv, the fold of each slide. No dataset and
no patient is in two folds. With --fold K the model is OUT/fold-K.safetensors, and OUT/fold-K gets
its scores on the slides of the fold. The same command continues what was killed. It trains on a
CUDA device if there is one; the log is stderr, OUT/NAME.run/metrics.csv and TensorBoard.

Folds are independent of each other: in Slurm, after one call without --fold,

    sbatch --array=1-5 --gres=gpu:1 --cpus-per-task=8 --mem=16G --requeue --wrap \
        'python scripts/atlas.py HEST -o OUT --workers 8 --fold $SLURM_ARRAY_TASK_ID'
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

import sagefm
from sagefm._errors import InputError, logger
from sagefm.evaluate import Cohort, scorecard
from sagefm.pp.pseudonyms import without_names
from sagefm.pretrain import Corpus, Recipe
from sagefm.pretrain.corpus import build
from sagefm.pretrain.folds import folds_of
from sagefm.pretrain.hest import hest_slides


def main(words: Sequence[str] | None = None) -> None:
    """Build, train and test, each unless it is done."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("hest", type=Path, metavar="HEST", help="folder of the download")
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder of all results")
    parser.add_argument("--fold", type=int, default=0, metavar="K", help="leave out and test on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", help="cpu, cuda, …; CUDA, if available, when not given")
    parser.add_argument("--workers", type=int, default=1, help="processes that read slides")
    parser.add_argument(
        "--set", action="append", default=[], metavar="ENTRY=VALUE", help="of the recipe"
    )
    given = parser.parse_args(words)
    logger.setLevel("INFO")
    seed = f"train.seed={given.seed}"
    recipe = Recipe.load("atlas", [*given.set, seed, f"data.fold={given.fold}"])
    slides, facts = hest_slides(given.hest)
    corpus = built(slides, facts, given.out, given.workers)
    folds = folds_of(corpus.table, recipe.data.folds)
    columns = ["dataset", "patient", "organ", "disease", "license", "spots", "depth", "genes"]
    corpus.table[columns].assign(fold=folds).to_csv(given.out / "folds.csv")
    path = given.out / (f"fold-{given.fold}" if given.fold else "atlas")
    model = trained(corpus, recipe, path, given.device, given.workers)
    if given.fold:
        tested = [name for name in folds.index[folds == given.fold] if name in slides]
        score({name: slides[name] for name in tested}, corpus.table, model, path, given.seed)


def built(slides: Mapping[str, Path], facts: pd.DataFrame, out: Path, workers: int) -> Corpus:
    """Build the corpus, and list what is left out."""
    done = out / "left_out.csv"
    if not done.exists():
        found = build(slides, out / "corpus", facts=facts, workers=workers, progress=print)
        print(f"{out / 'corpus'}: {found}")
        pd.DataFrame(found.failed.items(), columns=["slide", "why"]).to_csv(done, index=False)
    return Corpus.open(out / "corpus")


def trained(
    corpus: Corpus, recipe: Recipe, path: Path, device: str | None, workers: int
) -> sagefm.SageFM:
    """Train the model, from where it was if it was killed."""
    model, run = path.with_suffix(".safetensors"), path.with_suffix(".run")
    if not model.exists():
        result = sagefm.pretrain.fit(
            corpus, recipe, folder=run, resume=(run / "last.safetensors").exists(),
            device=device, workers=workers, progress=sys.stderr.isatty(),
        )  # fmt: skip
        result.history.to_csv(path.with_suffix(".csv"), index=False)
        result.model.save(model)
        print(f"{model}: {result.model}")
    made = sagefm.SageFM.load(model, device=device)
    if without_names(made.provenance["recipe"]) != without_names(recipe.model_dump()):
        raise InputError(f"{model}: was made with other settings; give another folder by --out")
    return made


def score(
    slides: Mapping[str, Path], table: pd.DataFrame, model: sagefm.SageFM, out: Path, seed: int
) -> None:
    """Compare the model with baselines on masked genes of the slides of its fold."""
    cohort = Cohort(slides, facts=table[["patient"]].loc[list(slides)])
    found = scorecard(
        cohort, {out.name: model}, out, protocols=["recovery"], seed=seed, progress=logger.info
    )
    for name, summary in found["recovery"].summary.items():
        print(f"\n{name}, {len(cohort)} slides\n{summary.to_string(index=False)}")


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        raise SystemExit(f"error: {error}") from error
