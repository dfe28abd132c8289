import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import EllipseCollection

import sagefm
from sagefm.evaluate.result import Result

TASK = "random genes of the center"
KINDS = {"neighbor mean": "baseline", "ridge": "baseline", "ours": "model", "blank": "control"}
GROUP = "tumor, stroma and 2 more (3 patients)"


@pytest.fixture(autouse=True)
def no_figure_is_left_to_the_next_test():
    yield
    plt.close("all")


def summary(metric="mse", **values):
    values = values or {"ours": 0.2, "ridge": 0.25, "neighbor mean": 0.3, "blank": 0.9}
    rows = [
        {
            "method": name.replace("_", " "),
            "kind": KINDS[name.replace("_", " ")],
            "n_slides": 5,
            "n_patients": 3,
            "unit": "patient",
            metric: value,
            f"{metric}_low": value - 0.02,
            f"{metric}_high": value + 0.03,
        }
        for name, value in values.items()
    ]
    return pd.DataFrame(rows)


def genes(task=TASK):
    rows = []
    for method, gain in (("neighbor mean", 0.0), ("ours", 0.1)):
        for i in range(4):
            up = gain if i < 3 else -gain
            rows.append((f"g{i}", 0.2 * i + up, 0.3 + 0.1 * i - up, 0.2 * i, task, method))
    return pd.DataFrame(rows, columns=["gene", "r_within", "mse", "detected", "task", "method"])


def bins(task=TASK):
    one = pd.DataFrame(
        {"n": [500, 100, 99], "predicted": [0.1, 0.5, 1], "observed": [0.2, 0.5, 2], "task": task}
    )
    return pd.concat([one.assign(method=name) for name in KINDS], ignore_index=True)


def tidy(metric, **columns):
    rows = [
        {"slide": f"s{i}", "method": name, "kind": kind, "seed": seed, metric: 0.2 + 0.1 * i + seed}
        for i in range(2)
        for name, kind in KINDS.items()
        for seed in (0, 1)
    ]
    return pd.DataFrame(rows).assign(**columns)


def spots(n_side=6, slide="s0"):
    y, x = np.divmod(np.arange(n_side**2), n_side)
    label = pd.Series(np.where(x < 2, "tumor", np.where(y < 3, "stroma", "fat")), dtype=object)
    codes = label.map({"tumor": 2, "stroma": 0, "fat": 1}).to_numpy()
    label[0] = None
    table = pd.DataFrame({"slide": slide, "spot": x.astype(str), "x": x * 9.0, "y": y * 9.0})
    found = codes.copy()
    found[-1] = 3
    return table.assign(label=label, ridge=codes, ours=found)


def counts():
    rows = [("tumor", "tumor", 30), ("tumor", "fat", 10), ("stroma", "tumor", 12_345)]
    table = pd.DataFrame(rows, columns=["truth", "predicted", "n"])
    return table.assign(group=GROUP, method="ours", probe="linear")


def texts(ax):
    return [text.get_text() for text in ax.texts]


def test_every_gene_is_a_point_and_better_ones_are_counted():
    table = genes()
    for value, side in (("r_within", "above"), ("mse", "below")):
        ax = sagefm.pl.gene_scatter(table, "ours", "neighbor mean", value)
        points = ax.collections[0]
        own, other = (table[table["method"] == m] for m in ("ours", "neighbor mean"))
        np.testing.assert_allclose(points.get_offsets()[:, 0], other[value])
        np.testing.assert_allclose(points.get_offsets()[:, 1], own[value])
        np.testing.assert_allclose(points.get_array(), own["detected"])
        assert "better for 75 % of 4 genes" in ax.get_title()
        assert side in ax.get_ylabel()
        assert "neighbor mean" in ax.get_xlabel()
        assert ax.get_xlim() == ax.get_ylim()


