"""SUN RGB-D (Song et al., CVPR 2015): 10,335 frames of four sensors with 37 classes, in the official folders.

A frame is a folder ``SUNRGBD/{kv1,kv2,realsense,xtion}/.../FRAME`` with ``image/``, ``depth/`` (as measured), ``depth_bfx/``
(holes filled by the authors), ``intrinsics.txt``, ``scene.txt`` and ``seg.mat``. Depth is registered to colour; its 16 bits are
rotated (see :class:`~mask3d_core.sources.images.DepthEncoding`). The folder ``extrinsics/`` turns a camera towards gravity
and is no pose, so frames have none.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mask3d_core.errors import ConfigError, FrameError, Mask3DError
from mask3d_core.frames import IGNORE_LABEL, FrameOrigin, Intrinsics, RGBDFrame
from mask3d_core.sources.cameras import read_intrinsics
from mask3d_core.sources.images import DepthEncoding, read_color, read_depth
from mask3d_core.sources.matlab import read_mat
from mask3d_core.sources.sunrgbd_toolbox import (CLASS_OF_NAME, CLASSES, LABEL_FILE, ORDER_FILE, SPLIT_FILE, ToolboxLabels,
                                                 find_toolbox, plain_name, read_split)

SENSORS = ("kv1", "kv2", "realsense", "xtion")
DEPTH_FOLDERS = {"raw": "depth", "filled": "depth_bfx"}
LABEL_KINDS = ("auto", "toolbox", "names", "none")
FRAMES = {"train": 5285, "test": 5050}  # of the official split
HOW_TO_GET = (
    "How to get SUN RGB-D: rgbd.cs.princeton.edu offers SUNRGBD.zip (frames, seg.mat) and SUNRGBDtoolbox.zip (37-class labels, "
    "official split) for research without a form; we know of no stated licence, and parts of it are NYUv2, Berkeley B3DO and "
    "SUN3D, whose terms hold too: cite all four, hand nothing on. Unpack both into one FOLDER, so that FOLDER/SUNRGBD/kv1 and "
    "FOLDER/SUNRGBDtoolbox are there, then: mask3d prepare sunrgbd FOLDER --out STORE")

_DAY = re.compile(r"(20\d\d)[-_](\d\d)[-_](\d\d)")


def place_of(key: str) -> tuple[str, str]:
    """The sequence that a frame belongs to, and its name in it, from its path alone.

    Frames of one place must stay in one split. SUN3D's folders name the place; the authors' own recordings carry a time
    stamp, and one day is one sequence; NYUv2 and B3DO name nothing, so each of them is one sequence as a whole.

    Args:
        key: path below SUNRGBD/, such as "xtion/sun3ddata/brown_bm_1/brown_bm_1/0000103-000003418565".

    Returns:
        Such as ("xtion/sun3ddata/brown_bm_1", "brown_bm_1/0000103-000003418565").
    """
    parts = key.split("/")
    if "sun3ddata" in parts[:-2]:
        cut = parts.index("sun3ddata") + 2
        return "/".join(parts[:cut]), "/".join(parts[cut:])
    day = _DAY.search(parts[-1])
    collection = "/".join(parts[:-1])
    return (f"{collection}/{'-'.join(day.groups())}" if day else collection), parts[-1]


class SUNRGBD:
    """The official tree, or a part of it.

    Args:
        path: the folder that holds SUNRGBD/ (or SUNRGBD/ itself), with SUNRGBDtoolbox/ in or beside it.
        depth: "raw", as the sensor measured; or "filled", the authors' depth_bfx.
        labels: "toolbox": the benchmark's 37 classes from SUNRGBD2Dseg.mat (needs h5py); "names": seg.mat of each frame, a
            pixel has a class where its annotated name is one of the 37 (annotators wrote many other names, which the benchmark
            merges and this leaves ignored, so its numbers do not compare); "none"; "auto": the first of these that is there,
            said in :meth:`describe`.
        validation: use the authors' own halving of the official training frames into train and val.
        sensors: which of kv1, kv2, realsense, xtion; default: all that are there.

    Raises:
        Mask3DError: no such folder or no frames (says how to get them), or labels asked for that are not there.
        ConfigError: impossible options, all at once.
    """

    name = "sunrgbd"

    def __init__(self, path: str | os.PathLike, depth: str = "raw", labels: str = "auto", validation: bool = False,
                 sensors: Sequence[str] = SENSORS):
        self.path, self.depth_kind, self.validation = Path(path), depth, validation
        sensors = [sensors] if isinstance(sensors, str) else list(sensors)
        problems = [] if depth in DEPTH_FOLDERS else [f"depth must be raw or filled; got {depth!r}"]
        problems += [] if labels in LABEL_KINDS else [f"labels must be one of {', '.join(LABEL_KINDS)}; got {labels!r}"]
        problems += [f"sensors are {', '.join(SENSORS)}; got {name!r}" for name in sensors if name not in SENSORS]
        if problems:
            raise ConfigError(problems, path)
        self.encoding = DepthEncoding("sun", 1000.0)
        self._find_frames(sensors)
        self.toolbox = find_toolbox(self.root)
        self._open_split()
        self._open_labels(labels)
        self.class_names: Sequence[str] = CLASSES if self.labels_from != "none" else ()
        self.labels = frozenset({"semantic"} if self.labels_from != "none" else ())

    def _find_frames(self, sensors: Sequence[str]) -> None:
        self.root = self.path / "SUNRGBD" if (self.path / "SUNRGBD").is_dir() else self.path
        if not self.path.is_dir():
            raise Mask3DError("the folder of SUN RGB-D", "no such folder", HOW_TO_GET, self.path)
        self.keys: list[str] = []
        self._lacking: Counter = Counter()
        for sensor in sensors:
            self._walk(sensor)
        if not self.keys:
            here = ", ".join(sorted(os.listdir(self.path))[:8]) or "an empty folder"
            raise Mask3DError(f"frame folders with image/ in {' or '.join(sensors)}", here, HOW_TO_GET, self.path)
        self._places = [place_of(key) for key in self.keys]

    def _walk(self, key: str, depth: int = 0) -> None:
        """Frames in and below a folder, in order of their names; nothing inside a frame's folder is searched."""
        try:
            found = sorted(os.listdir(self.root / key))
        except OSError:  # not there, or a file
            return
        if "image" in found:
            self.keys.append(key)
            for needed in (DEPTH_FOLDERS[self.depth_kind], "intrinsics.txt", "seg.mat"):
                self._lacking[needed] += needed not in found
        elif depth < 5:
            for name in found:
                if "." not in name or (self.root / key / name).is_dir():
                    self._walk(f"{key}/{name}", depth + 1)

    def _open_split(self) -> None:
        self._split: dict[str, str] = {}
        file = None if self.toolbox is None else self.toolbox / SPLIT_FILE
        if file is not None and file.is_file():
            self._split = read_split(file, self.validation)
        elif self.validation:
            raise Mask3DError(f"SUNRGBDtoolbox/{SPLIT_FILE}, which names the validation frames", "no such file", HOW_TO_GET,
                              self.path)
        splits: dict[str, set] = {}
        for key, (place, _) in zip(self.keys, self._places):
            splits.setdefault(place, set()).add(self._split.get(key))
        self._cut_places = {place for place, found in splits.items() if len(found) > 1}

    def _open_labels(self, wanted: str) -> None:
        files = [] if self.toolbox is None else [self.toolbox / LABEL_FILE, self.toolbox / ORDER_FILE]
        has_toolbox = bool(files) and all(file.is_file() for file in files)
        has_names = self._lacking["seg.mat"] < len(self.keys)
        if wanted == "toolbox" and not has_toolbox:
            raise Mask3DError(f"SUNRGBDtoolbox with {LABEL_FILE} and {ORDER_FILE}", "not both", HOW_TO_GET, self.path)
        if wanted == "names" and not has_names:
            raise Mask3DError("seg.mat in the frames' folders", "none", HOW_TO_GET, self.path)
        if wanted == "auto":
            wanted = "toolbox" if has_toolbox else "names" if has_names else "none"
        self.labels_from = wanted
        self._toolbox_labels = ToolboxLabels(self.toolbox) if wanted == "toolbox" else None

    def __len__(self) -> int:
        """How many frames."""
        return len(self.keys)

    def sequence(self, index: int) -> str:
        """The place (:func:`place_of`). Where the official split cuts one, its authors' word is taken that these are several
        places, and the split's name is added, so that no sequence lies in two splits."""
        place, split = self._places[index][0], self.official_split(index)
        return f"{place}/{split}" if split and place in self._cut_places else place

    def frame_name(self, index: int) -> str:
        """The frame folder's name; for SUN3D with the recording before it."""
        return self._places[index][1]

    def official_split(self, index: int) -> str | None:
        """"train", "val" or "test" as the data set's authors decided (allsplit.mat); None without that file or outside of it."""
        return self._split.get(self.keys[index])

    def read(self, index: int) -> RGBDFrame:
        """Read one frame.

        Raises:
            FrameError: unreadable, or pictures of different sizes; names the file.
        """
        folder = self.root / self.keys[index]
        color_path = _only_file(folder / "image")
        depth_path = _only_file(folder / DEPTH_FOLDERS[self.depth_kind])
        color = read_color(color_path)
        depth, is_valid = read_depth(depth_path, self.encoding)
        values, _ = read_intrinsics(folder / "intrinsics.txt")
        camera = Intrinsics.from_array(values)
        size = color.shape[:2]
        if depth.shape != size:
            raise FrameError(f"depth of the colour's size {size}", str(depth.shape), "Unpack the frame again.", depth_path)
        problems = camera.problems(*size)
        if problems:
            raise FrameError("a possible camera", "; ".join(problems), "Unpack the frame again.", folder / "intrinsics.txt")
        return RGBDFrame(color, depth, is_valid, camera, semantic=self._semantic(index, size),
                         origin=FrameOrigin(self.name, self.sequence(index), self.frame_name(index)))

    def _semantic(self, index: int, size: tuple[int, ...]) -> np.ndarray | None:
        """Class ids uint8 (H, W), or None where this frame has no labels."""
        if self._toolbox_labels is not None:
            labels, where = self._toolbox_labels.read(self.keys[index]), self._toolbox_labels.path
            table = np.append(np.uint8(IGNORE_LABEL), np.arange(len(CLASSES), dtype=np.uint8))
        elif self.labels_from == "names" and (self.root / self.keys[index] / "seg.mat").is_file():
            where = self.root / self.keys[index] / "seg.mat"
            labels, table = _named_labels(where)
        else:
            return None
        if labels is None:
            return None
        if labels.shape != size:
            raise FrameError(f"labels of the colour's size {size} for {self.keys[index]}", str(labels.shape),
                             "These are the labels of another frame; download them again.", where)
        return table[labels]

    def describe(self) -> dict[str, Any]:
        """What was opened, which labels and which split, what is missing, as plain JSON values."""
        return {"source": self.name, "path": str(self.path), "frames": len(self),
                "sequences": len({self.sequence(i) for i in range(len(self))}),
                "frames_by_sensor": dict(Counter(key.split("/")[0] for key in self.keys)),
                "depth": self.depth_kind, "depth_encoding": self.encoding.describe(), "labels": self.labels_from,
                "official_split": dict(Counter(str(self._split.get(key)) for key in self.keys)) if self._split else "none",
                "validation": self.validation, "notes": self._notes()}

    def _notes(self) -> list[str]:
        count, depth = len(self), DEPTH_FOLDERS[self.depth_kind]
        notes = [{"toolbox": f"labels: the benchmark's 37 classes from {LABEL_FILE}",
                  "names": "labels: names in seg.mat that are one of the 37 classes; all other names are ignored, so numbers do "
                           f"not compare with the benchmark's, which need SUNRGBDtoolbox/{LABEL_FILE} and {ORDER_FILE}",
                  "none": "labels: none"}[self.labels_from]]
        missing = [(depth, "cannot be read"), ("intrinsics.txt", "cannot be read")]
        missing += [("seg.mat", "are unlabelled")] if self.labels_from == "names" else []
        notes += [f"missing: {self._lacking[name]} of {count} frames have no {name} and {result}" for name, result in missing
                  if self._lacking[name]]
        if self._toolbox_labels is not None:
            unknown = sum(key not in self._toolbox_labels.row for key in self.keys)
            notes += [f"missing: the toolbox has no labels for {unknown} of {count} frames"] if unknown else []
        if not self._split:
            notes.append(f"missing: SUNRGBDtoolbox/{SPLIT_FILE}; without it the official split is not known")
        else:
            found = Counter(self._split.get(key) for key in self.keys)
            notes += [f"{found[None]} of {count} frames are in no official split"] if found[None] else []
            train = found["train"] + found["val"]
            if not self.validation and (train, found["test"]) != (FRAMES["train"], FRAMES["test"]):
                notes.append(f"a part of the data set: {train} of {FRAMES['train']} training and {found['test']} of "
                             f"{FRAMES['test']} test frames")
        return notes


