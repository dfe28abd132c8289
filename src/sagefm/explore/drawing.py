"""Draw spots over their tissue image, and outline some of them."""

from typing import Any

import numpy as np
from bokeh.core.properties import value
from bokeh.models import (
    BasicTicker,
    CategoricalColorMapper,
    ColorBar,
    ColumnDataSource,
    CustomJS,
    CustomJSHover,
    DataRange1d,
    HoverTool,
    LassoSelectTool,
    LinearColorMapper,
    PanTool,
    ResetTool,
    SaveTool,
    TapTool,
    WheelZoomTool,
)
from bokeh.plotting import figure

from sagefm.explore.coloring import SEQUENTIAL, SpotValues, values_of
from sagefm.explore.state import Explorer
from sagefm.explore.widgets import short

_FONT = "system-ui, sans-serif"
_RADIUS = 0.46
"""Of a spot, in distances of neighboring spots."""
_MOST_NAMED = 20_000
"""Spots of which the page has the names."""
_HOVERED = 3
"""Columns of obs whose classes are shown under the pointer."""
_OUTLINES = {
    "neighbors": ("#111820", 1.6),
    "similar": ("#cc3d8f", 2.0),
    "lasso": ("#111820", 0.8),
    "spot": ("#111820", 3.5),
}
_HOVER = """
    const names = args.data.names[0];
    if (names.length > 0) return value >= 0 ? names[value] : "none";
    return isFinite(value) ? Number(value.toPrecision(4)).toString() : "none";
"""


