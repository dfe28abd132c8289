from collections import Counter

import pytest

import sagefm
from sagefm import InputError
from sagefm.pp.gene_names import known_gene_names


def test_every_marker_is_a_symbol_in_use(monkeypatch):
    monkeypatch.delenv("SAGEFM_GENES", raising=False)
    known = known_gene_names()
    for name, genes in sagefm.pp.marker_sets().items():
        for gene in genes:
            assert gene in known.symbols, (name, gene)
            assert known.symbol_of_alias.get(gene, gene) == gene, (name, gene)


def test_a_set_has_6_to_15_genes_and_none_twice():
    sets = sagefm.pp.marker_sets()
    assert len(sets) > 100
    for name, genes in sets.items():
        assert 6 <= len(genes) <= 15, name
        assert len(set(genes)) == len(genes), name
    assert not {genes for genes, n in Counter(sets.values()).items() if n > 1}


def test_groups_are_parts_of_all_sets_and_no_name_is_in_two():
    everything = sagefm.pp.marker_sets()
    cortex, brain = sagefm.pp.marker_sets("cortex"), sagefm.pp.marker_sets("brain")
    assert list(cortex) == [*(f"layer {i}" for i in range(1, 7)), "white matter"]
    assert sagefm.pp.marker_sets(["brain", "cortex"]) == brain | cortex
    assert not set(brain) & set(cortex)
    assert everything.items() >= (brain | cortex).items()
    assert "CD3E" in sagefm.pp.marker_sets("general")["T cell"]


def test_an_unknown_group_names_those_there_are():
    with pytest.raises(InputError, match=r"'brian': no group of marker sets; .*brain, cortex"):
        sagefm.pp.marker_sets("brian")
    for wrong in (["brain", 3], []):
        with pytest.raises(InputError):
            sagefm.pp.marker_sets(wrong)


def test_what_is_returned_can_be_changed():
    sagefm.pp.marker_sets("cortex").clear()
    assert len(sagefm.pp.marker_sets("cortex")) == 7
