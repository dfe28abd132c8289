import logging

import numpy as np
import pandas as pd
import pytest

import sagefm
from sagefm.model import Config, SageFM
from sagefm.pp.simulate import simulate
from sagefm.pp.vocabulary import Vocabulary
from sagefm.tl.crossing import key_of

NAME = "ID1.1"


@pytest.fixture(scope="module")
def slide():
    return simulate(260, n_proteins=6, seed=4)


@pytest.fixture(scope="module")
def table(slide):
    return sagefm.tl.cross(slide, n_maps=99)


def fields(slide, n, seed):
    """Counts of smooth maps that know nothing of the slide."""
    rng = np.random.default_rng(seed)
    points = slide.obsm["spatial"] / 200
    drawn = {}
    for number in range(n):
        waves = rng.normal(0, 1 / (1.5, 3, 6)[number % 3], (2, 24))
        field = np.cos(points @ waves + rng.uniform(0, 2 * np.pi, 24)).sum(axis=1) / np.sqrt(12)
        drawn[f"null{number}"] = rng.poisson(np.exp(3 + 0.7 * field))
    return pd.DataFrame(drawn, index=slide.obs_names)


def test_proteins_of_genes_are_predicted(slide, table):
    recoverable = slide.uns["simulation"]["proteins"]["recoverable_r"][table.index]
    assert table["r"][recoverable > 0.6].mean() > 0.4
    assert table["r"][recoverable > 0.6].mean() > table["r"][recoverable < 0.3].mean() + 0.1
    assert table["p"].is_monotonic_increasing
    assert (table["q"] >= table["p"]).all()
    assert ((table["r_low"] <= table["r"]) & (table["r"] <= table["r_high"])).all()


def test_the_table_says_how_simple_means_do(slide, table):
    genes = slide.uns["simulation"]["proteins"].loc[table.index, "gene"]
    normalized = sagefm.pp.expression.shared_expression([slide])
    for name, gene in genes.items():
        of_gene = normalized.normalized[0][:, normalized.genes.index(gene)].toarray()[:, 0]
        all_values = sagefm.pp.modalities.modality(slide, "protein").normalized()[name]
        r = np.corrcoef(of_gene, all_values)[0, 1]
        assert table.loc[name, "r_same_gene"] == pytest.approx(r, abs=1e-4)
    best = table["best_baseline"]
    of_best = [table.loc[name, f"r_{best[name]}"] for name in table.index]
    assert table["gain"].to_numpy() == pytest.approx(table["r"] - of_best)
    assert (table["gain_low"] <= table["gain_high"]).all()


def test_predictions_are_written_and_are_those_of_the_table(slide, table):
    predicted = slide.obsm["sagefm_cross_protein"]
    assert list(predicted) == list(table.index)
    truth = sagefm.pp.modalities.modality(slide, "protein").normalized()[table.index]
    r = [np.corrcoef(predicted[name], truth[name])[0, 1] for name in table.index]
    assert r == pytest.approx(table["r"].to_numpy(), abs=1e-3)
    pd.testing.assert_frame_equal(
        slide.uns["sagefm"]["cross"]["sagefm_cross_protein"]["table"], table
    )


def test_features_that_know_nothing_of_the_slide_rarely_pass(slide):
    slide = slide.copy()
    slide.obsm["null"] = fields(slide, 60, seed=0)
    table = sagefm.tl.cross(slide, with_="null", n_maps=99)
    assert (table["p"] <= 0.05).sum() < 8
    assert (table["p_given_counts"] <= 0.05).sum() < 8
    assert 10 < (table["p"] > 0.5).sum() < 50


def test_a_planted_feature_passes_and_one_that_follows_library_size_does_not_given_it(slide):
    rng = np.random.default_rng(1)
    slide = slide.copy()
    sizes = np.asarray(slide.X.sum(axis=1)).ravel() / 300
    from_genes = np.log1p(slide.X[:, :200].sum(axis=1)) - np.log1p(slide.X.sum(axis=1))
    planted = np.asarray(from_genes - from_genes.mean()).ravel()
    rates = {"planted": 20 * np.exp(2 * planted / planted.std()), "follows": sizes**2}
    slide.obsm["made"] = pd.DataFrame(
        {name: rng.poisson(rate) for name, rate in rates.items()}, index=slide.obs_names
    )
    table = sagefm.tl.cross(slide, with_="made", n_maps=99)
    assert table.loc["planted", "p"] <= 0.02
    assert table.loc["follows", "p"] <= 0.02
    assert table.loc["follows", "p_given_counts"] > 0.05
    assert table.loc["follows", "r_given_counts"] < 0.3 < table.loc["follows", "r"]


def test_genes_are_predicted_in_reverse(slide):
    names = ["ID1", *slide.var_names[:3]]
    sagefm_cross = sagefm.tl.cross(slide, features=names, reverse=True, n_maps=19)
    assert set(sagefm_cross.index) <= set(names)
    key = "sagefm_cross_genes_from_protein"
    assert key == key_of("protein", reverse=True)
    assert list(slide.obsm[key]) == list(sagefm_cross.index)
    chosen = sagefm.tl.cross(slide, reverse=True, n_maps=19)
    assert len(chosen) == 100


