"""Imputed genes, against the model asked one mask at a time and plain loops over genes."""

import importlib

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial import cKDTree

import sagefm
from sagefm import InputError, SageFM
from sagefm.model import Config
from sagefm.pp.simulate import simulate
from sagefm.pp.vocabulary import Vocabulary
from sagefm.stats.poisson import log1p_mean, log1p_variance, rate_of
from sagefm.stats.resampling import benjamini_hochberg
from sagefm.tl import impute
from sagefm.tl.imputation._recovery import GeneRecovery, MaskedBlock, areas_of, similar_genes

inside = importlib.import_module("sagefm.tl.imputation._impute")


def parts_of(model, slide, genes, seed=0):
    """Say which of the genes are hidden together."""
    positions = model.vocabulary.positions(genes)
    measured = model.prepare(slide).measured[positions]
    return inside._groups(positions, measured, np.random.default_rng(seed))


def predicted(model, slide, genes, parts, around):
    """Ask the model, with one dense mask per part."""
    positions = model.vocabulary.positions(genes)
    found = np.full((slide.n_obs, len(genes)), np.nan)
    for part in parts:
        hidden = np.zeros((slide.n_obs, len(model.vocabulary)), dtype=bool)
        hidden[:, positions[part]] = True
        found[:, part] = model.predict(
            slide, hidden=hidden, hidden_around=around, genes=[genes[i] for i in part]
        )
    return found


def correlation(a, b):
    return np.nan if a.std() == 0 else 0.0 if b.std() == 0 else np.corrcoef(a, b)[0, 1]


def residual(a, b):
    return a - np.polyval(np.polyfit(b, a, 1), b)


@pytest.fixture(scope="module")
def genes(model, slide):
    """Twenty-five measured genes, common ones and rare ones, in no order."""
    shown = [g for g in model.vocabulary if g in slide.var_names]
    return [shown[i] for i in np.random.default_rng(4).permutation(len(shown))[:25]]


@pytest.mark.parametrize("mask", ["center", "neighborhood"])
def test_measured_genes_are_predicted_while_they_are_masked(slide, model, genes, mask):
    copy = slide.copy()
    impute(copy, model, genes, mask=mask)
    parts = parts_of(model, slide, genes)
    assert len(parts) == 10
    assert sorted(np.concatenate(parts)) == list(range(25))
    expected = predicted(model, slide, genes, parts, mask == "neighborhood")
    found = copy.obsm["sagefm_imputed"]
    assert list(found.columns) == genes
    assert found.index.equals(slide.obs_names)
    assert (found.dtypes == np.float32).all()
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert np.abs(expected - model.predict(slide, genes=genes)).max() > 1e-3
    assert [len(part) for part in parts_of(model, slide, genes[:7])] == [1] * 7


def test_genes_that_the_slide_lacks_are_what_is_imputed_by_default(slide, model):
    copy = slide.copy()
    table = impute(copy, model)
    assert list(table.index) == ["NOT1A", "NOT2A"]
    expected = model.predict(slide, genes=["NOT1A", "NOT2A"])
    np.testing.assert_allclose(copy.obsm["sagefm_imputed"], expected, atol=1e-6)
    assert not table["measured"].any()
    assert (table["slide_gene"] == "").all()
    assert (table["n"] == 0).all()
    observed = ["detected", "r_model", "r_neighbor_mean", "r_depth", "r_beyond_depth", "mse_model"]
    assert table[observed].isna().all(axis=None)


def test_measured_and_lacking_genes_together(slide, model, genes):
    alone, both = slide.copy(), slide.copy()
    one = impute(alone, model, genes[:3])
    two = impute(both, model, [genes[0], "NOT1A", *genes[1:3]])
    assert two["measured"].tolist() == [True, False, True, True]
    pd.testing.assert_frame_equal(two.loc[genes[:3]], one)
    pd.testing.assert_frame_equal(
        both.obsm["sagefm_imputed"][genes[:3]], alone.obsm["sagefm_imputed"]
    )


