"""What the default model is compared with on a slide: one table a question."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sagefm._keys import DOMAIN, EMBEDDING, IMPUTED, MAPPED
from sagefm.evaluate import domain_recovery, pca
from sagefm.evaluate.baselines.pca import joint_pca
from sagefm.evaluate.baselines.untrained import RANDOM_WEIGHTS
from sagefm.evaluate.protocols.domain_recovery import agreement
from sagefm.pp.counts import coordinates
from sagefm.pp.labels import labels_of
from sagefm.pp.neighborhood import average, nearest
from sagefm.report.recovery import MODEL, recover
from sagefm.tl.clustering import domains
from sagefm.tl.embedding import embed
from sagefm.tl.imputation import impute
from sagefm.tl.mapping import map as map_labels

if TYPE_CHECKING:
    from anndata import AnnData

    from sagefm.model import SageFM

DEFAULT_MODEL = "default model"
CONSENSUS = "sagefm, consensus of views (no model)"
MAPPING = "sagefm, map"
SMOOTHED_PCA = "PCA of 15-spot means, all genes"
NEAREST = "nearest spots of the other patient"
_SPOTS_TO_SMOOTH = 15
_NEIGHBORS = 15
_COMPONENTS = 50
_MASKED = 0.2
"""Fraction of the genes of a spot that are masked at a time."""
_OFTEN = 0.1
"""Fraction of the spots in which a gene is detected often."""
_ABSENT, _PATTERNED = 200, 4
"""Genes that are taken out of a slide: at most so many, of that part with the clearest pattern."""
_CLOSE = 0.02
"""Relative difference below which two methods count as equal."""
_FEWEST = 100
"""Detected genes of which some are taken out."""


@dataclass(frozen=True)
class MethodComparison:
    """The methods that answer one question about a slide.

    Attributes
    ----------
    question
        What is asked.
    measure
        What is measured.
    table
        A row per method: ``value``, ``own`` (whether it is of this package: what its documentation
        recommends comes first), ``random`` (whether its weights are random).
    lower
        Whether a lower value is better.
    note
        What a reader has to know.
    details
        More columns, by method or by gene.
    """

    question: str
    measure: str
    table: pd.DataFrame
    lower: bool = False
    note: str = ""
    details: pd.DataFrame = field(default_factory=pd.DataFrame)

    @property
    def ours(self) -> tuple[str, float]:
        """The method of this package that its documentation recommends, and its value."""
        return self._first(self.table["own"])

    @property
    def baseline(self) -> tuple[str, float] | None:
        """The best of the other methods, but for random weights; None if there is none."""
        others = self.table[~self.table["own"] & ~self.table["random"]]
        if others.empty:
            return None
        return self._first(self.table.index == others["value"].agg(self._best))

    @property
    def random(self) -> tuple[str, float]:
        """The network with random weights."""
        return self._first(self.table["random"])

    @property
    def winner(self) -> str:
        """Who is best: ``"sagefm"``, another method, or ``"equal"`` within 2 %.

        Without a simple method there is no winner: better than random weights is no win.
        """
        if self.baseline is None:
            return "not compared"
        others = [each for each in (self.baseline, self.random) if each is not None]
        name, value = (min if self.lower else max)(others, key=lambda each: each[1])
        gain = (value - self.ours[1]) if self.lower else (self.ours[1] - value)
        if abs(gain) < _CLOSE * abs(value):
            return "equal"
        return "sagefm" if gain > 0 else name

    @property
    def _best(self) -> str:
        return "idxmin" if self.lower else "idxmax"

    def _first(self, rows: Any) -> tuple[str, float]:
        value = self.table.loc[rows, "value"]
        return str(value.index[0]), float(value.iloc[0])


def compare(
    slide: "AnnData",
    model: "SageFM",
    genes: Sequence[str],
    *,
    label_key: str | None = None,
    reference: "AnnData | None" = None,
    seed: int = 0,
) -> Iterator[MethodComparison]:
    """Compare domains, masked genes and absent genes on one slide, and write results to it.

    Parameters
    ----------
    slide
        Raw counts and ``obsm["spatial"]``.
    model
        The model.
    genes
        Genes to predict while they are masked, for maps.
    label_key
        ``obs`` column of labels that domains are compared with; no comparison if not given.
    reference
        A slide that has the genes that are taken out of this one, for a baseline.
    seed
        Of all random numbers.

    Yields
    ------
    Domains (if there are labels), masked genes, and absent genes (if enough are detected).
    """
    random = random_weights(model, seed)
    if label_key is None:
        domains(slide, seed=seed)
    else:
        yield _compare_domains(slide, model, random, label_key, seed)
    yield _compare_masked(slide, model, random, genes, seed)
    often = detected(slide, model)
    if len(often) >= _FEWEST:
        yield _compare_absent(slide, model, random, often, reference, seed)


def random_weights(model: "SageFM", seed: int) -> "SageFM":
    """Draw random weights for the network of a model."""
    from sagefm.model import SageFM

    return SageFM.new(model.vocabulary, model.config, seed=seed)


def detected(slide: "AnnData", model: "SageFM") -> NDArray[Any]:
    """List the genes of a slide that the model knows and that are detected often."""
    matrix = slide.X
    fraction = np.asarray((matrix > 0).mean(axis=0)).ravel()
    names = slide.var_names.to_numpy(dtype=str)
    known = np.isin(names, np.array(model.vocabulary.symbols))
    return np.asarray(names[known & (fraction > _OFTEN)])


def shared_with_neighbors(slide: "AnnData", genes: NDArray[Any]) -> NDArray[Any]:
    """Correlate genes with the mean of their neighbors, at the median library size."""
    size = _library_size(slide)
    values = np.log1p(slide[:, genes].X.toarray() * (np.median(size) / np.maximum(size, 1)))
    near = nearest(coordinates(slide), _SPOTS_TO_SMOOTH)
    return _by_gene(values, average(near, center=False) @ values)


def _compare_domains(
    slide: "AnnData", model: "SageFM", random: "SageFM", key: str, seed: int
) -> MethodComparison:
    n_domains = slide.obs[key].nunique()
    embed(slide, random, key_added=RANDOM_WEIGHTS)
    embed(slide, model)
    embeddings = {
        DEFAULT_MODEL: slide.obsm[EMBEDDING],
        SMOOTHED_PCA: pca(slide, n_genes=None, smooth=_SPOTS_TO_SMOOTH, seed=seed),
        "PCA, all genes": pca(slide, n_genes=None, seed=seed),
        "PCA, 3,000 variable genes": pca(slide, seed=seed),
        RANDOM_WEIGHTS: slide.obsm.pop(RANDOM_WEIGHTS),
    }
    scores = domain_recovery(slide, key, embeddings, seeds=(seed,))
    domains(slide, n_domains, seed=seed)
    consensus = agreement(slide.obs[key], slide.obs[DOMAIN].to_numpy(dtype=str))["ari"]
    values = {CONSENSUS: consensus, **scores.set_index("embedding")["ari"]}
    return MethodComparison(
        "Domains", "adjusted Rand index with the true regions", _tabulate(values),
        note=f"{n_domains} domains each. All but the consensus: a Gaussian mixture of 20 "
        "components, 50 starts.",
    )  # fmt: skip


def _compare_masked(
    slide: "AnnData", model: "SageFM", random: "SageFM", genes: Sequence[str], seed: int
) -> MethodComparison:
    """Mask a fifth of the genes of each spot, and those to draw alone."""
    errors: dict[str, float] = {}
    r: dict[str, float] = {}
    for name, each in ((DEFAULT_MODEL, model), (RANDOM_WEIGHTS, random)):
        recovered = recover(
            slide, each, each.prepare(slide), mask_fraction=_MASKED, seed=seed, layer=None,
            slide_key=None, adapt=False,
        )  # fmt: skip
        if recovered is None:
            continue
        methods = recovered.methods.rename(index={MODEL: name})
        chosen = methods if each is model else methods.loc[[name]]
        for method, row in chosen.iterrows():
            errors[str(method)], r[str(method)] = float(row["error"]), float(row["r"])
    order = sorted(errors, key=errors.__getitem__)
    by_gene = impute(slide, model, genes, adapt=False, seed=seed) if len(genes) else pd.DataFrame()
    return MethodComparison(
        "Masked genes", "mean squared error, log1p counts",
        _tabulate({name: errors[name] for name in order}).assign(r=[r[name] for name in order]),
        lower=True, details=by_gene,
        note="A fifth of the genes of every spot is masked and predicted from the other genes and "
        "the neighbors; genes detected in more than 10 % of the spots. r: median over genes of "
        "Pearson's correlation. The model is not adapted to the slide (adapt=True, half a minute).",
    )  # fmt: skip


def _compare_absent(
    slide: "AnnData",
    model: "SageFM",
    random: "SageFM",
    often: NDArray[Any],
    reference: "AnnData | None",
    seed: int,
) -> MethodComparison:
    """Take genes out of a slide, predict them and how well, and compare with what was there."""
    rng = np.random.default_rng([seed, 7])
    patterned = often[np.argsort(-shared_with_neighbors(slide, often))[: len(often) // _PATTERNED]]
    taken = rng.choice(patterned, min(_ABSENT, len(patterned) // 2), replace=False)
    without = slide[:, ~slide.var_names.isin(taken)].copy()
    truth = np.log1p(slide[:, taken].X.toarray())
    table = impute(without, model, list(taken), seed=seed)
    table = table.assign(r_true=_by_gene(truth, without.obsm[IMPUTED][taken].to_numpy()))
    log_size = np.log1p(_library_size(without))
    predictions = {DEFAULT_MODEL: without.obsm[IMPUTED][taken].to_numpy()}
    if reference is not None:
        predictions[NEAREST] = _carried(without, reference, taken)
    impute(without, random, list(taken), seed=seed)
    predictions[RANDOM_WEIGHTS] = without.obsm[IMPUTED][taken].to_numpy()
    beyond = _without(truth, log_size)
    values = {
        name: float(np.median(_by_gene(beyond, _without(each, log_size))))
        for name, each in predictions.items()
    }
    inside = (table["r_true"] >= table["r_expected_low"]) & (
        table["r_true"] <= table["r_expected_high"]
    )
    agreeing = table["r_expected"].corr(table["r_true"], method="spearman")
    return MethodComparison(
        "Genes that the slide lacks", "Pearson's r, library size removed (median over genes)",
        _tabulate(values), details=table.assign(inside=inside),
        note=f"{len(taken)} genes with a clear pattern were taken out of the slide and predicted. "
        "What library sizes alone predict (r "
        f"{np.median(_by_gene(truth, np.broadcast_to(log_size, truth.shape))):.2f}, the model "
        f"{table['r_true'].median():.2f}) is removed from truth and prediction. "
        "Before the truth is seen, each gene gets the correlation to expect and an interval: "
        f"{100 * inside.mean():.0f} % of the true ones lie inside (80 % are promised); expected "
        f"and true correlation agree to {agreeing:.2f} (Spearman).",
    )  # fmt: skip


def compare_labels(
    slide: "AnnData", reference: "AnnData", model: "SageFM", key: str, seed: int = 0
) -> MethodComparison:
    """Carry labels of a slide over to that of another patient, and compare with the true ones.

    Parameters
    ----------
    slide, reference
        With labels; those of `slide` are only compared with. Gets ``obs["sagefm_mapped"]``.
    model
        The model.
    key
        ``obs`` column of the labels.
    seed
        Of the random weights.
    """
    truth, known = (labels_of(each, key).to_numpy(dtype=str) for each in (slide, reference))
    map_labels(slide, [reference], model, key=key)
    assigned = {MAPPING: slide.obs[MAPPED].to_numpy(dtype=str)}
    both, learned = [slide, reference], [True, True]
    for name, smooth in ((SMOOTHED_PCA, _SPOTS_TO_SMOOTH), ("PCA, all genes", 1)):
        points = joint_pca(both, learned, n_components=_COMPONENTS, n_genes=None, smooth=smooth)
        assigned[name] = _nearest(points[0], points[1], known)
    for name, each in ((DEFAULT_MODEL, model), (RANDOM_WEIGHTS, random_weights(model, seed))):
        embed(both, each, reference="shared", key_added="compared")
        points = [one.obsm.pop("compared") for one in both]
        assigned[name] = _nearest(points[0], points[1], known)
    scores = {name: _scores(truth, labels) for name, labels in assigned.items()}
    return MethodComparison(
        "Labels of another patient", "macro F1",
        _tabulate({name: score["macro_f1"] for name, score in scores.items()}).assign(
            balanced_accuracy=[score["balanced_accuracy"] for score in scores.values()]
        ),
        note="The regions of one patient are carried over to another. Spots that map calls unknown "
        "count as wrong. All but map: the 15 nearest spots, in components of both slides or in "
        "comparable embeddings.",
    )  # fmt: skip


def _nearest(points: NDArray[Any], reference: NDArray[Any], labels: NDArray[Any]) -> NDArray[Any]:
    from sklearn.neighbors import KNeighborsClassifier

    fitted = KNeighborsClassifier(_NEIGHBORS).fit(reference, labels)
    return np.asarray(fitted.predict(points))


def _scores(truth: NDArray[Any], assigned: NDArray[Any]) -> dict[str, float]:
    from sklearn.metrics import f1_score, recall_score

    classes = np.unique(truth)
    averaged = {"labels": classes, "average": "macro", "zero_division": 0.0}
    return {
        "macro_f1": float(f1_score(truth, assigned, **averaged)),
        "balanced_accuracy": float(recall_score(truth, assigned, **averaged)),
    }


def _carried(slide: "AnnData", reference: "AnnData", genes: NDArray[Any]) -> NDArray[Any]:
    """Average genes over the nearest spots of a slide that has them, in joint components."""
    from sklearn.neighbors import NearestNeighbors

    points, known = joint_pca(
        [slide, reference], [True, True], n_components=_COMPONENTS, n_genes=None,
        smooth=_SPOTS_TO_SMOOTH,
    )  # fmt: skip
    near = NearestNeighbors(n_neighbors=_NEIGHBORS).fit(known).kneighbors(points)[1]
    fractions = reference[:, genes].X.toarray() / np.maximum(_library_size(reference), 1)
    return np.asarray(np.log1p(_library_size(slide) * fractions[near].mean(axis=1)))


def _library_size(slide: "AnnData") -> NDArray[Any]:
    return np.asarray(slide.X.sum(axis=1), dtype=np.float64).reshape(-1, 1)


def _without(values: NDArray[Any], known: NDArray[Any]) -> NDArray[Any]:
    """Subtract from each column what a straight line in `known` explains."""
    design = np.column_stack([np.ones(len(known)), known])
    return np.asarray(values - design @ np.linalg.lstsq(design, values, rcond=None)[0])


def _by_gene(truth: NDArray[Any], predicted: NDArray[Any]) -> NDArray[Any]:
    """Correlate each gene, 0 where either does not vary."""
    a, b = (x - x.mean(axis=0, dtype=np.float64) for x in (truth, predicted))
    product = np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
    return np.asarray((a * b).sum(axis=0) / np.maximum(product, 1e-12))


def _tabulate(values: Mapping[str, float]) -> pd.DataFrame:
    table = pd.DataFrame({"value": pd.Series(values, dtype=float)}).rename_axis("method")
    names = table.index.to_series()
    return table.assign(
        own=names.isin([CONSENSUS, MAPPING, DEFAULT_MODEL]), random=names == RANDOM_WEIGHTS
    )