def test_several_slides_and_spots_that_are_not_measured(slide, caplog):
    first, second = slide.copy(), simulate(200, n_proteins=6, seed=5, slide="other")
    second.obsm["antibody_capture"].iloc[:20] = np.nan
    table = sagefm.tl.cross({"a": first, "b": second}, n_maps=19)
    assert (table["n_spots"] == 440).all()
    predicted = second.obsm["sagefm_cross_protein"]
    assert predicted.iloc[:20].isna().all(axis=None)
    assert predicted.iloc[20:].notna().all(axis=None)
    assert first.obsm["sagefm_cross_protein"].notna().all(axis=None)


def test_the_order_of_slides_spots_and_features_changes_no_number(slide):
    second = simulate(200, n_proteins=6, seed=5, slide="other")
    table = sagefm.tl.cross({"a": slide.copy(), "b": second}, n_maps=19)
    mixed = slide[np.random.default_rng(0).permutation(slide.n_obs)].copy()
    proteins = mixed.obsm["antibody_capture"]
    mixed.obsm["antibody_capture"] = proteins[proteins.columns[::-1]]
    again = sagefm.tl.cross({"b": second, "a": mixed}, n_maps=19)
    pd.testing.assert_frame_equal(again.loc[table.index], table, atol=1e-5)


def test_proteins_that_other_slides_lack_change_no_value(slide):
    first, second = slide.copy(), simulate(200, n_proteins=6, seed=5, slide="other")
    expected = sagefm.tl.cross([first, second], n_maps=19)
    second.obsm["antibody_capture"].insert(0, "MORE", np.arange(200))
    found = sagefm.tl.cross([first, second], n_maps=19)
    pd.testing.assert_frame_equal(found, expected)
    shown = sagefm.pl.cross(second, features=NAME, show=False)
    values = shown[0].collections[0].get_array()
    clr = sagefm.pp.clr(simulate(200, n_proteins=6, seed=5).obsm["antibody_capture"].iloc[:, :6])
    assert np.median(np.asarray(values)) == pytest.approx(np.median(clr[NAME]), abs=0.05)
    del second.obsm["antibody_capture"]["MORE"]
    assert sagefm.pl.cross(second, features=NAME, show=False)
    del second.obsm["antibody_capture"][NAME]
    with pytest.raises(sagefm.InputError, match=f"has no {NAME} any more"):
        sagefm.pl.cross(second, show=False)


def test_an_embedding_is_added(slide):
    vocabulary = Vocabulary(tuple(slide.var_names[::3]))
    model = SageFM.new(vocabulary, Config("context", (8, 12, 12, 8)))
    plain = sagefm.tl.cross(slide, features=[NAME], n_maps=19)
    with_model = sagefm.tl.cross(slide, model, features=[NAME], n_maps=19)
    assert plain.loc[NAME, "r"] != with_model.loc[NAME, "r"]
    assert "context" in slide.uns["sagefm"]["cross"]["sagefm_cross_protein"]["model"]


def test_the_same_seed_gives_the_same_table(slide):
    tables = [sagefm.tl.cross(slide.copy(), n_maps=19, seed=3) for _ in range(2)]
    pd.testing.assert_frame_equal(*tables)


def test_rare_and_constant_features_are_left_out_with_a_note(slide, caplog):
    slide = slide.copy()
    counts = fields(slide, 1, seed=2)
    counts["rare"] = (np.arange(len(counts)) < 19).astype(int)
    counts["same"] = 3
    slide.obsm["made"] = counts
    with caplog.at_level(logging.WARNING):
        table = sagefm.tl.cross(slide, with_="made", n_maps=19)
    assert list(table.index) == ["null0"]
    assert "2 features" in caplog.text
    assert "rare, same" in caplog.text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"with_": "nothing"}, "no second modality 'nothing'"),
        ({"features": [NAME, "NOT1A"]}, "there is no NOT1A"),
        ({"features": []}, "there are none"),
        ({"n_maps": 5}, "from 19 on"),
        ({"seed": -1}, "from 0 on"),
        ({"reverse": True, "features": ["NOT1A"]}, "there is no NOT1A"),
    ],
)
def test_bad_input_is_one_line(slide, changes, message):
    with pytest.raises(sagefm.InputError, match=message) as error:
        sagefm.tl.cross(slide, **changes)
    assert "\n" not in str(error.value)


def test_what_cannot_be_divided_into_blocks_is_refused(slide):
    with pytest.raises(sagefm.InputError, match="60 spots with both modalities are too few"):
        sagefm.tl.cross(slide[:60].copy())
    with pytest.raises(sagefm.InputError, match="no AnnData"):
        sagefm.tl.cross("slide.h5ad")
    with pytest.raises(sagefm.InputError, match="nothing to predict"):
        empty = slide.copy()
        empty.obsm["made"] = pd.DataFrame({"a": np.ones(260)}, index=empty.obs_names)
        sagefm.tl.cross(empty, with_="made")
