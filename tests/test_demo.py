import re
from types import SimpleNamespace

import matplotlib as mpl

mpl.use("Agg")

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

import sagefm
from sagefm import InputError
from sagefm.demo import MethodComparison, run, story

QUESTIONS = ["Domains", "Masked genes", "Genes that the slide lacks", "Labels of another patient"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The demo on smaller slides."""
    folder, lines = tmp_path_factory.mktemp("demos") / "demo", []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(story, "SPOTS", 300)
        page = run(folder, progress=lines.append)
    return page, lines


@pytest.mark.slow
def test_the_demo_ends_with_one_page_and_says_where_it_is(whole):
    page, lines = whole
    assert lines[-1] == f"The page: {page.resolve()}"
    written = sorted(path.name for path in page.parent.iterdir())
    assert written == ["breast.h5ad", "comparisons.csv", "cortex.h5ad", "demo.html"]
    text = page.read_text()
    assert not re.search(r'(?:src|href)="(?!data:|#)', text)  # nothing from elsewhere
    assert page.stat().st_size < 5_000_000
    assert not plt.get_fignums()


@pytest.mark.slow
def test_every_question_is_compared_with_simple_methods_and_random_weights(whole):
    page, lines = whole
    table = pd.read_csv(page.parent / "comparisons.csv")
    for (_slide, question), rows in table.groupby(["slide", "question"]):
        methods = set(rows["method"])
        assert {"default model", "random weights"} <= methods, question
        assert len(methods) > 2, question
    assert table["question"].unique().tolist() == QUESTIONS
    assert table["slide"].unique().tolist() == ["cortex", "breast"]
    assert sum(line.startswith("  ") and "random weights" in line for line in lines) == 8


@pytest.mark.slow
def test_the_page_shows_what_is_in_the_table_and_who_wins(whole):
    page, _ = whole
    table = pd.read_csv(page.parent / "comparisons.csv")
    text = page.read_text()
    for value in table["value"]:
        assert f"{value:.3f}" in text
    assert "random weights" in text and "winner" in text
    for gene in (*story.GENES["cortex"], *story.GENES["breast"]):
        slides = [ad.read_h5ad(page.parent / f"{name}.h5ad") for name in ("cortex", "breast")]
        assert any(gene in slide.obsm["sagefm_imputed"] for slide in slides)


@pytest.mark.slow
def test_a_slide_of_the_user_is_compared_too(tmp_path, whole):
    slide = sagefm.read(whole[0].parent / "cortex.h5ad")[:, :1500].copy()
    del slide.uns["sagefm"]["demo"]
    slide.obs.loc[slide.obs_names[:40], "region"] = np.nan
    lines = []
    page = run(tmp_path / "mine", slide, name="<b>mine", label_key="region", progress=lines.append)
    table = pd.read_csv(page.parent / "comparisons.csv")
    assert table["question"].unique().tolist() == QUESTIONS[:3]
    text = page.read_text()
    assert "<b>mine" not in text and "&lt;b&gt;mine" in text
    assert "simulated" not in text

    without = run(tmp_path / "other", slide, progress=lines.append)
    assert (
        pd.read_csv(without.parent / "comparisons.csv")["question"].unique().tolist()
        == (QUESTIONS[1:3])
    )


def test_a_folder_with_other_things_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(InputError, match=r"holds files already; choose another place"):
        run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_slide_that_the_model_does_not_know_is_refused(tmp_path):
    slide = sagefm.pp.simulate(60, genes=[f"gene{i}" for i in range(60)])
    with pytest.raises(InputError, match="mine: no gene that the model knows is detected"):
        run(tmp_path / "demo", slide, name="mine")
    assert not (tmp_path / "demo").exists()


def test_the_best_is_the_lowest_error_and_the_highest_score():
    table = pd.DataFrame(
        {
            "value": [0.3, 0.5, 0.4, 0.2],
            "own": [True, False, False, False],
            "random": [False, False, False, True],
        },
        index=pd.Index(["ours", "one", "other", "random weights"], name="method"),
    )
    assert MethodComparison("Q", "score", table).baseline == ("one", 0.5)
    assert MethodComparison("Q", "error", table, lower=True).baseline == ("other", 0.4)
    assert MethodComparison("Q", "score", table).ours == ("ours", 0.3)
    assert MethodComparison("Q", "score", table).random == ("random weights", 0.2)
    assert MethodComparison("Q", "score", table[table["own"] | table["random"]]).baseline is None
    alone = MethodComparison("Q", "score", table[table["own"] | table["random"]])
    assert alone.winner == "not compared"
    assert MethodComparison("Q", "score", table).winner == "one"
    assert MethodComparison("Q", "error", table, lower=True).winner == "random weights"


@pytest.mark.parametrize("dense", [False, True])
def test_a_slide_of_the_user_is_copied_with_its_counts_in_x(slide, dense):
    given = slide.copy()
    given.layers["counts"] = given.X.toarray() if dense else given.X.copy()
    given.X = np.log1p(given.X.toarray()) if dense else given.X.log1p()
    given.obs["cluster"] = np.arange(given.n_obs) % 2
    before, kept = given.X.copy(), given.obs.copy()
    model = SimpleNamespace(vocabulary=SimpleNamespace(symbols=tuple(slide.var_names)))
    part = story._given(given, "mine", "cluster", model)
    assert abs(part.slide.X - slide.X).max() == 0
    assert abs(given.X - before).max() == 0
    pd.testing.assert_frame_equal(given.obs, kept)
