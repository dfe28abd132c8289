"""Model files, recipes and tables: damaged bytes, and values of other types."""

import json
import struct
from pathlib import Path

from .damage import VALUES, Rng, as_json, damage_file, odd_text, odd_tree, pick
from .kit import Kit, copied
from .trials import Trial


def damaged_model(rng: Rng, kit: Kit, folder: Path) -> Trial:
    model = copied(
        kit[f"{pick(rng, ('published', 'context'))}.safetensors"], folder / "m.safetensors"
    )
    return _use(rng, kit, folder, model, damage_file(rng, model))


def odd_header(rng: Rng, kit: Kit, folder: Path) -> Trial:
    """Change one thing in the JSON of a model file, or in that which describes its arrays."""
    source = kit[f"{pick(rng, ('published', 'context'))}.safetensors"]
    model = folder / "m.safetensors"
    data = source.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    tree = json.loads(data[8 : 8 + size])
    if rng.random() < 0.8:  # models of earlier versions have no checksum
        tree["__metadata__"].pop("sagefm.checksum", None)
    if rng.random() < 0.75:
        described = odd_tree(rng, json.loads(tree["__metadata__"]["sagefm"]))
        tree["__metadata__"]["sagefm"] = json.dumps(described, default=str)
    else:
        tree = odd_tree(rng, tree)
    header = as_json(tree)
    model.write_bytes(struct.pack("<Q", len(header)) + header + data[8 + size :])
    return _use(rng, kit, folder, model, "header")


def _use(rng: Rng, kit: Kit, folder: Path, model: Path, how: str) -> Trial:
    slide, out = kit["slides/plain.h5ad"], folder / "out"
    words: tuple[object, ...] = ("embed", slide, "-m", model, "-o", out / "o.h5ad")
    if rng.random() < 0.3:
        words = ("info", model)
    return Trial(words, (model, slide), out, how=how)


def odd_recipe(rng: Rng, kit: Kit, folder: Path) -> Trial:
    recipe, out = folder / "recipe.toml", folder / "out"
    lines = kit["recipe.toml"].read_text().splitlines()
    at = pick(rng, [i for i, line in enumerate(lines) if "=" in line])
    key = lines[at].partition(" = ")[0]
    kind = rng.random()
    if kind < 0.6:
        lines[at] = f"{key} = {_toml(pick(rng, VALUES))}"
    elif kind < 0.7:
        del lines[at]
    elif kind < 0.8:
        lines.insert(
            at, pick(rng, ("x = 1", "[train]", "= 3", "\x00", '"" = 1', "[data.x]", "a.b = 2"))
        )
    recipe.write_text("\n".join(lines))
    if kind > 0.8:
        damage_file(rng, recipe)
    words = [
        "pretrain",
        kit["s0.h5ad"],
        kit["s1.h5ad"],
        "--recipe",
        recipe,
        "-o",
        out / "m.safetensors",
    ]
    if rng.random() < 0.3:
        words += [
            "--set",
            f"{pick(rng, ('train.max_epochs', 'x', 'data', 'train.x.y', ''))}={pick(rng, VALUES)}",
        ]
    if any("\x00" in str(word) for word in words):
        words = words[:-2]
    # A run that diverged keeps its logs.
    return Trial(tuple(words), (recipe, kit["s0.h5ad"]), out, how=f"recipe {key}", keeps=True)


def _toml(value: object) -> str:
    if value is None:
        return ""
    return json.dumps(value).replace("NaN", "nan").replace("Infinity", "inf")


def odd_table(rng: Rng, kit: Kit, folder: Path) -> Trial:
    """Pairs, gene sets, gene lists and tables of slides."""
    name = pick(rng, ("pairs.csv", "sets.gmt", "genes.txt", "table.csv"))
    table, out = copied(kit[name], folder / name), folder / "out"
    if rng.random() < 0.4:
        how = damage_file(rng, table)
    else:
        separator = "\t" if name == "sets.gmt" else ","
        changed = odd_text(rng, table.read_text(), separator)
        table.write_text(changed.encode(errors="replace").decode())
        how = f"odd {name}"
    slide, model = kit["slides/plain.h5ad"], kit["published.safetensors"]
    perturb = ("perturb", slide, "-m", model, "-o", out / "o.csv")
    words = {
        "pairs.csv": (*perturb, "--pairs", table),
        "sets.gmt": (*perturb, "--ligand", kit.symbols[0], "--sets", table),
        "genes.txt": ("corpus", "build", kit["s0.h5ad"], "--genes", table, "-o", out / "c"),
        "table.csv": ("corpus", "build", kit["s0.h5ad"], "--table", table, "-o", out / "c"),
    }[name]
    return Trial(words, (table, slide), out, how=how)
