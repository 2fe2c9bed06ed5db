"""How a folder of colour and depth files is to be read: a small JSON file, flags, or a guess with its assumptions."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mask3d_core.errors import ConfigError
from mask3d_core.frames import IGNORE_LABEL
from mask3d_core.sources.images import DEPTH_KINDS, DepthEncoding
from mask3d_core.sources.patterns import natural_key

CONFIG_NAME = "mask3d_folder.json"


@dataclass(frozen=True)
class FolderConfig:
    """What lies where in a folder. Patterns are relative to it; their wildcards pair the files."""

    color: str = "color/*.{png,jpg,jpeg,ppm}"
    """Pattern of the colour files. Wildcards that stand for folders name the sequence."""
    depth: str | None = None
    """Pattern of the depth files; none: frames without depth."""
    label: str | None = None
    """Pattern of the label files; frames without one are unlabelled."""
    instance: str | None = None
    """Pattern of separate instance files."""
    pairing: str = "key"
    """"key": files pair where wildcards stand for the same text or number; "order": first with first."""
    allow_unpaired: bool = False
    """Leave out colour or depth files without a partner, instead of refusing the folder."""
    depth_kind: str = "linear"
    """linear, sun (rotated bits), kinect (raw disparity) or metres (floating point)."""
    depth_units_per_metre: float = 1000.0
    """For linear and sun: stored units per metre."""
    depth_missing: tuple[float, ...] = (0.0, 65535.0)
    """Stored values that mean "not measured"; NaN, infinity and negative values always do."""
    grid: str = "color"
    """Where colour and depth differ in size: "color" (depth is enlarged) or "depth" (colour is reduced)."""
    intrinsics: tuple[float, float, float, float] | None = None
    """fx fy cx cy in pixels. A negative fy (ICL-NUIM) is an upward y axis: it is turned, poses too."""
    intrinsics_file: str | None = None
    """Instead: a file with a 3x3 or 4x4 matrix, four numbers, or Open3D's JSON; "{sequence}" is filled in."""
    intrinsics_size: tuple[int, int] | None = None
    """(height, width) of the image that the intrinsics refer to; by default the colour image."""
    camera: str | None = None
    """Pattern of one camera file per frame (JSON with fx fy cx cy, width, height and perhaps t_00 ... t_23)."""
    field_of_view: float | None = None
    """Without any intrinsics: assume this horizontal field of view in degrees (a Kinect has 63)."""
    pose: str | None = None
    """Pattern of one 4x4 camera-to-world text file per frame."""
    trajectory: str | None = None
    """Instead: one file for all, as TUM lines or Redwood .log; "{sequence}" is filled in."""
    pose_axes: str = "opencv"
    """Camera axes of the poses: "opencv" (y down, z forward) or "opengl" (y up, z backward; ARKit, Blender)."""
    semantic_map: tuple[tuple[int, int, int], ...] = ()
    """Rows (lowest id, highest id, class id); the first that holds an id wins; ids in no row are ignored, and said to be."""
    instance_divisor: int | None = None
    """Instance id = label // this (mOSD: 10), where there are no separate instance files."""
    class_names: tuple[str, ...] = ()
    """Names of the classes by class id."""
    sequence: str | None = None
    """Regular expression on the colour file's path; its first group is the sequence's name."""
    sequence_ranges: tuple[tuple[str, int, int], ...] = ()
    """Instead: rows (name, first index, last index) over the frames in order."""
    scene_types: tuple[tuple[str, str, str], ...] = ()
    """Rows (type, first sequence, last sequence), numbers in the names compared as numbers: the type is put before the
    sequence's name ("boxes/learn00"), so that a study can leave a type out while each sequence stays a scene of its own."""
    notes: tuple[str, ...] = ()
    """What was assumed, for people."""

    def problems(self) -> list[str]:
        """All that is wrong with it; empty when nothing is."""
        found = []
        for name, value, choices in (("pairing", self.pairing, ("key", "order")),
                                     ("grid", self.grid, ("color", "depth")),
                                     ("pose_axes", self.pose_axes, ("opencv", "opengl")),
                                     ("depth_kind", self.depth_kind, DEPTH_KINDS)):
            if value not in choices:
                found.append(f"{name} must be one of {', '.join(choices)}; got {value!r}")
        if not (np.isfinite(self.depth_units_per_metre) and self.depth_units_per_metre > 0):
            found.append(f"depth_units_per_metre must be above 0; got {self.depth_units_per_metre}")
        if self.depth is not None and not (self.intrinsics or self.intrinsics_file or self.camera
                                           or self.field_of_view):
            found.append('depth needs a camera: give "intrinsics": [fx, fy, cx, cy], or to assume one '
                         '"field_of_view": 63')
        if self.intrinsics is not None and not (
                np.isfinite(self.intrinsics).all() and self.intrinsics[0] > 0 and self.intrinsics[1] != 0):
            found.append(f"intrinsics must be finite with fx above 0; got {list(self.intrinsics)}")
        if self.intrinsics_size is not None and min(self.intrinsics_size) < 1:
            found.append(f"intrinsics_size must be (height, width) above 0; got {list(self.intrinsics_size)}")
        if self.field_of_view is not None and not 5 < self.field_of_view < 170:
            found.append(f"field_of_view must be between 5 and 170 degrees; got {self.field_of_view}")
        for low, high, class_id in self.semantic_map:
            if low > high or not 0 <= class_id <= 255:
                found.append(f"semantic_map rows are (lowest id, highest id, class 0..255); got "
                             f"{[low, high, class_id]}")
            elif self.class_names and class_id >= len(self.class_names) and class_id != IGNORE_LABEL:
                found.append(f"semantic_map's row {[low, high, class_id]} makes class {class_id}, and class_names has "
                             f"{len(self.class_names)} (0..{len(self.class_names) - 1}; {IGNORE_LABEL} is ignored)")
        if self.label is not None and not self.semantic_map and self.instance_divisor is None:
            found.append('labels need a "semantic_map" (rows of lowest id, highest id, class) or an '
                         '"instance_divisor"')
        if self.instance_divisor is not None and self.instance_divisor < 1:
            found.append(f"instance_divisor must be at least 1; got {self.instance_divisor}")
        for kind, first, last in self.scene_types:
            if not kind or "/" in kind or natural_key(first) > natural_key(last):
                found.append(f"scene_types rows are (type without /, first sequence, last sequence); got {[kind, first, last]}")
        if self.sequence is not None:
            try:
                if re.compile(self.sequence).groups < 1:
                    found.append(f"sequence {self.sequence!r} needs a group in parentheses")
            except re.error as error:
                found.append(f"sequence {self.sequence!r} is no regular expression: {error}")
        return found

    def validate(self, where: object = None) -> FolderConfig:
        """Itself, if nothing is wrong.

        Raises:
            ConfigError: all problems at once.
        """
        problems = self.problems()
        if problems:
            raise ConfigError(problems, where)
        return self

    @property
    def encoding(self) -> DepthEncoding:
        """How depth is stored."""
        return DepthEncoding(self.depth_kind, float(self.depth_units_per_metre),
                             tuple(float(value) for value in self.depth_missing))

    def changed(self) -> dict:
        """The keys that differ from the defaults, as JSON values."""
        return {f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self)
                if getattr(self, f.name) != f.default}

    def save(self, path: str | os.PathLike) -> Path:
        """Write the keys that differ from the defaults as JSON."""
        path = Path(path)
        path.write_text(json.dumps(self.changed(), indent=2) + "\n", "utf-8")
        return path

    @staticmethod
    def load(path: str | os.PathLike) -> FolderConfig:
        """Read a JSON file, or the ``mask3d_folder.json`` of a folder.

        Raises:
            ConfigError: unreadable, unknown keys, wrong types, impossible values: all at once.
        """
        path = Path(path)
        path = path / CONFIG_NAME if path.is_dir() else path
        try:
            values = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise ConfigError(f"not readable as JSON: {error}", path) from error
        if not isinstance(values, dict):
            raise ConfigError(f"must hold one JSON object; got {type(values).__name__}", path)
        fields = {f.name: f for f in dataclasses.fields(FolderConfig)}
        problems, given = [], {}
        for key, value in values.items():
            if key not in fields:
                problems.append(f"unknown key {key!r} (known: {', '.join(fields)})")
                continue
            try:
                given[key] = _convert(value, fields[key].type)
            except (ValueError, OverflowError):
                problems.append(f"{key} must be {fields[key].type}; got {json.dumps(value)[:200]}")
        if problems:
            raise ConfigError(problems, path)
        return FolderConfig(**given).validate(path)

    @staticmethod
    def detect(path: str | os.PathLike) -> FolderConfig:
        """The folder's own ``mask3d_folder.json``, or a known layout recognised; ``notes`` says what was assumed.

        Raises:
            ConfigError: nothing recognised; the line says what to write.
        """
        if (Path(path) / CONFIG_NAME).is_file():
            return FolderConfig.load(path)
        from mask3d_core.sources.layouts import detect_layout

        return detect_layout(Path(path))


def _plain(value):
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _convert(value, kind: str):
    """A JSON value as the type of FolderConfig's annotation (numbers, strings, tuples of them, or None).

    Raises:
        ValueError: it does not fit.
    """
    kind = kind.strip()
    if kind.endswith("| None"):
        return None if value is None else _convert(value, kind[:-len("| None")])
    if kind.startswith("tuple[") and isinstance(value, list):
        inner = _split_arguments(kind[len("tuple["):-1])
        if inner[-1] == "...":
            return tuple(_convert(item, inner[0]) for item in value)
        if len(value) == len(inner):
            return tuple(_convert(item, each) for item, each in zip(value, inner))
    if kind == "float" and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if kind == "int" and isinstance(value, int) and not isinstance(value, bool):
        return value
    if kind in ("str", "bool") and isinstance(value, {"str": str, "bool": bool}[kind]):
        return value
    raise ValueError(kind)


def _split_arguments(text: str) -> list[str]:
    """Split at the commas outside of brackets."""
    parts, level, start = [], 0, 0
    for i, letter in enumerate(text):
        level += (letter == "[") - (letter == "]")
        if letter == "," and level == 0:
            parts.append(text[start:i].strip())
            start = i + 1
    return [*parts, text[start:].strip()]
