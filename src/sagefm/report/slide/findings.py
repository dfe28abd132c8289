"""The sections of a report on domains and on rare spots."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sagefm import tl
from sagefm._errors import InputError
from sagefm._keys import DOMAIN, RARE_POPULATION
from sagefm._text import numbered
from sagefm._uns import provenance
from sagefm.pl import domain_markers, journal
from sagefm.pl import rare as draw_rare
from sagefm.report.drawing import class_map, grid, shades_of
from sagefm.report.rendering import figure_png, figure_svg
from sagefm.report.slide.subject import Section, Subject, sentence

if TYPE_CHECKING:
    from sagefm.tl import Description

_COLORS = 256
_GENES = 6
_RARE_GENES = 8
_POPULATIONS = 5
_UNSTABLE = 0.75
"""Agreement with the domains of half of the counts below which they are called unstable."""
_Q = 0.05
_LEAST_SPOTS = 40
"""Spots from which a report looks for domains."""
_UNCLEAR = "no clear name"


def domains(subject: Subject) -> Section:
    """Find domains, draw them, and describe each."""
    slide = subject.slide
    if slide.n_obs < _LEAST_SPOTS and subject.n_domains is None:
        raise InputError(f"{slide.n_obs} spots are too few to choose a number of domains")
    tl.domains(slide, subject.n_domains, seed=subject.seed, **subject.how)
    labels = slide.obs[DOMAIN]
    found = list(labels.cat.categories)
    described = None
    why = "There is only one domain: nothing marks it."
    if len(found) > 1:
        try:
            described = tl.describe(
                slide, DOMAIN, names=subject.groups, seed=subject.seed, **subject.how
            )
        except InputError as error:
            why = sentence(str(error))
    shades = shades_of(len(found))
    with journal():
        figure, axes = grid(subject.points, 1, 1)
        figure.set_size_inches(5.2, figure.get_size_inches()[1] * 5.2 / 6.6)
        class_map(subject.drawn({DOMAIN: labels}), DOMAIN, shades, axes[0])
    caption = (
        f"{sentence(numbered(len(found), 'domain'))[:-1]}, numbered from the largest to the "
        f"smallest; lines are their borders.{subject.which}"
    )
    return {
        "map": figure_png(figure, caption, colors=_COLORS),
        "about": _chosen(subject),
        "names": (
            f"Names are suggested by lists of marker genes ({', '.join(subject.groups)}: "
            f"{subject.why_groups}); --names takes others."
        ),
        "rows": _rows(labels, shades, described),
        "why_no_markers": "" if described is not None else why,
        "dots": None if described is None else _dots(described),
    }  # fmt: skip


def _chosen(subject: Subject) -> list[str]:
    """Say how the number was chosen, and how stable the domains are."""
    settings = provenance(subject.slide, "domains")
    number = int(settings["n_domains"])
    table = settings.get("stability")
    lines = [
        "Domains are found from the counts of all genes, without the model: the verdicts on the "
        "model are not about them."
    ]
    row = None
    if isinstance(table, pd.DataFrame):
        same = table[table["n_domains"] == number]
        row = same.iloc[0] if len(same) else None
    if subject.n_domains is not None:
        lines.append(f"{numbered(subject.n_domains, 'domain')} were requested.")
    elif row is not None:
        lines.append(
            f"{numbered(number, 'domain')}: the number, 2 to 12, on which different views of the "
            "counts, half of the counts and other seeds agree best, with a preference for 4 to 7."
        )
    if row is not None:
        agreement = float(row["consensus"])
        stable = agreement >= _UNSTABLE
        lines.append(
            f"From half of the counts the same domains are found with an adjusted Rand index of "
            f"{agreement:.2f} (1: the same; 0: no more than by chance)"
            + (
                ". Stable is not the same as right."
                if stable
                else ": they are not stable, and other borders fit these counts too."
            )
        )
    confidence = subject.slide.obs.get(f"{DOMAIN}_confidence")
    if confidence is not None:
        unsure = float((confidence < 0.5).mean())
        if unsure >= 0.005:
            lines.append(
                f"{unsure:.0%} of the spots belong to their domain in less than half of the "
                "clusterings that were combined; most of them lie at borders."
            )
    return lines


def _rows(
    labels: "pd.Series[str]", shades: list[str], described: "Description | None"
) -> list[dict[str, object]]:
    """Tabulate the domains: size, shape, suggested name and markers."""
    counts = labels.value_counts(sort=False)
    rows = []
    for shade, domain in zip(shades, labels.cat.categories, strict=True):
        n = int(counts[domain])
        row: dict[str, object] = {
            "domain": domain, "shade": shade, "spots": f"{n:,}",
            "fraction": f"{n / len(labels):.0%}", "area": "", "parts": "", "name": "",
            "evidence": "", "genes": [],
        }  # fmt: skip
        if described is not None:
            row |= _described(described, str(domain))
        rows.append(row)
    return rows


def _described(described: "Description", domain: str) -> dict[str, object]:
    shape = described.sections[described.sections["domain"] == domain]
    area = shape["area_mm2"].sum(min_count=1) if "area_mm2" in shape else np.nan
    named = described.names.set_index("domain").loc[domain]
    own = described.markers[described.markers["domain"] == domain].head(_GENES)
    clear = named["name"] != _UNCLEAR
    return {
        "area": "" if pd.isna(area) else f"{area:.2f}" if area < 10 else f"{area:,.0f}",
        "parts": f"{int(shape['n_parts'].sum()):,}",
        "name": str(named["name"]) if clear else "",
        "evidence": str(named["genes"]) if clear else "",
        "genes": [
            (gene, f"{times:.1f}", sure)
            for gene, times, sure in zip(
                own["gene"], np.exp2(own["log2_fold"]), own["q"] <= _Q, strict=True
            )
        ],
    }


def _dots(described: "Description") -> dict[str, object] | None:
    if described.markers.empty:
        return None
    n = max(2, min(5, 40 // max(len(described.names), 1)))
    ax = domain_markers(described, n_genes=n, show=False)
    longest = max(len(str(gene)) for gene in described.markers.groupby("domain").head(n)["gene"])
    width, height = ax.figure.get_size_inches()  # type: ignore[union-attr]
    ax.figure.set_size_inches(width, height + 0.06 * max(longest - 8, 0))  # type: ignore[union-attr]
    return figure_svg(
        ax.figure,  # type: ignore[arg-type]
        f"The first {n} markers of each domain. The area of a dot is the fraction of spots with "
        "the gene, its shade the counts per 10,000 relative to the domain with most of it.",
    )


def rare(subject: Subject) -> Section:
    """Find spots with an excess of genes that few others have."""
    slide = subject.slide
    spots, genes = tl.rare(slide, seed=subject.seed, **subject.how)
    beyond = int(provenance(slide, "rare")["n_beyond_noise"])
    if not beyond:
        return {"why": (
            "No spot has an excess of genes beyond noise. Fewer than about six spots of a kind "
            "are not found."
        )}  # fmt: skip
    kinds = [k for k in slide.obs[RARE_POPULATION].cat.categories if k != "-"]
    rows = []
    for kind in kinds[:_POPULATIONS]:
        own = spots[spots["population"] == kind]
        where = ""
        if DOMAIN in own:
            shares = own[DOMAIN].value_counts(normalize=True)
            where = ", ".join(f"{name} ({value:.0%})" for name, value in shares.head(2).items())
        top = genes[genes["population"] == kind].head(_RARE_GENES)
        rows.append((kind, f"{len(own):,}", where, ", ".join(map(str, top["gene"]))))
    top = genes[genes["population"] == "listed"].head(_RARE_GENES)
    first = slide[subject.codes == 0].copy() if subject.n_sections > 1 else slide
    axes = draw_rare(first, show=False)
    return {
        "about": (
            f"{sentence(numbered(beyond, 'spot'))[:-1]} of {slide.n_obs:,} "
            f"{'has' if beyond == 1 else 'have'} an excess of genes that few other spots have, "
            "beyond what counting noise explains (false discovery rate 10%). "
            + (
                f"They form {numbered(len(kinds), 'population')} of three or more similar spots."
                if kinds else "No three of them are similar enough to form a population."
            )
        ),
        "rows": rows,
        "left": max(len(kinds) - _POPULATIONS, 0),
        "genes": "" if rows else ", ".join(map(str, top["gene"])),
        "picture": figure_png(
            axes[0].figure,  # type: ignore[arg-type]
            f"Score of each spot, with a ring around the {len(spots):,} highest, which are listed "
            f"whether beyond noise or not; and their genes.{subject.which}", colors=_COLORS,
        ),
    }  # fmt: skip
