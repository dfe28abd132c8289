"""Fill the tables of the model card from what a model file records.

    python scripts/model_card.py MODEL docs/model_card.md

Replaces what stands between `<!-- from the file: NAME -->` and `<!-- end -->`: the summary of the
model, the kinds of slides that it was trained on, every slide with its source and license, and
what the licenses ask for. Everything else in the card is left as it is.
"""

import argparse
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import sagefm
from sagefm._errors import InputError
from sagefm._fetch import local_copy, sha256
from sagefm._files import replacing, require_writable
from sagefm.pp.slide_record import SlideRecord, kinds_of, records_of

Records = Mapping[str, SlideRecord]

LICENSES = (
    ("GPL", r"GPL", "copyleft: what is derived from it has to be under the GPL too"),
    (
        "none in the repository, CC BY 4.0 said elsewhere",
        r"^no .*CC.?BY",
        "attribution, if the license that is said elsewhere holds; check it at the source",
    ),
    (
        "none stated",
        r"^(no\b|none\b|$)",
        "nothing is allowed in writing; ask the authors before you pass on what is derived from it",
    ),
    ("Artistic", r"Artistic", "changed versions have to say so and be named differently"),
    ("CC BY", r"CC.?BY", "attribution: name the authors, the license, and what was changed"),
    ("MIT, Apache or BSD", r"MIT|Apache|BSD", "keep the notice of copyright and license"),
    ("other", r"", "read it"),
)
"""Name of a license, how it is recognized (the first that fits), and what it asks for."""
UNSETTLED = ("GPL", "none in the repository, CC BY 4.0 said elsewhere", "none stated")
COMMAND = "python scripts/default_model.py ../shared/data -o cautious.safetensors"
BLOCK = r"(<!-- from the file: {} -->\n).*?(<!-- end -->)"


def main(words: Sequence[str] | None = None) -> None:
    """Fill the tables of a card."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", metavar="MODEL", help="model file, or default")
    parser.add_argument("card", type=Path, metavar="CARD", help="markdown file with the places")
    given = parser.parse_args(words)
    require_writable(given.card)
    text = fill(given.card.read_text(encoding="utf-8"), blocks(given.model))
    with replacing(given.card) as beside:
        beside.write_text(text, encoding="utf-8")


def blocks(model: str) -> dict[str, str]:
    """Write the tables of a model: name of the place → text."""
    path = local_copy(model)
    loaded = sagefm.SageFM.load(path, device="cpu")
    records = records_of(loaded.provenance)
    if not records:
        raise InputError(f"{path}: does not record its training slides; train it again")
    return {
        "summary": summary(loaded, records, path),
        "kinds": kinds(records),
        "slides": slides(records),
        "licenses": licenses(records),
    }


def fill(card: str, texts: Mapping[str, str]) -> str:
    """Put texts into their places."""
    for name, text in texts.items():
        place = re.compile(BLOCK.format(name), re.DOTALL)
        if len(place.findall(card)) != 1:
            raise InputError(f"the card needs one place `<!-- from the file: {name} -->`")
        card = place.sub(lambda match, text=text: f"{match[1]}{text}\n{match[2]}", card)
    return card


def summary(model: sagefm.SageFM, records: Records, path: Path) -> str:
    """Describe the file in a table."""
    made, patients = model.provenance, {each.patient for each in records.values()}
    weights = sum(parameter.numel() for parameter in model.network.parameters())
    organs = {each.organ for each in records.values()}
    spots = sum(each.spots for each in records.values())
    return table(
        ["", ""],
        [
            ["network", f"`{model.config.network}`, {weights / 1e6:.1f} million weights, "
             f"embedding of {model.width} numbers per spot"],
            ["genes", f"{len(model.vocabulary):,}"],
            ["trained on", f"{len(records)} sections of {len(patients)} patients, {spots:,} spots, "
             f"{len(organs)} organs"],
            ["training", f"seed {made['recipe']['train']['seed']}, "
             f"{made['recipe']['train']['max_epochs']} epochs, sagefm {made['sagefm']}, "
             f"torch {made['torch']}"],
            ["file", f"`{path.name}`, {path.stat().st_size / 1e6:.0f} MB"],
            ["sha256", f"`{sha256(path)}`"],
        ],
    )  # fmt: skip


def kinds(records: Records) -> str:
    """Count the slides of each organ, technology and set of genes."""
    found = kinds_of(records)
    return table(
        ["organ", "technology", "genes measured", "sections", "patients", "spots",
         "counts per spot (medians)", "of the vocabulary"],
        [[f"{cell:,}" if isinstance(cell, int) else cell for cell in row]
         for row in found.astype(object).to_numpy().tolist()],
    )  # fmt: skip


def slides(records: Records) -> str:
    """List the slides, those of one patient, source and license in a row."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for name, each in records.items():
        what = ", ".join(filter(None, [each.organ, each.disease]))
        key = each.patient, what, each.source, each.accession, each.license
        groups.setdefault(key, []).append(name)
    rows = [
        [", ".join(names), patient, f"{sum(records[name].spots for name in names):,}", what,
         source, accession, license_ or "none stated"]
        for (patient, what, source, accession, license_), names in groups.items()
    ]  # fmt: skip
    return table(
        ["sections", "patient", "spots", "tissue", "source", "publication, accession",
         "license, as recorded"],
        rows,
    )  # fmt: skip


def licenses(records: Records) -> str:
    """Say which slides are under which license, and how to train without some of them."""
    rows, patients = [], dict[str, list[str]]()
    for name, _, asks in LICENSES:
        own = [each for each in records.values() if license_of(each.license) == name]
        if own:
            patients[name] = sorted({each.patient for each in own})
            spots = sum(each.spots for each in own)
            share = spots / sum(each.spots for each in records.values())
            rows.append([name, f"{len(own)}", f"{spots:,} ({share:.0%})",
                         ", ".join(patients[name]), asks])  # fmt: skip
    text = table(["license", "sections", "spots", "patients", "what it asks for"], rows)
    without = {
        "under the GPL": UNSETTLED[:1],
        "under the GPL or without a license in the repository": UNSETTLED,
    }
    for which, names in without.items():
        left = sorted({patient for name in names for patient in patients.get(name, [])})
        rest = {each.patient for each in records.values()} - set(left)
        text += f"\n\nWithout the slides {which}, {len(rest)} of "
        text += f"{len(rest) + len(left)} patients are left:\n\n"
        text += f"    {COMMAND} \\\n        --leave-out {' '.join(left)}"
    return text


def license_of(text: str) -> str:
    """Recognize a license in what is recorded of it."""
    return next(name for name, words, _ in LICENSES if re.search(words, text, re.IGNORECASE))


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Write a table in markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(
        f"| {' | '.join(str(cell).replace('|', '/') for cell in line)} |" for line in lines
    )


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        raise SystemExit(f"error: {error}") from error
