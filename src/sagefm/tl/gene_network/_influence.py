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

from sagefm._as_model import as_model
from sagefm._errors import InputError, logger
from sagefm._extras import require
from sagefm._fetch import DEFAULT
from sagefm._text import few, numbered
from sagefm._types import Positions, Where
from sagefm.nn.influence import strongest
from sagefm.pp.selection import selected_spots
from sagefm.stats.resampling import LEAST_UNITS, interval, resampled
from sagefm.tl.gene_network._spread import spreads

if TYPE_CHECKING:
    from pathlib import Path

    import networkx
    from anndata import AnnData

    from sagefm.model import SageFM
    from sagefm.pp.aligned import AlignedSlide
    from sagefm.pp.vocabulary import Vocabulary

Progress = Callable[[str], None]
ALL = "all"
"""As `sources`: every gene of the model that the slide has."""
_EDGES = 4096
"""Edges whose bootstrap, or whose weights, stand in memory together."""


def influence(
    slide: "AnnData",
    model: "SageFM | str | Path" = DEFAULT,
    genes: Sequence[str] | None = None,
    *,
    sources: Sequence[str] | None = None,
    where: Where = "neighbors",
    region: "NDArray[np.bool_] | str | None" = None,
    n_spots: int | None = None,
    n_edges: int = 500,
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
        A model, or its path or address; ``"default"`` is that of the package.
    genes
        Genes whose prediction is looked at, by symbol or Ensembl id: all influences on them. If
        not given, the strongest influences on any gene. Genes that the model does not know are
        left out with a warning, as are such sources.
    sources
        Genes that may influence them: names, or ``"all"`` for every gene of the model that the
        slide has. If not given: `genes`, or ``"all"`` where these are not given either.
    where
        Which influence the matrix holds: of the ``"neighbors"`` or of the ``"center"``. The table
        of edges holds both; that of the neighbors decides which are the strongest.
    region
        Over which spots to average: a boolean per spot, or ``"KEY=VALUE"`` for those whose
        ``obs[KEY]`` is VALUE. All if not given. Standard deviations are over the same spots.
    n_spots
        Average over so many spots, drawn at random; all if not given. (Genome-wide, on two cores,
        all 3,639 spots of a slide take some minutes.)
    n_edges
        How many edges to keep, without `genes`: the strongest. Give more to compare slides by
        :func:`consensus_network`; there are (number of genes)² of them.
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

    Without, a table with a row per edge, the strongest first: source, target, neighbors, center
    (log1p counts per log1p count) and standardized: the influence of the neighbors times the
    standard deviation of the source, averaged over the neighbors of a spot, divided by that of the
    target in the spots. It is the change of the prediction, in standard deviations of the target,
    where the neighborhood has one standard deviation more of the source, and its size is what
    edges are chosen by: per log1p count a gene that few spots show appears strong, for it hardly
    ever rises by that much. A gene's influence on itself is left out: its own counts predict it
    trivially. So are genes that are not measured or that do not vary over the spots, and what is
    exactly zero: there may be fewer edges than `n_edges`.

    Raises
    ------
    InputError
        No gene is left (the nearest names are offered), a number is out of its range, the region
        is empty or does not fit the slide, the slide cannot be prepared, or without `genes` no gene
        varies over the spots.
    """
    model = as_model(model)
    if where != "neighbors" and where != "center":
        raise InputError(f"where={where!r}: choose one of neighbors, center")
    if n_edges < 1:
        raise InputError(f"n_edges={n_edges}: give a whole number from 1 on")
    predicted = None if genes is None else _once(model.vocabulary.known(genes))
    if predicted is not None and not predicted:
        raise InputError("no genes; name some, or leave genes out for the strongest of all edges")
    spots = _spots(selected_spots(slide, region), n_spots, seed)
    prepared = model.prepare(slide, layer=layer, slide_key=slide_key)
    names, rows = _sources(
        predicted if sources is None else sources, model.vocabulary, prepared.measured
    )
    report = _report_progress(progress, len(spots))
    if predicted is None:
        return _strongest_edges(model, prepared, spots, np.unique(rows), n_edges, report)
    positions = torch.from_numpy(model.vocabulary.positions(predicted)).to(model.device)
    gradient = _gradient(model, prepared, spots, positions, report)
    values = (_weights(model, rows) @ gradient[where].T).cpu().numpy()
    index, columns = pd.Index(names, name="source"), pd.Index(predicted, name="target")
    return pd.DataFrame(values, index, columns)


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
    slide, where others are stronger, counts as 0 there, which biases the mean towards 0: give all
    edges of chosen genes, or many more than are looked at in the end.

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


def _strongest_edges(
    model: "SageFM",
    prepared: "AlignedSlide",
    spots: Positions,
    sources: Positions,
    n_edges: int,
    report: Callable[[int], None] | None,
) -> pd.DataFrame:
    """Make the table of the largest standardized influences, sources on targets that vary."""
    of_neighbors, of_centers = spreads(prepared, spots)
    sources = sources[of_neighbors[sources] > 0]
    targets = np.flatnonzero(prepared.measured & (of_centers > 0))
    if not len(sources) or not len(targets):
        raise InputError(
            f"no source varies over {numbered(len(spots), 'spot')}, so that no influence can be "
            "standardized; take more spots, or name genes"
        )
    at = torch.from_numpy(targets).to(model.device)
    gradient, weights = _gradient(model, prepared, spots, at, report), _weights(model, sources)
    own = np.full(len(of_centers), -1)
    own[sources] = np.arange(len(sources))

    def scaled(values: torch.Tensor, by: NDArray[np.float64]) -> torch.Tensor:
        return values * torch.from_numpy(by.astype(np.float32)).to(values)[:, None]

    found = strongest(
        scaled(weights, of_neighbors[sources]),
        scaled(gradient["neighbors"], 1 / of_centers[targets]),
        torch.from_numpy(own[targets]).to(model.device),
        n_edges,
    )
    both = {name: _products(weights, of, *found[:2]) for name, of in gradient.items()}
    source, target, standardized = (part.cpu().numpy() for part in found)
    symbols = np.asarray(model.vocabulary.symbols, dtype=object)
    names = {"source": symbols[sources[source]], "target": symbols[targets[target]]}
    columns = {name: both[name].cpu().numpy() for name in ("neighbors", "center")}
    return pd.DataFrame(names | columns | {"standardized": standardized})


def _gradient(
    model: "SageFM",
    prepared: "AlignedSlide",
    spots: Positions,
    targets: torch.Tensor,
    report: Callable[[int], None] | None,
) -> dict[Where, torch.Tensor]:
    with torch.inference_mode():
        return model.encode(prepared).centers(prepared.neighbors[spots]).influence(targets, report)


def _weights(model: "SageFM", sources: Positions) -> torch.Tensor:
    """Pick the first-layer weights of genes."""
    return model.network.first.detach()[torch.from_numpy(sources).to(model.device)]


def _sources(
    sources: Sequence[str] | None, vocabulary: "Vocabulary", measured: NDArray[np.bool_]
) -> tuple[list[str], Positions]:
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
            "%s not measured on this slide (%s): left out of a table of edges; a matrix holds what "
            "the model says of a gene that is zero here", numbered(len(absent), "source"),
            few(absent),
        )  # fmt: skip
    return names, positions


def _spots(inside: NDArray[np.bool_], n_spots: int | None, seed: int) -> Positions:
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
