"""Merge domains into fewer: cut the hierarchy that the consensus found."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from sagefm._errors import InputError
from sagefm._keys import DOMAIN, PROVENANCE
from sagefm.tl.clustering._domains import named_slides

if TYPE_CHECKING:
    from anndata import AnnData


def coarsen(
    slides: "AnnData | Sequence[AnnData] | Mapping[str, AnnData]",
    n_domains: int,
    *,
    key_added: str | None = None,
) -> None:
    """Merge the domains of :func:`domains` until there are fewer, those that mix most first.

    Every coarse domain is a union of fine ones. To cut finer, find more domains first.

    Parameters
    ----------
    slides
        A slide or several after one call of :func:`domains` with the consensus.
    n_domains
        How many to keep, 1 to the number of domains.
    key_added
        Key in ``obs``; ``"sagefm_domain_3"`` for three, if not given.

    Returns
    -------
    Nothing. Sets in every slide ``obs[key_added]``, each domain named after the fine domains in it,
    such as ``"1+4"``.

    Raises
    ------
    InputError
        A slide has no domains of the consensus, or fewer than `n_domains`.
    """
    names, given = named_slides(slides)
    columns = []
    for name, slide in zip(names, given, strict=True):
        settings = slide.uns.get(PROVENANCE, {}).get("domains", {})
        if "merges" not in settings or settings["key"] not in slide.obs:
            raise InputError(
                f"{name}: has no domains of the consensus; run sagefm.tl.domains first"
            )
        fine = slide.obs[settings["key"]]
        groups = {str(one): [str(one)] for one in fine.cat.categories}
        if not 1 <= n_domains <= len(groups):
            raise InputError(
                f"n_domains={n_domains}: the slide has {len(groups)} domains; request 1 to "
                f"{len(groups)}, or find more first"
            )
        merges = settings["merges"]
        for kept, merged in zip(merges["domain"], merges["merged"], strict=True):
            if len(groups) == n_domains:
                break
            groups[str(kept)] += groups.pop(str(merged))
        merged_name = {
            one: "+".join(sorted(group, key=int)) for group in groups.values() for one in group
        }
        order = list(dict.fromkeys(merged_name[str(one)] for one in fine.cat.categories))
        columns.append(pd.Categorical(fine.astype(str).map(merged_name), categories=order))
    for slide, column in zip(given, columns, strict=True):
        slide.obs[key_added or f"{DOMAIN}_{n_domains}"] = column
