"""Forms of gene names: which are read as a gene, and what the others are."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

from sagefm._text import few, numbered
from sagefm.pp.gene_names import bare_id, is_date, known_gene_names, looks_like_mouse

ORTHOLOGS = (
    "this is a human model; map them to human orthologs first (mousipy does so for mouse, "
    "g:Orth of gprofiler-official for any species)"
)
"""What to do with the genes of another species."""

_KINDS = {
    "ensembl": r"ENSGR?\d{10,11}(?:\.\d+)?(?:_PAR_Y)?",
    "ensembl_other": r"ENS(?!G\d)[A-Z]{3,6}G\d{11}(?:\.\d+)?|FBgn\d{7}|WBGene\d{8}|AT[1-5MC]G\d{5}",
    "transcript": r"ENS(?:[A-Z]{3,6})?[TPE]\d{11}(?:\.\d+)?|[NX][MRP]_\d+(?:\.\d+)?",
    "number": r"\d+(?:\.0)?",
    "probe": r"ILMN_\d+|A_\d+_P\d+|\w+_at|[^|]+\|[^|]+\|[0-9a-f]{7}",
    "uniprot": r"[OPQ]\d[A-Z0-9]{3}\d(?:-\d+)?|[A-NR-Z]\d(?:[A-Z][A-Z0-9]{2}\d){1,2}(?:-\d+)?",
    "hgnc": r"HGNC:\d+",
}
_KIND = re.compile("|".join(f"(?P<{kind}>{form})" for kind, form in _KINDS.items()))
_WHAT = {
    "transcript": "transcripts or proteins such as {}",
    "number": "numbers such as {}, perhaps Entrez",
    "probe": "probes such as {}",
    "uniprot": "UniProt ids such as {}",
    "hgnc": "HGNC ids such as {}",
    "date": "dates such as {}, which a spreadsheet makes of genes like MARCHF1, MTARC1 and SEPTIN1",
}
_AROUND = " \t\r\n\v\f\0\u00a0\u200b\ufeff\"'`"
"""What is around a name by accident."""
_BYTES = re.compile(r"b'([^']+)'")
_GENOME = re.compile(
    r"(?:GRC[hm]\d\d|hg(?:18|19|38)|CHM13(?:v\d)?|T2T|mm(?:8|9|10|39)|mRatBN\d|rn[4-7]|"
    r"human|mouse|homo_sapiens|mus_musculus)"
    r"(?:[-_.](?:premrna|p\d+|\d{4}-[A-Z]))*[-_.:|]+(?=.)",
    re.IGNORECASE,
)
_HUMAN_GENOME = re.compile("grch|hg|chm13|t2t|h[ou]m", re.IGNORECASE)
_FOREIGN_ID = re.compile(r"(?<![A-Za-z0-9])ENS(?!G\d)[A-Z]{3,6}G\d{11}")
_HUMAN_ID = re.compile(
    r"(?<![A-Za-z0-9])ENSG(?:R(\d{10})|(\d{11}))(?!\d)(?:\.\d+)?(?:[-_.]PAR[-_.]Y)?", re.IGNORECASE
)
_PLAIN_ID = re.compile(r"ENSG\d{11}(?:\.\d+)?")
_SEPARATORS = re.compile(r"[|:;,#()\[\]\s]+")
_MISSING = {"", "nan", "na", "none", "null"}
_HASH = r"[0-9a-f]{7}"
_COPY = re.compile(rf"_+|[-.](?={_HASH}$)")
_NOISE = re.compile(r"\d{1,12}|[0-9a-f]{7,40}|[Pp]robe\d*|[Gg]ene|HGNC")
_PROBE = re.compile(r"[0-9a-f]{7,40}|[Pp]robe\d*")
_SUFFIX = re.compile(r"(?P<base>.+?)(?P<joint>[-._])(?:\d{1,3}|(?<=_)\d+)")
_ZEBRAFISH = re.compile("(?:si|zgc|wu):")
_HUMAN_ONLY = re.compile(r"hla-|c\d+orf\d+$", re.IGNORECASE)

_Found = tuple[str, str, str] | None  # the form, the gene, its Ensembl id


@dataclass
class Forms:
    """The names of the genes of a slide as they are read."""

    names: list[str]
    ids: dict[int, str] = field(default_factory=dict)
    """Ensembl ids that were part of a name, by position."""
    foreign: list[int] = field(default_factory=list)
    """Positions of genes of another species in a slide that has human genes too."""
    notes: list[str] = field(default_factory=list)
    """What was recognized, one line for each form."""


def recognize(names: Sequence[str], ids: Sequence[str] | None = None) -> Forms:
    """Find the genes in names that are more than a symbol or an Ensembl id.

    A name in the tables of gene names is kept. In others, spaces and quotes around the name and the
    prefix of a genome are removed; an Ensembl id or a single known symbol is taken out of a joined
    name; a suffix that makes names unique is removed if the gene itself is there too; and
    punctuation and case are those of the only gene that has these letters. All other names are
    kept.

    Parameters
    ----------
    names
        Names of the genes of a slide.
    ids
        Their Ensembl ids, if known.
    """
    # The same genes are recognized several times from reading a slide to its embedding.
    version = known_gene_names().version
    forms = _recognized(tuple(names), tuple(ids) if ids else None, version)
    return Forms(list(forms.names), dict(forms.ids), list(forms.foreign), list(forms.notes))


@lru_cache(maxsize=2)
def _recognized(names: tuple[str, ...], ids: tuple[str, ...] | None, version: str) -> Forms:
    known = known_gene_names()
    forms, found = Forms(list(names)), Counter[str]()
    examples: dict[str, str] = {}
    reader = _Reader(names, ids)
    for at, name in enumerate(names):
        if not name or _PLAIN_ID.fullmatch(name) or reader.is_name(name):
            continue
        form, forms.names[at], ensembl = reader.read(at, name)
        if ensembl:
            forms.ids[at] = ensembl
        if form:
            found[form] += 1
            examples.setdefault(form, f"{name.strip()} is read as {forms.names[at]}")
    foreign = [at for at, name in enumerate(names) if _is_foreign(name, ids[at] if ids else "")]
    human = {at for at, name in enumerate(forms.names) if name in known or _is_id_of(name)}
    if foreign and len(human.difference(foreign)) > len(names) / 10:
        forms.foreign = foreign
        forms.notes.append(
            f"{numbered(len(foreign), 'gene')} of another species "
            f"({few(names[at] for at in foreign)}) left out: the models are human"
        )
    forms.notes += [
        f"{numbered(n, 'gene name')} {form} ({examples[form]})" for form, n in found.most_common()
    ]
    return forms


def _is_id_of(name: str) -> bool:
    return bare_id(name) in known_gene_names().symbol_of_id


def _is_foreign(name: str, ensembl: str) -> bool:
    genome = _GENOME.match(name)
    if genome and not _HUMAN_GENOME.match(name):
        return True
    text = f"{name} {ensembl}" if ensembl else name
    return "ENS" in text and _FOREIGN_ID.search(text) is not None


def _without_prefix(name: str) -> tuple[str, str]:
    """Remove what is around a name and the prefix of the human genome; say which."""
    bytes_of = _BYTES.fullmatch(name)
    rest = bytes_of[1] if bytes_of else name.strip(_AROUND)
    form = "with spaces or quotes around" if rest != name else ""
    genome = _GENOME.match(rest)
    if genome and _HUMAN_GENOME.match(rest):
        return "with the prefix of a genome", rest[genome.end() :]
    return form, rest


class _Reader:
    """Reads one name at a time, knowing the others."""

    def __init__(self, names: Sequence[str], ids: Sequence[str] | None) -> None:
        self.names, self.ids, self.known = names, ids, known_gene_names()
        self.present = set(names)

    def is_name(self, name: str) -> bool:
        """Check for a known name; an alias such as LAMP-1 is none where all names end so."""
        return name in self.known.symbols or (name in self.known and not self._all_suffixed)

    def read(self, at: int, name: str) -> tuple[str, str, str]:
        """Get the form of a name, if there is more to it; what it is read as; its Ensembl id."""
        form, rest = _without_prefix(name)
        if rest.lower() in _MISSING:
            return "", name, ""
        if self.is_name(rest) or is_date(rest) or rest.startswith("DEPRECATED_"):
            return form, rest, ""
        steps = (self._id, self._joined, self._punctuated, self._unique, self._case, self._copy)
        return next(filter(None, (step(at, rest) for step in steps)), (form, rest, ""))

    def _id(self, at: int, name: str) -> _Found:
        """``ENSG…_TP53``, ``TP53|ENSG…``, ``ENSG…|TP53|hash``, ``ENSG…_PAR_Y``."""
        ids = list(_HUMAN_ID.finditer(name))
        if len(ids) != 1 or _FOREIGN_ID.search(name):
            return None
        on_y, digits = ids[0].groups()
        ensembl = f"ENSG0{on_y}" if on_y else f"ENSG{digits}"
        others = f"{name[: ids[0].start()]}|{name[ids[0].end() :]}"
        words = [_COPY.split(word.strip("-_."))[0] for word in _SEPARATORS.split(others)]
        words = [word for word in words if word and not _NOISE.fullmatch(word)]
        if not words:
            plain = _PLAIN_ID.fullmatch(name)  # matched with its version
            return None if plain else ("with more than an Ensembl id", ensembl, ensembl)
        symbols = {word for word in words if self.known.symbol(word)}
        symbol = symbols.pop() if len(symbols) == 1 else words[0] if len(words) == 1 else ensembl
        return "joined with an Ensembl id", symbol, ensembl

    def _joined(self, at: int, name: str) -> _Found:
        """``TP53|7157``, ``TP53 (7157)``, ``TP53#1``, ``gene:TP53``: the only symbol in it."""
        words = [w for w in _SEPARATORS.split(name) if w and not _NOISE.fullmatch(w)]
        genes = {self.known.symbol(word): word for word in words if word in self.known}
        if len(genes) != 1 or None in genes or words == [name]:
            return None
        return "joined with something else", next(iter(genes.values())), ""

    def _punctuated(self, at: int, name: str) -> _Found:
        """``HLA.A``, ``MT_ND1``, ``X7SK``."""
        symbol = self._with_punctuation(name)
        if symbol is None or self._base(at, name):  # of two genes, it could be either
            return None
        return "with other punctuation", symbol, ""

    def _with_punctuation(self, name: str) -> str | None:
        if re.match(r"X\d", name) and name[1:] in self.known:
            return name[1:]
        return self.known.by_letters.get(re.sub("[._]", "-", name))

    def _unique(self, at: int, name: str) -> _Found:
        """``TP53.1``, ``TP53-1`` beside ``TP53``, as make.unique and var_names_make_unique name."""
        base = self._base(at, name)
        if not base or self._with_punctuation(name):
            return None
        return "with the suffix of a duplicated name", base, ""

    def _base(self, at: int, name: str) -> str:
        """Get the symbol before a suffix if the gene of that name is meant, or nothing."""
        match = _SUFFIX.fullmatch(name)
        if match is None:
            return ""
        base = match["base"]
        if self._all_suffixed:
            return base if base in self.known else self._with_punctuation(base) or ""
        if base not in self.present or base not in self.known.symbols:
            return ""
        ensembl = clean_id(self.ids[at]) if self.ids else ""
        if symbol := self.known.symbol_of_id.get(bare_id(ensembl)):
            return base if symbol == base else ""
        # Ensembl and Rfam number parts of a gene like this too: KCNQ1OT1_3.
        return base if match["joint"] != "_" and self._often_suffixed else ""

    @cached_property
    def _suffixed(self) -> list[str]:
        """What is before the suffix of names that are no genes, where that is one."""
        found = (_SUFFIX.fullmatch(name) for name in self.names if name not in self.known.symbols)
        bases = [match["base"] for match in found if match]
        return [b for b in bases if b in self.known or self._with_punctuation(b)]

    @cached_property
    def _all_suffixed(self) -> bool:
        return len(self._suffixed) > len(self.names) / 2

    @cached_property
    def _often_suffixed(self) -> bool:
        """Check whether suffixes are as frequent as among the genes of a reference, 1 in 1,400."""
        return sum(base in self.present for base in self._suffixed) > len(self.names) / 2000

    def _case(self, at: int, name: str) -> _Found:
        """``C1ORF43``; ``tp53`` if all names are in lower case; ``Tp53`` if surely human."""
        symbol = self.known.by_capitals.get(name.upper())
        if symbol is None or not (name.isupper() or self._not_in_capitals):
            return None
        return "in another case", symbol, ""

    @cached_property
    def _not_in_capitals(self) -> bool:
        """Check whether the names are human symbols that are not in capitals, without doubt."""
        names = [_without_prefix(name)[1] for name in self.names]
        human = sum(name.upper() in self.known.by_capitals for name in names) / len(names)
        if sum(name.islower() for name in names) > len(names) / 2:
            return human > 0.7 and not any(map(_ZEBRAFISH.match, names))
        # Most genes of mouse and rat have the symbol of the human gene, but not so many.
        return human > 0.95 and any(map(_HUMAN_ONLY.match, names))

    def _copy(self, at: int, name: str) -> _Found:
        """``TP53_1a2b3c4``, ``TP53_probe2``: probes of a gene."""
        words = [word for word in _COPY.split(name) if word]
        genes = {word for word in words if word in self.known.symbols}
        if len(genes) != 1 or not all(map(_PROBE.fullmatch, set(words) - genes)):
            return None
        return "of probes of a gene", genes.pop(), ""


