"""NYU Depth v2, the labelled set (Silberman et al., ECCV 2012): 1449 Kinect frames in one MATLAB v7.3 (HDF5) file."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mask3d_core.errors import ConfigError, FrameError, Mask3DError
from mask3d_core.frames import NO_INSTANCE, FrameOrigin, Intrinsics, RGBDFrame
from mask3d_core.sources.images import DepthEncoding, decode_depth
from mask3d_core.sources.matlab import open_hdf5, read_mat
from mask3d_core.sources.nyu_classes import NYU13_NAMES, NYU40_NAMES, NYU40_TO_13, class_table, instance_table

LABELED_FILE = "nyu_depth_v2_labeled.mat"
SPLIT_FILE, MAP_40_FILE, MAP_13_FILE = "splits.mat", "classMapping40.mat", "class13Mapping.mat"
HOW_TO_GET = (
    f"How to get NYUv2: {LABELED_FILE} (2.8 GB) is offered for download at "
    "cs.nyu.edu/~fergus/datasets/nyu_depth_v2.html without a form; no licence is stated there, so do not pass it on. Put beside "
    f"it {SPLIT_FILE} (the official 795/654 split; same site, indoor_seg_sup) and, for labels, {MAP_40_FILE} (894 to 40 "
    f"classes; github.com/ankurhanda/nyuv2-meta-data, with {MAP_13_FILE}).")
CAMERA = Intrinsics(518.857901, 519.469611, 325.582449, 253.736166)  # of the colour camera, from the authors' toolbox
WHITE_BORDER = 8  # pixels, about: what undistorting the colour left white on every side
CLASSES = {13: NYU13_NAMES, 40: NYU40_NAMES}
DEPTHS = {"raw": "rawDepths", "filled": "depths"}
COUNT, NAMES = 1449, 894  # of the whole set
SPLIT_COUNTS = {"train": 795, "test": 654}


class NYUv2:
    """The labelled frames of NYU Depth v2, 480x640, depth registered to colour. How to get them: ``HOW_TO_GET``.

    A sequence is a scene of the recordings ("kitchen_0004"), so that no room lies in two parts. There are no poses. Labels are
    894 names that are mapped to 40 classes by ``classMapping40.mat`` and from there to 13 by a published table
    (:data:`~mask3d_core.sources.nyu_classes.NYU40_TO_13`; ``class13Mapping.mat`` is compared with it where it is there).
    Numbers in 13 and in 40 classes do not compare; ``class_names`` says which ones these are. The official split has no
    validation frames.

    Opening checks that all arrays are there and fit each other, that the class map covers every name and that the split
    has no frame twice; reading a frame reads that frame only, and checks its label ids. The file is opened once per process.

    Args:
        path: ``nyu_depth_v2_labeled.mat``, or the folder that holds it.
        depth: "raw" (as measured, with holes) or "filled" (holes filled in by the authors, not measured).
        classes: 13 (Pri3D's and most probably Mask3D's protocol), 40, or None for no labels.
        split: only frames of "train" or "test".
        border: pixels cut off every side; 8 removes the white border. 0 by default: the published protocols (label metrics on
            480x640, the Eigen crop of depth) count pixels of the whole picture, and nothing there is labelled. Cut it for
            pre-training.

    Raises:
        Mask3DError: a file is missing (with where to get it), of the wrong version, damaged, or does not fit the others.
        ConfigError: impossible options.
    """

    name = "nyuv2"

    def __init__(self, path: str | os.PathLike, depth: str = "raw", classes: int | None = 13, split: str | None = None,
                 border: int = 0):
        self.path = Path(path)
        self.depth_kind, self.classes, self.split, self.border = depth, classes, split, border
        self._check_options()
        self.file = self.path / LABELED_FILE if self.path.is_dir() else self.path
        if not self.file.is_file():
            raise Mask3DError(f"the file {LABELED_FILE}", "no such file", HOW_TO_GET, self.file)
        self._handle, self._owner = None, -1
        self._arrays = {"color": "images", "depth": DEPTHS[depth]}
        if classes is not None:
            self._arrays |= {"label": "labels", "instance": "instances"}
        self._check_arrays()
        self._scenes = self._read_scenes()
        self._open_split()
        self.class_names: Sequence[str] = CLASSES.get(classes, ())
        self.labels = frozenset({"semantic", "instance"} if classes is not None else ())
        if classes is not None:
            self._open_classes()

    def _check_options(self) -> None:
        problems = [] if self.depth_kind in DEPTHS else [f"depth must be one of {', '.join(DEPTHS)}; got {self.depth_kind!r}"]
        if self.classes is not None and (isinstance(self.classes, bool) or self.classes not in CLASSES):
            problems.append(f"classes must be 13, 40 or null; got {self.classes!r}")
        if self.split is not None and self.split not in SPLIT_COUNTS:
            problems.append(f"split must be train or test (there is no official val); got {self.split!r}")
        if not isinstance(self.border, int) or isinstance(self.border, bool) or not 0 <= self.border <= 100:
            problems.append(f"border must be 0..100 pixels; got {self.border!r}")
        if problems:
            raise ConfigError(problems, self.path)

    def _open(self):
        """This process's handle; one that was inherited by a fork is not used."""
        if self._handle is None or self._owner != os.getpid():
            self._handle, self._owner = open_hdf5(self.file), os.getpid()
        return self._handle

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_handle": None}

    def _damaged(self, error: Exception) -> FrameError:
        return FrameError("a whole HDF5 file", f"{type(error).__name__}: {error}", "It is damaged or its download was "
                          "interrupted; download it again.", self.file)

    def _check_arrays(self) -> None:
        """Are all arrays there, of the right kinds and of one size? HDF5 shows MATLAB's arrays transposed: (n, [3,] W, H)."""
        kinds = {"color": "u1", "depth": "f4 f8", "label": "u1 u2", "instance": "u1"}
        try:
            file = self._open()
            missing = [name for name in (*self._arrays.values(), "scenes", "names") if name not in file]
            found = {} if missing else {part: (file[name].dtype.str[1:], file[name].shape)
                                        for part, name in self._arrays.items()}
            self._names = 0 if missing else int(file["names"].size)
        except Mask3DError:
            raise
        except Exception as error:  # h5py raises whatever HDF5 stumbles over
            raise self._damaged(error) from error
        if missing:
            raise Mask3DError(f"the variables of {LABELED_FILE}", f"no {', '.join(missing)}",
                              "This is another file of that name, or a damaged one; download it again.", self.file)
        shape = found["depth"][1]
        wrong = [f"{self._arrays[part]} {kind} {size}" for part, (kind, size) in found.items()
                 if kind not in kinds[part].split() or size != ((shape[0], 3, *shape[1:]) if part == "color" else shape)
                 or len(shape) != 3]
        if wrong or 0 in shape or min(shape[1:]) <= 2 * self.border:
            raise Mask3DError("images (n, 3, W, H) uint8, depth (n, W, H) floating point, labels and instances (n, W, H)",
                              ", ".join(wrong) or f"arrays of {shape}", "This is another file of that name; download it again.",
                              self.file)
        self._count, self.size = int(shape[0]), (int(shape[2]), int(shape[1]))

    def _read_scenes(self) -> list[str]:
        """The scene of every frame: a cell of texts, each text an array of characters."""
        try:
            file = self._open()
            cells = np.asarray(file["scenes"][()]).ravel()
            scenes = ["".join(map(chr, np.asarray(file[cell][()]).ravel().astype(int))) for cell in cells]
        except Mask3DError:
            raise
        except Exception as error:
            raise self._damaged(error) from error
        if len(scenes) != self._count or not all(scenes):
            raise Mask3DError(f"a scene's name for each of {self._count} frames", f"{len([s for s in scenes if s])} names",
                              "The file is damaged; download it again.", self.file)
        return scenes

    def _beside(self, name: str) -> Path | None:
        file = self.file.parent / name
        return file if file.is_file() else None

    def _open_split(self) -> None:
        """Which frames are train and test, and which of them are kept."""
        self._split: dict[int, str] = {}
        file = self._beside(SPLIT_FILE)
        if file is not None:
            values = read_mat(file, ("trainNdxs", "testNdxs"))
            for name in SPLIT_COUNTS:
                numbers = np.atleast_1d(values[f"{name}Ndxs"])
                if numbers.dtype.kind not in "iuf" or not ((numbers >= 1) & (numbers <= self._count)).all():
                    raise Mask3DError(f"frame numbers 1..{self._count} in {name}Ndxs", "others",
                                      "The split belongs to another file; download both again.", file)
                for number in numbers.astype(int).tolist():
                    if self._split.setdefault(number - 1, name) != name:
                        raise Mask3DError("frames that are either train or test", f"frame {number} in both",
                                          "Download the file again.", file)
        elif self.split is not None:
            raise Mask3DError(f"the official split {SPLIT_FILE}", "no such file", HOW_TO_GET, self.file.parent)
        self._kept = [i for i in range(self._count) if self.split is None or self._split.get(i) == self.split]
        if not self._kept:
            raise Mask3DError(f"frames of the split {self.split!r}", "none", f"Check {SPLIT_FILE}.", self.file)

    def _open_classes(self) -> None:
        """Tables from the file's 894 labels to our classes, by way of the 40."""
        file = self._beside(MAP_40_FILE)
        if file is None:
            raise Mask3DError(f"{MAP_40_FILE}, which maps the 894 labels to 40 classes, beside the data", "no such file",
                              f"{HOW_TO_GET} Without labels: classes=null.", self.file.parent)
        to_40 = np.atleast_1d(read_mat(file, ("mapClass",))["mapClass"])
        if to_40.dtype.kind not in "iuf" or to_40.shape != (self._names,) or not ((to_40 >= 1) & (to_40 <= 40)).all():
            got = f"{to_40.dtype} {to_40.shape}" + (f" from {to_40.min()} to {to_40.max()}" if to_40.dtype.kind in "iuf" else "")
            raise Mask3DError(f"mapClass with a class 1..40 for each of the {self._names} label names", got,
                              "The class map belongs to another file; download both again.", file)
        self._check_map_13()
        ids_of_40 = np.arange(41) if self.classes == 40 else np.array([0, *NYU40_TO_13])
        of_40 = class_table(range(1, self.classes + 1), self.classes)[ids_of_40]
        ids_40 = np.concatenate([[0], to_40.astype(int)])
        self._class_of = of_40[ids_40]
        self._is_object = instance_table(class_table(range(1, 41), 40))[ids_40]

    def _check_map_13(self) -> None:
        file = self._beside(MAP_13_FILE)
        if file is None:
            return
        value = read_mat(file, ("classMapping13",))["classMapping13"]
        found = np.atleast_1d(getattr(value, "labels13", value))
        if not np.array_equal(found, NYU40_TO_13):
            raise Mask3DError("the published map of 40 to 13 classes", "another one",
                              "Remove the file, or download it again; numbers under another map do not compare.", file)

    def __len__(self) -> int:
        """How many frames."""
        return len(self._kept)

    def sequence(self, index: int) -> str:
        """The scene, e.g. kitchen_0004."""
        return self._scenes[self._kept[index]]

    def frame_name(self, index: int) -> str:
        """The frame's number in the set, from 1 on, as the official split counts."""
        return f"{self._kept[index] + 1:04d}"

    def official_split(self, index: int) -> str | None:
        """One of "train" and "test"; None where there is no ``splits.mat`` or the frame is not in it."""
        return self._split.get(self._kept[index])

    def read(self, index: int) -> RGBDFrame:
        """Read one frame, and only that.

        Raises:
            FrameError: damaged, or labels out of range; names the file and the frame.
        """
        number = self._kept[index]
        where = f"{self.file}, frame {number + 1}"
        try:
            file = self._open()
            stored = {part: np.asarray(file[name][number]) for part, name in self._arrays.items()}
        except FrameError:
            raise
        except Exception as error:  # h5py raises whatever HDF5 stumbles over
            raise FrameError("a readable frame", f"{type(error).__name__}: {error}", "The file is damaged or cut short; "
                             "download it again.", where) from error
        color = np.ascontiguousarray(stored["color"].transpose(2, 1, 0))
        depth, is_valid = decode_depth(np.ascontiguousarray(stored["depth"].T), DepthEncoding("metres", missing=(0.0,)), where)
        semantic, instance = self._labels_of(stored["label"].T, stored["instance"].T, where) if self.labels else (None, None)
        frame = RGBDFrame(color, depth, is_valid, CAMERA, None, semantic, instance,
                          FrameOrigin(self.name, self.sequence(index), self.frame_name(index)))
        height, width = (side - 2 * self.border for side in self.size)
        return frame.crop(self.border, self.border, height, width) if self.border else frame

    def _labels_of(self, label: np.ndarray, instance: np.ndarray, where: str) -> tuple[np.ndarray, np.ndarray]:
        """Classes, and objects numbered from 1 in each frame: the file counts instances within each label."""
        if label.max() > self._names:
            raise FrameError(f"labels 0..{self._names}", f"up to {int(label.max())}",
                             "The file is damaged, or its class map belongs to another one.", where)
        key = label.astype(np.int32) * 256 + instance
        is_object = (instance > 0) & self._is_object[label]
        present = np.flatnonzero(np.bincount(key[is_object], minlength=1))
        number = np.zeros(key.max() + 1, np.int32)
        number[present] = np.arange(1, len(present) + 1)
        return self._class_of[label], np.where(is_object, number[key], np.int32(NO_INSTANCE))

    def describe(self) -> dict[str, Any]:
        """What was opened and what was assumed, as plain JSON values."""
        split = Counter(self._split.get(i, "in no part") for i in range(self._count)) if self._split else Counter()
        origin = {"raw": "as measured, with holes", "filled": "with holes filled in by the authors: not all of it was measured"}
        notes = [f"{DEPTHS[self.depth_kind]}: depth {origin[self.depth_kind]}",
                 f"labels in {self.classes} classes" if self.classes else "without labels"]
        if self._count != COUNT:
            notes.append(f"{self._count} frames where the whole set has {COUNT}")
        if not self._split:
            notes.append(f"no {SPLIT_FILE} beside the data: no official split")
        elif dict(split) != SPLIT_COUNTS:
            notes.append("the split is not the official 795/654: " + ", ".join(f"{n} {k}" for k, n in sorted(split.items())))
        if not self.border:
            notes.append(f"the white border of about {WHITE_BORDER} px is kept (border={WHITE_BORDER} cuts it)")
        return {"source": self.name, "path": str(self.path), "frames": len(self),
                "sequences": len({self._scenes[i] for i in self._kept}), "depth": self.depth_kind,
                "classes": self.classes or "unlabelled", "split": self.split or "all", "border": self.border,
                "official_split": dict(split), "intrinsics": [float(v) for v in CAMERA.as_array().round(4)], "notes": notes}
