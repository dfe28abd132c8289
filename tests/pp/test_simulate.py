from importlib import resources

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.spatial import cKDTree
from scipy.stats import rankdata

from sagefm import InputError
from sagefm.pp.gene_names import known_gene_names
from sagefm.pp.simulate import PAIRS, simulate
from sagefm.pp.visium_array import PITCH_UM, PIXELS_PER_UM

PITCH = PITCH_UM * PIXELS_PER_UM


@pytest.fixture(scope="module")
def slides():
    return [simulate(seed=seed) for seed in range(3)]


def identical(one, other):
    return (
        (one.X != other.X).nnz == 0
        and one.obs.equals(other.obs)
        and one.var_names.equals(other.var_names)
        and np.array_equal(one.obsm["spatial"], other.obsm["spatial"])
    )


def shipped_genes():
    return (resources.files("sagefm.pp") / "genes_for_simulation.txt").read_text().split()


@pytest.mark.parametrize("n_spots", [15, 16, 333, 1000])
@pytest.mark.parametrize("n_domains", [1, 2, 5, 12])
def test_number_of_spots_is_exact(n_spots, n_domains):
    slide = simulate(n_spots, n_domains=n_domains, seed=n_spots)
    assert slide.shape == (n_spots, len(shipped_genes()))
    assert slide.obs_names.is_unique
    assert slide.obs_names.str.fullmatch("[ACGT]{16}-1").all()
    assert list(slide.obs["domain"].cat.categories) == [f"D{k + 1}" for k in range(n_domains)]


def test_counts_are_raw(slides):
    for slide in slides:
        assert isinstance(slide.X, sparse.csr_matrix)
        assert slide.X.has_canonical_format
        assert slide.X.dtype == np.float32
        assert (slide.X.data >= 1).all()
        assert (slide.X.data == np.round(slide.X.data)).all()
        assert slide.var_names.is_unique


def test_counts_look_like_visium(slides):
    for slide in slides:
        totals = np.asarray(slide.X.sum(axis=1)).ravel()
        assert 1500 < np.median(totals) < 6000
        assert 0.2 < np.log(totals).std() < 0.7
        assert 0.4 < 1 - slide.X.nnz / np.prod(slide.shape) < 0.8


def test_grid_is_hexagonal(slides):
    places = slides[0].obsm["spatial"]
    array = slides[0].obs[["array_row", "array_col"]].to_numpy()
    assert (array.sum(axis=1) % 2 == 0).all()
    assert array.min(axis=0).max() <= 1
    distances = cKDTree(places).query(places, 8)[0] / PITCH
    interior = np.hypot(*(places - places.mean(axis=0)).T) < 0.7 * np.ptp(places, axis=0).min() / 2
    assert interior.sum() > 300
    np.testing.assert_allclose(distances[interior, 1:7], 1.0)
    np.testing.assert_allclose(distances[interior, 7], np.sqrt(3))
    # x is the column, y the row
    expected = np.stack([array[:, 1] * PITCH / 2, array[:, 0] * PITCH * np.sqrt(0.75)], axis=1)
    offset = places - expected
    np.testing.assert_allclose(offset, np.broadcast_to(offset[0], offset.shape))


def test_same_arguments_same_slide():
    one, other = (simulate(200, seed=3, patient="p2", slide="b") for _ in range(2))
    assert identical(one, other)
    assert set(one.obs["patient"]) == {"p2"}
    assert set(one.obs["slide"]) == {"b"}
    assert not identical(one, simulate(200, seed=4, patient="p2", slide="b"))


def test_patients_share_their_biology(slides):
    truths = [slide.uns["simulation"] for slide in slides]
    for truth in truths[1:]:
        pd.testing.assert_frame_equal(truth["couplings"], truths[0]["couplings"])
        np.testing.assert_array_equal(truth["domain_profiles"], truths[0]["domain_profiles"])
    assert len({tuple(slide.obs["domain"]) for slide in slides}) == len(slides)
    other = simulate(biology_seed=1).uns["simulation"]
    assert not np.array_equal(other["domain_profiles"], truths[0]["domain_profiles"])
    assert not other["couplings"].equals(truths[0]["couplings"])
    np.testing.assert_allclose(truths[0]["domain_profiles"].sum(axis=1), 1.0, rtol=1e-5)


def test_domains_are_regions(slides):
    for slide in slides:
        labels = slide.obs["domain"].to_numpy()
        neighbors = cKDTree(slide.obsm["spatial"]).query(slide.obsm["spatial"], 7)[1][:, 1:]
        assert (labels[neighbors] == labels[:, None]).mean() > 0.75
        assert slide.obs["domain"].value_counts().min() > 40


def test_counts_follow_the_expected_depth_and_the_profiles(slides):
    slide = slides[0]
    totals = np.asarray(slide.X.sum(axis=1)).ravel()
    assert totals.mean() / slide.obs["depth"].mean() == pytest.approx(1, abs=0.02)
    profiles = slide.uns["simulation"]["domain_profiles"]
    found = np.vstack([slide[slide.obs["domain"] == d].X.sum(axis=0).A1 for d in ["D1", "D3"]])
    found /= found.sum(axis=1, keepdims=True)
    known = (found > 0).all(axis=0)
    contrast, truth = (
        np.diff(np.log(rows[:, known]), axis=0)[0] for rows in (found, profiles[[0, 2]])
    )
    assert np.corrcoef(contrast[np.abs(truth) > 0.3], truth[np.abs(truth) > 0.3])[0, 1] > 0.7


