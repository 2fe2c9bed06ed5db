"""What is handed to Open3D's process, and in which surroundings it runs; see :mod:`mask3d_viz.open3d_view`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from mask3d_viz import style
from mask3d_viz.cameras import Camera
from mask3d_viz.open3d_process import BOTH
from mask3d_viz.pixels import PictureError, Pixels, to_numpy

Clouds = Mapping[str, tuple[Pixels, Pixels]]
"""Name to (points (n, 3) metres, colours uint8 (n, 3)); one or two."""

ROOT = Path(__file__).resolve().parents[1]


def why_not(needs_display: bool) -> str:
    """Why Open3D cannot be tried at all on this machine, in one line; "" where it can."""
    if find_spec("open3d") is None:
        return "Open3D is not installed (pip install 'mask3d-lab[lab]')"
    has_display = not sys.platform.startswith("linux") or any(os.environ.get(n) for n in ("DISPLAY", "WAYLAND_DISPLAY"))
    if needs_display and not has_display:
        return "there is no screen here (neither DISPLAY nor WAYLAND_DISPLAY is set)"
    return ""


def checked_clouds(clouds: Clouds) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The clouds as float32 (n, 3) and uint8 (n, 3).

    Raises:
        PictureError: none, more than two, or shapes that do not fit together.
    """
    if not 1 <= len(clouds) <= 2 or BOTH in clouds:
        raise PictureError(f"one or two clouds by name (none called {BOTH!r})", ", ".join(clouds) or "none",
                           "Pass {'truth': (points, colors)}.")
    found = {}
    for name, (points, colors) in clouds.items():
        points, colors = to_numpy(points), to_numpy(colors)
        if points.ndim != 2 or points.shape[1:] != (3,) or colors.shape != points.shape or colors.dtype != np.uint8:
            raise PictureError(f"points (n, 3) and colours uint8 (n, 3) of {name!r}",
                               f"{points.shape} and {colors.dtype} {colors.shape}", "Give one colour per point.")
        if not np.isfinite(points).all():
            raise PictureError("finite points", f"NaN or infinite coordinates in {name!r}", "Leave the holes out.")
        found[name] = points.astype(np.float32), colors
    return found


def job_of(camera: Camera, size: tuple[int, int], point_size: int, theme: str) -> dict[str, Any]:
    """What both kinds of process need, as JSON has it."""
    k = camera.intrinsics
    return {"size": list(size), "pose": np.asarray(camera.pose, float).tolist(), "intrinsics": [k.fx, k.fy, k.cx, k.cy],
            "point_size": int(point_size), "background": list(style.rgb(style.theme(theme)["ground"]))}


def write_job(folder: Path, clouds: dict, job: dict) -> Path:
    """Hand clouds and what to do with them to the process through a file in ``folder``; returns it."""
    arrays = {f"{kind}_{i}": cloud[k] for i, cloud in enumerate(clouds.values()) for k, kind in enumerate(("points", "colors"))}
    path = folder / "job.npz"
    np.savez(path, job=json.dumps(job | {"names": list(clouds)}), **arrays)
    return path


def command(kind: str, job: Path) -> list[str]:
    """What starts the process: ``kind`` is what it is for, ``job`` the file of :func:`write_job`."""
    return [sys.executable, "-m", "mask3d_viz.open3d_process", kind, str(job)]


def environment(needs_display: bool) -> dict[str, str]:
    """The process's: our own package in reach, no web server, one window system or none."""
    path = os.pathsep.join(p for p in (str(ROOT), os.environ.get("PYTHONPATH", "")) if p)
    made = {**os.environ, "PYTHONPATH": path, "OPEN3D_DISABLE_WEB_VISUALIZER": "true", "PYTHONUNBUFFERED": "1"}
    if not needs_display and sys.platform.startswith("linux"):  # drawn in memory, not into a hidden corner of the screen
        for name in ("DISPLAY", "WAYLAND_DISPLAY"):
            made.pop(name, None)
        made.setdefault("EGL_PLATFORM", "surfaceless")
    elif made.get("DISPLAY"):  # where a Wayland desktop offers both, X: older releases of Open3D know no other
        made.pop("WAYLAND_DISPLAY", None)
        made["XDG_SESSION_TYPE"] = "x11"
    return made


def failure(output: bytes, status: int) -> str:
    """Why a process gave no picture: in its own words, or how it ended."""
    for line in output.decode(errors="replace").splitlines():
        try:
            return json.loads(line)["failed"]
        except (ValueError, KeyError):
            continue
    return ended_by(status)


def ended_by(status: int) -> str:
    """How a process ended that said nothing itself; negative: by that signal."""
    said = f"signal {-status}" if status < 0 else f"exit status {status}"
    return f"Open3D's process ended with {said} (a graphics driver that is missing or broken does that)"


__all__ = ["Clouds", "checked_clouds", "command", "ended_by", "environment", "failure", "job_of", "why_not", "write_job"]
