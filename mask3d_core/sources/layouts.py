"""Known layouts of RGB-D folders, recognised by what lies where; every assumption is written down."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from mask3d_core.errors import FrameError, Mask3DError
from mask3d_core.sources.folder_config import CONFIG_NAME, FolderConfig
from mask3d_core.sources.images import decode_depth, read_color, read_raw
from mask3d_core.sources.patterns import ARRAY_SUFFIXES, IMAGE_SUFFIXES, find_files

COLOR_FOLDERS = ("color", "colour", "rgb", "image", "images", "img")
DEPTH_FOLDERS = ("depth", "depths", "depth_raw")
KINECT = (525.0, 525.0, 319.5, 239.5)  # the PrimeSense / Kinect default of Open3D, Redwood and ICL-NUIM
_MOSD_TYPES = (  # the set's own README
    ("boxes", "learn0", "learn16"), ("stacked", "learn17", "learn24"), ("occluded", "learn25", "learn32"),
    ("cylindric", "learn33", "learn44"), ("boxes", "test0", "test15"), ("stacked", "test16", "test23"),
    ("occluded", "test24", "test30"), ("cylindric", "test31", "test42"), ("mixed", "test43", "test54"),
    ("complex", "test55", "test65"))
_FARTHEST_MEDIAN = 4.5  # metres; a whole indoor recording with a larger median depth is read with the wrong scale


def _stored(root: Path, pattern: str, count: int = 5) -> list[np.ndarray]:
    """A few depth pictures as stored, spread over the folder; unreadable ones are left out."""
    files = find_files(root, pattern)
    raws = []
    for k in sorted({int(k) for k in np.linspace(0, len(files) - 1, min(count, len(files)))}):
        try:
            raws.append(read_raw(root / files[k][1]))
        except FrameError:
            continue
    return raws


def guess_encoding(root: Path, pattern: str) -> tuple[dict, str]:
    """How depth is stored, from the values of a few files.

    Args:
        root: the folder.
        pattern: of the depth files.

    Returns:
        Keys for FolderConfig, and a sentence that says what was assumed and why.

    Raises:
        Mask3DError: files of one folder that disagree.
    """
    kinds = {}
    for raw in _stored(root, pattern):
        measured = raw[(raw > 0) & (raw < 65535)] if raw.dtype.kind in "iu" else raw[np.isfinite(raw) & (raw > 0)]
        if not measured.size:
            continue
        swapped = raw.astype(np.uint16).byteswap() if raw.dtype.kind in "iu" and raw.max() <= 65535 else raw
        if raw.dtype.kind == "f":
            kinds.setdefault("metres", []).append(float(np.median(measured)))
        elif (swapped == 2047).mean() > 0.001 and swapped.max() <= 2047 or (raw == 2047).mean() > 0.01 >= (
                raw > 2047).mean():
            kinds.setdefault("kinect", []).append(float(np.median(measured)))
        elif (measured.astype(np.int64) & 7 == 0).mean() > 0.8:  # rotated millimetres below 8192 end in three 0 bits
            kinds.setdefault("sun", []).append(float(np.median(measured)) / 8)
        else:
            kinds.setdefault("linear", []).append(float(np.median(measured)))
    if len(kinds) > 1:
        raise Mask3DError(f"one way of storing depth in {pattern!r}", f"several: {', '.join(sorted(kinds))}",
                          f"Write a {CONFIG_NAME} with a narrower pattern and depth_kind for one of them.", root)
    kind = next(iter(kinds), "linear")
    median = float(np.median(kinds.get(kind, [1000.0])))
    if kind == "metres":
        return ({"depth_kind": "linear", "depth_units_per_metre": 1000.0},
                "depth is floating point and large: taken as millimetres") if median > 100 else (
            {"depth_kind": "metres"}, "depth is floating point: taken as metres")
    if kind == "kinect":
        return {"depth_kind": "kinect"}, "depth holds 0..2047: taken as raw Kinect disparity (not registered)"
    if kind == "sun":
        return {"depth_kind": "sun"}, "depth values are divisible by 8: taken as SUN RGB-D's rotated bits"
    units = 5000.0 if median / 1000 > _FARTHEST_MEDIAN else 1000.0
    return {"depth_units_per_metre": units}, (f"depth scale assumed: {units:g} units per metre "
                                              f"(median depth {median / units:.2f} m)")


def _is_file(root: Path, *names: str) -> str | None:
    return next((name for name in names if (root / name).is_file()), None)


def _subfolder(root: Path, names: tuple[str, ...]) -> str | None:
    return next((name for name in names if (root / name).is_dir()), None)


def _trajectory(root: Path) -> str | None:
    for folder in ("", "test_scene", "scene"):
        base = root / folder
        for name in sorted(os.listdir(base)) if base.is_dir() else []:
            if name in ("trajectory.log", "odometry.log") or name.endswith(("-traj.txt", ".gt.freiburg")):
                return f"{folder}/{name}".lstrip("/")
    return None


def _with_camera(root: Path, config: FolderConfig) -> FolderConfig:
    """Intrinsics from a file beside the pictures, else Kinect's for 640x480."""
    for name in ("camera.json", "intrinsics.json", "intrinsic.json", "camera_intrinsics.json", "camera_primesense.json",
                 "intrinsics.txt", "intrinsic.txt", "camera.txt", "camera-intrinsics.txt", "camera_matrix.csv",
                 "intrinsic/intrinsic_color.txt", "intrinsics_color.txt"):
        if (root / name).is_file():
            return replace(config, intrinsics_file=name, notes=(*config.notes, f"intrinsics from {name}"))
    try:
        size = read_color(root / find_files(root, config.color)[0][1]).shape[:2]
    except FrameError:
        size = (480, 640)
    if size == (480, 640):
        return replace(config, intrinsics=KINECT, intrinsics_size=size, notes=(
            *config.notes, "intrinsics assumed: 525 525 319.5 239.5, the default of a 640x480 Kinect or PrimeSense"))
    if config.depth is None:
        return replace(config, field_of_view=60.0, notes=(*config.notes, "field of view assumed: 60 degrees"))
    raise Mask3DError("the camera's intrinsics beside the pictures", f"no camera file, and {size[0]}x{size[1]} images "
                      "have no usual camera", f'Write a {CONFIG_NAME} with "intrinsics": [fx, fy, cx, cy] beside '
                      f'"color": "{config.color}", "depth": "{config.depth}".', root)


