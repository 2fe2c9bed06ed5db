"""ScanNet's ``.sens`` files, version 4: header, an index of frames made by seeking, and one frame at a time.

Little-endian, without padding (the format's description: ScanNet/ScanNet on GitHub, SensReader/README.md)::

    uint32 version 4 | uint64 length, sensor name | float32 4x4, rows first: colour intrinsics, colour extrinsics,
    depth intrinsics, depth extrinsics | int32 colour compression, depth compression | uint32 colour width, height,
    depth width, height | float32 depth units per metre | uint64 frames
    per frame: float32 4x4 camera-to-world (infinite: tracking lost) | uint64 colour and depth time stamps (microseconds)
    | uint64 colour and depth sizes in bytes | colour | depth
"""

from __future__ import annotations

import io
import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mask3d_core.errors import FrameError
from mask3d_core.frames import Intrinsics

VERSION = 4
COLOR_COMPRESSIONS = {0: "raw", 1: "png", 2: "jpeg"}
DEPTH_COMPRESSIONS = {0: "raw", 1: "zlib"}
_AGAIN = "Download the scan again."
_FRAME = struct.Struct("<16f4Q")
_LONGEST_NAME, _LARGEST_SIDE, _MOST_FRAMES = 4096, 16384, 1_000_000
_NO_MOTION = 1e-5  # metres, or entries of a rotation


@dataclass(frozen=True)
class SensHeader:
    """What a ``.sens`` file says of itself.

    Args:
        path: the file.
        sensor: name of the device.
        color_camera, depth_camera: intrinsics, each for its own picture.
        motion: float64 (4, 4) from the depth camera's frame to the colour camera's, None where they coincide. An
            extrinsic matrix takes points from its camera into the rig's frame, as ScanNet's own calibration uses it.
        color_compression, depth_compression: a word of the two tables above.
        color_size, depth_size: (height, width).
        units_per_metre: stored depth / this = metres.
        count: frames that the file claims to hold.
        first_frame: byte at which they begin.
    """

    path: Path
    sensor: str
    color_camera: Intrinsics
    depth_camera: Intrinsics
    motion: np.ndarray | None
    color_compression: str
    depth_compression: str
    color_size: tuple[int, int]
    depth_size: tuple[int, int]
    units_per_metre: float
    count: int
    first_frame: int


@dataclass(frozen=True)
class SensFrame:
    """One frame as stored.

    Args:
        color: uint8 (H, W, 3), RGB.
        raw_depth: uint16 (h, w) in the file's units, 0 where not measured.
        pose: camera-to-world of the depth camera, float64 (4, 4), or None where tracking was lost.
        timestamp: of the depth picture, seconds.
    """

    color: np.ndarray
    raw_depth: np.ndarray
    pose: np.ndarray | None
    timestamp: float


def relative_motion(color_extrinsic: np.ndarray, depth_extrinsic: np.ndarray, where: object) -> np.ndarray | None:
    """From the depth camera's frame to the colour camera's.

    Args:
        color_extrinsic, depth_extrinsic: (4, 4), from each camera's frame to the rig's.
        where: the file, for the error's sake.

    Returns:
        float64 (4, 4), or None where both cameras coincide.

    Raises:
        FrameError: one of them is no rigid motion.
    """
    for matrix in (color_extrinsic, depth_extrinsic):
        _check_rigid(matrix, "extrinsics", where)
    motion = np.linalg.inv(color_extrinsic.astype(np.float64)) @ depth_extrinsic
    return None if np.abs(motion - np.eye(4)).max() < _NO_MOTION else motion


def _check_rigid(matrix: np.ndarray, what: str, where: object) -> None:
    rotation = matrix[:3, :3].astype(np.float64)
    if not (np.isfinite(matrix).all() and np.abs(matrix[3] - (0, 0, 0, 1)).max() < 1e-3 and np.abs(matrix).max() < 1e6
            and np.abs(rotation @ rotation.T - np.eye(3)).max() < 0.01 and np.linalg.det(rotation) > 0):
        raise FrameError(f"{what} that are a rigid motion", "another 4x4 matrix", _AGAIN, where)


