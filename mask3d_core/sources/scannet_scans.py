"""One ScanNet scan, recorded (``.sens``) or exported to folders: its frames' numbers, and one raw frame at a time."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mask3d_core.errors import FrameError, Mask3DError
from mask3d_core.frames import Intrinsics
from mask3d_core.sources.cameras import read_intrinsics
from mask3d_core.sources.images import read_color, read_raw
from mask3d_core.sources.patterns import name_some
from mask3d_core.sources.poses import read_pose
from mask3d_core.sources.scannet_sens import index_frames, read_frame, read_header, relative_motion

UNITS_PER_METRE = 1000.0  # of exported depth
SCAN_NAME = re.compile(r"(scene\d{4})_(\d\d)")
_BELOW = ("", "scans", "scans_test", "scannet_frames_25k", "scannet_frames_test")


@dataclass(frozen=True)
class RawFrame:
    """One frame before colour is brought onto the depth grid.

    Args:
        color: uint8 (H, W, 3), RGB.
        raw_depth: integers (h, w), depth * ``units_per_metre``; 0 where not measured.
        units_per_metre: of the depth.
        color_camera, depth_camera: intrinsics of each picture.
        motion: (4, 4) from the depth camera's frame to the colour camera's, None where they coincide.
        pose: camera-to-world of the depth camera, float64 (4, 4), or None.
        timestamp: seconds, or NaN.
        label, instance: their files, or None.
        where: file and frame, for messages.
    """

    color: np.ndarray
    raw_depth: np.ndarray
    units_per_metre: float
    color_camera: Intrinsics
    depth_camera: Intrinsics
    motion: np.ndarray | None
    pose: np.ndarray | None
    timestamp: float
    label: Path | None
    instance: Path | None
    where: str


class SensScan:
    """A recorded scan. The index of frames is made when the first of them is read.

    Args:
        path: the ``.sens`` file.
        every: only frames whose number is a multiple of this.

    Attributes:
        name: the scan's, sceneXXXX_YY.
        numbers: int64 (n,), the number of each of those frames, ascending.
        total: how many frames there are of any number.
        label, instance: label files by frame number; none.

    Raises:
        FrameError: its header cannot be read.
    """

    def __init__(self, path: Path, every: int = 1):
        self.header = read_header(path)
        self.name, self.total = path.stem, self.header.count
        self.numbers = np.arange(0, self.total, every)
        self.label: dict[int, Path] = {}
        self.instance: dict[int, Path] = {}
        self._offsets: np.ndarray | None = None

    def read(self, place: int) -> RawFrame:
        """Read and decode a frame.

        Args:
            place: in ``numbers``.

        Raises:
            FrameError: cut short or damaged; names file and frame.
        """
        header, number = self.header, int(self.numbers[place])
        if self._offsets is None:  # two threads may both make it, and make the same
            self._offsets = index_frames(header)
        frame = read_frame(header, self._offsets, number)
        return RawFrame(frame.color, frame.raw_depth, header.units_per_metre, header.color_camera, header.depth_camera,
                        header.motion, frame.pose, frame.timestamp, None, None, f"{header.path}, frame {number}")


class ExportedScan:
    """A scan as ``color/ depth/`` and, where they are there, ``pose/ label/ instance/``, with its cameras' files.

    Args:
        folder: of the scan.
        every: only frames whose number is a multiple of this.

    Attributes:
        name, numbers, total, label, instance: as for :class:`SensScan`.

    Raises:
        Mask3DError: colour and depth that do not pair, names that are no numbers, or no file of intrinsics.
    """

    def __init__(self, folder: Path, every: int = 1):
        self.folder, names = folder, folder.resolve().parts[:-3:-1]  # scene0000_00/exported is that scene's export
        self.name = next((name for name in names if SCAN_NAME.fullmatch(name)), names[0])
        color, depth = (_numbered(folder / kind) for kind in ("color", "depth"))
        alone = sorted(set(color) ^ set(depth))
        if alone or not color:
            names = [f"{number} ({'no depth' if number in color else 'no colour'})" for number in alone]
            raise Mask3DError("a colour and a depth picture for every frame", name_some(names) or "no pictures",
                              "Unpack or export the scan again, or remove what has no partner.", folder)
        self.total = len(color)
        self.color, self.depth, self.pose, self.label, self.instance = (
            {number: folder / kind / name for number, name in files.items() if number % every == 0}
            for kind, files in (("color", color), ("depth", depth), *((kind, _numbered(folder / kind))
                                                                    for kind in ("pose", "label", "instance"))))
        self.numbers = np.array(sorted(self.color), np.int64)
        self._camera_files = [self._camera_file(kind) for kind in ("color", "depth")]
        self._cameras: tuple | None = None

    def _camera_file(self, kind: str) -> Path:
        names = (f"intrinsic/intrinsic_{kind}.txt", f"intrinsics_{kind}.txt", f"intrinsic_{kind}.txt")
        found = next((self.folder / name for name in names if (self.folder / name).is_file()), None)
        if found is None:
            raise Mask3DError(f"the {kind} camera's intrinsics ({' or '.join(names[:2])})", "no such file",
                              "Export the scan again with its intrinsics; colour is looked up through both cameras.",
                              self.folder)
        return found

    def _read_cameras(self) -> tuple[Intrinsics, Intrinsics, np.ndarray | None]:
        """Both cameras and the motion between them, read once."""
        if self._cameras is None:
            color, depth = (Intrinsics.from_array(read_intrinsics(file)[0]) for file in self._camera_files)
            extrinsics = []
            for kind in ("color", "depth"):
                file = self.folder / f"intrinsic/extrinsic_{kind}.txt"
                matrix = read_pose(file) if file.is_file() else np.eye(4)
                if matrix is None:
                    raise FrameError("finite extrinsics", "infinite ones", "Export the scan again.", file)
                extrinsics.append(matrix)
            self._cameras = color, depth, relative_motion(*extrinsics, self.folder)
        return self._cameras

    def read(self, place: int) -> RawFrame:
        """Read a frame's colour, depth and pose; labels stay in their files.

        Args:
            place: in ``numbers``.

        Raises:
            FrameError: unreadable; names the file.
        """
        number = int(self.numbers[place])
        cameras = self._read_cameras()
        pose = read_pose(self.pose[number]) if number in self.pose else None
        return RawFrame(read_color(self.color[number]), read_raw(self.depth[number]), UNITS_PER_METRE, *cameras, pose,
                        float("nan"), self.label.get(number), self.instance.get(number), str(self.depth[number]))


Scan = SensScan | ExportedScan


def _numbered(folder: Path) -> dict[int, str]:
    """The names of a folder's files by the number in them; empty where there is no such folder."""
    if not folder.is_dir():
        return {}
    found: dict[int, str] = {}
    for name in sorted(os.listdir(folder)):
        stem, suffix = os.path.splitext(name)
        if name.startswith(".") or not suffix:
            continue
        number = re.fullmatch(r"(?:frame-)?(\d{1,9})(?:\.(?:color|depth|pose))?", stem)
        if number is None or int(number[1]) in found:
            raise Mask3DError("files named by their frame's number, each once", name,
                              "Export the scan again, or use the source \"folder\".", folder)
        found[int(number[1])] = name
    return found


