"""Domains of counts, in one slide and in several."""

import logging

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix
from sklearn.metrics import adjusted_rand_score

import sagefm
from sagefm import InputError
from sagefm.tl._tissue import Tissue
from sagefm.tl._views import VIEWS, Views


def agreement(one, other):
    return adjusted_rand_score(one.astype(str), other.astype(str))


def layered(seed, n_layers=4, rows=12, columns=24, shift=0.0):
    """Layers of equal width, each with markers of its own; a batch shifts every gene."""
    rng = np.random.default_rng(seed)
    row, column = np.divmod(np.arange(rows * columns), columns)
    layer = column * n_layers // columns
    rates = np.random.default_rng(0).gamma(2.0, 1.0, size=120)
    profiles = np.tile(rates, (n_layers, 1))
    for one in range(n_layers):
        profiles[one, 15 * one : 15 * one + 15] *= 2.5
    depth = rng.lognormal(0, 0.3, size=len(layer))
    counts = rng.poisson(depth[:, None] * profiles[layer] * np.exp(shift * rng.normal(size=120)))
    names = [f"spot{i}" for i in range(len(layer))]
    return ad.AnnData(
        csr_matrix(counts.astype(np.float32)),
        obs=pd.DataFrame({"domain": [f"L{one}" for one in layer]}, index=names),
        var=pd.DataFrame(index=[f"gene{i}" for i in range(120)]),
        obsm={"spatial": np.c_[column + 0.5 * (row % 2), row * np.sqrt(0.75)] * 100},
    )


@pytest.fixture(scope="module")
def simulated():
    return layered(0)


@pytest.fixture(scope="module")
def pair():
    """Two patients: the same layers, each with its own noise and its own laboratory."""
    return {name: layered(seed, 3, shift=0.3) for name, seed in (("a", 1), ("b", 2))}


@pytest.fixture
def told(caplog):
    logger = logging.getLogger("sagefm")
    logger.addHandler(caplog.handler)
    with caplog.at_level(logging.INFO, "sagefm"):
        yield caplog
    logger.removeHandler(caplog.handler)


@pytest.fixture(scope="module")
def found(simulated):
    slide = simulated.copy()
    table = sagefm.tl.domains(slide, 4)
    return slide, table


def test_planted_domains_are_found_without_a_model(found):
    slide, table = found
    assert agreement(slide.obs["domain"], slide.obs["sagefm_domain"]) > 0.9
    sizes = slide.obs["sagefm_domain"].value_counts(sort=False, normalize=True)
    assert list(sizes.index) == ["1", "2", "3", "4"]
    np.testing.assert_allclose(table.loc["slide 1", ["1", "2", "3", "4"]].astype(float), sizes)
    assert table.loc["slide 1", "n_spots"] == 288


def test_confidence_is_lower_where_domains_are_wrong(found):
    slide, _ = found
    confidence = slide.obs["sagefm_domain_confidence"]
    assert confidence.between(0, 1).all()
    names = pd.crosstab(slide.obs["sagefm_domain"], slide.obs["domain"]).idxmax(axis=1)
    right = slide.obs["sagefm_domain"].map(names).astype(str) == slide.obs["domain"].astype(str)
    assert confidence[right].mean() > confidence[~right].mean() + 0.05
    second = slide.obs["sagefm_domain_second"]
    assert (second.dropna().astype(str) != slide.obs["sagefm_domain"][second.notna()]).all()
    assert confidence[second.isna()].min() > 0.8


def test_the_order_of_spots_and_genes_changes_nothing(simulated, found):
    rng = np.random.default_rng(0)
    spots, genes = rng.permutation(288), rng.permutation(simulated.n_vars)
    shuffled = simulated[spots][:, genes].copy()
    sagefm.tl.domains(shuffled, 4)
    slide = found[0]
    columns = ["sagefm_domain", "sagefm_domain_confidence", "sagefm_domain_second"]
    pd.testing.assert_frame_equal(shuffled.obs.loc[slide.obs_names, columns], slide.obs[columns])


