import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.sparse import csr_matrix
from tests.pp.folders import told

from sagefm import InputError, read
from sagefm.pp.aligned import AlignedSlide
from sagefm.pp.check import check
from sagefm.pp.detection import most_detected
from sagefm.pp.gene_forms import clean_id, fault, recognize
from sagefm.pp.gene_names import known_gene_names
from sagefm.pp.vocabulary import Vocabulary

IDS = known_gene_names().id_of_symbol
# Names with hyphens, dots and numbers at their end among them.
GENES = [
    "TP53", "HLA-A", "HLA-DRB1", "NKX2-1", "MT-ND1", "AL627309.1", "C1orf43", "KRT5", "KRT8",
    "ACTB", "COL1A1", "EGFR", "CD8A", "KRTAP5-1", "MIR1302-2HG", "SEPT2", "CCDC184", "IGF2",
]  # fmt: skip
VOCABULARY = Vocabulary(tuple(GENES), tuple(IDS[gene] for gene in GENES))


def hashed(gene):
    return f"{abs(hash(gene)) % 16**7:07x}"


def slide_of(names, counts=None):
    names = list(names)
    n = len(names)
    counts = np.arange(1, 20 * n + 1).reshape(20, n) % 7 if counts is None else counts
    slide = AnnData(csr_matrix(counts.astype(np.float32)), var=pd.DataFrame(index=names))
    slide.obs_names = [f"s{i}" for i in range(20)]
    slide.obsm["spatial"] = np.random.default_rng(0).uniform(0, 100, (20, 2))
    return slide


FORMS = {
    "joined with an Ensembl id": lambda g: f"{IDS[g]}_{g}",
    "joined with an Ensembl id ": lambda g: f"{g}|{IDS[g]}.7",
    "joined with an Ensembl id  ": lambda g: f"{IDS[g]}|{g}|{hashed(g)}",
    "with more than an Ensembl id": lambda g: f"{IDS[g]}.3_PAR_Y",
    "with more than an Ensembl id ": lambda g: IDS[g].lower(),
    "with the prefix of a genome": lambda g: f"GRCh38_{g}",
    "with the prefix of a genome ": lambda g: f"GRCh38-{g}",
    "with the prefix of a genome  ": lambda g: f"GRCh38______{g}",
    "with the prefix of a genome   ": lambda g: f"hg38_{g}",
    "with the prefix of a genome    ": lambda g: f"GRCh38_{IDS[g]}",
    "suffix": lambda g: f"{g}.1",
    "suffix ": lambda g: f"{g}-1",
    "suffix  ": lambda g: f"{g}_1",
    "of probes": lambda g: f"{g}_{hashed(g)}",
    "joined with something else": lambda g: f"{g}#1",
    "joined with something else ": lambda g: f"{g}|7157",
    "joined with something else  ": lambda g: f"{g} (7157)",
    "other punctuation": lambda g: g.replace("-", "."),
    "other punctuation ": lambda g: g.replace("-", "_"),
    "another case": str.lower,
    "another case ": str.upper,
    "another case  ": str.capitalize,
    "spaces or quotes": lambda g: f" {g}\t",
    "spaces or quotes ": lambda g: f'"{g}"',
}


@pytest.mark.parametrize("form", FORMS)
def test_a_form_of_names_is_read_from_a_file_and_in_memory(tmp_path, form, caplog):
    plain, slide = slide_of(GENES), slide_of(map(FORMS[form], GENES))
    expected = AlignedSlide.of(plain, VOCABULARY, 5)
    caplog.clear()
    in_memory = AlignedSlide.of(slide, VOCABULARY, 5)
    assert form.strip() in caplog.text
    slide.write_h5ad(tmp_path / "a.h5ad")
    from_file = AlignedSlide.of(again := read(tmp_path / "a.h5ad"), VOCABULARY, 5)
    assert form.strip() in told(again)
    for aligned in (in_memory, from_file):
        assert aligned.alignment.n_matched == len(GENES)
        np.testing.assert_array_equal(aligned.counts.toarray(), expected.counts.toarray())
    assert any(form.strip() in finding.message for finding in check(slide))
    ranked = most_detected([slide], [np.ones(20, dtype=bool)], 99)
    assert set(ranked.ensembl) <= {*VOCABULARY.ensembl, ""}  # KRTAP5.1 is an alias
    assert len(ranked) == len(GENES)


def test_names_that_are_known_are_kept():
    names = [*GENES, "ENSG00000141510.12", "NOT-A-GENE", "XYZ1", "RP11-34P13.7", "G_1", ""]
    forms = recognize(names)
    assert forms.names == names
    assert forms.notes == []


def test_copies_beside_the_gene_are_summed_as_duplicates_are(tmp_path):
    slide = slide_of([*GENES, "TP53.1", "TP53-2", "NKX2.1", "NOT1A", "NOT1A.1"])
    slide.write_h5ad(tmp_path / "a.h5ad")
    again = read(tmp_path / "a.h5ad")
    assert again.var_names.tolist() == [*GENES, "NOT1A", "NOT1A.1"]
    x = slide.X.toarray()
    at, nkx = len(GENES), GENES.index("NKX2-1")
    np.testing.assert_array_equal(again[:, "TP53"].X.toarray()[:, 0], x[:, [0, at, at + 1]].sum(1))
    np.testing.assert_array_equal(again[:, "NKX2-1"].X.toarray()[:, 0], x[:, [nkx, at + 2]].sum(1))
    assert "TP53.1 is read as TP53" in told(again)


