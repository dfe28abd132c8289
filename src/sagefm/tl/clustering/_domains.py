"""Find tissue domains in one slide or in several: groups of spots that are alike."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pandas as pd

from sagefm import __version__
from sagefm._errors import InputError, logger
from sagefm._keys import DOMAIN, EMBEDDING
from sagefm._progress import stage
from sagefm._types import Codes, Positions
from sagefm._uns import record
from sagefm.pp.counts import coordinates
from sagefm.pp.neighborhood import nearest
from sagefm.pp.sections import section_codes
from sagefm.tl._second_modality import SecondModality
from sagefm.tl._views import CONSENSUS
from sagefm.tl.clustering._methods import CLUSTER
from sagefm.tl.clustering._result import Domains, named
from sagefm.tl.clustering._search import Search, find_domains
from sagefm.tl.clustering._space import Space

if TYPE_CHECKING:
    from anndata import AnnData

Method = Literal[
    "consensus", "gmm", "kmeans", "leiden",
    "pca7", "pca15", "pca25", "niche", "similar", "rings", "residuals",
]  # fmt: skip
_SECOND = 0.05
"""Membership below which a second domain is not named."""


def domains(
    slides: "AnnData | Sequence[AnnData] | Mapping[str, AnnData]",
    n_domains: int | None = None,
    *,
    method: Method = "consensus",
    use_rep: str | None = None,
    with_: str | None = None,
    n_components: int = 20,
    smooth: int = 0,
    centered: bool | None = None,
    batch_key: str | None = None,
    seed: int = 0,
    layer: str | None = None,
    slide_key: str | None = None,
    key_added: str = DOMAIN,
) -> pd.DataFrame:
    """Find the domains of a tissue: one set of domains for all slides of the call.

    The default needs no model. Five views of the spots (means of all genes over 7, 15 and 25 spots;
    means of the components of single spots; means over similar neighbors) are clustered, each into
    as many clusters as domains and one to three more, and the domains are what these twenty
    clusterings agree on. Several slides are compared on the genes that all of them measured.

    Above 20,000 spots, clusters are fitted to a sample first and then to all, and the neighbors of
    Leiden are approximate; the order of the spots does not matter.

    Parameters
    ----------
    slides
        A slide or several; raw counts and ``obsm["spatial"]``, or, with `use_rep`, an embedding.
    n_domains
        How many domains to find. None: as many as views, halved counts and other seeds agree on,
        2 to 12, with a preference for 4 to 7 (see ``uns["sagefm"]["domains"]["stability"]``).
    method
        ``"consensus"``; a single view (``"pca7"``, ``"pca15"``, ``"pca25"``, ``"niche"``,
        ``"similar"``, ``"rings"``, ``"residuals"``), clustered by a Gaussian mixture with one
        covariance for all domains (best of 50 starts); or a method that clusters the embedding
        `use_rep`: ``"gmm"``, that mixture; ``"kmeans"`` (best of 10 starts); ``"leiden"``,
        communities of the graph of 15 nearest neighbors, at the resolution that gives `n_domains`,
        or the closest number, with a warning.
    use_rep
        ``obsm`` key to cluster by gmm, kmeans and leiden (``"X_sagefm"`` if not given); with the
        consensus it is one more view. Embeddings of several slides must be comparable.
    with_
        A second modality of the same spots, such as ``"protein"``, for the consensus: the same
        views of it, over the features that all slides have, and each joined with that of the
        expression, scaled to the same variance. A spot that was not measured has the mean of the
        nearest that were.
    n_components
        Principal components of `use_rep` that are kept.
    smooth
        How many times each spot then takes the most frequent domain of its 7 nearest spots (itself
        and, on a hexagonal grid, the first ring); 0 leaves the domains as they are. A small domain
        may lose all its spots, with a warning.
    centered
        Whether the mean of its batch is subtracted from each gene. None: if several batches are
        given, unless joined domains then agree less with those of single batches (logged).
    batch_key
        ``obs`` column with the batch of each spot, such as the patient; each section is a batch if
        it is not given.
    seed
        Seed of the random number generators.
    layer, slide_key
        As in :func:`sagefm.tl.embed`.
    key_added
        Key in ``obs`` for the domains; confidence and second domain have it as their prefix.

    Returns
    -------
    A row for each section: its number of spots, and the fraction of them in each domain. Sets in
    every slide ``obs["sagefm_domain"]``, categories "1", "2", … from the largest domain of all
    slides to the smallest; for the consensus ``obs["sagefm_domain_confidence"]`` (mean agreement of
    the clusterings, 0 to 1) and ``obs["sagefm_domain_second"]`` (the domain that the spot might
    belong to as well, if any); and ``uns["sagefm"]["domains"]`` with the settings. With a second
    modality it holds the table ``"modalities"``: for the expression, the second modality and both,
    how well the domains agree with those of half of the counts (`stability`) and with those of both
    (`agreement`), as adjusted Rand indices.

    Raises
    ------
    InputError
        No raw counts or no such embedding, one with missing values or the same in every spot, no
        gene in common, fewer spots than domains, no such method or batch, or a number out of its
        range.
    """
    names, given = named_slides(slides)
    for name, value, least in (("n_components", n_components, 1), ("smooth", smooth, 0)):
        if value < least:
            raise InputError(f"{name}={value}: give a whole number from {least} on")
    if method not in get_args(Method):
        raise InputError(f"method={method!r}: choose one of {', '.join(get_args(Method))}")
    if use_rep is not None and method not in ("consensus", *CLUSTER):
        raise InputError(
            f"use_rep={use_rep!r}: method={method!r} clusters counts; use the consensus or "
            f"{', '.join(CLUSTER)}"
        )
    if with_ is not None and method != "consensus":
        raise InputError(
            f"with {with_!r}: is for the consensus; for method={method!r} run sagefm.tl.embed with "
            "it, and give use_rep='X_sagefm_joint'"
        )
    n_spots = sum(slide.n_obs for slide in given)
    if n_domains is not None and not 1 <= n_domains <= n_spots:
        what = "the slide has" if len(given) == 1 else "the slides have"
        raise InputError(f"n_domains={n_domains}: {what} {n_spots} spots; request 1 to {n_spots}")
    sections = [section_codes(slide, slide_key) for slide in given]
    if method in CLUSTER:
        if n_domains is None:
            raise InputError(f"method={method!r}: give n_domains; only the consensus chooses it")
        space = Space.of(given, use_rep or EMBEDDING, n_components, seed)
        stage("clustering %s spots by %s", f"{n_spots:,}", method)
        facts = {"use_rep": use_rep or EMBEDDING, "n_components": space.points.shape[1]}
        labels = CLUSTER[method](space.points, n_domains, seed)[space.rank]
        result = Domains(labels, facts=facts)
    else:
        search = Search(
            views=CONSENSUS if method == "consensus" else (method,), n_domains=n_domains,
            consensus=method == "consensus", centered=centered, seed=seed,
        )  # fmt: skip
        added = None
        if use_rep is not None:
            space = Space.of(given, use_rep, n_components, seed)
            added = space.points[space.rank]
        second = None
        if with_ is not None:
            second = SecondModality.of(dict(zip(names, given, strict=True)), with_)
        batches = _batches(given, batch_key, sections)
        result = find_domains(given, batches, sections, search, added, second, layer=layer)
    labels = _smoothed(given, result.labels, smooth, sections) if smooth else result.labels
    _warn(n_domains, labels, method, smooth)
    settings = {
        "key": key_added, "n_domains": len(np.unique(labels)), "method": method, "smooth": smooth,
        "n_sections": sum(int(codes.max()) + 1 for codes in sections),
        "seed": seed, "sagefm": __version__, **result.facts,
    }  # fmt: skip
    _write(given, labels, result, settings)
    return _fractions(names, given, key_added, sections)


def named_slides(
    slides: "AnnData | Sequence[AnnData] | Mapping[str, AnnData]",
) -> "tuple[list[str], list[AnnData]]":
    """Name the slides of a call, by their keys or by number."""
    if isinstance(slides, Mapping):
        names, given = [str(name) for name in slides], list(slides.values())
    else:
        given = [slides] if hasattr(slides, "n_obs") else list(slides)
        names = [f"slide {number}" for number in range(1, len(given) + 1)]
    if not given:
        raise InputError("slides: there are none; give one at least")
    if len({id(slide) for slide in given}) < len(given):
        raise InputError("slides: the same slide is given twice; give each once")
    return names, given


def _batches(
    slides: "Sequence[AnnData]", batch_key: str | None, sections: Sequence[Codes]
) -> Codes:
    """Encode the batch of each spot of all slides."""
    names: list[Any] = []
    for number, (slide, codes) in enumerate(zip(slides, sections, strict=True)):
        if batch_key is None:
            names += [f"{number}/{code}" for code in codes]
            continue
        if batch_key not in slide.obs:
            raise InputError(
                f"obs[{batch_key!r}]: is missing in a slide; name another column with batch_key"
            )
        column = slide.obs[batch_key]
        if column.isna().any():
            raise InputError(f"obs[{batch_key!r}]: is missing for some spots; fill it")
        values = column.astype(str).to_numpy()
        if any(len(set(values[codes == code])) > 1 for code in np.unique(codes)):
            raise InputError(
                f"obs[{batch_key!r}]: differs within a section; a section has one batch"
            )
        names += values.tolist()
    return np.unique(names, return_inverse=True)[1].astype(np.int64)


def _smoothed(
    slides: "Sequence[AnnData]", labels: Codes, rounds: int, sections: Sequence[Codes]
) -> Codes:
    """Let each spot take the most frequent label of its neighborhood, several times."""
    starts = np.cumsum([slide.n_obs for slide in slides])[:-1]
    smoothed = []
    for slide, codes, own in zip(slides, sections, np.split(labels, starts), strict=True):
        neighbors = nearest(coordinates(slide), min(7, slide.n_obs), codes)
        for _ in range(rounds):
            own = _vote(own, neighbors)
        smoothed.append(own)
    return np.concatenate(smoothed)


def _vote(labels: Codes, neighbors: Positions) -> Codes:
    """Give each spot the most frequent label of its neighborhood, its own where that is a tie."""
    votes = np.zeros((len(labels), labels.max() + 1))
    for column in neighbors.T:
        np.add.at(votes, (np.arange(len(labels)), labels[column]), 1)
    votes[np.arange(len(labels)), labels] += 0.5
    return np.asarray(votes.argmax(axis=1))


def _warn(n_domains: int | None, labels: Codes, method: str, smooth: int) -> None:
    n_found = len(np.unique(labels))
    if n_domains is not None and n_found != n_domains:
        logger.warning(
            "%d domains requested, %d found by %s%s; request fewer or choose another method",
            n_domains, n_found, method, f" and {smooth} rounds of smoothing" if smooth else "",
        )  # fmt: skip


def _write(
    slides: "Sequence[AnnData]", labels: Codes, result: Domains, settings: dict[str, Any]
) -> None:
    """Write the domains to each slide, named by their size in all slides."""
    names = named(labels)
    confidence_key, second_key = (f"{settings['key']}_{what}" for what in ("confidence", "second"))
    first = 0
    for slide in slides:
        rows = slice(first, first + slide.n_obs)
        first += slide.n_obs
        slide.obs[settings["key"]] = names.of(labels[rows])
        if result.membership is not None:
            membership = result.membership[rows]
            at = np.arange(len(membership))
            others = membership.copy()
            others[at, labels[rows]] = 0
            second = np.where(others.max(axis=1) >= _SECOND, others.argmax(axis=1), -1)
            slide.obs[confidence_key] = membership[at, labels[rows]]
            slide.obs[second_key] = names.of(second)
            settings = settings | {"merges": names.merges(result.merges)}
        else:  # of an earlier consensus
            slide.obs.drop(columns=[confidence_key, second_key], inplace=True, errors="ignore")
        record(slide, "domains", settings)


def _fractions(
    names: Sequence[str], slides: "Sequence[AnnData]", key: str, sections: Sequence[Codes]
) -> pd.DataFrame:
    """Count the spots of each section, and the fraction in each domain."""
    rows = []
    for given_name, slide, codes in zip(names, slides, sections, strict=True):
        for code in np.unique(codes):
            own = slide.obs[key][codes == code]
            name = given_name + (f", section {code + 1}" if codes.max() else "")
            sizes = own.value_counts(normalize=True, sort=False)
            rows.append({"section": name, "n_spots": len(own), **sizes.to_dict()})
    return pd.DataFrame(rows).set_index("section")
