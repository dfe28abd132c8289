"""Objects in memory: counts of every type and container, odd annotations, odd places."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

import sagefm

from .damage import VALUES, Rng, pick
from .kit import Kit, load
from .oracle import Plain, differs, embedding
from .trials import Trial

Change = Callable[[Rng, AnnData], str]
"""Changes a slide in place; returns ``"same"`` if its embedding must be that of the sound one,
``"refuse"`` if it must be refused, ``"either"``."""


def container(rng: Rng, slide: AnnData) -> str:
    """The same counts in another container or type."""
    x, dense = slide.X, slide.X.toarray()
    slide.X = pick(rng, (
        sparse.csc_matrix(x), sparse.csr_array(x), sparse.csc_array(x), dense,
        dense.astype(np.int64), dense.astype(np.uint16), dense.astype(np.float16),
        np.asfortranarray(dense), x.astype(np.int32), x.astype(np.float64), x.astype(np.int64),
        x.astype(np.uint32), _unsorted(x), _with_zeros(x), _split(x),
    ))  # fmt: skip
    return "same"


def _unsorted(x: sparse.csr_matrix) -> sparse.csr_matrix:
    data, indices = x.data.copy(), x.indices.copy()
    for start, stop in zip(x.indptr[:-1], x.indptr[1:], strict=True):
        data[start:stop], indices[start:stop] = data[start:stop][::-1], indices[start:stop][::-1]
    return sparse.csr_matrix((data, indices, x.indptr), shape=x.shape)


def _with_zeros(x: sparse.csr_matrix) -> sparse.csr_matrix:
    """Also store a zero."""
    row, column = (int(at[0]) for at in np.nonzero(x.toarray() == 0))
    coo = x.tocoo()
    return sparse.coo_matrix(
        (np.r_[coo.data, 0], (np.r_[coo.row, row], np.r_[coo.col, column])), shape=x.shape
    ).tocsr()


def _split(x: sparse.csr_matrix) -> sparse.csr_matrix:
    """Store every count as two entries that add up to it."""
    ones = np.minimum(x.data, 1)
    data = np.column_stack([ones, x.data - ones]).ravel()
    return sparse.csr_matrix((data, np.repeat(x.indices, 2), x.indptr * 2), shape=x.shape)


def wrong_counts(rng: Rng, slide: AnnData) -> str:
    """A value that no count has."""
    x = slide.X.astype(np.float64)
    x.data[int(rng.integers(x.nnz))] = pick(
        rng, (-1, 0.5, np.nan, np.inf, -np.inf, 1e39, 1e300, 2.4)
    )
    slide.X = x if rng.random() < 0.5 else x.toarray()
    return "refuse"


def broken_index(rng: Rng, slide: AnnData) -> str:
    """Index arrays that do not fit the matrix."""
    x = slide.X
    at = int(rng.integers(x.nnz))
    kind = int(rng.integers(4))
    if kind == 0:
        x.indices[at] = pick(rng, (-1, slide.n_vars, 2**31 - 1, -(2**31)))
    elif kind == 1:
        x.indptr[int(rng.integers(1, slide.n_obs))] = pick(rng, (-5, x.nnz + 1, 2**31 - 1, 0))
    elif kind == 2:
        x.indptr[-1] = pick(rng, (x.nnz + 9, 2**30, -1))
    else:
        x.indices = x.indices[:-3]
    return "refuse"


def odd_places(rng: Rng, slide: AnnData) -> str:
    xy = slide.obsm["spatial"]
    kind = int(rng.integers(9))
    if kind == 0:
        xy[int(rng.integers(len(xy)))] = pick(rng, (np.nan, np.inf, 1e200, -1e300))
        return "refuse"
    if kind == 1:
        slide.obsm["spatial"] = xy * pick(rng, (1e-200, 1e-170, 1e200, 0.0))
        return "refuse" if not (xy * 1.0 == slide.obsm["spatial"]).all() else "either"
    if kind == 2:
        slide.obsm["spatial"] = xy + pick(rng, (1e3, 1e6, -1e5))
    elif kind == 3:
        slide.obsm["spatial"] = xy * pick(rng, (0.5, 2.0, 1024.0, 2.0**-10))
    elif kind == 4:
        slide.obsm["spatial"] = pd.DataFrame(xy, index=slide.obs_names, columns=["x", "y"])
    elif kind == 5:
        slide.obsm["spatial"] = pd.DataFrame(xy[:, ::-1], index=slide.obs_names, columns=["y", "x"])
    elif kind == 6:
        slide.obsm["spatial"] = np.column_stack([xy, np.full(len(xy), 7.0)])
    elif kind == 7:
        slide.obsm["spatial"] = xy[:, :1]
        return "refuse"
    else:
        slide.obsm["spatial"] = xy.astype(pick(rng, (object, str, np.float64)))
        return "either"
    return "same"


def odd_uns(rng: Rng, slide: AnnData) -> str:
    key = pick(
        rng, ("spatial", "sagefm", "spot_pitch_um", "domain_colors", "x", "spatialdata_attrs")
    )
    value = pick(rng, VALUES)
    shape = int(rng.integers(4))
    slide.uns[key] = (
        value, {"lib": value}, {"lib": {"scalefactors": value, "images": value}},
        {"read": value} if rng.random() < 0.5 else {"read": {"told": value, "slide_key": value}},
    )[shape]  # fmt: skip
    return "same"


def odd_obs(rng: Rng, slide: AnnData) -> str:
    name = pick(rng, ("cluster", "leiden", "note", "x", "cell_type", "score"))
    slide.obs[name] = pick(rng, (
        pd.array(rng.integers(0, 5, slide.n_obs), dtype="Int64"),
        pd.Categorical(rng.choice(["a", "b", "c"], slide.n_obs)),
        rng.choice(["a", "b", None], slide.n_obs), rng.normal(size=slide.n_obs),
        pd.array(rng.choice(["a", "b"], slide.n_obs), dtype="string"),
        np.full(slide.n_obs, "constant"), pd.date_range("2020-01-01", periods=slide.n_obs),
        [("a", 1)] * slide.n_obs, np.arange(slide.n_obs) % 2 == 0,
    ))  # fmt: skip
    return "same"


def other_order(rng: Rng, slide: AnnData) -> str:
    """Shuffle the genes."""
    slide._inplace_subset_var(rng.permutation(slide.n_vars))
    return "same"


def other_features(rng: Rng, slide: AnnData) -> str:
    """Add proteins that are named like genes."""
    names = slide.var_names[:5].tolist()
    kinds = ["Gene Expression"] * slide.n_vars + ["Antibody Capture"] * 5
    x = sparse.hstack([slide.X, sparse.csr_matrix(np.full((slide.n_obs, 5), 900.0))]).tocsr()
    var = pd.DataFrame({"feature_types": kinds}, index=[*slide.var_names, *names])
    bigger = AnnData(x.astype(np.float32), obs=slide.obs, var=var, obsm=dict(slide.obsm))
    slide._init_as_actual(bigger)
    return "same"


CHANGES: tuple[Change, ...] = (
    container, container, wrong_counts, broken_index, odd_places, odd_uns, odd_uns, odd_obs,
    other_order, other_features,
)  # fmt: skip


def odd_object(rng: Rng, kit: Kit, folder: Path) -> Trial:
    slide = load(kit["slides/plain.h5ad"])
    sound = Plain(
        list(slide.obs_names), list(slide.var_names), slide.X.toarray().astype(float),
        slide.obsm["spatial"].copy(),
    )  # fmt: skip
    change = pick(rng, CHANGES)
    expected = change(rng, slide)
    out, model = folder / "out", kit["published.safetensors"]
    if rng.random() < 0.5:
        return Trial(
            ("tl.embed", change.__name__), (), out,
            lambda: _compared(out / "o.npy", sound, kit, expected),
            {"same": "succeed"}.get(expected, expected), change.__name__,
            lambda: _embed(slide, model, out),
        )  # fmt: skip
    path = folder / "slide.h5ad"
    try:
        slide.write_h5ad(path)
    except Exception:  # noqa: BLE001  not all that memory holds can be in a file
        return odd_object(rng, kit, folder)

    def verify() -> str | None:
        np.save(out / "o.npy", load(out / "o.h5ad").obsm["X_sagefm"])
        return _compared(out / "o.npy", sound, kit, expected)

    words = ("embed", path, "-m", model, "-o", out / "o.h5ad")
    must = {"same": "succeed"}.get(expected, expected)
    return Trial(words, (path,), out, verify, must, change.__name__)


def _embed(slide: Any, model: Path, out: Path) -> None:
    try:
        sagefm.tl.embed(slide, sagefm.SageFM.load(model))
    except sagefm.InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    np.save(out / "o.npy", slide.obsm["X_sagefm"])


def _compared(result: Path, sound: Plain, kit: Kit, expected: str) -> str | None:
    if expected != "same":
        return None
    model = kit["published.safetensors"]
    return differs(np.load(result), embedding(sound, model, kit.symbols))
