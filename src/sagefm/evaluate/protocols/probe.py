"""The one readout of an embedding: the same small classifiers for every method."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sagefm._errors import InputError
from sagefm.evaluate.baselines.embedding import Embedding
from sagefm.stats.pca import WhitenedPCA

if TYPE_CHECKING:
    from anndata import AnnData

N_COMPONENTS = 50
GENE_SPACES = frozenset({"raw HVG"})
"""Methods whose columns are genes: they keep them all, and no network is trained on them."""
PROBES = {
    "linear": "logistic regression, C = 1",
    "mlp": "one hidden layer of 64, weight decay 0.01, stopped early on a tenth of the spots",
}
_LEAST_STOPPED_EARLY = 2  # spots of a class: one to learn from and one to stop by


@dataclass(frozen=True)
class Probe:
    """A fitted readout.

    Attributes
    ----------
    classes
        What it can predict, sorted.
    reduction
        Of a wide embedding.
    pipeline
        From there to probabilities of the codes of `classes`.
    """

    classes: NDArray[Any]
    reduction: WhitenedPCA | None
    pipeline: Any

    def probabilities(self, z: NDArray[Any]) -> NDArray[np.float64]:
        """Get the probability of each class: spots × classes, rows sum to 1."""
        z = self.reduction(z) if self.reduction else z
        return np.asarray(self.pipeline.predict_proba(z), dtype=np.float64)


def probes_of(method: str) -> tuple[str, ...]:
    """Name the probes that a method is read with: for a gene space the linear one alone."""
    return ("linear",) if method in GENE_SPACES else tuple(PROBES)


def fit_probe(
    probe: str, z: NDArray[Any], labels: ArrayLike, *, method: str = "", seed: int = 0
) -> Probe:
    """Fit a probe on the spots of training slides.

    An embedding wider than 50 is reduced to 50 principal components: it gets no more parameters
    than a narrow one. Columns are standardized. All of it is learned from `z`.

    Parameters
    ----------
    probe
        A key of ``PROBES``, or ``"majority"``: the frequencies of the classes, for every spot.
    z
        Spots × width.
    labels
        A class per spot.
    method
        Whose embedding it is; those of ``GENE_SPACES`` are not reduced.
    seed
        Of components and network.

    Returns
    -------
    The probe. If there is one class only, it predicts that.
    """
    from sklearn.dummy import DummyClassifier
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classes, codes = np.unique(np.asarray(labels), return_inverse=True)
    steps: list[Any] = [StandardScaler()]
    reduction = None
    if z.shape[1] > N_COMPONENTS and method not in GENE_SPACES:
        reduction = WhitenedPCA.fit(z, N_COMPONENTS, seed)
        z = reduction(z)
    if probe == "majority" or len(classes) == 1:
        steps = [DummyClassifier(strategy="prior")]
    elif probe == "linear":
        steps.append(LogisticRegression(C=1.0, max_iter=500))
    else:
        steps.append(_network(codes, seed))
    pipeline = make_pipeline(*steps)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a limit on steps is part of the probe
        pipeline.fit(z, codes)
    return Probe(classes, reduction, pipeline)


def _network(codes: NDArray[np.int64], seed: int) -> Any:
    from sklearn.neural_network import MLPClassifier

    sizes = np.bincount(codes)
    # The spots to stop by are drawn by class: each needs one, and one to learn from.
    early = sizes.min() >= _LEAST_STOPPED_EARLY and 0.1 * len(codes) >= len(sizes)
    return MLPClassifier(
        hidden_layer_sizes=(64,), alpha=1e-2, early_stopping=bool(early), max_iter=100,
        batch_size=min(32, len(codes)), learning_rate_init=5e-3,  # else few spots give few steps
        random_state=seed,
    )  # fmt: skip


def embedded(
    embedding: Embedding, slides: "Sequence[AnnData]", learn_from: Sequence[bool]
) -> list[NDArray[np.float32]]:
    """Embed slides, and refuse what no probe can read.

    Returns
    -------
    Spots × width for each slide, float32.

    Raises
    ------
    InputError
        The embedding cannot be had for these slides, has not one row per spot, or is not finite.
    """
    found = [np.asarray(z, dtype=np.float32) for z in embedding.of(slides, learn_from)]
    rows = [z.shape[0] for z in found]
    if rows != [slide.n_obs for slide in slides]:
        raise InputError(f"{embedding.name}: not one row per spot; give an embedding of each slide")
    if not all(np.isfinite(z).all() for z in found):
        raise InputError(f"{embedding.name}: NaN or infinite values; leave it out or mend it")
    return found


def embedded_by_fold(
    embedding: Embedding, slides: "Sequence[AnnData]", folds: Sequence[Sequence[bool]]
) -> Iterator[list[NDArray[np.float32]]]:
    """Embed slides once per fold, learning from the slides that the fold trains on.

    A model is trained already, and a control knows nothing: they are asked once, and may learn
    from no slide. So is what learns from every slide anyway.
    """
    if embedding.kind != "baseline" or embedding.transductive:
        once = embedded(embedding, slides, [embedding.transductive] * len(slides))
        for _ in folds:
            yield once
        return
    for learn_from in folds:
        yield embedded(embedding, slides, learn_from)


def named_pca(embeddings: Sequence[Embedding]) -> Embedding | None:
    """Choose on what labels are permuted: PCA, else the first baseline, else the first."""
    ranked = sorted(embeddings, key=lambda one: (one.name != "PCA", one.kind != "baseline"))
    return ranked[0] if ranked else None


def remarks(embeddings: Sequence[Embedding]) -> list[str]:
    """Write down what a reader must know about the methods."""
    return [f"{one.name}: {one.note}." for one in embeddings if one.note]