def test_only_domains_are_added(simulated, found):
    slide = found[0].copy()
    settings = slide.uns["sagefm"].pop("domains")
    assert settings["method"] == "consensus"
    assert (settings["n_domains"], settings["centered"]) == (4, False)
    assert list(settings["merges"]) == ["domain", "merged", "similarity"]
    assert set(slide.obs) - set(simulated.obs) == {
        "sagefm_domain", "sagefm_domain_confidence", "sagefm_domain_second"
    }  # fmt: skip
    assert (slide.X != simulated.X).nnz == 0


def test_a_file_keeps_what_was_found(found, tmp_path):
    found[0].write_h5ad(tmp_path / "slide.h5ad")
    again = ad.read_h5ad(tmp_path / "slide.h5ad")
    merges = again.uns["sagefm"]["domains"]["merges"]
    wanted = found[0].uns["sagefm"]["domains"]["merges"]
    assert merges.to_numpy().tolist() == wanted.to_numpy().tolist()
    assert again.obs["sagefm_domain"].equals(found[0].obs["sagefm_domain"])


@pytest.mark.parametrize("method", VIEWS)
def test_every_single_view_stays_available(simulated, method):
    slide = simulated.copy()
    sagefm.tl.domains(slide, 4, method=method)
    assert agreement(slide.obs["domain"], slide.obs["sagefm_domain"]) > 0.6
    assert "sagefm_domain_confidence" not in slide.obs


def test_an_embedding_can_be_one_more_view(simulated):
    plain, with_truth = simulated.copy(), simulated.copy()
    truth = pd.get_dummies(simulated.obs["domain"]).to_numpy(dtype=float)
    with_truth.obsm["truth"] = truth + np.random.default_rng(0).normal(0, 0.01, truth.shape)
    sagefm.tl.domains(plain, 4)
    sagefm.tl.domains(with_truth, 4, use_rep="truth")
    before = plain.obs["sagefm_domain_confidence"]
    assert not before.equals(with_truth.obs["sagefm_domain_confidence"])
    assert agreement(with_truth.obs["domain"], with_truth.obs["sagefm_domain"]) >= agreement(
        plain.obs["domain"], plain.obs["sagefm_domain"]
    )


def test_the_number_is_chosen_and_said(simulated, told):
    slide = simulated.copy()
    sagefm.tl.domains(slide)
    settings = slide.uns["sagefm"]["domains"]
    assert abs(settings["n_domains"] - 4) <= 1
    table = settings["stability"]
    assert table["n_domains"].tolist() == list(range(2, 13))
    assert table["n_domains"][table["score"].argmax()] == settings["n_domains"]
    assert f"{settings['n_domains']} domains are chosen" in told.text
    assert sagefm.pl.stability(slide, show=False).get_title().startswith(str(settings["n_domains"]))


def test_a_slide_of_noise_is_called_unstable(told):
    slide = layered(0, 1)
    sagefm.tl.domains(slide, 6)
    assert "these 6 domains are not stable" in told.text


def test_several_slides_share_their_domains(pair):
    slides = {name: slide.copy() for name, slide in pair.items()}
    table = sagefm.tl.domains(slides, 3)
    assert list(table.index) == ["a", "b"]
    np.testing.assert_allclose(table[["1", "2", "3"]].sum(axis=1), 1)
    together = pd.concat([slide.obs for slide in slides.values()])
    assert agreement(together["domain"], together["sagefm_domain"]) > 0.9
    for slide in slides.values():
        assert slide.uns["sagefm"]["domains"]["centered"]
        assert list(slide.obs["sagefm_domain"].cat.categories) == ["1", "2", "3"]


def test_without_centering_the_laboratory_decides(pair):
    slides = [slide.copy() for slide in pair.values()]
    sagefm.tl.domains(slides, 3, centered=False)
    together = pd.concat([slide.obs for slide in slides])
    assert agreement(together["domain"], together["sagefm_domain"]) < 0.7


