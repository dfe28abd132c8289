"""Statistics in which a patient is one observation."""

import numpy as np
import pandas as pd
import pytest

from sagefm.stats.resampling import (
    benjamini_hochberg,
    compare,
    sign_flip_p,
    summarize,
    verdicts,
)


def scores(n_patients, gap=1.0):
    rows = []
    for patient in range(n_patients):
        for section in range(2):
            for method, value in (("base", patient), ("model", patient + gap)):
                rows.append({"slide": f"{patient}_{section}", "method": method, "ari": value})
    frame = pd.DataFrame(rows)
    return frame, pd.Series({s: s[0] for s in frame["slide"].unique()})


def test_sections_of_a_patient_are_one_observation():
    frame, patients = scores(4)
    found = summarize(frame, ["ari"], patients).set_index("method")
    assert found.loc["base", ["n_slides", "n_patients", "unit"]].tolist() == [8, 4, "patient"]
    assert found.loc["base", "ari"] == pytest.approx(1.5)
    assert found.loc["base", "ari_low"] < 1.5 < found.loc["base", "ari_high"]


def test_fewer_than_three_units_get_no_interval():
    frame, patients = scores(1)
    found = summarize(frame, ["ari"], patients)
    assert found["unit"].eq("slide").all()
    assert found["ari_low"].isna().all()


def test_comparisons_are_paired():
    frame, patients = scores(6, gap=0.1)
    found = compare(frame, "ari", "base", patients).iloc[0]
    assert found["difference"] == pytest.approx(0.1)
    assert found["low"] == pytest.approx(0.1)
    assert found["p"] == pytest.approx(2 / 2**6)  # though patients differ by far more


def test_p_is_exact_and_never_too_small():
    assert sign_flip_p([1, 1, 1]) == pytest.approx(2 / 8)
    assert sign_flip_p([0, 0, 0]) == 1
    assert np.isnan(sign_flip_p([1]))


def test_missing_p_values_do_not_count():
    q = benjamini_hochberg([0.01, np.nan, 0.04])
    np.testing.assert_allclose(q, [0.02, np.nan, 0.04])


@pytest.mark.parametrize(("gap", "word"), [(0.5, "beats base"), (-0.5, "loses to base")])
def test_a_model_that_loses_is_reported_as_losing(gap, word):
    frame, patients = scores(5, gap)
    kinds = {"base": "baseline", "model": "model"}
    found = verdicts(summarize(frame, ["ari"], patients), frame, "ari", kinds, patients)
    assert found.iloc[0] == ""
    assert found.iloc[1].startswith(word)


@pytest.mark.parametrize(
    ("of_random", "start"),
    [
        (0.1, "beats base (+0.500); beats random (+0.400)"),
        (0.5, "undecided: beats base (+0.500); "),
    ],
)
def test_a_win_that_random_weights_have_too_is_none(of_random, start):
    frame, patients = scores(5, 0.5)
    random = frame[frame["method"] == "base"].assign(method="random")
    random["ari"] += of_random
    frame = pd.concat([frame, random])
    kinds = {"base": "baseline", "model": "model", "random": "control"}
    found = verdicts(
        summarize(frame, ["ari"], patients), frame, "ari", kinds, patients,
        untrained={"model": "random"},
    )  # fmt: skip
    assert found.iloc[1].startswith(start)


def test_losing_to_a_baseline_is_losing_whatever_random_weights_do():
    frame, patients = scores(5, -0.5)
    random = frame[frame["method"] == "base"].assign(method="random")
    random["ari"] -= 2
    frame = pd.concat([frame, random])
    kinds = {"base": "baseline", "model": "model", "random": "control"}
    found = verdicts(
        summarize(frame, ["ari"], patients), frame, "ari", kinds, patients,
        untrained={"model": "random"},
    )  # fmt: skip
    assert found.iloc[1] == "loses to base (-0.500); beats random (+1.500)"
