"""What a trained model records of the slides that it was trained on."""

import numpy as np
import pandas as pd
import pytest

from sagefm import SageFM
from sagefm.pp.pseudonyms import pseudonym, without_names
from sagefm.pp.simulate import simulate
from sagefm.pp.slide_record import TRAINED_SLIDES, records_of
from sagefm.pretrain import Recipe, fit
from sagefm.pretrain.corpus import Corpus, build

SETTINGS = ["train.max_epochs=1", "train.batch_size=32", "network.widths=[16,16,16,16,8]",
            "data.genes=100", "data.validation=[]"]  # fmt: skip
FACTS = {
    "s0": {
        "organ": "liver",
        "technology": "10x Visium",
        "license": "GPL-3",
        "source": float("nan"),
    },
    "s1": {"organ": "", "accession": " GSE1 ", "spots": "7", "unheard of": "x"},
    "not trained on": {"organ": "lung"},
}


@pytest.fixture(scope="module")
def slides():
    genes = simulate(15).var_names[:100]
    found = {
        f"s{i}": simulate(60, genes=genes, seed=i, patient=f"p{i}", slide=f"s{i}") for i in range(3)
    }
    found["s1"].obs["organ"] = "heart"
    found["s2"] = found["s2"][:, 20:].copy()
    return found


@pytest.fixture(scope="module")
def model(slides):
    recipe = Recipe.load("small", [*SETTINGS, 'data.leave_out=["p2"]'])
    return fit(slides, recipe, facts=FACTS, progress=False).model


def test_given_facts_are_recorded_and_the_slide_says_the_rest(model):
    rows = records_of(model.provenance)
    assert list(rows) == ["s0", "s1"]  # nothing of a patient that was left out
    assert (rows["s0"].organ, rows["s0"].technology) == ("liver", "10x Visium")
    assert (rows["s0"].license, rows["s0"].source) == ("GPL-3", "")
    assert (rows["s1"].organ, rows["s1"].accession) == ("heart", "GSE1")
    assert [each.patient for each in rows.values()] == ["p0", "p1"]
    assert [each.spots for each in rows.values()] == [60, 60]
    assert {each.pitch_um for each in rows.values()} == {100}


def test_depth_genes_and_place_are_computed(model, slides):
    rows = records_of(model.provenance)
    for name, row in rows.items():
        assert row.counts == np.median(slides[name].X.sum(axis=1).A1)
        z = model.trained_on.reduce(model.embed(slides[name])).mean(axis=0)
        np.testing.assert_allclose(row.profile, z, atol=0.01)  # all spots are in the sample
    everything = Recipe.load("small", SETTINGS)
    row = records_of(fit(slides, everything, progress=False).model.provenance)["s2"]
    assert row.genes == row.measured * 100 == 80


def test_records_are_saved_in_few_bytes(model, tmp_path):
    model.save(tmp_path / "m.safetensors")
    loaded = SageFM.load(tmp_path / "m.safetensors")
    digests = without_names(model.provenance)
    assert records_of(loaded.provenance) == records_of(digests)
    assert len(repr(loaded.provenance[TRAINED_SLIDES][pseudonym("s0")])) < 800


def test_a_corpus_says_what_it_knows(slides, tmp_path):
    slides["s0"].write_h5ad(tmp_path / "s0.h5ad")
    slides["s1"].write_h5ad(tmp_path / "s1.h5ad")
    facts = pd.DataFrame({"slide": ["s0"], "organ": ["liver"], "technology": ["Visium HD"]})
    build({name: tmp_path / f"{name}.h5ad" for name in ("s0", "s1")}, tmp_path / "c", facts=facts)
    corpus = Corpus.open(tmp_path / "c")
    rows = records_of(fit(corpus, Recipe.load("small", SETTINGS), progress=False).model.provenance)
    assert (rows["s0"].organ, rows["s0"].array) == ("liver", "Visium HD")
    assert (rows["s1"].organ, rows["s1"].array) == ("heart", "")
    assert rows["s0"].source == "s0.h5ad"