def test_the_order_of_slides_changes_nothing(pair):
    one, other = ([slide.copy() for slide in pair.values()] for _ in range(2))
    sagefm.tl.domains(one, 3)
    sagefm.tl.domains(other[::-1], 3)
    for first, second in zip(one, other, strict=True):
        assert first.obs["sagefm_domain"].equals(second.obs["sagefm_domain"])


def test_sections_of_one_object_are_as_several_slides(pair):
    several = [slide.copy() for slide in pair.values()]
    sagefm.tl.domains(several, 3)
    one = ad.concat(pair, label="section", index_unique="-", uns_merge="first")
    sagefm.tl.domains(one, 3, slide_key="section")
    wanted = np.concatenate([slide.obs["sagefm_domain"].astype(str) for slide in several])
    assert (one.obs["sagefm_domain"].astype(str).to_numpy() == wanted).all()


def test_batches_are_centered_together(pair):
    slides = [slide.copy() for slide in pair.values()]
    for slide in slides:
        slide.obs["batch"] = "one"
    sagefm.tl.domains(slides, 3, batch_key="batch")
    assert not slides[0].uns["sagefm"]["domains"]["centered"]


def test_centering_removes_the_mean_of_a_batch(pair):
    slides = list(pair.values())
    batches = np.repeat([0, 1], [slide.n_obs for slide in slides])
    tissue = Tissue.of(slides, batches)
    for centered in (True, False):
        spots = Views(tissue, centered=centered).spots
        means = [np.abs(spots[tissue.batches == code].mean(axis=0)).max() for code in (0, 1)]
        assert (max(means) < 1e-6) == centered


def test_a_section_smaller_than_its_neighborhoods(pair):
    small = pair["a"][:12].copy()
    sagefm.tl.domains(small, 2)
    assert small.obs["sagefm_domain"].nunique() == 2


def empty(slides):
    slides[0].X = slides[0].X * 0


def named_twice(slides):
    slides[1] = slides[0]


def mixed_batches(slides):
    slides[0].obs["donor"] = np.arange(slides[0].n_obs) % 2


@pytest.mark.parametrize(
    ("spoil", "wanted", "message"),
    [
        (named_twice, {}, "the same slide is given twice"),
        (lambda slides: slides.clear(), {}, "there are none"),
        (None, {"batch_key": "donor"}, r"obs\['donor'\]: is missing in a slide"),
        (mixed_batches, {"batch_key": "donor"}, "differs within a section"),
        (lambda slides: slides[0].obsm.pop("spatial"), {}, "put x and y of each spot"),
        (None, {"method": "pca15", "use_rep": "X"}, "method='pca15' clusters counts"),
        (None, {"n_domains": 577}, "the slides have 576 spots; request 1 to 576"),
    ],
)
def test_what_cannot_be_joined_is_refused_in_one_line(pair, spoil, wanted, message):
    slides = [slide.copy() for slide in pair.values()]
    if spoil:
        spoil(slides)
    with pytest.raises(InputError, match=message) as raised:
        sagefm.tl.domains(slides, **{"n_domains": 3} | wanted)
    assert "\n" not in str(raised.value)
    assert all("sagefm_domain" not in slide.obs for slide in slides)


def test_coarse_domains_are_unions_of_fine_ones(simulated):
    slide = simulated.copy()
    sagefm.tl.domains(slide, 6)
    for n_domains in (6, 4, 2, 1):
        sagefm.tl.coarsen(slide, n_domains)
        coarse = slide.obs[f"sagefm_domain_{n_domains}"]
        assert len(coarse.cat.categories) == n_domains
        parts = slide.obs.groupby(coarse.astype(str))["sagefm_domain"].unique()
        assert {name: "+".join(sorted(map(str, fine))) for name, fine in parts.items()} == {
            name: name for name in parts.index
        }
    assert agreement(slide.obs["domain"], slide.obs["sagefm_domain_4"]) > 0.7
    with pytest.raises(InputError, match="request 1 to 6"):
        sagefm.tl.coarsen(slide, 7)
    with pytest.raises(InputError, match=r"run sagefm\.tl\.domains first"):
        sagefm.tl.coarsen(simulated.copy(), 2)