def test_counts_are_negative_binomial():
    genes = [f"G{number}" for number in range(60)]
    arguments = {"genes": genes, "n_couplings": 0, "n_domains": 1, "depth": 600.0}
    slides = [simulate(2000, dispersion=d, **arguments).X.toarray() for d in (0.001, 1.0)]
    means = [counts.mean(axis=0) for counts in slides]
    excess = [
        ((counts.var(axis=0) - mean) / mean**2)[mean > 2]
        for counts, mean in zip(slides, means, strict=True)
    ]
    np.testing.assert_allclose(means[0], means[1], rtol=0.35, atol=0.1)
    assert np.median(excess[1]) - np.median(excess[0]) == pytest.approx(1.0, abs=0.25)


def response_to_neighbors(slide, pairs):
    """Partial rank correlation of target and neighbor-mean ligand, given depth and domain."""
    neighbors = cKDTree(slide.obsm["spatial"]).query(slide.obsm["spatial"], 15)[1][:, 1:]
    domains = pd.get_dummies(slide.obs["domain"]).to_numpy(float)
    log_depth = np.log(slide.obs["depth"].to_numpy())
    known = np.column_stack([domains, log_depth, log_depth[neighbors].mean(axis=1)])

    def rest(values):
        return values - known @ np.linalg.lstsq(known, values, rcond=None)[0]

    for ligand, target in zip(pairs["ligand"], pairs["target"], strict=True):
        columns = np.log1p(slide[:, [ligand, target]].X.toarray())
        around = columns[neighbors, 0].mean(axis=1)
        yield np.corrcoef(rankdata(rest(around)), rankdata(rest(columns[:, 1])))[0, 1]


def test_coupled_targets_follow_their_neighbors(slides):
    pairs = slides[0].uns["simulation"]["couplings"]
    found = np.array([list(response_to_neighbors(slide, pairs)) for slide in slides]).mean(axis=0)
    coupled = (pairs["strength"] > 0).to_numpy()
    assert coupled.sum() == (~coupled).sum() == 8
    assert found[coupled].min() > 0.12
    assert np.abs(found[~coupled]).max() < 0.12
    assert found[coupled].mean() > 0.2


def test_couplings_are_known_pairs_while_there_are_any():
    pairs = simulate(100).uns["simulation"]["couplings"]
    assert set(zip(pairs["ligand"], pairs["target"], strict=True)) <= set(PAIRS)
    more = simulate(100, n_couplings=30).uns["simulation"]["couplings"]
    assert len(more) == 60
    assert pd.concat([more["ligand"], more["target"]]).is_unique
    assert set(PAIRS) <= set(zip(more["ligand"], more["target"], strict=True))


def test_any_genes_will_do():
    slide = simulate(50, genes=[f"G{number}" for number in range(5000)])
    pairs = slide.uns["simulation"]["couplings"]
    assert slide.n_vars == 5000
    assert set(pairs["ligand"]) | set(pairs["target"]) <= set(slide.var_names)
    assert simulate(20, genes=["A", "B", "C", "D", "E"], n_couplings=1).shape == (20, 5)


def test_couplings_can_be_none_and_negative():
    assert len(simulate(50, n_couplings=0).uns["simulation"]["couplings"]) == 0
    plain, inhibited = (simulate(300, coupling_strength=strength) for strength in (0.0, -1.0))
    pairs = inhibited.uns["simulation"]["couplings"]
    targets = pairs["target"][pairs["strength"] < 0]
    assert inhibited[:, targets].X.sum() < 0.8 * plain[:, targets].X.sum()


def test_slide_survives_a_file(slides, tmp_path):
    slides[0].write_h5ad(tmp_path / "slide.h5ad")
    back = ad.read_h5ad(tmp_path / "slide.h5ad")
    truth, again = slides[0].uns["simulation"], back.uns["simulation"]
    assert identical(slides[0], back)
    assert back.uns["spot_pitch_um"] == 100.0
    assert (again["seed"], again["biology_seed"]) == (0, 0)
    np.testing.assert_array_equal(again["domain_profiles"], truth["domain_profiles"])
    assert again["couplings"].to_dict("list") == truth["couplings"].to_dict("list")


def test_shipped_genes_are_real():
    genes = shipped_genes()
    assert len(genes) == len(set(genes))
    assert 1000 <= len(genes) <= 1500
    paired = [gene for pair in PAIRS for gene in pair]
    assert len(paired) == len(set(paired))
    assert set(paired) <= set(genes)
    assert set(genes) <= set(known_gene_names().symbol_of_id.values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_spots": 14}, "n_spots is 14"),
        ({"n_domains": 0}, "n_domains is 0"),
        ({"n_couplings": -1}, "n_couplings is -1"),
        ({"coupling_strength": float("nan")}, "coupling_strength is nan"),
        ({"depth": 0.0}, "depth is 0"),
        ({"dispersion": -1.0}, "dispersion is -1"),
        ({"seed": -1}, "seed is -1"),
        ({"genes": [*"ABCDEFGHA"], "n_couplings": 1}, "'A' more than once"),
        ({"genes": [*"ABCDEFGH"]}, "genes has 8 names; give at least 33"),
    ],
)
def test_bad_arguments_are_told_in_one_line(arguments, message):
    with pytest.raises(InputError, match=message) as caught:
        simulate(**arguments)
    assert "\n" not in str(caught.value)
