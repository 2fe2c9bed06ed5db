"""PointCloud: one or two clouds under one camera, in the page, drawn by WebGL2 without any other library.

The page keeps the points; a change of mode, range, colour map, selection or camera sends a few bytes and uploads
nothing. The same camera, views and colours as :mod:`mask3d_viz.clouds`, so a still looks like the live view.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import anywidget
import numpy as np
import torch
import traitlets as t

from mask3d_core.frames import Intrinsics
from mask3d_core.geometry import unproject
from mask3d_core.ply import write_ply
from mask3d_viz import style
from mask3d_viz.cameras import VIEWS, Camera, look_at, orbit_camera
from mask3d_viz.clouds import splat
from mask3d_viz.drawing import blank, color_bar, paste, text_block
from mask3d_viz.images import checked_depth, checked_limits
from mask3d_viz.pixels import PictureError, Pixels, as_picture, to_numpy, to_png

PALETTES = (*style.DEPTH_COLORMAPS, style.ERROR_COLORMAP)  # the house's colour maps, in the order of ``palettes``
VIEW_NAMES = ("camera", "three-quarter", "front", "top")
LAYOUTS = ("side", "wipe", "blink")
DIMMED = 0.55  # how far points outside of the selection go towards the background
_CHANNEL_KEYS = {"name", "unit", "digits", "palette", "range", "is_diverging", "ends"}
_ARRAYS = {"positions": np.float32, "pixel": np.uint32, "color": np.uint8, "kind": np.uint8, "values": np.float32,
           "edge": np.float32}


class Points(NamedTuple):
    """One pane's points; what was not given is None.

    positions: float32 (n, 3) metres. pixel: uint32 (n,), row * width + column. color: uint8 (n, 3). kind: uint8 (n,).
    values: float32 (channels, n), NaN = none. edge: float32 (n,).
    """

    positions: np.ndarray
    pixel: np.ndarray
    color: np.ndarray | None = None
    kind: np.ndarray | None = None
    values: np.ndarray | None = None
    edge: np.ndarray | None = None


def camera_state(camera: Camera, size: tuple[int, int], frame_size: tuple[int, int],
                 distance: float = 2.0) -> dict[str, Any]:
    """The house's camera as the widget's ``camera`` trait.

    Args:
        camera: upright (its x axis level), with square pixels.
        size: (height, width) of the picture that its intrinsics are for.
        frame_size: (height, width) of the frame; fits whole into every pane.
        distance: metres from the eye to the point it turns around.

    Returns:
        target [x, y, z] metres, yaw and pitch in degrees (azimuth and elevation of :func:`cameras.orbit_camera`),
        distance in metres, field_of_view in degrees across the frame's width, shift: the principal point's way from
        the picture's middle, [x, y] as shares of the focal length.

    Raises:
        PictureError: the camera is tilted sideways.
    """
    right, sight = camera.pose[:3, 0], camera.pose[:3, 2]
    if abs(right[1]) > 1e-3:
        raise PictureError("a camera that stands upright", f"its x axis leans {math.degrees(math.asin(right[1])):.1f} "
                           "degrees", "Level it: the widget's camera has no roll.")
    (height, width), k = size, camera.intrinsics
    scale = min(height / frame_size[0], width / frame_size[1])
    focal = math.sqrt(k.fx * k.fy)
    return {"target": [float(v) for v in camera.pose[:3, 3] + distance * sight],
            "yaw": math.degrees(math.atan2(right[2], right[0])),
            "pitch": math.degrees(math.asin(min(1.0, max(-1.0, sight[1])))), "distance": float(distance),
            "field_of_view": 2 * math.degrees(math.atan(scale * frame_size[1] / (2 * focal))),
            "shift": [(k.cx - (width - 1) / 2) / focal, (k.cy - (height - 1) / 2) / focal]}


def state_camera(state: Mapping[str, Any], size: tuple[int, int], frame_size: tuple[int, int]) -> Camera:
    """The widget's camera as the house's, for a picture of ``size``: the inverse of :func:`camera_state`."""
    turn, rise = math.radians(state["yaw"]), math.radians(state["pitch"])
    sight = np.array([-math.cos(rise) * math.sin(turn), math.sin(rise), math.cos(rise) * math.cos(turn)])
    upright = np.array([-math.sin(rise) * math.sin(turn), -math.cos(rise), math.sin(rise) * math.cos(turn)])
    scale = min(size[0] / frame_size[0], size[1] / frame_size[1])
    focal = scale * frame_size[1] / (2 * math.tan(math.radians(state["field_of_view"]) / 2))
    shift = state.get("shift", (0.0, 0.0))
    k = Intrinsics(focal, focal, (size[1] - 1) / 2 + shift[0] * focal, (size[0] - 1) / 2 + shift[1] * focal)
    target = np.asarray(state["target"], float)
    return Camera(look_at(target - state["distance"] * sight, target, upright), k)


def grazing_angle(depth: np.ndarray, is_valid: np.ndarray, intrinsics: Intrinsics) -> np.ndarray:
    """How steep a surface would have to be to make each pixel's step of depth to a nearer neighbour.

    Pixels above a limit are exactly those that :func:`mask3d_viz.clouds.steep_pixels` drops at that limit.

    Args:
        depth: (H, W) metres. is_valid: bool (H, W). intrinsics: of this image.

    Returns:
        float32 (H, W) degrees between normal and line of sight, 0..90.
    """
    steepest = np.zeros(depth.shape, np.float32)
    for axis, focal in ((0, intrinsics.fy), (1, intrinsics.fx)):
        one = (slice(None, -1), slice(None)) if axis == 0 else (slice(None), slice(None, -1))
        other = (slice(1, None), slice(None)) if axis == 0 else (slice(None), slice(1, None))
        near = np.maximum(np.minimum(depth[one], depth[other]), 1e-6)
        tangent = np.where(is_valid[one] & is_valid[other], (depth[other] - depth[one]) * np.float32(focal) / near, 0)
        np.maximum(steepest[other], tangent, out=steepest[other])
        np.maximum(steepest[one], -tangent, out=steepest[one])
    return np.degrees(np.arctan(steepest))


def frame_points(depth: Pixels, intrinsics: Intrinsics, *, is_valid: Pixels | None = None, color: Pixels | None = None,
                 kind: Pixels | None = None, values: Mapping[str, Pixels] | None = None) -> dict[str, Any]:
    """Pictures of one frame as the arguments of :meth:`PointCloud.set_pane`.

    Args:
        depth: (H, W) metres.
        intrinsics: of this image.
        is_valid: bool (H, W); only these pixels become points. None: all (a prediction).
        color: (H, W, 3). kind: (H, W), as :func:`mask3d_viz.clouds.provenance`. values: (H, W) per channel.

    Returns:
        positions, pixel, color, kind, values and edge (:func:`grazing_angle`).
    """
    depth, is_valid = checked_depth(depth, is_valid)
    values = {name: to_numpy(picture) for name, picture in (values or {}).items()}
    color, kind = None if color is None else as_picture(color), None if kind is None else to_numpy(kind)
    for name, picture in (("colour", color), ("kind", kind), *values.items()):
        if picture is not None and picture.shape[:2] != depth.shape:
            raise PictureError(f"{name} of the depth's size {depth.shape}", str(picture.shape), "Resize it first.")
    pixel = np.flatnonzero(is_valid)
    points = unproject(torch.from_numpy(depth)[None], torch.from_numpy(intrinsics.as_array())[None])[0].numpy()
    return {"positions": points.reshape(-1, 3)[pixel], "pixel": pixel,
            "color": None if color is None else color.reshape(-1, 3)[pixel],
            "kind": None if kind is None else kind.ravel()[pixel],
            "values": {name: picture.ravel()[pixel] for name, picture in values.items()},
            "edge": grazing_angle(depth, is_valid, intrinsics).ravel()[pixel]}


class PointCloud(anywidget.AnyWidget):
    """One or two point clouds side by side, under a curtain, or blinking; turned, picked and coloured in the page.

    Everything below is a synced trait. Points come through :meth:`set_pane`. ``hover`` and ``selection`` are patch
    numbers (row * columns + column of the patch grid of ``size`` by ``patch``), so that they link with pictures.
    """

    _esm = Path(__file__).with_suffix(".js")
    _css = Path(__file__).with_suffix(".css")

    panes = t.List(t.Unicode(), ["cloud"], help="titles of the one or two panes").tag(sync=True)
    positions_0, positions_1 = (t.Bytes(b"", help="float32 (n, 3) metres").tag(sync=True) for _ in "01")
    pixel_0, pixel_1 = (t.Bytes(b"", help="uint32 (n,): row * width + column").tag(sync=True) for _ in "01")
    color_0, color_1 = (t.Bytes(b"", help="uint8 (n, 3)").tag(sync=True) for _ in "01")
    kind_0, kind_1 = (t.Bytes(b"", help="uint8 (n,): index into kinds").tag(sync=True) for _ in "01")
    values_0, values_1 = (t.Bytes(b"", help="float32 (channels, n), NaN = none").tag(sync=True) for _ in "01")
    edge_0, edge_1 = (t.Bytes(b"", help="float32 (n,), see edge_limit").tag(sync=True) for _ in "01")
    size = t.Tuple(t.Int(), t.Int(), default_value=(240, 320), help="(height, width) of the frame").tag(sync=True)
    pane_sizes = t.List(t.Tuple(t.Int(), t.Int()), help="of each pane's own picture of the same view; [] = size").tag(sync=True)
    patch = t.Int(16, help="side of a patch in pixels of size").tag(sync=True)
    kinds = t.List(t.Dict(), help="name and color (#rrggbb) of each kind").tag(sync=True)
    channels = t.List(t.Dict(), help="name, unit, digits, palette, range, is_diverging, ends").tag(sync=True)
    palettes = t.Bytes(help="uint8 (k, 256, 3), PALETTES").tag(sync=True)
    mode = t.Unicode("color", help="color, kind, or a channel's name").tag(sync=True)
    camera = t.Dict(help="see camera_state").tag(sync=True)
    view = t.Unicode("three-quarter", help="the preset the camera stands at, or '' when moved").tag(sync=True)
    views = t.Dict(help="the presets' cameras, fitted to the points").tag(sync=True)
    hover = t.Int(-1, help="patch under the cursor, or -1").tag(sync=True)
    selection = t.List(t.Int(), help="chosen patches").tag(sync=True)
    edge_limit = t.Float(86.0, help="points whose edge is above it are not drawn").tag(sync=True)
    edge_note = t.Unicode("", help="said beside how many were removed").tag(sync=True)
    point_size = t.Float(0.0, help="pixels; 0 = about the points' spacing").tag(sync=True)
    shading = t.Float(0.6, help="0..1, eye-dome lighting as in clouds.splat").tag(sync=True)
    layout_mode = t.Unicode("side", help="side, wipe or blink").tag(sync=True)
    wipe = t.Float(0.5, help="where the curtain hangs, 0..1").tag(sync=True)
    period = t.Float(1.2, help="seconds each pane shows while blinking").tag(sync=True)
    is_paused = t.Bool(False, help="blinking waits").tag(sync=True)
    arrows = t.List(t.Dict(), help="from, to [x, y, z], weight 0..1, color").tag(sync=True)
    label = t.Unicode("", help="heading").tag(sync=True)
    note = t.Unicode("", help="one line under the heading").tag(sync=True)
    stale = t.Bool(False, help="dimmed: a newer result is on its way").tag(sync=True)
    problem = t.Unicode("", help="dimmed: why nothing newer can be drawn").tag(sync=True)
    height = t.Int(420, help="of the drawing, CSS pixels; with pane_shape: at most").tag(sync=True)
    pane_shape = t.Float(0.0, help="a pane's width over its height; 0 = the height alone says").tag(sync=True)

    def __init__(self, **traits: Any):
        self._eye: Intrinsics | None = None
        self._fitted_to: tuple = ()
        super().__init__(**traits)

    @classmethod
    def of_frame(cls, depth: Pixels, intrinsics: Intrinsics, *, is_valid: Pixels | None = None,
                 color: Pixels | None = None, kind: Pixels | None = None, values: Mapping[str, Pixels] | None = None,
                 title: str = "cloud", **traits: Any) -> PointCloud:
        """One pane from one frame; arguments as :func:`frame_points`, and any trait."""
        cloud = cls(panes=[title], size=tuple(to_numpy(depth).shape), **traits)
        cloud.set_pane(0, **frame_points(depth, intrinsics, is_valid=is_valid, color=color, kind=kind, values=values),
                       intrinsics=intrinsics)
        return cloud

    def set_pane(self, index: int, positions: Pixels, pixel: Pixels, *, color: Pixels | None = None,
                 kind: Pixels | None = None, values: Mapping[str, Pixels] | None = None, edge: Pixels | None = None,
                 intrinsics: Intrinsics | None = None, size: tuple[int, int] | None = None) -> None:
        """Put points into a pane.

        Args:
            index: 0 or 1.
            positions: (n, 3) metres in the frame's camera: x right, y down, z forward.
            pixel: (n,), row * width + column in the frame of ``size``.
            color: uint8 (n, 3). kind: (n,), index into ``kinds``. edge: (n,), see ``edge_limit``.
            values: (n,) per channel by name; NaN = none; a channel left out has none.
            intrinsics: the frame's camera (for a picture of the widget's ``size``), for the view "camera"; stays until
                another comes.
            size: (height, width) that ``pixel`` counts in, where this pane's picture of the same view is finer or
                coarser than ``size``; None: ``size``.

        Raises:
            PictureError: shapes, numbers or names that do not fit; the pane is unchanged.
        """
        if index not in range(len(self.panes)):
            raise PictureError(f"a pane among 0..{len(self.panes) - 1}", str(index), "Name two panes: panes=[...].")
        own = self.size if size is None else (int(size[0]), int(size[1]))
        if min(own) < 1:
            raise PictureError("sizes of at least one pixel", str(own), "Pass size=(height, width).")
        arrays = self._checked_points(positions, pixel, color, kind, values or {}, edge, own)
        sizes = [own if i == index else self.pane_size(i) for i in range(len(self.panes))]
        with self.hold_sync():
            self.pane_sizes = sizes if any(one != self.size for one in sizes) else []
            for name, array in arrays.items():
                self.set_trait(f"{name}_{index}", array.tobytes())
            fitted = (index, self.positions_0 or self.positions_1, intrinsics or self._eye)
            self._eye = intrinsics or self._eye
            if (index == 0 or intrinsics is not None or not self.positions_0) and fitted[1:] != self._fitted_to:
                self._fit_views()
                self._fitted_to = fitted[1:]

    def pane_size(self, index: int) -> tuple[int, int]:
        """(height, width) of a pane's own picture."""
        return tuple(self.pane_sizes[index]) if index < len(self.pane_sizes) else self.size

    def patches(self, index: int) -> np.ndarray:
        """int (n,): the patch that each point of a pane belongs to."""
        pixel = pixel_in(self.size, self.pane_size(index), self.points(index).pixel.astype(np.int64))
        row, column = np.divmod(pixel, self.size[1])
        return row // self.patch * -(-self.size[1] // self.patch) + column // self.patch

    def _checked_points(self, positions, pixel, color, kind, values, edge, size) -> dict[str, np.ndarray]:
        """Every array of a pane in the type the page expects; empty where nothing was given."""
        positions, pixel = to_numpy(positions), to_numpy(pixel)
        count = len(positions)
        if positions.shape != (count, 3) or pixel.shape != (count,):
            raise PictureError("positions (n, 3) and pixel (n,)", f"{positions.shape} and {pixel.shape}",
                               "Give every point and the pixel it comes from; frame_points does.")
        if not np.isfinite(positions).all():
            raise PictureError("finite points", "NaN or infinite coordinates",
                               "Leave the holes out: frame_points does.")
        pixels = size[0] * size[1]
        if count and not 0 <= int(pixel.min()) <= int(pixel.max()) < pixels:
            raise PictureError(f"pixel numbers 0..{pixels - 1} of a frame of size {size}",
                               f"{int(pixel.min())}..{int(pixel.max())}", "Set size=(height, width) first.")
        names = [channel["name"] for channel in self.channels]
        unknown = [name for name in values if name not in names]
        if unknown:
            raise PictureError(f"values for the channels {names}", f"{unknown}", "Describe them in channels= first.")
        none = np.full(count, np.nan, np.float32)
        columns = [to_numpy(values[name]) if name in values else none for name in names]
        given = {name: None if array is None else to_numpy(array)
                 for name, array in (("color", color), ("kind", kind), ("edge", edge))}
        given |= zip(map("channel {!r}".format, names), columns)
        for name, array in given.items():
            shape = (count, 3) if name == "color" else (count,)
            if array is not None and (array.shape != shape or (name == "color" and array.dtype != np.uint8)):
                raise PictureError(f"{name} as {'uint8 ' if name == 'color' else ''}{shape}",
                                   f"{array.dtype} {array.shape}", "Give one per point.")
        kind = given["kind"]
        if kind is not None and count and not 0 <= kind.min() <= kind.max() < len(self.kinds):
            raise PictureError(f"kinds 0..{len(self.kinds) - 1}", f"{kind.min()}..{kind.max()}",
                               "Name more kinds, or use clouds.provenance.")
        arrays = {"positions": positions, "pixel": pixel, "color": given["color"], "kind": given["kind"],
                  "values": np.stack(columns) if columns and values else None, "edge": given["edge"]}
        return {name: np.zeros(0, dtype) if arrays[name] is None else np.ascontiguousarray(arrays[name], dtype)
                for name, dtype in _ARRAYS.items()}

    def points(self, index: int) -> Points:
        """A pane's points as they are drawn from, without copying."""
        arrays = {name: np.frombuffer(getattr(self, f"{name}_{index}"), dtype) for name, dtype in _ARRAYS.items()}
        shapes = {"positions": (-1, 3), "color": (-1, 3), "values": (len(self.channels), -1)}
        needed = ("positions", "pixel")
        if arrays["values"].size != len(self.channels) * arrays["pixel"].size:
            arrays["values"] = arrays["values"][:0]  # the channels are others by now
        return Points(**{name: array.reshape(shapes.get(name, -1)) if array.size or name in needed else None
                         for name, array in arrays.items()})

    def is_drawn(self, index: int) -> np.ndarray:
        """bool (n,): the points of a pane that ``edge_limit`` leaves."""
        points = self.points(index)
        return np.ones(len(points.pixel), bool) if points.edge is None else points.edge <= self.edge_limit

    def colors(self, index: int) -> np.ndarray:
        """The points' colours in the current mode, uint8 (n, 3): what the page's shader computes."""
        points, count = self.points(index), len(self.points(index).pixel)
        none = np.full((count, 3), style.NO_ERROR_COLOR, np.uint8)
        if self.mode == "color":
            return none if points.color is None else points.color
        if self.mode == "kind":
            table = np.array([style.rgb(kind["color"]) for kind in self.kinds], np.uint8)
            return none if points.kind is None else table[points.kind]
        number = [channel["name"] for channel in self.channels].index(self.mode)
        if points.values is None:
            return none
        channel, values = self.channels[number], points.values[number]
        table = np.frombuffer(self.palettes, np.uint8).reshape(-1, 256, 3)[channel["palette"]]
        low, high = channel["range"]
        level = np.rint((np.nan_to_num(values) - np.float32(low)) * np.float32(255 / (high - low)))
        colors = table[np.clip(level, 0, 255).astype(np.uint8)]
        return np.where(np.isnan(values)[:, None], none, colors)

    def save_ply(self, path: str | os.PathLike, index: int = 0) -> Path:
        """Write a pane's drawn points with the colours of the current mode and every channel as a PLY file."""
        points, keep = self.points(index), self.is_drawn(index)
        columns = {} if points.values is None else {
            channel["name"].replace(" ", "_"): values[keep] for channel, values in zip(self.channels, points.values)}
        return write_ply(path, points.positions[keep], self.colors(index)[keep], **columns)

    # ---- views and stills

    def _fit_views(self) -> None:
        """The presets' cameras for the points of the first pane that has any; a preset in use follows."""
        points = next((p for p in (self.points(i).positions for i in range(len(self.panes))) if len(p)), None)
        if points is None:
            return
        middle = float(np.median(points[:, 2]))
        views = {}
        for name, (azimuth, elevation) in VIEWS.items():
            camera = orbit_camera(points, azimuth, elevation, self.size)
            away = float(np.median((points - camera.pose[:3, 3]) @ camera.pose[:3, 2]))
            views[name] = camera_state(camera, self.size, self.size, away)
        if self._eye is not None:
            views["camera"] = camera_state(Camera(np.eye(4), self._eye), self.size, self.size, middle)
        self.views = views
        if self.view in views or not self.camera:
            self.camera = views.get(self.view, views["three-quarter"])

    @t.observe("view")
    def _to_view(self, change: Any) -> None:
        if change.new in self.views:
            self.camera = self.views[change.new]

    def house_camera(self, size: tuple[int, int]) -> Camera:
        """The camera as :mod:`mask3d_viz.clouds` wants it, for a picture of ``size`` (height, width)."""
        state = self.camera or {"target": [0, 0, 2], "yaw": 0, "pitch": 0, "distance": 2, "field_of_view": 60}
        return state_camera(state, size, self.size)

    def still(self, width: int = 960, height: int = 440, theme: str = "light") -> np.ndarray:
        """What the page shows, without a browser: every pane from the same camera, mode, range and selection.

        Args:
            width, height: of the whole picture, pixels.
            theme: "light" or "dark".

        Returns:
            uint8 (height, width, 3).
        """
        legend, gap = self._legend(min(width, 420), theme), 8
        line = 26 if any(self.panes) else 0
        is_wiped = self.layout_mode == "wipe" and len(self.panes) == 2
        columns = 1 if is_wiped else len(self.panes)
        pane = (height - line - legend.shape[0], (width - gap * (columns - 1)) // columns)
        if min(pane) < 16:
            raise PictureError("a still of at least 160 x 120 pixels", f"{width} x {height}", "Ask for a larger one.")
        pictures = [self._pane_still(index, pane, theme) for index in range(len(self.panes))]
        titles = list(self.panes)
        if is_wiped:
            pictures, titles = [self._under_curtain(*pictures, theme)], [" | ".join(titles)]
        sheet = blank((height, width), theme)
        for number, (picture, title) in enumerate(zip(pictures, titles)):
            if line:
                paste(sheet, text_block(title or " ", pane[1] - 8, 15, theme=theme)[:line], 2, number * (pane[1] + gap) + 8)
            paste(sheet, picture, line, number * (pane[1] + gap))
        paste(sheet, legend, line + pane[0], 0)
        return sheet

    def _under_curtain(self, left: np.ndarray, right: np.ndarray, theme: str) -> np.ndarray:
        """One picture left of the curtain, the other right of it, the curtain a thin line."""
        column, colors = round(self.wipe * left.shape[1]), style.theme(theme)
        whole = np.concatenate([left[:, :column], right[:, column:]], axis=1)
        for wide, role in ((2, "ink"), (1, "paper")):
            whole[:, max(0, column - wide):column + wide] = style.rgb(colors[role])
        return whole

    def _pane_still(self, index: int, size: tuple[int, int], theme: str) -> np.ndarray:
        points, keep, camera = self.points(index), self.is_drawn(index), self.house_camera(size)
        ground = style.rgb(style.theme(theme)["ground"])
        colors = self.colors(index)[keep]
        if self.selection:
            is_dim = ~np.isin(self.patches(index)[keep], self.selection)
            colors = np.where(is_dim[:, None], colors + (np.array(ground) - colors) * DIMMED, colors).astype(np.uint8)
        places = points.positions[keep]
        side = self.point_size or _spacing(points) * 1.25 * camera.intrinsics.fx * float(
            np.median(np.abs(places[:, 2])) / self.camera.get("distance", 2.0) if len(places) else 1)
        return splat(places, colors, camera, size, point_size=int(np.clip(math.ceil(side), 1, 24)), background=ground,
                     shading=self.shading)

    def _legend(self, width: int, theme: str) -> np.ndarray:
        """The colour bar or the kinds' names, uint8 (rows, width, 3); no rows for colour."""
        channel = next((c for c in self.channels if c["name"] == self.mode), None)
        if channel:
            name = PALETTES[channel["palette"]] if channel["palette"] < len(PALETTES) else PALETTES[0]
            unit = f" [{channel['unit']}]" if channel.get("unit") else ""
            return color_bar(tuple(channel["range"]), name, width, label=channel["name"] + unit,
                             ends=tuple(channel.get("ends", ("", ""))), font_size=13, theme=theme)
        if self.mode != "kind":
            return blank((0, width), theme)
        parts = []
        for kind in self.kinds:
            text = text_block(kind["name"], width // max(1, len(self.kinds)) - 20, 13, theme=theme)
            cell = blank((text.shape[0] + 8, text.shape[1] + 20), theme)
            cell[6:18, 2:14] = style.rgb(kind["color"])
            paste(cell, text, 4, 20)
            parts.append(cell)
        sheet = blank((max((p.shape[0] for p in parts), default=0), width), theme)
        for number, part in enumerate(parts):
            paste(sheet, part, 0, number * (width // len(parts)))
        return sheet

    def __repr__(self) -> str:
        counts = " + ".join(f"{len(self.points(i).pixel):,}" for i in range(len(self.panes)))
        return f"PointCloud({', '.join(self.panes)}: {counts} points, coloured by {self.mode})"

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict, dict] | None:
        """The live view, and for a page without a kernel the still and one line."""
        bundle = super()._repr_mimebundle_(**kwargs)
        if bundle is not None:
            bundle[0]["image/png"] = to_png(self.still())
            bundle[0]["text/plain"] = repr(self)
        return bundle

    # ---- what a trait may hold

    @t.default("kinds")
    def _house_kinds(self) -> list[dict[str, str]]:
        return [{"name": name, "color": "#{:02x}{:02x}{:02x}".format(*color)}
                for name, color in zip(style.PROVENANCE_NAMES, style.PROVENANCE_COLORS)]

    @t.default("palettes")
    def _house_palettes(self) -> bytes:
        return np.stack([style.colormap(name) for name in PALETTES]).tobytes()

    @t.validate("panes")
    def _valid_panes(self, proposal: Any) -> list[str]:
        if not 1 <= len(proposal.value) <= 2:
            raise PictureError("the titles of one or two panes", f"{len(proposal.value)}", "Pass a list such as "
                               "['truth', 'prediction'].")
        return proposal.value

    @t.validate("channels")
    def _valid_channels(self, proposal: Any) -> list[dict[str, Any]]:
        return [_checked_channel(channel, len(self.palettes) // 768) for channel in proposal.value]

    @t.observe("channels")
    def _drop_lost_mode(self, change: Any) -> None:
        if self.mode in {c["name"] for c in change.old or ()} - {c["name"] for c in change.new}:
            self.mode = "color"

    @t.validate("mode", "view", "layout_mode")
    def _valid_word(self, proposal: Any) -> str:
        modes = ("color", "kind", *(channel.get("name") for channel in self.channels))
        known = {"mode": modes, "view": ("", *VIEW_NAMES), "layout_mode": LAYOUTS}[proposal.trait.name]
        if proposal.value not in known:
            raise PictureError(f"{proposal.trait.name} among {', '.join(map(repr, known))}", repr(proposal.value),
                               "Choose one of them.")
        return proposal.value

    @t.validate("size", "patch", "height", "pane_shape", "wipe", "period", "shading", "point_size")
    def _valid_number(self, proposal: Any) -> Any:
        name, value = proposal.trait.name, proposal.value
        low, high = {"wipe": (0, 1), "shading": (0, 1), "point_size": (0, 64), "period": (0.1, 60), "pane_shape": (0, 10)}.get(name, (1, 1e5))
        if not all(low <= number <= high for number in np.atleast_1d(value)):
            raise PictureError(f"{name} between {low:g} and {high:g}", str(value), "Stay inside.")
        return value

    @t.validate("camera")
    def _valid_camera(self, proposal: Any) -> dict[str, Any]:
        value = proposal.value
        needed = ("target", "yaw", "pitch", "distance", "field_of_view")
        if value and not (all(key in value for key in needed) and len(value["target"]) == 3 and value["distance"] > 0
                          and 0 < value["field_of_view"] < 180):
            raise PictureError(f"a camera with {', '.join(needed)}", str(value), "Take it from camera_state.")
        return value


def pixel_in(to: tuple[int, int], of: tuple[int, int], pixel: np.ndarray) -> np.ndarray:
    """The pixels of a picture of size ``to`` over the middles of pixels of one of size ``of``, both (height, width)."""
    row, column = np.divmod(pixel, of[1])
    return (2 * row + 1) * to[0] // (2 * of[0]) * to[1] + (2 * column + 1) * to[1] // (2 * of[1])


def _checked_channel(channel: Mapping[str, Any], palettes: int) -> dict[str, Any]:
    """A channel's description with its defaults, its colour map as an index."""
    if not channel.get("name") or channel["name"] in ("color", "kind") or set(channel) - _CHANNEL_KEYS:
        raise PictureError(f"a channel with a name of its own and some of {', '.join(sorted(_CHANNEL_KEYS))}",
                           str(dict(channel)), "Describe it so.")
    palette = channel.get("palette", style.ERROR_COLORMAP if channel.get("is_diverging") else "inferno_r")
    if palette in PALETTES:
        palette = PALETTES.index(palette)
    if not isinstance(palette, int) or not 0 <= palette < palettes:
        raise PictureError(f"a palette among {', '.join(PALETTES)}, or a row of palettes", repr(palette),
                           "Choose one of them.")
    return {"unit": "", "digits": 2, "is_diverging": False, **channel, "palette": palette,
            "range": list(checked_limits(channel.get("range", (0.0, 1.0))))}


def _spacing(points: Points) -> float:
    """Metres between neighbouring points, one metre from the camera that measured them."""
    index = np.arange(0, max(0, len(points.pixel) - 1), max(1, len(points.pixel) // 4096))
    step = points.pixel[index + 1].astype(np.int64) - points.pixel[index] if len(index) else index
    index = index[(step > 0) & (step < 16)]
    if not len(index):
        return 0.004
    gap = np.linalg.norm(points.positions[index + 1] - points.positions[index], axis=1)
    return float(np.median(gap / np.maximum(np.abs(points.positions[index, 2]), 1e-3)))