@given(st.integers(0, 199), st.integers(0, 24), st.integers(0, 10**6))
@settings(max_examples=12, deadline=None)
def test_the_own_count_of_a_gene_never_reaches_its_prediction(slide, model, genes, spot, at, count):
    for scale in ("log1p", "counts_per_10k"):
        before, after = slide.copy(), slide.copy()
        column = slide.var_names.get_loc(genes[at])
        matrix = after.X.tolil()
        matrix[spot, column] = count
        after.X = matrix.tocsr()
        for each in (before, after):
            impute(each, model, genes, scale=scale)
        one, two = (each.obsm["sagefm_imputed"].iloc[spot, at] for each in (before, after))
        np.testing.assert_allclose(two, one, rtol=2e-5, atol=2e-5)


def test_a_gene_of_the_neighbors_counts_unless_it_is_hidden_there(slide, model, genes):
    near = model.prepare(slide).neighbors[17]
    at = int(model.predict(slide, genes=genes)[17].argmax())  # not one below the last ReLU
    changed = slide.copy()
    matrix = changed.X.tolil()
    matrix[near, slide.var_names.get_loc(genes[at])] = 5000
    changed.X = matrix.tocsr()
    moved = {}
    for mask in ("center", "neighborhood"):
        answers = []
        for each in (slide.copy(), changed):
            impute(each, model, genes, mask=mask)
            answers.append(each.obsm["sagefm_imputed"].iloc[17, at])
        moved[mask] = abs(answers[1] - answers[0])
    assert moved["neighborhood"] < 1e-5
    assert moved["center"] > 1e-3


def test_a_gene_that_is_hidden_on_the_whole_slide_is_seen_nowhere(slide, context_model, genes):
    changed = slide.copy()
    matrix = changed.X.tolil()
    column = slide.var_names.get_loc(genes[0])
    matrix[:, column] = np.random.default_rng(0).permutation(slide.n_obs)[:, None] + 7
    changed.X = matrix.tocsr()
    moved = {}
    for mask in ("center", "slide"):
        answers = []
        for each in (slide.copy(), changed):
            impute(each, context_model, genes, mask=mask, adapt=False)
            answers.append(each.obsm["sagefm_imputed"][genes[0]].to_numpy())
        assert answers[0].std() > 1e-3
        moved[mask] = np.abs(answers[1] - answers[0]).max()
    assert moved["slide"] < 1e-5
    assert moved["center"] > 0.1


def test_nothing_that_was_measured_changes(slide, model, genes):
    held = slide.copy()
    held.layers["other"] = held.X * 2
    held.raw = held.copy()
    before = held.copy()
    impute(held, model, genes[:2])
    assert (held.X != before.X).nnz == 0
    assert (held.layers["other"] != before.layers["other"]).nnz == 0
    assert (held.raw.X != before.raw.X).nnz == 0
    pd.testing.assert_frame_equal(held.obs, before.obs)
    pd.testing.assert_frame_equal(held.var, before.var)
    assert set(held.obsm) - set(before.obsm) == {"sagefm_imputed"}
    np.testing.assert_array_equal(held.obsm["spatial"], before.obsm["spatial"])


def test_it_survives_a_file(slide, model, genes, tmp_path):
    held = slide.copy()
    table = impute(held, model, [*genes[:3], "NOT1A"], key_added="filled")
    held.write_h5ad(tmp_path / "x.h5ad")
    back = ad.read_h5ad(tmp_path / "x.h5ad")
    pd.testing.assert_frame_equal(back.obsm["filled"], held.obsm["filled"])
    made = back.uns["sagefm"]["imputed"]
    pd.testing.assert_frame_equal(made["confidence"], table)
    assert (made["key"], made["scale"], made["mask"]) == ("filled", "log1p", "center")
    assert made["fingerprint"] == model.fingerprint


