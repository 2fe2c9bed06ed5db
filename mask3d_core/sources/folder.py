"""Any folder of colour and depth files, described by a :class:`FolderConfig`."""

from __future__ import annotations

import dataclasses
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mask3d_core.errors import ConfigError, FrameError, Mask3DError
from mask3d_core.frames import IGNORE_LABEL, FrameOrigin, Intrinsics, RGBDFrame, nearest_indices, resize_color
from mask3d_core.sources.cameras import read_frame_camera, read_intrinsics
from mask3d_core.sources.folder_config import FolderConfig
from mask3d_core.sources.images import ids_without_class, map_labels, read_color, read_depth, read_labels
from mask3d_core.sources.patterns import find_files, name_some, natural_key
from mask3d_core.sources.poses import nearest, read_pose, read_trajectory

ASPECT_TOLERANCE = 0.02  # ScanNet's 1296x968 and 640x480 differ by 0.4 %

_TURN_Y = np.diag([1.0, -1.0, 1.0, 1.0])
_FROM_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])


def _changed(config: FolderConfig, flags: dict[str, Any]) -> FolderConfig:
    """The configuration with single keys replaced; lists become tuples."""
    known = {f.name for f in dataclasses.fields(FolderConfig)}
    unknown = sorted(set(flags) - known)
    if unknown:
        raise ConfigError(f"a folder has no option {', '.join(unknown)}; it has {', '.join(sorted(known))}")

    def plain(value: Any) -> Any:
        return tuple(plain(v) for v in value) if isinstance(value, list) else value

    return dataclasses.replace(config, **{key: plain(value) for key, value in flags.items()})


