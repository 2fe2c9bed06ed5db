"""Small SUN RGB-D trees, written from the format's description and not from the reader."""

import numpy as np
from PIL import Image

SIZE = (36, 48)
THE_37 = ("wall floor cabinet bed chair sofa table door window bookshelf picture counter blinds desk shelves curtain dresser "
          "pillow mirror floor_mat clothes ceiling books fridge tv paper towel shower_curtain box whiteboard person night_stand "
          "toilet sink lamp bathtub bag").split()
FRAMES = ("kv1/NYUdata/NYU0001", "kv1/NYUdata/NYU0002", "kv1/b3dodata/img_0063",
          "kv2/kinect2data/000002_2014-05-26_14-23-37_260595134347_rgbf000103-resize",
          "kv2/kinect2data/000065_2014-05-16_20-14-38_260595134347_rgbf000121-resize",
          "realsense/lg/2014_10_21-18_18_34-1311000073", "xtion/sun3ddata/brown_bm_1/brown_bm_1/0000103-000003418565",
          "xtion/sun3ddata/brown_bm_1/brown_bm_1/0001103-000036703123",
          "xtion/sun3ddata/harvard_c5/hv_c5_1/0000001-000000000000")
LAB = "/n/fs/sun3d/data/SUNRGBD/"  # where the authors had the data; their lists say so


def rotated(millimetres):
    """16-bit values with the lowest three bits written as the highest: what the set stores."""
    values = np.asarray(millimetres, np.int64)
    return (values * 8 % 65536 + values // 8192).astype(np.uint16)


def depth_of(number, size=SIZE):
    """Millimetres of frame ``number``: a ramp, with a hole in the upper left corner."""
    depth = 1000 * (number + 1) + np.add.outer(np.arange(size[0]), np.arange(size[1]))
    depth[:4, :4] = 0
    return depth


def names_and_labels(size=SIZE):
    """What one annotator wrote: names with other spellings and one that is no class, and ids that begin at 1."""
    labels = np.zeros(size, np.uint16)
    labels[:, 12:], labels[:, 24:], labels[:, 36:] = 1, 2, 3
    return ["Wall", "night stand", "coffee machine"], labels


def write_frame(root, key, number, size=SIZE, seg=True):
    folder = root / "SUNRGBD" / key
    for name in ("image", "depth", "depth_bfx", "extrinsics"):
        (folder / name).mkdir(parents=True)
    Image.fromarray(np.full((*size, 3), 10 * number, np.uint8)).save(folder / "image" / f"{number:07d}.png")
    depth = depth_of(number, size)
    Image.fromarray(rotated(depth)).save(folder / "depth" / f"{number:07d}.png")
    Image.fromarray(rotated(np.where(depth == 0, 1500, depth))).save(folder / "depth_bfx" / f"{number:07d}.png")
    width, cx, cy = size[1], size[1] / 2 - 0.5, size[0] / 2 - 0.5
    (folder / "intrinsics.txt").write_text(f"{width}.0 0.0 {cx} 0.0 {width}.5 {cy} 0.0 0.0 1.0\n")
    (folder / "extrinsics" / "20150118.txt").write_text("1 0 0 0\n0 1 0 0\n0 0 1 0\n")
    (folder / "scene.txt").write_text("office")
    if seg:
        import scipy.io

        names, labels = names_and_labels(size)
        scipy.io.savemat(folder / "seg.mat", {"seglabel": labels, "names": np.array(names, object)})


def cell(values):
    """A MATLAB cell of strings, 1xN."""
    row = np.empty((1, len(values)), object)
    row[0, :] = values
    return row


def write_split(root, train, test, val=None):
    import scipy.io

    folder = root / "SUNRGBDtoolbox" / "traintestSUNRGBD"
    folder.mkdir(parents=True, exist_ok=True)
    val = val or []
    halves = {"train": cell([LAB + key for key in train if key not in val]), "val": cell([LAB + key for key in val])}
    scipy.io.savemat(folder / "allsplit.mat", {"alltrain": cell([LAB + key for key in train]),
                                               "alltest": cell([LAB + key + "/" for key in test]), "trainvalsplit": halves})


def write_labels(root, keys, labels, names=THE_37):
    """SUNRGBDMeta.mat (version 5) with the order, SUNRGBD2Dseg.mat (7.3) with the pictures; both as MATLAB writes them."""
    import h5py
    import scipy.io

    folder = root / "SUNRGBDtoolbox" / "Metadata"
    folder.mkdir(parents=True, exist_ok=True)
    meta = np.zeros((1, len(keys)), [("sequenceName", object), ("rgbpath", object), ("valid", object)])
    for i, key in enumerate(keys):
        meta[0, i] = ("SUNRGBD/" + key, LAB + key + "/image/0.jpg", 1)
    scipy.io.savemat(folder / "SUNRGBDMeta.mat", {"SUNRGBDMeta": meta})
    path = folder / "SUNRGBD2Dseg.mat"
    with h5py.File(path, "w", userblock_size=512) as file:
        kept = file.create_group("#refs#")

        def references(values):
            found = np.empty((len(values), 1), h5py.ref_dtype)
            for value in values:
                item = kept.create_dataset(f"v{len(kept)}", data=value)
                found[[i for i, v in enumerate(values) if v is value][0], 0] = item.ref
            return found

        pictures = [np.ascontiguousarray(picture.T.astype(np.uint8)) for picture in labels]  # MATLAB counts columns first
        file.create_group("SUNRGBD2Dseg").create_dataset("seglabel", data=references(pictures), dtype=h5py.ref_dtype)
        texts = [np.array([[ord(letter)] for letter in name], np.uint16) for name in names]
        file.create_dataset("seg37list", data=references(texts), dtype=h5py.ref_dtype)
    content = bytearray(path.read_bytes())
    content[:128] = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(116) + bytes(8) + b"\x00\x02IM"
    path.write_bytes(content)


def write_tree(root, frames=FRAMES, seg=True):
    for number, key in enumerate(frames):
        write_frame(root, key, number, seg=seg)
    return root
