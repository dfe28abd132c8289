"""Train the model that comes with the package, and write it as it is shipped.

    python scripts/default_model.py DATA -o src/sagefm/weights/default.safetensors [--seed S]

DATA is a folder with slides.csv (a row per slide; columns slide, patient), slides/NAME.h5ad
and genes/detected_genes_17537.txt (a gene per line). All slides are trained on
with the recipe `context`; nobody is held out to validate on, and the last epoch is kept: what the
recipe is worth is measured on models that some patients are left out of (benchmarks/folds.py). The
model is saved in half precision. Put the digest that is printed into src/sagefm/_fetch.py.
"""

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import torch
from anndata import AnnData

import sagefm
from sagefm._errors import InputError
from sagefm._fetch import sha256
from sagefm._files import require_writable
from sagefm.pp.pseudonyms import PUBLIC

GENES = "genes/detected_genes_17537.txt"
"""The vocabulary: the genes of the paper, and all others that two training patients show."""
SPOTS = 1200
"""Spots of a slide in an epoch at most: of larger slides as many are drawn anew in each."""


def main(words: Sequence[str] | None = None) -> None:
    """Train, save, and check the saved file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, metavar="DATA", help="folder of slides.csv and slides/")
    parser.add_argument("-o", "--out", type=Path, required=True, help="file to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--set", action="append", default=[], metavar="ENTRY=VALUE", help="of the recipe"
    )
    parser.add_argument(
        "--leave-out", nargs="+", default=[], metavar="PATIENT", help="not to be trained on"
    )
    given = parser.parse_args(words)
    require_writable(given.out)
    start = time.perf_counter()
    model = train(given.data, given.seed, given.set, given.leave_out)
    minutes = (time.perf_counter() - start) / 60
    model.save(given.out, half=True)
    check(given.out, model)
    size = given.out.stat().st_size / 1e6
    print(f"{given.out}: {model}")
    print(f"{minutes:.1f} minutes on {torch.get_num_threads()} threads, {size:.1f} MB")
    print(f"sha256 {sha256(given.out)}")


def train(
    data: Path, seed: int, changes: Sequence[str] = (), leave_out: Sequence[str] = ()
) -> sagefm.SageFM:
    """Train on the slides of all patients but some."""
    patients = training_patients(data / "slides.csv", leave_out)
    slides = {name: sagefm.read(data / "slides" / f"{name}.h5ad") for name in patients}
    recipe = sagefm.pretrain.Recipe.load(
        "context",
        [
            f"data.genes={data / GENES}",
            "data.validation=[]",
            f"data.weights={weights(slides)}",
            *changes,
            f"train.seed={seed}",
        ],
    )
    facts = slide_facts(data / "slides.csv")
    result = sagefm.pretrain.fit(slides, recipe, patients=patients, facts=facts)
    print(result.history.to_string(index=False, float_format="%.4g"))
    provenance = result.model.provenance
    if provenance["validation_spots"]:
        raise RuntimeError(f"held out to validate on: {', '.join(provenance['validation_spots'])}")
    provenance["patients"] = sorted(set(patients.values()))  # never to test the model on
    provenance[PUBLIC] = True
    return result.model


def weights(slides: Mapping[str, AnnData]) -> str:
    """Use large slides less, so that they do not outweigh the others: a table of TOML."""
    large = {name: SPOTS / slide.n_obs for name, slide in slides.items() if slide.n_obs > SPOTS}
    return "{" + ", ".join(f"{name} = {weight:.4f}" for name, weight in large.items()) + "}"


def training_patients(path: Path, leave_out: Sequence[str]) -> dict[str, str]:
    """Read the patient of each slide to train on."""
    try:
        table = pd.read_csv(path, dtype=str)
        known = set(table["patient"])
        chosen = table[~table["patient"].isin(leave_out)].set_index("slide")["patient"]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{path}: is no table with the columns slide, patient ({error})"
        ) from error
    if unknown := sorted(set(leave_out) - known):
        raise InputError(f"--leave-out: {path} has no patient {', '.join(unknown)}")
    if chosen.empty or chosen.isna().any() or chosen.index.has_duplicates:
        raise InputError(f"{path}: needs a row, with a patient, for each slide")
    return {str(slide): str(patient) for slide, patient in chosen.items()}


def slide_facts(path: Path) -> dict[str, dict[str, str]]:
    """Read what the table says of each slide: organ, technology, source, license and others."""
    table = pd.read_csv(path, dtype=str, keep_default_na=False).rename(
        columns={"licence": "license"}
    )
    return table.set_index("slide").to_dict("index")


def check(path: Path, model: sagefm.SageFM) -> None:
    """Load the saved model and compare it with the trained one."""
    loaded = sagefm.SageFM.load(path, device="cpu")
    if loaded.vocabulary != model.vocabulary or loaded.trained_on is None:
        raise RuntimeError(f"{path}: is not the model that was trained")
    for name, weights in model.network.state_dict().items():
        if not torch.equal(loaded.network.state_dict()[name], weights.cpu().half().float()):
            raise RuntimeError(f"{path}: {name} differs from the trained weights")


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        raise SystemExit(f"error: {error}") from error
