import numpy as np
import pandas as pd
import pytest

import sagefm
from sagefm.pp.simulate import simulate


@pytest.fixture(scope="module")
def slide():
    slide = simulate(160, n_proteins=5, seed=4)
    sagefm.tl.cross(slide, n_maps=19)
    sagefm.tl.cross(slide, n_maps=19, reverse=True, features=["MT-ND2", "MT-ND3"])
    return slide


@pytest.fixture
def table(slide):
    """The table, of which the first feature is significant."""
    table = slide.uns["sagefm"]["cross"]["sagefm_cross_protein"]["table"].copy()
    table["q"] = [0.01, *[0.2] * (len(table) - 1)]
    return table


def colors(axes):
    [spots] = [one for one in axes.collections if one.get_array() is not None]
    return spots


def test_measured_and_predicted_are_on_one_scale(slide):
    axes = sagefm.pl.cross(slide)
    assert len(axes) == 8
    for left, right in zip(axes[::2], axes[1::2], strict=True):
        assert colors(left).get_clim() == colors(right).get_clim()
    name = slide.obsm["sagefm_cross_protein"].columns[0]
    values = sagefm.pp.modalities.modality(slide, "protein").normalized()[name]
    shown = np.concatenate([values, slide.obsm["sagefm_cross_protein"][name]])
    assert colors(axes[0]).get_clim()[1] == pytest.approx(np.percentile(shown, 99), rel=1e-3)
    np.testing.assert_allclose(np.sort(colors(axes[0]).get_array()), np.sort(values), atol=1e-5)


def test_titles_say_what_is_not_significant(slide, table):
    slide = slide.copy()
    slide.uns["sagefm"]["cross"]["sagefm_cross_protein"]["table"] = table
    first, second = sagefm.pl.cross(slide, features=list(table.index[:2]))[1::2]
    assert first.get_title().startswith("predicted\nr = ")
    assert "not significant" in " ".join(second.get_title().split())
    assert "q = 0.2" in second.get_title()


def test_genes_and_several_slides(slide, tmp_path):
    axes = sagefm.pl.cross(
        {"a": slide, "b": slide.copy()}, features="MT-ND2", reverse=True,
        save=tmp_path / "maps.png",
    )  # fmt: skip
    assert len(axes) == 4
    assert (tmp_path / "maps.png").stat().st_size > 10_000


def test_the_overview_has_the_model_beside_the_baselines(table):
    [axes] = sagefm.pl.cross(table)
    assert axes.get_title() == "1 of 5 features with q < 0.05"
    marks = {line.get_label(): np.asarray(line.get_xdata(), float) for line in axes.lines}
    assert marks["predicted, q < 0.05"] == pytest.approx(table["r"].iloc[:1])
    assert marks["best baseline"] == pytest.approx(table["r"] - table["gain"])
    assert marks["neighbor mean"] == pytest.approx(table["r_neighbors"])
    [axes] = sagefm.pl.cross(table.assign(q=0.5))
    assert axes.get_title() == "none of 5 features is significant"


def test_bad_input(slide, table):
    with pytest.raises(sagefm.InputError, match="is missing; run sagefm"):
        sagefm.pl.cross(slide, with_="genera")
    with pytest.raises(sagefm.InputError, match="NOT1A: was not predicted"):
        sagefm.pl.cross(slide, features="NOT1A")
    with pytest.raises(sagefm.InputError, match="no column 'r'"):
        sagefm.pl.cross(pd.DataFrame({"a": [1]}))
    with pytest.raises(sagefm.InputError, match="no rows"):
        sagefm.pl.cross(table.iloc[:0])
