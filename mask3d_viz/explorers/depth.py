"""Depth in space: truth and prediction as linked clouds, by provenance, colour, depth or signed error."""

from __future__ import annotations

from pathlib import Path

import ipywidgets as widgets
import numpy as np

from mask3d_core.frames import Intrinsics
from mask3d_viz import style
from mask3d_viz.clouds import provenance
from mask3d_viz.explorers.base import STILL_WIDTH, Explorer
from mask3d_viz.images import depth_range, error_limit
from mask3d_viz.predictions import Shown
from mask3d_viz.session import Session
from mask3d_viz.widgets.point_cloud import PALETTES, PointCloud, frame_points

MODES = {"provenance": "kind", "rgb": "color", "depth": "depth", "error": "error"}
"""The session's colour modes as the widget calls them."""


class DepthExplorer(Explorer):
    """Truth and prediction of the session's frame as clouds under one camera.

    Args:
        session: what it shows and changes.
        height: of the clouds, CSS pixels.
    """

    function = "explore_depth"

    def __init__(self, session: Session, height: int = 460):
        super().__init__(session)
        size = session.model()[0].config.image_size
        self.cloud = PointCloud(panes=["truth", "prediction"], size=size, patch=session.patch, height=height,
                                label="Truth and prediction in space", channels=self._channels(None))
        self.save = widgets.Button(description="save PLY", tooltip="write both clouds beside the notebook",
                                   layout=widgets.Layout(width="auto"))
        self.save.on_click(lambda _: self.say(f"written: {', '.join(str(p) for p in self.save_ply('.'))}"))
        self.children = [self.cloud, widgets.Box([self.save]), self.message]
        self.cloud.observe(lambda change: self.wish(hover=change["new"]), "hover")
        self.cloud.observe(lambda change: self.wish(selection=tuple(change["new"])), "selection")
        self.cloud.observe(lambda change: self._colored(change["new"]), "mode")
        self.cloud.observe(lambda change: self.wish("camera", camera=dict(change["new"]) or None), "camera")
        self.cloud.observe(lambda change: self.wish("flying pixels", edge_limit=change["new"]), "edge_limit")
        self.begin()

    def _colored(self, mode: str) -> None:
        self.wish(color_mode={widget: name for name, widget in MODES.items()}[mode])

    def _channels(self, shown: Shown | None) -> list[dict]:
        limits, end = (0.5, 4.0), 0.5
        if shown is not None:
            r = shown.reconstruction
            limits = self.session.state.depth_range or (depth_range(r.depth, r.is_valid) if r.is_valid.any() else limits)
            end = error_limit(r.prediction, r.depth, r.is_valid)
        return [{"name": "depth", "unit": "m", "digits": 2, "palette": PALETTES.index(self.session.state.colormap),
                 "range": list(limits), "is_diverging": False},
                {"name": "error", "unit": "mm", "digits": 0, "palette": PALETTES.index(style.ERROR_COLORMAP),
                 "range": [-1000 * end, 1000 * end], "is_diverging": True}]

    def follow(self, changed: frozenset[str]) -> None:
        """Move the cloud to the state."""
        state, cloud = self.session.state, self.cloud
        if "hover" in changed:
            cloud.hover = state.hover
        if "selection" in changed:
            cloud.selection = list(state.selection)
        if "color_mode" in changed:
            cloud.mode = MODES[state.color_mode]
        if "edge_limit" in changed:
            cloud.edge_limit = state.edge_limit
        if "camera" in changed and state.camera is not None and state.camera != cloud.camera:
            cloud.camera = state.camera
        if changed & {"depth_range", "colormap", "is_pasted"} and self.studio.shown is not None:
            self.show()

    def show(self) -> None:
        """The newest prediction's points; the old ones dimmed while a newer one is on its way."""
        shown = self.studio.shown
        self.cloud.stale = self.studio.is_stale or bool(self.studio.error)
        if shown is None or self.studio.is_stale:
            return
        r = shown.reconstruction
        camera, where = Intrinsics.from_array(r.intrinsics), provenance(r.is_valid, r.is_masked_depth)
        depth = r.pasted if self.session.state.is_pasted else r.prediction
        error = np.where(r.is_valid, 1000 * (depth - r.depth), np.nan).astype(np.float32)
        self.cloud.channels = self._channels(shown)
        clouds = (frame_points(r.depth, camera, is_valid=r.is_valid, color=r.color, kind=where,
                               values={"depth": r.depth, "error": error}),
                  frame_points(depth, camera, color=r.color, kind=where, values={"depth": depth, "error": error}))
        for index, points in enumerate(clouds):
            self.cloud.set_pane(index, **points, intrinsics=camera if index == 0 else None)
        self.cloud.note = "scale assumed: no depth was visible" if r.is_scale_assumed else self.session.words()

    def save_ply(self, folder: str | Path) -> list[Path]:
        """Write ``truth.ply`` and ``prediction.ply`` in the colours that are shown."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        return [self.cloud.save_ply(folder / f"{title}.ply", index) for index, title in enumerate(self.cloud.panes)]

    def still(self, theme: str = "light") -> np.ndarray:
        """Both clouds from the same camera."""
        if self.studio.shown is None:
            self.studio.now()
            self._show()
        return self.cloud.still(STILL_WIDTH, round(0.42 * STILL_WIDTH), theme)


def explore_depth(session: Session, **options) -> DepthExplorer:
    """Truth and prediction as linked clouds; see :class:`DepthExplorer`."""
    return DepthExplorer(session, **options)


__all__ = ["DepthExplorer", "explore_depth"]
