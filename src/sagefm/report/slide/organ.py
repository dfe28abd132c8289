"""Choose the lists of marker genes that go with the organ of a slide."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sagefm.pp.markers import marker_sets

if TYPE_CHECKING:
    from sagefm.report.judge import Quality

GENERAL = "general"
_GROUPS: dict[str, tuple[str, ...]] = {
    "breast|mamma": ("breast",),
    "brain|cerebr|cortex|dlpfc|hippocamp": ("brain", "cortex"),
    "heart|cardi|ventric": ("heart",),
    "liver|hepat": ("liver",),
    "colon|colorect|intestin|bowel|gut|rectum|stomach|gastric|duoden|ileum|jejun": ("gut",),
    "prostat": ("prostate",),
    "thyroid": ("thyroid",),
    "kidney|renal": ("kidney",),
    "lung|pulmon|bronch": ("lung",),
    "lymph|tonsil|spleen|thymus": ("lymphoid organ",),
    "ovar|uter|endometri|cervix|fallop": ("ovary and uterus",),
    "pancrea": ("pancreas",),
    "placenta": ("placenta",),
    "skin|derm|melanom": ("skin",),
    "adrenal": ("adrenal",),
    "bladder|urothel": ("bladder",),
}
"""Words for an organ → groups of marker sets."""


def marker_groups(organ: str, quality: "Quality | None") -> tuple[list[str], str]:
    """Choose groups of marker sets, and say why.

    Parameters
    ----------
    organ
        What the slide says of its organ; may be empty.
    quality
        Where the nearest training slides are named, which are believed where all of them are of
        one organ.
    """
    if groups := groups_of(organ):
        return [GENERAL, *groups], f"the slide is of {organ}"
    nearest = _nearest(quality)
    found = [groups_of(text) for text in nearest]
    if len(found) > 1 and found[0] and all(groups == found[0] for groups in found):
        return [GENERAL, *found[0]], "its counts are most similar to training slides of this organ"
    return [GENERAL], "the file does not say the organ"


def groups_of(organ: str) -> tuple[str, ...]:
    """Find the groups of marker sets of an organ."""
    for words, groups in _GROUPS.items():
        if re.search(words, organ, re.IGNORECASE):
            return groups
    return ()


def _nearest(quality: "Quality | None") -> list[str]:
    """List the nearest training slides with their organs, if the slide lies near to them."""
    if quality is None or "nearest_slide" not in quality.facts.index:
        return []
    fact = quality.facts.loc["nearest_slide"]
    listed = str(fact["said"]).partition(":")[2]
    return re.split(r"\), ", listed) if fact["grade"] == "good" else []


def well_known(groups: list[str]) -> dict[str, str]:
    """Map each marker gene to the first set that has it: those of the organ, then the others."""
    known: dict[str, str] = {}
    for group in [*groups[1:], groups[0]]:
        for name, genes in marker_sets(group).items():
            for gene in genes:
                known.setdefault(gene, name)
    return known


def some_of_each(genes: Sequence[str], groups: list[str], at_most: int) -> list[str]:
    """Keep the first genes that mark cells of the organ, and the first that mark others."""
    of_organ = {gene for group in groups[1:] for s in marker_sets(group).values() for gene in s}
    own = [gene for gene in genes if gene in of_organ]
    others = [gene for gene in genes if gene not in of_organ]
    n = at_most // 2 if own else 0
    n = max(n, at_most - len(others))
    return [*own[:n], *others[: at_most - len(own[:n])]]