def test_a_region_is_imputed_and_checked_and_the_rest_is_missing(slide, model, genes):
    whole, part = slide.copy(), slide.copy()
    domain = str(slide.obs["domain"].iloc[0])
    chosen = (slide.obs["domain"] == domain).to_numpy()
    impute(whole, model, genes)
    table = impute(part, model, genes, region=f"domain={domain}")
    kept = part.obsm["sagefm_imputed"]
    assert kept[~chosen].isna().all(axis=None)
    np.testing.assert_allclose(kept[chosen], whole.obsm["sagefm_imputed"][chosen], atol=1e-6)
    assert (table["n"] == chosen.sum()).all()
    share = (slide[chosen, genes].X > 0).mean(axis=0)
    np.testing.assert_allclose(table["detected"], np.asarray(share).ravel())


def check_table(table, slide, model, genes, parts, groups):
    """Compare with a plain loop over genes and slides."""
    prepared = model.prepare(slide, slide_key="slide")
    imputed = slide.obsm["sagefm_imputed"].to_numpy(dtype=np.float64)
    truth = prepared.log1p[:, model.vocabulary.positions(genes)].toarray().astype(np.float64)
    around = truth[prepared.neighbors[:, 1:]].mean(axis=1)
    total = np.asarray(slide.X.sum(axis=1)).ravel()
    for part in parts:
        depth = np.log1p(total - np.expm1(truth[:, part]).sum(axis=1))
        for i in part:
            row, columns = table.loc[genes[i]], (imputed[:, i], around[:, i], depth)
            names = ("r_model", "r_neighbor_mean", "r_depth")
            for name, guess in zip(names, columns, strict=True):
                each = [correlation(truth[g, i], guess[g]) for g in groups]
                assert row[name] == pytest.approx(np.nanmean(each), abs=1e-6)
            beyond = [
                correlation(residual(truth[g, i], depth[g]), residual(imputed[g, i], depth[g]))
                for g in groups if truth[g, i].std() > 0
            ]  # fmt: skip
            assert row["r_beyond_depth"] == pytest.approx(np.mean(beyond), abs=1e-5)
            errors = [((truth[:, i] - guess) ** 2).mean() for guess in columns[:2]]
            assert row[["mse_model", "mse_neighbor_mean"]].tolist() == pytest.approx(errors)


def test_confidence_is_that_of_a_plain_loop(slide, model, genes):
    held = slide.copy()
    held.obs["slide"] = "one"
    shown = [gene for gene in genes if held[:, gene].X.nnz]
    table = impute(held, model, shown)
    check_table(table, held, model, shown, parts_of(model, held, shown), [np.arange(200)])
    assert (table["n"] == 200).all()


def test_correlations_are_within_slides(slide, model, genes):
    deep = simulate(90, seed=12, slide="b")
    deep.X = deep.X * 9
    both = ad.concat({"a": slide, "b": deep}, label="slide", index_unique="-")
    shown = [gene for gene in genes if both[:, gene].X.nnz]
    table = impute(both, model, shown, slide_key="slide")
    groups = [np.arange(200), np.arange(200, 290)]
    check_table(table, both, model, shown, parts_of(model, slide, shown), groups)


def described(guess, library_size):
    """Say how common genes are predicted, how variable, and how much they follow library size."""
    mean, variance = guess.mean(axis=0), guess.var(axis=0)
    strength = np.sqrt(variance / np.maximum(variance + log1p_variance(rate_of(mean)), 1e-4))
    size = np.log1p(library_size)
    follows = [correlation(size[:, i], guess[:, i]) for i in range(guess.shape[1])]
    return np.column_stack([np.log(np.maximum(mean, 1e-4)), strength, follows])


