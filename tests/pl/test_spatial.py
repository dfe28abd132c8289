import matplotlib as mpl

mpl.use("Agg")

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba, to_rgba_array

import sagefm
from sagefm import InputError
from sagefm._colors import colors
from sagefm.pp import simulate

WHITE, GRAY = (1, 1, 1), to_rgba("#DDDDDD")


@pytest.fixture(autouse=True)
def no_figure_is_left_to_the_next_test():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def original():
    return simulate(150, seed=4)


@pytest.fixture
def slide(original):
    return original.copy()


def spots_of(panel):
    (spots,) = panel.collections
    return spots


def legend_of(panel):
    return [text.get_text() for text in panel.get_legend().get_texts()]


def rendered(panel, points):
    """Draw at the resolution of print, and give the colors at points of the slide."""
    figure = panel.figure
    figure.set_dpi(300)
    figure.canvas.draw()
    picture = np.asarray(figure.canvas.buffer_rgba())[..., :3] / 255
    column, row = panel.transData.transform(np.atleast_2d(points)).T
    return picture[np.round(picture.shape[0] - row).astype(int), np.round(column).astype(int)]


def test_spots_have_the_color_of_their_category_and_a_legend_names_it(slide):
    panel = sagefm.pl.spatial(slide, "domain")
    assert isinstance(panel, Axes)
    assert panel.get_title() == "domain"
    categories = slide.obs["domain"].cat.categories
    kept = dict(zip(categories, slide.uns["domain_colors"], strict=True))
    wanted = to_rgba_array([kept[name] for name in slide.obs["domain"]])
    assert np.array_equal(spots_of(panel).get_facecolors(), wanted)
    assert legend_of(panel) == list(categories)
    shown = [to_rgba(handle.get_color()) for handle in panel.get_legend().legend_handles]
    assert np.array_equal(shown, to_rgba_array(slide.uns["domain_colors"]))


def test_spots_lie_where_they_are_and_y_points_down(slide):
    panel = sagefm.pl.spatial(slide, "domain")
    points = slide.obsm["spatial"]
    assert np.array_equal(spots_of(panel).get_offsets(), points)
    assert panel.yaxis_inverted()
    assert not panel.xaxis_inverted()
    low, high = points.min(axis=0), points.max(axis=0)
    assert panel.get_xlim()[0] < low[0] < high[0] < panel.get_xlim()[1]
    assert panel.get_ylim()[1] < low[1] < high[1] < panel.get_ylim()[0]
    wanted = to_rgba_array(slide.uns["domain_colors"])[slide.obs["domain"].cat.codes, :3]
    np.testing.assert_allclose(rendered(panel, points), wanted, atol=0.01)
    unit = panel.transData.transform([[0, 0], [1, 0], [0, 1]])
    assert np.isclose(unit[1, 0] - unit[0, 0], unit[0, 1] - unit[2, 1])  # as wide as high


def test_spots_nearly_touch_and_do_not_overlap(slide):
    panel = sagefm.pl.spatial(slide, "domain", palette=["black"] * 5)
    points = slide.obsm["spatial"]
    row = np.flatnonzero(points[:, 1] == np.median(points[:, 1]))
    a, b = points[row[np.argsort(points[row, 0])][4:6]]
    assert np.linalg.norm(a - b) == 200
    across = rendered(panel, a + np.linspace(0, 1, 101)[:, None] * (b - a))
    dark = across.mean(axis=1) < 0.5
    assert dark[:40].all()
    assert dark[-40:].all()
    assert not dark[50]


def test_size_is_a_share_of_the_distance(slide):
    panel = sagefm.pl.spatial(slide, "domain", palette=["black"] * 5, size=0.3)
    center = slide.obsm["spatial"][70]
    near, far = rendered(panel, center + np.array([[20, 0], [45, 0]]))
    assert near.mean() < 0.1
    assert far.mean() > 0.9


def test_spots_without_label_are_gray_and_named(slide):
    slide.obs.loc[slide.obs_names[:9], "domain"] = np.nan
    panel = sagefm.pl.spatial(slide, "domain")
    faces = spots_of(panel).get_facecolors()
    assert (faces[:9] == GRAY).all()
    assert not (faces[9:] == GRAY).all(axis=1).any()
    assert legend_of(panel)[-1] == "not labeled"
    assert len(legend_of(panel)) == 6


