"""The embeddings that are compared: baselines, those in the slides, models and controls."""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sagefm._errors import InputError, logger
from sagefm._text import few
from sagefm.evaluate.baselines.embedding import Embedding
from sagefm.evaluate.baselines.harmony import harmony
from sagefm.evaluate.baselines.mofa import mofa_factors
from sagefm.evaluate.baselines.pca import joint_pca, ring_means, variable_genes
from sagefm.evaluate.baselines.untrained import Untrained, untrained, untrained_models

if TYPE_CHECKING:
    from anndata import AnnData

    from sagefm.evaluate.baselines.embedding import Embed
    from sagefm.model import SageFM

N_DRAWS = 3
"""Draws of random weights and of random numbers."""

_RAW_GENES = 3000
_MOFA_GENES = 2000
_RANDOM_WIDTH = 50
_JOINT = 15
"""Spots that the methods for several slides average over."""


def competitors(
    models: "Mapping[str, SageFM]",
    *,
    obsm: Sequence[str] = (),
    mofa: bool = True,
    seed: int = 0,
) -> list[Embedding]:
    """List the embeddings to compare: baselines first, then what is evaluated, then controls.

    Parameters
    ----------
    models
        Name → model.
    obsm
        Keys of embeddings in the slides, from any method.
    mofa
        Whether to include MOFA (about 10 ms per spot). Without mofapy2 it is left out, with a
        warning.
    seed
        Of the solvers, the random weights and the random numbers.

    Returns
    -------
    Baselines: raw HVG (log1p, 3,000 most variable genes), PCA of these genes (50 components) and of
    their 7-spot means, PCA of 7- and of 15-spot means of all genes, NichePCA (of 25-spot means),
    the aggregation of CellCharter (components of all genes, and their means over three rings).
    For several slides together: joint PCA (15-spot means of all genes, centered in each slide)
    and, with harmonypy, Harmony. MOFA (20 factors of 2,000 genes). Then an embedding for each key
    of `obsm` and for each model. Controls: the networks of the models with random weights, drawn
    three times, and random numbers.

    Raises
    ------
    InputError
        Two of them have the same name.
    """
    embeddings = [*_components(seed), *_of_several(seed)]
    if mofa and find_spec("mofapy2") is None:
        logger.warning("MOFA is left out: mofapy2 is missing; pip install sagefm[evaluate]")
    elif mofa:
        note = "is fitted to every slide that it embeds: it has no projection for new data"
        embeddings.append(Embedding("MOFA", "baseline", partial(_mofa, seed=seed), note, True))
    embeddings += [Embedding(f"obsm {key}", "model", partial(_in_slides, key=key)) for key in obsm]
    controls = untrained_models(models)
    embeddings += [
        Embedding(name, "model", partial(_embedded, model=model), untrained=controls[name])
        for name, model in models.items()
    ]
    embeddings += [_untrained(network, seed) for network in untrained(models)]
    numbers = [partial(_random, seed=seed + i) for i in range(N_DRAWS)]
    embeddings.append(Embedding("random numbers", "control", numbers[0], draws=tuple(numbers[1:])))
    twice = [name for name, n in Counter(one.name for one in embeddings).items() if n > 1]
    if twice:
        raise InputError(f"models: two methods would have the name {few(twice)}; rename the model")
    return embeddings


def _components(seed: int) -> list[Embedding]:
    """List what needs expression alone, and embeds one slide as well as several."""
    every: dict[str, Embed] = {
        "raw HVG": _raw,
        "PCA": partial(joint_pca, seed=seed),
        "PCA of 7-spot means": partial(joint_pca, smooth=7, seed=seed),
        "PCA of 7-spot means, all genes": partial(joint_pca, n_genes=None, smooth=7, seed=seed),
        "PCA of 15-spot means, all genes": partial(joint_pca, n_genes=None, smooth=15, seed=seed),
        "NichePCA": partial(joint_pca, n_genes=None, smooth=25, seed=seed),
        "CellCharter aggregation": partial(ring_means, seed=seed),
    }
    notes = {
        "NichePCA": "PCA of 25-spot means of all genes, the order of its published defaults",
        "CellCharter aggregation": "principal components of all genes of a spot, and their means "
        "over the rings of 6, 12 and 18 spots around it; CellCharter itself takes those of scVI",
    }
    return [Embedding(name, "baseline", of, notes.get(name, "")) for name, of in every.items()]


def _of_several(seed: int) -> list[Embedding]:
    """List what differs from other methods only if several slides are embedded together."""
    centered = partial(joint_pca, n_genes=None, smooth=_JOINT, center=True, seed=seed)
    note = f"PCA of {_JOINT}-spot means of all genes that the slides share, centered in each slide"
    found = [Embedding("joint PCA", "baseline", centered, note, joint=True)]
    if find_spec("harmonypy") is None:
        logger.info("Harmony is left out: harmonypy is missing; pip install harmonypy")
    else:
        note = f"of the components of {_JOINT}-spot means of all genes; is fitted to every slide"
        of = partial(harmony, smooth=_JOINT, seed=seed)
        found.append(Embedding("Harmony", "baseline", of, note, True, joint=True))
    return found


def _raw(slides: "Sequence[AnnData]", learn_from: Sequence[bool]) -> list[NDArray[np.float32]]:
    return [part.toarray() for part in variable_genes(slides, learn_from, _RAW_GENES)]


def _mofa(
    slides: "Sequence[AnnData]", learn_from: Sequence[bool], *, seed: int
) -> list[NDArray[np.float32]]:
    """Fit to all slides, whatever `learn_from` says, as one group of spots."""
    parts = [part.toarray() for part in variable_genes(slides, [True] * len(slides), _MOFA_GENES)]
    factors = mofa_factors(np.concatenate(parts), seed=seed)
    return np.split(factors, np.cumsum([len(part) for part in parts])[:-1])


def _in_slides(
    slides: "Sequence[AnnData]", learn_from: Sequence[bool], *, key: str
) -> list[NDArray[np.float32]]:
    embeddings = []
    for slide in slides:
        if key not in slide.obsm:
            raise InputError(
                f"obsm[{key!r}]: is missing in a slide, which has "
                f"{few(slide.obsm, 20) or 'nothing'}; add it to every slide, or leave it out"
            )
        stored = slide.obsm[key]
        dense = stored.toarray() if hasattr(stored, "toarray") else stored
        values = np.asarray(dense, dtype=np.float32)
        if values.ndim != 2 or not np.isfinite(values).all():
            raise InputError(
                f"obsm[{key!r}]: is not a table of finite numbers, spots × width; embed again"
            )
        embeddings.append(values)
    widths = sorted({values.shape[1] for values in embeddings})
    if len(widths) > 1:
        raise InputError(
            f"obsm[{key!r}]: is {few(widths)} wide in different slides; "
            "embed all slides with the same model"
        )
    return embeddings


def _embedded(
    slides: "Sequence[AnnData]", learn_from: Sequence[bool], *, model: "SageFM"
) -> list[NDArray[np.float32]]:
    return [model.embed(slide) for slide in slides]


def _untrained(network: Untrained, seed: int) -> Embedding:
    drawn = [partial(_embedded, model=network.draw(seed + i)) for i in range(N_DRAWS)]
    note = f"the network of {few(network.models)}, untrained, in {N_DRAWS} draws (one for subtypes)"
    return Embedding(network.name, "control", drawn[0], note, draws=tuple(drawn[1:]))


def _random(
    slides: "Sequence[AnnData]", learn_from: Sequence[bool], *, seed: int
) -> list[NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(len(s), _RANDOM_WIDTH)).astype(np.float32) for s in slides]
