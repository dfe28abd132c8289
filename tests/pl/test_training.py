import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

import sagefm


@pytest.fixture(autouse=True)
def no_figure_is_left_to_the_next_test():
    yield
    plt.close("all")


def history(n_epochs=5):
    epoch = np.arange(n_epochs)
    return pd.DataFrame(
        {
            "epoch": epoch,
            "train_loss": 0.5 - 0.05 * epoch,
            "validation_loss": 0.4 + 0.03 * (epoch - 2.0) ** 2,
            "learning_rate": 1e-3,
            "gene_mean": 0.62,
            "neighbor_mean": 0.47,
        }
    )


def lines_of(ax):
    return {line.get_label(): line for line in ax.lines}


def test_losses_stand_beside_those_without_a_network():
    rows = history()
    ax = sagefm.pl.training(rows)
    lines = lines_of(ax)
    for label, column in (("training", "train_loss"), ("validation", "validation_loss")):
        assert np.array_equal(lines[label].get_xydata(), rows[["epoch", column]])
    assert set(lines["gene mean (validation)"].get_ydata()) == {0.62}
    assert set(lines["neighbor mean (validation)"].get_ydata()) == {0.47}
    (legend,) = ax.figure.legends
    named = [text.get_text() for text in legend.get_texts()]
    assert named == [
        "training",
        "validation",
        *(f"{n} mean (validation)" for n in ("gene", "neighbor")),
    ]
    assert ax.get_xlabel() == "epoch"
    assert "mean squared" in ax.get_ylabel()


def test_lines_can_be_told_apart_without_color():
    lines = lines_of(sagefm.pl.training(history()))
    assert lines["training"].get_linestyle() != lines["validation"].get_linestyle()
    references = [line for label, line in lines.items() if "mean" in label]
    assert len({line.get_color() for line in references}) == 2


def test_the_best_epoch_is_marked():
    ax = sagefm.pl.training(history())
    points = [line.get_xydata() for line in ax.lines if line.get_marker() == "o"]
    np.testing.assert_allclose(points, [[[2, 0.4]]])


def test_one_epoch_can_be_seen():
    lines = lines_of(sagefm.pl.training(history(1)))
    assert lines["training"].get_marker() == lines["validation"].get_marker() == "o"


def test_nothing_is_cut_at_the_width_of_a_column():
    ax = sagefm.pl.training(history())
    ax.figure.canvas.draw()
    assert ax.figure.get_size_inches()[0] <= 3.5
    outer = ax.get_tightbbox()
    assert outer.x0 >= -1
    assert outer.y0 >= -1
    assert outer.x1 <= ax.figure.bbox.width + 1


def test_save_and_given_axes(tmp_path):
    _, mine = plt.subplots()
    assert sagefm.pl.training(history(), ax=mine) is mine
    plt.close("all")
    sagefm.pl.training(history(), save=tmp_path / "curve.png")
    assert [path.name for path in tmp_path.iterdir()] == ["curve.png"]
    assert plt.imread(tmp_path / "curve.png").std() > 0.05
    assert not plt.get_fignums()
