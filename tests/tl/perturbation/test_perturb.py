"""Pairs of genes, against the oracle and against what is planted."""

import numpy as np
import pandas as pd
import pytest
import torch

from reference import published
from sagefm import InputError, SageFM
from sagefm.pp import Vocabulary
from sagefm.pp.simulate import simulate
from sagefm.tl import perturb, respond
from sagefm.tl.perturbation._perturber import GeneFacts

COLUMNS = [
    "ligand", "target", "effect", "z", "q", "z_components", "learned_only", "z_neighbors",
    "z_same_spot", "p", "p_coexpressed", "p_partners", "z_reversed", "slope", "direction",
    "monotone", "sign", "as_expected", "null_low", "null_median", "null_high", "effect_shuffled",
    "complex", "n_slides", "n_spots",
]  # fmt: skip


@pytest.fixture(scope="module")
def pairs(slide, model):
    """Some pairs of genes that the slide shows and the model predicts; two share a target."""
    shown = [g for g in model.vocabulary if g in slide.var_names]
    depth = np.asarray(slide[:, shown].X.sum(axis=0)).ravel()
    a, b, c, *_ = (shown[i] for i in np.argsort(-depth))
    predicted = model.predict(slide, genes=shown).mean(axis=0)
    x, y, z, *_ = (shown[i] for i in np.argsort(-predicted) if shown[i] not in (a, b, c))
    return [(a, x), (b, y), (c, y), (z, z)]


@pytest.fixture(scope="module")
def table(slide, model, pairs):
    return perturb(slide, model, pairs, levels=4, n_matched=30, n_null_spots=60, seed=2)


def means(slide, model, ligand, targets, hidden, heights, rows=slice(None)):
    """Run the published way: edit each subgraph, hide, predict; heights × targets."""
    network = published.of_ours(model.network.state_dict(), model.config.widths)
    prepared = model.prepare(slide)
    source, read, hide = (model.vocabulary.positions(g) for g in ([ligand], targets, hidden))
    edges = published.complete_graph(prepared.neighbors.shape[1])
    answers = []
    for height in heights:
        found = []
        for members in prepared.neighbors[rows]:
            x = prepared.log1p[members].toarray()
            x[1:, source] = height
            x[0, hide] = 0
            with torch.no_grad():
                found.append(network(torch.from_numpy(x), edges)[0, read].numpy())
        answers.append(np.mean(found, axis=0, dtype=np.float64))
    return np.array(answers)


def heights_of(slide, model, gene, n):
    values = model.prepare(slide).log1p[:, model.vocabulary.positions([gene])].toarray()
    return np.linspace(values.min(), values.max(), n)


def test_effects_are_those_of_the_published_way(slide, model, pairs, table):
    assert list(table) == COLUMNS
    targets = sorted({target for _, target in pairs})
    for row in table.itertuples():
        heights = heights_of(slide, model, row.ligand, 4)
        found = means(slide, model, row.ligand, [row.target], targets, heights)[:, 0]
        assert row.effect == pytest.approx(found[-1] - found[0], abs=1e-5)
        assert row.slope == pytest.approx(np.polyfit(heights, found, 1)[0], abs=1e-5)
        assert row.direction == ("up" if found[-1] > found[0] else "down")
        steps = np.sign(np.diff(found)) == np.sign(found[-1] - found[0])
        assert row.monotone == pytest.approx(steps.mean())
        assert row.n_spots == slide.n_obs


def test_the_reversed_direction_raises_the_target(slide, model, pairs, table):
    """With nulls of its own: it is the forward direction of the pairs turned around."""
    turned = [(target, ligand) for ligand, target in pairs]
    found = perturb(slide, model, turned, levels=2, n_matched=30, n_null_spots=60, seed=2)
    np.testing.assert_allclose(table["z_reversed"], found["z"], atol=1e-9)
    np.testing.assert_allclose(table["z"], found["z_reversed"], atol=1e-9)


