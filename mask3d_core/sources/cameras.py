"""Intrinsics as other tools write them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np

from mask3d_core.errors import FrameError
from mask3d_core.sources.poses import numbers, read_lines

Size = tuple  # (height, width)


def read_json(path: Path) -> dict:
    """One JSON object from a file.

    Raises:
        FrameError: unreadable, or something else.
    """
    try:
        values = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise FrameError("a readable JSON file", str(error), "Copy it again.", path) from error
    if not isinstance(values, dict):
        raise FrameError("one JSON object", type(values).__name__, "Give fx, fy, cx and cy.", path)
    return values


def _from_json(values: dict, path: Path) -> tuple[list[float], Size | None]:
    """fx fy cx cy, and the image size if it is there: Open3D's pinhole JSON, or plain keys."""
    try:
        if "intrinsic_matrix" in values:
            matrix = np.array([float(v) for v in values["intrinsic_matrix"]])
            if matrix.size != 9:
                raise ValueError(f"intrinsic_matrix of {matrix.size} numbers")
            matrix = matrix.reshape(3, 3).T  # Open3D stores columns first
            camera = [matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2]]
        else:
            camera = [float(values[key]) for key in ("fx", "fy", "cx", "cy")]
        width, height = (values.get(key, values.get(key[0])) for key in ("width", "height"))
        size = (int(height), int(width)) if width and height else None
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise FrameError("fx, fy, cx, cy or an intrinsic_matrix of 9 numbers", f"{type(error).__name__}: {error}",
                         "Correct the camera file.", path) from error
    return [float(v) for v in camera], size


def read_intrinsics(path: str | os.PathLike) -> tuple[list[float], Size | None]:
    """A camera file: a 3x3 or 4x4 matrix, four numbers fx fy cx cy, or JSON (Open3D's, or fx fy cx cy).

    Args:
        path: the file.

    Returns:
        [fx, fy, cx, cy] in pixels, and (height, width) of the image they refer to where the file says so.

    Raises:
        FrameError: unreadable, or not finite.
    """
    path = Path(path)
    if path.suffix.lower() == ".json":
        camera, size = _from_json(read_json(path), path)
    else:
        values = numbers(" ".join(read_lines(path)).replace(",", " ").split(), path)
        size = None
        if values.size in (9, 16):
            matrix = values.reshape(3, 3) if values.size == 9 else values.reshape(4, 4)
            camera = [matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2]]
        elif values.size == 4:
            camera = list(values)
        else:
            raise FrameError("a 3x3 or 4x4 matrix, or the four numbers fx fy cx cy", f"{values.size} numbers",
                             "Correct the camera file.", path)
    if not np.isfinite(camera).all() or camera[0] <= 0 or camera[1] == 0:
        raise FrameError("finite intrinsics with fx above 0", str([float(v) for v in camera]),
                         "Correct the camera file.", path)
    return [float(v) for v in camera], size


def read_frame_camera(path: str | os.PathLike) -> tuple[list[float], Size | None, np.ndarray | None]:
    """A phone's camera file of one frame (Polycam's): intrinsics, and the pose t_00 ... t_23 where it is there.

    Args:
        path: a JSON file.

    Returns:
        [fx, fy, cx, cy], (height, width) or None, and the pose float64 (4, 4) as stored, or None.

    Raises:
        FrameError: unreadable, or incomplete.
    """
    camera, size = read_intrinsics(path)
    values = read_json(Path(path))
    keys = [f"t_{row}{column}" for row in range(3) for column in range(4)]
    if not all(key in values for key in keys):
        return camera, size, None
    pose = np.eye(4)
    pose[:3] = numbers([str(values[key]) for key in keys], path).reshape(3, 4)
    return camera, size, pose if np.isfinite(pose).all() else None
