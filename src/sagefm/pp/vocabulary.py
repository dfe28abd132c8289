"""The ordered genes that a model knows, and how the genes of a slide map to them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from sagefm._errors import InputError
from sagefm._files import replacing
from sagefm._text import few
from sagefm.pp.gene_names import GeneNames, bare_id, known_gene_names, looks_like_mouse

MINIMUM_SHARE = 0.1
"""Smallest fraction of a slide's counts that a vocabulary must carry: below it the slide's genes
are something else (another species, probe ids), and predictions would be about zeros."""
MINIMUM_GENES = 100
"""Smallest number of matched genes (a tenth of the vocabulary where that is less)."""


@dataclass(frozen=True)
class Vocabulary:
    """The ordered genes of a model.

    Parameters
    ----------
    symbols
        Gene symbols, in the order of the model's inputs and outputs, each once.
    ensembl
        Their Ensembl ids without version, empty where not known; where none are given, genes that
        are named by their Ensembl id have it.

    Raises
    ------
    InputError
        A symbol is duplicated, there is none, or the two lists differ in length.
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
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: is not a text file with one gene symbol per line") from error
        fields = [line.split("\t") for line in lines if line.strip()]
        symbols = tuple(field[0].strip() for field in fields)
        ensembl = tuple(bare_id(field[1].strip()) if len(field) > 1 else "" for field in fields)
        try:
            return cls(symbols, ensembl)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error

    def with_known_ids(self, known: GeneNames | None = None) -> "Vocabulary":
        """Fill in the Ensembl ids that are missing here and known elsewhere.

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
        """Find genes, by symbol or Ensembl id, in the vocabulary.

        Raises
        ------
        InputError
            A gene is not in the vocabulary; the message offers the nearest names.
        """
        genes = [genes] if isinstance(genes, str) else list(genes)
        found = self.find(genes)
        missing = [gene for gene, position in zip(genes, found, strict=True) if position is None]
        if missing:
            raise InputError(self.missing(missing[0]))
        return np.array(found, dtype=np.int64)

    def find(self, genes: Iterable[str]) -> list[int | None]:
        """Find genes as :meth:`positions` does, with None for those that are not there."""
        by_id = {e: i for i, e in enumerate(self.ensembl) if e}
        return [self.index.get(gene, by_id.get(bare_id(gene))) for gene in genes]

    def missing(self, gene: str) -> str:
        """Write the message for a gene that is not in the vocabulary, with the nearest names."""
        from difflib import get_close_matches

        near = get_close_matches(gene.upper(), self.symbols, n=3)
        offer = f"; did you mean {' or '.join(near)}?" if near else ""
        return f"{gene}: not one of the model's genes{offer}"

    def align(
        self, names: Sequence[str], ids: Sequence[str] | None = None, known: GeneNames | None = None
    ) -> "Alignment":
        """Map the genes of a slide to the vocabulary.

        A gene is matched by symbol, else by Ensembl id (without version), else as a previous
        symbol or alias that means one gene only. A vocabulary gene that one route has found is not
        looked for by the next, so that an alias never adds to the gene that carries the name now.

        Parameters
        ----------
        names
            Names of the slide's genes: symbols or Ensembl ids.
        ids
            Their Ensembl ids, where the slide has them (several of one gene joined by ``;``).
        known
            What is known about gene names; :func:`~sagefm.pp.gene_names.known_gene_names` if not
            given.

        Returns
        -------
        The alignment. It may be poor: :meth:`Alignment.apply` is what refuses.
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
        return Alignment(self, tuple(map(str, names)), columns, by_route)

    def _routes(
        self, names: Sequence[str], ids: Sequence[str] | None, known: GeneNames
    ) -> dict[str, Callable[[int], int | None]]:
        """Give the ways to find gene i of a slide in the vocabulary, the surest first."""
        by_id = {e: i for i, e in enumerate(self.ensembl) if e}
        for ensembl, symbol in known.symbol_of_id.items():
            if symbol in self.index:
                by_id.setdefault(ensembl, self.index[symbol])
        approved = known.symbol_of_alias
        by_approved = {approved[s]: i for s, i in self.index.items() if s in approved} | self.index

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
    """For each gene of the slide its position in the vocabulary, -1 where it is not in it."""
    by_route: dict[str, int]
    """How many vocabulary genes were found by symbol, by Ensembl id and by an earlier name."""

    @property
    def n_matched(self) -> int:
        """How many genes of the vocabulary the slide has."""
        return sum(self.by_route.values())

    @property
    def measured(self) -> NDArray[np.bool_]:
        """For each gene of the vocabulary whether the slide has it."""
        measured = np.zeros(len(self.vocabulary), dtype=bool)
        measured[self.columns[self.columns >= 0]] = True
        return measured

    def share_of_counts(self, counts: csr_matrix) -> float:
        """Fraction of the slide's counts that lie on genes of the vocabulary."""
        total = float(counts.data.sum(dtype=np.float64))
        matched = (self.columns >= 0)[counts.indices]
        kept = float(counts.data.sum(dtype=np.float64, where=matched))
        return kept / total if total else 0.0

    def describe(self, counts: csr_matrix) -> str:
        """One line: how many genes matched, by which route, and what they carry."""
        size = len(self.vocabulary)
        routes = ", ".join(f"{n:,} by {route}" for route, n in self.by_route.items() if n)
        return (
            f"matched {self.n_matched:,} of {size:,} model genes"
            f"{f' ({routes})' if routes else ''}, which carry "
            f"{self.share_of_counts(counts):.1%} of the counts; "
            f"{size - self.n_matched:,} model genes are not on the slide"
        )

    def apply(self, counts: csr_matrix) -> csr_matrix:
        """Give the counts of a slide the columns of the vocabulary.

        Parameters
        ----------
        counts
            Spots × genes of the slide.

        Returns
        -------
        Spots × vocabulary. Genes that fell on one position are summed, missing genes are 0.

        Raises
        ------
        InputError
            Fewer than :data:`MINIMUM_GENES` genes matched, or they carry less than
            :data:`MINIMUM_SHARE` of the counts.
        """
        too_few = self.n_matched < min(MINIMUM_GENES, len(self.vocabulary) / 10)
        if too_few or self.share_of_counts(counts) < MINIMUM_SHARE:
            raise InputError(f"{self.describe(counts)}: too little to go on; {self._remedy()}")
        return self.select(counts)

    def select(self, values: csr_matrix) -> csr_matrix:
        """Do the same with any values, and however little matched."""
        matched = np.flatnonzero(self.columns >= 0)
        kept = values[:, matched]
        columns = self.columns[matched][kept.indices]
        shape = (values.shape[0], len(self.vocabulary))
        aligned = csr_matrix((kept.data, columns, kept.indptr), shape=shape)
        if len(matched) > self.n_matched:
            aligned.sum_duplicates()
        return aligned

    def _remedy(self) -> str:
        if looks_like_mouse(self.names):
            return "these look like mouse genes: map them to their human orthologs first"
        if self.n_matched > len(self.names) / 10:
            return "the slide lacks most of the model's genes: use a model of the genes it has"
        if sum(name.startswith("ENSG") for name in self.names) > len(self.names) / 2:
            return (
                "these are Ensembl ids and the model has only symbols: put the symbols into "
                "var_names, or set SAGEFM_GENES to a folder with hgnc_complete_set.txt"
            )
        return f"are these human gene symbols ({few(self.names)})? Put symbols into var_names"
