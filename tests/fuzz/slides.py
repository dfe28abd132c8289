"""Slides in files: damaged bytes, and structures that h5py and zarr can hold but no slide has."""

from pathlib import Path

import h5py
import numpy as np

from .damage import VALUES, Rng, damage_file, damage_one_of, pick
from .kit import Kit, copied, load
from .oracle import Plain, differs, embedding, has_ties, read_plainly
from .trials import Trial


def damaged_bytes(rng: Rng, kit: Kit, folder: Path) -> Trial:
    path = copied(pick(rng, kit.slides), folder / "slide.h5ad")
    return trial_of(rng, kit, folder, path, damage_file(rng, path))


def damaged_zarr(rng: Rng, kit: Kit, folder: Path) -> Trial:
    path = copied(kit["slide.zarr"], folder / "slide.zarr")
    how = damage_one_of(rng, path)
    return Trial(_words(rng, kit, folder, path)[0], (path,), folder / "out", how=how)


def odd_structure(rng: Rng, kit: Kit, folder: Path) -> Trial:
    path = copied(pick(rng, kit.slides), folder / "slide.h5ad")
    how = [_change(rng, path) for _ in range(int(rng.integers(1, 3)))]
    return trial_of(rng, kit, folder, path, "; ".join(how))


def trial_of(rng: Rng, kit: Kit, folder: Path, path: Path, how: str, must: str = "either") -> Trial:
    """Give a slide to one of the verbs; compare its embedding with that of the oracle."""
    words, compare = _words(rng, kit, folder, path)
    out = folder / "out"
    model = kit["published.safetensors"]

    def verify() -> str | None:
        return compared(path, out / "o.h5ad", model, kit.symbols) if compare else None

    return Trial(words, (path,), out, verify, must, how)


def _words(rng: Rng, kit: Kit, folder: Path, path: Path) -> tuple[tuple[object, ...], bool]:
    out, genes = folder / "out", ",".join(kit.symbols[:3])
    published, network = kit["published.safetensors"], pick(rng, ("published", "context"))
    model = kit[f"{network}.safetensors"]
    kind = rng.random()
    if kind < 0.6:
        return ("embed", path, "-m", published, "-o", out / "o.h5ad"), True
    if kind < 0.75:
        return ("check", path), False
    if kind < 0.85:
        return ("embed", path, "-m", model, "-o", out / "o.h5ad"), False
    if kind < 0.93:
        return ("impute", path, "-m", model, "--genes", genes, "-o", out / "o.h5ad"), False
    return ("corpus", "build", path, "-o", out / "corpus"), False


def compared(source: Path, result: Path, model: Path, symbols: list[str]) -> str | None:
    """Compare the embedding in a file with that which the oracle computes from its source.

    None if the counts are not those of ``X``, or if the source can only be read by rules that the
    oracle does not have (renamed genes, other columns).
    """
    slide = load(result)
    told = slide.uns["sagefm"]["read"]
    if str(told["counts"]) != "X" or len(told["told"]):
        return None
    try:
        plain = read_plainly(source)
    except Exception:  # noqa: BLE001  whatever it is
        return None
    if plain.spots != list(slide.obs_names) or not _named_alike(plain, symbols):
        return None
    if has_ties(plain.places):
        return None
    return differs(slide.obsm["X_sagefm"], embedding(plain, model, symbols))


def _named_alike(plain: Plain, symbols: list[str]) -> bool:
    return not set(symbols) - set(plain.genes)


def _change(rng: Rng, path: Path) -> str:
    """Change one node or attribute of an HDF5 file."""
    with h5py.File(path, "r+") as file:
        nodes: list[str] = []
        file.visit(nodes.append)
        name = pick(rng, nodes)
        if name not in file:
            return "nothing"
        node, kind = file[name], rng.random()
        if kind < 0.15 and len(node.attrs):
            key = pick(rng, sorted(node.attrs))
            return _set_attribute(rng, node, key)
        if isinstance(node, h5py.Group) or kind < 0.25:
            return _move(rng, file, name)
        return _set_values(rng, file, name, node[()])


def _set_attribute(rng: Rng, node: h5py.HLObject, key: str) -> str:
    value = pick(
        rng, (*VALUES[:20], np.arange(3), np.array([5, 5]), "csr_matrix", "array", "0.9.9")
    )
    del node.attrs[key]
    if value is None or (isinstance(value, str) and "\x00" in value):
        return f"{node.name}@{key} removed"
    node.attrs[key] = min(max(value, -(2**63)), 2**63 - 1) if type(value) is int else value
    return f"{node.name}@{key} = {str(value)[:20]!r}"


def _move(rng: Rng, file: h5py.File, name: str) -> str:
    kind = pick(rng, ("gone", "soft", "external", "itself", "group", "moved"))
    if kind == "moved":
        file.move(name, f"{name}_moved")
        return f"{name} moved"
    del file[name]
    links = {
        "soft": h5py.SoftLink("/nowhere"), "external": h5py.ExternalLink("other.h5ad", "/X"),
        "itself": h5py.SoftLink(f"/{name}"),
    }  # fmt: skip
    if kind in links:
        file[name] = links[kind]
    if kind == "group":
        file.create_group(name)
    return f"{name} {kind}"


def _set_values(rng: Rng, file: h5py.File, name: str, values: np.ndarray) -> str:
    """Replace a dataset by other values, another type or another shape."""
    attributes = dict(file[name].attrs)
    values = np.asarray(values)
    numbers = values.dtype.kind in "biuf"
    kind = pick(rng, ("value", "value", "value", "type", "shape") if numbers else ("type", "shape"))
    if kind == "value" and values.size:
        values = values.astype(pick(rng, (values.dtype, np.float64, np.int64)))
        flat = values.reshape(-1)
        odd = pick(
            rng, (-1, 0, 1, 2**30, 2**62, 1e200, -1e200, 1e-200, np.nan, np.inf, 0.5, 200, 90)
        )
        many = max(1, int(pick(rng, (0, 0, 0.1, 1)) * flat.size))
        with np.errstate(invalid="ignore", over="ignore"):
            flat[rng.choice(flat.size, many, replace=False)] = np.asarray(odd).astype(values.dtype)
        how = f"{many} × {odd}"
    elif kind == "type":
        to = pick(
            rng, (np.float16, np.float32, np.int8, np.uint64, np.int16, bool, "S5", np.complex64)
        )
        try:
            with np.errstate(all="ignore"):
                values = values.astype(to)
        except (ValueError, TypeError, UnicodeEncodeError):
            values = np.zeros(values.shape, dtype=to)
        how = np.dtype(to).name
    else:
        flat = values.reshape(-1)
        values = pick(rng, (flat[:-1], values[..., None], np.repeat(flat, 2), flat[:1], flat[:0]))
        how = f"shape {np.shape(values)}"
    del file[name]
    file[name] = values
    for key, value in attributes.items():
        file[name].attrs[key] = value
    return f"{name}: {how}"