def test_what_to_expect_comes_from_genes_whose_predictions_are_similar(slide, model):
    table = impute(slide.copy(), model, seed=3)
    chance = np.random.default_rng(3)
    prepared = model.prepare(slide)
    known = [model.vocabulary[i] for i in np.flatnonzero(prepared.measured)]
    positions = model.vocabulary.positions(known)
    parts = inside._groups(positions, np.ones(len(known), dtype=bool), chance)
    guess = predicted(model, slide, known, parts, around=True)
    truth = prepared.log1p[:, positions].toarray()
    counts = prepared.counts[:, positions].toarray()
    size = np.tile(prepared.library_size[:, None], len(known))
    for part in parts:
        size[:, part] -= counts[:, part].sum(axis=1)[:, None]
    r = np.array([correlation(truth[:, i], guess[:, i]) for i in range(len(known))])
    varies = ~np.isnan(r)
    peers = described(guess, size)[varies]
    lacking = ["NOT1A", "NOT2A"]
    whole = np.tile(prepared.library_size[:, None], 2)
    asked = described(model.predict(slide, genes=lacking), whole)
    for name, own in zip(lacking, asked, strict=True):
        distance = np.linalg.norm((peers - own) / peers.std(axis=0), axis=1)
        similar = np.sort(r[varies][np.argsort(distance)[:50]])
        middle = np.median(similar)
        similar = np.clip(middle + 1.4 * (similar - middle), -1, 1)
        ranks = [5.1, 25.5, 45.9]  # a 51st gene is as likely at every rank
        wanted = np.interp(ranks, np.arange(1, 51), similar)
        columns = ["r_expected_low", "r_expected", "r_expected_high"]
        assert table.loc[name, columns].tolist() == pytest.approx(wanted.tolist(), 1e-4)
        assert table.loc[name, "p_good"] == pytest.approx((similar >= 0.3).mean())


def test_similar_genes_are_near_in_units_of_their_spread():
    measured = np.column_stack([np.arange(200.0), np.tile([0.0, 0.01], 100)])
    near = similar_genes(np.array([[0.0, 0.0], [199.0, 0.01]]), measured)
    assert sorted(near[0][:40]) == list(range(0, 80, 2))
    assert sorted(near[1][:40]) == list(range(121, 200, 2))
    assert near.shape == (2, 50)
    assert sorted(similar_genes(measured[:1], measured[:3])[0]) == [0, 1, 2]


