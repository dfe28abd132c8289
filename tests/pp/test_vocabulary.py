import gzip

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from sagefm import InputError
from sagefm.pp.gene_names import GeneNames, known_gene_names
from sagefm.pp.vocabulary import Vocabulary

NOTHING = GeneNames()
KNOWN = GeneNames(
    symbol_of_id={
        "ENSG00000141510": "TP53",
        "ENSG00000146648": "EGFR",
        "ENSG00000271858": "CYB561D2",
        "ENSG00000114395": "CYB561D2",
    },
    symbol_of_alias={"ERBB": "EGFR", "P53": "TP53", "SEPT2": "SEPTIN2", "OLD1": "TP53"},
)


def counts(*rows):
    return csr_matrix(np.array(rows, dtype=np.float32))


names = st.lists(
    st.text("ABCDEFGH123-.", min_size=1, max_size=8), min_size=1, max_size=20, unique=True
)


@given(names)
def test_text_files_keep_order_and_ids(tmp_path_factory, symbols):
    path = tmp_path_factory.mktemp("v") / "genes.txt"
    ids = tuple(f"ENSG{i:011d}" if i % 2 else "" for i in range(len(symbols)))
    vocabulary = Vocabulary(tuple(symbols), ids)
    vocabulary.write(path)
    assert Vocabulary.read(path) == vocabulary


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "vocabulary is empty"),
        (b"TP53\nEGFR\nTP53\n", "names TP53 more than once"),
        (b"\xff\xfe\x00\x01", "not a text file"),
    ],
)
def test_bad_text_files(tmp_path, content, message):
    path = tmp_path / "genes.txt"
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"genes\.txt: .*{message}"):
        Vocabulary.read(path)
    with pytest.raises(InputError, match="cannot be read"):
        Vocabulary.read(tmp_path / "missing.txt")


def test_symbols_go_first_then_ids_then_earlier_names():
    vocabulary = Vocabulary(("TP53", "EGFR", "SEPTIN2", "KRT8"), ("", "", "", "ENSG00000170421"))
    alignment = vocabulary.align(
        ["ERBB", "SEPT2", "TP53", "P53", "ENSG00000170421.12", "FOO"], known=KNOWN
    )
    # P53 does not add to TP53, which the slide has under its own name.
    assert alignment.columns.tolist() == [1, 2, 0, -1, 3, -1]
    assert alignment.by_route == {"symbol": 1, "Ensembl id": 1, "previous symbol or alias": 2}
    assert alignment.n_matched == 4


def test_a_vocabulary_of_earlier_names_meets_a_slide_of_current_ones():
    alignment = Vocabulary(("SEPT2", "P53")).align(["SEPTIN2", "TP53"], known=KNOWN)
    assert alignment.columns.tolist() == [0, 1]


def test_a_slide_named_by_ids_just_works():
    vocabulary = Vocabulary(("EGFR", "TP53"))
    alignment = vocabulary.align(["ENSG00000141510.18", "ENSG00000146648"], known=KNOWN)
    assert alignment.columns.tolist() == [1, 0]
    twin = Vocabulary(("CYB561D2",)).align(["ENSG00000271858", "ENSG00000114395"], known=KNOWN)
    assert twin.columns.tolist() == [0, 0]  # a symbol with two ids
    by_column = vocabulary.align(["a", "b"], ["ENSG9;ENSG00000141510", ""], known=KNOWN)
    assert by_column.columns.tolist() == [1, -1]


def test_applying_sums_what_falls_together_and_leaves_missing_genes_zero():
    vocabulary = Vocabulary(("A", "B", "C"))
    alignment = vocabulary.align(["C", "X", "A", "C"], known=NOTHING)
    aligned = alignment.apply(counts([1, 9, 2, 4], [0, 0, 3, 5]))
    np.testing.assert_array_equal(aligned.toarray(), [[2, 0, 5], [3, 0, 5]])
    assert aligned.has_canonical_format
    assert alignment.measured.tolist() == [True, False, True]
    assert alignment.fraction_of_counts(counts([1, 9, 2, 4])) == pytest.approx(7 / 16)


@given(st.integers(0, 2**32 - 1))
def test_alignment_keeps_every_count_of_matched_genes(seed):
    rng = np.random.default_rng(seed)
    genes = [f"G{i}" for i in rng.integers(0, 12, 15)]
    vocabulary = Vocabulary(tuple(f"G{i}" for i in rng.permutation(14)))
    x = rng.poisson(1.0, (4, 15)).astype(np.float32)
    aligned = vocabulary.align(genes, known=NOTHING).apply(csr_matrix(x + 1)).toarray()
    for symbol, column in zip(vocabulary.symbols, aligned.T, strict=True):
        mine = [i for i, gene in enumerate(genes) if gene == symbol]
        np.testing.assert_array_equal(column, (x + 1)[:, mine].sum(axis=1))


