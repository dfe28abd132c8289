"""Domains of simulated slides described, and tests that hold where nothing is to be found."""

import logging

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

import sagefm
from sagefm import InputError
from sagefm.pp.simulate import simulate
from sagefm.tl.description import _contacts
from sagefm.tl.description._sections import DomainSection, labeled_sections
from sagefm.tl.description._shapes import shape_table, touching
from sagefm.tl.description._tests import compare_conditions


@pytest.fixture(scope="module", autouse=True)
def fewer_motions():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_contacts, "N_MOTIONS", 49)
        yield


@pytest.fixture(scope="module")
def slide():
    return simulate(250, n_domains=3, seed=1)


@pytest.fixture(scope="module")
def cohort():
    """Four patients; the first half is treated and has more of domain 0."""
    slides = []
    for i in range(4):
        one = simulate(150, n_domains=3, seed=i, patient=f"p{i}", slide=f"s{i}")
        if i < 2:
            rows = np.flatnonzero((one.obs["domain"] != one.obs["domain"].iloc[0]).to_numpy())
            one = one[np.setdiff1d(np.arange(150), rows[::2])].copy()
        one.obs["arm"] = "treated" if i < 2 else "control"
        slides.append(one)
    return slides


@pytest.fixture(scope="module")
def described(slide):
    return sagefm.tl.describe(slide, "domain")


def test_markers_are_those_of_the_simulated_profiles(slide):
    found = sagefm.tl.markers(slide, "domain", n_genes=15)
    truth = slide.uns["simulation"]["domain_profiles"]
    for code, (_, table) in enumerate(found.groupby("domain")):
        columns = slide.var_names.get_indexer(table["gene"])
        others = np.delete(truth, code, axis=0).mean(axis=0)
        higher = truth[code] > 1.2 * others
        assert higher[columns].mean() >= 3 * higher.mean()  # programs differ in places too
        assert (table["log2_fold"] > 0).all()
        assert (table["fraction"] > table["fraction_others"] - 0.1).all()
    assert set(found["unit"]) == {"motion"}


def test_depth_makes_no_markers(slide):
    """A domain that is sequenced ten times as deep has the same fold changes."""
    shallow, chance = slide.copy(), np.random.default_rng(0)
    rows = np.repeat((slide.obs["domain"] == "D1").to_numpy(), np.diff(slide.X.indptr))
    shallow.X.data[~rows] = chance.binomial(shallow.X.data[~rows].astype(int), 0.2)
    shallow.X.eliminate_zeros()
    tables = [
        sagefm.tl.markers(s, "domain", n_genes=None).set_index(["domain", "gene"])
        for s in (slide, shallow)
    ]
    folds = pd.concat([t["log2_fold"] for t in tables], axis=1, keys=["a", "b"]).loc["D1"].dropna()
    often = tables[0].loc["D1", "rate"].reindex(folds.index) > 10
    assert abs((folds["a"] - folds["b"])[often].median()) < 0.1


def test_random_domains_have_few_significant_genes():
    """A stripe over a slide of one domain marks nothing."""
    one = simulate(250, n_domains=1, n_couplings=0, seed=3)
    x = one.obsm["spatial"][:, 0]
    one.obs["half"] = np.where(x > np.median(x), "right", "left")
    found = sagefm.tl.markers(one, "half", n_genes=None)
    assert (found["q"] < 0.05).mean() < 0.02


def test_patients_are_the_units_where_there_are_three(cohort):
    found = sagefm.tl.markers(cohort, "domain")
    assert set(found["unit"]) == {"patient"}
    assert set(found["n_patients"]) <= {3, 4}
    two = sagefm.tl.markers(cohort[:2], "domain")
    assert set(two["unit"]) == {"motion"}


def test_names_follow_planted_markers(slide, described):
    """Ten markers of T cells in one domain, and nothing in the others."""
    genes = [g for g in sagefm.pp.marker_sets("general")["T cell"] if g in slide.var_names]
    held = slide.copy()
    names = list(slide.var_names)
    listed = {gene for members in sagefm.pp.marker_sets().values() for gene in members}
    spare = [g for g in names if g not in listed]
    wanted = [g for g in sagefm.pp.marker_sets("general")["T cell"] if g not in names]
    renamed = dict(zip(spare, wanted, strict=False))
    held.var_names = [renamed.get(g, g) for g in names]
    genes += wanted
    dense = held.X.toarray()
    inside = (held.obs["domain"] == "D2").to_numpy()
    dense[np.ix_(inside, held.var_names.get_indexer(genes))] += 5
    held.X = csr_matrix(dense)
    table = sagefm.tl.describe(held, "domain", names="general").names.set_index("domain")
    assert table.loc["D2", "name"] == "T cell"
    assert table.loc["D2", "z"] > 5
    assert "CD" in table.loc["D2", "genes"]
    assert list(table["name"].drop("D2")) == ["no clear name"] * 2
    own = sagefm.tl.describe(held, "domain", names={"mine": genes[:8]}).names
    assert own.set_index("domain").loc["D2", "name"] == "mine"


