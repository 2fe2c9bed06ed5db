"""Poses and times: trajectories as text, quaternions, and pairing measurements by their time stamps."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from mask3d_core.errors import FrameError


def read_lines(path: str | os.PathLike) -> list[str]:
    """The lines of a text file that hold something, without comments (#).

    Args:
        path: the file.

    Returns:
        Stripped lines.

    Raises:
        FrameError: unreadable, or not text.
    """
    try:
        text = Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FrameError("a readable text file", str(error), "Check the path and copy the file again.", path) from error
    lines = (line.split("#", 1)[0].strip() for line in text.splitlines())
    return [line for line in lines if line]


def numbers(words: list[str], where: object) -> np.ndarray:
    """float64 array of the words.

    Args:
        words: what should be numbers.
        where: the file, for the error's sake.

    Returns:
        float64 (n,); "nan" and "inf" are numbers.

    Raises:
        FrameError: a word is not a number.
    """
    try:
        return np.array([float(word) for word in words])
    except ValueError as error:
        raise FrameError("numbers", str(error), "Correct or remove that line.", where) from error


def _check_rotations(poses: np.ndarray, where: object) -> np.ndarray:
    rotation = poses[..., :3, :3]
    error = np.abs(rotation @ np.swapaxes(rotation, -1, -2) - np.eye(3)).max(initial=0)
    if not error < 0.01 or not (np.linalg.det(rotation) > 0).all():
        raise FrameError("camera-to-world poses whose upper left 3x3 is a rotation",
                         f"a matrix {error:.3g} away from one, or a mirror image",
                         "Check the order of the columns and the convention of the poses.", where)
    return poses


def pose_from_quaternion(translation: np.ndarray, quaternion: np.ndarray, where: object = None) -> np.ndarray:
    """4x4 poses from TUM's t and q.

    Args:
        translation: (..., 3) metres.
        quaternion: (..., 4) x y z w, of any length but 0.
        where: the file, for the error's sake.

    Returns:
        float64 (..., 4, 4).

    Raises:
        FrameError: not finite, or a quaternion of length 0.
    """
    length = np.linalg.norm(quaternion, axis=-1, keepdims=True)
    if not (np.isfinite(length).all() and np.isfinite(translation).all() and (length > 1e-6).all()):
        raise FrameError("finite positions and quaternions longer than 0", "others",
                         "Remove those lines of the trajectory.", where)
    x, y, z, w = np.moveaxis(quaternion / length, -1, 0)
    pose = np.zeros(translation.shape[:-1] + (4, 4))
    rows = ((1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)),
            (2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)),
            (2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)))
    for i, row in enumerate(rows):
        for j, value in enumerate(row):
            pose[..., i, j] = value
    pose[..., :3, 3] = translation
    pose[..., 3, 3] = 1
    return pose


def read_trajectory(path: str | os.PathLike) -> tuple[np.ndarray, np.ndarray]:
    """A trajectory file: TUM (time tx ty tz qx qy qz qw per line) or Redwood's .log (three integers, then 4x4).

    Args:
        path: the file.

    Returns:
        keys float64 (n,), ascending: time stamps, or frame numbers in a .log; and poses float64 (n, 4, 4),
        camera-to-world as stored.

    Raises:
        FrameError: another format, or matrices that are no rigid motions.
    """
    rows = [line.replace(",", " ").split() for line in read_lines(path)]
    widths = {len(row) for row in rows}
    if widths == {8}:
        values = numbers([word for row in rows for word in row], path).reshape(-1, 8)
        keys, poses = values[:, 0], pose_from_quaternion(values[:, 1:4], values[:, 4:8], path)
    elif rows and len(rows) % 5 == 0 and all(len(row) == (4 if i % 5 else 3) for i, row in enumerate(rows)):
        keys = numbers([rows[i][0] for i in range(0, len(rows), 5)], path)
        poses = numbers([word for i, row in enumerate(rows) if i % 5 for word in row], path).reshape(-1, 4, 4)
    else:
        raise FrameError("lines of 8 numbers (time t q), or blocks of 3 integers and a 4x4 matrix",
                         f"{len(rows)} lines of {sorted(widths)} words", "Convert the trajectory to one of the two.",
                         path)
    if not (np.isfinite(keys).all() and np.isfinite(poses).all()):
        raise FrameError("finite numbers", "NaN or infinity", "Remove those poses from the trajectory.", path)
    order = np.argsort(keys, kind="stable")
    return keys[order], _check_rotations(poses, path)[order]


def read_pose(path: str | os.PathLike) -> np.ndarray | None:
    """One 4x4 camera-to-world matrix as text; None where tracking was lost (entries that are not finite).

    Args:
        path: the file.

    Returns:
        float64 (4, 4), or None.

    Raises:
        FrameError: unreadable, or not a rigid motion.
    """
    values = numbers(" ".join(read_lines(path)).replace(",", " ").split(), path)
    if values.size not in (12, 16):
        raise FrameError("a 4x4 or 3x4 matrix", f"{values.size} numbers", "Give one matrix per file.", path)
    pose = np.eye(4)
    pose[:values.size // 4] = values.reshape(-1, 4)
    return _check_rotations(pose, path) if np.isfinite(pose).all() else None


def associate(first: np.ndarray, second: np.ndarray, max_difference: float) -> tuple[np.ndarray, np.ndarray]:
    """Pair two lists of time stamps, closest pairs first, each stamp used once (as TUM's associate.py does).

    Args:
        first: (n,) seconds, any order.
        second: (m,) seconds, any order.
        max_difference: seconds; pairs further apart are not made.

    Returns:
        Two index arrays of equal length, ascending in the time of ``first``.
    """
    order = np.argsort(second, kind="stable")
    times = second[order]
    low = np.searchsorted(times, first - max_difference, "left")
    high = np.searchsorted(times, first + max_difference, "right")
    counts = np.maximum(high - low, 0)
    left = np.repeat(np.arange(len(first)), counts)
    offset = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    right = order[np.repeat(low, counts) + offset]
    pairs, used = [], set()
    taken = np.zeros(len(first), bool)
    for k in np.argsort(np.abs(first[left] - second[right]), kind="stable"):
        i, j = int(left[k]), int(right[k])
        if not taken[i] and j not in used:
            taken[i] = True
            used.add(j)
            pairs.append((i, j))
    found = np.array(pairs, np.int64).reshape(-1, 2)
    found = found[np.argsort(first[found[:, 0]], kind="stable")]
    return found[:, 0], found[:, 1]


def nearest(keys: np.ndarray, wanted: np.ndarray, max_difference: float) -> np.ndarray:
    """For each wanted key the index of the nearest one, or -1 when none is near enough.

    Args:
        keys: (n,) ascending.
        wanted: (m,).
        max_difference: in the unit of the keys.

    Returns:
        int64 (m,).
    """
    if not len(keys):
        return np.full(len(wanted), -1, np.int64)
    right = np.clip(np.searchsorted(keys, wanted), 0, len(keys) - 1)
    left = np.maximum(right - 1, 0)
    best = np.where(np.abs(keys[left] - wanted) <= np.abs(keys[right] - wanted), left, right)
    return np.where(np.abs(keys[best] - wanted) <= max_difference, best, -1)
