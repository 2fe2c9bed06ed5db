"""What SUN RGB-D's toolbox adds to the frames: the 37-class labels of the benchmark and the official split."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np

from mask3d_core.errors import FrameError, Mask3DError
from mask3d_core.sources.matlab import open_hdf5, read_mat

CLASSES = (
    "wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf", "picture", "counter", "blinds",
    "desk", "shelves", "curtain", "dresser", "pillow", "mirror", "floor_mat", "clothes", "ceiling", "books", "fridge", "tv",
    "paper", "towel", "shower_curtain", "box", "whiteboard", "person", "night_stand", "toilet", "sink", "lamp", "bathtub", "bag")

SPLIT_FILE = "traintestSUNRGBD/allsplit.mat"
LABEL_FILE = "Metadata/SUNRGBD2Dseg.mat"
ORDER_FILE = "Metadata/SUNRGBDMeta.mat"


def plain_name(name: str) -> str:
    """A class name without what people write differently: case, spaces, underscores, hyphens."""
    return "".join(letter for letter in name.lower() if letter.isalnum())


CLASS_OF_NAME = {plain_name(name): number for number, name in enumerate(CLASSES)}


def frame_key(path: str) -> str:
    """A frame's folder relative to SUNRGBD/, whatever machine the path was written on.

    Args:
        path: such as "/n/fs/sun3d/data/SUNRGBD/kv1/NYUdata/NYU0001/" or "SUNRGBD/kv1/NYUdata/NYU0001".

    Returns:
        Such as "kv1/NYUdata/NYU0001".
    """
    parts = [part for part in str(path).replace("\\", "/").split("/") if part]
    last = max((i for i, part in enumerate(parts) if part == "SUNRGBD"), default=-1)
    return "/".join(parts[last + 1:])


def find_toolbox(root: Path) -> Path | None:
    """The folder SUNRGBDtoolbox in or beside the frames' folder, or None."""
    return next((place / "SUNRGBDtoolbox" for place in (root, root.parent) if (place / "SUNRGBDtoolbox").is_dir()), None)


def _paths(cell, path: Path) -> list[str]:
    """The strings of a MATLAB cell, as frame keys."""
    values = np.atleast_1d(np.asarray(cell, dtype=object)).ravel()
    if not all(isinstance(value, str) for value in values):
        raise FrameError("lists of frame folders", f"a list of {type(values[0]).__name__}", "Download the toolbox again.", path)
    return [frame_key(value) for value in values]


def read_split(path: str | os.PathLike, validation: bool) -> dict[str, str]:
    """The official split: 5,285 training and 5,050 test frames, images of one building on one side (the data set's paper).

    Args:
        path: allsplit.mat (``alltrain``, ``alltest``, ``trainvalsplit``).
        validation: whether the authors' halving of the training frames into train and val is wanted.

    Returns:
        "train", "val" or "test" by frame key.

    Raises:
        FrameError: damaged, or a frame in two splits.
    """
    path = Path(path)
    values = read_mat(path, ["alltrain", "alltest", *(["trainvalsplit"] if validation else [])])
    lists = {"train": _paths(values["alltrain"], path), "test": _paths(values["alltest"], path)}
    if validation:
        halves = values["trainvalsplit"]
        if not (hasattr(halves, "train") and hasattr(halves, "val")):
            raise FrameError("trainvalsplit with train and val", type(halves).__name__, "Download the toolbox again.", path)
        lists |= {"train": _paths(halves.train, path), "val": _paths(halves.val, path)}
    split: dict[str, str] = {}
    for name, keys in lists.items():
        for key in keys:
            if split.setdefault(key, name) != name:
                raise FrameError("each frame in one split", f"{key} in {split[key]} and {name}", "Download the toolbox again.",
                                 path)
    return split


class ToolboxLabels:
    """Labels of SUNRGBD2Dseg.mat (2 GB as HDF5; one frame is read at a time), in the order of SUNRGBDMeta.mat.

    Args:
        toolbox: the folder SUNRGBDtoolbox with both files in Metadata/.

    Raises:
        FrameError: a file is damaged, the two disagree, or the 37 classes are others than ours.
    """

    def __init__(self, toolbox: Path):
        self.path = toolbox / LABEL_FILE
        self._lock, self._file, self._process = threading.Lock(), None, None
        order = toolbox / ORDER_FILE
        frames = np.atleast_1d(read_mat(order, ["SUNRGBDMeta"], ["sequenceName"])["SUNRGBDMeta"]).ravel()
        self.row: dict[str, int] = {}
        for number, frame in enumerate(frames):
            name = getattr(frame, "sequenceName", None)
            if not isinstance(name, str):
                raise FrameError("a sequenceName for every frame", f"none for frame {number}", "Download the toolbox again.",
                                 order)
            self.row[frame_key(name)] = number
        self._check(len(frames))

    def _open(self):
        """The file, opened once in each process."""
        if self._file is None or self._process != os.getpid():
            self._file, self._process = open_hdf5(self.path), os.getpid()
        return self._file

    def _check(self, frames: int) -> None:
        try:
            file = self._open()
            count = file["SUNRGBD2Dseg"]["seglabel"].shape[0]
            names = ["".join(map(chr, np.asarray(file[reference]).ravel())) for reference in file["seg37list"][:].ravel()]
        except FrameError:
            raise
        except Exception as error:
            raise FrameError("SUNRGBD2Dseg/seglabel and seg37list", f"{type(error).__name__}: {error}",
                             "The file is damaged or another one; download the toolbox again.", self.path) from error
        if count != frames:
            raise FrameError(f"labels of the {frames} frames in {ORDER_FILE}", f"labels of {count}",
                             "Take both files from one download of the toolbox.", self.path)
        if [plain_name(name) for name in names] != list(CLASS_OF_NAME):
            raise FrameError(f"the benchmark's 37 classes, {', '.join(CLASSES[:3])}, ...",
                             f"{len(names)}: {', '.join(names[:3])}, ...",
                             "A class map that differs would be scored wrongly; take the original file.", self.path)

    def read(self, key: str) -> np.ndarray | None:
        """The label picture of one frame.

        Args:
            key: as :func:`frame_key` gives it.

        Returns:
            Integers (H, W): 0 unlabelled, 1..37 the classes; None for a frame that the toolbox does not know.

        Raises:
            FrameError: damaged, or ids beyond 37.
        """
        if key not in self.row:
            return None
        try:
            with self._lock:
                file = self._open()
                labels = np.asarray(file[file["SUNRGBD2Dseg"]["seglabel"][self.row[key]].ravel()[0]]).T
            labels = np.ascontiguousarray(labels)
            if labels.ndim != 2 or labels.dtype.kind not in "uif":
                raise ValueError(f"{labels.dtype} {labels.shape}")
        except Mask3DError:
            raise
        except Exception as error:
            raise FrameError(f"the labels of {key}", f"{type(error).__name__}: {error}",
                             "The file is damaged; download the toolbox again.", self.path) from error
        if labels.size and not (labels.min() >= 0 and labels.max() <= len(CLASSES)):
            raise FrameError(f"label ids 0..{len(CLASSES)} for {key}", f"{labels.min()}..{labels.max()}",
                             "The file is damaged or another one; download the toolbox again.", self.path)
        return labels.astype(np.int32)
