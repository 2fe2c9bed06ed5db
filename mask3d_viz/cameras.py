"""Where a cloud is looked at from: preset views that fit the points, and an orbit around them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mask3d_core.frames import Intrinsics
from mask3d_viz.pixels import PictureError

Vector = Sequence[float] | np.ndarray  # three numbers

VIEWS = {"front": (0.0, 0.0), "three-quarter": (28.0, 22.0), "top": (0.0, 90.0)}  # azimuth, elevation in degrees


@dataclass(frozen=True)
class Camera:
    """A pinhole camera in the space of the points.

    Args:
        pose: float64 (4, 4) camera-to-world, x right, y down, z forward.
        intrinsics: in pixels of the picture to be drawn.
    """

    pose: np.ndarray
    intrinsics: Intrinsics


def look_at(eye: Vector, target: Vector, up: Vector = (0.0, -1.0, 0.0)) -> np.ndarray:
    """Camera-to-world pose, float64 (4, 4), of a camera at ``eye`` that looks at ``target``, upright towards ``up``."""
    forward = np.asarray(target, float) - np.asarray(eye, float)
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, np.asarray(up, float))
    if not np.linalg.norm(right) > 1e-9:
        raise PictureError("an up direction across the line of sight", f"up {tuple(up)} along it", "Choose another up.")
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, 0], pose[:3, 1], pose[:3, 2], pose[:3, 3] = right, np.cross(forward, right), forward, eye
    return pose


def view_camera(view: str, points: np.ndarray, size: tuple[int, int] = (480, 640), *,
                intrinsics: Intrinsics | None = None, up: Vector = (0.0, -1.0, 0.0),
                forward: Vector = (0.0, 0.0, 1.0)) -> Camera:
    """A camera for one of the preset views, as near as it can be with the points still in the picture.

    Args:
        view: "three-quarter", "front" or "top" (see :func:`orbit_camera`), or "camera": the eye that measured them.
        points: (N, 3) metres.
        size: (height, width) of the picture to come.
        intrinsics: for "camera": the frame's, resized to ``size``.
        up, forward: of the scene; the defaults are those of points in their camera's frame.

    Raises:
        PictureError: unknown view, or "camera" without intrinsics.
    """
    if view == "camera":
        if intrinsics is None:
            raise PictureError("the frame's intrinsics for the view 'camera'", "none",
                               "Pass intrinsics=frame.intrinsics.resized(...) for this picture's size.")
        return Camera(np.eye(4), intrinsics)
    if view not in VIEWS:
        raise PictureError(f"a view among camera, {', '.join(VIEWS)}", repr(view), "Choose one of them.")
    return orbit_camera(points, *VIEWS[view], size, up=up, forward=forward)


def orbit_camera(points: np.ndarray, azimuth: float, elevation: float, size: tuple[int, int] = (480, 640), *,
                 zoom: float = 1.0, up: Vector = (0.0, -1.0, 0.0),
                 forward: Vector = (0.0, 0.0, 1.0)) -> Camera:
    """A camera on a circle around the points, so far away that nearly all of them fit.

    Args:
        points: (N, 3) metres.
        azimuth: degrees to the right. elevation: degrees upwards, -90..90.
        size: (height, width) of the picture to come.
        zoom: 2 = twice as large.
        up, forward: of the scene.
    """
    height, width = size
    focal = 1.25 * max(height, width) * zoom
    camera = Intrinsics(focal, focal, (width - 1) / 2, (height - 1) / 2)
    points = np.asarray(points, np.float64).reshape(-1, 3)
    up = np.asarray(up, float) / np.linalg.norm(up)
    ahead = np.asarray(forward, float) - np.dot(forward, up) * up
    ahead /= np.linalg.norm(ahead)
    turn, rise = math.radians(azimuth), math.radians(elevation)
    level = math.cos(turn) * ahead - math.sin(turn) * np.cross(ahead, up)  # where the camera looks, on the flat
    sight = math.cos(rise) * level - math.sin(rise) * up
    upright = math.cos(rise) * up + math.sin(rise) * level  # stays across the line of sight, also from the top
    if not len(points):
        return Camera(look_at(-sight, np.zeros(3), upright), camera)
    points = points[:: max(1, len(points) // 20000)]
    pose = look_at(-sight, np.zeros(3), upright)
    local = points @ pose[:3, :3]
    x, y, z = local.T
    middle = [float(np.percentile(v, (0.5, 99.5)).mean()) for v in (x, y, z)]
    for _ in range(4):  # perspective moves the middle: measure it again from where we stand
        need = np.maximum(np.abs(x - middle[0]) / width, np.abs(y - middle[1]) / height) * 2.1 * focal / zoom
        distance = max(float(np.percentile(need - (z - middle[2]), 99.5)), 1e-3)
        away = np.maximum(z - middle[2] + distance, 1e-3)
        shift = [float(np.percentile((v - m) / away, (0.5, 99.5)).mean()) * distance for v, m in zip((x, y), middle)]
        middle[:2] = [middle[0] + shift[0], middle[1] + shift[1]]
    target = pose[:3, :3] @ np.array(middle)
    return Camera(look_at(target - sight * distance, target, upright), camera)