def layered(n=24):
    """Three stripes on a square grid: the first and the last do not touch."""
    x, y = (axis.ravel().astype(float) for axis in np.meshgrid(np.arange(n), np.arange(n)))
    codes = np.minimum(x // (n // 3), 2).astype(np.int64)
    empty = csr_matrix((n * n, 1), dtype=np.float32)
    return DomainSection("s", "p", None, codes, np.c_[x, y], empty, 100.0)


def test_contacts_are_counted_once_per_pair_of_spots():
    observed, moved = _contacts.section_contacts(layered(), 3, np.random.default_rng(0), 49)
    np.testing.assert_array_equal(observed, [[0, 24, 0], [24, 0, 24], [0, 24, 0]])
    assert moved.shape == (3, 49, 3)
    assert (moved[0, :, 0] == 0).all()
    assert (moved[0].sum(axis=1) == 24).all()  # the border of the domain that stays
    assert moved[0, :, 2].mean() > 5


def test_independent_labels_touch_by_chance():
    """Of 40 maps of independent stripes few have p below 0.05."""
    base, p = layered(20), []
    for seed in range(40):
        chance = np.random.default_rng(seed)
        angle, wave = chance.uniform(0, np.pi), chance.uniform(3, 6)
        line = base.points @ [np.cos(angle), np.sin(angle)]
        codes = 1 + (np.sin(line / wave + chance.uniform(0, 6)) > 0)
        codes[base.points @ chance.normal(size=2) < 0] = 0
        section = DomainSection("s", "p", None, codes, base.points, base.counts, None)
        if len(np.unique(codes)) == 3:
            labeled = labeled_like(section)
            p.append(_contacts.contact_table(labeled, seed)[0]["p"].iloc[0])
    assert len(p) > 10
    assert np.mean(np.array(p) < 0.05) <= 0.15


def labeled_like(section):
    from sagefm.tl.description._sections import LabeledSections

    return LabeledSections((section,), ("a", "b", "c"), ("g",))


def test_shapes_of_stripes():
    table = shape_table(labeled_like(layered())).set_index("domain")
    assert list(table["n_parts"]) == [1, 1, 1]
    np.testing.assert_allclose(table["boundary"], [1 / 8, 1 / 4, 1 / 8])
    np.testing.assert_allclose(table["area_mm2"], 8 * 24 * 0.01)
    assert (table["compactness"] < 1).all()


def test_a_disc_is_compact_and_two_are_two_parts():
    x, y = np.meshgrid(np.arange(60.0), np.arange(30.0))
    points = np.c_[(x + 0.5 * (y % 2)).ravel(), (y * np.sqrt(3) / 2).ravel()]
    near = [np.linalg.norm(points - center, axis=1) < 9 for center in ([14, 13], [44, 13])]
    empty = csr_matrix((len(points), 1), dtype=np.float32)
    for inside, parts in ((near[0], 1), (near[0] | near[1], 2)):
        section = DomainSection("s", "p", None, inside.astype(np.int64), points, empty, None)
        row = shape_table(labeled_like(section)).iloc[1]
        assert row["n_parts"] == parts
        assert row["largest_part"] == 1 / parts
        assert row["compactness"] == pytest.approx(1 / np.sqrt(parts), rel=0.1)
    assert np.bincount(touching(points).ravel()).max() == 6


def test_conditions_are_compared_over_patients(cohort, caplog):
    with caplog.at_level(logging.WARNING):
        found = sagefm.tl.describe(cohort, "domain", condition_key="arm")
    tests = found.fraction_tests
    assert set(tests["condition"]) == {"control"}
    assert set(tests["other_condition"]) == {"treated"}
    assert (tests["p"] >= tests["p_least"] - 1e-9).all()
    np.testing.assert_allclose(tests["p_least"], 1 / 3)
    assert "no p is below 0.33" in caplog.text
    sums = found.sections.groupby("section")["fraction"].sum()
    np.testing.assert_allclose(sums, 1)
    assert len(found.contact_tests)


def test_three_against_three_cannot_be_below_a_tenth_and_pairs_are_paired():
    rows = [
        {"patient": f"{c}{i}", "condition": c, "d": "x", "v": v + i / 100}
        for c, v in (("a", 0.0), ("b", 1.0))
        for i in range(3)
    ]
    row = compare_conditions(pd.DataFrame(rows), ["d"], "v").iloc[0]
    assert row["p"] == pytest.approx(0.1)
    assert row["p_least"] == pytest.approx(0.1)
    assert not row["paired"]
    both = pd.DataFrame(rows).assign(patient=[0, 1, 2, 0, 1, 2])
    row = compare_conditions(both, ["d"], "v").iloc[0]
    assert row["paired"]
    assert row["p"] == pytest.approx(0.25)


def test_the_order_of_spots_does_not_matter_for_markers_and_names(slide, described):
    order = np.random.default_rng(0).permutation(slide.n_obs)
    other = sagefm.tl.describe(slide[order].copy(), "domain")
    pd.testing.assert_frame_equal(other.names, described.names, rtol=1e-6)
    pd.testing.assert_frame_equal(other.contacts, described.contacts)
    pd.testing.assert_frame_equal(other.markers, described.markers, rtol=1e-6)


def test_tables_are_saved(described, tmp_path):
    described.save(tmp_path / "out")
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"names.csv", "markers.csv", "sections.csv", "contacts.csv"} <= written
    assert "pathways.csv" not in written
    back = pd.read_csv(tmp_path / "out" / "contacts.csv", dtype={"domain": str, "other": str})
    pd.testing.assert_frame_equal(back, described.contacts, rtol=1e-4, check_dtype=False)


