"""The ordered genes of a model, and how the genes of a slide map to them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from sagefm._errors import InputError, logger
from sagefm._files import replacing
from sagefm._text import few
from sagefm._validate import short
from sagefm.pp.columns import ColumnMap, remapped
from sagefm.pp.gene_forms import fault, of_another_species, recognize, what_it_is
from sagefm.pp.gene_names import GeneNames, bare_id, known_gene_names

MINIMUM_FRACTION = 0.1
"""Minimum fraction of the counts of a slide on genes of the vocabulary: below it, the genes are
of another kind (another species, probe ids)."""
MINIMUM_GENES = 100
"""Minimum number of matched genes (or a tenth of the vocabulary, if that is less)."""


def is_name(value: object) -> bool:
    """Whether a value can name a gene: text in one line, not empty."""
    return isinstance(value, str) and value.isprintable() and value != ""


@dataclass(frozen=True)
class Vocabulary:
    """The ordered genes of a model.

    Parameters
    ----------
    symbols
        Gene symbols without duplicates, in the order of the inputs and outputs of the model.
    ensembl
        Their Ensembl ids without version, empty if not known. If none are given, the names that are
        Ensembl ids are used.

    Raises
    ------
    InputError
        A symbol is duplicated or no text, there are no symbols, or the two lists differ in length.
    """

    symbols: tuple[str, ...]
    ensembl: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.symbols:
            raise InputError("the vocabulary is empty; give one gene symbol per line")
        if not self.ensembl:
            ids = tuple(bare_id(s) if s.startswith("ENSG") else "" for s in self.symbols)
            object.__setattr__(self, "ensembl", ids)
        if len(self.ensembl) != len(self.symbols):
            raise InputError(
                f"the vocabulary has {len(self.symbols)} symbols, but {len(self.ensembl)} ids"
            )
        odd = [symbol for symbol in self.symbols if not is_name(symbol)]
        odd += [ensembl for ensembl in self.ensembl if ensembl != "" and not is_name(ensembl)]
        if odd:
            raise InputError(
                f"the vocabulary names {short(odd[0])}, which is no name of a gene; give symbols"
            )
        if len(self.index) < len(self.symbols):
            twice = [s for i, s in enumerate(self.symbols) if self.index[s] != i]
            raise InputError(f"the vocabulary names {few(twice)} more than once; keep one of each")

    def __len__(self) -> int:
        return len(self.symbols)

    def __iter__(self) -> Iterator[str]:
        return iter(self.symbols)

    def __contains__(self, symbol: object) -> bool:
        return symbol in self.index

    def __getitem__(self, position: int) -> str:
        return self.symbols[position]

    @cached_property
    def index(self) -> dict[str, int]:
        """Position of each symbol."""
        return {symbol: i for i, symbol in enumerate(self.symbols)}

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read a text file: one gene per line, its symbol and, after a tab, its Ensembl id.

        Raises
        ------
        InputError
            The file is missing, is not text, is empty or names a gene twice.
        """
        try:
            lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from error
        except ValueError as error:
            raise InputError(f"{path}: is not a text file with one gene symbol per line") from error
        fields = [line.split("\t") for line in lines if line.strip()]
        symbols = tuple(field[0].strip() for field in fields)
        ensembl = tuple(bare_id(field[1].strip()) if len(field) > 1 else "" for field in fields)
        try:
            return cls(symbols, ensembl)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error

    def with_known_ids(self, known: GeneNames | None = None) -> "Vocabulary":
        """Fill in missing Ensembl ids that are known.

        Parameters
        ----------
        known
            As in :meth:`align`.
        """
        known = known_gene_names() if known is None else known
        pairs = zip(self.symbols, self.ensembl, strict=True)
        ids = tuple(ensembl or known.id_of_symbol.get(symbol, "") for symbol, ensembl in pairs)
        return Vocabulary(self.symbols, ids)

    def write(self, path: str | Path) -> None:
        """Write the text file that :meth:`read` reads."""
        lines = (
            f"{s}\t{e}\n" if e else f"{s}\n"
            for s, e in zip(self.symbols, self.ensembl, strict=True)
        )
        with replacing(path) as beside:
            beside.write_text("".join(lines), encoding="utf-8")

    def positions(self, genes: Iterable[str]) -> NDArray[np.int64]:
        """Get the positions of genes (symbols or Ensembl ids).

        Raises
        ------
        InputError
            A gene is not in the vocabulary; the message suggests similar names.
        """
        genes = [genes] if isinstance(genes, str) else list(genes)
        found = self.find(genes)
        missing = [gene for gene, position in zip(genes, found, strict=True) if position is None]
        if missing:
            raise InputError(self.missing(missing[0]))
        return np.array(found, dtype=np.int64)

    def find(self, genes: Iterable[str]) -> list[int | None]:
        """Get the positions of genes as :meth:`positions`, None for missing genes.

        A previous symbol or alias of a gene is found too, as other forms of its name are (see
        :func:`~sagefm.pp.gene_forms.recognize`); this is logged once.
        """
        by_id = {e: i for i, e in enumerate(self.ensembl) if e}
        genes = list(genes)
        found = [self.index.get(gene, by_id.get(bare_id(gene))) for gene in genes]
        if None in found:
            known = known_gene_names()
            by_approved = self._by_approved(known)
            renamed: dict[str, str] = {}
            for at in (at for at, position in enumerate(found) if position is None):
                name = recognize([genes[at]]).names[0]
                current = known.symbol_of_alias.get(name, name)
                position = self.index.get(name, by_id.get(name, by_approved.get(current)))
                if position is not None:
                    found[at] = position
                    renamed[genes[at]] = self.symbols[position]
            _note_names(renamed)
        return found

    def _by_approved(self, known: GeneNames) -> dict[str, int]:
        """Position of each gene by its approved symbol and by its own."""
        approved = known.symbol_of_alias
        return {approved[s]: i for s, i in self.index.items() if s in approved} | self.index

    def known(self, genes: Iterable[str]) -> list[str]:
        """Leave out genes that are not in the vocabulary, with one warning.

        Raises
        ------
        InputError
            None of them is in the vocabulary; the message suggests similar names.
        """
        names = [genes] if isinstance(genes, str) else list(genes)
        found = dict(zip(names, self.find(names), strict=True))
        known = [name for name in names if found[name] is not None]
        left_out = [name for name in names if found[name] is None]
        if not left_out:
            return known
        reasons = "; ".join(map(self.missing, left_out[:3])) + ("; …" if len(left_out) > 3 else "")
        if not known:
            what = f"none of {len(names)} genes is left: " if len(names) > 1 else ""
            raise InputError(f"{what}{reasons}")
        logger.warning("%d of %d genes are left out: %s", len(left_out), len(names), reasons)
        return known

    def missing(self, gene: str) -> str:
        """Write an error message for a missing gene that suggests similar names."""
        from difflib import get_close_matches

        similar = get_close_matches(gene.upper(), self.symbols, n=3)
        offer = f"; did you mean {' or '.join(similar)}?" if similar else ""
        looks = f" (it looks like {what})" if (what := what_it_is([gene])) else ""
        return f"{gene}: not one of the model's genes{looks}{offer}"

    def align(
        self, names: Sequence[str], ids: Sequence[str] | None = None, known: GeneNames | None = None
    ) -> "Alignment":
        """Map the genes of a slide to the vocabulary.

        A gene is matched by symbol, else by Ensembl id (without version), else as a previous
        symbol or alias that means one gene only. A gene of the vocabulary that one route has
        found is not searched by the next, so that an alias is never added to a gene of that name.

        Parameters
        ----------
        names
            Names of the slide's genes: symbols or Ensembl ids.
        ids
            Their Ensembl ids, if the slide has them (several of one gene joined by ``;``).
        known
            Tables of gene names; :func:`~sagefm.pp.gene_names.known_gene_names` if not
            given.

        Returns
        -------
        The alignment. :meth:`Alignment.apply` raises an error if too few genes match.
        """
        known = known_gene_names() if known is None else known
        columns = np.full(len(names), -1, dtype=np.int32)
        taken: set[int] = set()
        by_route: dict[str, int] = {}
        for route, look_up in self._routes(names, ids, known).items():
            found: dict[int, int] = {}
            for i in np.flatnonzero(columns < 0).tolist():
                position = look_up(i)
                if position is not None and position not in taken:
                    found[i] = position
            columns[list(found)] = list(found.values())
            by_route[route] = len(set(found.values()))
            taken.update(found.values())
        other = of_another_species(names, ids)
        other = other and not of_another_species(self.symbols, self.ensembl)
        wrong = fault(names, ids) if other else ""
        return Alignment(self, tuple(map(str, names)), columns, by_route, wrong)

    def _routes(
        self, names: Sequence[str], ids: Sequence[str] | None, known: GeneNames
    ) -> dict[str, Callable[[int], int | None]]:
        """Get functions that find gene i of a slide in the vocabulary, the most reliable first."""
        by_id = {e: i for i, e in enumerate(self.ensembl) if e}
        for ensembl, symbol in known.symbol_of_id.items():
            if symbol in self.index:
                by_id.setdefault(ensembl, self.index[symbol])
        approved = known.symbol_of_alias
        by_approved = self._by_approved(known)

        def by_any_id(i: int) -> int | None:
            candidates = (names[i], *(ids[i].split(";") if ids else ()))
            return next((by_id[e] for e in map(bare_id, candidates) if e in by_id), None)

        return {
            "symbol": lambda i: self.index.get(names[i]),
            "Ensembl id": by_any_id,
            "previous symbol or alias": lambda i: by_approved.get(approved.get(names[i], names[i])),
        }