def _polycam(root: Path) -> FolderConfig | None:
    base = "keyframes" if (root / "keyframes").is_dir() else None
    if base is None or not (root / base / "depth").is_dir():
        return None
    is_corrected = (root / base / "corrected_images").is_dir() and (root / base / "corrected_cameras").is_dir()
    images, cameras = ("corrected_images", "corrected_cameras") if is_corrected else ("images", "cameras")
    return FolderConfig(
        color=f"{base}/{images}/*.{IMAGE_SUFFIXES}", depth=f"{base}/depth/*.png", camera=f"{base}/{cameras}/*.json",
        pose_axes="opengl", allow_unpaired=True,
        notes=("phone export (Polycam) recognised: 1000 units per metre, one camera file per frame, OpenGL axes",))


def _stray(root: Path) -> FolderConfig | None:
    if not (root / "camera_matrix.csv").is_file() or not (root / "depth").is_dir():
        return None
    color = _subfolder(root, COLOR_FOLDERS)
    if color is None:
        raise Mask3DError("colour files in rgb/", "a phone export (Stray Scanner) with its colour as a video",
                          "Extract it first: mkdir rgb && ffmpeg -i rgb.mp4 -start_number 0 rgb/%06d.jpg", root)
    return FolderConfig(color=f"{color}/*.{IMAGE_SUFFIXES}", depth="depth/*.{png,npy}",
                        intrinsics_file="camera_matrix.csv", allow_unpaired=True,
                        notes=("phone export (Stray Scanner) recognised: 1000 units per metre, camera_matrix.csv; "
                               "odometry.csv is not read",))


def _seven_scenes(root: Path) -> FolderConfig | None:
    for prefix in ("", "seq-*/"):
        if find_files(root, f"{prefix}frame-*.color.{{png,jpg}}"):
            has_pose = bool(find_files(root, f"{prefix}frame-*.pose.txt"))
            has_depth = bool(find_files(root, f"{prefix}frame-*.depth.png"))
            config = FolderConfig(
                color=f"{prefix}frame-*.color.{{png,jpg}}",
                depth=f"{prefix}frame-*.depth.png" if has_depth else None,
                pose=f"{prefix}frame-*.pose.txt" if has_pose else None,
                notes=("7-Scenes layout recognised: 1000 units per metre, 65535 is missing; "
                       "colour and depth are not registered in this set (9 to 15 px off)",))
            if _is_file(root, "camera.txt", "intrinsics.txt", "camera.json"):
                return _with_camera(root, config)
            return replace(config, intrinsics=(585.0, 585.0, 320.0, 240.0), intrinsics_size=(480, 640), notes=(
                *config.notes, "intrinsics assumed: 585 585 320 240, the set's depth camera"))
    return None


def _scannet(root: Path) -> FolderConfig | None:
    for prefix in ("", "*/"):
        color = find_files(root, f"{prefix}color/*.{{jpg,png}}")
        if not color or not find_files(root, f"{prefix}pose/*.txt"):
            continue
        scene = color[0][1].rsplit("/color/", 1)[0] if prefix else ""
        camera = _is_file(root / scene, "intrinsic/intrinsic_color.txt", "intrinsics_color.txt", "intrinsic_color.txt")
        if camera is None:
            continue
        return FolderConfig(
            color=f"{prefix}color/*.{{jpg,png}}", depth=f"{prefix}depth/*.png", pose=f"{prefix}pose/*.txt",
            intrinsics_file=("{sequence}/" if prefix else "") + camera,
            notes=("ScanNet export recognised: 1000 units per metre, colour camera's intrinsics, poses per frame; "
                   "label/ and instance/ are read only with a semantic_map",))
    return None


