"""What a reader sees of `tl.outcome`: what is significant, what must be beaten, and no names."""

import re
from types import SimpleNamespace

import matplotlib as mpl

mpl.use("Agg")

import lifelines
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import EllipseCollection

import sagefm
from outcomes import BEST, NOTE, outcome_of, with_maps
from sagefm import InputError
from sagefm.pl._outcome_risks import _fractions
from sagefm.pl._style import SIGNIFICANT
from sagefm.pl._survival import survival_calibration
from sagefm.pp.simulate import simulate

NAMES = re.compile(r"MRN|Doe", re.IGNORECASE)
KINDS = {
    "classes": {"n": 30}, "three classes": {"kind": "classes", "n": 45, "n_classes": 3},
    "ordinal": {"n": 30, "n_classes": 3}, "number": {"n": 30}, "survival": {"n": 40},
}  # fmt: skip


def words(axes):
    """All text of a figure."""
    figure = axes[0].figure.figure
    found = [one.get_text() for one in figure.findobj(mpl.text.Text)]
    return "\n".join(text for text in found if text).replace("\n", " ")


def shades(panel):
    """Colors of the points of a panel."""
    dots = [line for line in panel.lines if line.get_marker() in ("o", "s")]
    return [line.get_color() for line in dots]


@pytest.fixture(scope="module")
def slides():
    return {f"MRN-{i}-Doe": simulate(60 + 20 * i, seed=i) for i in range(2)}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_outcome_is_drawn_with_the_note_and_without_names(name):
    how = KINDS[name]
    result = outcome_of(how.get("kind", name), **{k: v for k, v in how.items() if k != "kind"})
    text = words(sagefm.pl.outcome(result, show=False))
    assert NOTE in text
    assert not NAMES.search(text)
    target = "survival (months, dead)" if name == "survival" else result.target
    assert f"{target} is predicted by {BEST}" in text
    assert f"{how['n']} patients" in text


def test_a_title_says_that_nothing_is_predicted():
    result = outcome_of(effect=0, n=20)
    axes = sagefm.pl.outcome(result, show=False)
    lowest = result.scores["p_adjusted"][[2, 3, 4, 5]].min()
    text = words(axes)
    assert (
        f"no feature set of the slides predicts response (best adjusted p = {lowest:.2g})" in text
    )
    assert "not significant (adjusted p" in text
    assert "none significant after correction" in text
    assert "cannot be said" in text
    assert SIGNIFICANT not in [shade for panel in axes for shade in shades(panel)]


def test_what_is_significant_is_in_color_and_baselines_are_squares():
    result = outcome_of()
    panel = sagefm.pl.outcome(result, show=False)[0]
    rows = result.scores.set_index("set")
    below = [label.get_text().rpartition(" (")[0] for label in panel.get_yticklabels()]
    assert below[:2] == ["clinical", "pseudobulk"]
    assert below[-1] == "clinical + domain fractions"
    dots = [line for line in panel.lines if line.get_marker() in ("o", "s")]
    for name, dot in zip(below, dots, strict=True):
        assert dot.get_xdata() == rows["concordance"][name]
        baseline = name in ("clinical", "pseudobulk")
        assert dot.get_marker() == ("s" if baseline else "o")
        if not baseline:
            assert (dot.get_color() == SIGNIFICANT) == (rows["p_adjusted"][name] < 0.05)


def test_a_title_says_that_pseudobulk_is_as_good():
    result = outcome_of()
    result.scores.loc[result.scores["set"] == "pseudobulk", "concordance"] = 0.95
    text = words(sagefm.pl.outcome(result, show=False))
    assert f"predicted by {BEST}, but no better than by pseudobulk (0.95)" in text


def test_warnings_are_in_the_picture():
    text = words(sagefm.pl.outcome(outcome_of(warnings=["site predicts it"]), show=False))
    assert "! site predicts it" in text


def test_a_forest_has_ratios_and_the_features_of_smallest_p():
    result = outcome_of("survival", n_features=30)
    panel = sagefm.pl.forest(result, show=False)
    drawn = [label.get_text() for label in panel.get_yticklabels()]
    by_p = result.features.sort_values("p", kind="stable")
    assert set(drawn) == set(by_p["feature"].head(14))
    assert panel.get_xscale() == "log"
    squares = [line for line in panel.lines if line.get_marker() == "s"]
    effects = result.features.set_index("feature")["effect"]
    ratios = [line.get_xdata()[0] for line in squares]
    assert ratios == pytest.approx([np.exp(effects[name]) for name in drawn])
    assert "14 of 30 features" in panel.get_title().replace("\n", " ")
    with pytest.raises(InputError, match="'nothing': no such feature set; there are clinical"):
        sagefm.pl.forest(result, "nothing")


def test_a_forest_has_all_sets_if_the_best_has_no_features_of_its_own():
    result = outcome_of()
    result.features["set"] = "fractions"
    assert "fractions" in sagefm.pl.forest(result, show=False).get_title()