@dataclass(frozen=True)
class Alignment:
    """How the genes of one slide map to a vocabulary."""

    vocabulary: Vocabulary
    names: tuple[str, ...]
    columns: NDArray[np.int32]
    """Position of each gene of the slide in the vocabulary, -1 if it is not in it."""
    by_route: dict[str, int]
    """Number of genes found by symbol, by Ensembl id and by a previous symbol or alias."""
    another_species: str = ""
    """Why the genes are those of another species than the vocabulary's, and the remedy."""

    @property
    def n_matched(self) -> int:
        """Number of genes of the vocabulary that the slide has."""
        return sum(self.by_route.values())

    @property
    def measured(self) -> NDArray[np.bool_]:
        """For each gene of the vocabulary whether the slide has it."""
        measured = np.zeros(len(self.vocabulary), dtype=bool)
        measured[self.columns[self.columns >= 0]] = True
        return measured

    def fraction_of_counts(self, counts: csr_matrix) -> float:
        """Compute the fraction of the counts of a slide on genes of the vocabulary."""
        return _fraction(self.select(counts), counts)

    def describe(self, fraction: float) -> str:
        """Summarize in one line how many genes matched, how, and with which fraction of counts."""
        size = len(self.vocabulary)
        routes = ", ".join(f"{n:,} by {route}" for route, n in self.by_route.items() if n)
        return (
            f"matched {self.n_matched:,} of {size:,} model genes"
            f"{f' ({routes})' if routes else ''}, which carry "
            f"{fraction:.1%} of the counts; "
            f"{size - self.n_matched:,} model genes are not on the slide"
        )

    def apply(self, counts: csr_matrix) -> csr_matrix:
        """Align the counts of a slide to the columns of the vocabulary.

        Parameters
        ----------
        counts
            Spots × genes of the slide.

        Returns
        -------
        Spots × vocabulary. Genes at the same position are summed, missing genes are 0.

        Raises
        ------
        InputError
            Fewer than :data:`MINIMUM_GENES` genes matched, or they carry less than
            :data:`MINIMUM_FRACTION` of the counts; or the genes are of another species, even if
            some share their symbols with the vocabulary.
        """
        aligned = self.select(counts)
        self.require_enough(_fraction(aligned, counts))
        return aligned

    def require_enough(self, fraction: float) -> None:
        """Raise the errors of :meth:`apply`, given the fraction of the counts that matched."""
        if self.another_species:
            raise InputError(self.another_species)
        too_few = self.n_matched < min(MINIMUM_GENES, len(self.vocabulary) / 10)
        if too_few or fraction < MINIMUM_FRACTION:
            raise InputError(f"{self.describe(fraction)}: too little to go on; {self._remedy()}")

    def select(self, values: csr_matrix) -> csr_matrix:
        """Align any values as :meth:`apply`, however few genes matched."""
        return remapped(values, ColumnMap(self.columns, len(self.vocabulary)))

    def _remedy(self) -> str:
        if wrong := fault(self.names):
            return wrong
        if self.n_matched > len(self.names) / 10:
            return "the slide lacks most of the model's genes: use a model of the genes it has"
        if sum(name.startswith("ENSG") for name in self.names) > len(self.names) / 2:
            return (
                "these are Ensembl ids and the model has only symbols: put the symbols into "
                "var_names, or set SAGEFM_GENES to a folder with hgnc_complete_set.txt"
            )
        return f"are these human gene symbols ({few(self.names)})? Put symbols into var_names"


def _fraction(kept: csr_matrix, counts: csr_matrix) -> float:
    total = float(counts.data.sum(dtype=np.float64))
    return float(kept.data.sum(dtype=np.float64)) / total if total else 0.0


_noted: set[tuple[str, str]] = set()
"""Genes, and their names in a model, that were logged in this process."""


def _note_names(renamed: dict[str, str]) -> None:
    """Log genes that a model has under other names, in one line and each only once."""
    new = {gene: symbol for gene, symbol in renamed.items() if (gene, symbol) not in _noted}
    _noted.update(new.items())
    shown = few((f"{gene} is taken as {symbol}" for gene, symbol in new.items()), 10)
    if len(new) == 1:
        logger.warning("%s, the name of this gene in the model", shown)
    elif new:
        logger.warning("%d genes have other names in the model: %s", len(new), shown)