class FolderSource:
    """Frames from folders of colour, depth and label files.

    Args:
        path: the folder.
        config: how to read it: a FolderConfig, the path of a JSON file, or None for the folder's own
            ``mask3d_folder.json`` or a recognised layout.
        flags: keys of the FolderConfig that replace its own, e.g. ``depth_encoding`` or ``intrinsics``.

    Raises:
        Mask3DError: nothing recognised, an impossible config, or files without partners (named).
    """

    name = "folder"

    def __init__(self, path: str | os.PathLike, config: FolderConfig | str | os.PathLike | None = None, **flags: Any):
        self.path = Path(path)
        if not self.path.is_dir():
            raise Mask3DError("a folder of frames", "no such folder", "Check the path.", path)
        if config is None:
            config = FolderConfig.detect(self.path)
        elif not isinstance(config, FolderConfig):
            config = FolderConfig.load(config)
        self.config = _changed(config, flags).validate(path)
        self.class_names: Sequence[str] = config.class_names
        self._find_frames()
        self.labels = self._kinds_of_labels()
        self._name_sequences()
        self._find_poses()
        self._cameras: dict[str, tuple] = {}
        self._unmapped: dict[int, tuple[int, dict[int, int]]] = {}  # by frame: pixels, and those of each id without a class
        self._check_first_camera()

    def _find(self, pattern: str | None) -> list:
        return [] if pattern is None else find_files(self.path, pattern)

    def _find_frames(self) -> None:
        config = self.config
        color = self._find(config.color)
        if not color:
            raise Mask3DError(f"colour files {config.color!r}", "none", "Correct the pattern or the path.", self.path)
        depth = self._find(config.depth)
        if config.depth is not None:
            color, depth = self._pair(color, depth)
        self.keys = [key for key, _ in color]
        self._color = [path for _, path in color]
        self._depth = [path for _, path in depth] or None
        self._label, self._instance, self._pose, self._camera = (
            self._matching(pattern) for pattern in (config.label, config.instance, config.pose, config.camera))

    def _pair(self, color: list, depth: list) -> tuple[list, list]:
        """Colour and depth files that belong together, or all that do not in one line."""
        if self.config.pairing == "order":
            if len(color) != len(depth) and not self.config.allow_unpaired:
                raise Mask3DError("as many depth as colour files, to pair them in order",
                                  f"{len(color)} colour and {len(depth)} depth files",
                                  'Remove the extra ones or set "allow_unpaired": true.', self.path)
            count = min(len(color), len(depth))
            return color[:count], depth[:count]
        depth_of = dict(depth)
        color_of = dict(color)
        both = [(key, path) for key, path in color if key in depth_of]
        alone = [f"{path} (no depth)" for key, path in color if key not in depth_of]
        alone += [f"{path} (no colour)" for key, path in depth if key not in color_of]
        if alone and (not both or not self.config.allow_unpaired):
            raise Mask3DError(
                "a partner for every colour and depth file",
                f"{len(color)} colour files ({self.config.color}), {len(depth)} depth files ({self.config.depth}) and "
                f"{len(alone)} without a partner: {name_some(alone)}",
                'Remove them, set "allow_unpaired": true to leave them out, or "pairing": "order" if the names differ.',
                self.path)
        return both, [(key, depth_of[key]) for key, _ in both]

    def _matching(self, pattern: str | None) -> list | None:
        """For each frame the file of that pattern, or None where there is none."""
        if pattern is None:
            return None
        files = self._find(pattern)
        if self.config.pairing == "order" and len(files) == len(self.keys):
            return [path for _, path in files]
        by_key = dict(files)
        matched = [by_key.get(key) for key in self.keys]
        if not any(matched):
            raise Mask3DError(f"files {pattern!r} that belong to colour files", f"{len(files)} files, none belongs",
                              "Correct the pattern; its wildcards must stand for the same text or number.", self.path)
        return matched

    def _name_sequences(self) -> None:
        config, home = self.config, self.path.resolve().name
        if config.sequence is not None:
            expression = re.compile(config.sequence)
            matches = [expression.search(path) for path in self._color]
            if None in matches:
                raise ConfigError(f"sequence {config.sequence!r} does not fit {self._color[matches.index(None)]}",
                                  self.path)
            self._sequences = [match[1] or "" for match in matches]
        elif config.sequence_ranges:
            self._sequences = [home] * len(self.keys)
            for name, first, last in config.sequence_ranges:
                self._sequences[first:last + 1] = [name] * len(self._sequences[first:last + 1])
        else:  # the folders that the wildcards stood for
            fixed = set(config.color.split("/")[:-1])
            self._sequences = ["/".join(part for part in path.split("/")[:-1] if part not in fixed) or home
                               for path in self._color]
        types = [(kind, natural_key(first), natural_key(last)) for kind, first, last in config.scene_types]
        self._names = [next((f"{kind}/{name}" for kind, first, last in types if first <= natural_key(name) <= last), name)
                       for name in self._sequences]

    def _find_poses(self) -> None:
        """Poses of trajectory files, by frame number if all frames have one and it is there, else in order."""
        self._trajectory: dict[int, np.ndarray] = {}
        self._poses_from = "none"
        if self.config.pose is not None:
            self._poses_from = f"one file per frame: {self.config.pose}"
        if self.config.trajectory is None:
            return
        for sequence in dict.fromkeys(self._sequences):
            members = [i for i, name in enumerate(self._sequences) if name == sequence]
            keys, poses = read_trajectory(self.path / self.config.trajectory.replace("{sequence}", sequence))
            frame_keys = [self.keys[i][-1] if self.keys[i] else "" for i in members]
            found = np.full(len(members), -1)
            if all(isinstance(key, int) for key in frame_keys):
                found = nearest(keys, np.array(frame_keys, float), 0.0)
                self._poses_from = f"{self.config.trajectory} by frame number"
            if (found < 0).any() and len(keys) == len(members):
                found = np.arange(len(members))
                self._poses_from = f"{self.config.trajectory} in order"
            if (found < 0).all():
                raise Mask3DError("poses that fit the frames by number or in order",
                                  f"{len(keys)} poses for {len(members)} frames", "Correct the trajectory or leave it "
                                  "out.", self.path / self.config.trajectory)
            self._trajectory |= {i: poses[k] for i, k in zip(members, found) if k >= 0}

    def _check_first_camera(self) -> None:
        """Absurd intrinsics are refused when the folder is opened, if its first frame can be read at all."""
        try:
            height, width = read_color(self.path / self._color[0]).shape[:2]
        except FrameError:
            return  # reading it will say so
        camera, _ = self._camera_of(0, height, width)
        problems = camera.problems(height, width)
        if problems:
            raise ConfigError([f"{problem}; correct intrinsics or intrinsics_size" for problem in problems], self.path)

    def _camera_of(self, index: int, height: int, width: int) -> tuple[Intrinsics, bool]:
        """The camera for a colour image of that size, and whether its y axis had to be turned."""
        config, size = self.config, self.config.intrinsics_size
        if self._camera is not None and self._camera[index] is not None:
            values, own_size, _ = read_frame_camera(self.path / self._camera[index])
        elif config.intrinsics_file is not None:
            name = config.intrinsics_file.replace("{sequence}", self._sequences[index])
            if name not in self._cameras:
                self._cameras[name] = read_intrinsics(self.path / name)
            values, own_size = self._cameras[name]
        elif config.intrinsics is not None:
            values, own_size = list(config.intrinsics), None
        else:
            focal = float(width / 2 / np.tan(np.radians((config.field_of_view or 60.0) / 2)))
            values, own_size = [focal, focal, (width - 1) / 2, (height - 1) / 2], (height, width)
        old_height, old_width = size or own_size or (height, width)
        turned = values[1] < 0
        camera = Intrinsics(float(values[0]), abs(float(values[1])), float(values[2]), float(values[3]))
        return camera.resized(height / old_height, width / old_width), turned

    def _pose_of(self, index: int, turned: bool) -> np.ndarray | None:
        """Camera-to-world with our axes, or None."""
        pose = self._trajectory.get(index)
        if self._pose is not None and self._pose[index] is not None:
            pose = read_pose(self.path / self._pose[index])
        elif pose is None and self._camera is not None and self._camera[index] is not None:
            pose = read_frame_camera(self.path / self._camera[index])[2]
        if pose is None:
            return None
        if turned:  # an upward y axis: mirror camera and world, so that the motion stays a rotation
            pose = _TURN_Y @ pose @ _TURN_Y
        return pose @ _FROM_OPENGL if self.config.pose_axes == "opengl" else pose

    def _kinds_of_labels(self) -> frozenset[str]:
        has_label = self._label is not None and any(file is not None for file in self._label)
        has_instance = self._instance is not None and any(file is not None for file in self._instance)
        kinds = {"semantic"} if has_label and self.config.semantic_map else set()
        if has_instance or (has_label and self.config.instance_divisor is not None):
            kinds.add("instance")
        return frozenset(kinds)

    def _labels_of(self, index: int) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Semantic uint8 and instance int32 on the label's own grid, each None where there is none."""
        semantic = instance = None
        if self._label is not None and self._label[index] is not None:
            labels = read_labels(self.path / self._label[index])
            if self.config.semantic_map:
                semantic = map_labels(labels, self.config.semantic_map, IGNORE_LABEL)
                self._unmapped[index] = labels.size, ids_without_class(labels, self.config.semantic_map)
            if self.config.instance_divisor is not None:
                instance = labels // self.config.instance_divisor
        if self._instance is not None and self._instance[index] is not None:
            instance = read_labels(self.path / self._instance[index])
        return semantic, instance

    def unmapped_labels(self) -> tuple[dict[int, int], int, int]:
        """Ids of the label pictures read so far that are in no row of the ``semantic_map``.

        Returns:
            Pixels by id, ascending; how many pixels and how many label pictures were read.
        """
        found, seen = Counter(), list(self._unmapped.values())
        for _, counts in seen:
            found.update(counts)
        return dict(sorted(found.items())), sum(pixels for pixels, _ in seen), len(seen)

    def __len__(self) -> int:
        """How many frames."""
        return len(self._color)

    def sequence(self, index: int) -> str:
        """The sequence, from the wildcards that stand for folders, ``sequence`` or ``sequence_ranges``, after its scene type."""
        return self._names[index]

    def frame_name(self, index: int) -> str:
        """The colour file's path without its ending."""
        return self._color[index].rsplit(".", 1)[0]

    def read(self, index: int) -> RGBDFrame:
        """Read one frame; depth and labels come to the grid that ``config.grid`` names, by nearest neighbour.

        Raises:
            FrameError: unreadable, or shapes of different aspect; names the file.
        """
        where = self.path / self._color[index]
        color = read_color(where)
        height, width = color.shape[:2]
        camera, turned = self._camera_of(index, height, width)
        depth, is_valid = np.zeros((height, width), np.float32), np.zeros((height, width), bool)
        if self._depth is not None:
            depth, is_valid = read_depth(self.path / self._depth[index], self.config.encoding)
            self._check_aspect(depth.shape, color.shape, self._depth[index])
            if self.config.grid == "depth" and depth.shape != (height, width):
                camera = camera.resized(depth.shape[0] / height, depth.shape[1] / width)
                height, width = depth.shape
                color = resize_color(color, height, width)
        semantic, instance = self._labels_of(index)
        for labels, files in ((semantic, self._label), (instance, self._instance or self._label)):
            if labels is not None:
                self._check_aspect(labels.shape, color.shape, files[index])
        on_grid = [None if picture is None else _nearest(picture, height, width)
                   for picture in (depth, is_valid, semantic, instance)]
        return RGBDFrame(color, on_grid[0], on_grid[1], camera, self._pose_of(index, turned), *on_grid[2:],
                         origin=FrameOrigin(self.name, self.sequence(index), self.frame_name(index)))

    def _check_aspect(self, shape: tuple, color_shape: tuple, name: str) -> None:
        aspect, wanted = shape[1] / shape[0], color_shape[1] / color_shape[0]
        if abs(aspect / wanted - 1) > ASPECT_TOLERANCE:
            raise FrameError(f"the colour's aspect ratio (colour is {color_shape[0]}x{color_shape[1]})",
                             f"{shape[0]}x{shape[1]}",
                             "Register or crop both to the same field of view first; scaling would misalign them.",
                             self.path / name)

    def describe(self) -> dict[str, Any]:
        """What was opened and what was assumed, as plain JSON values."""
        grid = {"color": "depth is enlarged to the colour's size where they differ",
                "depth": "colour is reduced to the depth's size where they differ"}[self.config.grid]
        config = {key: value for key, value in self.config.changed().items() if key != "notes"}
        return {"source": self.name, "path": str(self.path), "frames": len(self),
                "sequences": len(set(self._names)), "config": config,
                "depth_encoding": self.config.encoding.describe() if self._depth else "no depth",
                "grid": grid, "poses": self._poses_from, "notes": list(self.config.notes)}


def _nearest(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """Nearest neighbour, for depth and labels."""
    if picture.shape == (height, width):
        return picture
    rows, columns = nearest_indices(picture.shape[0], height), nearest_indices(picture.shape[1], width)
    return np.ascontiguousarray(picture[rows][:, columns])
