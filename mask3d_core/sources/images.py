"""Decoding colour, depth and label files: every way of storing depth becomes metres and a validity mask."""

from __future__ import annotations

import io
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mask3d_core.errors import ConfigError, FrameError
from mask3d_core.sources.patterns import name_some

DEPTH_KINDS = ("linear", "sun", "kinect", "metres")
LARGEST_IMAGE = 64_000_000  # pixels; a damaged header can claim any size
_KINECT_MISSING = 2047


@dataclass(frozen=True)
class DepthEncoding:
    """How a file stores depth.

    Args:
        kind: "linear" (value / units_per_metre), "sun" (SUN RGB-D: 16 bits rotated left by 13, then linear),
            "kinect" (raw Kinect disparity d, metres = 351.3 / (1092.5 - d), 2047 missing, either byte order; as in
            the NYUv2 raw files and Open3D's converter), or "metres" (floating point).
        units_per_metre: for linear and sun: 1000 for millimetres, 5000 for TUM.
        missing: stored values that mean "not measured". NaN, infinity, zero and negative values always do.

    Raises:
        ConfigError: unknown kind, or units that are not positive.
    """

    kind: str = "linear"
    units_per_metre: float = 1000.0
    missing: tuple[float, ...] = (0.0, 65535.0)

    def __post_init__(self):
        problems = []
        if self.kind not in DEPTH_KINDS:
            problems.append(f"depth encoding must be one of {', '.join(DEPTH_KINDS)}; got {self.kind!r}")
        if not (np.isfinite(self.units_per_metre) and self.units_per_metre > 0):
            problems.append(f"depth units per metre must be above 0; got {self.units_per_metre}")
        if problems:
            raise ConfigError(problems)

    def describe(self) -> str:
        """In words."""
        return {"linear": f"{self.units_per_metre:g} units per metre",
                "sun": f"SUN RGB-D rotated bits, {self.units_per_metre:g} units per metre",
                "kinect": "raw Kinect disparity", "metres": "floating-point metres"}[self.kind]


def _open_image(path: str | os.PathLike, is_turned: bool = False):
    """A decoded Pillow image, turned as its EXIF orientation says if that is asked for.

    Pillow raises a dozen kinds of exceptions for damaged files: all mean the same here.
    """
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise FrameError("Pillow to read image files", str(error), "pip install pillow", path) from error
    try:
        content = Path(path).read_bytes()
        _check_png(content)
        with Image.open(io.BytesIO(content)) as image:
            if image.width * image.height > LARGEST_IMAGE:
                raise FrameError(f"at most {LARGEST_IMAGE / 1e6:.0f} million pixels", f"{image.width}x{image.height}",
                                 "The header may be damaged; otherwise make the images smaller.", path)
            image.load()
            return ImageOps.exif_transpose(image) if is_turned else image
    except FrameError:
        raise
    except Exception as error:
        raise FrameError("a readable image file", f"{type(error).__name__}: {error}".strip(": "),
                         "The file is missing, cut short, or not an image; copy it again or remove it.", path
                         ) from error


def _check_png(content: bytes) -> None:
    """Compare the checksums of a PNG's pixels. Pillow does not, so flipped bits would pass as other depths.

    Raises:
        ValueError: a checksum does not fit, or the file ends early. Other formats pass.
    """
    if not content.startswith(b"\x89PNG\r\n\x1a\n"):
        return
    view, at = memoryview(content), 8
    while at + 12 <= len(content):
        length = int.from_bytes(view[at:at + 4], "big")
        end = at + 8 + length
        if end + 4 > len(content):
            break
        kind = bytes(view[at + 4:at + 8])
        if kind in (b"IHDR", b"PLTE", b"IDAT", b"IEND") and zlib.crc32(view[at + 4:end]) != int.from_bytes(
                view[end:end + 4], "big"):
            raise ValueError(f"the checksum of its {kind.decode()} does not fit")
        if kind == b"IEND":
            return
        at = end + 4
    raise ValueError("the file ends before the picture does")


