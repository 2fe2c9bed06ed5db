"""Writers of small ScanNet data in the exact formats, made from the format's description and apart from the readers."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

COLOR_SIZE, DEPTH_SIZE = (96, 128), (48, 64)  # (height, width)
COLOR_K = (116.0, 116.5, 64.1, 47.2)
DEPTH_K = (57.0, 57.5, 31.6, 23.4)


def jpeg(color, quality=95):
    buffer = io.BytesIO()
    Image.fromarray(color).save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


def png(color):
    buffer = io.BytesIO()
    Image.fromarray(color).save(buffer, "PNG")
    return buffer.getvalue()


def matrix(fx, fy, cx, cy):
    """A 4x4 matrix of intrinsics, as ScanNet writes them."""
    full = np.eye(4)
    full[0, 0], full[1, 1], full[0, 2], full[1, 2] = fx, fy, cx, cy
    return full


def picture(number, size=COLOR_SIZE):
    """A colour picture without fine detail, brighter with its number."""
    rows, columns = np.mgrid[:size[0], :size[1]]
    return np.stack([rows * 200 // size[0], columns * 200 // size[1], np.full(size, number % 200)], -1).astype(np.uint8)


def millimetres(number, size=DEPTH_SIZE):
    """A depth picture with a hole in its first row."""
    depth = np.full(size, 1000 + 10 * number, np.uint16)
    depth[0, :5] = 0
    return depth


def pose_of(number):
    """Camera-to-world: so many metres along x; every seventh frame lost its tracking."""
    pose = np.eye(4)
    pose[0, 3] = number
    return np.full((4, 4), -np.inf) if number % 7 == 6 else pose


def sens_bytes(count=3, version=4, sensor=b"StructureSensor", color_k=COLOR_K, depth_k=DEPTH_K, color_extrinsic=None,
               depth_extrinsic=None, color_type=2, depth_type=1, units=1000.0, claimed=None, colors=None, depths=None,
               poses=None):
    """A whole .sens file. colors and depths: arrays by frame; else the pictures of this module."""
    colors = [picture(i) for i in range(count)] if colors is None else colors
    depths = [millimetres(i) for i in range(count)] if depths is None else depths
    out = io.BytesIO()
    out.write(struct.pack("<I", version))
    out.write(struct.pack("<Q", len(sensor)) + sensor)
    for one in (matrix(*color_k), color_extrinsic, matrix(*depth_k), depth_extrinsic):
        out.write(struct.pack("<16f", *np.asarray(np.eye(4) if one is None else one, float).ravel()))
    out.write(struct.pack("<i", color_type))
    out.write(struct.pack("<i", depth_type))
    for array in (colors[0] if colors else np.zeros((*COLOR_SIZE, 3)), depths[0] if depths else np.zeros(DEPTH_SIZE)):
        out.write(struct.pack("<I", array.shape[1]) + struct.pack("<I", array.shape[0]))
    out.write(struct.pack("<f", units))
    out.write(struct.pack("<Q", len(colors) if claimed is None else claimed))
    for i, (color, depth) in enumerate(zip(colors, depths)):
        first = {0: lambda c: c.tobytes(), 1: png, 2: jpeg}.get(color_type, jpeg)(color)
        second = depth.astype("<u2").tobytes()
        second = zlib.compress(second) if depth_type == 1 else second
        out.write(struct.pack("<16f", *(pose_of(i) if poses is None else poses[i]).ravel()))
        out.write(struct.pack("<Q", 1_000_000 + 33_333 * i))  # colour and depth time stamps in microseconds
        out.write(struct.pack("<Q", 1_000_500 + 33_333 * i))
        out.write(struct.pack("<Q", len(first)) + struct.pack("<Q", len(second)))
        out.write(first)
        out.write(second)
    out.write(struct.pack("<Q", 0))  # inertial frames
    return out.getvalue()


def write_sens(path, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(sens_bytes(**options))
    return path


def matrix_text(values):
    return "\n".join(" ".join(f"{v:f}" for v in row) for row in values) + "\n"


def write_export(folder, numbers=(0, 100, 200), benchmark=True, labels=None, instances=None, color_k=COLOR_K, depth_k=DEPTH_K,
                 color=picture, depth=millimetres):
    """A scan in folders: as in scannet_frames_25k (benchmark), or as SensReader exports it.

    labels and instances: number -> array, or None for none.
    """
    for kind in ("color", "depth", "pose", *(["label"] if labels else []), *(["instance"] if instances else [])):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    name = "{:06d}" if benchmark else "{}"
    for number in numbers:
        stem = name.format(number)
        (folder / f"color/{stem}.jpg").write_bytes(jpeg(color(number)))
        Image.fromarray(depth(number)).save(folder / f"depth/{stem}.png")
        (folder / f"pose/{stem}.txt").write_text(matrix_text(pose_of(number)))
        for kind, make in (("label", labels), ("instance", instances)):
            if make:
                Image.fromarray(make(number)).save(folder / f"{kind}/{stem}.png")
    place = folder if benchmark else folder / "intrinsic"
    place.mkdir(exist_ok=True)
    for kind, values in (("color", color_k), ("depth", depth_k)):
        file = f"intrinsics_{kind}.txt" if benchmark else f"intrinsic_{kind}.txt"
        (place / file).write_text(matrix_text(matrix(*values)))
        if not benchmark:
            (place / f"extrinsic_{kind}.txt").write_text(matrix_text(np.eye(4)))
    return folder


def write_lists(folder, **scans):
    """The official lists; scans: split name -> scan names."""
    for name, members in scans.items():
        (folder / f"scannetv2_{name}.txt").write_text("\n".join(members) + "\n")