def test_genes_without_a_value_are_left_out_and_ties_count_half():
    table = genes()
    table.loc[0, "r_within"] = np.nan
    ax = sagefm.pl.gene_scatter(table, "ours", "neighbor mean")
    assert len(ax.collections[0].get_offsets()) == 3
    same = genes().assign(r_within=0.5)
    ax = sagefm.pl.gene_scatter(same, "ours", "neighbor mean")
    assert "50 %" in ax.get_title()
    ax = sagefm.pl.gene_scatter(genes().assign(r_within=np.nan), "ours", "neighbor mean")
    assert "no genes" in ax.get_title()
    ax.figure.canvas.draw()


def test_a_wide_range_of_errors_is_drawn_on_logarithms():
    table = genes()
    table["mse"] *= np.geomspace(1, 50, 8)
    ax = sagefm.pl.gene_scatter(table, "ours", "neighbor mean", "mse")
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    ax.figure.canvas.draw()


def test_what_is_not_there_is_named():
    both = pd.concat([genes(), genes("other")])
    with pytest.raises(sagefm.InputError, match="name a task: random genes"):
        sagefm.pl.gene_scatter(both, "ours", "neighbor mean")
    sagefm.pl.gene_scatter(both, "ours", "neighbor mean", task="other")
    with pytest.raises(sagefm.InputError, match="'theirs': not in the table, which has neigh"):
        sagefm.pl.gene_scatter(genes(), "theirs", "neighbor mean")
    with pytest.raises(sagefm.InputError, match="'r': no such column"):
        sagefm.pl.gene_scatter(genes(), "ours", "neighbor mean", "r")
    with pytest.raises(sagefm.InputError, match="'ari': no such column"):
        sagefm.pl.method_intervals(summary(), "ari")


def rows_of(ax):
    """Marker, interval and dots of the slides by row."""
    means, intervals, dots = {}, {}, {}
    for line in ax.lines:
        x, y = line.get_xdata(), line.get_ydata()
        if line.get_marker() == "None":
            intervals[int(y[0])] = tuple(x)
        elif len(y) and y[0] % 1:
            dots[int(y[0])] = sorted(x)
        elif len(y):
            means[int(y[0])] = line
    return means, intervals, dots


def test_methods_stand_in_their_order_with_intervals_and_slides():
    table = summary("ari", ours=0.6, ridge=0.5, neighbor_mean=0.4, blank=0.0)
    ax = sagefm.pl.method_intervals(table, "ari", tidy("ari"))
    assert [t.get_text() for t in ax.get_yticklabels()] == list(table["method"])
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the first on top
    means, intervals, dots = rows_of(ax)
    assert [means[i].get_xdata()[0] for i in range(4)] == list(table["ari"])
    assert intervals[0] == pytest.approx((0.58, 0.63))
    assert dots[2] == pytest.approx([0.7, 0.8])  # seeds averaged
    shades = [means[i].get_color() for i in range(4)]
    assert shades[1] == shades[2] != shades[3]
    assert len({*shades}) == 3
    assert "more is better" in ax.get_xlabel()
    assert "3 patients" in ax.get_xlabel()
    assert texts(ax) == ["0.600", "0.500", "0.400", "0.000"]


def test_an_error_far_from_all_baselines_is_an_arrow():
    ax = sagefm.pl.method_intervals(summary(), "mse")
    means, intervals, _ = rows_of(ax)
    assert means[3].get_marker() == ">"
    assert ax.get_xlim()[1] < 0.5
    assert np.isnan(intervals[3]).all()
    assert texts(ax)[3] == "0.900"
    assert "less is better" in ax.get_xlabel()
    assert "beyond" in ax.get_xlabel()


def test_intervals_that_are_missing_and_values_that_are_all_the_same():
    table = summary("ari", ours=0.5, ridge=0.5).assign(ari_low=np.nan, ari_high=np.nan)
    ax = sagefm.pl.method_intervals(table, "ari")
    assert ax.get_xlim()[0] < 0.5 < ax.get_xlim()[1]
    table = table.drop(columns=["unit", "ari_low", "ari_high"]).assign(n_patients=[3, 1])
    table.loc[0, "ari"] = np.nan
    ax = sagefm.pl.method_intervals(table, "ari")
    labels = [t.get_text() for t in ax.get_yticklabels()]
    assert labels == ["ours (3 patients)", "ridge (1 patient)"]
    ax = sagefm.pl.method_intervals(table.iloc[:0], "ari")
    ax.figure.canvas.draw()


