"""Which gene raises or lowers which in its neighborhood: the network of genes a model has learned.

The published network averages over the neighborhood before anything else, so that for it the
influence of a gene in the neighbors and in the center differ by a constant factor. For others they
may differ in sign.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from sagefm._errors import InputError, logger
from sagefm._extras import require
from sagefm._text import few, numbered
from sagefm._types import Where
from sagefm.nn.influence import strongest
from sagefm.pp.selection import selected_spots
from sagefm.stats.resampling import LEAST_UNITS, interval, resampled

if TYPE_CHECKING:
    import networkx
    from anndata import AnnData

    from sagefm.model import SageFM
    from sagefm.pp.vocabulary import Vocabulary

Progress = Callable[[str], None]
ALL = "all"
"""As `sources`: every gene of the model that the slide has."""
_EDGES = 4096
"""Edges whose bootstrap, or whose weights, stand in memory together."""


def influence(
    slide: "AnnData",
    model: "SageFM",
    genes: Sequence[str] | None = None,
    *,
    sources: Sequence[str] | None = None,
    where: Where = "neighbors",
    region: "NDArray[np.bool_] | str | None" = None,
    n_spots: int | None = None,
    top: int = 50,
    seed: int = 0,
    layer: str | None = None,
    slide_key: str | None = None,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Compute how the prediction of each gene depends on each gene of the neighborhood.

    The influence of gene g on gene k is the derivative of the predicted log1p counts of k in the
    center by the log1p counts of g, averaged over spots: exact, through the whole network. In the
    neighbors it is the effect of raising g by one unit in all of them at once (14 for the published
    network); in the center, of raising it there. In a ``context`` network the weights of similar
    spots, the library sizes and the profile expected of a library size stay fixed. No gene is
    masked: k itself is an input in the center while it is predicted. Influences are associations
    that the model learned: a gene may be a proxy of another that it correlates with.

    Parameters
    ----------
    slide
        Raw counts and ``obsm["spatial"]``.
    model
        A model.
    genes
        Genes whose prediction is looked at, by symbol or Ensembl id; every gene of the model, and
        the strongest influences only, if not given. Genes that the model does not know are left
        out with a warning, as are such sources.
    sources
        Genes that may influence them: names, or ``"all"`` for every gene of the model that the
        slide has. If not given: `genes`, or ``"all"`` where these are not given either.
    where
        Which influence the matrix holds: of the ``"neighbors"`` or of the ``"center"``. The table
        of edges holds both, ranked by the neighbors.
    region
        Over which spots to average: a boolean per spot, or ``"KEY=VALUE"`` for those whose
        ``obs[KEY]`` is VALUE. All if not given.
    n_spots
        Average over so many spots, drawn at random; all if not given. (Genome-wide, on two cores,
        all 3,639 spots of a slide take some minutes.)
    top
        How many influences to keep per predicted gene, without `genes`.
    seed
        Draws the spots.
    layer
        Where the raw counts are, if not in ``X`` or ``layers["counts"]``.
    slide_key
        ``obs`` column that tells the slides apart, if the object holds several.
    progress
        Called with lines of progress.

    Returns
    -------
    With `genes` a matrix, sources (``index``) × predicted genes (``columns``): log1p counts per
    log1p count. A gene's influence on itself is in it.

    Without, a table with a row per edge: source, target, neighbors, center (log1p counts per log1p
    count) and rank (1 is the strongest on that target). A gene's influence on itself is left out:
    its own counts predict it trivially. So is what is exactly zero: a target that is predicted to
    be zero in every spot has no edge.

    Raises
    ------
    InputError
        No gene is left (the nearest names are offered), a number is out of its range, the region
        is empty or does not fit the slide, or the slide cannot be prepared.
    """
    if where != "neighbors" and where != "center":
        raise InputError(f"where={where!r}: choose one of neighbors, center")
    if top < 1:
        raise InputError(f"top={top}: give a whole number from 1 on")
    predicted = None if genes is None else _once(model.vocabulary.known(genes))
    targets = _targets(predicted, model)
    spots = _spots(selected_spots(slide, region), n_spots, seed)
    prepared = model.prepare(slide, layer=layer, slide_key=slide_key)
    names, rows = _sources(
        predicted if sources is None else sources, model.vocabulary, prepared.measured
    )
    with torch.inference_mode():
        centers = model.encode(prepared).centers(prepared.neighbors[spots])
        gradient = centers.influence(targets, _report_progress(progress, len(spots)))
    source = torch.from_numpy(rows).to(model.device)
    weights = model.network.first.detach()[source]
    if predicted is not None:
        values = (weights @ gradient[where].T).cpu().numpy()
        index, columns = pd.Index(names, name="source"), pd.Index(predicted, name="target")
        return pd.DataFrame(values, index, columns)
    if progress is not None:
        progress("influence: choosing the strongest")
    own = torch.full_like(targets, -1)
    own[source] = torch.arange(len(source), device=model.device)
    found = strongest(weights, gradient["neighbors"], own, top)
    center = _products(weights, gradient["center"], found[0], found[1]).cpu().numpy()
    from_row, target, values = (part.cpu().numpy() for part in found)
    symbols = np.asarray(model.vocabulary.symbols, dtype=object)
    table = {"source": np.asarray(names, dtype=object)[from_row], "target": symbols[target]}
    both = {"neighbors": values, "center": center}
    return pd.DataFrame(table | both | {"rank": _ranks(target)})


