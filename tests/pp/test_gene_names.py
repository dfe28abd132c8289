import gzip
import shutil

import pytest

from sagefm import InputError
from sagefm.pp import gene_names
from sagefm.pp.gene_names import bare_id, is_date, known_gene_names

HGNC = "symbol\tprev_symbol\talias_symbol\tensembl_gene_id\nTP53\t\tP53\tENSG00000141510\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder that is used instead of the tables of the package."""
    monkeypatch.setenv("SAGEFM_GENES", str(tmp_path))
    return tmp_path


def test_the_package_has_the_tables(monkeypatch):
    monkeypatch.delenv("SAGEFM_GENES", raising=False)
    known = known_gene_names()
    assert known is known_gene_names()  # read once
    assert len(known.symbol_of_id) == 33_538
    assert known.symbol_of_id["ENSG00000141510"] == "TP53"
    assert known.id_of_symbol["TP53"] == "ENSG00000141510"
    assert known.symbol_of_alias["P53"] == "TP53"
    assert known.version.startswith("10x GRCh38-3.0.0 + HGNC 2026-11, sha256 ")


def test_no_alias_is_a_symbol_of_another_gene_or_means_several(monkeypatch):
    monkeypatch.delenv("SAGEFM_GENES", raising=False)
    known = known_gene_names()
    reference = set(known.symbol_of_id.values())
    for alias, symbol in known.symbol_of_alias.items():
        assert not (alias in reference and symbol in reference), alias
        assert alias not in known.ambiguous
        assert not is_date(alias)
    assert "MAG" not in known.symbol_of_alias


def test_the_tables_are_small():
    folder = gene_names._SHIPPED
    assert sum(path.stat().st_size for path in folder.iterdir()) < 600_000
    assert "genenames.org" in (folder / "SOURCES.txt").read_text()


def test_a_folder_of_ones_own_is_used_and_logged(folder, caplog):
    (folder / "hgnc_complete_set.txt").write_text(HGNC)
    known = known_gene_names()
    assert known.symbol_of_id == {"ENSG00000141510": "TP53"}
    assert known.version.startswith(f"{folder.name}, sha256 ")
    assert known_gene_names() is known
    assert caplog.text.count("gene names are those of SAGEFM_GENES=") == 1


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "lacks the tables; put hgnc_complete_set.txt"),
        ({"10x_GRCh38_features.csv.gz": gzip.compress(b"ensembl_id,symbol\n")}, "lacks the tables"),
        ({"hgnc_complete_set.txt": b""}, "hgnc_complete_set.txt: is damaged or no such table"),
        ({"hgnc_complete_set.txt": b"symbol\tname\nA\tB\n"}, "it has no column ensembl_gene_id"),
        ({"hgnc_complete_set.txt": HGNC.encode()[:30]}, "is damaged or no such table"),
        ({"hgnc_complete_set.txt": b"\xff\xfe\x00a\tb"}, "is damaged or no such table"),
        (
            {
                "hgnc_complete_set.txt": HGNC.encode(),
                "hgnc_previous_and_alias.csv.gz": gzip.compress(b"previous_or_alias")[:-5],
            },
            "hgnc_previous_and_alias.csv.gz: is damaged",
        ),
    ],
)
def test_a_folder_without_good_tables_is_an_error(folder, files, message):
    for name, content in files.items():
        (folder / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        known_gene_names()
    assert "\n" not in str(error.value)


def test_a_folder_that_does_not_exist_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setenv("SAGEFM_GENES", str(tmp_path / "none"))
    with pytest.raises(InputError, match="none: is no folder"):
        known_gene_names()


def test_damaged_tables_of_the_package_are_one_line(tmp_path, monkeypatch):
    monkeypatch.delenv("SAGEFM_GENES", raising=False)
    shutil.copytree(gene_names._SHIPPED, tmp_path / "genes")
    table = tmp_path / "genes" / "symbols.txt.gz"
    table.write_bytes(table.read_bytes()[:-2000])
    monkeypatch.setattr(gene_names, "_SHIPPED", tmp_path / "genes")
    with pytest.raises(InputError, match=r"damaged .*; install sagefm again"):
        gene_names._of_package.__wrapped__()


def test_ids_lose_their_version():
    assert bare_id("ENSG00000141510.18") == "ENSG00000141510"
    assert bare_id("AL627309.1") == "AL627309.1"


@pytest.mark.parametrize("name", ["1-Mar", "Mar-01", "2-SEP", "2001-03-01", "03/01/2001", "9/2"])
def test_dates_are_dates(name):
    assert is_date(name)


@pytest.mark.parametrize("name", ["MARCH1", "SEPT2", "DEC1", "OCT-4", "9-27", "7-60", "HLA-A"])
def test_genes_are_no_dates(name):
    assert not is_date(name)