def test_of_the_genes_the_stated_share_is_good_and_in_the_range(context_model):
    whole = simulate(300, seed=31)
    genes = [gene for gene in context_model.vocabulary if gene in whole.var_names]
    taken = list(np.random.default_rng(0).permutation(genes)[: len(genes) // 4])
    slide = whole[:, ~whole.var_names.isin(taken)].copy()
    table = impute(slide, context_model, taken)
    truth, guess = np.log1p(whole[:, taken].X.toarray()), slide.obsm["sagefm_imputed"].to_numpy()
    r = np.array([correlation(truth[:, i], guess[:, i]) for i in range(len(taken))])
    within = (r >= table["r_expected_low"]) & (r <= table["r_expected_high"])
    assert within.mean() >= 0.8
    assert table["p_good"].mean() == pytest.approx((r >= 0.3).mean(), abs=0.1)


def test_genes_that_do_not_vary(slide, model, genes):
    blank = slide.copy()
    matrix = blank.X.tolil()
    matrix[:, slide.var_names.get_loc(genes[0])] = 0
    blank.X = matrix.tocsr()
    dead = SageFM.new(model.vocabulary, model.config, seed=5)
    with torch.no_grad():
        dead.network.decoder.bias[model.vocabulary.positions([genes[1], "NOT2A"])] = -100.0
    table = impute(blank, dead, [*genes[:2], "NOT2A"])
    assert table.loc[genes[0], ["r_model", "r_depth", "r_beyond_depth"]].isna().all()
    assert table.loc[genes[0], "mse_model"] >= 0
    assert table.loc[genes[1], ["r_model", "r_beyond_depth"]].tolist() == [0, 0]
    expected = ["r_expected", "r_beyond_depth_expected", "p_good"]
    assert table.loc["NOT2A", expected].tolist() == [0, 0, 0]
    assert not table["beats_neighbors"].any()


def recovered(n_spots, genes, predict, seed=0):
    """Recover simulated genes of a square slide by a prediction of which the answer is known.

    Parameters
    ----------
    genes
        Spots × 2 points in [0, 1], and relative library sizes → rates: spots × genes.
    predict
        The same → predicted log1p counts.
    """
    rng = np.random.default_rng(seed)
    points, depth = rng.random((n_spots, 2)), rng.lognormal(0, 0.5, n_spots)
    counts = rng.poisson(genes(points, depth))
    log1p = np.log1p(counts).astype(np.float32)
    near = cKDTree(points).query(points, 15)[1][:, 1:]
    size = np.round(depth * 2000)
    rates = counts.sum(axis=0) / size.sum()
    sections = np.zeros(n_spots, dtype=np.int64)
    recovery = GeneRecovery(sections, counts.shape[1], areas_of(points, sections))
    for rows in np.array_split(np.arange(n_spots), 3):
        block = slice(rows[0], rows[-1] + 1)
        recovery.add(MaskedBlock(
            block, np.arange(counts.shape[1]), predict(points, depth)[block].astype(np.float32),
            log1p[block], log1p[near][block].mean(axis=1), size[block],
            log1p_mean(rates * size[block, None]),
        ))  # fmt: skip
    return recovery


RATES = np.geomspace(0.2, 5, 120)


def level(points, depth):
    return np.ones((len(points), 1)) * RATES


def by_depth(points, depth):
    return depth[:, None] * RATES


def gradient(points, depth):
    return by_depth(points, depth) * np.exp(3 * points[:, :1] - 1.5)


@pytest.mark.parametrize("n_spots", [60, 200, 1000])
@pytest.mark.parametrize("genes", [level, by_depth])
@pytest.mark.parametrize("prediction", [by_depth, gradient])
def test_genes_that_are_noise_do_not_beat_their_neighbors(n_spots, genes, prediction):
    """Not if predicted by chance, and not if their library size is all that is predicted."""
    p = np.array([
        recovered(
            n_spots, genes, lambda *place: log1p_mean(prediction(*place)), seed
        ).p_beats_neighbors()
        for seed in range(3)
    ])  # fmt: skip
    assert (p < 0.05).mean() < 0.1
    assert sum((benjamini_hochberg(each) < 0.05).any() for each in p) <= (n_spots < 100)


def test_predictions_of_the_true_rate_beat_the_neighbors():
    recovery = recovered(1000, gradient, lambda *place: log1p_mean(gradient(*place)))
    assert (benjamini_hochberg(recovery.p_beats_neighbors()) < 0.05).mean() > 0.9
    scores = recovery.scores()
    assert (scores["r_model"] > scores["r_neighbor_mean"]).mean() > 0.9


def test_the_test_is_a_jackknife_over_areas(slide, model, genes):
    """In a plain loop over areas, for the part about the neighbors."""
    held, name = slide.copy(), genes[3]
    impute(held, model, genes)
    areas = areas_of(slide.obsm["spatial"], np.zeros(200, dtype=int))
    assert np.bincount(areas).tolist() == [10] * 20
    truth = np.log1p(slide[:, name].X.toarray().ravel())
    guess = held.obsm["sagefm_imputed"][name].to_numpy()
    around = truth[model.prepare(slide).neighbors[:, 1:]].mean(axis=1)

    def gain(rows):
        return correlation(truth[rows], guess[rows]) - correlation(truth[rows], around[rows])

    left_out = np.array([gain(areas != area) for area in range(20)])
    t = gain(areas >= 0) / np.sqrt(19 * left_out.var())
    one, two = slide.copy(), slide.copy()
    q = impute(one, model, [name])["q"].iloc[0]
    assert q >= stats.t.sf(t, 19) - 1e-6  # the larger of two p
    assert impute(two, model, [name, "NOT1A"])["q"].iloc[0] == q


def test_a_gene_whose_counts_lie_in_one_area_is_never_marked():
    def rare(points, depth):
        return np.where(points[:, :1] + points[:, 1:] < 0.15, 5.0, 0.0) * np.ones(120)

    recovery = recovered(400, rare, lambda *place: np.log1p(rare(*place)))
    table = benjamini_hochberg(recovery.p_beats_neighbors())
    assert not (table < 0.05).any()


def test_few_spots_are_never_enough_and_a_gene_that_the_slide_lacks_is_not_compared(
    slide, model, genes
):
    asked = [*genes, "NOT1A"]
    few = impute(slide.copy(), model, asked, region=np.arange(200) < 49)
    assert few["q"].isna().all()
    assert not few["beats_neighbors"].any()
    enough = impute(slide.copy(), model, asked, region=np.arange(200) < 50)
    assert enough["q"][genes].notna().all()
    assert np.isnan(enough.loc["NOT1A", "q"])
    assert not enough.loc["NOT1A", "beats_neighbors"]
    assert (enough["beats_neighbors"] == (enough["q"] < 0.05)).all()


def test_counts_per_10k(slide, model, genes):
    held, logs = slide.copy(), slide.copy()
    matrix = held.X.tolil()
    matrix[5] = 0
    held.X = logs.X = matrix.tocsr()
    asked = [*genes, "NOT1A"]
    table = impute(held, model, asked, scale="counts_per_10k")
    pd.testing.assert_frame_equal(table, impute(logs, model, asked))
    found, counts = held.obsm["sagefm_imputed"], np.expm1(logs.obsm["sagefm_imputed"])
    assert found.iloc[5].isna().all()
    depth = pd.Series(np.asarray(held.X.sum(axis=1)).ravel(), held.obs_names)
    rows = depth > 0
    for part in parts_of(model, slide, asked):
        names = [asked[i] for i in part]
        own = 0 if names == ["NOT1A"] else np.asarray(held[:, names].X.sum(axis=1)).ravel()
        wanted = counts[names].div(depth - own, axis=0) * 1e4
        np.testing.assert_allclose(found[names][rows], wanted[rows], rtol=1e-4)


def test_the_order_of_names_and_the_size_of_blocks_do_not_matter(slide, model, genes, monkeypatch):
    one, two = slide.copy(), slide.copy()
    asked = [*genes, "NOT1A", "NOT2A"]
    first = impute(one, model, asked, seed=2)
    monkeypatch.setattr("sagefm.tl.imputation._recovery._BLOCK", 7)
    monkeypatch.setattr(inside, "_TOGETHER", 1)
    second = impute(two, model, asked[::-1], seed=2)
    pd.testing.assert_frame_equal(second.loc[asked], first, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        two.obsm["sagefm_imputed"][asked], one.obsm["sagefm_imputed"], atol=1e-6
    )


def test_a_large_slide_is_sampled_for_what_to_expect(slide, model, monkeypatch):
    whole = impute(slide.copy(), model)
    monkeypatch.setattr(inside, "_SAMPLE", 120)
    same, other = (impute(slide.copy(), model, seed=seed) for seed in (0, 1))
    again = impute(slide.copy(), model, seed=0)
    pd.testing.assert_frame_equal(same, again)
    assert (same["r_expected"] != whole["r_expected"]).all()
    assert (same["r_expected"] != other["r_expected"]).all()


def test_genes_by_ensembl_id(slide):
    symbols = tuple(slide.var_names[:400])
    ids = tuple(f"ENSG{i:011d}" for i in range(400))
    model = SageFM.new(Vocabulary(symbols, ids), Config(widths=(8, 8, 8, 8, 8)))
    renamed = slide[:, list(symbols)].copy()
    renamed.var_names = list(ids)
    table = impute(renamed, model, [symbols[3], ids[4]])
    assert list(table.index) == [symbols[3], ids[4]]
    assert table["slide_gene"].tolist() == [ids[3], ids[4]]
    named = slide.copy()
    impute(named, model, [symbols[3], symbols[4]])
    one, two = renamed.obsm["sagefm_imputed"], named.obsm["sagefm_imputed"]
    np.testing.assert_allclose(one, two, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"genes": ["NOT3A"]}, "NOT3A: not one of the model's genes; did you mean NOT"),
        ({"genes": []}, "genes: is empty"),
        ({"genes": ["NOT1A", "NOT1A"]}, "NOT1A: is given twice"),
        ({"region": "domain=nowhere"}, "no spot has that value"),
        ({"region": np.zeros(200, dtype=bool)}, "has no spot"),
        ({"scale": "tpm"}, "scale='tpm': choose one of log1p, counts_per_10k"),
        ({"mask": "nowhere"}, "mask='nowhere': choose one of center, neighborhood, slide"),
        ({"slide_key": "lane"}, "lane"),
    ],
)
def test_mistakes_are_named_and_leave_nothing(slide, model, arguments, said):
    held = slide.copy()
    with pytest.raises(InputError, match=said):
        impute(held, model, **arguments)
    assert "sagefm_imputed" not in held.obsm


