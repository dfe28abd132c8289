import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from matplotlib.colors import to_hex

import sagefm
from sagefm import InputError
from sagefm._colors import colors


@pytest.fixture(autouse=True)
def no_figure_is_left_to_the_next_test():
    yield
    plt.close("all")


@pytest.fixture
def edges():
    rows = [("A", "X", 0.1), ("B", "X", -0.4), ("X", "A", 0.2), ("A", "B", 9.0), ("X", "$C$", -0.1)]
    table = pd.DataFrame(rows, columns=["source", "target", "neighbors"])
    return table.assign(center=table["neighbors"] / 14)


def bars(panel):
    labels = [label.get_text() for label in panel.get_yticklabels()]
    return [
        (label, round(bar.get_width(), 6), to_hex(bar.get_facecolor()))
        for label, bar in zip(labels, panel.patches, strict=True)
    ]


def test_bars_are_the_edges_of_the_gene_the_strongest_on_top(edges):
    blue, red = (colors(6)[i].lower() for i in (0, 5))
    incoming, outgoing = sagefm.pl.influence(edges, "X")
    assert bars(incoming) == [("B", -0.4, red), ("A", 0.1, blue)]
    assert bars(outgoing) == [("A", 0.2, blue), (r"\$C\$", -0.1, red)]
    assert incoming.get_title() == "what raises or lowers X"
    assert outgoing.get_title() == "what X raises or lowers"
    low, high = incoming.get_ylim()
    assert low > high
    incoming.figure.canvas.draw()


def test_only_the_strongest_are_drawn(edges):
    incoming, outgoing = sagefm.pl.influence(edges, "X", 1)
    assert [row[0] for row in bars(incoming) + bars(outgoing)] == ["B", "A"]


def test_another_column(edges):
    incoming, _ = sagefm.pl.influence(edges, "X", value="center")
    assert bars(incoming)[0][1] == round(-0.4 / 14, 6)
    assert "in the center" in incoming.figure.get_supxlabel()
    standardized = edges.assign(standardized=edges["neighbors"] / 10)
    incoming, _ = sagefm.pl.influence(standardized, "X", value="standardized")
    assert bars(incoming)[0][1] == -0.04
    assert "(standard deviations)" in incoming.figure.get_supxlabel()


def test_a_gene_without_edges_in_one_direction(edges):
    incoming, outgoing = sagefm.pl.influence(edges[:2], "X")
    assert len(bars(incoming)) == 2
    assert [text.get_text() for text in outgoing.texts] == ["no edge in the table"]


def test_the_consensus_has_its_interval(edges):
    slides = {str(i): edges.assign(neighbors=edges["neighbors"] * i) for i in (1, 2, 3)}
    incoming, _ = sagefm.pl.influence(
        sagefm.tl.consensus_network(slides, seed=0), "X", value="mean"
    )
    (intervals,) = incoming.collections
    ends = [sorted(segment[:, 0]) for segment in intervals.get_segments()]
    assert ends[0] == pytest.approx([-1.2, -0.4])
    (legend,) = incoming.figure.legends
    assert len(legend.get_texts()) == 3


def test_it_is_saved(edges, tmp_path):
    sagefm.pl.influence(edges, "X", save=tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 5000
    assert not plt.get_fignums()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"gene": "nothing"}, "nothing: has no edge"),
        ({"value": "mean"}, "'mean': no such column"),
        ({"n": 0}, "n=0"),
    ],
)
def test_mistakes_are_named(edges, arguments, said):
    with pytest.raises(InputError, match=said):
        sagefm.pl.influence(edges, **{"gene": "X"} | arguments)