@pytest.mark.parametrize("dtype", ["bool", "boolean", "object", "string"])
def test_booleans_and_strings_are_categories(slide, dtype):
    slide.obs["here"] = pd.Series(np.arange(150) < 40, slide.obs_names).astype(dtype)
    panel = sagefm.pl.spatial(slide, "here")
    assert legend_of(panel) == ["False", "True"]
    no, yes = to_rgba_array(slide.uns["here_colors"])
    faces = spots_of(panel).get_facecolors()
    assert (faces[:40] == yes).all()
    assert (faces[40:] == no).all()


def test_numbers_have_a_color_bar(slide):
    panel = sagefm.pl.spatial(slide, "depth", cmap="viridis")
    spots = spots_of(panel)
    assert panel.get_legend() is None
    assert len(panel.figure.axes) == 2
    np.testing.assert_allclose(spots.get_array(), slide.obs["depth"])
    assert spots.get_cmap().name == "viridis"
    shown = rendered(panel, slide.obsm["spatial"])
    low, high = np.percentile(slide.obs["depth"], [1, 99])
    share = (slide.obs["depth"] - low) / (high - low)
    np.testing.assert_allclose(shown, mpl.colormaps["viridis"](share)[:, :3], atol=0.02)
    assert "depth_colors" not in slide.uns


@pytest.mark.parametrize("dtype", ["float32", "Float64", "Int64"])
def test_spots_without_number_are_gray(slide, dtype):
    slide.obs["number"] = pd.Series([None, *range(149)], slide.obs_names, dtype=dtype)
    panel = sagefm.pl.spatial(slide, "number")
    first, second = rendered(panel, slide.obsm["spatial"][:2])
    np.testing.assert_allclose(first, GRAY[:3], atol=0.01)
    np.testing.assert_allclose(second, mpl.colormaps["cividis"](0)[:3], atol=0.01)


def test_a_gene_of_x_or_of_a_layer(slide):
    gene = slide.var_names[np.argmax(slide.X.sum(axis=0))]
    slide.layers["twice"] = slide.X * 2
    expression = slide[:, gene].X.toarray().ravel()
    assert len(set(expression)) > 5
    for layer, times in ((None, 1), ("twice", 2)):
        panel = sagefm.pl.spatial(slide, gene, layer=layer)
        assert np.array_equal(spots_of(panel).get_array(), times * expression)
        assert panel.get_title() == gene


def test_a_dense_slide_and_a_gene_that_stands_twice(slide):
    total = slide.X[:, :2].sum(axis=1).A1
    slide.X = slide.X.toarray()
    slide.var_names = ["TWIN", "TWIN", *slide.var_names[2:]]
    assert np.array_equal(spots_of(sagefm.pl.spatial(slide, "TWIN")).get_array(), total)


def test_several_colors_are_several_panels(slide):
    panels = sagefm.pl.spatial(slide, ["domain", "depth", slide.var_names[0]], title=list("abc"))
    assert [panel.get_title() for panel in panels] == ["a", "b", "c"]
    assert len({panel.figure for panel in panels}) == 1
    assert isinstance(sagefm.pl.spatial(slide, ["domain"]), list)


def test_the_default_color_is_the_domain_of_the_model(slide):
    slide.obs["sagefm_domain"] = pd.Categorical(["1", "2", "10"] * 50, ["1", "2", "10"])
    assert legend_of(sagefm.pl.spatial(slide)) == ["1", "2", "10"]


def test_colors_stay_the_same_once_they_are_kept(slide, tmp_path):
    slide.uns["domain_colors"] = ["#111111", "#222222", "#333333", "#444444", "#555555"]
    slide.write_h5ad(tmp_path / "slide.h5ad")
    again = ad.read_h5ad(tmp_path / "slide.h5ad")  # colors come back as an array
    faces = spots_of(sagefm.pl.spatial(again, "domain")).get_facecolors()
    wanted = to_rgba_array(slide.uns["domain_colors"])[slide.obs["domain"].cat.codes]
    assert np.array_equal(faces, wanted)
    again.write_h5ad(tmp_path / "again.h5ad")


def test_too_few_kept_colors_are_replaced(slide):
    slide.uns["domain_colors"] = ["red"]
    sagefm.pl.spatial(slide, "domain")
    assert len(set(slide.uns["domain_colors"])) == 5


