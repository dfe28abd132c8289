"""Slides that can be drawn although no model can be applied to them, and those that cannot."""

import io

import anndata
import numpy as np
import pandas as pd
import pytest
from bokeh.document import Document

from sagefm import InputError
from sagefm.explore.opening import open_for_exploring
from sagefm.explore.page import Page
from sagefm.explore.state import Explorer
from sagefm.pp.simulate import simulate


def explorer(slide, model=None, **options):
    return Explorer(open_for_exploring(slide, **options), model)


def test_logarithms_are_drawn_as_they_are_and_the_model_is_off(slide, tmp_path):
    logged = slide.copy()
    logged.X = np.log1p(slide.X.toarray() * 1.3)
    logged.write_h5ad(tmp_path / "logged.h5ad")
    opened = explorer(tmp_path / "logged.h5ad", "default")
    assert "log-normalized" in opened.model.fault
    gene = slide.var_names[0]
    values = opened.measured(gene).values
    np.testing.assert_allclose(values, logged[:, gene].X.ravel(), rtol=1e-6)
    with pytest.raises(InputError, match="log-normalized"):
        opened.domains()


def test_a_slide_without_a_gene_of_the_model_is_drawn(slide, context_model):
    renamed = slide.copy()
    renamed.var_names = [f"zz{i}" for i in range(slide.n_vars)]
    opened = explorer(renamed, context_model)
    with pytest.raises(InputError, match="gene"):
        opened.model.load()
    assert "gene" in opened.model.fault
    assert opened.measured("zz0").values.shape == (slide.n_obs,)


def test_five_spots_have_four_neighbors_and_no_model(slide, context_model):
    opened = explorer(slide[:5].copy(), context_model)
    assert len(opened.neighbors(2)) == 4
    with pytest.raises(InputError, match="5 spots"):
        opened.model.load()
    with pytest.raises(InputError, match="select 3 spots"):
        opened.top_genes((0, 1))


def test_sections_stand_side_by_side_and_neighbors_stay_in_theirs(slide):
    other = simulate(150, seed=4)
    shared = slide.var_names.intersection(other.var_names)
    both = anndata.concat([slide[:, shared], other[:, shared]], label="sample", index_unique="-")
    opened = explorer(both, slide_key="sample")
    first, second = opened.tissue.points[:200], opened.tissue.points[200:]
    assert first[:, 0].max() < second[:, 0].min()
    assert [name for name, _, _ in opened.tissue.titles] == ["0", "1"]
    assert opened.neighbors(199).max() < 200
    assert opened.neighbors(200).min() >= 200
    with pytest.raises(InputError, match="several slides"):
        explorer(both)


def test_what_cannot_be_drawn_is_said(slide, tmp_path):
    bare = slide.copy()
    del bare.obsm["spatial"]
    for wrong, reason in ((bare, "no coordinates"), (slide[:0], "no spots"),
                          (slide[:, :0], "no genes"), (tmp_path / "x.h5ad", "exist")):  # fmt: skip
        with pytest.raises(InputError, match=reason):
            explorer(wrong)


def test_the_tissue_image_lies_under_its_spots(slide):
    pictured = slide.copy()
    high = pictured.obsm["spatial"].max(axis=0) * 1.2
    pixels = np.full((60, 80, 3), 200, dtype=np.uint8)
    pictured.uns["spatial"] = {
        "one": {
            "images": {"hires": pixels},
            "scalefactors": {"tissue_hires_scalef": 80 / high[0]},
        }
    }
    [image] = explorer(pictured).tissue.images
    points = pictured.obsm["spatial"]
    assert image.jpeg.startswith(b"\xff\xd8")
    assert image.x <= points[:, 0].min()
    assert image.x + image.width >= points[:, 0].max()


def test_the_neighbors_are_those_of_the_model(slide, context_model):
    opened = explorer(slide, context_model)
    for row in (0, 57, 199):
        assert set(opened.neighbors(row)) == set(opened.model.aligned().neighbors[row, 1:])


def test_an_export_asks_before_it_replaces_a_file(slide, tmp_path):
    path = tmp_path / "slide.h5ad"
    slide.copy().write_h5ad(path)
    opened = Explorer(open_for_exploring(path), None, output=path)
    opened.save_column("mine", (0, 1, 2))
    with pytest.raises(InputError, match="exists already"):
        opened.export()
    assert "mine" not in anndata.read_h5ad(path).obs
    opened.export(overwrite=True)
    assert (anndata.read_h5ad(path).obs["mine"] == "selected").sum() == 3


@pytest.mark.parametrize("name", ["", "  ", "a/b", "slide", "sagefm_domain"])
def test_a_column_needs_a_name_of_its_own(slide, name):
    with pytest.raises(InputError):
        explorer(slide).save_column(name, (0, 1))


def test_another_selection_needs_another_name(slide):
    opened = explorer(slide)
    opened.save_column("selection", (0, 1, 2))
    opened.save_column("selection", (0, 1, 2))
    with pytest.raises(InputError, match="already"):
        opened.save_column("selection", (3, 4))
    assert (opened.exported().obs["selection"] == "selected").sum() == 3


def test_the_table_of_a_slide_with_columns_x_and_y_is_written(slide):
    taken = slide.copy()
    taken.obs["x"], taken.obs["y"] = 7, 8
    table = pd.read_csv(io.StringIO(explorer(taken).table(None)), index_col="spot")
    assert (table["x"] == 7).all()
    places = table[["x (obsm spatial)", "y (obsm spatial)"]].to_numpy()
    np.testing.assert_allclose(places, slide.obsm["spatial"])


def test_sections_have_their_names_and_a_single_spot_does_not_set_the_size(slide):
    taken = slide.copy()
    taken.obs["sample"] = ["one", *["two ", "two"] * 99, "three"]
    opened = explorer(taken, slide_key="sample")
    assert [name for name, _, _ in opened.tissue.titles] == ["one", "two", "three"]
    assert opened.tissue.pitch == explorer(slide).tissue.pitch


def test_what_fails_is_not_waited_for(slide, monkeypatch):
    opened = explorer(slide, "/no/model.safetensors")
    page = Page(opened, "token")
    page.build(Document())
    waited = []
    monkeypatch.setattr(page, "after", lambda *args: waited.append(args))
    page.drawing.source.selected.indices = [5]
    page._warm_up(None)
    assert "computing" in page.details._drivers.text
    with pytest.raises(InputError):
        opened.model.load()
    for *_, failed in [args for args in waited if len(args) == 5]:
        failed()
    assert not page.details._drivers.text
    assert "Off:" in page.what_if._result.text


def test_domains_of_the_user_are_not_replaced_by_computed_ones(slide):
    mine = slide.copy()
    mine.obs["sagefm_domain"] = pd.Categorical(["mine"] * mine.n_obs)
    opened = explorer(mine)
    opened.domains()
    exported = opened.exported()
    assert (exported.obs["sagefm_domain"] == "mine").all()
    assert exported.obs["sagefm_domain_computed"].nunique() > 1
