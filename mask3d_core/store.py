"""Prepared frames: written once, memory-mapped for ever.

A store is a folder: ``header.json`` (readable, checksummed, written last), raw pictures (``color.u8``, ``depth.u16``
with 0 for missing, where labelled ``semantic.u8`` and ``instance.u16``) and columns of one value per frame as
``.npy``. Opening reads the header and maps the rest, whatever the number of frames.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mask3d_core.errors import ConfigError, StoreError
from mask3d_core.frames import FrameOrigin, Intrinsics, RGBDFrame
from mask3d_core.splits import BY_TIME, OFFICIAL, SPLITS

FORMAT_VERSION = 1
TWINS = (("nyuv2/", "sunrgbd/kv1/NYUdata"),)
"""Beginnings of sequence keys that name the same frames: SUN RGB-D holds NYUv2's labelled ones (Song et al. 2015)."""
HEADER, CHECKSUMS, PLAN = "header.json", "checksums.json", "plan.json"
PICTURES = {"color": ("color.u8", np.dtype("u1"), (3,)), "depth": ("depth.u16", np.dtype("<u2"), ()),
            "semantic": ("semantic.u8", np.dtype("u1"), ()), "instance": ("instance.u16", np.dtype("<u2"), ())}
COLUMNS = {"intrinsics": ("<f4", (4,)), "pose": ("<f4", (4, 4)), "sequence_index": ("<i4", ()), "split": ("u1", ()),
           "timestamp": ("<f8", ()), "source_index": ("<i8", ()), "missing_pixels": ("<i4", ())}
NAMES = ("frame_name", "sequence_names")


@dataclass(frozen=True)
class StoreHeader:
    """What a store holds, as in its ``header.json``.

    Args:
        format_version: of the store's layout.
        height, width: of every picture.
        count: frames.
        depth_units_per_metre: stored depth / this = metres.
        source: how the frames' source described itself.
        class_names: semantic classes by id.
        pictures: which of color, depth, semantic, instance there are.
        split_kind: "sequences", "time blocks (same room)", "all frames in one split" or "official".
        split_rule: the rule in words.
        split_counts: frames in train, val, test and unused.
        sequences: how many.
        has_holes: False promises that every pixel was measured.
        valid_share: share of pixels that were measured.
        clipped_share: share of pixels that were measured beyond the store's range and became holes.
        bad_frames: frames that could not be read and were left out: [{"frame", "reason"}].
        fingerprint: of all that is in the store, independent of where it lies.
    """

    format_version: int
    height: int
    width: int
    count: int
    depth_units_per_metre: float
    source: dict[str, Any]
    class_names: tuple[str, ...]
    pictures: tuple[str, ...]
    split_kind: str
    split_rule: str
    split_counts: dict[str, int]
    sequences: int
    has_holes: bool
    valid_share: float
    clipped_share: float
    bad_frames: tuple[dict[str, str], ...]
    fingerprint: str


def canonical(values: Any) -> bytes:
    """JSON with one spelling, for checksums."""
    return json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=list).encode()


def header_text(header: StoreHeader) -> str:
    """The header as its file holds it: indented JSON and a checksum of everything else in it."""
    values = json.loads(json.dumps(dataclasses.asdict(header)))
    return json.dumps({**values, "checksum": f"{zlib.crc32(canonical(values)):08x}"}, indent=1) + "\n"


def read_header(path: Path) -> StoreHeader:
    """Read and check ``header.json``.

    Raises:
        StoreError: unfinished, damaged, changed by hand, or of a newer version.
    """
    file = path / HEADER
    if not file.is_file():
        if (path / PLAN).is_file():
            raise StoreError("a finished store", "one that is still being prepared or was interrupted",
                             f"Run the same `mask3d prepare ... --out {path}` again; it goes on where it stopped.", path)
        raise StoreError("a prepared store", "a folder without header.json" if path.is_dir() else "no such folder",
                         "Check the path, or make one with `mask3d prepare`.", path)
    damaged = "Prepare the store again, or restore header.json from a copy."
    try:
        values = json.loads(file.read_bytes().decode("utf-8"))
        version = values.get("format_version") if isinstance(values, dict) else None
        if isinstance(version, int) and not isinstance(version, bool) and version > FORMAT_VERSION:
            raise StoreError(f"a store of format {FORMAT_VERSION} or older", f"format {version}",
                             "Update mask3d-lab, or prepare the store again with this version.", file)
        checksum = values.pop("checksum")
        fields = {f.name: values.pop(f.name) for f in dataclasses.fields(StoreHeader)}
    except StoreError:
        raise
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise StoreError("a readable store header", f"{type(error).__name__}: {error}", damaged, file) from error
    if values or f"{zlib.crc32(canonical(fields)):08x}" != checksum:
        raise StoreError("the header that was written", "other contents (its checksum does not fit)", damaged, file)
    for name in ("class_names", "pictures", "bad_frames"):
        fields[name] = tuple(fields[name])
    return StoreHeader(**fields)


