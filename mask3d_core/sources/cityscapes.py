"""Cityscapes (Cordts et al., CVPR 2016): street scenes with stereo disparity, 19 classes and instances, in the official folders.

``{leftImg8bit,disparity,gtFine,camera}/{train,val,test}/CITY/CITY_SEQUENCE_FRAME_...``. A disparity file holds p; where p > 0,
d = (p - 1) / 256 pixels and depth = baseline * fx / d. Streets are deeper than the 16 m that a store keeps by default, and the
pictures are 2048 x 1024, so that the protocol of 180 x 360 pixels (twice as wide as high: nothing is cropped) reads

    mask3d prepare cityscapes FOLDER --out STORE --height 180 --width 360 --max-depth 120 --depth-units-per-metre 500
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mask3d_core.errors import ConfigError, FrameError, Mask3DError
from mask3d_core.frames import CROWD, IGNORE_LABEL, NO_INSTANCE, FrameOrigin, Intrinsics, RGBDFrame
from mask3d_core.sources.cameras import read_json
from mask3d_core.sources.images import read_color, read_labels, read_raw

SPLITS = ("train", "val", "test")
FRAMES = {"train": 2975, "val": 500, "test": 1525}
CLASSES = ("road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation", "terrain",
           "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle")
LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)  # of these classes, of the 34 ids 0..33
LARGEST_LABEL = 33
THINGS = (24, 25, 26, 27, 28, 31, 32, 33)  # label ids whose objects are told apart and scored: person ... bicycle
FOLDERS = {"color": ("leftImg8bit", "leftImg8bit.png"), "disparity": ("disparity", "disparity.png"),
           "camera": ("camera", "camera.json"), "label": ("gtFine", "gtFine_labelIds.png"),
           "instance": ("gtFine", "gtFine_instanceIds.png")}
HOW_TO_GET = (
    "How to get Cityscapes: its terms are accepted by registering at www.cityscapes-dataset.com (research and teaching, no "
    "handing on); then download leftImg8bit_trainvaltest.zip, gtFine_trainvaltest.zip, disparity_trainvaltest.zip and "
    "camera_trainvaltest.zip and unpack them into one FOLDER, so that FOLDER/leftImg8bit/train/aachen is there. Then: mask3d "
    "prepare cityscapes FOLDER --out STORE --height 180 --width 360 --max-depth 120 --depth-units-per-metre 500")

_CLASS_OF_ID = np.full(LARGEST_LABEL + 1, IGNORE_LABEL, np.uint8)
_CLASS_OF_ID[list(LABEL_IDS)] = np.arange(len(CLASSES), dtype=np.uint8)


class Cityscapes:
    """The finely annotated frames.

    A sequence is a city: its recordings pass the same streets and houses on the same day, no city lies in two of the official
    splits, and what is smaller (a snippet of 2 s, in the file's name) would put neighbouring streets on both sides.

    Args:
        path: the folder that holds leftImg8bit/.
        splits: which of train, val, test to read. The labels of test are withheld by the benchmark: all its pixels are ignored.
        depth: whether depth is wanted; without, disparity/ and camera/ are not needed and every pixel is a hole.

    Raises:
        Mask3DError: no such folder or no frames (says how to get them), or disparity without cameras.
        ConfigError: unknown splits or another depth, all at once.
    """

    name = "cityscapes"

    def __init__(self, path: str | os.PathLike, splits: Sequence[str] = SPLITS, depth: bool = True):
        self.path = Path(path)
        self.splits = [splits] if isinstance(splits, str) else list(splits)
        unknown = [name for name in self.splits if name not in SPLITS]
        problems = [] if depth in (True, False) else [f"depth must be true or false; got {depth!r}"]
        if unknown or not self.splits:
            problems.append(f"splits are {', '.join(SPLITS)}; got {', '.join(map(repr, unknown)) or 'none'}")
        if problems:
            raise ConfigError(problems, path)
        if not (self.path / "leftImg8bit").is_dir():
            here = "no such folder" if not self.path.is_dir() else ", ".join(sorted(os.listdir(path))[:8]) or "an empty folder"
            raise Mask3DError("a folder with leftImg8bit/", here, HOW_TO_GET, path)
        self.frames = [(split, *rest) for split in self.splits for rest in self._frames_in(split)]
        if not self.frames:
            raise Mask3DError(f"leftImg8bit/{'|'.join(self.splits)}/CITY/*_leftImg8bit.png", "none", HOW_TO_GET, path)
        self._has = {kind: self._there(kind) for kind in FOLDERS if kind != "color"}
        self.has_depth = depth and self._has["disparity"] > 0
        if self.has_depth and not self._has["camera"]:
            raise Mask3DError("camera/, whose baseline and focal length turn disparity into metres", "disparity/ without it",
                              "Unpack camera_trainvaltest.zip beside it, or do without depth: --option depth=false.", path)
        self.labels = frozenset(kind for kind, file in (("semantic", "label"), ("instance", "instance")) if self._has[file])
        self.class_names: Sequence[str] = CLASSES if "semantic" in self.labels else ()

    def _frames_in(self, split: str) -> list[tuple[str, str]]:
        """(city, stem) of a split's colour files, in order."""
        folder, ending = self.path / "leftImg8bit" / split, "_" + FOLDERS["color"][1]
        cities = sorted(name for name in os.listdir(folder) if (folder / name).is_dir()) if folder.is_dir() else []
        return [(city, name[:-len(ending)]) for city in cities for name in sorted(os.listdir(folder / city))
                if name.endswith(ending)]

    def _file(self, index: int, kind: str) -> Path:
        split, city, stem = self.frames[index]
        folder, ending = FOLDERS[kind]
        return self.path / folder / split / city / f"{stem}_{ending}"

    def _there(self, kind: str) -> int:
        """How many frames have a file of that kind. Lists folders, as asking for 5,000 files one by one is slow on a server."""
        names: dict[Path, set[str]] = {}
        count = 0
        for index in range(len(self.frames)):
            file = self._file(index, kind)
            if file.parent not in names:
                names[file.parent] = set(os.listdir(file.parent)) if file.parent.is_dir() else set()
            count += file.name in names[file.parent]
        return count

    def __len__(self) -> int:
        """How many frames."""
        return len(self.frames)

    def sequence(self, index: int) -> str:
        """The city."""
        return self.frames[index][1]

    def frame_name(self, index: int) -> str:
        """City, recording and frame number, as in all file names."""
        return self.frames[index][2]

    def official_split(self, index: int) -> str | None:
        """"train", "val" or "test": the folder that the frame lies in."""
        return self.frames[index][0]

    def read(self, index: int) -> RGBDFrame:
        """Read one frame; the camera's distortion has been removed by the data set's authors.

        Raises:
            FrameError: unreadable, missing, of other sizes, or label ids that Cityscapes does not have; names the file.
        """
        color = read_color(self._file(index, "color"))
        size = color.shape[:2]
        depth, is_valid = np.zeros(size, np.float32), np.zeros(size, bool)
        if self.has_depth or self._file(index, "camera").is_file():
            camera, baseline = read_stereo_camera(self._file(index, "camera"), size)
        else:
            camera, baseline = assumed_camera(size), 0.0
        if self.has_depth:
            disparity = self._picture(index, "disparity", size, read_raw)
            depth, is_valid = depth_from_disparity(disparity, baseline * camera.fx, self._file(index, "disparity"))
        return RGBDFrame(color, depth, is_valid, camera, semantic=self._semantic(index, size),
                         instance=self._instance(index, size),
                         origin=FrameOrigin(self.name, self.sequence(index), self.frame_name(index)))

    def _picture(self, index: int, kind: str, size: tuple[int, ...], read) -> np.ndarray:
        path = self._file(index, kind)
        values = read(path)
        if values.shape != size:
            raise FrameError(f"a picture of the colour's size {size}", str(values.shape), "Unpack the data set again.", path)
        return values

    def _semantic(self, index: int, size: tuple[int, ...]) -> np.ndarray | None:
        path = self._file(index, "label")
        if not self._has["label"] or not path.is_file():
            return None
        labels = self._picture(index, "label", size, read_labels)
        if labels.min() < 0 or labels.max() > LARGEST_LABEL:
            raise FrameError(f"label ids 0..{LARGEST_LABEL}", f"{labels.min()}..{labels.max()}",
                             "labelTrainIds or another tool's ids may lie under this name; take the original labelIds.", path)
        return _CLASS_OF_ID[labels]

    def _instance(self, index: int, size: tuple[int, ...]) -> np.ndarray | None:
        path = self._file(index, "instance")
        if not self._has["instance"] or not path.is_file():
            return None
        values = self._picture(index, "instance", size, read_labels)
        kind = np.where(values >= 1000, values // 1000, values)
        if values.min() < 0 or kind.max() > LARGEST_LABEL:
            raise FrameError(f"label ids 0..{LARGEST_LABEL}, or 1000 times one plus a number", f"{values.min()}..{values.max()}",
                             "Take the original instanceIds.", path)
        alone = np.where(values >= 1000, values, CROWD)  # a thing's id without a number: a group, as its benchmark leaves out
        return np.where(np.isin(kind, THINGS), alone, NO_INSTANCE).astype(np.int32)

    def describe(self) -> dict[str, Any]:
        """What was opened and what is missing, as plain JSON values; "outdoors": these are no rooms."""
        return {"source": self.name, "path": str(self.path), "frames": len(self), "splits": self.splits,
                "sequences": len({self.sequence(i) for i in range(len(self))}),
                "official_split": dict(Counter(frame[0] for frame in self.frames)), "labels": sorted(self.labels),
                "depth_encoding": "disparity (p - 1) / 256, baseline * fx / d" if self.has_depth else "no depth",
                "outdoors": True,
                "notes": self._notes()}

    def _notes(self) -> list[str]:
        count, notes = len(self), []
        results = {"disparity": "have no depth: RGB only", "camera": "have an assumed field of view of 50 degrees",
                   "label": "have no classes", "instance": "have no instances"}
        if self.has_depth:
            results |= {"disparity": "cannot be read", "camera": "cannot be read"}
        for kind, result in results.items():
            if self._has[kind] < count:
                notes.append(f"missing: {count - self._has[kind]} of {count} frames have no {FOLDERS[kind][0]}/..."
                             f"_{FOLDERS[kind][1]} and {result}")
        found = Counter(frame[0] for frame in self.frames)
        partly = [f"{found[name]} of {FRAMES[name]} {name}" for name in self.splits if found[name] != FRAMES[name]]
        notes += [f"a part of the data set: {', '.join(partly)} frames"] if partly else []
        if found["test"]:
            notes.append("the labels of test are withheld by the benchmark: all its pixels are ignored; measure on val")
        return notes


def depth_from_disparity(values: np.ndarray, baseline_times_focal: float, where: object = None) -> tuple[np.ndarray, np.ndarray]:
    """Metres from stored disparity.

    Args:
        values: 16-bit integers (H, W); p > 0 stands for (p - 1) / 256 pixels, 0 for not measured.
        baseline_times_focal: metres times pixels.
        where: the file, for the error's sake.

    Returns:
        depth float32 (H, W) in metres, 0 where missing (also at disparity 0, infinitely far); is_valid bool (H, W).

    Raises:
        FrameError: 8 bits, or not 16-bit integers.
    """
    if values.dtype.kind not in "iu" or values.dtype.itemsize == 1 or values.min() < 0 or values.max() > 65535:
        raise FrameError("16-bit disparity", f"{values.dtype} from {values.min()} to {values.max()}",
                         "A converter changed the file; take the original one.", where)
    is_valid = values > 1
    disparity = (values.astype(np.float32) - 1) / 256
    depth = np.float32(baseline_times_focal) / np.where(is_valid, disparity, np.float32(1))
    return np.where(is_valid, depth, np.float32(0)), is_valid


def read_stereo_camera(path: str | os.PathLike, size: tuple[int, ...]) -> tuple[Intrinsics, float]:
    """Intrinsics and baseline of a camera file.

    Args:
        path: JSON with ``intrinsic`` (fx, fy, u0, v0 in pixels) and ``extrinsic`` (baseline in metres, among others).
        size: (height, width) of the picture.

    Returns:
        The camera; metres between the two lenses.

    Raises:
        FrameError: unreadable, incomplete, or impossible for a picture of that size.
    """
    values = read_json(Path(path))
    try:
        numbers = [float(values["intrinsic"][key]) for key in ("fx", "fy", "u0", "v0")]
        baseline = float(values["extrinsic"]["baseline"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise FrameError("intrinsic fx, fy, u0, v0 and extrinsic baseline", f"{type(error).__name__}: {error}",
                         "Take the original camera file.", path) from error
    camera = Intrinsics(*numbers)
    problems = camera.problems(*size)
    if not 0.01 < baseline < 10:
        problems.append(f"a baseline of {baseline} m")
    if problems:
        raise FrameError("a possible stereo camera", "; ".join(problems), "Take the original camera file.", path)
    return camera, baseline


def assumed_camera(size: tuple[int, ...]) -> Intrinsics:
    """A camera of 50 degrees, as wide as Cityscapes' own (fx 2262 at 2048 pixels), for frames without depth and camera file."""
    height, width = size
    focal = float(width / 2 / np.tan(np.radians(25.0)))
    return Intrinsics(focal, focal, (width - 1) / 2, (height - 1) / 2)
