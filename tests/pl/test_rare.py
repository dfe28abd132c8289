import matplotlib as mpl

mpl.use("Agg")

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex

import sagefm
from sagefm import InputError
from sagefm.pp.plant import plant


@pytest.fixture(autouse=True)
def no_figure_is_left_to_the_next_test():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def plain(slide):
    held = slide.copy()
    sagefm.tl.rare(held)
    return held


@pytest.fixture(scope="module")
def found(slide):
    held = plant(slide, 0.05, fold=25, seed=1)
    sagefm.tl.rare(held, share=0.06)
    assert len(held.obs["sagefm_rare"].cat.categories) >= 2
    return held


def names(panel):
    return [label.get_text() for label in panel.get_yticklabels()]


def test_the_map_has_every_score_and_a_ring_for_each_listed_spot(found):
    left, _ = sagefm.pl.rare(found)
    spots, rings = left.collections[0], left.collections[-1]
    made = found.uns["sagefm"]["rare"]
    np.testing.assert_allclose(spots.get_array(), found.obs["sagefm_rare_score"])
    places = found[made["spots"].index].obsm["spatial"]
    np.testing.assert_allclose(rings.get_offsets(), places)
    shades = [to_hex(edge) for edge in rings.get_edgecolors()]
    kinds = made["spots"]["population"]
    for kind in set(kinds):
        assert len({s for s, k in zip(shades, kinds, strict=True) if k == kind}) == 1
    assert len(set(shades)) == len(set(kinds))
    assert left.get_title() == f"12 spots listed, {made['n_beyond_noise']} beyond noise"


def test_the_genes_of_populations_stand_beside(found):
    _, right = sagefm.pl.rare(found)
    genes = found.uns["sagefm"]["rare"]["genes"]
    first = genes[genes["population"] == "1"].head(8)
    assert names(right)[:8] == list(first["gene"])
    widths = [bar.get_width() for bar in right.patches[:8]]
    assert widths == pytest.approx(first["log2_fold"].tolist())
    dots = right.lines[0].get_xdata()
    assert list(dots) == pytest.approx(first["log2_fold_neighbors"].tolist())


def test_without_a_population_the_listed_spots_stand_beside(plain):
    _, right = sagefm.pl.rare(plain)
    genes = plain.uns["sagefm"]["rare"]["genes"]
    assert set(genes["population"]) == {"listed"}
    assert names(right) == list(genes["gene"].head(8))
    assert [text.get_text() for text in right.texts] == ["listed spots"]


def test_it_is_drawn_after_a_file_and_saved(found, tmp_path):
    found.write_h5ad(tmp_path / "x.h5ad")
    sagefm.pl.rare(ad.read_h5ad(tmp_path / "x.h5ad"), save=tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 20_000
    assert not plt.get_fignums()


def test_mistakes_are_named(found, slide):
    with pytest.raises(InputError, match=r"run sagefm\.tl\.rare first"):
        sagefm.pl.rare(slide)
    two = ad.concat({"a": found, "b": found}, label="slide", index_unique="-")
    two.uns["sagefm"] = found.uns["sagefm"]
    with pytest.raises(InputError, match="several slides in one object"):
        sagefm.pl.rare(two)
