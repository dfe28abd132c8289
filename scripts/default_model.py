"""Train the model that comes with the package, and write it as it is shipped.

    python scripts/default_model.py DATA -o src/sagefm/weights/default.safetensors [--seed S]

DATA is a folder with slides.csv (a row per slide; columns slide, split, patient), slides/NAME.h5ad
and sagefm_published_genes.txt (a gene per line). All slides whose split is `train` are trained on
with the recipe `context`; nobody is held out to validate on, and the last epoch is kept. The model
is saved in half precision. Put the digest that is printed into src/sagefm/_fetch.py.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch

import sagefm
from sagefm._errors import InputError
from sagefm._fetch import sha256
from sagefm._files import require_writable

SPLIT = "train"
GENES = "sagefm_published_genes.txt"
"""The vocabulary: that of the paper."""


def main(words: Sequence[str] | None = None) -> None:
    """Train, save, and check the saved file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, metavar="DATA", help="folder of slides.csv and slides/")
    parser.add_argument("-o", "--out", type=Path, required=True, help="file to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--set", action="append", default=[], metavar="ENTRY=VALUE", help="of the recipe"
    )
    given = parser.parse_args(words)
    require_writable(given.out)
    start = time.perf_counter()
    model = train(given.data, given.seed, given.set)
    minutes = (time.perf_counter() - start) / 60
    model.save(given.out, half=True)
    check(given.out, model)
    size = given.out.stat().st_size / 1e6
    print(f"{given.out}: {model}")
    print(f"{minutes:.1f} minutes on {torch.get_num_threads()} threads, {size:.1f} MB")
    print(f"sha256 {sha256(given.out)}")


def train(data: Path, seed: int, changes: Sequence[str]) -> sagefm.SageFM:
    """Train on all training slides."""
    patients = training_patients(data / "slides.csv")
    slides = {name: sagefm.read(data / "slides" / f"{name}.h5ad") for name in patients}
    recipe = sagefm.pretrain.Recipe.load(
        "context",
        [f"data.genes={data / GENES}", "data.validation=[]", *changes, f"train.seed={seed}"],
    )
    facts = slide_facts(data / "slides.csv")
    result = sagefm.pretrain.fit(slides, recipe, patients=patients, facts=facts)
    print(result.history.to_string(index=False, float_format="%.4g"))
    provenance = result.model.provenance
    if provenance["validation_spots"]:
        raise RuntimeError(f"held out to validate on: {', '.join(provenance['validation_spots'])}")
    provenance["patients"] = sorted(set(patients.values()))  # never to test the model on
    return result.model


def training_patients(path: Path) -> dict[str, str]:
    """Read the patient of each training slide."""
    try:
        table = pd.read_csv(path, dtype=str)
        chosen = table[table["split"] == SPLIT].set_index("slide")["patient"]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{path}: is no table with the columns slide, split, patient ({error})"
        ) from error
    if chosen.empty or chosen.isna().any() or chosen.index.has_duplicates:
        raise InputError(
            f"{path}: needs a row, with a patient, for each slide of the split {SPLIT}"
        )
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