def is_exported(folder: Path) -> bool:
    """Whether a folder is a scan in folders: colour, depth and the intrinsics of both cameras."""
    return (folder / "color").is_dir() and (folder / "depth").is_dir() and any(
        (folder / form.format("color")).is_file() and (folder / form.format("depth")).is_file()
        for form in ("intrinsic/intrinsic_{}.txt", "intrinsics_{}.txt", "intrinsic_{}.txt"))


def is_scannet(path: Path) -> bool:
    """Whether a folder holds ScanNet scans, from the first that its name promises.

    Args:
        path: a folder.
    """
    if is_exported(path):
        return True
    for base in (path / below for below in _BELOW):
        names = sorted(os.listdir(base)) if base.is_dir() else []
        name = next((name for name in names if SCAN_NAME.fullmatch(name.removesuffix(".sens"))), None)
        if name is not None:
            here = base / name
            return here.suffix == ".sens" or is_exported(here) or (here / f"{name}.sens").is_file()
    return False


def scan_places(path: Path) -> list[Path]:
    """The ``.sens`` files and exported folders of a place, by scan name.

    Args:
        path: a ``.sens`` file, a scan's folder, or a folder of scans (also below scans/ or scannet_frames_25k/).

    Returns:
        Paths of ``.sens`` files and of scan folders. A scan that is there in both forms counts as exported.
    """
    if path.is_file():
        return [path] if path.suffix == ".sens" else []
    places: dict[str, Path] = {}
    for base in (path / below for below in _BELOW):
        names = sorted(os.listdir(base)) if base.is_dir() else []
        if base == path and {"color", "depth"} <= set(names):
            return [path]
        for name in names:
            here = base / name
            if here.suffix == ".sens" and here.is_file():
                places.setdefault(here.stem, here)
            elif here.is_dir() and not (base == path and name in _BELOW):
                if (here / "color").is_dir() and (here / "depth").is_dir():
                    places[name] = here
                else:
                    for file in sorted(file for file in os.listdir(here) if file.endswith(".sens")):
                        places.setdefault(Path(file).stem, here / file)
    return [places[name] for name in sorted(places)]


def find_scans(path: Path, every: int, how_to_get: str) -> list[Scan]:
    """Open all scans of a place, without reading a picture.

    Args:
        path: as for :func:`scan_places`.
        every: only frames whose number is a multiple of this.
        how_to_get: said when there is nothing.

    Returns:
        Scans, sorted by name.

    Raises:
        Mask3DError: nothing there, or scans that cannot be opened (the first of them, and how many).
    """
    if not path.exists():
        raise Mask3DError("ScanNet's .sens files or exported scans", "no such file or folder", how_to_get, path)
    places = scan_places(path)
    if not places:
        raise Mask3DError("ScanNet's .sens files or exported scans (color/ and depth/)", "neither", how_to_get, path)
    scans: list[Scan] = []
    problems: list[Mask3DError] = []
    for place in places:
        try:
            scans.append(SensScan(place, every) if place.suffix == ".sens" else ExportedScan(place, every))
        except Mask3DError as error:
            problems.append(error)
    if len(problems) == 1:
        raise problems[0]
    if problems:
        first = problems[0]
        raise Mask3DError(first.expected, f"{first.got} (and {len(problems) - 1} more scans cannot be opened)", first.remedy,
                          first.where)
    return scans
