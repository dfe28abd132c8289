"""The readout of an embedding: the same two classifiers for every method."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sagefm._errors import InputError
from sagefm._types import Floats, Singles
from sagefm.evaluate.baselines.embedding import Embedding
from sagefm.stats.pca import WhitenedPCA
from sagefm.stats.probe import Classifier, fit_frequencies, fit_linear, fit_network

if TYPE_CHECKING:
    from anndata import AnnData

N_COMPONENTS = 50
GENE_SPACES = frozenset({"raw HVG"})
"""Methods whose columns are genes: all are kept, and no network is fitted to them."""
PROBES = {
    "linear": "logistic regression, C = 1",
    "mlp": "one hidden layer of 64, weight decay 0.01, stopped early on a tenth of the spots",
}


@dataclass(frozen=True)
class Probe:
    """A fitted readout.

    Attributes
    ----------
    classes
        What it can predict, sorted.
    reduction
        Of a wide embedding.
    classifier
        From the reduced embedding to `classes`.
    """

    classes: NDArray[Any]
    reduction: WhitenedPCA | None
    classifier: Classifier

    def probabilities(self, z: NDArray[Any]) -> Floats:
        """Compute the probability of each class: spots × classes, rows sum to 1."""
        return self.classifier.probabilities(self.reduction(z) if self.reduction else z)


def probes_of(method: str) -> tuple[str, ...]:
    """List the probes for a method: only the linear one for a gene space."""
    return ("linear",) if method in GENE_SPACES else tuple(PROBES)


def fit_probe(
    probe: str, z: NDArray[Any], labels: ArrayLike, *, method: str = "", seed: int = 0
) -> Probe:
    """Fit a probe to the spots of training slides.

    An embedding wider than 50 is reduced to 50 principal components: it gets no more parameters
    than a narrow one. Columns are standardized. Everything is fitted to `z`.

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
        Seed of components and network.

    Returns
    -------
    The probe. If there is one class only, it predicts that.
    """
    classes, codes = np.unique(np.asarray(labels), return_inverse=True)
    reduction = None
    if z.shape[1] > N_COMPONENTS and method not in GENE_SPACES:
        reduction = WhitenedPCA.fit(z, N_COMPONENTS, seed)
        z = reduction(z)
    if probe == "majority" or len(classes) == 1:
        classifier = fit_frequencies(z, codes)
    elif probe == "linear":
        classifier = fit_linear(z, codes, standardize=True)
    else:  # few spots give few steps, so that the learning rate is high
        classifier = fit_network(
            z, codes, learning_rate=5e-3, max_epochs=100, early_stopping=True, standardize=True,
            seed=seed,
        )  # fmt: skip
    return Probe(classes, reduction, classifier)


def embedded(
    embedding: Embedding, slides: "Sequence[AnnData]", learn_from: Sequence[bool]
) -> list[Singles]:
    """Embed slides, and check the result.

    Returns
    -------
    Spots × width for each slide.

    Raises
    ------
    InputError
        The embedding cannot be computed for these slides, has not one row per spot, or is not
        finite.
    """
    embeddings = [np.asarray(z, dtype=np.float32) for z in embedding.of(slides, learn_from)]
    if [len(z) for z in embeddings] != [slide.n_obs for slide in slides]:
        raise InputError(f"{embedding.name}: not one row per spot; give an embedding of each slide")
    if not all(np.isfinite(z).all() for z in embeddings):
        raise InputError(f"{embedding.name}: NaN or infinite values; leave it out or correct it")
    return embeddings


def embedded_by_fold(
    embedding: Embedding, slides: "Sequence[AnnData]", folds: Sequence[Sequence[bool]]
) -> Iterator[list[Singles]]:
    """Embed slides once per fold, fitted to the training slides of the fold.

    Models are trained already and controls are not fitted, so they embed once, fitted to no slide;
    and so does what is always fitted to all slides.
    """
    if embedding.kind != "baseline" or embedding.transductive:
        once = embedded(embedding, slides, [embedding.transductive] * len(slides))
        for _ in folds:
            yield once
        return
    for learn_from in folds:
        yield embedded(embedding, slides, learn_from)


def named_pca(embeddings: Sequence[Embedding]) -> Embedding | None:
    """Choose the method for permuted labels: PCA, else the first baseline, else the first."""
    ranked = sorted(embeddings, key=lambda one: (one.name != "PCA", one.kind != "baseline"))
    return ranked[0] if ranked else None


def remarks(embeddings: Sequence[Embedding]) -> list[str]:
    """Collect the notes on the methods."""
    return [f"{one.name}: {one.note}." for one in embeddings if one.note]
