"""A map over two ratios, live in a notebook: cells that are clicked or walked through with the arrow keys.

What is drawn comes ready made (:mod:`mask3d_viz.ratio_view`); the front end (``ratio_grid.js``) draws it, says what a
cell holds, and tells which cell was chosen. Cells are numbered row by row; row 0 is drawn at the bottom.
"""

from __future__ import annotations

from pathlib import Path

import anywidget
import traitlets as t

from mask3d_viz.ratio_view import MapView, hatch_words

HERE = Path(__file__).parent


class RatioGrid(anywidget.AnyWidget):
    """A clickable heat map with a ring at "you are here"."""

    _esm = HERE / "ratio_grid.js"
    _css = HERE / "ratio_grid.css"

    size = t.Tuple(t.Int(), t.Int(), default_value=(0, 0)).tag(sync=True)  # (rows, columns)
    rows, columns = t.List(t.Unicode()).tag(sync=True), t.List(t.Unicode()).tag(sync=True)  # labels
    colors = t.Bytes(b"").tag(sync=True)  # uint8 (cells, 3)
    kinds, hatches = t.Bytes(b"").tag(sync=True), t.Bytes(b"").tag(sync=True)  # uint8 per cell, see MapView
    texts, marks, readouts = (t.List(t.Unicode()).tag(sync=True) for _ in range(3))  # one per cell
    title, legend, note = (t.Unicode().tag(sync=True) for _ in range(3))
    palette, bar_label = t.Bytes(b"").tag(sync=True), t.Unicode().tag(sync=True)  # uint8 (256, 3)
    ticks = t.List(t.Tuple(t.Float(), t.Unicode())).tag(sync=True)  # (place 0..1, text)
    ends = t.Tuple(t.Unicode(), t.Unicode(), default_value=("", "")).tag(sync=True)
    row_title, column_title = t.Unicode("depth hidden, %").tag(sync=True), t.Unicode("RGB hidden, %").tag(sync=True)
    here = t.Tuple(t.Float(), t.Float(), default_value=(-1.0, -1.0)).tag(sync=True)  # (column, row), in cells; < 0: none
    max_width = t.Int(640, min=200).tag(sync=True)  # CSS pixels
    chosen = t.Dict(help='the last cell chosen: {"number": grows, "cell"}').tag(sync=True)

    def draw(self, view: MapView) -> None:
        """Draw a map, in one message."""
        with self.hold_sync():
            self.size = view.kinds.shape
            self.rows, self.columns = view.rows, view.columns
            self.colors, self.kinds, self.hatches = view.colors.tobytes(), view.kinds.tobytes(), view.hatches.tobytes()
            self.texts, self.marks, self.readouts = view.texts, view.marks, view.readouts
            self.title, self.palette, self.bar_label = view.title, view.palette.tobytes(), view.bar_label
            self.ticks, self.ends = [(float(at), text) for at, text in view.ticks], view.ends
            self.legend = " ".join(part for part in (view.legend, hatch_words(view)) if part)

    @property
    def cell(self) -> tuple[int, int] | None:
        """(row, column) of the cell that was chosen last, or None."""
        return divmod(int(self.chosen["cell"]), self.size[1]) if self.chosen else None


__all__ = ["RatioGrid"]