def test_kaplan_meier_has_the_numbers_at_risk_and_the_estimates():
    result = outcome_of("survival", 40)
    panel = sagefm.pl.kaplan_meier(result, show=False)
    for name in ("low", "high"):
        members = result.patients[result.patients["group"] == name]
        fit = lifelines.KaplanMeierFitter().fit(members["months"], members["dead"])
        [line] = [one for one in panel.lines if str(one.get_label()).startswith(f"{name} risk")]
        assert line.get_ydata() == pytest.approx(fit.survival_function_.iloc[:, 0])
        assert line.get_label() == f"{name} risk (n = {len(members)})"
        at_20 = int((members["months"] >= 20).sum())
        at = [one for one in panel.texts if getattr(one, "xy", ())[:1] == (20.0,)]
        assert str(at_20) in [one.get_text() for one in at]
    with pytest.raises(InputError, match="response: is no survival"):
        sagefm.pl.kaplan_meier(outcome_of())


def test_small_numbers_are_suppressed_on_request():
    result = outcome_of("survival", 40)
    panel = sagefm.pl.kaplan_meier(result, suppress_below=10, show=False)
    counts = [one.get_text() for one in panel.texts if re.fullmatch(r"<?\d+", one.get_text())]
    assert "<10" in counts
    assert all(text == "<10" or int(text) == 0 or int(text) >= 10 for text in counts)
    text = words(sagefm.pl.outcome(outcome_of(n=20), suppress_below=11, show=False))
    assert "<11 no, <11 yes" in text


def test_fractions_have_wilson_intervals():
    predicted = np.repeat([0.2, 0.8], 10)
    observed = np.array([1] * 2 + [0] * 8 + [1] * 8 + [0] * 2, dtype=bool)
    found = _fractions(predicted, observed, 2)
    assert found["observed"].tolist() == [0.2, 0.8]
    assert found["low"].to_numpy() == pytest.approx([0.0567, 0.4902], abs=1e-3)
    assert found["high"].to_numpy() == pytest.approx([0.5098, 0.9433], abs=1e-3)


def test_survival_that_follows_the_risk_is_calibrated():
    rng = np.random.default_rng(0)
    risk = rng.normal(size=4000)
    times, end = rng.exponential(np.exp(-risk)), rng.uniform(0.5, 3, 4000)
    table = pd.DataFrame({"t": np.minimum(times, end), "e": (times <= end).astype(float)})
    table = table.assign(n_slides=1, risk_x=risk)
    result = SimpleNamespace(kind="survival", patients=table, best="x")
    found = survival_calibration(result, "x", 5)
    assert found["predicted"].to_numpy() == pytest.approx(found["observed"], abs=0.04)
    assert found["predicted"].is_monotonic_increasing
    wrong = SimpleNamespace(kind="survival", patients=table.assign(risk_x=3 * risk), best="x")
    found = survival_calibration(wrong, "x", 5)
    assert np.abs(found["predicted"] - found["observed"]).max() > 0.15


def test_maps_have_one_scale_pale_spots_and_no_names(slides):
    result = with_maps(outcome_of("survival"), slides)
    first = dict(list(slides.items())[:1])
    limits = []
    for some in (first, slides):
        axes = sagefm.pl.outcome_map(some, result, show=False)
        assert not NAMES.search(words(axes))
        assert NOTE in words(axes)
        for panel, (name, slide) in zip(axes, some.items(), strict=False):
            pale, solid = [c for c in panel.collections if isinstance(c, EllipseCollection)]
            p = result.spots.loc[result.spots["slide"] == name, "p"]
            assert len(pale.get_offsets()) == (p >= 0.05).sum()
            assert len(pale.get_offsets()) + len(solid.get_offsets()) == slide.n_obs
            assert pale.get_alpha() < solid.get_alpha() == 1
            limits += [pale.get_clim(), solid.get_clim()]
    assert len(set(limits)) == 1
    low, high = limits[0]
    assert low == -high


def test_a_map_of_what_is_not_significant_says_so(slides):
    result = with_maps(outcome_of(effect=0), slides, effect=0.1)
    text = words(sagefm.pl.outcome_map(slides, result, show=False))
    assert "embedding mean: not significant (adjusted p = " in text
    assert re.search(r"section 2: \d+ % of spots with p < 0.05 \(by chance 5 %\)", text)


def test_a_map_takes_what_is_written_in_a_slide(slides):
    slide = next(iter(slides.values())).copy()
    result = outcome_of()
    with pytest.raises(InputError, match=r"obs\['sagefm_outcome'\]: is missing; run sagefm.tl"):
        sagefm.pl.outcome_map(slide, result)
    slide.obs["sagefm_outcome"], slide.obs["sagefm_outcome_p"] = 0.1, 0.5
    [panel] = sagefm.pl.outcome_map(slide, result, show=False)
    assert "0 % of spots" in panel.get_title()


def test_files_have_no_names_in_their_metadata(slides, tmp_path):
    result = with_maps(outcome_of("survival"), slides)
    for suffix in ("png", "svg"):
        sagefm.pl.kaplan_meier(result, save=tmp_path / f"curve.{suffix}")
        sagefm.pl.outcome_map(slides, result, save=tmp_path / f"map.{suffix}")
    for file in tmp_path.iterdir():
        assert b"MRN" not in file.read_bytes()
        assert b"Doe" not in file.read_bytes()