def clean_id(text: str) -> str:
    """Take Ensembl ids, joined by ``;``, out of texts such as ``GRCh38_ENSG…``; keep others."""
    cleaned = []
    for part in text.split(";"):
        ids = [] if _PLAIN_ID.fullmatch(part) else list(_HUMAN_ID.finditer(part))
        on_y, digits = ids[0].groups() if len(ids) == 1 else ("", "")
        cleaned.append(f"ENSG{digits}" if digits else f"ENSG0{on_y}" if on_y else part)
    return ";".join(cleaned)


def name_kind(names: Sequence[str]) -> tuple[str, str]:
    """Find the kind of name that most genes have, with an example.

    Returns
    -------
    ``"symbol"``, ``"mouse"``, ``"date"``, ``"other"`` (another species), or the key of ``_KINDS``
    that more than half of the names have; and one such name.
    """
    if not len(names):
        return "symbol", ""
    return _name_kind(tuple(map(str, names)))


@lru_cache(maxsize=4)  # reading and checking a slide ask several times
def _name_kind(listed: tuple[str, ...]) -> tuple[str, str]:
    kinds = list(map(kind_of, listed))
    kind, number = Counter(kinds).most_common(1)[0]
    if looks_like_mouse(listed):
        return "mouse", listed[0]
    if 2 * number <= len(kinds):
        kind = "symbol"
    return kind, listed[kinds.index(kind)] if kind in kinds else ""