def test_nulls_are_effects_of_other_genes_on_the_same_target(slide, model, pairs, table):
    """Their quantiles lie within what all genes that stand in no pair do."""
    targets = sorted({target for _, target in pairs})
    drawn = np.sort(np.random.default_rng(2).choice(slide.n_obs, 60, replace=False))
    prepared = model.prepare(slide)
    facts = GeneFacts.of(prepared, prepared.log1p.tocsc())
    used = {gene for pair in pairs for gene in pair}
    free = [g for g, high in zip(model.vocabulary, facts.high, strict=True) if high > 0
            and g not in used]  # fmt: skip
    row = table.iloc[0]
    some = free[:: max(1, len(free) // 25)]
    effects = [
        np.diff(means(slide, model, gene, [row.target], targets, heights_of(slide, model, gene, 2),
                      drawn)[:, 0])[0]
        for gene in some
    ]  # fmt: skip
    assert np.quantile(effects, 0.2) <= row.null_high
    assert np.quantile(effects, 0.8) >= row.null_low
    assert row.null_low <= row.null_median <= row.null_high
    tested = table.iloc[:3]  # the last is a gene with itself
    assert (tested["p"] > 0).all()
    assert (tested["q"] >= tested["p"] - 1e-12).all()
    assert table[["p", "q"]].iloc[3].isna().all()


def test_the_spread_between_neighborhoods_is_that_of_their_means(slide, model):
    prepared = model.prepare(slide)
    x = prepared.log1p.toarray().astype(np.float64)
    exact = x[prepared.neighbors[:, 1:]].mean(axis=1).std(axis=0)
    facts = GeneFacts.of(prepared, prepared.log1p.tocsc())
    np.testing.assert_allclose(facts.spread, exact, atol=1e-4)
    np.testing.assert_allclose(facts.detected, (x > 0).mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(facts.mean, x.mean(axis=0), atol=1e-5)
    assert np.array_equal(facts.low, x.min(axis=0))


def test_a_region_is_read_alone(slide, model, pairs):
    inside = (slide.obs["domain"] == slide.obs["domain"].iloc[0]).to_numpy()
    found = perturb(slide, model, pairs[:1], n_matched=5, n_null_spots=10, region=inside)
    targets = [pairs[0][1]]
    heights = heights_of(slide, model, pairs[0][0], 5)
    exact = means(slide, model, pairs[0][0], targets, targets, heights, np.flatnonzero(inside))
    assert found["effect"][0] == pytest.approx(exact[-1, 0] - exact[0, 0], abs=1e-5)
    assert found["n_spots"][0] == inside.sum()


def test_several_slides_are_averaged(slide, model, pairs, tmp_path):
    slides = {f"ward/s{i}": simulate(120 + i, seed=20 + i) for i in range(3)}
    how = {"n_matched": 10, "n_null_spots": 30}
    alone = [perturb(one, model, pairs, **how) for one in slides.values()]
    together = perturb(slides, model, pairs, keep=tmp_path / "parts", **how)
    effects = np.array([one["effect"] for one in alone])
    np.testing.assert_allclose(together["effect"], effects.mean(axis=0), atol=1e-6)
    of_slides = np.array([one["z_components"] for one in alone])
    n = np.isfinite(of_slides).sum(axis=0)  # a gene without counts says nothing
    np.testing.assert_allclose(
        together["z_components"], np.nansum(of_slides, axis=0) / n**0.5, atol=1e-4
    )
    assert (together["n_slides"] == 3).all()
    assert (together["n_spots"] == 120 + 121 + 122).all()
    assert "effect_low" not in together
    likeness = together.attrs["slides"]
    assert list(likeness.index) == list(likeness.columns) == list(slides)
    np.testing.assert_allclose(np.diag(likeness), 1)


def test_refits_say_how_far_an_effect_depends_on_single_patients(slide, model, pairs):
    how = {"levels": 2, "n_matched": 10, "n_null_spots": 40}
    others = [SageFM.new(model.vocabulary, model.config, seed=seed) for seed in (7, 8)]
    found = perturb(slide, model, pairs, models=[model, *others], **how)
    alone = [perturb(slide, one, pairs, **how)["z"] for one in (model, *others)]
    same = np.mean([np.sign(z) == np.sign(found["z"]) for z in alone], axis=0)
    np.testing.assert_allclose(found["agreement"], same)
    assert (found["effect_low"] <= found["effect"]).all()
    assert (found["effect"] <= found["effect_high"]).all()
    assert (found["effect_low"] < found["effect_high"]).all()
    refits = found.attrs["refits"]
    assert refits["refit"].tolist() == [1, 2, 3]
    assert refits["r"].between(-1, 1).all()
    other = SageFM.new(Vocabulary(list(model.vocabulary)[:-1]), model.config)
    with pytest.raises(InputError, match="models: number 1 has other genes"):
        perturb(slide, model, pairs, models=[other], **how)


def test_refits_of_the_same_weights_agree(slide, model, pairs):
    found = perturb(slide, model, pairs, models=[model] * 2, n_matched=5, n_null_spots=20)
    np.testing.assert_allclose(found["effect_low"], found["effect_high"], atol=1e-12)
    assert (found["agreement"] == 1).all()


def test_learned_only_is_what_the_slide_does_not_show(table):
    of_slide = table[["z_components", "z_neighbors", "z_same_spot"]].abs()
    expected = (table["p"] < 0.05) & (of_slide < 1.96).all(axis=1)
    assert table["learned_only"].tolist() == expected.tolist()
    assert table["z_same_spot"][3] > 10  # a gene with itself


def test_the_set_has_a_row_per_evidence_and_direction(slide, model, pairs, table):
    sets = table.attrs["sets"]
    forward = ["model", "neighbors", "same spot", "beyond co-expression", "given components"]
    assert sets[sets["direction"] == "forward"]["evidence"].tolist() == forward
    backward = sets[sets["direction"] == "reversed"]["evidence"].tolist()
    assert backward == [name for name in forward if name != "same spot"]
    # A gene with itself is no pair.
    assert (sets["n_pairs"] == 3).all()
    assert sets["auroc"].between(0, 1).all()
    p = sets.set_index("direction")[["p", "p_ligands", "p_targets"]]
    assert p.loc["forward"].gt(0).all(axis=None)
    assert p.loc["forward"].le(1).all(axis=None)
    assert p.loc["reversed"].isna().all(axis=None)  # two genes are too few


def test_tables_can_be_joined(table):
    """Pandas compares attributes when it joins tables."""
    pd.testing.assert_frame_equal(pd.concat([table, table])[:4], table)
    other = table.copy()
    other.attrs["sets"] = table.attrs["sets"].head(2)
    assert pd.concat([table, other]).attrs == {}
    assert len(table.merge(other, on=["ligand", "target"])) == len(table)


def test_the_power_of_the_set_is_told_first(slide, model, pairs):
    lines = []
    perturb(slide, model, pairs, n_matched=5, n_null_spots=20, progress=lines.append)
    assert lines[0].startswith("the set: 3 pairs of 3 ligands")
    assert "too few to tell" in lines[0]


def test_signs_are_held_against_directions(slide, model, pairs, table):
    given = pd.DataFrame(pairs, columns=["ligand", "target"])
    way = {"up": 1.0, "down": -1.0}
    given["sign"] = [way[table["direction"][0]], -way[table["direction"][1]], np.nan, np.nan]
    found = perturb(slide, model, given, n_matched=5, n_null_spots=20)
    assert found["as_expected"].tolist()[:2] == [True, False]
    assert found["as_expected"].isna().tolist() == [False, False, True, True]


def test_the_same_seed_gives_the_same_table(slide, model, pairs, table):
    again = perturb(slide, model, pairs, levels=4, n_matched=30, n_null_spots=60, seed=2)
    pd.testing.assert_frame_equal(again, table)


def test_a_killed_run_goes_on_where_it_was(slide, model, pairs, tmp_path, table):
    keep, lines = tmp_path / "parts", []

    class Killed(Exception):
        pass

    def progress(line):
        lines.append(line)
        if line.startswith("nulls"):
            raise Killed

    how = {"levels": 4, "n_matched": 30, "n_null_spots": 60, "seed": 2, "keep": keep}
    with pytest.raises(Killed):
        perturb(slide, model, pairs, progress=progress, **how)
    kept = {path.name: path.stat().st_mtime_ns for path in keep.glob("*.npy")}
    assert any("nulls" in name for name in kept)
    after = {}

    def look(line):
        after.update({p.name: p.stat().st_mtime_ns for p in keep.iterdir()})

    found = perturb(slide, model, pairs, progress=look, **how)
    pd.testing.assert_frame_equal(found, table)
    assert kept.items() <= after.items()
    assert not keep.exists()


def test_what_another_call_left_is_not_taken(slide, model, pairs, tmp_path):
    keep = tmp_path / "parts"
    how = {"n_matched": 5, "n_null_spots": 20, "keep": keep}

    def stop(line):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        perturb(slide, model, pairs, progress=stop, seed=1, **how)
    found = perturb(slide, model, pairs, seed=3, **how)
    fresh = perturb(slide, model, pairs, seed=3, n_matched=5, n_null_spots=20)
    pd.testing.assert_frame_equal(found, fresh)


def test_parts_of_other_nulls_are_not_taken(slide, model, pairs, tmp_path, monkeypatch):
    """As from a version that chose the genes of the nulls otherwise."""
    keep = tmp_path / "parts"
    how = {"n_matched": 40, "n_null_spots": 20, "keep": keep}

    def stop(line):
        if line.startswith("nulls"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        perturb(slide, model, pairs, progress=stop, **how)
    monkeypatch.setattr("sagefm.tl.perturbation._plan._MOST_RAISED", 60)
    found = perturb(slide, model, pairs, **how)
    fresh = perturb(slide, model, pairs, n_matched=40, n_null_spots=20)
    pd.testing.assert_frame_equal(found, fresh)


def test_a_folder_of_other_things_is_left_alone(slide, model, pairs, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="other things"):
        perturb(slide, model, pairs, keep=tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_pairs_that_cannot_be_asked_are_left_out_and_told(slide, model, pairs, caplog):
    more = [*pairs[:1], ("NOPE", pairs[0][1]), ("NOT1A", pairs[0][1])]
    found = perturb(slide, model, more, n_matched=5, n_null_spots=20)
    assert len(found) == 1
    assert "2 of 3 pairs are left out" in caplog.text
    assert "NOPE" in caplog.text
    assert "NOT1A" in caplog.text
    with pytest.raises(InputError, match="no spot of the slide has"):
        perturb(slide, model, [("NOT1A", pairs[0][1])])
    with pytest.raises(InputError, match="not one of the model's genes"):
        perturb(slide, model, [("NOPE", pairs[0][1])])
    with pytest.raises(InputError, match="n_matched=0"):
        perturb(slide, model, pairs, n_matched=0)
    with pytest.raises(InputError, match=r"^ward: region"):
        perturb({"ward": slide, "home": slide}, model, pairs, region="domain=nowhere")
    with pytest.raises(InputError, match="hold='all': choose of nothing, attention"):
        perturb(slide, model, pairs, hold="all")
    with pytest.raises(InputError, match="two levels"):
        perturb(slide, model, pairs, levels=1)
    with pytest.raises(InputError, match="no spot"):
        perturb(slide, model, pairs, region=np.zeros(slide.n_obs, dtype=bool))


def test_the_map_averages_to_the_effect(slide, model, pairs, table):
    ligand, target = pairs[0]
    heights = heights_of(slide, model, ligand, 2)
    high, low = (
        respond(slide.copy(), model, {ligand: float(h)}, sorted({t for _, t in pairs}))[target]
        for h in heights[::-1]
    )
    assert (high - low).mean() == pytest.approx(table["effect"][0], abs=1e-5)


def test_a_run_on_other_places_takes_nothing_of_a_killed_one(slide, model, pairs, tmp_path):
    """Neighborhoods are a part of the question, though the counts are the same."""
    how = {"n_matched": 5, "n_null_spots": 20, "keep": tmp_path / "parts"}

    def stop(line):
        if line.startswith("nulls, reversed"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        perturb(slide, model, pairs, progress=stop, **how)
    moved = slide.copy()
    moved.obsm["spatial"] = moved.obsm["spatial"][::-1].copy()
    found = perturb(moved, model, pairs, **how)
    fresh = perturb(moved, model, pairs, n_matched=5, n_null_spots=20)
    pd.testing.assert_frame_equal(found, fresh)


def test_what_effects_of_refits_say_agrees(slide, model, pairs):
    others = [SageFM.new(model.vocabulary, model.config, seed=seed) for seed in (7, 8)]
    found = perturb(slide, model, pairs, models=others, n_matched=5, n_null_spots=40)
    assert ((found["effect"] > 0) == (found["direction"] == "up")).all()