def _only_file(folder: Path) -> Path:
    """The one picture in a folder."""
    try:
        names = sorted(name for name in os.listdir(folder) if name.lower().endswith((".jpg", ".jpeg", ".png")))
    except OSError as error:
        raise FrameError("a folder with one picture", error.strerror or str(error), "Unpack the frame again.", folder) from error
    if len(names) != 1:
        raise FrameError("one picture", f"{len(names)}: {', '.join(names[:4])}", "Unpack the frame again.", folder)
    return folder / names[0]


def _named_labels(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Label ids (H, W) of a seg.mat, and the class of each id (ids begin at 1; 0 and names that are no class are ignored)."""
    values = read_mat(path, ["seglabel", "names"])
    labels = np.asarray(values["seglabel"])
    names = np.atleast_1d(np.asarray(values["names"], dtype=object)).ravel()
    if labels.ndim != 2 or labels.dtype.kind not in "uif" or not labels.size:
        raise FrameError("seglabel as numbers (H, W)", f"{labels.dtype} {labels.shape}", "Unpack the frame again.", path)
    if not (labels.min() >= 0 and labels.max() <= len(names)):
        raise FrameError(f"ids 0..{len(names)}, one for each of the names", f"{labels.min()}..{labels.max()}",
                         "Labels without their names mean nothing; unpack the frame again.", path)
    classes = [CLASS_OF_NAME.get(plain_name(name), IGNORE_LABEL) if isinstance(name, str) else IGNORE_LABEL for name in names]
    return labels.astype(np.int32), np.array([IGNORE_LABEL, *classes], np.uint8)
