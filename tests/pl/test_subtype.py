import matplotlib as mpl

mpl.use("Agg")

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

import sagefm
from sagefm import InputError
from sagefm.tl import Subtypes


@pytest.fixture(autouse=True)
def no_figure_is_left_to_the_next_test():
    yield
    plt.close("all")


@pytest.fixture
def found():
    """Five patients: one of class A is predicted to be B, one has no subtype."""
    patients = pd.DataFrame(
        {
            "n_slides": 1,
            "truth": ["A", "B$", "A", "B$", None],
            "predicted": ["A", "B$", "B$", "B$", "A"],
            "probability_A": [0.9, 0.3, 0.4, 0.1, 0.6],
            "probability_B$": [0.1, 0.7, 0.6, 0.9, 0.4],
            "held_out": [True] * 4 + [False],
        },
        index=["p1", "p2", "p3", "p4", "p5"],
    )
    nothing = pd.DataFrame()
    return Subtypes(patients, pd.Series(dtype=float), nothing, nothing, nothing)


def test_patients_are_grouped_by_their_class(found):
    panel = sagefm.pl.subtype(found)
    names = [tick.get_text() for tick in panel.get_yticklabels()]
    assert names == ["p1", "p3 *", "p4", "p2", "p5"]
    widths = np.array([bar.get_width() for bar in panel.patches]).reshape(2, 5)
    np.testing.assert_allclose(widths[0], [0.9, 0.4, 0.1, 0.3, 0.6])
    np.testing.assert_allclose(widths.sum(axis=0), 1)
    assert [text.get_text() for text in panel.texts] == ["A", r"B\$", "no subtype"]
    assert [text.get_text() for text in panel.get_legend().get_texts()] == ["A", r"B\$"]
    gaps = np.diff(panel.get_yticks())
    assert gaps.tolist() == pytest.approx([1, 1.8, 1, 1.8])
    panel.figure.canvas.draw()


def test_evidence_on_the_tissue(slide):
    held = slide.copy()
    values = np.random.default_rng(0).normal(size=200)
    values[:2] = [50.0, np.nan]
    held.obs["sagefm_subtype_evidence"] = values
    panel = sagefm.pl.subtype_evidence(held, title="s: for A")
    spots = panel.collections[-1]
    np.testing.assert_allclose(np.ma.filled(spots.get_array(), np.nan), values)
    most = np.percentile(np.abs(values[~np.isnan(values)]), 99)
    assert spots.get_clim() == pytest.approx((-most, most))
    assert most < 50
    assert panel.get_title() == "s: for A"
    held.obs["none"] = np.nan
    sagefm.pl.subtype_evidence(held, key="none").figure.canvas.draw()


def test_they_are_saved(found, slide, tmp_path):
    sagefm.pl.subtype(found, save=tmp_path / "a.png")
    held = slide.copy()
    held.obs["sagefm_subtype_evidence"] = np.linspace(-1, 1, 200)
    sagefm.pl.subtype_evidence(held, save=tmp_path / "b.png")
    assert all((tmp_path / name).stat().st_size > 10_000 for name in ("a.png", "b.png"))
    assert not plt.get_fignums()


def test_mistakes_are_named(slide):
    with pytest.raises(InputError, match=r"run sagefm\.tl\.subtype first"):
        sagefm.pl.subtype_evidence(slide)
    two = ad.concat({"a": slide, "b": slide}, label="lane", index_unique="-")
    two.obs["slide"] = two.obs["lane"]
    two.obs["sagefm_subtype_evidence"] = 1.0
    with pytest.raises(InputError, match="several slides in one object"):
        sagefm.pl.subtype_evidence(two)
