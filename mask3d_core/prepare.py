"""Preparing: frames of any source, fitted to one size, written once as a store."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mask3d_core.errors import ConfigError, FrameError, StoreError
from mask3d_core.frames import IGNORE_LABEL, RGBDFrame
from mask3d_core.progress import Bar
from mask3d_core.sources import Source
from mask3d_core.splits import OFFICIAL, ONE_SPLIT, SPLITS, UNUSED, auto_splits
from mask3d_core.store import COLUMNS, FORMAT_VERSION, Store, StoreHeader
from mask3d_core.store_checksums import fingerprint_of, header_shape
from mask3d_core.store_writer import RECORD, StoreWriter

_FREE_OPTIONS = ("max_bad_frames", "workers")  # may change between a kill and its resume
_FREE_WORDS = ("path", "notes")  # of a source: may change between a kill and its resume; what was missing may be there now
_LARGEST_INSTANCE = 65535


@dataclass(frozen=True)
class PrepareConfig:
    """How frames become a store."""

    height: int = 256
    """Rows of the stored pictures; a little more than the training size of 240, so that crops can move."""
    width: int = 336
    """Columns; the training size is 320."""
    depth_units_per_metre: float = 4000.0
    """Stored depth per metre: a quarter of a millimetre, up to 16.38 m."""
    max_depth: float = 16.0
    """Metres; what was measured beyond becomes a hole."""
    split: str = "auto"
    """"official": the data set's own; "auto": that where every frame has one, else by sequence, or by time where there is
    one; or all frames "train", "val" or "test"."""
    val_share: float = 0.1
    """Wanted share of validation frames."""
    test_share: float = 0.1
    """Wanted share of test frames."""
    official_val_share: float = 0.0
    """Where the official split has no validation frames: share of its training frames that become such, by sequence."""
    gap: int | None = None
    """Unused frames between the time blocks of a single sequence; none: 2.5 % of it."""
    max_bad_frames: float = 0.01
    """Unreadable frames that may be left out: a share of all below 1, a number from 1 on."""
    chunk_frames: int = 64
    """Frames between two entries of the journal."""
    workers: int | None = None
    """Threads that read; none: one per core, at most 16."""

    def __post_init__(self):
        problems = []
        for name in ("height", "width"):
            if not 16 <= getattr(self, name) <= 8192:
                problems.append(f"{name} must be 16..8192 pixels; got {getattr(self, name)}")
        if not (math.isfinite(self.depth_units_per_metre) and self.depth_units_per_metre > 0):
            problems.append(f"depth_units_per_metre must be above 0; got {self.depth_units_per_metre}")
        elif not 0 < self.max_depth * self.depth_units_per_metre <= 65535:
            problems.append(f"max_depth of {self.max_depth:g} m does not fit into 16 bits at "
                            f"{self.depth_units_per_metre:g} units per metre; lower one of them")
        if self.split not in ("auto", OFFICIAL, *SPLITS):
            problems.append(f"split must be one of auto, {OFFICIAL}, {', '.join(SPLITS)}; got {self.split!r}")
        if min(self.val_share, self.test_share) < 0 or not self.val_share + self.test_share < 1:
            problems.append(f"val_share and test_share must be at least 0 and below 1 together; got {self.val_share} "
                            f"and {self.test_share}")
        if not 0 <= self.official_val_share < 1:
            problems.append(f"official_val_share must be at least 0 and below 1; got {self.official_val_share}")
        if self.gap is not None and self.gap < 0:
            problems.append(f"gap must be at least 0 frames; got {self.gap}")
        if not self.max_bad_frames >= 0:
            problems.append(f"max_bad_frames must be at least 0; got {self.max_bad_frames}")
        if self.chunk_frames < 1 or (self.workers is not None and self.workers < 1):
            problems.append(f"chunk_frames and workers must be at least 1; got {self.chunk_frames}, {self.workers}")
        if problems:
            raise ConfigError(problems, "PrepareConfig")

    def bad_frame_limit(self, count: int) -> int:
        """How many of ``count`` frames may be unreadable."""
        share = self.max_bad_frames
        return math.ceil(share * count - 1e-9) if share < 1 else int(share)


def prepare(source: Source, out: str | os.PathLike, config: PrepareConfig = PrepareConfig(),
            progress: bool = True) -> Store:
    """Write a store. Killed at any moment, the same call goes on where it stopped; a finished store is just opened.

    Args:
        source: where the frames come from.
        out: the store's folder.
        config: size, units, splits.
        progress: show a bar.

    Returns:
        The store.

    Raises:
        StoreError: too many unreadable frames, a full disk, or a folder that holds something else.
    """
    names = _Names(source)
    if config.split == OFFICIAL and None in names.official:
        without = names.official.count(None)
        raise ConfigError(f'split "{OFFICIAL}" needs one for every frame; {without} of {len(source)} frames have none: give the '
                          'data set\'s split files, only frames that are in them, or split "auto"', source.name)
    plan = _plan(source, config, names)
    with StoreWriter(Path(out), plan) as writer:
        if not writer.is_finished:
            writer.resume()
            writer.check_room(len(source) - writer.next_source)
            _write_all(source, writer, config, names, progress)
            _finish(source, writer, config, names)
    return Store(out)


class _Names:
    """Names, sequences and official splits of all frames, known before any is read."""

    def __init__(self, source: Source):
        if not len(source):
            raise StoreError("at least one frame", "an empty source", "Check the path of the source.", source.name)
        numbers: dict[str, int] = {}
        digest = hashlib.sha256()
        self.sequence_index = np.zeros(len(source), np.int32)
        self.longest = 1
        for i in range(len(source)):
            sequence, name = source.sequence(i), source.frame_name(i)
            self.sequence_index[i] = numbers.setdefault(sequence, len(numbers))
            digest.update(f"{sequence}\0{name}\0".encode())
            self.longest = max(self.longest, len(name.encode()))
        self.sequences = list(numbers)
        ask = getattr(source, "official_split", None)
        self.official: list[str | None] = [None if ask is None else ask(i) for i in range(len(source))]
        if any(self.official):
            digest.update("\0".join(str(part) for part in self.official).encode())
        self.digest = digest.hexdigest()[:16]


def _plan(source: Source, config: PrepareConfig, names: _Names) -> dict[str, Any]:
    """What identifies this job; an interrupted store goes on only under the same plan."""
    described = {key: value for key, value in source.describe().items() if key not in _FREE_WORDS}
    options = {key: value for key, value in dataclasses.asdict(config).items() if key not in _FREE_OPTIONS}
    plan = {"format_version": FORMAT_VERSION, "frames": len(source), "names": names.digest, "source": described,
            "config": options, "pictures": _pictures(source, config)}
    return json.loads(json.dumps(plan))


def _pictures(source: Source, config: PrepareConfig) -> list[str]:
    """Colour and depth, and the labels that any frame has. One frame is read, so that a wrong path is known at once."""
    limit, error = config.bad_frame_limit(len(source)), None
    for index in range(min(limit + 1, len(source))):
        try:
            source.read(index)
            break
        except FrameError as problem:
            error = problem
    else:
        raise StoreError(f"at most {limit} unreadable frames of {len(source)}",
                         f"none of the first can be read: {error}", "Check the source with `mask3d doctor`.", source.name)
    return ["color", "depth", *sorted(source.labels, reverse=True)]


@dataclass(frozen=True)
class _Fitted:
    """One frame in stored form."""

    color: np.ndarray
    depth: np.ndarray
    semantic: np.ndarray | None
    instance: np.ndarray | None
    record: tuple


def _fit(frame: RGBDFrame, index: int, config: PrepareConfig) -> _Fitted:
    frame = frame.fit(config.height, config.width)
    is_near = frame.depth <= config.max_depth
    depth = np.rint(np.where(is_near, frame.depth, 0) * config.depth_units_per_metre).astype(np.uint16)
    if frame.instance is not None and (frame.instance.min() < 0 or frame.instance.max() > _LARGEST_INSTANCE):
        raise FrameError(f"instance ids 0..{_LARGEST_INSTANCE}", f"{frame.instance.min()}..{frame.instance.max()}",
                         "Renumber the instances.", frame.origin)
    if not np.isfinite(frame.intrinsics.as_array()).all():
        raise FrameError("finite intrinsics", str(frame.intrinsics), "Correct the camera.", frame.origin)
    pose = np.full((4, 4), np.nan) if frame.pose is None else frame.pose
    record = (frame.intrinsics.as_array(), pose, frame.origin.timestamp, index, int((depth == 0).sum()),
              int((frame.is_valid & ~is_near).sum()))
    return _Fitted(frame.color, depth, frame.semantic, frame.instance, record)


def _read_chunk(source: Source, indices: range, config: PrepareConfig, pool: ThreadPoolExecutor | None
                ) -> Iterator[_Fitted | tuple[int, FrameError]]:
    """Each frame of a chunk in stored form, or its number and what is wrong with it."""
    def one(index: int, frame: RGBDFrame | None = None):
        try:
            return _fit(source.read(index) if frame is None else frame, index, config)
        except FrameError as error:
            return index, error

    read_batch: Callable | None = getattr(source, "read_batch", None)
    if read_batch is not None:
        try:
            frames = read_batch(list(indices))
        except FrameError:  # one of them: find out which
            frames = [None] * len(indices)
        yield from (one(index, frame) for index, frame in zip(indices, frames))
    elif pool is None:
        yield from map(one, indices)
    else:
        yield from pool.map(one, indices)


def _write_all(source: Source, writer: StoreWriter, config: PrepareConfig, names: _Names, progress: bool) -> None:
    total, limit = len(source), config.bad_frame_limit(len(source))
    workers = config.workers or min(16, os.cpu_count() or 1)
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(workers)) if workers > 1 else None
        bar = stack.enter_context(Bar(f"preparing {writer.path.name}", total, writer.next_source, show=progress))
        while writer.next_source < total:
            start = writer.next_source
            chunk = range(start, min(start + config.chunk_frames, total))
            good, bad = [], []
            for item in _read_chunk(source, chunk, config, pool):
                if isinstance(item, _Fitted):
                    good.append(item)
                    continue
                index, error = item
                bad.append({"frame": f"{source.sequence(index)}/{source.frame_name(index)}", "reason": str(error)})
                found = len(writer.bad_frames) + len(bad)
                if found > limit:
                    raise StoreError(f"at most {limit} unreadable frames of {total}", f"{found}; the last: {error}",
                                     "Repair or remove them, or raise max_bad_frames; what was prepared is kept.",
                                     writer.path)
                print(f"left out (frame {found} of at most {limit}): {error}", file=sys.stderr)
            writer.write_chunk(chunk.stop, _stack(good, writer.pictures, config), bad)
            bar.advance(len(chunk))


def _stack(frames: list[_Fitted], pictures: tuple[str, ...], config: PrepareConfig) -> dict[str, np.ndarray]:
    """The arrays of one chunk; unlabelled frames of a labelled store are all ignored."""
    empty = (0, config.height, config.width)
    arrays = {"color": np.stack([f.color for f in frames]) if frames else np.zeros((*empty, 3), np.uint8),
              "depth": np.stack([f.depth for f in frames]) if frames else np.zeros(empty, np.uint16)}
    for name, dtype, missing in (("semantic", np.uint8, IGNORE_LABEL), ("instance", np.uint16, 0)):
        if name in pictures:
            array = np.full((len(frames), *empty[1:]), missing, dtype)
            for row, frame in zip(array, frames):
                if getattr(frame, name) is not None:
                    row[:] = getattr(frame, name)
            arrays[name] = array
    arrays["records"] = np.array([f.record for f in frames], RECORD)
    return arrays


def _finish(source: Source, writer: StoreWriter, config: PrepareConfig, names: _Names) -> None:
    """Columns, checksums and header."""
    records = writer.records()
    if not len(records):
        raise StoreError("at least one readable frame", "none", "Check the source with `mask3d doctor`.", writer.path)
    kept = names.sequence_index[records["source_index"]]
    used, sequence_index = np.unique(kept, return_inverse=True)
    sequences = [names.sequences[k] for k in used]
    given = [names.official[i] for i in records["source_index"]]
    if config.split in ("auto", OFFICIAL):
        split, kind, rule = auto_splits(given, sequence_index, sequences, config.val_share, config.test_share, config.gap,
                                        config.official_val_share, writer.has_class() if None in given else None)
    else:
        split = np.full(len(records), SPLITS[config.split], np.uint8)
        kind, rule = ONE_SPLIT, f"all frames {config.split}, as asked for"
    columns = {name: np.ascontiguousarray(records[name]) for name in COLUMNS if name in RECORD.names}
    columns |= {"sequence_index": sequence_index.astype(np.int32), "split": split}
    columns["frame_name"] = np.zeros(len(records), f"S{names.longest}")
    for row, index in enumerate(records["source_index"]):
        columns["frame_name"][row] = source.frame_name(int(index)).encode()
    columns["sequence_names"] = np.array([name.encode() for name in sequences])
    checksums = writer.finish_files(columns)

    pixels = len(records) * config.height * config.width
    missing, clipped = (int(records[name].sum(dtype=np.int64)) for name in ("missing_pixels", "clipped_pixels"))
    header = StoreHeader(
        format_version=FORMAT_VERSION, height=config.height, width=config.width, count=len(records),
        depth_units_per_metre=float(config.depth_units_per_metre), source=json.loads(json.dumps(source.describe())),
        class_names=tuple(source.class_names), pictures=writer.pictures, split_kind=kind, split_rule=rule,
        split_counts={**{name: int((split == value).sum()) for name, value in SPLITS.items()},
                      "unused": int((split == UNUSED).sum())},
        sequences=len(sequences), has_holes=missing > 0, valid_share=round(1 - missing / pixels, 6),
        clipped_share=round(clipped / pixels, 6), bad_frames=tuple(writer.bad_frames), fingerprint="")
    fingerprint = fingerprint_of(header_shape(header), json.loads(json.dumps(checksums)))
    del records, columns
    writer.finish(dataclasses.replace(header, fingerprint=fingerprint))