def test_bins_with_few_entries_are_left_out_of_the_calibration():
    ax = sagefm.pl.calibration(bins(), ["ours", "ridge"], palette={"ours": "#123456"})
    named = {line.get_label(): line for line in ax.lines}
    np.testing.assert_allclose(named["ours"].get_xydata(), [[0.1, 0.2], [0.5, 0.5]])
    assert named["ours"].get_color() == "#123456"
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["ours", "ridge"]
    sagefm.pl.calibration(bins().assign(n=3), ["ours"]).figure.canvas.draw()


def test_rows_of_a_confusion_are_shares_of_the_truth():
    ax = sagefm.pl.confusion(counts())
    shares = ax.images[0].get_array()
    np.testing.assert_allclose(shares, [[0, 0, 1], [0.25, 0, 0.75]])
    assert [t.get_text() for t in ax.get_yticklabels()] == ["stroma", "tumor"]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["fat", "stroma", "tumor"]
    assert sorted(texts(ax)) == ["10", "12k", "30"]
    several = pd.concat([counts(), counts().assign(probe="mlp")])
    with pytest.raises(sagefm.InputError, match="name a probe: linear, mlp"):
        sagefm.pl.confusion(several)
    sagefm.pl.confusion(several, probe="mlp")


def faces(ax):
    spots_drawn = next(c for c in ax.collections if isinstance(c, EllipseCollection))
    return [mpl.colors.to_hex(face) for face in spots_drawn.get_facecolor()]


def test_domains_have_the_colors_of_the_labels_they_share_most_spots_with():
    axes = sagefm.pl.domain_maps(spots())
    assert [ax.get_title() for ax in axes] == ["labels", "ridge", "ours"]
    truth, ridge, ours = map(faces, axes)
    assert truth[1:] == ridge[1:]
    assert truth[0] != ridge[0] == ridge[1]  # the spot without a label
    assert ours[:-1] == ridge[:-1]
    assert ours[-1] not in truth  # a domain more than there are labels
    legend = [t.get_text() for t in axes[0].figure.legends[0].get_texts()]
    assert legend == ["fat", "stroma", "tumor", "further domain 1", "not labeled"]
    assert axes[0].get_ylim()[0] > axes[0].get_ylim()[1]
    assert all(ax.get_legend() is None for ax in axes)


def test_without_labels_domains_are_matched_to_those_of_the_first_method():
    table = spots().assign(label=None, absent=np.nan)
    first, second = map(faces, sagefm.pl.domain_maps(table))
    assert first[:-1] == second[:-1]
    later = sagefm.pl.domain_maps(table.assign(late=table["ridge"].where(table["x"] > 9)))[-1]
    assert faces(later)[2:6] == first[2:6]  # numbers that are floats, some are missing
    with pytest.raises(sagefm.InputError, match="nothing to draw"):
        sagefm.pl.domain_maps(table[["slide", "x", "y", "label"]])
    with pytest.raises(sagefm.InputError, match="several slides"):
        sagefm.pl.domain_maps(pd.concat([spots(), spots(slide="s1")]))
    with pytest.raises(sagefm.InputError, match="theirs: not in the table"):
        sagefm.pl.domain_maps(table, ["theirs"])


def test_many_methods_wrap():
    table = spots(3).assign(**{f"m{i}": 0 for i in range(4)})
    axes = sagefm.pl.domain_maps(table)
    assert len(axes) == 7
    assert len({round(ax.get_position().y0, 1) for ax in axes}) == 3


