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
from sagefm.evaluate.baselines.mofa import mofa_factors
from sagefm.evaluate.baselines.pca import joint_pca, variable_genes

if TYPE_CHECKING:
    from anndata import AnnData

    from sagefm.model import SageFM

_RAW_GENES = 3000
_MOFA_GENES = 2000
_RANDOM_WIDTH = 50


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
    Baselines: raw HVG (log1p, 3,000 most variable genes), PCA (50 components), PCA of 7- and of
    19-spot means, MOFA (20 factors of 2,000 genes). Then an embedding for each key of `obsm` and
    for each model. Controls: an untrained model like the first one, and random numbers.

    Raises
    ------
    InputError
        Two of them have the same name.
    """
    embeddings = [Embedding("raw HVG", "baseline", _raw)]
    for name, smooth in (("PCA", 1), ("PCA of 7-spot means", 7), ("PCA of 19-spot means", 19)):
        embeddings.append(Embedding(name, "baseline", partial(joint_pca, smooth=smooth, seed=seed)))
    if mofa and find_spec("mofapy2") is None:
        logger.warning("MOFA is left out: mofapy2 is missing; pip install sagefm[evaluate]")
    elif mofa:
        note = "is fitted to every slide that it embeds: it has no projection for new data"
        embeddings.append(Embedding("MOFA", "baseline", partial(_mofa, seed=seed), note, True))
    embeddings += [Embedding(f"obsm {key}", "model", partial(_in_slides, key=key)) for key in obsm]
    embeddings += [
        Embedding(name, "model", partial(_embedded, model=model)) for name, model in models.items()
    ]
    if models:
        embeddings.append(_untrained(*next(iter(models.items())), seed))
    embeddings.append(Embedding("random numbers", "control", partial(_random, seed=seed)))
    twice = [name for name, n in Counter(one.name for one in embeddings).items() if n > 1]
    if twice:
        raise InputError(f"models: two methods would have the name {few(twice)}; rename the model")
    return embeddings


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


def _untrained(name: str, model: "SageFM", seed: int) -> Embedding:
    from sagefm.model import SageFM

    blank = SageFM.new(model.vocabulary, model.config, seed=seed).to(str(model.device))
    note = f"the network of {name}, untrained"
    return Embedding("random weights", "control", partial(_embedded, model=blank), note)


def _random(
    slides: "Sequence[AnnData]", learn_from: Sequence[bool], *, seed: int
) -> list[NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(len(s), _RANDOM_WIDTH)).astype(np.float32) for s in slides]
