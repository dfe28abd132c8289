"""Build the tables of gene names of the package from their sources.

    python scripts/gene_tables.py FOLDER

FOLDER has the two tables that `src/sagefm/pp/genes/SOURCES.txt` describes:
`10x_GRCh38_features.csv.gz` (columns ensembl_id, symbol) and `hgnc_previous_and_alias.csv.gz`
(columns previous_or_alias, approved). The same sources give the same files, bit by bit.
"""

import csv
import gzip
import sys
from pathlib import Path

GENES = Path(__file__).parents[1] / "src/sagefm/pp/genes"


def rows(path):
    """Read a table without its header."""
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        return list(csv.reader(file))[1:]


def write(name, source, lines):
    """Compress lines below the name of their source, without a date of the file."""
    text = "".join(f"{line}\n" for line in (f"# {source}", *lines))
    (GENES / name).write_bytes(gzip.compress(text.encode(), 9, mtime=0))


def main(folder):
    """Write both tables."""
    features = rows(Path(folder) / "10x_GRCh38_features.csv.gz")
    write(
        "symbols.txt.gz",
        "10x GRCh38-3.0.0",
        (f"{int(ensembl.removeprefix('ENSG'))}\t{symbol}" for ensembl, symbol in features),
    )
    earlier = {}
    for name, symbol in rows(Path(folder) / "hgnc_previous_and_alias.csv.gz"):
        earlier.setdefault(symbol, []).append(name)
    write("aliases.txt.gz", "HGNC 2026-11", ("\t".join([s, *n]) for s, n in earlier.items()))


if __name__ == "__main__":
    main(*sys.argv[1:])