@pytest.mark.parametrize("kind", [list, tuple, np.array])
def test_a_palette_wins_and_is_not_kept(slide, kind):
    slide.uns["domain_colors"] = ["red"] * 5
    palette = kind(["black", "navy", "teal", "gold", "pink"])
    faces = spots_of(sagefm.pl.spatial(slide, "domain", palette=palette)).get_facecolors()
    assert np.array_equal(faces, to_rgba_array(list(palette))[slide.obs["domain"].cat.codes])
    assert slide.uns["domain_colors"] == ["red"] * 5


def lab(shades, cone):
    """Colors as someone sees them who lacks a kind of cone (Machado et al. 2009), in CIELAB."""
    missing = {
        "none": np.eye(3),
        "red": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                [-0.003882, -0.048116, 1.051998]],
        "green": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                  [-0.011820, 0.042940, 0.968881]],
    }  # fmt: skip
    rgb = to_rgba_array(shades)[:, :3]
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.transpose(missing[cone]), 0, 1)
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    x, y, z = np.cbrt(seen @ np.transpose(to_xyz) / [0.9505, 1, 1.089]).T
    return np.c_[116 * y - 16, 500 * (x - y), 200 * (y - z)]


def least_difference(shades, cone):
    points = lab(shades, cone)
    distances = np.linalg.norm(points[:, None] - points, axis=2)
    return distances[np.triu_indices(len(points), 1)].min()


@pytest.mark.parametrize("cone", ["none", "red", "green"])
def test_up_to_eight_categories_differ_for_every_eye(cone):
    assert least_difference([*colors(8), "#DDDDDD"], cone) > 12
    if cone != "none":
        assert least_difference(mpl.color_sequences["tab10"][:8], cone) < 8  # what is usual


def test_more_categories_differ_and_are_not_the_gray_of_no_label():
    assert least_difference(colors(16), "none") > 12
    assert min(least_difference([shade, "#DDDDDD"], "none") for shade in colors(16)) > 20
    for n in range(1, 103):
        assert len(set(colors(n))) == n
    assert len(colors(300)) == 300


def with_image(slide, resolution="hires", scale=0.05):
    """Give the slide a white image with one green square, centered on the returned place."""
    picture = np.ones((160, 200, 3), dtype=np.float32)
    picture[60:70, 120:130] = (0, 0.5, 0)
    slide.uns["spatial"] = {
        "library": {
            "images": {resolution: picture},
            "scalefactors": {f"tissue_{resolution}_scalef": scale},
        }
    }
    return np.array([125, 65]) / scale


@pytest.mark.parametrize("resolution", ["hires", "lowres"])
def test_the_tissue_image_lies_under_the_spots_in_full_resolution(slide, resolution):
    place = with_image(slide, resolution)
    points = slide.obsm["spatial"]
    slide.obsm["spatial"] = points - points.mean(axis=0) + place
    panel = sagefm.pl.spatial(slide, "domain", palette=["black"] * 5, size=0.1)
    (image,) = panel.images
    assert tuple(image.get_extent()) == (0, 200 / 0.05, 160 / 0.05, 0)
    corners = place + 85 * np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]])
    spots = slide.obsm["spatial"]
    free = [np.linalg.norm(spots - corner, axis=1).min() > 30 for corner in corners]
    assert any(free)
    inside, outside = (
        rendered(panel, corners[free]),
        rendered(panel, place + np.array([[0, 280], [350, 0]])),
    )
    assert (inside[:, 1] > inside[:, 0] + 0.2).all()  # green
    assert (np.abs(outside - outside[:, :1]) < 0.05).all()  # not green
    low, high = spots.min(axis=0), spots.max(axis=0)
    assert panel.get_xlim()[0] > low[0] - 300  # the view is on the spots, not on all the image
    assert panel.get_ylim()[0] < high[1] + 300


def test_the_tissue_image_can_be_left_out(slide):
    with_image(slide)
    assert not sagefm.pl.spatial(slide, "domain", image=False).images


@pytest.mark.parametrize("change", ["no scale", "no image", "flag beside it", "two libraries"])
def test_incomplete_or_ambiguous_images(slide, change):
    with_image(slide)
    held = slide.uns["spatial"]
    if change == "no scale":
        del held["library"]["scalefactors"]
    elif change == "no image":
        del held["library"]["images"]
    elif change == "flag beside it":
        held["is_single"] = True
    else:
        held["other"] = held["library"]
    drawn = sagefm.pl.spatial(slide, "domain").images
    assert len(drawn) == (change == "flag beside it")