def test_a_suffix_is_believed_less_than_an_ensembl_id():
    names, ids = ["TBCE", "TBCE-1", "EGFR", "EGFR_1"], ["ENSG00000284770", "ENSG00000285053"]
    assert recognize(names, [*ids, "", IDS["TP53"]]).names == ["TBCE", "TBCE", "EGFR", "EGFR_1"]


def test_a_few_suffixes_among_many_genes_without_ids_are_kept():
    """As in matrices whose makers have summed or dropped most genes of several ids."""
    names = sorted(known_gene_names().symbols)[:9000]
    copy = next(name for name in names if name.isalnum()) + ".1"
    assert recognize([*names, copy]).names[-1] == copy


def test_probes_are_summed_by_gene(tmp_path):
    names = [f"{IDS[gene]}|{gene}|{i:07x}" for gene in GENES for i in range(2)]
    slide = slide_of([*names, "DEPRECATED_ENSG00000141510|TP53|abcdef1"])
    slide.write_h5ad(tmp_path / "a.h5ad")
    again = read(tmp_path / "a.h5ad")
    assert again.var_names.tolist()[:-1] == GENES
    assert again.var["gene_ids"].tolist()[:-1] == [IDS[gene] for gene in GENES]
    x = slide.X.toarray()
    np.testing.assert_array_equal(again.X.toarray()[:, :-1], x[:, :-1:2] + x[:, 1:-1:2])


def test_of_human_and_mouse_only_the_human_genes_are_left(tmp_path):
    mouse = [f"mm10___{gene.capitalize()}" for gene in GENES]
    slide = slide_of([*(f"GRCh38_{gene}" for gene in GENES), *mouse])
    slide.write_h5ad(tmp_path / "a.h5ad")
    again = read(tmp_path / "a.h5ad")
    assert again.var_names.tolist() == GENES
    assert "18 genes of another species (mm10___Tp53" in told(again)
    aligned = AlignedSlide.of(slide, VOCABULARY, 5)
    np.testing.assert_array_equal(aligned.counts.toarray(), again.X.toarray())
    np.testing.assert_array_equal(aligned.library_size, again.X.toarray().sum(axis=1))


MOUSE = ["Trp53", "Krt5", "Krt8", "Actb", "Col1a1", "Egfr", "Cd8a", "mt-Nd1", "Xkr4", "H2-K1"]


@pytest.mark.parametrize(
    ("names", "ids"),
    [
        (MOUSE, None),
        ([f"mm10_{name}" for name in MOUSE], None),
        ([f"ENSMUSG{i:011d}" for i in range(9)], None),
        (["Tp53", "Krt5", "Krt8", "Actb", "Egfr"], None),  # rat, or human: it is not certain
        (["TP53", "KRT5", "ACTB"], [f"ENSMMUG{i:011d}" for i in range(3)]),  # macaque
        (["si:dkey-1", "tp53", "egfra", "actb1", "zgc:1"], None),
    ],
)
def test_other_species_are_refused_and_a_tool_is_named(names, ids):
    slide = slide_of(names)
    if ids:
        slide.var["gene_ids"] = ids
    with pytest.raises(InputError, match=r"orthologs first \(mousipy .* gprofiler-official"):
        AlignedSlide.of(slide, VOCABULARY, 5)
    assert "orthologs" in fault(names, ids)
    assert any("orthologs" in finding.message for finding in check(slide))


@pytest.mark.parametrize(
    ("names", "what"),
    [
        (["7157", "672", "1956"], "numbers such as 7157, perhaps Entrez"),
        (["P04637", "P00533", "Q9Y6K9"], "UniProt ids such as P04637"),
        (["ENST00000269305", "ENST00000275493.7"], "transcripts or proteins such as ENST"),
        (["HGNC:11998", "HGNC:3236"], "HGNC ids"),
        (["1-Mar", "2-Sep", "Mar-01", "2001-03-01"], "dates such as 1-Mar"),
    ],
)
def test_names_that_cannot_be_matched_are_named(names, what):
    with pytest.raises(InputError, match=what):
        AlignedSlide.of(slide_of(names), VOCABULARY, 5)


@pytest.mark.parametrize("column", ["feature_name", "Gene.name", "gene_symbols-0", "what ever"])
def test_a_column_of_symbols_replaces_names_that_mean_nothing(tmp_path, column):
    slide = slide_of(str(i) for i in range(len(GENES)))
    slide.var[column] = GENES
    aligned = AlignedSlide.of(slide, VOCABULARY, 5)
    assert aligned.alignment.n_matched == len(GENES)
    slide.write_h5ad(tmp_path / "a.h5ad")
    again = read(tmp_path / "a.h5ad")
    assert again.var_names.tolist() == GENES
    assert f"genes are named by var['{column}'], not by names such as 0" in told(again)


def test_ids_are_taken_out_of_what_surrounds_them():
    assert clean_id("GRCh38_ENSG00000141510") == "ENSG00000141510"
    assert clean_id("ENSG00000141510|TP53|abcdef1") == "ENSG00000141510"
    assert clean_id("ENSGR0000182378.1;ENSG00000141510.7") == "ENSG00000182378;ENSG00000141510.7"
    assert clean_id("ENSMUSG00000000001") == "ENSMUSG00000000001"
    assert clean_id("") == ""


def test_genes_are_found_by_what_users_type(caplog):
    typed = ["P53", "egfr", f"{IDS['KRT8']}.4", "HLA.A", "C1ORF43"]
    found = [VOCABULARY[at] for at in VOCABULARY.positions(typed)]
    assert found == ["TP53", "EGFR", "KRT8", "HLA-A", "C1orf43"]
    assert VOCABULARY.find(["Tp53", "1-Mar", "P04637", ""]) == [None] * 4
    assert "(it looks like UniProt ids such as P04637)" in VOCABULARY.missing("P04637")
