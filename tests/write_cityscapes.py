"""Small Cityscapes trees, written from the format's description and not from the reader."""

import json

import numpy as np
from PIL import Image

SIZE = (32, 64)
FRAMES = (("train", "aachen", "aachen_000000_000019"), ("train", "aachen", "aachen_000001_000019"),
          ("train", "bochum", "bochum_000000_000313"), ("val", "lindau", "lindau_000000_000019"),
          ("test", "berlin", "berlin_000000_000019"))
BASELINE, FOCAL = 0.2, 2262.5  # metres; pixels at a width of 2048


def save(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def stored_disparity(depth, focal):
    """What the set stores for metres; infinity and NaN become 0, "not measured"."""
    pixels = BASELINE * focal / np.asarray(depth, float)
    return np.where(np.isfinite(depth), np.rint(pixels * 256 + 1), 0).astype(np.uint16)


def labels_of(size=SIZE):
    """Four columns: not scored (0), road (7), a car with an instance (26), people who were not told apart (24)."""
    labels = np.zeros(size, np.uint8)
    quarter = size[1] // 4
    labels[:, quarter:], labels[:, 2 * quarter:], labels[:, 3 * quarter:] = 7, 26, 24
    instances = labels.astype(np.int32)
    instances[:, 2 * quarter:3 * quarter] = 26003
    return labels, instances.astype(np.uint16)


def depth_of(size=SIZE):
    """Metres from 5 to 80 over the rows, nothing measured in the first three columns."""
    depth = np.repeat(np.geomspace(80, 5, size[0])[:, None], size[1], axis=1)
    depth[:, :3] = np.nan
    return depth


def write_frame(root, split, city, stem, number=0, size=SIZE, parts=("disparity", "camera", "label", "instance")):
    focal = FOCAL * size[1] / 2048
    save(root / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png", np.full((*size, 3), 20 * number, np.uint8))
    labels, instances = labels_of(size)
    if split == "test":  # the benchmark keeps them to itself
        labels, instances = np.zeros_like(labels), np.zeros_like(instances)
    if "disparity" in parts:
        save(root / "disparity" / split / city / f"{stem}_disparity.png", stored_disparity(depth_of(size), focal))
    if "label" in parts:
        save(root / "gtFine" / split / city / f"{stem}_gtFine_labelIds.png", labels)
    if "instance" in parts:
        save(root / "gtFine" / split / city / f"{stem}_gtFine_instanceIds.png", instances)
    if "camera" in parts:
        path = root / "camera" / split / city / f"{stem}_camera.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({
            "extrinsic": {"baseline": BASELINE, "pitch": 0.05, "roll": 0.0, "x": 1.7, "y": 0.1, "yaw": 0.0, "z": 1.22},
            "intrinsic": {"fx": focal, "fy": focal, "u0": (size[1] - 1) / 2, "v0": (size[0] - 1) / 2}}, indent=4))


def write_tree(root, frames=FRAMES, **options):
    for number, frame in enumerate(frames):
        write_frame(root, *frame, number=number, **options)
    return root
