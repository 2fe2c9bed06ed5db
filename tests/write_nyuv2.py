"""Writers of a small NYUv2 file (MATLAB v7.3) and the files beside it, made from the formats' descriptions."""

import h5py
import numpy as np
from scipy.io import savemat

SCENES = ("kitchen_0001", "kitchen_0001", "office_0002", "office_0002", "bedroom_0003", "bedroom_0003")
NAMES = ("book", "wall", "chair", "floor", "television", "void name")
MAP_40 = (23, 1, 5, 2, 25, 40)  # of the 40 classes, for each of NAMES
MAP_13 = (12, 5, 6, 1, 4, 9, 10, 12, 13, 6, 8, 6, 13, 10, 6, 13, 6, 7, 7, 5, 7, 3, 2, 6, 11, 7, 7, 7, 7, 7, 7, 6, 7, 7, 7, 7, 7,
          7, 6, 7)
TITLE = b"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: Mon Jan  1 00:00:00 2012 HDF5 schema 1.00 ."


def contents(count=6, size=(48, 64)):
    """What a MATLAB user sees: images (H, W, 3, n), depths and the rest (H, W, n)."""
    generator = np.random.default_rng(0)
    height, width = size
    images = generator.integers(0, 256, (height, width, 3, count), dtype=np.uint8)
    rows, columns = np.mgrid[:height, :width]
    depths = np.stack([1 + i + 0.01 * rows + 0.001 * columns for i in range(count)], -1).astype(np.float32)
    raw = depths.copy()
    raw[:4, :10] = 0
    labels = np.zeros((height, width, count), np.uint16)
    labels[8:, :] = 2
    labels[30:, :] = 4
    labels[20:30, 10:20] = 3
    labels[20:30, 30:40] = 3
    labels[10:15, 40:50] = 5
    instances = (labels > 0).astype(np.uint8)
    instances[20:30, 30:40] = 2
    return {"images": images, "depths": depths, "rawDepths": raw, "labels": labels, "instances": instances}


def _cell(file, group, name, texts):
    """A MATLAB cell of texts: references to arrays of 16-bit characters, one column each."""
    references = np.empty((1, len(texts)), h5py.ref_dtype)
    for i, text in enumerate(texts):
        made = group.create_dataset(f"{name}_{i}", data=np.array([[ord(letter)] for letter in text], np.uint16))
        made.attrs["MATLAB_class"] = np.bytes_("char")
        references[0, i] = made.ref
    file.create_dataset(name, data=references, dtype=h5py.ref_dtype).attrs["MATLAB_class"] = np.bytes_("cell")


def write_labeled(path, scenes=SCENES, names=NAMES, leave_out=(), **changes):
    """nyu_depth_v2_labeled.mat: HDF5 after a 512-byte MATLAB header, arrays with their axes reversed."""
    arrays = {**contents(len(scenes)), **changes}
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, array in arrays.items():
            if name not in leave_out:
                stored = np.ascontiguousarray(array.T)
                file.create_dataset(name, data=stored, chunks=(1, *stored.shape[1:]), compression="gzip")
        group = file.create_group("#refs#")
        for name, texts in (("names", names), ("scenes", scenes)):
            if name not in leave_out:
                _cell(file, group, name, texts)
    with open(path, "r+b") as file:
        file.write(TITLE.ljust(124) + b"\x00\x02IM")
    return path


def write_beside(folder, map_40=MAP_40, map_13=MAP_13, train=(1, 2, 5, 6), test=(3, 4), leave_out=()):
    """splits.mat (numbers from 1 on, as columns), classMapping40.mat and class13Mapping.mat: MATLAB version 5."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {"splits": {"trainNdxs": np.array([train], np.uint16).T, "testNdxs": np.array([test], np.uint16).T},
             "classMapping40": {"mapClass": np.array([map_40], np.uint8)},
             "class13Mapping": {"classMapping13": {"labels13": np.array([map_13], np.uint8)}}}
    for name, values in files.items():
        if name not in leave_out:
            savemat(folder / f"{name}.mat", values)
    return folder


def write_nyuv2(folder, **options):
    """The whole set, small."""
    write_labeled(folder / "nyu_depth_v2_labeled.mat", **options)
    return write_beside(folder)