def read_color(path: str | os.PathLike, is_turned: bool = False) -> np.ndarray:
    """Read a colour image (JPEG, PNG, PPM, ...). Grey becomes RGB.

    Args:
        path: the file.
        is_turned: turn it as its EXIF orientation says, as viewers of photographs do. By default it is ignored: the depth of a
            frame has none, and the two must stay aligned.

    Returns:
        uint8 (H, W, 3), RGB.

    Raises:
        FrameError: unreadable, or not an 8-bit image.
    """
    image = _open_image(path, is_turned)
    if image.mode in ("F", "I") or image.mode.startswith("I;"):
        raise FrameError("an 8-bit colour image", f"a single channel of mode {image.mode}",
                         "This looks like a depth image; correct the colour file pattern.", path)
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def _read_array_file(path: Path) -> np.ndarray:
    """The picture in a .npy or .npz file (the array named "depth", or the only one)."""
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            names = loaded.files
            if len(names) == 1 or "depth" in names:
                array = loaded["depth" if "depth" in names else names[0]]
                if not isinstance(array, np.ndarray):  # numpy hands out the bytes of a member without its signature
                    raise ValueError("a member that is no array")
                return array
    except Exception as error:  # zipfile, zlib, tokenize, struct, EOF: all mean a damaged file
        raise FrameError("a readable NumPy file", f"{type(error).__name__}: {error}",
                         "The file is missing or cut short; write it again.", path) from error
    raise FrameError('one array, or one named "depth"', f"arrays {', '.join(names) or 'none'}",
                     "Save the depth alone.", path)


def _read_exr(path: Path) -> np.ndarray:
    """The depth channel of an OpenEXR file: Z, Y, R or the only channel."""
    try:
        import OpenEXR
    except ImportError as error:
        raise FrameError("the OpenEXR package to read .exr files", "no such package",
                         "pip install OpenEXR, or convert the depth to .npy in metres or 16-bit PNG.", path) from error
    try:
        with OpenEXR.File(str(path), separate_channels=True) as file:
            channels = {name: np.array(channel.pixels) for name, channel in file.channels().items()}
    except Exception as error:
        raise FrameError("a readable OpenEXR file", f"{type(error).__name__}: {error}", "Write it again.", path
                         ) from error
    for name in ("Z", "depth", "Y", "R", *channels):
        if name in channels:
            return channels[name]
    raise FrameError("a depth channel", "no channels", "Write the depth as channel Z.", path)


def read_raw(path: str | os.PathLike) -> np.ndarray:
    """A single-channel picture with the values as stored: depth in file units, or label ids.

    Args:
        path: an image of 1 channel, or .npy, .npz, .exr.

    Returns:
        (H, W), integer or floating point, whatever the file holds.

    Raises:
        FrameError: unreadable, or several channels.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix in (".npy", ".npz"):
        values = _read_array_file(path)
    elif suffix == ".exr":
        values = _read_exr(path)
    else:
        image = _open_image(path)
        if image.mode not in ("L", "P", "1", "I", "F") and not image.mode.startswith("I;"):
            raise FrameError("a picture with one channel", f"mode {image.mode}",
                             "A coloured depth or label picture holds no values; save the values themselves.", path)
        values = np.array(image)
    values = values[..., 0] if values.ndim == 3 and values.shape[2] == 1 else values
    if values.ndim != 2 or not values.size or values.dtype.kind not in "biuf":
        raise FrameError("numbers as (H, W)", f"{values.dtype} {values.shape}", "Save one picture per file.", path)
    if values.size > LARGEST_IMAGE:
        raise FrameError(f"at most {LARGEST_IMAGE / 1e6:.0f} million pixels", str(values.shape),
                         "Make the images smaller.", path)
    return values


def _kinect_disparity(raw: np.ndarray, path) -> np.ndarray:
    """Disparities 0..2047 in the machine's byte order; the raw NYUv2 files have theirs swapped."""
    raw = raw.astype(np.uint16)
    for candidate in (raw, raw.byteswap()):
        if candidate.max() <= _KINECT_MISSING:
            return candidate
    raise FrameError("raw Kinect disparities 0..2047", f"values up to {raw.max()}",
                     "This is not raw disparity; choose another depth encoding.", path)


