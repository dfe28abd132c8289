"""Pictures of an annotation."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from sagefm import InputError, pl
from sagefm.pl._annotation import _curve
from sagefm.pp.simulate import simulate
from sagefm.tl import annotate


@pytest.fixture(scope="module")
def annotated(model):
    slides = [simulate(150, n_domains=3, seed=i, patient=f"p{i}") for i in range(3)]
    learned = annotate(slides[:2], slides[2], model, "domain", error_rate=0.1)
    return slides[2], learned


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_three_maps_of_one_slide(annotated, tmp_path):
    slide, _ = annotated
    before = slide.obs.copy(), set(slide.uns)
    axes = pl.annotation(slide, show=False, save=tmp_path / "a.png")
    n = (slide.obs["sagefm_label"] == "unknown").sum()
    assert [ax.get_title().replace("\n", " ") for ax in axes] == [
        f"label ({n} unknown)",
        "confidence",
        "novelty",
    ]
    shown = axes[1].collections[-1]
    np.testing.assert_allclose(shown.get_array(), slide.obs["sagefm_label_confidence"])
    assert shown.get_clim() == (0, 1)
    assert (tmp_path / "a.png").stat().st_size > 5000
    pd.testing.assert_frame_equal(slide.obs, before[0])
    assert set(slide.uns) == before[1]


def test_held_out_spots_are_counted(annotated):
    _, learned = annotated
    left, right = pl.annotator(learned, show=False)
    numbers = sum(int(text.get_text()) for text in left.texts)
    assert numbers == len(learned.held_out.truth)
    assert left.get_title() == "patients held out"
    groups = len(np.unique(learned.held_out.groups))
    assert len(right.lines) == 1 + groups + 1
    assert right.get_title().startswith("expected calibration error 0.")


def test_the_curve_has_shares_of_full_bins():
    confidence = np.repeat([0.25, 0.55, 0.95], [40, 10, 20])
    right = np.arange(70) % 4 == 0
    mean, share = _curve(right, confidence)
    np.testing.assert_allclose(mean, [0.25, 0.95])  # ten spots are too few for a bin
    np.testing.assert_allclose(share, [right[:40].mean(), right[50:].mean()])


def test_a_slide_without_labels_is_refused(slide):
    with pytest.raises(InputError, match=r"run sagefm\.tl\.annotate first"):
        pl.annotation(slide)
