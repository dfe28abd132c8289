import gzip
import logging
import re
import subprocess
import sys
from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sagefm import InputError
from sagefm.tl.perturbation._pairs import gene_sets, pairs, set_pairs

COLUMNS = ["ligand", "target", "sign", "complex"]
NAN = float("nan")
RESOURCES = {"liana": "consensus", "cellphonedb": "cellphonedb", "cellchat": "cellchatdb"}

genes = st.from_regex(r"[A-Z]{3,5}[0-9]{0,2}(-[A-Z]{2})?", fullmatch=True)
complexes = st.lists(genes, min_size=1, max_size=4, unique=True)


@pytest.fixture
def write(tmp_path):
    def write(text, name="mine.csv"):
        path = tmp_path / name
        data = text.encode()
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return path

    return write


@pytest.fixture
def told(caplog):
    logger = logging.getLogger("sagefm")
    before = logger.level
    logger.addHandler(caplog.handler)
    logger.setLevel(logging.INFO)
    yield caplog
    logger.removeHandler(caplog.handler)
    logger.setLevel(before)


def rows(table):
    assert list(table.columns) == COLUMNS
    assert table.index.equals(pd.RangeIndex(len(table)))
    assert table["sign"].dtype == float
    assert not table.duplicated(["ligand", "target"]).any()
    return list(table[["ligand", "target"]].itertuples(index=False, name=None))


def signs(source):
    return pairs(source)["sign"].tolist()


def entries(table):
    """What a source said before its complexes were split."""
    alone = table["ligand"] + "^" + table["target"]
    return table["complex"].where(table["complex"] != "", alone).str.split(";").explode().unique()


# Resources of liana


@pytest.fixture(params=RESOURCES)
def resource(request):
    """What we make of a resource, and what liana says."""
    from liana.resource import select_resource

    return pairs(request.param), select_resource(RESOURCES[request.param])


def test_a_resource_becomes_pairs_of_single_genes_in_its_order(resource):
    table, said = resource
    single = (product(a.split("_"), b.split("_")) for a, b in said.to_numpy())
    assert rows(table) == list(dict.fromkeys(pair for many in single for pair in many))
    assert len(table) > 1000
    assert table["sign"].isna().all()


def test_no_entry_of_a_resource_is_lost(resource):
    table, said = resource
    assert set(entries(table)) == set(said["ligand"] + "^" + said["receptor"])


def test_known_pairs_are_in_the_consensus():
    table = pairs("liana").set_index(["ligand", "target"])
    assert len(table) > 4000
    assert table.loc[("CXCL12", "CXCR4"), "complex"] == ""
    assert "TGFB1^TGFBR1_TGFBR2" in table.loc[("TGFB1", "TGFBR1"), "complex"].split(";")
    assert ("TGFB1", "TGFBR2") in table.index


def test_names_of_resources_may_be_in_any_case():
    pd.testing.assert_frame_equal(pairs("CellPhoneDB"), pairs("cellphonedb"))


def test_without_liana_the_remedy_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "liana.resource", None)
    with pytest.raises(InputError, match=r"'liana' .* -m pip install .*\[perturb\]"):
        pairs("liana")


