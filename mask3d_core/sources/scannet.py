"""ScanNet (Dai et al., CVPR 2017): ``.sens`` recordings, exported scans and the benchmark's frames, colour on the depth grid."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mask3d_core.errors import ConfigError, FrameError, Mask3DError
from mask3d_core.frames import IGNORE_LABEL, NO_INSTANCE, FrameOrigin, Intrinsics, RGBDFrame
from mask3d_core.sources.images import DepthEncoding, decode_depth, read_raw
from mask3d_core.sources.nyu_classes import NYU40_NAMES, SCANNET20_IDS, class_table, instance_table
from mask3d_core.sources.patterns import name_some
from mask3d_core.sources.registration import color_positions, sample_color, sample_nearest, seen_pixels
from mask3d_core.sources.scannet_scans import SCAN_NAME, ExportedScan, RawFrame, Scan, find_scans

HOW_TO_GET = (
    "How to get ScanNet: it comes under terms of use and must not be passed on. Fill in the agreement at www.scan-net.org and "
    "send it from your institution's address to scannet@googlegroups.com; the answer brings a download script. Fetch the .sens "
    "files (pre-training) or scannet_frames_25k (fine-tuning, labelled), and put scannetv2_train.txt, scannetv2_val.txt and "
    "scannetv2_test.txt (github.com/ScanNet/ScanNet, Tasks/Benchmark) beside them.")
SPLIT_FILES = {name: f"scannetv2_{name}.txt" for name in ("train", "val", "test")}
CLASS_SETS = {"scannet20": SCANNET20_IDS, "nyu40": tuple(range(1, 41))}
_LABEL_SHIFT = 1000  # 16-bit instance pictures hold nyu40 label * 1000 + number


class ScanNet:
    """ScanNet scans. How to get them: ``HOW_TO_GET``.

    Opens a ``.sens`` file; a folder of ``sceneXXXX_YY/*.sens`` (also below ``scans/``); scans exported to ``color/ depth/
    pose/ intrinsic/``; and ``scannet_frames_25k`` (``sceneXXXX_YY/{color,depth,label,instance,pose}``). A frame lies on the
    grid of its depth camera: depth is untouched, colour and labels are looked up through both cameras' intrinsics and
    extrinsics (``sources/registration.py``). Depth pixels that the colour camera does not see become holes, black and
    ignored. A pose is camera-to-world in the frame of its scan; two scans of one scene have different worlds.

    A sequence is a *scene*: scene0000_00 and scene0000_01 are the same room and never part. Opening checks that every
    ``.sens`` header can be read, that colour and depth pair, that the cameras' files are there and that no scan is in two
    of the official lists; reading a frame checks its pictures, its cameras and its label ids.

    Args:
        path: file or folder.
        every: keep frames whose number is a multiple of this. 25 is the protocol of Pri3D, and most probably of Mask3D;
            the benchmark's frames, every 100th, are all kept.
        classes: "scannet20" (the benchmark's classes) or "nyu40"; ids that are not among them are ignored.
        split: only frames of "train", "val" or "test", by the official lists.
        lists: folder of the official lists; by default the data's folder and its parent (there also Tasks/Benchmark).
        color_intrinsics_size: (height, width) that the colour intrinsics refer to, where exported colour was made smaller.

    Raises:
        Mask3DError: nothing found (with ``HOW_TO_GET``), or something found that cannot be right; names the file.
        ConfigError: impossible options.
    """

    name = "scannet"

    def __init__(self, path: str | os.PathLike, every: int = 25, classes: str = "scannet20", split: str | None = None,
                 lists: str | os.PathLike | None = None, color_intrinsics_size: Sequence[int] | None = None):
        self.path, self.every, self.classes, self.split = Path(path), every, classes, split
        self.color_intrinsics_size = None if color_intrinsics_size is None else tuple(color_intrinsics_size)
        self._check_options()
        scans = find_scans(self.path, every, HOW_TO_GET)
        self._lists = read_lists(self._list_folders(lists), split, is_needed=lists is not None)
        self._listed = {scan: name for name, members in self._lists.items() for scan in members}
        self._scans_found = len(scans)
        if split is not None:
            scans = [scan for scan in scans if self._listed.get(scan.name) == split]
        self._place_frames(scans)
        self._classes = class_table(CLASS_SETS[classes], len(NYU40_NAMES))
        self._has_instances = instance_table(self._classes)
        has_labels, has_instances = (any(getattr(scan, kind) for scan in self._scans) for kind in ("label", "instance"))
        self.labels = frozenset(name for name, there in (("semantic", has_labels), ("instance", has_instances)) if there)
        self.class_names: Sequence[str] = tuple(NYU40_NAMES[k - 1] for k in CLASS_SETS[classes]) if self.labels else ()

    def _check_options(self) -> None:
        problems = []
        if not isinstance(self.every, int) or isinstance(self.every, bool) or self.every < 1:
            problems.append(f"every must be a whole number of at least 1; got {self.every!r}")
        if self.classes not in CLASS_SETS:
            problems.append(f"classes must be one of {', '.join(CLASS_SETS)}; got {self.classes!r}")
        if self.split is not None and self.split not in SPLIT_FILES:
            problems.append(f"split must be one of {', '.join(SPLIT_FILES)}; got {self.split!r}")
        size = self.color_intrinsics_size
        if size is not None and (len(size) != 2 or not all(isinstance(v, int) and v > 0 for v in size)):
            problems.append(f"color_intrinsics_size must be two whole numbers (height, width); got {size!r}")
        if problems:
            raise ConfigError(problems, self.path)

    def _list_folders(self, lists: str | os.PathLike | None) -> list[Path]:
        if lists is not None:
            return [Path(lists)]
        home = self.path if self.path.is_dir() else self.path.parent
        return [folder / below for folder in (home, home.resolve().parent) for below in ("", "Tasks/Benchmark")]

    def _place_frames(self, scans: list[Scan]) -> None:
        """The scan of every frame and its place in it."""
        counts = [len(scan.numbers) for scan in scans]
        self._scans = scans
        self._scan_of = np.repeat(np.arange(len(scans)), counts)
        self._place = np.concatenate([np.zeros(0, np.int64), *(np.arange(count) for count in counts)])
        if not len(self._place):
            part = "" if self.split is None else f" of the split {self.split!r}"
            raise Mask3DError(f"frames{part} whose number is a multiple of {self.every}",
                              f"none in {len(scans)} of {self._scans_found} scans", "Choose another every or split.", self.path)

    def __len__(self) -> int:
        """How many frames."""
        return len(self._place)

    def sequence(self, index: int) -> str:
        """The scene, e.g. scene0000, of which there may be several scans."""
        return _scene_and_scan(self._scans[self._scan_of[index]].name)[0]

    def frame_name(self, index: int) -> str:
        """The scan within the scene and the frame's number in it, e.g. 00/000025."""
        scan = self._scans[self._scan_of[index]]
        part, number = _scene_and_scan(scan.name)[1], f"{scan.numbers[self._place[index]]:06d}"
        return f"{part}/{number}" if part else number

    def official_split(self, index: int) -> str | None:
        """One of "train", "val" or "test" by the official lists; None where the scan is in none of those found."""
        return self._listed.get(self._scans[self._scan_of[index]].name)

    def read(self, index: int) -> RGBDFrame:
        """Read one frame.

        Raises:
            FrameError: unreadable, cut short, cameras that do not fit the pictures, or labels that are not nyu40 ids;
                names the file.
        """
        raw = self._scans[self._scan_of[index]].read(int(self._place[index]))
        depth, is_valid = decode_depth(raw.raw_depth, DepthEncoding("linear", raw.units_per_metre), raw.where)
        color_camera = self._fitted_camera(raw)
        rows, columns = color_positions(depth, raw.depth_camera, color_camera, raw.motion)
        step = color_camera.fx / raw.depth_camera.fx
        is_seen = seen_pixels(rows, columns, raw.color.shape, step)
        color = sample_color(raw.color, rows, columns, step)
        color[~is_seen] = 0
        semantic, instance = self._labels_of(raw, color_camera, depth, is_seen)
        return RGBDFrame(color, depth, is_valid & is_seen, raw.depth_camera, raw.pose, semantic, instance,
                         FrameOrigin(self.name, self.sequence(index), self.frame_name(index), raw.timestamp))

    def _fitted_camera(self, raw: RawFrame) -> Intrinsics:
        """The colour camera for the picture as it is, once both cameras are known to fit."""
        camera, (height, width) = raw.color_camera, raw.color.shape[:2]
        if self.color_intrinsics_size is not None:
            camera = camera.resized(height / self.color_intrinsics_size[0], width / self.color_intrinsics_size[1])
        problems = [f"colour: {problem}" for problem in camera.problems(height, width)]
        problems += [f"depth: {problem}" for problem in raw.depth_camera.problems(*raw.raw_depth.shape)]
        if problems:
            raise FrameError("intrinsics of the pictures beside them", "; ".join(problems), "If exported colour was made "
                             "smaller, give the size that its intrinsics refer to: color_intrinsics_size=[968, 1296].",
                             raw.where)
        return camera

    def _labels_of(self, raw: RawFrame, color_camera: Intrinsics, depth: np.ndarray, is_seen: np.ndarray
                   ) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Semantic and instance labels on the depth grid, each None where the frame has none."""
        def on_grid(labels: np.ndarray) -> np.ndarray:
            scale = labels.shape[0] / raw.color.shape[0], labels.shape[1] / raw.color.shape[1]
            camera = color_camera.resized(*scale)
            return sample_nearest(labels, *color_positions(depth, raw.depth_camera, camera, raw.motion))

        ids = None if raw.label is None else on_grid(_read_ids(raw.label))
        semantic = None if ids is None else np.where(is_seen, self._classes[ids], np.uint8(IGNORE_LABEL))
        if raw.instance is None:
            return semantic, None
        numbers, own_ids = _read_instances(raw.instance)
        is_object = is_seen & (on_grid(numbers) != NO_INSTANCE)
        for found in (ids, None if own_ids is None else on_grid(own_ids)):
            if found is not None:
                is_object &= self._has_instances[found]
        return semantic, np.where(is_object, on_grid(numbers), np.int32(NO_INSTANCE))

    def describe(self) -> dict[str, Any]:
        """What was opened and what was assumed, as plain JSON values."""
        kinds = {"exported" if isinstance(scan, ExportedScan) else ".sens" for scan in self._scans}
        used = sorted({self._scans[k].name for k in np.unique(self._scan_of)})
        notes = [f"every frame whose number is a multiple of {self.every}: {len(self)} of "
                 f"{sum(scan.total for scan in self._scans)} frames",
                 "colour is looked up through both cameras on the depth camera's grid"]
        for name, members in self._lists.items():
            notes.append(f"{SPLIT_FILES[name]}: {len(set(used) & set(members))} of its {len(members)} scans are here")
        if not self._lists:
            notes.append("no official lists beside the data: no official split")
        return {"source": self.name, "path": str(self.path), "frames": len(self), "scans": len(used),
                "sequences": len({_scene_and_scan(name)[0] for name in used}), "layout": " and ".join(sorted(kinds)),
                "every": self.every, "classes": self.classes if self.labels else "unlabelled", "split": self.split or "all",
                "official_lists": {name: len(members) for name, members in self._lists.items()}, "notes": notes}


def _scene_and_scan(name: str) -> tuple[str, str]:
    """("scene0000", "01") of scene0000_01; (name, "") of a scan that is named otherwise."""
    match = SCAN_NAME.fullmatch(name)
    return (match[1], match[2]) if match else (name, "")


def read_lists(folders: Sequence[Path], wanted: str | None = None, is_needed: bool = False) -> dict[str, tuple[str, ...]]:
    """The official lists that are there, each from the first folder that has it.

    Args:
        folders: where to look.
        wanted: a split whose list must be there.
        is_needed: at least one list must be there.

    Returns:
        Split to the names of its scans.

    Raises:
        Mask3DError: a needed list is missing, a line is no scan's name, or a scan is in two lists.
    """
    found: dict[str, tuple[str, ...]] = {}
    for name, file in SPLIT_FILES.items():
        path = next((folder / file for folder in folders if (folder / file).is_file()), None)
        if path is not None:
            try:
                words = path.read_text("utf-8").split()
            except (OSError, UnicodeDecodeError) as error:
                raise Mask3DError("a readable list of scans", str(error), "Copy it again.", path) from error
            wrong = [word for word in words if not SCAN_NAME.fullmatch(word)]
            if wrong or not words:
                raise Mask3DError("one scan a line, such as scene0000_00", name_some(wrong) or "an empty file",
                                  "Copy it again.", path)
            found[name] = tuple(words)
    if (wanted is not None and wanted not in found) or (is_needed and not found):
        names = SPLIT_FILES[wanted] if wanted else " or ".join(SPLIT_FILES.values())
        raise Mask3DError(f"the official list {names}", f"none in {', '.join(str(f) for f in folders)}",
                          "Copy it there from Tasks/Benchmark of github.com/ScanNet/ScanNet, or name its folder with lists=.")
    owner: dict[str, str] = {}
    for name, members in found.items():
        for scan in members:
            if owner.setdefault(scan, name) != name:
                raise Mask3DError("official lists without a scan in common", f"{scan} in {owner[scan]} and {name}",
                                  "Copy the lists again.", SPLIT_FILES[name])
    return found


def _read_ids(path: Path) -> np.ndarray:
    """nyu40 ids, 0 unlabelled; ScanNet's own raw ids (16 bits) are refused."""
    ids = read_raw(path)
    if ids.dtype.kind not in "iu" or ids.dtype.itemsize != 1 or ids.max() > len(NYU40_NAMES):
        got = f"ids up to {int(ids.max())}" if ids.dtype.itemsize == 1 else f"{8 * ids.dtype.itemsize} bits a pixel"
        raise FrameError("nyu40 ids 0..40 in 8 bits", got, "Raw ScanNet labels must first be converted with "
                         "convert_scannet_label_image.py of ScanNet's BenchmarkScripts.", path)
    return ids


def _read_instances(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Instance numbers int32, and their nyu40 ids where the picture holds both (16 bits)."""
    raw = read_raw(path)
    if raw.dtype.kind not in "iu" or raw.min() < 0 or raw.max() >= _LABEL_SHIFT * (len(NYU40_NAMES) + 1):
        raise FrameError("instances as nyu40 label * 1000 + number in 16 bits, or as numbers in 8",
                         f"{raw.dtype} from {raw.min()} to {raw.max()}", "Copy the picture again.", path)
    numbers = raw.astype(np.int32)
    if raw.dtype.itemsize == 1:
        return numbers, None
    return np.where(numbers % _LABEL_SHIFT > 0, numbers, np.int32(NO_INSTANCE)), (numbers // _LABEL_SHIFT).astype(np.uint8)