class Drawing:
    """The tissue of one page."""

    def __init__(self, explorer: Explorer, token: str) -> None:
        self._explorer, tissue = explorer, explorer.tissue
        self._radius = _RADIUS * tissue.pitch
        self.plot = self._figure()
        self.images = [
            self.plot.image_url(
                url=[f"tissue/{i}?token={token}"], x=image.x, y=image.y, w=image.width,
                h=image.height, anchor="top_left",
            )
            for i, image in enumerate(tissue.images)
        ]  # fmt: skip
        self._shown = ColumnDataSource({"names": [[]]})
        self.source, self._hovered = self._spots()
        self.spots = self._circles(self.source, fill_color="color", line_color=None)
        for same in ("selection_glyph", "nonselection_glyph", "muted_glyph"):
            setattr(self.spots, same, self.spots.glyph)
        self.outlines = {name: self._outline(name, *style) for name, style in _OUTLINES.items()}
        for extent in (self.plot.x_range, self.plot.y_range):
            extent.renderers = [self.spots]
        self._number, self._classes = self._bars()
        self._label_sections()
        self._hover = self._tools()

    def _figure(self) -> Any:
        plot = figure(
            name="plot", sizing_mode="stretch_both", match_aspect=True, output_backend="webgl",
            x_range=DataRange1d(range_padding=0.04),
            y_range=DataRange1d(range_padding=0.04, flipped=True), tools="",
            toolbar_location="above", min_border=0, min_border_right=162, outline_line_color=None,
            background_fill_color="#ffffff", lod_threshold=None,
        )  # fmt: skip
        plot.axis.visible, plot.grid.visible = False, False
        plot.toolbar.logo = None
        return plot

    def _spots(self) -> tuple[ColumnDataSource, list[tuple[str, str, tuple[str, ...]]]]:
        """Make the table of spots, with classes to be shown under the pointer."""
        explorer = self._explorer
        points = explorer.tissue.points
        n = len(points)
        data: dict[str, Any] = {
            "x": points[:, 0], "y": points[:, 1],
            "color": np.full(n, 0xD3D7DEFF, dtype=np.uint32), "value": np.full(n, np.nan),
        }  # fmt: skip
        if n <= _MOST_NAMED:
            data["name"] = [short(name) for name in explorer.spot_names]
        hovered: list[tuple[str, str, tuple[str, ...]]] = []
        for name in explorer.obs_names():
            values = values_of(explorer.column(name), name, "", None)
            if values.is_class and 1 < len(values.classes) <= 60 and len(hovered) < _HOVERED:
                key = f"class{len(hovered)}"
                data[key] = values.values.astype(np.int32)
                hovered.append((name, key, values.classes))
        return ColumnDataSource(data, name="spots"), hovered

    def _circles(self, source: ColumnDataSource, **style: Any) -> Any:
        return self.plot.circle("x", "y", radius=self._radius, source=source, **style)

    def _outline(self, name: str, color: str, width: float) -> Any:
        empty = ColumnDataSource({"x": [], "y": []}, name=f"outlined_{name}")
        return self._circles(
            empty, fill_color=None, level="overlay", line_color=color, line_width=width
        )

    def _bars(self) -> tuple[Any, Any]:
        """Add a scale for numbers and one for classes; one of them is visible."""
        style = {
            "major_label_text_font": _FONT, "major_label_text_font_size": "12px",
            "major_label_text_color": "#1c2430", "width": 12,
            "bar_line_color": None, "major_tick_line_color": None, "padding": 12, "visible": False,
            "location": "top_left",
        }  # fmt: skip
        number = ColorBar(
            color_mapper=LinearColorMapper(palette=SEQUENTIAL, low=0, high=1), height=180,
            ticker=BasicTicker(desired_num_ticks=5), **style,
        )  # fmt: skip
        classes = ColorBar(
            color_mapper=CategoricalColorMapper(palette=["#000000"], factors=["-"]),
            height=30,
            **style,
        )
        for bar in (number, classes):
            self.plot.add_layout(bar, "right")
        return number, classes

    def _label_sections(self) -> None:
        titles = self._explorer.tissue.titles
        if titles:
            names, x, y = zip(*titles, strict=True)
            data = {"x": x, "y": y, "text": [_plain(short(name, 40)) for name in names]}
            self.plot.text(
                "x", "y", "text", source=ColumnDataSource(data), text_font=value(_FONT),
                text_font_size="13px", text_color="#1c2430", text_baseline="top",
            )  # fmt: skip

    def _tools(self) -> HoverTool:
        formats = {"@value": CustomJSHover(args={"args": self._shown}, code=_HOVER)}
        for _, key, names in self._hovered:
            held = ColumnDataSource({"names": [list(map(short, names))]})
            formats[f"@{key}"] = CustomJSHover(args={"args": held}, code=_HOVER)
        hover = HoverTool(renderers=[self.spots], formatters=formats, point_policy="snap_to_data")
        zoom = WheelZoomTool()
        lasso = LassoSelectTool(continuous=False, renderers=[self.spots])
        tap = TapTool(renderers=[self.spots])
        self._save = SaveTool()
        tools = (PanTool(), lasso, zoom, tap, hover, ResetTool(), self._save)
        self.plot.add_tools(*tools)
        self.plot.toolbar.active_scroll = zoom
        self.lasso = lasso
        return hover

    def color(self, values: SpotValues) -> None:
        """Color the spots."""
        self._shown.data = {"names": [list(map(short, values.classes)) if values.is_class else []]}
        rows = [("Spot", "@name")] if "name" in self.source.data else []
        rows.append((short(values.title, 30), "@value{custom}"))
        rows += [(short(name, 30), f"@{key}{{custom}}") for name, key, _ in self._hovered
                 if name != values.title]  # fmt: skip
        self._hover.tooltips = rows
        self.source.data.update(
            color=values.rgba(), value=np.asarray(values.values, dtype=np.float32)
        )
        self._scale(values)

    def _scale(self, values: SpotValues) -> None:
        """Show what the colors mean."""
        if values.is_class:
            names, shades = values.legend()
            labels = _distinct([_plain(short(name, 18)) for name in names])[::-1]
            if labels:
                self._classes.color_mapper.update(factors=labels, palette=shades[::-1])
                self._classes.height = 22 * len(labels)
        else:
            low, high = values.bounds()
            self._number.color_mapper.update(palette=values.palette, low=low, high=high)
        bar, other = (
            (self._classes, self._number) if values.is_class else (self._number, self._classes)
        )
        bar.visible, other.visible = bool(len(values.classes)) or not values.is_class, False
        self._save.filename = short(
            f"{self._explorer.opened.name} {values.title}".replace("/", "_")
        )

    def outline(self, name: str, rows: Any) -> None:
        """Outline spots; those that were outlined in that style before are not any more."""
        points = self._explorer.tissue.points[np.asarray(rows, dtype=np.int64)]
        self.outlines[name].data_source.data = {"x": points[:, 0], "y": points[:, 1]}

    def resize(self, size: float) -> None:
        """Set the size of the spots."""
        for one in (self.spots, *self.outlines.values()):
            one.glyph.radius = size * self._radius

    def resize_with(self, slider: Any) -> None:
        """Let a slider set the size of the spots, in the page itself."""
        glyphs = [one.glyph for one in (self.spots, *self.outlines.values())]
        slider.js_on_change("value", CustomJS(
            args={"glyphs": glyphs, "radius": self._radius},
            code="for (const glyph of glyphs) glyph.radius = {value: cb_obj.value * radius}",
        ))  # fmt: skip


def _plain(name: str) -> str:
    """Keep text from being read as a formula."""
    return name.replace("$", "$\u200b").replace("\\", "\\\u200b")


def _distinct(names: list[str]) -> list[str]:
    """Make shortened names distinct, by invisible characters."""
    seen: dict[str, int] = {}
    distinct = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        distinct.append(name + "\u200b" * (seen[name] - 1))
    return distinct