def kind_of(name: str) -> str:
    """Find the kind of one name, as :func:`name_kind`; mouse symbols are ``"symbol"``."""
    if match := _KIND.fullmatch(name):
        return str(match.lastgroup)
    if is_date(name):
        return "date"
    return "other" if _is_foreign(name, "") or _ZEBRAFISH.match(name) else "symbol"


def fault(names: Sequence[str], ids: Sequence[str] | None = None) -> str:
    """Describe why names are not of human genes, and the remedy; empty if they may be."""
    kind, example = name_kind(names)
    if kind == "mouse":
        return f"the genes look like mouse genes (such as {example}): {ORTHOLOGS}"
    lower = sum(name.islower() for name in names) > len(names) / 2
    if lower and (zebrafish := list(filter(_ZEBRAFISH.match, names))):
        kind, example = "other", zebrafish[0]
    if ids and kind == "symbol" and name_kind(ids)[0] == "ensembl_other":
        kind, example = name_kind(ids)
    if kind in ("other", "ensembl_other"):
        return f"genes of another species (such as {example}): {ORTHOLOGS}"
    if kind in _WHAT:
        return (
            f"gene ids of the wrong kind ({_WHAT[kind].format(example)}); "
            "name the genes by symbol or Ensembl id, and sum those of a gene"
        )
    return ""


def of_another_species(names: Sequence[str], ids: Sequence[str] | None = None) -> bool:
    """Check whether most genes are evidently not human."""
    together = zip(names, ids or [""] * len(names), strict=True)
    foreign = sum(_is_foreign(name, ensembl) for name, ensembl in together)
    return looks_like_mouse(names) or foreign > len(names) / 2


def what_it_is(names: Sequence[str]) -> str:
    """Describe what names that are no human genes look like; empty if nothing special."""
    kinds: dict[str, str] = {}
    for name in names:
        kinds.setdefault("mouse" if looks_like_mouse([name]) else kind_of(name), name)
    kinds = {kind: name for kind, name in kinds.items() if kind not in ("symbol", "ensembl")}
    other = "genes of another species such as {}"
    what = {**_WHAT, "mouse": "mouse genes such as {}", "ensembl_other": other, "other": other}
    return " and ".join(what[kind].format(name) for kind, name in kinds.items())