def to_edges(matrix: pd.DataFrame, where: Where = "neighbors") -> pd.DataFrame:
    """Turn a matrix of influences into a table of edges, the strongest on each target first.

    Parameters
    ----------
    matrix
        Sources × predicted genes, what :func:`influence` gives for chosen genes.
    where
        Which influence it holds: the name of the column.

    Returns
    -------
    A row per edge: source, target, the influence, rank. A gene's influence on itself and what is
    exactly zero are left out.
    """
    values = matrix.to_numpy(dtype=np.float64)
    names = np.asarray(matrix.index, dtype=str), np.asarray(matrix.columns, dtype=str)
    values = np.where(names[0][:, None] == names[1], 0, values)
    order = np.argsort(-np.abs(values), axis=0, kind="stable").T
    target, rank = np.nonzero(np.take_along_axis(values.T, order, axis=1))
    source = order[target, rank]
    columns = (names[0][source], names[1][target], values[source, target], rank + 1)
    return pd.DataFrame(dict(zip(("source", "target", where, "rank"), columns, strict=True)))


def consensus_network(
    edges: Mapping[str, pd.DataFrame],
    *,
    value: str = "neighbors",
    draws: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Average edges over slides, with the fraction of slides that have each edge.

    Parameters
    ----------
    edges
        For each slide its table of edges, from :func:`influence` or :func:`to_edges`.
    value
        Column to average.
    draws
        How many times the slides are drawn anew, with replacement, for the interval.
    seed
        Draws them.

    Returns
    -------
    A row per edge that any slide has, by falling size of the mean: source, target, mean over
    slides, low and high (ends of the 95 % percentile bootstrap interval over slides; NaN for fewer
    than three), share (fraction of the slides that have it). An edge that is not in the table of a
    slide, where others are stronger, counts as 0 there, which biases the mean towards 0.

    Raises
    ------
    InputError
        There is no table, or one of them lacks a column or names an edge twice.
    """
    if not edges:
        raise InputError("no tables of edges; give one per slide")
    for name, table in edges.items():
        _require_edges(table, value, f"{name}: ")
        if table.duplicated(["source", "target"]).any():
            raise InputError(f"{name}: an edge is duplicated in its table; keep one of each")
    joined = pd.concat([table[["source", "target", value]] for table in edges.values()])
    slides = np.repeat(np.arange(len(edges)), [len(table) for table in edges.values()])
    groups = joined.groupby(["source", "target"], sort=True)
    numbers = groups.ngroup().to_numpy()
    result = groups.size().rename("found").reset_index()
    values = np.zeros((len(result), len(edges)))
    values[numbers, slides] = joined[value].to_numpy()
    low, high = _bootstrap(values, draws, seed)
    result = result.assign(
        mean=values.mean(axis=1), low=low, high=high, share=result["found"] / len(edges)
    )
    order = np.argsort(-result["mean"].abs().to_numpy(), kind="stable")
    return result.iloc[order].reset_index(drop=True).drop(columns="found")


def to_graph(edges: pd.DataFrame) -> "networkx.DiGraph[str]":
    """Turn a table of edges into a directed graph.

    Parameters
    ----------
    edges
        From :func:`influence`, :func:`to_edges` or :func:`consensus_network`.

    Returns
    -------
    A networkx graph from source to target; all other columns are attributes of the edges.
    ``networkx.write_graphml`` writes it for Cytoscape, Gephi or igraph.

    Raises
    ------
    InputError
        It is not a table of edges, or networkx is not installed.
    """
    _require_edges(edges)
    library = require("networkx", "perturb", "a graph of genes")
    graph: networkx.DiGraph[str] = library.from_pandas_edgelist(
        edges, "source", "target", edge_attr=True, create_using=library.DiGraph
    )
    return graph


def _once(genes: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(genes))


def _targets(genes: Sequence[str] | None, model: "SageFM") -> torch.Tensor:
    """Find the genes whose prediction is looked at."""
    if genes is None:
        return torch.arange(len(model.vocabulary), device=model.device)
    if not len(genes):
        raise InputError("no genes; name some, or leave genes out for all of the model")
    return model.positions(genes)


def _sources(
    sources: Sequence[str] | None, vocabulary: "Vocabulary", measured: NDArray[np.bool_]
) -> tuple[list[str], NDArray[np.int64]]:
    """Find the genes that may influence others: the names they were given, and their positions."""
    if sources is None or (isinstance(sources, str) and sources == ALL):
        every = np.flatnonzero(measured)
        return [vocabulary[i] for i in every.tolist()], every
    if not len(sources):
        raise InputError("no sources; name some, or leave sources out")
    names = _once(vocabulary.known(sources))
    positions = vocabulary.positions(names)
    absent = [name for name, i in zip(names, positions, strict=True) if not measured[i]]
    if absent:
        logger.warning(
            "%s not measured on this slide (%s): their influence is what the model says of a gene "
            "that is zero here", numbered(len(absent), "source"), few(absent),
        )  # fmt: skip
    return names, positions


def _spots(inside: NDArray[np.bool_], n_spots: int | None, seed: int) -> NDArray[np.int64]:
    """Choose the spots to average over, in the order of the slide."""
    spots = np.flatnonzero(inside)
    if n_spots is None or n_spots >= len(spots):
        return spots
    if n_spots < 1:
        raise InputError(f"n_spots={n_spots}: give a whole number from 1 on")
    return np.sort(np.random.default_rng(seed).choice(spots, n_spots, replace=False))


def _report_progress(progress: Progress | None, n_spots: int) -> Callable[[int], None] | None:
    """Report each further tenth of the spots."""
    if progress is None:
        return None
    reported = 0

    def report(done: int) -> None:
        nonlocal reported
        if done * 10 // n_spots > reported:
            reported = done * 10 // n_spots
            progress(f"influence: {done:,} of {numbered(n_spots, 'spot')}")

    return report


def _products(
    first: torch.Tensor, gradient: torch.Tensor, sources: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    """Multiply for each edge the weights of its source with the derivative of its target."""
    pairs = zip(torch.split(sources, _EDGES), torch.split(targets, _EDGES), strict=True)
    return torch.cat([(first[s] * gradient[t]).sum(dim=1) for s, t in pairs])


def _ranks(targets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rank the edges of each target, which stand together, from 1."""
    begins = np.flatnonzero(np.diff(targets, prepend=-1))
    return np.arange(len(targets)) - np.repeat(begins, np.diff([*begins, len(targets)])) + 1


def _require_edges(table: pd.DataFrame, value: str | None = None, place: str = "") -> None:
    missing = {"source", "target", *([value] if value else [])} - set(table.columns)
    if missing:
        raise InputError(
            f"{place}no column {' and no '.join(sorted(missing))} in this table "
            f"({few(table.columns, 6)}); give a table of edges (a matrix becomes one by to_edges)"
        )


def _bootstrap(values: NDArray[np.float64], draws: int, seed: int) -> NDArray[np.float64]:
    """Bootstrap the mean of each row over its columns: low and high × rows."""
    n_rows, n_slides = values.shape
    bounds = np.full((2, n_rows), np.nan)
    if n_slides >= LEAST_UNITS:
        weights = resampled(n_slides, seed, draws).T
        for begin in range(0, n_rows, _EDGES):
            rows = slice(begin, begin + _EDGES)
            bounds[:, rows] = interval(values[rows] @ weights, axis=1)
    return bounds
