"""TUM RGB-D sequences (Sturm et al., IROS 2012): Kinect frames paired by time stamp, with poses."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mask3d_core.errors import FrameError
from mask3d_core.frames import FrameOrigin, Intrinsics, RGBDFrame
from mask3d_core.sources.images import DepthEncoding, read_color, read_depth
from mask3d_core.sources.poses import associate, nearest, numbers, pose_from_quaternion, read_lines, read_trajectory

# Colour cameras as calibrated by the authors; distortion is left alone, as depth was registered without it too.
CAMERAS = {"1": Intrinsics(517.3, 516.5, 318.6, 255.3), "2": Intrinsics(520.9, 521.0, 325.1, 249.7),
           "3": Intrinsics(535.4, 539.2, 320.1, 247.6)}
DEFAULT_CAMERA = Intrinsics(525.0, 525.0, 319.5, 239.5)
_IMAGES = {".png", ".jpg", ".jpeg", ".ppm"}


def _listed(path: Path) -> tuple[np.ndarray, list[str]]:
    """Time stamps and file names of an rgb.txt or depth.txt."""
    rows = [line.split() for line in read_lines(path)]
    if not rows or any(len(row) < 2 for row in rows):
        raise FrameError("lines of: time stamp, file name", "none, or shorter lines", "Download the list again.", path)
    times = numbers([row[0] for row in rows], path)
    if not np.isfinite(times).all():
        raise FrameError("finite time stamps", "NaN or infinity", "Remove those lines.", path)
    return times, [row[1] for row in rows]


def _in_folder(folder: Path) -> tuple[np.ndarray, list[str]]:
    """Time stamps from the file names of a bare folder."""
    names = sorted(name for name in os.listdir(folder) if Path(name).suffix.lower() in _IMAGES)
    times = numbers([Path(name).stem for name in names], folder)
    return times, [f"{folder.name}/{name}" for name in names]


class TumSequence:
    """One TUM RGB-D sequence: rgb/, depth/ and the lists beside them.

    Pairs come from associations.txt if it is there (time, colour, time, depth, optionally t and q), else from
    rgb.txt and depth.txt, else from the time stamps in the file names. Poses come from associations.txt or
    groundtruth.txt, the nearest within ``max_difference``.

    Args:
        path: folder of the sequence.
        intrinsics: the colour camera; by default guessed from "freiburg1" or "fr1" in the folder's name, else
            the set's own default of 525 525 319.5 239.5.
        max_difference: seconds between colour and depth, at most.
        depth_scale: stored units per metre.

    Raises:
        FrameError: not such a folder, or nothing in it pairs.
    """

    name = "tum"
    class_names: Sequence[str] = ()
    labels: frozenset[str] = frozenset()

    def __init__(self, path: str | os.PathLike, intrinsics: Intrinsics | Sequence[float] | None = None, max_difference: float = 0.02,
                 depth_scale: float = 5000.0):
        self.path = Path(path)
        self.encoding = DepthEncoding("linear", float(depth_scale), (0.0,))
        self.max_difference = max_difference
        if not self.path.is_dir():
            raise FrameError("the folder of a TUM sequence", "no such folder", "Check the path.", path)
        self._choose_camera(intrinsics)
        listed = self.path / "associations.txt"
        if listed.is_file():
            self._open_associations(listed)
        else:
            self._pair_by_time()
        if not len(self.times):
            raise FrameError(f"colour and depth within {max_difference:g} s of each other", "no pair",
                             "Check the time stamps, or allow a larger max_difference.", path)

    def _choose_camera(self, intrinsics: Intrinsics | Sequence[float] | None) -> None:
        if intrinsics is not None and not isinstance(intrinsics, Intrinsics):
            intrinsics = Intrinsics.from_array(intrinsics)
        guess = re.search(r"(?:freiburg|fr)([123])", self.path.resolve().name)
        if intrinsics is not None:
            self.intrinsics, self._camera_from = intrinsics, "given"
        elif guess:
            self.intrinsics = CAMERAS[guess[1]]
            self._camera_from = f"freiburg{guess[1]}'s colour camera, guessed from the folder's name"
        else:
            self.intrinsics, self._camera_from = DEFAULT_CAMERA, "assumed: the set's default, no camera in the name"

    def _open_associations(self, path: Path) -> None:
        rows = [line.split() for line in read_lines(path)]
        widths = {len(row) for row in rows}
        if not rows or len(widths) != 1 or widths not in ({4}, {11}):
            raise FrameError("lines of: time, colour file, time, depth file[, tx ty tz qx qy qz qw]",
                             f"{len(rows)} lines of {sorted(widths)} words", "Write the list again.", path)
        is_depth_first = "depth" in rows[0][1] and "depth" not in rows[0][3]
        color, depth = (2, 0) if is_depth_first else (0, 2)
        self._pairs_from = f"{path.name}, {len(rows)} pairs"
        self.times = numbers([row[color] for row in rows], path)
        self._color = [row[color + 1] for row in rows]
        self._depth = [row[depth + 1] for row in rows]
        if widths == {11}:
            values = numbers([word for row in rows for word in row[4:]], path).reshape(-1, 7)
            self._poses: list = list(pose_from_quaternion(values[:, :3], values[:, 3:], path))
        else:
            self._find_poses()

    def _pair_by_time(self) -> None:
        lists = [self.path / "rgb.txt", self.path / "depth.txt"]
        folders = [self.path / "rgb", self.path / "depth"]
        if all(file.is_file() for file in lists):
            (color_times, color), (depth_times, depth) = (_listed(file) for file in lists)
            origin = "rgb.txt and depth.txt"
        elif all(folder.is_dir() for folder in folders):
            (color_times, color), (depth_times, depth) = (_in_folder(folder) for folder in folders)
            origin = "the file names"
        else:
            raise FrameError("associations.txt, or rgb.txt and depth.txt, or the folders rgb/ and depth/",
                             f"only {', '.join(sorted(os.listdir(self.path))[:8]) or 'an empty folder'}",
                             'Give the folder of one sequence, or use the source "folder".', self.path)
        i, j = associate(color_times, depth_times, self.max_difference)
        self.times = color_times[i]
        self._color, self._depth = [color[k] for k in i], [depth[k] for k in j]
        self._pairs_from = (f"time stamps in {origin}: {len(i)} pairs within {self.max_difference:g} s of "
                            f"{len(color)} colour and {len(depth)} depth images")
        self._find_poses()

    def _find_poses(self) -> None:
        path = self.path / "groundtruth.txt"
        self._poses = [None] * len(self.times)
        if path.is_file():
            keys, poses = read_trajectory(path)
            found = nearest(keys, self.times, self.max_difference)
            self._poses = [poses[k] if k >= 0 else None for k in found]

    def __len__(self) -> int:
        """How many pairs."""
        return len(self.times)

    def sequence(self, index: int) -> str:
        """The folder's name: one folder is one recording."""
        return self.path.resolve().name

    def frame_name(self, index: int) -> str:
        """The stem of the colour file: its time stamp."""
        return Path(self._color[index]).stem

    def read(self, index: int) -> RGBDFrame:
        """Read one pair.

        Raises:
            FrameError: unreadable, or colour and depth of different sizes; names the file.
        """
        color = read_color(self.path / self._color[index])
        depth_path = self.path / self._depth[index]
        depth, is_valid = read_depth(depth_path, self.encoding)
        if depth.shape != color.shape[:2]:
            raise FrameError(f"depth of the colour's size {color.shape[:2]}", str(depth.shape),
                             'Use the source "folder" for pictures of different sizes.', depth_path)
        return RGBDFrame(color, depth, is_valid, self.intrinsics, self._poses[index],
                         origin=FrameOrigin(self.name, self.sequence(index), self.frame_name(index),
                                            float(self.times[index])))

    def describe(self) -> dict[str, Any]:
        """What was opened and what was assumed, as plain JSON values."""
        return {"source": self.name, "path": str(self.path), "frames": len(self), "pairs_from": self._pairs_from,
                "intrinsics": [float(v) for v in self.intrinsics.as_array().round(4)],
                "intrinsics_from": self._camera_from, "depth_encoding": self.encoding.describe(),
                "poses": sum(pose is not None for pose in self._poses)}