def _camera(matrix: np.ndarray, size: tuple[int, int], what: str, path: Path) -> Intrinsics:
    camera = Intrinsics(*(float(matrix[place]) for place in ((0, 0), (1, 1), (0, 2), (1, 2))))
    problems = camera.problems(*size)
    if problems:
        raise FrameError(f"a {what} camera that fits its {size[0]}x{size[1]} pictures", "; ".join(problems), _AGAIN, path)
    return camera


def read_header(path: str | os.PathLike) -> SensHeader:
    """Read the header of a ``.sens`` file; no picture is touched.

    Args:
        path: the file.

    Raises:
        FrameError: missing, another version, a compression that cannot be read, no frames, or damaged.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            return _parse_header(path, file)
    except OSError as error:
        raise FrameError("a readable .sens file", error.strerror or str(error), "Check the path and its permissions.", path
                         ) from error


def _parse_header(path: Path, file: io.BufferedReader) -> SensHeader:
    def take(form: str) -> tuple:
        content = file.read(struct.calcsize("<" + form))
        if len(content) < struct.calcsize("<" + form):
            raise FrameError("a .sens file with a whole header", f"one that ends after {file.tell()} bytes", _AGAIN, path)
        return struct.unpack("<" + form, content)

    (version,) = take("I")
    if version != VERSION:
        raise FrameError(f"a .sens file of version {VERSION}", f"version {version}",
                         "Check that this is a .sens file of ScanNet v2; older ones must be converted with its tools.", path)
    (length,) = take("Q")
    if length > _LONGEST_NAME:
        raise FrameError(f"a sensor's name of at most {_LONGEST_NAME} letters", str(length), _AGAIN, path)
    sensor = take(f"{length}s")[0].decode("utf-8", "replace")
    color_matrix, color_extrinsic, depth_matrix, depth_extrinsic = np.array(take("64f")).reshape(4, 4, 4)
    color_kind, depth_kind = take("2i")
    color_width, color_height, depth_width, depth_height = take("4I")
    (units,) = take("f")
    (count,) = take("Q")
    for kind, known, what in ((color_kind, COLOR_COMPRESSIONS, "colour"), (depth_kind, DEPTH_COMPRESSIONS, "depth")):
        if kind not in known:
            raise FrameError(f"{what} stored as {' or '.join(known.values())}", f"compression type {kind}",
                             "Export the scan with ScanNet's SensReader and open the exported folder.", path)
    sizes = (color_height, color_width), (depth_height, depth_width)
    if not all(1 <= side <= _LARGEST_SIDE for size in sizes for side in size):
        raise FrameError(f"pictures of 1..{_LARGEST_SIDE} pixels a side", f"{sizes[0]} colour, {sizes[1]} depth", _AGAIN, path)
    if not (np.isfinite(units) and units > 0):
        raise FrameError("depth units per metre above 0 (ScanNet: 1000)", str(units), _AGAIN, path)
    if not 1 <= count <= _MOST_FRAMES:
        raise FrameError(f"1..{_MOST_FRAMES} frames", str(count), _AGAIN if count else "Leave this scan out, or download "
                         "it again.", path)
    return SensHeader(path, sensor, _camera(color_matrix, sizes[0], "colour", path),
                      _camera(depth_matrix, sizes[1], "depth", path),
                      relative_motion(color_extrinsic, depth_extrinsic, path), COLOR_COMPRESSIONS[color_kind],
                      DEPTH_COMPRESSIONS[depth_kind], *sizes, float(units), count, file.tell())


def index_frames(header: SensHeader) -> np.ndarray:
    """Where the frames begin. Only their sizes are read; the pictures are passed over.

    Args:
        header: of the file.

    Returns:
        int64 (n,), n <= ``header.count``: the byte of every frame that the file holds whole. Fewer than the header
        claims: the file was cut short.

    Raises:
        FrameError: the file went away.
    """
    offsets = []
    try:
        with open(header.path, "rb", buffering=0) as file:
            size, at = file.seek(0, os.SEEK_END), header.first_frame
            while len(offsets) < header.count and at + _FRAME.size <= size:
                file.seek(at)
                color_bytes, depth_bytes = _FRAME.unpack(file.read(_FRAME.size))[-2:]
                end = at + _FRAME.size + color_bytes + depth_bytes
                if end > size:
                    break
                offsets.append(at)
                at = end
    except (OSError, struct.error) as error:
        raise FrameError("a readable .sens file", str(error), "Check the disk and copy the file again.", header.path
                         ) from error
    return np.array(offsets, np.int64)


def read_frame(header: SensHeader, offsets: np.ndarray, index: int) -> SensFrame:
    """Read and decode one frame.

    Args:
        header: of the file.
        offsets: as from :func:`index_frames`.
        index: the frame's number in the file.

    Raises:
        FrameError: the file ends before that frame does, or its pictures cannot be decoded; names file and frame.
    """
    where = f"{header.path}, frame {index}"
    if index >= len(offsets):
        raise FrameError(f"{header.count} frames", f"a file that ends inside frame {len(offsets)}",
                         f"It was cut short{f'; frames 0..{len(offsets) - 1} are whole' if len(offsets) else ''}. {_AGAIN}",
                         where)
    try:
        with open(header.path, "rb") as file:
            file.seek(int(offsets[index]))
            values = _FRAME.unpack(file.read(_FRAME.size))
            color, depth = file.read(values[-2]), file.read(values[-1])
    except (OSError, struct.error, OverflowError, MemoryError) as error:
        raise FrameError("a readable frame", str(error), "Check the disk and copy the file again.", where) from error
    pose = np.array(values[:16]).reshape(4, 4)
    if np.isfinite(pose).all():
        _check_rigid(pose, "a camera-to-world pose's numbers", where)
    else:
        pose = None
    return SensFrame(_decode_color(color, header, where), _decode_depth(depth, header, where), pose, values[17] / 1e6)


def _decode_color(content: bytes, header: SensHeader, where: str) -> np.ndarray:
    height, width = header.color_size
    if header.color_compression == "raw":
        if len(content) != height * width * 3:
            raise FrameError(f"{height * width * 3} bytes of colour", str(len(content)), _AGAIN, where)
        return np.frombuffer(content, np.uint8).reshape(height, width, 3)
    try:
        from PIL import Image
    except ImportError as error:
        raise FrameError("Pillow to read colour", str(error), "pip install pillow", where) from error
    try:
        with Image.open(io.BytesIO(content), formats=(header.color_compression.upper(),)) as image:
            if image.size != (width, height):
                raise FrameError(f"colour of {height}x{width}", f"{image.height}x{image.width}", _AGAIN, where)
            return np.array(image.convert("RGB"))
    except FrameError:
        raise
    except Exception as error:  # Pillow raises whatever its decoders stumble over
        raise FrameError(f"a readable {header.color_compression} picture", f"{type(error).__name__}: {error}", _AGAIN, where
                         ) from error


def _decode_depth(content: bytes, header: SensHeader, where: str) -> np.ndarray:
    height, width = header.depth_size
    wanted = height * width * 2
    if header.depth_compression == "zlib":
        decoder = zlib.decompressobj()
        try:
            content = decoder.decompress(content, wanted + 1)
        except zlib.error as error:
            raise FrameError("depth that can be decompressed", str(error), _AGAIN, where) from error
        if not decoder.eof:
            raise FrameError(f"compressed depth of {wanted} bytes", "longer data, or data that end early", _AGAIN, where)
    if len(content) != wanted:
        raise FrameError(f"{wanted} bytes of depth ({height}x{width})", str(len(content)), _AGAIN, where)
    return np.frombuffer(content, "<u2").reshape(height, width)