def test_the_report_says_what_matched():
    alignment = Vocabulary(("TP53", "EGFR", "KRT8")).align(["TP53", "ERBB", "FOO"], known=KNOWN)
    assert alignment.describe(alignment.fraction_of_counts(counts([1, 2, 1]))) == (
        "matched 2 of 3 model genes (1 by symbol, 1 by previous symbol or alias), which carry "
        "75.0% of the counts; 1 model genes are not on the slide"
    )


MANY = Vocabulary(tuple(f"GENE{i}" for i in range(2000)))


@pytest.mark.parametrize(
    ("genes", "remedy"),
    [
        (
            [f"Xkr{i}" for i in range(50)],
            r"mouse genes \(such as Xkr0\): .* human orthologs",
        ),
        (
            [f"ENSG{i:011d}" for i in range(50)],
            "Ensembl ids and the model has only symbols.*SAGEFM",
        ),
        ([f"probe_{i}" for i in range(50)], r"are these human gene symbols \(probe_0"),
        ([f"GENE{i}" for i in range(99)], "matched 99 of 2,000.*use a model of the genes it has"),
    ],
)
def test_too_poor_an_alignment_is_refused_with_the_remedy(genes, remedy):
    x = csr_matrix(np.ones((3, len(genes)), dtype=np.float32))
    with pytest.raises(InputError, match=remedy):
        MANY.align(genes, known=NOTHING).apply(x)


def test_a_hundred_genes_with_a_tenth_of_the_counts_are_enough():
    genes = [f"GENE{i}" for i in range(100)] + ["FOO"]
    x = np.ones((1, 101), dtype=np.float32)
    x[0, -1] = 899
    assert MANY.align(genes, known=NOTHING).apply(csr_matrix(x)).sum() == 100
    x[0, -1] = 901
    with pytest.raises(InputError, match="too little"):
        MANY.align(genes, known=NOTHING).apply(csr_matrix(x))


def test_positions_offer_the_nearest_names():
    vocabulary = Vocabulary(("TGFB1", "TGFB2", "KRT8"), ("ENSG00000105329", "", ""))
    assert vocabulary.positions(["KRT8", "ENSG00000105329.5"]).tolist() == [2, 0]
    with pytest.raises(InputError, match=r"TGFB3: .*did you mean TGFB"):
        vocabulary.positions(["KRT8", "TGFB3"])


def test_missing_ids_are_filled_in_where_they_are_known():
    vocabulary = Vocabulary(("EGFR", "TP53", "FOO"), ("ENSG1", "", ""))
    assert vocabulary.with_known_ids(KNOWN).ensembl == ("ENSG1", "ENSG00000141510", "")


def test_hgnc_table_as_published(tmp_path, monkeypatch):
    (tmp_path / "hgnc_complete_set.txt").write_text(
        "hgnc_id\tsymbol\tprev_symbol\talias_symbol\tensembl_gene_id\n"
        "HGNC:1\tSEPTIN2\tSEPT2|NEDD5\tKIAA0158|TWICE\tENSG00000168385\n"
        "HGNC:2\tTP53\t\tP53|TWICE\tENSG00000141510\n"
    )
    monkeypatch.setenv("SAGEFM_GENES", str(tmp_path))
    known = known_gene_names()
    assert known.symbol_of_id == {"ENSG00000168385": "SEPTIN2", "ENSG00000141510": "TP53"}
    assert known.id_of_symbol["TP53"] == "ENSG00000141510"
    assert known.symbol_of_alias["NEDD5"] == "SEPTIN2"
    assert "TWICE" not in known.symbol_of_alias  # means two genes


def test_the_name_of_another_gene_is_no_alias(tmp_path, monkeypatch):
    """MAG is an alias of ERCC2, and the myelin gene of that name."""
    (tmp_path / "hgnc_previous_and_alias.csv.gz").write_bytes(
        gzip.compress(b"previous_or_alias,approved\nMAG,ERCC2\nERBB,EGFR\nEGFR,OTHER\nHP,DLC1\n")
    )
    (tmp_path / "10x_GRCh38_features.csv.gz").write_bytes(
        gzip.compress(b"ensembl_id,symbol\nENSG1,MAG\nENSG2,ERCC2\nENSG3,EGFR\n")
    )
    monkeypatch.setenv("SAGEFM_GENES", str(tmp_path))
    assert known_gene_names().symbol_of_alias == {"ERBB": "EGFR", "HP": "DLC1"}


