"""How the tissue image and the spots are drawn."""

from typing import TYPE_CHECKING, Any

from bokeh.models import Column, CustomJS, Row

if TYPE_CHECKING:
    from sagefm.explore.page import Page

_ON_IMAGE = 0.75
"""Size of spots on a tissue image."""


class TissuePanel:
    """Sliders that change the drawing in the page, without the server."""

    def __init__(self, page: "Page") -> None:
        widgets, drawing = page.widgets, page.drawing
        # Smaller spots let the tissue be seen between them.
        usual = _ON_IMAGE if drawing.images else 1.0
        size = widgets.slider("Spot size", 0.2, 1.3, usual, name="spot_size")
        drawing.resize(usual)
        drawing.resize_with(size)
        spots = widgets.slider("Spot opacity", 0.0, 1.0, 1.0, name="spot_opacity")
        spots.js_link("value", drawing.spots.glyph, "fill_alpha")
        parts: list[Any] = [Row(spots, size, sizing_mode="stretch_width", spacing=26)]
        if drawing.images:
            spots.value = drawing.spots.glyph.fill_alpha = 0.9
            image = widgets.slider("Image opacity", 0.0, 1.0, 1.0, name="image_opacity")
            shown = widgets.toggle("Tissue image", active=True, name="image_shown")
            for one in drawing.images:
                image.js_link("value", one.glyph, "global_alpha")
                shown.js_on_change(
                    "active", CustomJS(args={"one": one}, code="one.visible = cb_obj.active")
                )
            parts = [shown, image, *parts]
        else:
            parts.append(widgets.div('<span class="soft">The slide has no tissue image.</span>'))
        self.root = Column(*parts, name="tissue", sizing_mode="stretch_width", spacing=8)