def test_slides_with_other_genes_names_and_missing_labels(slide, caplog):
    other = simulate(150, n_domains=3, seed=5)[:, 100:].copy()
    other.obs.loc[other.obs_names[:7], "domain"] = np.nan
    rare = slide.copy()
    rare.obs["domain"] = rare.obs["domain"].astype(str)
    rare.obs.iloc[0, list(rare.obs).index("domain")] = "alone"
    with caplog.at_level(logging.WARNING):
        found = sagefm.tl.describe({"a": rare, "b": other}, "domain")
    assert "7 spots without a domain" in caplog.text
    assert "that all slides have are used" in caplog.text
    assert "alone" in set(found.names["domain"])
    assert not set(found.markers["gene"]) & set(slide.var_names[:100])
    sizes = found.sections.groupby("section")["n_spots"].sum()
    assert dict(sizes) == {"a": 250, "b": 143}


def test_several_sections_in_one_object(cohort):
    both = ad.concat(cohort[:2], label="lane", index_unique="-")
    found = sagefm.tl.describe(both, "domain", slide_key="lane")
    assert set(found.sections["section"]) == {"0", "1"}
    assert set(found.sections["patient"]) == {"p0", "p1"}


@pytest.mark.parametrize(
    ("change", "options", "said"),
    [
        (lambda s: None, {"key": "cluster"}, "obs['cluster']: no such column; obs has"),
        (lambda s: None, {"key": "sagefm_domain"}, "run sagefm.tl.domains first"),
        (lambda s: s.obs.insert(0, "k", "1"), {"key": "k"}, "has only 1; give slides with two"),
        (lambda s: s.obs.insert(0, "k", np.nan), {"key": "k"}, "has only no domain"),
        (lambda s: None, {"patient_key": "donor"}, "patient_key='donor': obs has"),
        (lambda s: None, {"condition_key": "arm"}, "obs['arm']: no such column"),
        (lambda s: None, {"condition_key": "domain"}, "several values in one section"),
        (lambda s: None, {"names": "brian"}, "'brian': no group of marker sets"),
        (lambda s: None, {"names": {"x": "CD3E"}}, "markers['x']: is no list of genes"),
        (lambda s: s.obsm.clear(), {}, "obsm['spatial'] is missing"),
    ],
)
def test_bad_input_is_one_line(slide, change, options, said):
    bad = slide.copy()
    change(bad)
    with pytest.raises(InputError) as error:
        sagefm.tl.describe(bad, **{"key": "domain", **options})
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_no_slides_no_common_genes_and_one_slide_twice(slide):
    with pytest.raises(InputError, match="is empty"):
        sagefm.tl.markers([], "domain")
    with pytest.raises(InputError, match="given twice"):
        sagefm.tl.markers([slide, slide], "domain")
    alien = slide.copy()
    alien.var_names = [f"nothing{i}x" for i in range(slide.n_vars)]
    with pytest.raises(InputError, match="no gene in common"):
        sagefm.tl.markers({"a": slide, "b": alien}, "domain")


def test_labels_are_read_as_text(slide):
    held = slide.copy()
    held.obs["domain"] = held.obs["domain"].astype(str).str[1:].astype(int)
    assert labeled_sections(held, "domain").domains == ("1", "2", "3")


def test_pathways_need_decoupler(slide):
    pytest.importorskip("decoupler")
    truth = slide.uns["simulation"]["domain_profiles"]
    fold = truth[1] / truth[[0, 2]].max(axis=0)
    genes = list(slide.var_names[np.argsort(-fold)[:20]])
    sets = {"of 1": genes, "any": list(slide.var_names[:40])}
    table = sagefm.tl.pathways(slide, sets, "domain").set_index(["set", "domain"])
    assert table.loc[("of 1", "D2"), "q"] < 1e-3
    assert table.loc[("of 1", "D2"), "score"] > table.loc[("any", "D2"), "score"]
    with pytest.raises(InputError, match="no gene set has 5 genes"):
        sagefm.tl.pathways(slide, {"x": ["A", "B"]}, "domain")


def test_without_decoupler_there_is_one_clear_line(slide, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "decoupler", None)
    with pytest.raises(InputError, match="scoring pathways needs decoupler"):
        sagefm.tl.pathways(slide, {"x": ["A"]}, "domain")
