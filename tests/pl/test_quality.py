import matplotlib as mpl

mpl.use("Agg")

from dataclasses import replace

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pytest

import sagefm
from sagefm import InputError, report
from sagefm.stats.reference import ReferenceSpots

TITLES = [
    "counts per spot",
    "genes per spot",
    "unlike the training spots",
    "error on masked genes",
    "error minus that of the neighbor mean",
]


@pytest.fixture(autouse=True)
def no_figure_is_left_to_the_next_test():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def judged(slide, model):
    z = model.embed(slide)
    held = slide.copy()
    learned = replace(model, trained_on=ReferenceSpots.learn([z[:100], z[100:]], ["a", "b"]))
    report.quality(held, learned)
    return held


def values(panel):
    return np.ma.filled(panel.collections[-1].get_array(), np.nan)


def test_a_panel_for_all_that_is_known_of_a_spot(judged):
    axes = sagefm.pl.quality(judged)
    assert [ax.get_title().replace("\n", " ") for ax in axes] == TITLES
    known = judged.obsm["sagefm_quality"]
    for ax, column in zip(axes, ["counts", "genes", "novelty", "error"], strict=False):
        np.testing.assert_allclose(values(ax), known[column])
    gain = known["error"] - known["error_neighbor_mean"]
    np.testing.assert_allclose(values(axes[4]), gain)
    assert axes[2].collections[-1].get_clim() == (0, 1)
    assert axes[0].collections[-1].get_clim() == pytest.approx(
        tuple(np.percentile(known["counts"], [1, 99]))
    )
    low, high = axes[4].collections[-1].get_clim()
    assert low == -high < 0  # the middle color is no difference
    assert all(ax.collections[-1].colorbar.ax.get_xlabel() for ax in axes)


def test_what_is_not_known_is_left_out(slide, model):
    held = slide.copy()
    report.quality(held)
    assert [ax.get_title() for ax in sagefm.pl.quality(held)] == TITLES[:2]
    report.quality(held, model)
    assert TITLES[2] not in [ax.get_title() for ax in sagefm.pl.quality(held)]


def test_the_slide_is_left_alone_and_the_picture_written(judged, tmp_path):
    before = list(judged.obs), list(judged.uns)
    sagefm.pl.quality(judged, save=tmp_path / "q.png")
    assert (tmp_path / "q.png").stat().st_size > 10_000
    assert (list(judged.obs), list(judged.uns)) == before
    assert not plt.get_fignums()


def test_bad_input_is_refused(slide, judged):
    with pytest.raises(InputError, match=r"run sagefm\.report\.quality first"):
        sagefm.pl.quality(slide)
    both = ad.concat({"a": judged, "b": judged}, label="section", index_unique="-")
    with pytest.raises(InputError, match="several slides in one object"):
        sagefm.pl.quality(both)