def test_liana_leaves_logging_and_warnings_alone_and_needs_no_network():
    code = """
import logging, socket, sys, warnings
def refuse(*_, **__): raise AssertionError("asked for the network")
socket.socket.connect = socket.getaddrinfo = refuse
warnings.simplefilter("error")
from sagefm.tl.perturbation._pairs import pairs
assert "liana" not in sys.modules
def state(): return list(warnings.filters), logging.root.handlers[:], logging.root.level
before = state()
assert len(pairs("liana")) > 4000
after = state()
assert after[1:] == before[1:], after
assert set(before[0]) <= set(after[0])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


# Real tables


def test_the_ligands_and_receptors_of_nichenet(shared):
    # Its column `source` is a database, not a gene.
    table = pairs(shared / "pairs" / "nichenet_v1_ligand_receptor.csv.gz")
    assert rows(table)[:2] == [("CXCL1", "CXCR2"), ("CXCL2", "CXCR2")]
    assert len(table) == 12_019
    assert table["sign"].isna().all()
    assert (table["complex"] == "").all()


def test_the_targets_of_dorothea_have_signs(shared):
    table = pairs(str(shared / "pairs" / "dorothea_tf_target_ABC.csv.gz"))
    assert rows(table)[0] == ("AHR", "CYP1A1")
    assert table["sign"].value_counts().to_dict() == {1.0: 11_173, -1.0: 2_050}


def test_the_hallmark_sets(shared):
    sets = gene_sets(shared / "pairs" / "hallmark.gmt")
    assert len(sets) == 50
    assert sets["Hallmark_Adipogenesis"][:2] == ["ABCA1", "ABCB8"]
    assert all(genes and len(set(genes)) == len(genes) for genes in sets.values())
    assert all(gene.strip() == gene != "" for genes in sets.values() for gene in genes)


# Tables of the user's own


@pytest.mark.parametrize(
    "names",
    [
        "ligand,target", "Ligand,Receptor", "FROM,TO", "TF,Target", "upstream,downstream",
        "source_genesymbol,target_genesymbol", "source,target", " ligand , target ",
        "source,receptor", "ligand.symbol,receptor.symbol", "ligand_complex,receptor_complex",
    ],
)  # fmt: skip
def test_columns_are_found_by_name(write, names):
    left, right = names.split(",")
    path = write(f"score,{right},note,{left}\n1,CXCR4,x,CXCL12\n")
    assert rows(pairs(path)) == [("CXCL12", "CXCR4")]


def test_genes_are_preferred_to_cell_types(write):
    path = write("source,target,ligand,receptor\nT cell,B cell,CD40LG,CD40\n")
    assert rows(pairs(path)) == [("CD40LG", "CD40")]
    # Without cell types, target is what we call it.
    path = write("ligand,receptor,target\nTNF,TNFRSF1A,NFKBIA\n")
    assert rows(pairs(path)) == [("TNF", "NFKBIA")]


@pytest.mark.parametrize("name", ["mine.csv", "mine.csv.gz", "mine.tsv", "mine.tsv.gz"])
def test_formats_of_files(write, name):
    text = "ligand,target,sign\nIL6,IL6R,1\nIL10,IL10RA,-1\n"
    path = write(text.replace(",", "\t") if ".tsv" in name else text, name)
    for source in (path, str(path)):
        assert rows(pairs(source)) == [("IL6", "IL6R"), ("IL10", "IL10RA")]
        assert signs(source) == [1, -1]


def test_two_columns_of_other_names_are_taken_as_they_stand(write, told):
    assert rows(pairs(write("sender,receiver\nIL6,IL6R\n"))) == [("IL6", "IL6R")]
    assert "columns sender, receiver are taken as ligand, target" in told.text


@pytest.mark.parametrize("text", ["IL6,IL6R\nIL10,IL10RA\n", "IL6,IL6R,x\nIL10,IL10RA,y\n"])
def test_a_file_without_header_keeps_its_first_pair(write, told, text):
    assert rows(pairs(write(text))) == [("IL6", "IL6R"), ("IL10", "IL10RA")]
    assert "the first row is taken as a pair: IL6, IL6R" in told.text


def test_a_byte_order_mark_and_spaces_are_no_part_of_a_name(write):
    assert rows(pairs(write("\ufeffligand,target\n IL6 ,IL6R \n"))) == [("IL6", "IL6R")]


def test_a_data_frame_and_a_list_of_tuples_say_the_same():
    said = [("IL6", "IL6R"), ("TGFB1", "TGFBR1_TGFBR2")]
    frame = pd.DataFrame(said, columns=["ligand", "receptor"], index=["a", "b"])
    frame["receptor"] = frame["receptor"].astype("category")
    pd.testing.assert_frame_equal(pairs(frame), pairs(said))
    pd.testing.assert_frame_equal(pairs(pd.DataFrame(said)), pairs(tuple(said)))
    assert list(frame.columns) == ["ligand", "receptor"]
    assert frame["receptor"].dtype == "category"


def test_pairs_once_written_are_read_as_they_were(tmp_path):
    table = pairs("cellphonedb")
    pd.testing.assert_frame_equal(pairs(table), table)
    for index in (False, True):
        table.to_csv(tmp_path / "pairs.csv", index=index)
        pd.testing.assert_frame_equal(pairs(tmp_path / "pairs.csv"), table)


def test_a_column_complex_of_another_meaning_is_left_alone(write):
    path = write("ligand,target,complex\nIL6,IL6R,True\nIL10,IL10RA,False\n")
    assert pairs(path)["complex"].tolist() == ["", ""]
    frame = pd.DataFrame({"tf": ["A1", "A2"], "target": "B1", "complex": [True, False]})
    assert pairs(frame)["complex"].tolist() == ["", ""]


# Signs


def test_signs_are_one_minus_one_or_unknown(write):
    path = write("tf,target,mor\nA1,B1,0.5\nA1,B2,-2\nA1,B3,\nA1,B4,0\nA1,B5,NA\n")
    assert np.array_equal(signs(path), [1, -1, NAN, NAN, NAN], equal_nan=True)


def test_sign_is_preferred_to_mor(write):
    assert signs(write("ligand,target,MOR,Sign\nA1,B1,1,-1\n")) == [-1]


@pytest.mark.parametrize(
    ("said", "kept"),
    [((1, 1), 1), ((1, -1), NAN), ((-1, NAN), -1), ((NAN, 1), 1), ((NAN, NAN), NAN)],
)
def test_a_pair_said_twice_is_one_row(said, kept):
    frame = pd.DataFrame({"ligand": "IL6", "target": "IL6R", "sign": said})
    table = pairs(frame)
    assert rows(table) == [("IL6", "IL6R")]
    assert np.array_equal(table["sign"], [kept], equal_nan=True)


# Complexes


@settings(deadline=None)  # other work on the machine is no failure
@given(complexes, complexes)
def test_every_subunit_of_a_ligand_meets_every_subunit_of_its_target(ligands, targets):
    ligand, target = "_".join(ligands), "_".join(targets)
    table = pairs([(ligand, target)])
    assert rows(table) == list(product(ligands, targets))
    assert len(table) == len(ligands) * len(targets)
    together = f"{ligand}^{target}"
    single = len(ligands) == len(targets) == 1
    assert set(table["complex"]) == {"" if single else together}
    assert "_".join(dict.fromkeys(table["ligand"])) == ligand
    assert "_".join(dict.fromkeys(table["target"])) == target


@settings(deadline=None)  # other work on the machine is no failure
@given(st.lists(st.tuples(complexes, complexes), min_size=1, max_size=6))
def test_complexes_that_share_subunits_can_be_told_apart_again(said):
    said = [("_".join(ligands), "_".join(targets)) for ligands, targets in said]
    table = pairs(said)
    rows(table)
    assert set(entries(table)) == {"^".join(pair) for pair in said}
    pd.testing.assert_frame_equal(pairs(table), table)


def test_a_pair_in_several_complexes_names_them_all():
    table = pairs([("TGFB1", "ACVR1_TGFBR2"), ("TGFB1", "TGFBR2"), ("TGFB1", "TGFBR1_TGFBR2")])
    assert rows(table) == [("TGFB1", "ACVR1"), ("TGFB1", "TGFBR2"), ("TGFB1", "TGFBR1")]
    both = "TGFB1^ACVR1_TGFBR2;TGFB1^TGFBR2;TGFB1^TGFBR1_TGFBR2"
    assert table["complex"].tolist() == ["TGFB1^ACVR1_TGFBR2", both, "TGFB1^TGFBR1_TGFBR2"]


def test_ensembl_ids_are_split_but_for_their_own_underscores():
    table = pairs([("ENSG00000182378_PAR_Y", "ENSG00000106799_ENSG00000169100_PAR_Y")])
    assert rows(table) == [
        ("ENSG00000182378_PAR_Y", "ENSG00000106799"),
        ("ENSG00000182378_PAR_Y", "ENSG00000169100_PAR_Y"),
    ]


@pytest.mark.parametrize(
    "entry",
    [
        "COMPLEX:TGFBR1_TGFBR2", "complex:TGFBR1_TGFBR2", "(TGFBR1+TGFBR2)", "TGFBR1+TGFBR2",
        "TGFBR1 & TGFBR2", "TGFBR1 _ TGFBR2", "TGFBR1:TGFBR2", "TGFBR1 TGFbR2", "TGFbR1_R2",
        "TGFBR1/TGFBR2", "TGFBR1, TGFBR2",
    ],
)  # fmt: skip
def test_complexes_as_other_tools_write_them(entry):
    table = pairs([("TGFB1", entry)])
    assert rows(table) == [("TGFB1", "TGFBR1"), ("TGFB1", "TGFBR2")]
    assert set(table["complex"]) == {"TGFB1^TGFBR1_TGFBR2"}


@pytest.mark.parametrize(
    ("entry", "what"),
    [
        ("TGFbeta_receptor1", "complexes or molecules"),
        ("complex:PlexinA1_complex1", "complexes or molecules"),
        ("TGFBR1_X2", "complexes or molecules"),
        ("SIGLEC5_2", "complexes or molecules"),
        ("RetinoicAcid_byALDH1A1", "complexes or molecules"),
        ("IL6 receptor", "complexes or molecules"),
        ("Q9ZZZ9", "UniProt ids"),
        ("COMPLEX:P36897_Q9ZZZ9", "UniProt ids"),
        ("TGFR1_HUMAN", "ids of transcripts or proteins"),
        ("NM_004612.4", "ids of transcripts or proteins"),
    ],
)
def test_rows_that_name_no_genes_are_left_out_and_logged(told, entry, what):
    said = [("IL6", "IL6R"), ("TGFB1", entry), (None, None), ("HLA-DRA_HLA-DRB1", "CD4")]
    assert rows(pairs(said)) == [("IL6", "IL6R"), ("HLA-DRA", "CD4"), ("HLA-DRB1", "CD4")]
    assert f"left out of 4 rows: 1 row with {what}" in told.text
    assert f"(such as {entry})" in told.text
    refused([("TGFB1", entry)], f"names no pair of genes: 1 row with {what}", "by symbol")


def test_a_gene_whose_symbol_has_an_underscore_is_one_gene():
    assert rows(pairs([("GTF2H2C_2", "IL6R")])) == [("GTF2H2C_2", "IL6R")]


@pytest.mark.parametrize(
    ("entry", "gene"), [("HLA_DRA", "HLA-DRA"), ("NKX2_1", "NKX2-1"), ("MT_CO1", "MT-CO1")]
)
def test_an_underscore_in_the_place_of_a_hyphen_joins_nothing(entry, gene):
    """DRA is an alias of SLC26A3."""
    assert rows(pairs([(entry, "CD4"), ("TNFSF12_TNFSF13", "CD4")])) == [
        (gene, "CD4"), ("TNFSF12", "CD4"), ("TNFSF13", "CD4"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "gene", ["HLA-DRA", "ERVH48-1", "C4orf3", "NKX2-1", "AC005358.2", "ENSG00000141510.18"]
)
def test_names_with_hyphens_and_dots_are_left_whole(gene):
    assert rows(pairs([(gene, "CD4")])) == [(gene, "CD4")]


@pytest.mark.parametrize(
    ("entry", "chains"),
    [
        ("integrin_a2b1_complex", "A2 B1"), ("complex:integrin_aVb3_complex", "AV B3"),
        ("integrin_a2Bb3_complex", "A2B B3"), ("aIIbb3 integrin", "A2B B3"),
        ("integrin_a10b1_complex", "A10 B1"),
    ],
)  # fmt: skip
def test_integrins_are_named_by_their_chains(told, entry, chains):
    wanted = [("FN1", f"ITG{chain}") for chain in chains.split()]
    assert rows(pairs([("FN1", entry)])) == wanted
    assert f"1 name read as genes: {entry} as ITG" in told.text


# Names that other columns of the table, or liana, explain


def test_complexes_of_cellphonedb_are_read_from_its_interactors(told):
    table = pairs(pd.DataFrame({
        "id_cp_interaction": ["CPI-1", "CPI-2", "CPI-3"],
        "partner_a": ["Q9ZZZ9", "Q9ZZZ8", "GABA_byGAD1_and_SLC32A1"],
        "partner_b": ["TGFbeta_receptor1", "P01730", "nobody_knows"],
        "protein_name_a": ["TGFB1_HUMAN", "", ""],
        "interactors": ["TGFB1-TGFBR1+TGFBR2", "HLA-A-CD8A+CD8B", "GABA-?"],
    }))  # fmt: skip
    assert rows(table) == [
        ("TGFB1", "TGFBR1"), ("TGFB1", "TGFBR2"), ("HLA-A", "CD8A"), ("HLA-A", "CD8B"),
    ]  # fmt: skip
    assert "left out of 3 rows: 1 row with complexes" in told.text
    assert "names read as genes: Q9ZZZ9 as TGFB1" in told.text


def test_the_receptor_of_cellphonedb_is_the_target():
    table = pairs(pd.DataFrame({
        "partner_a": ["simple:Q9ZZZ9", "simple:Q9ZZZ8"],
        "partner_b": ["simple:Q9ZZZ7", "complex:integrin_a2b1_complex"],
        "gene_a": ["CD4", "CDH1"], "gene_b": ["HLA-A", None],
        "receptor_a": [True, False], "receptor_b": ["False", "True"],
    }))  # fmt: skip
    assert rows(table) == [("HLA-A", "CD4"), ("CDH1", "ITGA2"), ("CDH1", "ITGB1")]


@pytest.mark.parametrize(
    "column", [{"receptor.symbol": "ACVR1, TGFBR1"}, {"interaction_name_2": "X1 - (ACVR1+TGFBR1)"}]
)
def test_complexes_of_cellchat_are_read_from_other_columns(column):
    said = {"ligand": ["TGFB1"], "receptor": ["ACVR1_TGFbR"]}
    column = {name: [text.replace("X1", "TGFB1")] for name, text in column.items()}
    table = pairs(pd.DataFrame(said | column))
    assert rows(table) == [("TGFB1", "ACVR1"), ("TGFB1", "TGFBR1")]


def test_symbols_are_preferred_to_names_of_proteins(write):
    header = "Pair.Name\tLigand.ApprovedSymbol\tLigand.Name\tReceptor.ApprovedSymbol\tReceptor.Name"
    path = write(f"{header}\nx\tA2M\talpha-2\tLRP1\tlow density\n", "pairs.txt")
    assert rows(pairs(path)) == [("A2M", "LRP1")]


def test_the_other_side_explains_nothing():
    frame = pd.DataFrame({"gene1": ["P36897_Q9ZZZ9", "CD4"], "gene2": ["IL6", "IL16"]})
    assert rows(pairs(frame)) == [("CD4", "IL16")]


def test_uniprot_ids_are_looked_up_in_liana(told):
    said = [("P01137", "COMPLEX:P36897_P37173"), ("P01137-1", "P36897")]
    assert rows(pairs(said)) == [("TGFB1", "TGFBR1"), ("TGFB1", "TGFBR2")]
    assert "read as genes: P01137 as TGFB1, COMPLEX:P36897_P37173 as TGFBR1_TGFBR2" in told.text


def test_without_liana_uniprot_ids_are_named(monkeypatch):
    entries = "sagefm.tl.perturbation._entries"
    monkeypatch.setattr(f"{entries}._symbols_of_uniprot", {}.copy)
    refused([("P01137", "P36897")], "1 row with UniProt ids", "such as P01137")


# Gene sets


def test_a_gene_of_a_set_counts_once(write):
    path = write("Hypoxia\turl\tVEGFA\tCA9\tVEGFA\t\n\nEMT\t\tVIM\n", "sets.gmt")
    assert gene_sets(path) == {"Hypoxia": ["VEGFA", "CA9"], "EMT": ["VIM"]}


def test_a_set_is_paired_with_what_is_upstream():
    table = set_pairs("IFNG", ["STAT1", "IRF1", "STAT1"])
    assert rows(table) == [("IFNG", "STAT1"), ("IFNG", "IRF1")]
    assert table["sign"].isna().all()
    pd.testing.assert_frame_equal(set_pairs(["IFNG"], ("STAT1", "IRF1")), table)
    assert rows(set_pairs(["IFNG", "TNF"], "TNF")) == [("IFNG", "TNF"), ("TNF", "TNF")]


# Errors: one line, which file, what is wrong, what to do


def refused(source, *said, function=pairs):
    with pytest.raises(InputError) as error:
        function(source)
    message = str(error.value)
    assert "\n" not in message
    for part in said:
        assert re.search(part, message), message


@pytest.mark.parametrize("name", ["lianna", "nowhere/mine.csv", "https://example.org/mine.csv"])
def test_neither_a_resource_nor_a_file(name):
    refused(name, "example.org|lianna|nowhere", "no such file", "liana, cellphonedb, cellchat")


def test_a_folder_is_no_table(tmp_path):
    refused(tmp_path, re.escape(str(tmp_path)), "cannot be read")


@pytest.mark.parametrize(
    "data",
    [b"\x89PNG\r\n\x1a\n\xff\xfe", b"a,b\n1,2,3\n", b'"a,b\nIL6,IL6R\n'],
    ids=["binary", "ragged", "quote"],
)
def test_what_is_no_table(tmp_path, data):
    (tmp_path / "mine.csv").write_bytes(data)
    refused(tmp_path / "mine.csv", "mine.csv: is not a table", "save it as .csv")


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-12], lambda b: b"ligand,target\n", lambda b: b[:10] + b"\xff" * 20]
)
def test_a_damaged_archive(tmp_path, damage):
    whole = gzip.compress(b"ligand,target\nIL6,IL6R\n" * 50)
    (tmp_path / "mine.csv.gz").write_bytes(damage(whole))
    refused(tmp_path / "mine.csv.gz", "mine.csv.gz: ")


def test_one_column(write):
    refused(write("ligand\nIL6\n"), "mine.csv: has fewer than two columns", "commas")
    refused(write("ligand;target\nIL6;IL6R\n"), "fewer than two columns")
    refused(pd.DataFrame({"ligand": ["IL6"]}), "fewer than two columns")


def test_columns_that_do_not_say_what_they_hold(write):
    refused(write("gene_a,gene_b,score\nIL6,IL6R,1\n"), "gene_a, gene_b, score", "call them ligand")


def test_no_rows(write):
    for empty in (
        write(""),
        write("ligand,target\n", "b.csv"),
        [],
        pd.DataFrame({"tf": [], "target": []}),
    ):
        refused(empty, "no rows", "give a table")


@pytest.mark.parametrize(
    "row", [",IL6R", "IL6,", "IL6,NA", "IL6", "IL6,IL6R_", "_IL6,IL6R", "IL6, "]
)
def test_a_missing_name(write, row):
    path = write(f"ligand,target\nIL10,IL10RA\n{row}\n")
    refused(path, "mine.csv: row 2: the name of a gene is missing", "fill it in")


@pytest.mark.parametrize("name", [None, NAN, pd.NA, "", " "])
def test_a_missing_name_in_python(name):
    refused([("IL6", "IL6R"), ("IL6", name)], "pairs: row 2: the name of a gene is missing")
    frame = pd.DataFrame({"ligand": ["IL6"], "target": [name]})
    refused(frame, "pairs: row 1: the name of a gene is missing")


def test_numbers_are_no_genes(write):
    refused(write("x,y\n1.5,2.5\n"), "mine.csv: row 1: '1.5' is no name of a gene")
    refused(pd.DataFrame(np.eye(2)), "row 1: '1.0' is no name of a gene")


def test_a_sign_that_is_no_number(write):
    path = write("ligand,target,sign\nIL6,IL6R,1\nIL10,IL10RA,up\n")
    refused(path, "mine.csv: row 2: the sign is 'up'", "give 1, -1 or nothing")


@pytest.mark.parametrize(
    "source", [["IL6", "IL6R"], ("AB", "CD"), [("IL6", "IL6R", 1)], [("IL6",)]]
)
def test_items_that_are_no_pairs(source):
    refused(source, "pairs: item 1 is", "give .ligand, target. tuples")


@pytest.mark.parametrize(
    "text", ["ligand,target\nIL6,IL6R\n", "Hypoxia\turl\n", "\turl\tVEGFA\n", "Hypoxia\turl\t\t\n"]
)
def test_a_line_that_is_no_gene_set(write, text):
    path = write("EMT\t\tVIM\n" + text, "sets.gmt")
    refused(path, "sets.gmt: line 2 is no gene set", "separated by tabs", function=gene_sets)


def test_what_is_no_gmt(write, tmp_path):
    refused(tmp_path / "no.gmt", "no.gmt: cannot be read", "check", function=gene_sets)
    refused(write("\n", "sets.gmt"), "holds no gene sets", function=gene_sets)
    packed = write("EMT\t\tVIM\n", "sets.gmt.gz")
    refused(packed, "is not a GMT file; unpack it", function=gene_sets)


def test_two_sets_of_one_name(write):
    path = write("EMT\t\tVIM\nHypoxia\t\tCA9\nEMT\t\tCDH2\n", "sets.gmt")
    refused(path, "sets.gmt: line 3: a second set 'EMT'", "rename", function=gene_sets)


def test_an_empty_set_has_no_pairs():
    with pytest.raises(InputError, match="upstream is empty; give at least one gene"):
        set_pairs([], ["STAT1"])
    with pytest.raises(InputError, match="genes is empty; give at least one gene"):
        set_pairs("IFNG", [])
