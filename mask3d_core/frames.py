"""RGBDFrame: one RGB-D frame with its units, holes, camera and labels. The one currency of the house.

Conventions, everywhere:
    depth is metres along the optical axis (z, not the length of the ray), float32, 0 where not measured;
    ``is_valid`` is True where the sensor measured depth (holes are not masks);
    pixel centres lie on integers, so a resize by s moves a centre c to (c + 0.5) s - 0.5 and a flip to W - 1 - c;
    image size is (height, width); pose is camera-to-world with x right, y down, z forward.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from mask3d_core.errors import FrameError

IGNORE_LABEL = 255  # semantic label of a pixel that must not be scored
NO_INSTANCE = 0  # instance id of background
CROWD = 65535  # instance id of several objects that the truth does not tell apart (COCO's "iscrowd"): neither one object nor background
FARTHEST_PNG = 65534  # of a 16-bit depth picture that we write; 65535 is what many readers take for "not measured"


@dataclass(frozen=True)
class Intrinsics:
    """A pinhole camera in pixels of *this* image; pixel centres on integers.

    Args:
        fx, fy: focal lengths in pixels, positive.
        cx, cy: principal point in pixels.
    """

    fx: float
    fy: float
    cx: float
    cy: float

    def resized(self, scale_y: float, scale_x: float) -> Intrinsics:
        """The camera of the image resized by the two factors (new size / old size)."""
        return Intrinsics(self.fx * scale_x, self.fy * scale_y,
                          (self.cx + 0.5) * scale_x - 0.5, (self.cy + 0.5) * scale_y - 0.5)

    def cropped(self, top: int, left: int) -> Intrinsics:
        """The camera of a crop whose first pixel is (top, left)."""
        return Intrinsics(self.fx, self.fy, self.cx - left, self.cy - top)

    def flipped(self, width: int) -> Intrinsics:
        """The camera of the image mirrored left to right."""
        return Intrinsics(self.fx, self.fy, width - 1 - self.cx, self.cy)

    def as_array(self) -> np.ndarray:
        """float32 (4,): fx, fy, cx, cy."""
        return np.array([self.fx, self.fy, self.cx, self.cy], dtype=np.float32)

    @staticmethod
    def from_array(values) -> Intrinsics:
        """From any sequence of four numbers: fx, fy, cx, cy."""
        return Intrinsics(*(float(v) for v in values))

    def problems(self, height: int, width: int) -> list[str]:
        """What makes this camera impossible for an image of that size; empty when nothing does."""
        found = []
        values = (self.fx, self.fy, self.cx, self.cy)
        if not all(np.isfinite(values)):
            return [f"intrinsics are not finite: {values}"]
        if self.fx <= 0 or self.fy <= 0:
            found.append(f"focal lengths must be positive, got fx {self.fx:g}, fy {self.fy:g}")
        elif not 0.2 * width <= self.fx <= 10 * width:
            fov = 2 * np.degrees(np.arctan(width / 2 / self.fx))
            found.append(f"fx {self.fx:g} gives a horizontal field of view of {fov:.0f} degrees at width {width}")
        elif not 0.5 <= self.fx / self.fy <= 2:
            found.append(f"fx {self.fx:g} and fy {self.fy:g} differ by more than a factor of two")
        if not (0 <= self.cx <= width - 1 and 0 <= self.cy <= height - 1):
            found.append(f"principal point ({self.cx:g}, {self.cy:g}) lies outside the {height}x{width} image "
                         "(are these the intrinsics of another resolution?)")
        return found


@dataclass(frozen=True)
class FrameOrigin:
    """Where a frame came from.

    Args:
        source: kind of source ("rooms", "tum", "folder", ...).
        sequence: the recording or room it belongs to; data are split by sequence.
        name: the frame's own name within the sequence (a file stem, a number).
        timestamp: seconds, or NaN where the source has none.
    """

    source: str = "memory"
    sequence: str = ""
    name: str = ""
    timestamp: float = float("nan")

    def __str__(self) -> str:
        return "/".join(part for part in (self.source, self.sequence, self.name) if part)


@dataclass(frozen=True, repr=False)
class RGBDFrame:
    """One RGB-D frame. Checked on construction.

    Args:
        color: uint8 (H, W, 3), RGB.
        depth: float32 (H, W), metres; stored as 0 wherever ``is_valid`` is False.
        is_valid: bool (H, W), True where the sensor measured depth. All False: a frame without depth.
        intrinsics: the camera of this image.
        pose: camera-to-world, float64 (4, 4), or None.
        semantic: uint8 (H, W) class ids, ``IGNORE_LABEL`` where unlabelled, or None.
        instance: int32 (H, W) object ids, ``NO_INSTANCE`` for background, ``CROWD`` for objects not told apart, or None.
        origin: where it came from.

    Raises:
        FrameError: wrong dtype, shapes that differ, depth that is negative or not finite where valid.
    """

    color: np.ndarray
    depth: np.ndarray
    is_valid: np.ndarray
    intrinsics: Intrinsics
    pose: np.ndarray | None = None
    semantic: np.ndarray | None = None
    instance: np.ndarray | None = None
    origin: FrameOrigin = field(default_factory=FrameOrigin)

    def __post_init__(self):
        def check(ok, expected, got, remedy):
            if not ok:
                raise FrameError(expected, got, remedy, self.origin)

        color, depth, is_valid = self.color, self.depth, self.is_valid
        check(color.dtype == np.uint8 and color.ndim == 3 and color.shape[2] == 3,
              "colour as uint8 (H, W, 3)", f"{color.dtype} {color.shape}", "Convert it to 8-bit RGB.")
        size = color.shape[:2]
        check(depth.dtype == np.float32 and depth.shape == size, f"depth as float32 {size} in metres",
              f"{depth.dtype} {depth.shape}", "Divide raw depth by its scale and register it to the colour image.")
        check(is_valid.dtype == bool and is_valid.shape == size, f"is_valid as bool {size}",
              f"{is_valid.dtype} {is_valid.shape}", "Pass depth > 0 where 0 means missing.")
        measured = depth[is_valid]
        check(measured.size == 0 or bool(np.isfinite(measured).all() and measured.min() > 0),
              "valid depth to be finite and above 0 m",
              "NaN, infinite, zero or negative values among the valid pixels",
              "Set is_valid to False where depth is missing.")
        if not is_valid.all():
            object.__setattr__(self, "depth", np.where(is_valid, depth, np.float32(0)))
        for name, dtype in (("semantic", np.uint8), ("instance", np.int32)):
            labels = getattr(self, name)
            if labels is not None:
                check(labels.dtype == dtype and labels.shape == size, f"{name} labels as {np.dtype(dtype)} {size}",
                      f"{labels.dtype} {labels.shape}", "Resize labels with nearest neighbour, never with averaging.")
        if self.pose is not None:
            check(np.shape(self.pose) == (4, 4) and bool(np.isfinite(self.pose).all()),
                  "pose as a finite 4x4 camera-to-world matrix", str(np.shape(self.pose)),
                  "Pass None where the pose is unknown.")

    def __repr__(self) -> str:
        depth = "without depth"
        if self.has_depth:
            measured = self.depth[self.is_valid]
            depth = f"depth {measured.min():.2f}..{measured.max():.2f} m, {(~self.is_valid).mean():.0%} not measured"
        more = [name for name in ("pose", "semantic", "instance") if getattr(self, name) is not None]
        return (f"RGBDFrame({self.height} x {self.width}, {depth}, fx {self.intrinsics.fx:.1f} px"
                f"{', with ' + ', '.join(more) if more else ''}; {self.origin})")

    @property
    def height(self) -> int:
        """Rows."""
        return self.color.shape[0]

    @property
    def width(self) -> int:
        """Columns."""
        return self.color.shape[1]

    @property
    def has_depth(self) -> bool:
        """False for a frame in which nothing was measured."""
        return bool(self.is_valid.any())

    def _moved(self, move, intrinsics: Intrinsics, color: np.ndarray | None = None) -> RGBDFrame:
        """The frame with every picture sent through ``move``; one place, so nothing is left behind."""
        def apply(picture):
            return None if picture is None else np.ascontiguousarray(move(picture))

        return replace(
            self, color=apply(self.color) if color is None else color, depth=apply(self.depth),
            is_valid=apply(self.is_valid), semantic=apply(self.semantic), instance=apply(self.instance),
            intrinsics=intrinsics)

    def resize(self, height: int, width: int) -> RGBDFrame:
        """Resize to (height, width): colour by area averaging, depth and labels by nearest neighbour.

        A zoom changes the picture, not the distance: depth values stay as they are.
        """
        if (height, width) == (self.height, self.width):
            return self
        rows = nearest_indices(self.height, height)
        columns = nearest_indices(self.width, width)
        return self._moved(lambda picture: picture[rows][:, columns],
                           self.intrinsics.resized(height / self.height, width / self.width),
                           color=resize_color(self.color, height, width))

    def crop(self, top: int, left: int, height: int, width: int) -> RGBDFrame:
        """The rectangle of that size whose first pixel is (top, left).

        Raises:
            FrameError: the rectangle does not lie inside the image.
        """
        if top < 0 or left < 0 or top + height > self.height or left + width > self.width or min(height, width) < 1:
            raise FrameError(f"a crop inside {self.height}x{self.width}", f"{height}x{width} at ({top}, {left})",
                             "Choose a smaller crop or resize first.", self.origin)
        return self._moved(lambda picture: picture[top:top + height, left:left + width],
                           self.intrinsics.cropped(top, left))

    def flip(self) -> RGBDFrame:
        """Mirrored left to right. The pose is dropped: a mirrored camera is not a rigid motion of the old one."""
        return replace(self._moved(lambda picture: picture[:, ::-1], self.intrinsics.flipped(self.width)), pose=None)

    def fit(self, height: int, width: int) -> RGBDFrame:
        """Resize so that the target is covered, then crop its centre: any aspect ratio to (height, width)."""
        scale = max(height / self.height, width / self.width)
        rows, columns = max(height, round(self.height * scale)), max(width, round(self.width * scale))
        return self.resize(rows, columns).crop((rows - height) // 2, (columns - width) // 2, height, width)


def frames_with_class(semantic: np.ndarray, at_once: int = 4096) -> np.ndarray:
    """Which frames have a pixel with a class.

    Args:
        semantic: uint8 (n, H, W), may be mapped from disk.
        at_once: frames whose middle rows are looked at together; these tell of most frames, so that little is read.

    Returns:
        bool (n,).
    """
    found = np.zeros(len(semantic), bool)
    for start in range(0, len(semantic), at_once):
        found[start:start + at_once] = (semantic[start:start + at_once, semantic.shape[1] // 2] != IGNORE_LABEL).any(axis=1)
    for index in np.flatnonzero(~found):
        found[index] = (semantic[index] != IGNORE_LABEL).any()
    return found


def nearest_indices(old: int, new: int) -> np.ndarray:
    """For each new pixel centre the nearest old one, under c' = (c + 0.5) s - 0.5."""
    return np.clip(np.floor((np.arange(new) + 0.5) * (old / new)), 0, old - 1).astype(np.intp)


