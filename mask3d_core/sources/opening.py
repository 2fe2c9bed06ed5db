"""Opening a path without being told what it is."""

from __future__ import annotations

import os
from pathlib import Path

from mask3d_core.errors import Mask3DError
from mask3d_core.sources import Source, open_source
from mask3d_core.sources.folder_config import CONFIG_NAME
from mask3d_core.sources.nyuv2 import LABELED_FILE
from mask3d_core.sources.scannet_scans import is_scannet


def kind_of(path: str | os.PathLike) -> str:
    """Which source a path is for: "store", "tum", "scannet", "nyuv2", "sunrgbd", "cityscapes" or "folder".

    Args:
        path: a folder; or a .sens file (ScanNet) or a .mat file (NYUv2).

    Returns:
        A key of ``SOURCES``; "folder" is also the answer for folders that nothing recognises.

    Raises:
        Mask3DError: no such folder.
    """
    path = Path(path)
    if path.is_file() and path.suffix in (".sens", ".mat"):
        return "scannet" if path.suffix == ".sens" else "nyuv2"
    if not path.is_dir():
        raise Mask3DError("a folder of frames or a prepared store", "no such folder", "Check the path.", path)
    if any((path / name).is_file() for name in ("header.json", "plan.json")):
        return "store"
    if (path / CONFIG_NAME).is_file():
        return "folder"
    if any((place / sensor).is_dir() for place in (path, path / "SUNRGBD") for sensor in ("kv1", "kv2", "realsense", "xtion")):
        return "sunrgbd"
    if (path / "leftImg8bit").is_dir():
        return "cityscapes"
    if (path / LABELED_FILE).is_file():
        return "nyuv2"
    if is_scannet(path):
        return "scannet"
    if (path / "rgb").is_dir() and (path / "depth").is_dir():
        if any((path / name).is_file() for name in ("associations.txt", "rgb.txt", "groundtruth.txt")):
            return "tum"
        stems = [Path(name).stem for name in sorted(os.listdir(path / "rgb"))[:3]]
        if stems and all("." in stem and stem.replace(".", "", 1).isdigit() for stem in stems):
            return "tum"
    return "folder"


def open_path(path: str | os.PathLike) -> Source:
    """Open a store, a data set in its official folders or any other folder of frames, whatever the path holds.

    Args:
        path: a folder.

    Returns:
        The source.

    Raises:
        Mask3DError: nothing there, or nothing recognised.
    """
    return open_source(kind_of(path), path)
