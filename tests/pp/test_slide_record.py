"""What a slide shows of its technology and genes, and the records that a model keeps of slides."""

import json

import numpy as np
import pandas as pd
import pytest

from sagefm.pp.aligned import AlignedSlide
from sagefm.pp.simulate import simulate
from sagefm.pp.slide_record import (
    STATED,
    TRAINED_SLIDES,
    SlideRecord,
    array_named,
    described,
    kinds_of,
    records_of,
    without_records,
)
from sagefm.pp.vocabulary import Vocabulary

ALL = np.arange(64)


def square(names, pitch=1.0):
    """A slide of 64 spots on a square grid."""
    slide = simulate(64, genes=["A", "B", "CD4"], n_couplings=0, seed=1)
    slide.obs_names, slide.uns = names, {}
    slide.obsm["spatial"] = pitch * np.array([(x, y) for x in range(8) for y in range(8)], float)
    return slide


def barcodes(length):
    rng = np.random.default_rng(0)
    return ["".join(rng.choice(list("ACGT"), length)) for _ in range(64)]


def test_barcodes_and_grid_show_the_technology():
    names = [f"{x}x{y}" for x in range(8) for y in range(8)]
    assert described(square(names), ALL) == {"array": "legacy array", "pitch_um": 200}
    assert described(square(barcodes(18)), ALL)["array"] == "legacy array"
    assert described(square(barcodes(16)), ALL) == {"array": "barcodes on a square grid"}
    bins = [f"s_016um_{x:05d}_{y:05d}-1" for x in range(8) for y in range(8)]
    assert described(square(bins), ALL)["array"] == "Visium HD"
    hexagonal = simulate(100, seed=0)
    hexagonal.obs_names = [f"{name}-1" for name in barcodes(16)] + list(hexagonal.obs_names[64:])
    assert described(hexagonal, np.arange(100))["array"].endswith("(CytAssist)")


@pytest.mark.parametrize("names", [[f"cell{i}" for i in range(64)], list(map(str, range(64)))])
def test_what_shows_nothing_is_not_known(names):
    assert described(square(names), ALL) == {}


def test_what_a_slide_states_is_used_where_nothing_shows_it():
    slide = square([f"spot{i}" for i in range(64)], pitch=4.0)
    slide.uns |= {
        "technology": "Visium FFPE",
        "organ": " liver ",
        "license": 7,
        "source": np.ones(3),
    }
    slide.uns["spatial"] = {"s": {"scalefactors": {"microns_per_pixel": 30.0}}}
    found = {"technology": "Visium FFPE", "organ": "liver", "array": "Visium", "pitch_um": 120}
    assert described(slide, ALL) == found
    slide.obs["organ"] = pd.Categorical(["lung"] * 64)
    slide.obs["disease"] = [["a"]] * 64  # cannot be compared
    assert described(slide, ALL) == found | {"organ": "lung"}
    slide.obs.loc[slide.obs_names[:9], "organ"] = np.nan
    slide.obs["source"] = ["a", "b"] * 32
    assert "source" not in described(slide, ALL)
    del slide.uns["technology"]
    slide.uns["spatial"]["s"]["metadata"] = {"chemistry_description": "Visium V4 Slide - FFPE v2"}
    assert described(slide, ALL)["array"].endswith("(CytAssist)")


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("10x Visium", "Visium"), ("Visium HD 3'", "Visium HD"), ("Spatial 3' v1", "Visium"),
        ("10x Visium CytAssist FFPE", "Visium, a later array than v1 (CytAssist)"),
        ("Spatial Transcriptomics 100um", "legacy array"), ("10x Xenium", "Xenium"),
        ("DBiT-like grid", "barcodes on a square grid"), ("a microscope", ""), ("", ""),
    ],
)  # fmt: skip
def test_names_of_technologies(name, array):
    assert array_named(name) == array


