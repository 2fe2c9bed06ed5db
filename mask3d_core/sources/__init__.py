"""Where frames come from: one file (or folder) per source, all behind one protocol.

A new data set is one new file here with a class that satisfies :class:`Source`, plus one line in ``SOURCES``.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from mask3d_core.errors import ConfigError
from mask3d_core.frames import RGBDFrame


@runtime_checkable
class Source(Protocol):
    """Frames by index, each belonging to one sequence (a recording, a room). Reading is lazy; opening is quick.

    A source of a data set whose authors published a split also has ``official_split(index)``, which gives "train", "val",
    "test" or None (:mod:`mask3d_core.prepare` uses it), known without reading the frame.

    Attributes:
        name: kind of source, as in ``SOURCES``.
        class_names: names of the semantic classes (index = class id), or () where there are no labels.
        labels: which of "semantic" and "instance" at least some frames have.
    """

    name: str
    class_names: Sequence[str]
    labels: frozenset[str]

    def __len__(self) -> int:
        """How many frames."""
        ...

    def sequence(self, index: int) -> str:
        """The sequence that frame belongs to, known without reading the frame."""
        ...

    def frame_name(self, index: int) -> str:
        """The frame's name inside its sequence, known without reading the frame."""
        ...

    def read(self, index: int) -> RGBDFrame:
        """Read one frame.

        Raises:
            FrameError: unreadable or inconsistent; names the file.
        """
        ...

    def describe(self) -> dict[str, Any]:
        """What this source is and how it was opened, as plain JSON values."""
        ...


SOURCES = {
    "rooms": "mask3d_core.sources.rooms:Rooms",
    "tum": "mask3d_core.sources.tum:TumSequence",
    "folder": "mask3d_core.sources.folder:FolderSource",
    "scannet": "mask3d_core.sources.scannet:ScanNet",
    "nyuv2": "mask3d_core.sources.nyuv2:NYUv2",
    "sunrgbd": "mask3d_core.sources.sunrgbd:SUNRGBD",
    "cityscapes": "mask3d_core.sources.cityscapes:Cityscapes",
    "store": "mask3d_core.store:Store",
}


def how_to_get(kind: str) -> str:
    """Where a data set is published and under which terms, as its module's ``HOW_TO_GET`` says.

    Args:
        kind: a key of ``SOURCES``.

    Returns:
        One paragraph; "" for sources that are no published data set.
    """
    return getattr(importlib.import_module(SOURCES[kind].partition(":")[0]), "HOW_TO_GET", "")


def open_source(kind: str, path: str | Path | None = None, **options: Any) -> Source:
    """Open a source by its kind.

    Args:
        kind: a key of ``SOURCES``.
        path: file or folder, for the sources that have one.
        options: passed to the source's constructor.

    Raises:
        ConfigError: unknown kind.
    """
    if kind not in SOURCES:
        raise ConfigError(f"source must be one of {', '.join(SOURCES)}; got {kind!r}")
    module, _, name = SOURCES[kind].partition(":")
    factory = getattr(importlib.import_module(module), name)
    try:
        return factory(**options) if path is None else factory(path, **options)
    except TypeError as problem:  # an option that this source does not have
        raise ConfigError(f"source {kind!r} does not take these options: {problem}", path) from problem