def decode_depth(raw: np.ndarray, encoding: DepthEncoding, where: object = None) -> tuple[np.ndarray, np.ndarray]:
    """Metres from stored values.

    Args:
        raw: (H, W) as stored.
        encoding: how.
        where: the file, for the error's sake.

    Returns:
        depth float32 (H, W) in metres, 0 where missing; and is_valid bool (H, W).

    Raises:
        FrameError: values that this encoding cannot hold (8 bits, floats for bit tricks, integers for metres).
    """
    if raw.dtype.kind == "b" or (raw.dtype.kind in "iu" and raw.dtype.itemsize == 1):
        raise FrameError("depth of 16 bits or more, or floating point", f"8-bit values up to {int(raw.max())}",
                         "A loader or converter cut the depth to 8 bits; export it again as 16-bit PNG.", where)
    if encoding.kind in ("sun", "kinect") and (raw.dtype.kind == "f" or raw.min() < 0 or raw.max() > 65535):
        raise FrameError(f"16-bit integers for the encoding {encoding.kind!r}",
                         f"{raw.dtype} from {raw.min()} to {raw.max()}", "Choose another depth encoding.", where)
    if encoding.kind == "metres" and raw.dtype.kind != "f":
        raise FrameError("floating-point metres", f"{raw.dtype}",
                         'Use the encoding "linear" and say how many units make a metre.', where)

    is_missing = np.zeros(raw.shape, bool)
    for value in encoding.missing:
        is_missing |= raw == value
    with np.errstate(all="ignore"):
        if encoding.kind == "kinect":
            disparity = _kinect_disparity(raw, where)
            is_missing = disparity == _KINECT_MISSING
            metres = np.float32(351.3) / (np.float32(1092.5) - disparity.astype(np.float32))
        elif encoding.kind == "sun":
            bits = raw.astype(np.uint16)
            metres = ((bits << 13) | (bits >> 3)).astype(np.float32) / np.float32(encoding.units_per_metre)
        elif encoding.kind == "linear":
            metres = raw.astype(np.float32) / np.float32(encoding.units_per_metre)
        else:
            metres = raw.astype(np.float32)
        is_valid = ~is_missing & np.isfinite(metres) & (metres > 0)
    return np.where(is_valid, metres, np.float32(0)), is_valid


def read_depth(path: str | os.PathLike, encoding: DepthEncoding = DepthEncoding()) -> tuple[np.ndarray, np.ndarray]:
    """Read a depth file.

    Args:
        path: a 16-bit or float image (PNG, PGM, TIFF), .npy, .npz or .exr.
        encoding: how the values are stored.

    Returns:
        depth float32 (H, W) in metres, 0 where missing; and is_valid bool (H, W).

    Raises:
        FrameError: unreadable, cut to 8 bits, or not of that encoding; names the file.
    """
    return decode_depth(read_raw(path), encoding, path)


def read_labels(path: str | os.PathLike) -> np.ndarray:
    """Read a label picture with the ids as stored.

    Args:
        path: a single-channel image or .npy / .npz of integers.

    Returns:
        int32 (H, W).

    Raises:
        FrameError: unreadable, or not integers.
    """
    values = read_raw(path)
    if values.dtype.kind == "f":
        raise FrameError("integer label ids", f"{values.dtype}", "Save the ids as integers.", path)
    return values.astype(np.int32)


def map_labels(labels: np.ndarray, ranges: Sequence[Sequence[int]], ignore: int) -> np.ndarray:
    """Class ids from stored ids.

    Args:
        labels: int32 (H, W).
        ranges: rows of (lowest id, highest id, class id); the first row that holds an id wins.
        ignore: the class of every id that no row holds.

    Returns:
        uint8 (H, W).
    """
    classes = np.full(labels.shape, ignore, np.uint8)
    for low, high, class_id in reversed(ranges):
        classes[(labels >= low) & (labels <= high)] = class_id
    return classes


def ids_without_class(labels: np.ndarray, ranges: Sequence[Sequence[int]]) -> dict[int, int]:
    """Stored ids that no row of :func:`map_labels` holds.

    Returns:
        How many pixels, by id.
    """
    is_held = np.zeros(labels.shape, bool)
    for low, high, _ in ranges:
        is_held |= (labels >= low) & (labels <= high)
    ids, counts = np.unique(labels[~is_held], return_counts=True)
    return dict(zip(ids.tolist(), counts.tolist()))


def unmapped_words(counts: dict[int, int], pixels: int, pictures: int) -> str:
    """In one line, what a class map leaves out; empty where that is nothing. Arguments as ``unmapped_labels`` returns them."""
    if not counts:
        return ""
    ids, are = name_some([str(k) for k in counts]), "is" if len(counts) == 1 else "are"
    return (f"label{'' if len(counts) == 1 else 's'} {ids} {are} in no class: treated as ignore, "
            f"{100 * sum(counts.values()) / pixels:.1f} % of pixels ({pictures} label picture{'' if pictures == 1 else 's'})")
