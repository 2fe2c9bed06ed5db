"""Point clouds in PLY files: binary little-endian, as MeshLab, CloudCompare and Open3D read them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from torch import Tensor

from mask3d_core.errors import FrameError

_TYPES = {"char": "i1", "uchar": "u1", "short": "<i2", "ushort": "<u2", "int": "<i4", "uint": "<u4",
          "float": "<f4", "double": "<f8", "int8": "i1", "uint8": "u1", "int16": "<i2", "uint16": "<u2",
          "int32": "<i4", "uint32": "<u4", "float32": "<f4", "float64": "<f8"}
_HEADER_LIMIT = 65536


def _as_numpy(values) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


def write_ply(path: str | os.PathLike, points: np.ndarray | Tensor, colors: np.ndarray | Tensor | None = None,
              **columns: np.ndarray | Tensor) -> Path:
    """Write a coloured point cloud.

    Args:
        path: the file; its folder must exist.
        points: (n, 3) metres, stored as float32.
        colors: (n, 3) uint8, or float in 0..1, or None.
        columns: further columns by name, (n,) each, stored as float32 (an error, a label, nx ny nz).

    Returns:
        The path.

    Raises:
        FrameError: shapes that do not fit together.
    """
    points = _as_numpy(points)
    if points.ndim != 2 or points.shape[1] != 3:
        raise FrameError("points as (n, 3)", str(points.shape), "Reshape to one row per point.", path)
    fields = [(axis, "<f4", points[:, i]) for i, axis in enumerate("xyz")]
    if colors is not None:
        colors = _as_numpy(colors)
        if colors.shape != points.shape:
            raise FrameError(f"colours as {points.shape}", str(colors.shape), "Give one colour per point.", path)
        if colors.dtype != np.uint8:
            colors = np.rint(np.clip(colors, 0, 1) * 255).astype(np.uint8)
        fields += [(name, "u1", colors[:, i]) for i, name in enumerate(("red", "green", "blue"))]
    for name, values in columns.items():
        values = _as_numpy(values)
        if values.shape != (len(points),):
            raise FrameError(f"column {name!r} as ({len(points)},)", str(values.shape), "Give one value per point.",
                             path)
        fields.append((name, "<f4", values))

    rows = np.empty(len(points), dtype=[(name, kind) for name, kind, _ in fields])
    for name, _, values in fields:
        rows[name] = values
    words = {"<f4": "float", "u1": "uchar"}
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(points)}"]
    header += [f"property {words[kind]} {name}" for name, kind, _ in fields] + ["end_header", ""]
    with open(path, "wb") as file:
        file.write("\n".join(header).encode("ascii"))
        file.write(rows.tobytes())
    return Path(path)


def _read_header(head: bytes, path) -> tuple[int, np.dtype, int]:
    """Number of vertices, their record type, and where they start."""
    def fail(got):
        return FrameError("a binary little-endian PLY file whose vertices come first", got,
                          "Write it again with write_ply, or convert it.", path)

    end = head.find(b"end_header\n")
    if not head.startswith(b"ply\n") or end < 0:
        raise fail("no PLY header")
    count, fields, element = None, [], ""
    lines = head[:end].decode("ascii", errors="replace").splitlines()[1:]
    if "format binary_little_endian 1.0" not in lines:
        raise fail("another format")
    for line in lines:
        words = line.split()
        if words[:1] == ["element"]:
            if count is None and (len(words) != 3 or words[1] != "vertex" or not words[2].isdigit()):
                raise fail(f"{line!r} first")
            element, count = words[1], int(words[2]) if count is None else count
        elif words[:1] == ["property"] and element == "vertex":
            if len(words) != 3 or words[1] not in _TYPES or words[2] in dict(fields):
                raise fail(f"the property {line!r}")
            fields.append((words[2], _TYPES[words[1]]))
    if count is None or not {"x", "y", "z"} <= set(dict(fields)):
        raise fail("no vertices with x y z")
    return count, np.dtype(fields), end + len(b"end_header\n")


def read_ply(path: str | os.PathLike) -> tuple[np.ndarray, np.ndarray | None, dict[str, np.ndarray]]:
    """Read the vertices of a binary little-endian PLY file.

    Args:
        path: the file.

    Returns:
        points float32 (n, 3); colours uint8 (n, 3) or None; every other column by name, (n,) each.

    Raises:
        FrameError: another format, or a file cut short.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise FrameError("a readable PLY file", str(error), "Check the path.", path) from error
    count, kind, start = _read_header(content[:_HEADER_LIMIT], path)
    if len(content) - start < count * kind.itemsize:
        raise FrameError(f"{count} points of {kind.itemsize} bytes", f"{len(content) - start} bytes",
                         "The file was cut short; write it again.", path)
    rows = np.frombuffer(content, kind, count, start)
    points = np.stack([rows[axis].astype(np.float32) for axis in "xyz"], axis=1)
    names = set(kind.names)
    has_color = {"red", "green", "blue"} <= names and all(kind[name] == np.uint8 for name in ("red", "green", "blue"))
    colors = np.stack([rows[name] for name in ("red", "green", "blue")], axis=1) if has_color else None
    used = {"x", "y", "z"} | ({"red", "green", "blue"} if has_color else set())
    return points, colors, {name: rows[name].copy() for name in kind.names if name not in used}