def results():
    caption = f"Annotation, leave one patient out, linear probe, {GROUP}"
    scores = tidy("mse", task=TASK)
    maps = pd.concat([spots(slide=f"s{i}") for i in range(5)], ignore_index=True)
    maps.loc[maps["slide"] == "s0", "label"] = None
    return [
        Result(
            "recovery",
            {f"Recovery: {TASK}": summary()},
            {"recovery": scores, "recovery_genes": genes(), "recovery_calibration": bins()},
        ),
        Result(
            "domains",
            {
                "Agreement with labels": summary("ari"),
                "Without labels": summary("silhouette"),
                "Slides together: s0, s1": summary("macro_f1"),
            },
            {
                "domains": tidy("ari"),
                "domains_spots": maps,
                "domains_transfer": tidy("macro_f1", group="s0, s1"),
            },
        ),
        Result(
            "annotation",
            {caption: summary("balanced_accuracy")},
            {
                "annotation": tidy("balanced_accuracy", group=GROUP, probe="linear"),
                "annotation_confusion": counts(),
            },
        ),
        Result("subtype", {"Subtype": summary("auroc").drop(columns="unit")}),
        Result("unheard of", {"Something": summary()}),
    ]


def test_a_scorecard_draws_all_that_there_is(tmp_path):
    drawn = sagefm.pl.scorecard(results(), tmp_path)
    assert {name: [file.stem for file in files] for name, files in drawn.items()} == {
        "recovery": [
            "task1_mse", "task1_genes_r_within_ours", "task1_genes_mse_ours", "task1_calibration",
        ],
        "domains": ["ari", "group1_macro_f1", "map_s1", "map_s2", "map_s3", "map_s4"],
        "annotation": ["group1_linear_balanced_accuracy", "group1_linear_confusion"],
        "subtype": ["auroc"],
        "unheard of": [],
    }  # fmt: skip
    files = [file for own in drawn.values() for file in own]
    assert sorted(files) == sorted(tmp_path.rglob("*.png"))
    assert all(plt.imread(file).std() > 0.01 for file in files)
    assert not plt.get_fignums()


def test_a_scorecard_leaves_out_what_is_missing(tmp_path):
    lone = summary(ridge=0.2).assign(mse_low=np.nan, mse_high=np.nan, n_slides=1, unit="slide")
    bare = [
        Result("recovery", {f"Recovery: {TASK}": lone}, {"recovery_calibration": bins()}),
        Result("domains", {}, {}),
        Result("annotation", {"Annotation": pd.DataFrame()}, {"annotation": pd.DataFrame()}),
        Result("imputation", {"Imputation: any": summary().assign(mse=np.nan)}, {}),
        Result("subtype", {"Subtype": pd.DataFrame()}),
    ]
    drawn = sagefm.pl.scorecard({one.protocol: one for one in bare}, tmp_path)
    stems = {name: [file.stem for file in files] for name, files in drawn.items()}
    assert stems.pop("recovery") == ["task1_mse", "task1_calibration"]
    assert not any(stems.values())


def test_results_of_one_protocol_need_names(tmp_path):
    one = Result("subtype", {"Subtype": summary("auroc")})
    with pytest.raises(sagefm.InputError, match="name → result"):
        sagefm.pl.scorecard([one, one], tmp_path)
    drawn = sagefm.pl.scorecard({"By stage": one, "By grade": one}, tmp_path)
    assert [file.relative_to(tmp_path).as_posix() for own in drawn.values() for file in own] == [
        "by_stage/auroc.png",
        "by_grade/auroc.png",
    ]


def test_models_whose_names_look_alike_get_files_of_their_own(tmp_path):
    table = pd.concat([genes(), genes().query("method == 'ours'").assign(method="Ours!")])
    both = summary()
    both = pd.concat([both, both[:1].assign(method="Ours!")], ignore_index=True)
    result = Result("recovery", {f"Recovery: {TASK}": both}, {"recovery_genes": table})
    stems = [file.stem for file in sagefm.pl.scorecard([result], tmp_path)["recovery"]]
    own = ["task1_genes_r_within_ours", "task1_genes_mse_ours"]
    assert stems[1:] == [*own, *(f"{stem}_2" for stem in own)]
