"""Whole sets of genes, each against each gene upstream."""

import numpy as np
import pandas as pd
import pytest

from sagefm import InputError
from sagefm.tl import perturb, perturb_sets

COLUMNS = ["ligand", "set", "n_genes", "effect", "share_up", "effect_random", "z", "p", "q",
           "z_components", "p_random", "n_slides"]  # fmt: skip


@pytest.fixture(scope="module")
def genes(slide, model):
    """Those of the model that the slide shows, the most frequent first."""
    shown = [g for g in model.vocabulary if g in slide.var_names]
    depth = np.asarray(slide[:, shown].X.sum(axis=0)).ravel()
    return [shown[i] for i in np.argsort(-depth)]


@pytest.fixture(scope="module")
def sets(genes):
    return {"some": genes[10:16], "others": [*genes[20:24], "NOPE"], "none": ["NOPE"]}


@pytest.fixture(scope="module")
def table(slide, model, genes, sets):
    return perturb_sets(slide, model, genes[:2], sets, n_matched=20, n_spots=80)


def test_sets_are_signatures_of_equal_weights(slide, model, genes, sets, table):
    assert list(table) == COLUMNS
    assert table["set"].tolist() == ["some", "some", "others", "others"]
    assert table["n_genes"].tolist() == [6, 6, 4, 4]
    asked = list(zip(table["ligand"], table["set"], strict=True))
    same = perturb(slide, model, asked, signatures=sets, n_matched=20, n_null_spots=80)
    for name in ("effect", "z", "q", "p_random"):
        np.testing.assert_allclose(table[name], same[name])
    assert ((table["p"] > 0) & (table["p"] <= 1)).all()
    assert ((table["p_random"] > 0) & (table["p_random"] <= 1)).all()
    assert (table["q"] >= table["p"] - 1e-12).all()


def test_it_is_the_same_for_a_seed_and_goes_on(slide, model, genes, sets, table, tmp_path):
    keep, told = tmp_path / "parts", []

    def stop(line):
        told.append(line)
        if len(told) == 2:
            raise KeyboardInterrupt

    how = {"n_matched": 20, "n_spots": 80, "keep": keep}
    with pytest.raises(KeyboardInterrupt):
        perturb_sets(slide, model, genes[:2], sets, progress=stop, **how)
    assert any(keep.glob("*.npy"))
    found = perturb_sets(slide, model, genes[:2], sets, **how)
    pd.testing.assert_frame_equal(found, table)
    assert not keep.exists()


def test_a_set_that_is_wired_to_a_gene_stands_out(slide, model, genes):
    """Weights from one gene straight to a set: random genes and other ligands do not reach it."""
    from copy import deepcopy

    import torch

    wired = deepcopy(model)
    ligand, own = genes[5], genes[30:42]
    network = wired.network
    with torch.no_grad():
        at = wired.vocabulary.positions([ligand])
        to = wired.vocabulary.positions(own)
        network.decoder.bias.fill_(1.0)
        step = network.embed(network.first[at] * 2) - network.embed(network.first[at] * 0)
        weight = 3 * step[0] / step.norm() ** 2
        network.decoder.weight[to] = weight
        # Far from where the last ReLU cuts.
        network.decoder.bias[to] = 10 - (torch.from_numpy(wired.embed(slide)) @ weight).min()
    found = perturb_sets(slide, wired, [ligand, genes[6]], {"own": own}, n_spots=80)
    found = found.set_index("ligand")
    assert found["effect"][ligand] > 5 * abs(found["effect_random"][ligand])
    assert found["z"][ligand] > found["z"][genes[6]]


def test_genes_may_be_named_by_id(slide, model, genes, sets, table):
    from sagefm import SageFM
    from sagefm.pp import Vocabulary

    ids = [f"ENSG{number:011}" for number in range(len(model.vocabulary))]
    known = SageFM(model.network, Vocabulary(model.vocabulary.symbols, tuple(ids)), model.config)
    by_id = dict(zip(model.vocabulary.symbols, ids, strict=True))
    named = {name: [by_id.get(gene, gene) for gene in own] for name, own in sets.items()}
    found = perturb_sets(slide, known, [by_id[g] for g in genes[:2]], named, n_matched=20,
                         n_spots=80)  # fmt: skip
    pd.testing.assert_frame_equal(found, table)


def test_bad_input_is_one_clear_line(slide, model, genes, sets):
    with pytest.raises(InputError, match="none has a gene that the model knows"):
        perturb_sets(slide, model, genes[0], {"none": ["NOPE"]})
    with pytest.raises(InputError, match="not one of the model's genes"):
        perturb_sets(slide, model, "NOPE", sets)
    with pytest.raises(InputError, match="no spot"):
        perturb_sets(slide, model, genes[0], sets, region=np.zeros(slide.n_obs, dtype=bool))


def test_genes_that_the_model_does_not_know_are_left_out(slide, model, genes, sets, caplog):
    found = perturb_sets(slide, model, [genes[0], "NO"], sets, n_matched=8, n_spots=20)
    one, of_sets, empty = caplog.messages
    assert one.startswith("1 of 2 genes are left out: NO: not one of the model's genes")
    assert (
        of_sets
        == "1 of 11 genes of the signatures are left out: 1 that the model does not know (NOPE)"
    )
    assert empty.endswith("left out: none")
    known = {"some": sets["some"], "others": sets["others"][:-1]}
    wanted = perturb_sets(slide, model, genes[0], known, n_matched=8, n_spots=20)
    pd.testing.assert_frame_equal(found, wanted)
    assert len(caplog.messages) == 3
