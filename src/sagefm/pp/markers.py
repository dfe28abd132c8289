"""Sets of marker genes of cell types, cortical layers and processes."""

import csv
from collections.abc import Sequence
from functools import cache
from importlib import resources

from sagefm._errors import InputError


def marker_sets(group: str | Sequence[str] | None = None) -> dict[str, tuple[str, ...]]:
    """Get well-known marker genes of human cell types, cortical layers and processes.

    Parameters
    ----------
    group
        One or several groups: ``"general"`` (cell types of most tissues), an organ such as
        ``"breast"`` or ``"brain"``, ``"cortex"`` (layers of the cerebral cortex and white matter),
        or ``"process"`` (proliferation, hypoxia, …). All of them if not given.

    Returns
    -------
    For each set its genes, as symbols. A gene may be in several sets.

    Raises
    ------
    InputError
        There is no such group; the message names those there are.

    Examples
    --------
    >>> import sagefm
    >>> sagefm.pp.marker_sets("cortex")["white matter"][:3]
    ('MOBP', 'MBP', 'PLP1')
    """
    table = _table()
    groups = list(table) if group is None else [group] if isinstance(group, str) else list(group)
    unknown = [name for name in groups if name not in table]
    if unknown or not groups:
        what = repr(unknown[0]) if unknown else "nothing"
        raise InputError(f"{what}: no group of marker sets; choose from {', '.join(table)}")
    return {name: genes for group in groups for name, genes in table[group].items()}


@cache
def _table() -> dict[str, dict[str, tuple[str, ...]]]:
    """Read the shipped sets by group."""
    text = (resources.files("sagefm.pp") / "genes" / "markers.csv").read_text("utf-8")
    table: dict[str, dict[str, tuple[str, ...]]] = {}
    for row in csv.DictReader(text.splitlines()):
        table.setdefault(row["group"], {})[row["name"]] = tuple(row["genes"].split())
    return table