def _mosd(root: Path) -> FolderConfig | None:
    labels = find_files(root, "label/*.png")
    if not labels or not all(path[len("label/"):].startswith(("learn", "test")) for _, path in labels):
        return None
    return FolderConfig(
        color="color/*.png", depth="depth/*.png", label="label/*.png", intrinsics=KINECT, intrinsics_size=(480, 640),
        semantic_map=((1, 9, 0), (10, 1_000_000, 1)), instance_divisor=10, class_names=("table", "object"),
        sequence=r"([^/]+)\.png$", scene_types=_MOSD_TYPES,
        notes=("mOSD layout recognised: labels 1..9 table, 10 and above objects, 0 ignored; every frame is a scene "
               "of its own, named after its scene type; intrinsics 525 525 319.5 239.5",))


def _two_folders(root: Path) -> FolderConfig | None:
    """Redwood, ICL-NUIM, Open3D's recordings and their like: one folder of colour, one of depth."""
    color, depth = _subfolder(root, COLOR_FOLDERS), _subfolder(root, DEPTH_FOLDERS)
    if color is None or depth is None:
        return None
    if _is_file(root, "associations.txt", "rgb.txt"):
        raise Mask3DError("a folder whose files pair by name", "a TUM sequence, whose files pair by time stamp",
                          'Open it with the source "tum".', root)
    encoding, note = guess_encoding(root, f"{depth}/*.{ARRAY_SUFFIXES}")
    trajectory = _trajectory(root)
    notes = [f"folders {color}/ and {depth}/ recognised", note]
    if trajectory:
        notes.append(f"poses from {trajectory}")
    config = FolderConfig(color=f"{color}/*.{IMAGE_SUFFIXES}", depth=f"{depth}/*.{ARRAY_SUFFIXES}",
                          trajectory=trajectory, notes=tuple(notes), **encoding)
    return _with_camera(root, config)


def _side_by_side(root: Path) -> FolderConfig | None:
    """Colour and depth in one folder, told apart by their names: a_color.png beside a_depth.png."""
    for color, depth in (("*_color", "*_depth"), ("color_*", "depth_*"), ("*_rgb", "*_depth"), ("rgb_*", "depth_*"),
                         ("*-color", "*-depth"), ("*.color", "*.depth"), ("frame_*", "depth_*")):
        if find_files(root, f"{color}.{IMAGE_SUFFIXES}") and find_files(root, f"{depth}.{ARRAY_SUFFIXES}"):
            encoding, note = guess_encoding(root, f"{depth}.{ARRAY_SUFFIXES}")
            config = FolderConfig(color=f"{color}.{IMAGE_SUFFIXES}", depth=f"{depth}.{ARRAY_SUFFIXES}",
                                  notes=(f"files {color} and {depth} recognised", note), **encoding)
            return _with_camera(root, config)
    return None


def _color_only(root: Path) -> FolderConfig | None:
    for prefix in ("", *(f"{name}/" for name in COLOR_FOLDERS)):
        pattern = f"{prefix}*.{IMAGE_SUFFIXES}"
        if find_files(root, pattern):
            return FolderConfig(color=pattern, field_of_view=60.0,
                                notes=("colour only: no depth folder was found", "field of view assumed: 60 degrees"))
    return None


def detect_layout(root: Path) -> FolderConfig:
    """The config of a known layout.

    Args:
        root: the folder.

    Returns:
        A config whose ``notes`` say what was recognised and what was assumed.

    Raises:
        Mask3DError: nothing recognised, or something needed is missing; the line says what to write.
    """
    for recognise in (_polycam, _stray, _seven_scenes, _scannet, _mosd, _two_folders, _side_by_side, _color_only):
        config = recognise(root)
        if config is not None:
            if config.depth is not None and config.depth_kind == "linear" and config.depth_units_per_metre == 1000.0:
                _check_values(root, config)
            return config
    here = ", ".join(sorted(os.listdir(root))[:8]) or "an empty folder"
    raise Mask3DError("a folder of colour and depth files in a known layout", here,
                      f'Write a {CONFIG_NAME}, for example {{"color": "rgb/*.jpg", "depth": "d/*.png", '
                      '"depth_units_per_metre": 1000, "intrinsics": [525, 525, 319.5, 239.5]}', root)


def _check_values(root: Path, config: FolderConfig) -> None:
    """Depth that was cut to 8 bits is refused at once rather than at the first frame."""
    for raw in _stored(root, config.depth, count=1):
        decode_depth(raw, config.encoding, root / config.depth)
