"""What every explorer has under it: code to copy, files to take along, pictures to keep; and the projector's keys."""

from __future__ import annotations

from pathlib import Path

import anywidget
import ipywidgets as widgets
import traitlets as t

from mask3d_viz.model_map import architecture_svg
from mask3d_viz.widgets.patch_image import _bytes

HERE = Path(__file__).parent
TYPES = {"PNG": "image/png", "PLY": "application/octet-stream", "CSV": "text/csv", "JSON": "application/json"}


class Toolbar(anywidget.AnyWidget):
    """Buttons that ask, and what the kernel answers with.

    The page sets ``request``, {"number", "what", ...}: "file" with "kind"; "keep"; "show" and "forget" with "scene";
    "next" and "previous". A file is answered by ``file_name``, ``file_type``, ``file`` and then ``file_number``, on which
    the page offers it for download.
    """

    _esm = HERE / "toolbar.js"
    _css = HERE / "toolbar.css"

    code = t.Unicode("").tag(sync=True)
    can_keep = t.Bool(True).tag(sync=True)  # there is a session to come back to
    kinds = t.List(t.Unicode()).tag(sync=True)  # of files that can be had
    request = t.Dict().tag(sync=True)
    file, file_name, file_type = _bytes(), t.Unicode("").tag(sync=True), t.Unicode("").tag(sync=True)
    file_number = t.Int(0).tag(sync=True)
    scenes = t.List(t.Dict()).tag(sync=True)  # {"name", "words", "picture": data URL or ""}
    scene = t.Int(-1).tag(sync=True)  # the one that is shown, or -1
    present = t.Bool(False).tag(sync=True)  # on a projector: no code, arrow keys step through the scenes

    def offer(self, name: str, content: bytes) -> None:
        """Hand a file to the reader's browser."""
        kind = name.rsplit(".", 1)[-1].upper()
        with self.hold_sync():
            self.file, self.file_name, self.file_type = content, name, TYPES.get(kind, "application/octet-stream")
            self.file_number += 1


def mask3d_map(here: str) -> widgets.HTML:
    """The map of the architecture over an explorer; not for the projector."""
    made = widgets.HTML(architecture_svg(here))
    made.add_class("mask3d-not-presented")
    return made


__all__ = ["Toolbar", "mask3d_map"]