@pytest.mark.parametrize(("name", "start"), [("a.png", b"\x89PNG"), ("new/b.pdf", b"%PDF")])
def test_save(slide, tmp_path, name, start):
    sagefm.pl.spatial(slide, "domain", save=tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(start)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [tmp_path / name]
    assert not plt.get_fignums()  # a run over many slides does not pile up figures


def test_a_saved_picture_has_the_resolution_of_print_and_is_not_blank(slide, tmp_path):
    sagefm.pl.spatial(slide, "domain", save=tmp_path / "a.png")
    picture = plt.imread(tmp_path / "a.png")[..., :3]
    assert 700 < picture.shape[1] < 3.5 * 300
    for shade in slide.uns["domain_colors"]:
        share = (np.abs(picture - to_rgba(shade)[:3]) < 0.02).all(axis=2).mean()
        assert share > 0.005
    assert (picture == 1).all(axis=2).mean() > 0.2


def test_a_picture_that_cannot_be_saved_leaves_nothing(slide, tmp_path):
    with pytest.raises(ValueError, match="docx"):
        sagefm.pl.spatial(slide, "domain", save=tmp_path / "a.docx")
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError, match="is a folder; name the file"):
        sagefm.pl.spatial(slide, "domain", save=tmp_path)


@pytest.mark.parametrize(
    ("show", "save", "interactive", "shown"),
    [
        (None, False, False, 0),
        (None, False, True, 1),
        (None, True, True, 0),
        (True, True, False, 1),
        (True, False, False, 1),
        (False, False, True, 0),
    ],
)
def test_show(slide, tmp_path, monkeypatch, show, save, interactive, shown):
    calls = []
    monkeypatch.setattr(plt, "show", lambda: calls.append(1))
    monkeypatch.setattr(plt, "isinteractive", lambda: interactive)
    sagefm.pl.spatial(slide, "domain", show=show, save=tmp_path / "a.png" if save else None)
    assert len(calls) == shown


def test_given_axes_are_used(slide):
    figure, (left, right) = plt.subplots(1, 2)
    assert sagefm.pl.spatial(slide, "domain", ax=right) is right
    assert not left.collections
    assert spots_of(right)
    assert plt.get_fignums() == [figure.number]


@pytest.mark.parametrize(
    ("names", "n_categories", "at_most"),
    [(["label"], 7, 3.5), (["label"], 20, 3.5), (["label", "depth"], 8, 3.5)],
)
def test_nothing_is_cut_and_type_is_readable(slide, names, n_categories, at_most):
    slide.obs["label"] = pd.Categorical([f"tissue {i % n_categories:02}" for i in range(150)])
    panels = sagefm.pl.spatial(slide, names)
    figure = panels[0].figure
    figure.canvas.draw()
    assert figure.get_size_inches()[0] <= at_most
    room = figure.bbox
    boxes = [panel.get_window_extent() for panel in panels]
    for panel in figure.axes:
        outer = panel.get_tightbbox()
        assert -1 <= outer.x0 < outer.x1 <= room.width + 1
        assert -1 <= outer.y0 < outer.y1 <= room.height + 1
    for panel, following in zip(panels, boxes[1:], strict=False):
        assert panel.get_tightbbox().x1 <= following.x0 + 1
    assert min(box.width for box in boxes) > 1.5 * figure.dpi  # the map, not the legend, is large
    assert np.ptp([box.width for box in boxes]) < 2
    for panel in panels:
        written = [panel.title, *(panel.get_legend().get_texts() if panel.get_legend() else [])]
        assert min(text.get_fontsize() for text in written) >= 6


def test_leaves_settings_and_slide_alone(slide, original):
    before = dict(mpl.rcParams)
    sagefm.pl.spatial(slide, ["domain", "depth"])
    assert dict(mpl.rcParams) == before
    assert list(slide.uns.pop("domain_colors")) == colors(5)
    assert list(slide.uns) == list(original.uns)
    pd.testing.assert_frame_equal(slide.obs, original.obs)
    assert (slide.X != original.X).nnz == 0


def test_a_view_is_drawn_and_stays_a_view(slide):
    part = slide[:60]
    assert len(spots_of(sagefm.pl.spatial(part, "domain")).get_offsets()) == 60
    assert part.is_view
    assert "domain_colors" not in slide.uns


def test_one_spot(slide):
    panel = sagefm.pl.spatial(slide[:1].copy(), "depth")
    assert len(spots_of(panel).get_offsets()) == 1


def without_coordinates(slide):
    del slide.obsm["spatial"]