class Store:
    """A prepared store, itself a :class:`mask3d_core.sources.Source`. Arrays are read-only views of the files.

    Args:
        path: its folder.

    Attributes:
        header: :class:`StoreHeader`.
        color: uint8 (n, height, width, 3), RGB.
        depth: uint16 (n, height, width), metres times ``header.depth_units_per_metre``, 0 where missing.
        semantic, instance: uint8 and uint16 (n, height, width), or None.
        intrinsics float32 (n, 4), pose float32 (n, 4, 4) with NaN where unknown, sequence_index int32 (n,),
        split uint8 (n,), timestamp float64 (n,), source_index int64 (n,), missing_pixels int32 (n,): columns.

    Raises:
        StoreError: unfinished, damaged, cut short or of a newer version; names the file.
    """

    name = "store"

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self.header = header = read_header(self.path)
        self.class_names: Sequence[str] = header.class_names
        self.labels = frozenset(header.pictures) & {"semantic", "instance"}
        pictures = {name: self._map_pictures(name) if name in header.pictures else None for name in PICTURES}
        self.color: np.ndarray = pictures["color"]
        self.depth: np.ndarray = pictures["depth"]
        self.semantic: np.ndarray | None = pictures["semantic"]
        self.instance: np.ndarray | None = pictures["instance"]
        columns = {name: self._map_column(name, kind, shape) for name, (kind, shape) in COLUMNS.items()}
        self.intrinsics: np.ndarray = columns["intrinsics"]
        self.pose: np.ndarray = columns["pose"]
        self.sequence_index: np.ndarray = columns["sequence_index"]
        self.split: np.ndarray = columns["split"]
        self.timestamp: np.ndarray = columns["timestamp"]
        self.source_index: np.ndarray = columns["source_index"]
        self.missing_pixels: np.ndarray = columns["missing_pixels"]
        self._frame_names, self._sequence_names = (self._map_column(name, "S", ()) for name in NAMES)

    def __reduce__(self):
        return type(self), (self.path,)

    def _map_pictures(self, name: str) -> np.ndarray:
        file, kind, channels = PICTURES[name]
        shape = (self.header.count, self.header.height, self.header.width, *channels)
        path, expected = self.path / file, int(np.prod(shape, dtype=np.int64)) * kind.itemsize
        size = path.stat().st_size if path.is_file() else -1
        if size != expected:
            raise StoreError(f"{expected} bytes for {self.header.count} frames",
                             f"{size} bytes" if size >= 0 else "no such file",
                             "The store was cut short; copy it again or prepare it again.", path)
        return np.memmap(path, kind, "r", shape=shape).view(np.ndarray)

    def _map_column(self, name: str, kind: str, shape: tuple) -> np.ndarray:
        path = self.path / f"{name}.npy"
        try:
            column = np.load(path, mmap_mode="r", allow_pickle=False).view(np.ndarray)
        except Exception as error:  # numpy raises whatever its header parser stumbles over
            raise StoreError("a readable column", f"{type(error).__name__}: {error}",
                             "The store was cut short or damaged; copy it again or prepare it again.", path) from error
        count = self.header.sequences if name == "sequence_names" else self.header.count
        fits = column.dtype.kind == "S" if kind == "S" else column.dtype == np.dtype(kind)
        if not fits or column.shape != (count, *shape):
            raise StoreError(f"a column of {count} x {shape} {kind}", f"{column.dtype} {column.shape}",
                             "The store is damaged; prepare it again.", path)
        return column

    def __len__(self) -> int:
        """How many frames."""
        return self.header.count

    @property
    def fingerprint(self) -> str:
        """Of all that is in the store; equal stores have equal ones, wherever they lie."""
        return self.header.fingerprint

    def indices(self, split: str) -> np.ndarray:
        """Frames of a split, ascending, as int64 (k,).

        Args:
            split: "train", "val", "test", or "all" (also the unused frames in the gaps).

        Raises:
            ConfigError: another word.
        """
        if split == "all":
            return np.arange(len(self), dtype=np.int64)
        if split not in SPLITS:
            raise ConfigError(f"split must be one of {', '.join(SPLITS)}, all; got {split!r}")
        return np.flatnonzero(self.split == SPLITS[split]).astype(np.int64)

    def sequence(self, index: int) -> str:
        """The sequence that frame belongs to."""
        number = int(self.sequence_index[index])
        if not 0 <= number < len(self._sequence_names):
            raise StoreError(f"sequence numbers below {len(self._sequence_names)}", str(number),
                             "The store is damaged; prepare it again.", self.path / "sequence_index.npy")
        return self._sequence_names[number].decode("utf-8", errors="replace")

    @property
    def sequence_names(self) -> list[str]:
        """The names of all sequences, in the order of ``sequence_index``."""
        return [name.decode("utf-8", errors="replace") for name in self._sequence_names]

    def frame_name(self, index: int) -> str:
        """The frame's name in its sequence."""
        return self._frame_names[index].decode("utf-8", errors="replace")

    def official_split(self, index: int) -> str | None:
        """The part that the data set's authors put that frame into; None where the store was split otherwise."""
        if self.header.split_kind != OFFICIAL:
            return None
        return next((name for name, value in SPLITS.items() if value == self.split[index]), None)

    @property
    def first_source(self) -> dict[str, Any]:
        """How the frames' first source described itself, also through stores prepared from stores."""
        source = self.header.source
        while isinstance(source.get("prepared_from"), dict):
            source = source["prepared_from"]
        return source

    def _origin_name(self) -> str:
        """The kind of source and, for rendered rooms, their seed: two seeds share room numbers, not rooms."""
        source = self.first_source
        parts = [f"{key}={source[key]}" for key in ("seed", "pool") if key in source]
        return ":".join([str(source.get("source", "unknown")), *parts])

    def sequence_keys(self, indices: np.ndarray) -> list[str]:
        """What a training run remembers of the frames it saw: "source/sequence", with the frames' range in brackets
        where one sequence is split by time.

        Args:
            indices: int (k,).
        """
        indices = np.asarray(indices)
        names = [self._sequence_names[k].decode("utf-8", "replace")
                 for k in np.unique(self.sequence_index[indices])]
        if self.header.split_kind != BY_TIME or not len(indices):
            return [f"{self._origin_name()}/{name}" for name in names]
        first, last = (int(self.source_index[i]) for i in (indices.min(), indices.max()))
        return [f"{self._origin_name()}/{name}[{first}..{last}]" for name in names]

    def is_seen(self, indices: np.ndarray, keys: Sequence[str]) -> np.ndarray:
        """Which frames a training run saw, by the keys that it remembers.

        Args:
            indices: int (k,).
            keys: as :meth:`sequence_keys` gave them, of this store or another one of the same recordings. Frames that two data sets
                share (:data:`TWINS`) are recognised by the data sets' names alone.

        Returns:
            bool (k,).
        """
        indices = np.asarray(indices)
        seen = np.zeros(len(indices), bool)
        whole, ranges = set(), []
        for key in keys:
            match = re.fullmatch(r"(.*)\[(\d+)\.\.(\d+)\]", key, re.DOTALL)
            ranges.append((match[1], int(match[2]), int(match[3]))) if match else whole.add(key)
        own = {int(k): f"{self._origin_name()}/{self._sequence_names[k].decode('utf-8', 'replace')}"
               for k in np.unique(self.sequence_index[indices])}
        pairs = [(mine, other) for pair in TWINS for mine, other in (pair, pair[::-1])]
        twins = tuple(mine for mine, other in pairs if any(key.startswith(other) for key in keys))
        numbers, sources = self.sequence_index[indices], self.source_index[indices]
        for number, key in own.items():
            here = numbers == number
            seen |= here & (key in whole or (bool(twins) and key.startswith(twins)))
            for name, first, last in ranges:
                if name == key:
                    seen |= here & (sources >= first) & (sources <= last)
        return seen

    def read(self, index: int) -> RGBDFrame:
        """One frame, depth back in metres."""
        depth = self.depth[index].astype(np.float32) / np.float32(self.header.depth_units_per_metre)
        pose = np.array(self.pose[index], np.float64)
        return RGBDFrame(
            np.array(self.color[index]), depth, self.depth[index] > 0, Intrinsics.from_array(self.intrinsics[index]),
            pose if np.isfinite(pose).all() else None,
            None if self.semantic is None else np.array(self.semantic[index]),
            None if self.instance is None else self.instance[index].astype(np.int32),
            FrameOrigin(self.name, self.sequence(index), self.frame_name(index), float(self.timestamp[index])))

    def describe(self) -> dict[str, Any]:
        """The header, as plain JSON values."""
        values = json.loads(json.dumps(dataclasses.asdict(self.header)))
        return {**values, "source": self.name, "path": str(self.path), "prepared_from": values["source"]}

    def verify(self) -> list[str]:
        """Read everything and compare checksums.

        Returns:
            One line per damaged or missing file; empty when all is well.
        """
        from mask3d_core.store_checksums import verify_files

        return verify_files(self)