def _area_weights(old: int, new: int) -> np.ndarray:
    """float32 (new, old): how much each old pixel covers each new one; linear interpolation when enlarging."""
    if new >= old:
        centres = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
        low = np.minimum(np.floor(centres).astype(np.intp), max(old - 2, 0))
        weights = np.zeros((new, old), np.float32)
        high_share = (centres - low).astype(np.float32)
        weights[np.arange(new), low] = 1 - high_share
        weights[np.arange(new), np.minimum(low + 1, old - 1)] += high_share
        return weights
    edges = np.arange(new + 1) * (old / new)
    left, right = edges[:-1, None], edges[1:, None]
    cover = np.minimum(right, np.arange(1, old + 1)) - np.maximum(left, np.arange(old))
    cover = np.clip(cover, 0, None).astype(np.float32)
    return cover / cover.sum(axis=1, keepdims=True)


def _taps(old: int, new: int) -> tuple[np.ndarray, np.ndarray]:
    """The few old pixels under each new one and their weights, both (new, k)."""
    weights = _area_weights(old, new)
    k = int((weights > 0).sum(axis=1).max())
    first = np.minimum(np.argmax(weights > 0, axis=1), old - k)
    indices = first[:, None] + np.arange(k)
    return indices, np.take_along_axis(weights, indices, axis=1)


def resize_color(color: np.ndarray, height: int, width: int) -> np.ndarray:
    """uint8 (H, W, 3) to (height, width, 3): area averaging down, linear up. Rows first, then columns."""
    tall = np.zeros((height, *color.shape[1:]), np.float32)
    for rows, weights in zip(*(part.T for part in _taps(color.shape[0], height))):
        tall += color[rows] * weights[:, None, None]
    full = np.zeros((height, width, color.shape[2]), np.float32)
    for columns, weights in zip(*(part.T for part in _taps(color.shape[1], width))):
        full += tall[:, columns] * weights[:, None]
    return np.clip(np.rint(full), 0, 255).astype(np.uint8)