@pytest.mark.parametrize(
    ("spoil", "wanted", "message"),
    [
        (None, {"color": "NOPE"}, "'NOPE' is neither a column.*domain.*nor a gene"),
        (None, {}, "'sagefm_domain'.*run sagefm.tl.domains first"),
        (None, {"color": ["domain", "NOPE"]}, "'NOPE'"),
        (None, {"color": []}, "give one for each color"),
        (None, {"color": ["domain", "depth"], "title": "a"}, "1 titles for 2 panels"),
        (None, {"color": "domain", "palette": ["red"]}, "1 colors for the 5 categories"),
        (None, {"color": "MT-ND1", "layer": "gone"}, "the slide has no 'gone'; layers: none"),
        (without_coordinates, {"color": "domain"}, "put x and y of each spot"),
    ],
)
def test_what_cannot_be_drawn_is_refused_without_a_figure(slide, spoil, wanted, message):
    if spoil:
        spoil(slide)
    with pytest.raises(InputError, match=message) as raised:
        sagefm.pl.spatial(slide, **wanted)
    assert "\n" not in str(raised.value)
    assert not plt.get_fignums()


def test_one_axes_for_several_colors_is_refused(slide):
    _, ax = plt.subplots()
    with pytest.raises(InputError, match="ax holds one panel, not 2"):
        sagefm.pl.spatial(slide, ["domain", "depth"], ax=ax)


def test_several_slides_in_one_object_are_not_drawn_over_each_other():
    both = ad.concat(
        {name: simulate(60, seed=seed) for seed, name in enumerate("ab")},
        label="sample", index_unique="-",
    )  # fmt: skip
    with pytest.raises(InputError, match="pass slide_key='sample'"):
        sagefm.pl.spatial(both, "domain")
    panel = sagefm.pl.spatial(both[both.obs["sample"] == "a"].copy(), "domain")
    assert len(panel.collections[0].get_offsets()) == 60
    plt.close("all")


def shown_with(slide, image, *, scale=0.01, key="hires"):
    """Draw a slide on an image, and give what is drawn."""
    factors = {f"tissue_{key}_scalef": scale}
    slide.uns["spatial"] = {"library": {"images": {key: image}, "scalefactors": factors}}
    images = sagefm.pl.spatial(slide, "domain", show=False).images
    return images[0].get_array() if images else None


COLORED = np.random.default_rng(0).integers(0, 255, (40, 50, 3)).astype("uint8")
COLORED[0, 0] = 255
FORMS = {
    "from 0 to 255": COLORED.astype(float),
    "from 0 to 1": COLORED / 255,
    "16-bit": COLORED.astype("uint16") * 257,
    "wide integers": COLORED.astype("int64"),
    "channels first": np.moveaxis(COLORED, 2, 0),
    "16-bit, channels first": np.moveaxis(COLORED.astype("uint16") * 257, 2, 0),
}


@pytest.mark.parametrize("form", FORMS)
def test_color_images_of_every_range_and_order_look_the_same(slide, form):
    drawn = np.asarray(shown_with(slide, FORMS[form]), dtype=float)
    np.testing.assert_allclose(drawn / (255 if drawn.max() > 1 else 1), COLORED / 255, atol=1e-6)


@pytest.mark.parametrize(
    "gray", [COLORED[..., 0], COLORED[..., :1], COLORED[None, ..., 0], COLORED[..., 0] > 99]
)
def test_gray_images_are_drawn_gray(slide, gray):
    drawn = np.asarray(shown_with(slide, gray))
    assert drawn.shape == (40, 50, 3)
    assert np.ptp(drawn, axis=2).max() == 0
    assert np.ptp(drawn) > 0


def test_an_image_with_transparency_keeps_it(slide):
    clear = np.dstack([COLORED, np.full((40, 50), 7, dtype="uint8")])
    assert np.array_equal(shown_with(slide, clear), clear)


@pytest.mark.parametrize(
    "image",
    [
        *(np.zeros((0, 0, 3)), np.zeros(40), np.zeros((40, 50, 2)), np.zeros((2, 40, 50, 3))),
        *(np.full((40, 50, 3), np.nan), np.zeros((40, 50, 3), dtype=complex), "tissue.png", 3),
    ],
)
def test_what_is_no_image_is_not_drawn_and_logged(slide, caplog, image):
    assert shown_with(slide, image) is None
    assert "no tissue image is drawn (hires: it is no gray or color image)" in caplog.text
    assert len(caplog.records) == 1