def test_real_aliases_agree_with_the_ids_of_a_slide(shared):
    import anndata

    vocabulary = Vocabulary.read(shared / "sagefm_published_genes.txt").with_known_ids()
    for name in ("dlpfc_151510", "heartdev_1", "breastDCIS_MSTI"):
        slide = anndata.read_h5ad(shared / "slides" / f"{name}.h5ad")
        columns = vocabulary.align(slide.var_names.tolist()).columns
        pairs = zip(columns, slide.var_names, slide.var["gene_ids"], strict=True)
        for column, symbol, gene_id in pairs:
            if column >= 0 and symbol != vocabulary.symbols[column] and gene_id:
                assert vocabulary.ensembl[column] in ("", gene_id), symbol


def test_a_vocabulary_is_its_ordered_symbols():
    vocabulary = Vocabulary(("TP53", "EGFR"))
    assert list(vocabulary) == ["TP53", "EGFR"]
    assert len(vocabulary) == 2
    assert vocabulary[1] == "EGFR"
    assert "TP53" in vocabulary
    assert "KRT8" not in vocabulary


def test_genes_named_by_their_id_have_it():
    vocabulary = Vocabulary(("ENSG00000141510.2", "EGFR"))
    assert vocabulary.ensembl == ("ENSG00000141510", "")
    assert vocabulary.align(["TP53"], ["ENSG00000141510"], NOTHING).columns.tolist() == [0]


def test_a_byte_order_mark_is_no_part_of_a_gene(tmp_path):
    (tmp_path / "genes.txt").write_bytes("\ufeffTP53\nEGFR\n".encode())
    assert Vocabulary.read(tmp_path / "genes.txt").symbols == ("TP53", "EGFR")


def test_real_slide_by_symbols_and_by_ids(shared):
    import anndata

    slide = anndata.read_h5ad(shared / "slides" / "dlpfc_151673.h5ad")
    vocabulary = Vocabulary.read(shared / "sagefm_published_genes.txt")
    assert len(vocabulary) == 14_558
    by_symbol = vocabulary.align(slide.var_names.tolist())
    by_id = vocabulary.align([f"{i}.4" for i in slide.var["gene_ids"]])
    assert by_symbol.n_matched > 6000
    np.testing.assert_array_equal(by_symbol.columns, by_id.columns)
    assert by_id.fraction_of_counts(slide.X) > 0.8


def test_genes_that_are_not_known_are_left_out_with_one_warning(caplog):
    vocabulary = Vocabulary(("EGFR", "TP53"), ("", "ENSG00000141510"))
    assert vocabulary.known(["TP53", "EGFR1", "ENSG00000141510.2", "XYZ"]) == [
        "TP53", "ENSG00000141510.2",
    ]  # fmt: skip
    (said,) = caplog.messages
    assert said.startswith("2 of 4 genes are left out: EGFR1: not one of the model's genes; did")
    assert "mean EGFR?; XYZ: " in said
    assert vocabulary.known("EGFR") == ["EGFR"]
    assert vocabulary.known([]) == []
    with pytest.raises(InputError, match=r"^EGFR1: not one of .* did you mean EGFR"):
        vocabulary.known(["EGFR1"])
    with pytest.raises(InputError, match=r"^none of 4 genes is left: A: .*; B: .*; C: .*; …"):
        vocabulary.known(list("ABCD"))
    assert len(caplog.messages) == 1


def test_genes_with_other_names_in_the_model_are_logged_in_one_line(caplog, monkeypatch):
    monkeypatch.setattr("sagefm.pp.vocabulary._noted", set())
    vocabulary = Vocabulary(("CYR61", "CTGF", "TP53"))
    assert vocabulary.find(["CCN1", "TP53", "CCN2", "CCN1"]) == [0, 2, 1, 0]
    assert vocabulary.find(["CCN2", "NOTHING"]) == [1, None]  # not again
    [line] = caplog.messages
    assert line.startswith("2 genes have other names in the model: CCN1 is taken as CYR61, CCN2")
    Vocabulary(("CCN1",)).find(["CYR61"])
    assert caplog.messages[1:] == ["CYR61 is taken as CCN1, the name of this gene in the model"]