FAMILIES = [f"MT-ND{i}" for i in range(1, 6)], [f"RPL{i}" for i in range(1, 7)]
OTHERS = [f"G{i}" for i in range(89)]
SYMBOLS = (*FAMILIES[0], *FAMILIES[1], *OTHERS)


def record(measured, symbols=SYMBOLS, **known):
    slide = simulate(30, genes=list(symbols), n_couplings=0, seed=2)
    aligned = AlignedSlide.of(slide, Vocabulary(tuple(symbols)), 15)
    shown = np.isin(symbols, list(measured))
    return SlideRecord.of(aligned.without(np.flatnonzero(~shown)), tuple(symbols), **known)


@pytest.mark.parametrize(
    ("measured", "name"),
    [
        (SYMBOLS, "the whole transcriptome"),
        ([*FAMILIES[1], *OTHERS], "most genes, without mitochondrial ones"),
        ([*FAMILIES[0], *OTHERS], "most genes, without ribosomal ones"),
        (OTHERS, "most genes, without mitochondrial and ribosomal ones"),
        (SYMBOLS[:40], "a subset of the genes"),
        (OTHERS[:40], "a subset of the genes, without mitochondrial and ribosomal ones"),
        (OTHERS[:9], "a panel or few genes, without mitochondrial and ribosomal ones"),
    ],
)
def test_sets_of_genes_have_names(measured, name):
    assert record(measured).gene_set == name


def test_a_vocabulary_without_a_family_says_nothing_of_it():
    found = record(OTHERS, symbols=tuple(OTHERS))
    assert found.mitochondrial is None
    assert found.gene_set == "most genes"


def test_a_record_holds_depth_and_number_of_genes():
    slide = simulate(30, genes=list(SYMBOLS), n_couplings=0, seed=2)
    found = record(OTHERS)
    assert found.counts == np.median(slide.X.sum(axis=1).A1)  # of all genes
    assert (found.spots, found.genes, found.measured) == (30, 89, 0.89)


def test_records_go_through_json_and_read_as_they_were():
    one = record(OTHERS, patient="p", organ="liver", array="Visium").with_profile(np.ones(3) / 3)
    two = record(SYMBOLS)
    rows = {"a": one.entries(), "b": two.entries()}
    provenance = json.loads(json.dumps({"seed": 1, TRAINED_SLIDES: rows}))
    assert records_of(provenance) == {"a": one, "b": two}
    assert one.profile == (0.33,) * 3
    assert without_records(provenance) == {"seed": 1}
    assert not set(STATED) & rows["b"].keys()
    provenance[TRAINED_SLIDES]["a"]["of a later version"] = [1]
    assert records_of(provenance)["a"] == one
    assert records_of({}) == {}


@pytest.mark.parametrize(
    "rows",
    [
        7, [1], "text", None, {"a": 7}, {"a": {}}, {"a": None},
        {"a": {"spots": -1, "counts": 1.0, "genes": 1, "measured": 1.0}},
        {"a": {"spots": 1, "counts": float("nan"), "genes": 1, "measured": 1.0}},
        {"a": {"spots": 1, "counts": 1.0, "genes": 1, "measured": 1.5}},
        {"a": {"spots": 1, "counts": 1.0, "genes": 1, "measured": 1.0, "profile": ["x"]}},
    ],
)  # fmt: skip
def test_damaged_records_are_left_out_with_a_warning(rows, caplog):
    assert records_of({TRAINED_SLIDES: rows}) == {}
    assert "damaged" in caplog.text
    assert "object" not in caplog.text


def test_kinds_are_counted():
    breast = {f"s{i}": record(OTHERS, organ="breast", patient="p", technology="X") for i in (1, 2)}
    found = kinds_of(breast | {"t": record(SYMBOLS[:40], array="Visium")})
    assert found["slides"].tolist() == [2, 1]
    assert found["patients"].tolist() == [1, 1]
    assert found["organ"].tolist() == ["breast", "not known"]
    assert found["technology"].tolist() == ["X", "Visium"]
    assert found["measured"].tolist() == ["89 %", "40 %"]
    assert kinds_of({}).empty