def test_a_slide_that_lacks_nothing_and_one_without_counts(slide):
    model = SageFM.new(Vocabulary(tuple(slide.var_names[:400])), Config(widths=(8, 8, 8, 8, 8)))
    with pytest.raises(InputError, match="has all genes of the model"):
        impute(slide.copy(), model)
    logs = slide.copy()
    logs.X = logs.X.log1p() * 0.9
    with pytest.raises(InputError, match="log-normalized"):
        impute(logs, model)


@pytest.mark.slow
def test_a_real_slide_with_the_published_architecture(shared):
    slide = sagefm.read(shared / "slides" / "her2st_A1.h5ad")
    model = SageFM.new(Vocabulary.read(shared.parent / "data" / "sagefm_published_genes.txt"))
    torch.nn.init.normal_(model.network.decoder.bias, std=0.2, generator=torch.manual_seed(2))
    measured = model.prepare(slide).alignment.measured
    asked = [model.vocabulary[i] for i in np.flatnonzero(measured)[::900]][:14]
    asked += [model.vocabulary[i] for i in np.flatnonzero(~measured)[:6]]
    table = impute(slide, model, asked)
    assert table["measured"].tolist() == [True] * 14 + [False] * 6
    assert slide.obsm["sagefm_imputed"].shape == (slide.n_obs, 20)
    assert slide.obsm["sagefm_imputed"].notna().all(axis=None)
    assert table.loc[~table["measured"], "r_expected"].between(-1, 1).all()
    parts = parts_of(model, slide, asked)[:3]
    expected = predicted(model, slide, asked, parts, around=False)
    done = np.concatenate(parts)
    np.testing.assert_allclose(
        slide.obsm["sagefm_imputed"].to_numpy()[:, done], expected[:, done], atol=1e-5
    )


def test_genes_that_the_model_does_not_know_are_left_out(slide, model, caplog):
    held, plain = slide.copy(), slide.copy()
    found = sagefm.tl.impute(held, model, ["NOT1A", "NOTHING"])
    pd.testing.assert_frame_equal(found, sagefm.tl.impute(plain, model, ["NOT1A"]))
    assert list(held.obsm["sagefm_imputed"]) == ["NOT1A"]
    (said,) = caplog.messages
    assert said.startswith("1 of 2 genes are left out: NOTHING: ")