@pytest.mark.parametrize("scale", [None, 0, -1, np.nan, np.inf, "abc", 1e-300, [1, 2]])
def test_without_a_scale_factor_the_spots_are_drawn_and_the_reason_is_logged(slide, caplog, scale):
    assert shown_with(slide, COLORED, scale=scale) is None
    assert "its scale factor tissue_hires_scalef is missing or no positive number" in caplog.text


def test_an_image_elsewhere_is_not_drawn(slide, caplog):
    assert shown_with(slide, COLORED, scale=1000.0) is None
    assert "it does not lie under the spots" in caplog.text


def test_images_have_any_name(slide):
    assert shown_with(slide, COLORED, key="downscaled_fullres") is not None


def of_two(slide, **obs):
    """A slide with the images of two: 50 is that of a, 220 that of b."""
    slide.obs = slide.obs.assign(**obs)
    slide.uns["spatial"] = {
        name: {
            "images": {"hires": np.full((40, 50, 3), shade, dtype="uint8")},
            "scalefactors": {"tissue_hires_scalef": 0.01},
        }
        for name, shade in (("a", 50), ("b", 220))
    }
    return slide


@pytest.mark.parametrize("column", ["library_id", "region", "anything"])
def test_one_slide_of_several_has_its_own_image(slide, column):
    (image,) = sagefm.pl.spatial(of_two(slide, **{column: "b"}), "domain").images
    assert (image.get_array() == 220).all()


def test_the_names_of_the_spots_name_the_image(slide):
    slide.obs_names = slide.obs_names + "-b"
    slide = of_two(slide, sample="one")
    (image,) = sagefm.pl.spatial(slide, "domain").images
    assert (image.get_array() == 220).all()


def test_an_image_that_may_be_of_another_slide_is_not_drawn(slide, caplog):
    slide = of_two(slide, sample="one")
    assert not sagefm.pl.spatial(slide, "domain").images
    assert "uns['spatial'] has those of a, b" in caplog.text
    del slide.uns["spatial"]["b"]
    assert len(sagefm.pl.spatial(slide, "domain").images) == 1
    slide.obs["library_id"] = "b"
    assert not sagefm.pl.spatial(slide, "domain").images


NAMED = {f"D{i + 1}": shade for i, shade in enumerate(["red", "lime", "blue", "gold", "navy"])}


@pytest.mark.parametrize(
    "held",
    [
        NAMED,
        np.array(list(NAMED.values())),
        to_rgba_array(list(NAMED.values())),
        (to_rgba_array(list(NAMED.values()))[:, :3] * 255).astype("uint8"),
    ],
)
def test_colors_of_every_form_are_used_and_stay_as_they_are(slide, caplog, held):
    slide.uns["domain_colors"] = held
    faces = spots_of(sagefm.pl.spatial(slide, "domain")).get_facecolors()
    wanted = to_rgba_array([NAMED[name] for name in slide.obs["domain"]])
    np.testing.assert_allclose(faces, wanted, atol=1e-3)
    assert slide.uns["domain_colors"] is held
    assert not caplog.text


@pytest.mark.parametrize(
    "held",
    [
        *(["grey30", "firebrick2", "steelblue4", "red3", "blue2"], np.arange(5), "#123456", 3.5),
        *({"D1": "red"}, ["red"] * 2, ["red"] * 9, np.zeros((5, 7)), [None] * 5, {}, b"red"),
    ],
)
def test_what_are_no_colors_of_the_categories_is_replaced_and_logged(slide, caplog, held):
    slide.uns["domain_colors"] = held
    sagefm.pl.spatial(slide, "domain")
    assert slide.uns["domain_colors"] == colors(5)
    assert "uns['domain_colors'] does not hold a color for each of the 5 categories" in caplog.text


def test_a_palette_without_colors_is_refused(slide):
    with pytest.raises(InputError, match=r"the palette \(grey30, .*no color of matplotlib"):
        sagefm.pl.spatial(slide, "domain", palette=["grey30"] * 5)
    sagefm.pl.spatial(slide, "domain", palette=NAMED)


def test_a_rare_gene_keeps_its_range_if_one_end_is_given(slide):
    slide.obs["rare"] = np.where(np.arange(slide.n_obs) == 7, 5.0, 0.0)
    for ends in ({"vmin": 0}, {"vmax": 5}, {}):
        panel = sagefm.pl.spatial(slide, "rare", show=False, **ends)
        assert spots_of(panel).get_clim() == (0, 5)
