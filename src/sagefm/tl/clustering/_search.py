"""Find domains from counts: views of the tissue, how many domains, and what they are."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sagefm._errors import logger
from sagefm._progress import stage
from sagefm._types import Codes, Reals
from sagefm.stats.components import scores, scores_of_many
from sagefm.stats.mixture import fit_mixture
from sagefm.stats.sampling import evenly, is_many
from sagefm.tl._large_tissue import LargeTissue
from sagefm.tl._large_views import views_of
from sagefm.tl._second_modality import SecondModality, SecondViews
from sagefm.tl._tissue import Tissue
from sagefm.tl.clustering._centering import agreement_with_batches, should_center
from sagefm.tl.clustering._consensus import N_STARTS, find_consensus, leading
from sagefm.tl.clustering._number import MAX_SPOTS, MOST, UNSTABLE, Clusterings, best
from sagefm.tl.clustering._result import Domains

if TYPE_CHECKING:
    from anndata import AnnData

_USUAL_NUMBER = 7
"""By which centering is chosen where the number of domains is not known."""
_SPOTS_PER_DOMAIN = 5
_VIEWS_OF_EACH = 3
"""With a second modality, for each view of the expression; fewer starts make up for them."""
_HALVED = 1_000_003
"""Added to the seed of the half of the counts, so that it is no seed of a clustering."""


@dataclass(frozen=True)
class Search:
    """What to find."""

    views: tuple[str, ...]
    n_domains: int | None
    consensus: bool
    centered: bool | None
    seed: int


def find_domains(
    slides: "Sequence[AnnData]",
    batches: Codes,
    sections: Sequence[Codes],
    search: Search,
    added: Reals | None,
    second: SecondModality | None = None,
    *,
    layer: str | None,
) -> Domains:
    """Find the domains of slides from their counts.

    Parameters
    ----------
    batches
        The batch of each spot of all slides.
    sections
        For each slide the section of each spot.
    added
        One more view, spots of all slides × components.
    second
        A second modality: its views, and each joined with that of the expression, are added.
    """
    stage("finding the neighborhoods of %s spots", f"{sum(s.n_obs for s in slides):,}")
    many = is_many(sum(slide.n_obs for slide in slides))
    kind = LargeTissue if many else Tissue
    tissue = kind.of(slides, batches, sections, layer=layer)
    n_domains, seed = search.n_domains, search.seed
    facts: dict[str, Any] = {"centered": _centered(tissue, search)}
    if second is not None:
        facts |= {"with": second.name}
    centered = bool(facts["centered"])
    computed = _compute(tissue, search.views, added, second, centered)
    numbers = _numbers(len(tissue), n_domains)
    if search.consensus and numbers:
        whole, halved = _compare(tissue, computed, search, added, second, centered=centered)
        clusterings = Clusterings.of(whole, halved, numbers, seed)
        table = clusterings.stability(numbers)
        facts |= {"stability": table}
        n_domains = best(table) if n_domains is None else n_domains
        _report(table, n_domains, chosen=search.n_domains is None)
        if second is not None:
            facts |= {"modalities": _by_modality(clusterings, second.name, n_domains)}
    n_domains = n_domains or 1
    back = np.empty(len(tissue), dtype=np.int64)
    back[tissue.order] = np.arange(len(tissue))
    if search.consensus:
        n_starts = N_STARTS if second is None else N_STARTS // _VIEWS_OF_EACH
        agreed = find_consensus(computed, n_domains, seed, n_starts)
        return Domains(agreed.labels[back], agreed.membership[back], agreed.merges(), facts)
    (view,) = computed.values()
    return Domains(fit_mixture(leading(view), n_domains, seed).labels[back], facts=facts)


def _compare(
    tissue: Tissue | LargeTissue,
    computed: dict[str, Reals],
    search: Search,
    added: Reals | None,
    second: SecondModality | None,
    *,
    centered: bool,
) -> tuple[dict[str, Reals], dict[str, Reals]]:
    """Get the views of all counts and of half of them; of many spots, those of a sample."""
    if not isinstance(tissue, LargeTissue):
        return computed, _halved(tissue, search, added, second, centered)
    some = evenly(len(tissue), MAX_SPOTS)
    part, at = tissue.around(some)
    halved = _halved(part, search, added, second, centered)
    return (
        {name: view[some] for name, view in computed.items()},
        {name: view[at] for name, view in halved.items()},
    )


def _halved(
    tissue: Tissue | LargeTissue,
    search: Search,
    added: Reals | None,
    second: SecondModality | None,
    centered: bool,
) -> dict[str, Reals]:
    """Compute the views of a random half of the counts of both modalities."""
    seed = search.seed + _HALVED
    half = None if second is None else second.halved(seed, tissue.order)
    return _compute(tissue.halved(seed), search.views, added, half, centered)


def _centered(tissue: Tissue | LargeTissue, search: Search) -> bool:
    if tissue.batches.max() == 0 or search.centered is not None:
        return bool(search.centered)
    agreement = agreement_with_batches(tissue, search.n_domains or _USUAL_NUMBER, search.seed)
    centered = should_center(agreement)
    logger.info(
        "genes are %scentered in each of %d batches: joined domains agree with those of single "
        "batches to %.2f centered and to %.2f not centered (adjusted Rand index)",
        "" if centered else "not ", tissue.batches.max() + 1, agreement[True], agreement[False],
    )  # fmt: skip
    if not centered:
        logger.warning(
            "the batches differ in what they consist of: genes are not centered (centered=True "
            "does it)"
        )
    return centered


def _compute(
    tissue: Tissue | LargeTissue,
    names: Sequence[str],
    added: Reals | None,
    second: SecondModality | None,
    centered: bool,
) -> dict[str, Reals]:
    views = views_of(tissue, centered=centered)
    computed = {}
    for name in names:
        stage("computing the view %s", name)
        computed[name] = views(name)
    if added is not None:
        computed["embedding"] = views.components(added[tissue.order])
    if second is not None:
        of_second = SecondViews(tissue, second.values, centered=centered)
        for name in names:
            stage("computing the view %s of %s", name, second.name)
            computed[f"{second.name}: {name}"] = other = of_second(name)
            computed[f"{name} and {second.name}"] = joined(computed[name], other)
    return computed


def joined(view: Reals, other: Reals) -> Reals:
    """Join a view of the expression with that of a second modality, scaled to one variance."""
    parts = [_scaled(leading(one)) for one in (view, other)]
    both: Reals = np.hstack(parts)  # type: ignore[assignment]
    return (scores_of_many if is_many(len(both)) else scores)(both, both.shape[1])


def _scaled(values: Reals) -> Reals:
    """Scale to total variance 1."""
    return values / max(float(np.sqrt(values.var(axis=0).sum())), 1e-12)


def _by_modality(clusterings: Clusterings, name: str, n_domains: int) -> pd.DataFrame:
    """Compare the domains of both modalities with those of each.

    Returns
    -------
    A row each for the expression, the second modality and both: `stability`, the adjusted Rand
    index with the domains of half of the counts, and `agreement`, that with the domains of both.
    """
    from sklearn.metrics import adjusted_rand_score

    views = clusterings.names
    second = [view for view in views if view.startswith(f"{name}: ")]
    groups = {
        "expression": [v for v in views if v not in second and not v.endswith(f" and {name}")],
        name: second,
        "both": views,
    }
    found = {key: clusterings.of_views(some).joined(n_domains) for key, some in groups.items()}
    both = found["both"][0]
    table = pd.DataFrame(
        {
            "modality": list(found),
            "stability": [adjusted_rand_score(*one) for one in found.values()],
            "agreement": [adjusted_rand_score(one[0], both) for one in found.values()],
        }
    )
    logger.info(
        "stability of the domains of expression, %s and both: %s; those of each agree with those "
        "of both to %s (adjusted Rand index)",
        name, ", ".join(table["stability"].map("{:.2f}".format)),
        " and ".join(table["agreement"][:2].map("{:.2f}".format)),
    )  # fmt: skip
    return table


def _numbers(n_spots: int, n_domains: int | None) -> list[int]:
    """List the numbers of domains whose stability is measured."""
    most = min(MOST, n_spots // _SPOTS_PER_DOMAIN - 3)
    if n_domains is not None:
        return [n_domains] if 2 <= n_domains <= n_spots // _SPOTS_PER_DOMAIN - 3 else []
    return list(range(2, most + 1))


def _report(table: pd.DataFrame, n_domains: int, *, chosen: bool) -> None:
    """Log how many domains were chosen, and warn where they are not stable."""
    row = table.set_index("n_domains").loc[n_domains]
    if chosen:
        others = table[table["n_domains"] != n_domains].nlargest(2, "score")["n_domains"]
        logger.info(
            "%d domains are chosen (stability %.2f); next: %s",
            n_domains, row["stability"], ", ".join(map(str, others)),
        )  # fmt: skip
    if row["consensus"] < UNSTABLE:
        logger.warning(
            "these %d domains are not stable: another seed and half of the counts give domains "
            "that agree to %.2f (adjusted Rand index; 1 is the same); the slide is too small or "
            "too shallow for so many", n_domains, row["consensus"],
        )  # fmt: skip
