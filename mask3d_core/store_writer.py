"""Writing a store's files: chunk by chunk beside a journal, so that a kill at any moment loses at most one chunk."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from mask3d_core.errors import StoreError
from mask3d_core.files import write_atomically
from mask3d_core.frames import frames_with_class
from mask3d_core.store import CHECKSUMS, COLUMNS, HEADER, NAMES, PICTURES, PLAN, canonical, header_text
from mask3d_core.store_checksums import crc_of_bytes, crc_of_range

JOURNAL, RECORDS = "journal.jsonl", "columns.part"
RECORD = np.dtype([("intrinsics", "<f4", (4,)), ("pose", "<f4", (4, 4)), ("timestamp", "<f8"), ("source_index", "<i8"),
                   ("missing_pixels", "<i4"), ("clipped_pixels", "<i4")])
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def frame_bytes(pictures: tuple[str, ...], height: int, width: int) -> int:
    """Bytes of one frame on disk."""
    return sum(int(np.prod((height, width, *PICTURES[name][2]))) * PICTURES[name][1].itemsize for name in pictures)


class StoreWriter:
    """The files of a store in the making. Use as a context manager; only one process can hold a store.

    Args:
        path: the store's folder, made if needed.
        plan: what is being prepared; another plan in the same folder is refused.

    Raises:
        StoreError: the folder holds something else, another plan, or is being written by another process.
    """

    def __init__(self, path: Path, plan: dict[str, Any]):
        self.path, self.plan = path, plan
        self.height, self.width = plan["config"]["height"], plan["config"]["width"]
        self.pictures = tuple(plan["pictures"])
        self.chunks: list[dict] = []
        self._handles: dict[str, int] = {}
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError("a folder that can be made", str(error), "Choose another --out.", path) from error
        self._lock = _lock(path)
        try:
            self._open_plan()
        except BaseException:
            self.__exit__()
            raise

    def _open_plan(self) -> None:
        file = self.path / PLAN
        if file.is_file():
            try:
                old = json.loads(file.read_text("utf-8"))
            except (OSError, ValueError) as error:
                raise StoreError("a readable plan of an interrupted store", str(error), "Delete the folder and prepare "
                                 "again.", file) from error
            different = sorted(key for key in {*old, *self.plan} if old.get(key) != self.plan.get(key))
            if different:
                raise StoreError("the same source and options as when this store was begun",
                                 f"others ({', '.join(different)})", "Choose another --out, or delete the folder.", file)
        elif any(not file.name.startswith(".") for file in self.path.iterdir()):  # a kill may leave a temporary file
            raise StoreError("an empty or new folder", "a folder that holds something else", "Choose another --out.",
                             self.path)
        else:
            write_atomically(file, json.dumps(self.plan, indent=1).encode())

    @property
    def is_finished(self) -> bool:
        """Whether the header is there."""
        return (self.path / HEADER).is_file()

    def resume(self) -> None:
        """Take over the chunks that the journal vouches for; the rest will be written again."""
        journal = self.path / JOURNAL
        lines = journal.read_bytes().split(b"\n")[:-1] if journal.is_file() else []
        for line in lines:  # a kill can leave half a line; nothing after it counts
            try:
                chunk = json.loads(line)
                crc = chunk.pop("crc")
                if crc != crc_of_bytes(canonical(chunk)):
                    break
            except (ValueError, KeyError, AttributeError):
                break
            self.chunks.append(chunk)
        while self.chunks and not self._is_on_disk(self.chunks[-1]):
            self.chunks.pop()
        kept = b"".join(line + b"\n" for line in lines[:len(self.chunks)])
        write_atomically(journal, kept)

    def _is_on_disk(self, chunk: dict) -> bool:
        """Whether the files hold what the journal says of its last chunk (they may not, after a power cut)."""
        for name, crc in chunk["checksums"].items():
            size = self._size_of(name)
            try:
                with open(self.path / self._file_of(name), "rb") as file:
                    if crc_of_range(file, chunk["first"] * size, chunk["stop"] * size) != crc:
                        return False
            except OSError:
                return False
        return True

    def _file_of(self, name: str) -> str:
        return RECORDS if name == "records" else PICTURES[name][0]

    def _size_of(self, name: str) -> int:
        if name == "records":
            return RECORD.itemsize
        return frame_bytes((name,), self.height, self.width)

    @property
    def next_source(self) -> int:
        """The first frame of the source that no finished chunk covers."""
        return self.chunks[-1]["source_stop"] if self.chunks else 0

    @property
    def count(self) -> int:
        """Frames written."""
        return self.chunks[-1]["stop"] if self.chunks else 0

    @property
    def bad_frames(self) -> list[dict[str, str]]:
        """Frames left out so far."""
        return [bad for chunk in self.chunks for bad in chunk["bad"]]

    def check_room(self, frames: int) -> None:
        """Refuse to begin what the disk cannot hold.

        Raises:
            StoreError: too little room for that many more frames.
        """
        needed = int(frames * (frame_bytes(self.pictures, self.height, self.width) + 2 * RECORD.itemsize) * 1.01) + 2**20
        free = shutil.disk_usage(self.path).free
        if needed > free:
            raise StoreError(f"{needed / 1e9:.2f} GB of free disk for {frames} frames", f"{free / 1e9:.2f} GB",
                             "Free some room, choose another disk, or prepare fewer or smaller frames.", self.path)

    def write_chunk(self, source_stop: int, arrays: dict[str, np.ndarray], bad: list[dict[str, str]]) -> None:
        """Write the pictures and records of one chunk, then vouch for it in the journal.

        Args:
            source_stop: the chunk covers the source's frames up to this one.
            arrays: by picture name and "records", all of one length.
            bad: frames that were left out.

        Raises:
            StoreError: the disk is full; what was written before stays.
        """
        first = self.count
        stop = first + len(arrays["records"])
        try:
            checksums = {}
            for name, array in arrays.items():
                content = memoryview(np.ascontiguousarray(array)).cast("B") if len(array) else b""
                self._write_at(name, first * self._size_of(name), content)
                checksums[name] = crc_of_bytes(content)
            for handle in self._handles.values():
                os.fsync(handle)
            chunk = {"first": first, "stop": stop, "source_stop": source_stop, "checksums": checksums, "bad": bad}
            line = json.dumps({**chunk, "crc": crc_of_bytes(canonical(chunk))}) + "\n"
            with open(self.path / JOURNAL, "ab") as journal:
                journal.write(line.encode())
                journal.flush()
                os.fsync(journal.fileno())
        except OSError as error:
            raise self._disk_error(error) from error
        self.chunks.append(chunk)

    def _disk_error(self, error: OSError) -> StoreError:
        kept = f"{self.count} frames are safe; run the same command again to go on."
        if error.errno in _FULL:
            return StoreError("room on the disk", "a full disk", f"Free some room: {kept}", self.path)
        return StoreError("a disk that can be written", str(error), f"Check the disk: {kept}", self.path)

    def _write_at(self, name: str, offset: int, content) -> None:
        if name not in self._handles:
            self._handles[name] = os.open(self.path / self._file_of(name),
                                          os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o644)
        handle, view = self._handles[name], memoryview(content)
        os.lseek(handle, offset, os.SEEK_SET)
        while len(view):
            written = os.write(handle, view)
            view = view[written:]

    def records(self) -> np.ndarray:
        """The records of all frames written, mapped."""
        return np.memmap(self.path / RECORDS, RECORD, "r", shape=(self.count,)) if self.count else np.zeros(0, RECORD)

    def has_class(self) -> np.ndarray | None:
        """Which of the frames written have a pixel with a class, bool (n,); None in a store without classes."""
        if "semantic" not in self.pictures:
            return None
        shape = (self.count, self.height, self.width)
        return frames_with_class(np.memmap(self.path / self._file_of("semantic"), np.uint8, "r", shape=shape))

    def finish_files(self, columns: dict[str, np.ndarray]) -> dict:
        """Cut the pictures to their exact length, write the columns, and return and write all checksums."""
        assert set(columns) == {*COLUMNS, *NAMES}
        try:
            for name in self.pictures:
                os.truncate(self.path / self._file_of(name), self.count * self._size_of(name))
            sums: dict[str, Any] = {"columns": {}, "pictures": {
                name: [[chunk["first"], chunk["stop"], chunk["checksums"][name]] for chunk in self.chunks
                       if chunk["stop"] > chunk["first"]] for name in self.pictures}}
            for name, column in columns.items():
                path = self.path / f"{name}.npy"
                temporary = path.with_name(path.name + ".tmp")
                with open(temporary, "wb") as file:
                    np.save(file, column)
                    file.flush()
                    os.fsync(file.fileno())
                with open(temporary, "rb") as file:
                    sums["columns"][name] = crc_of_range(file, 0, temporary.stat().st_size)
                os.replace(temporary, path)
            write_atomically(self.path / CHECKSUMS, canonical(sums))
        except OSError as error:
            raise self._disk_error(error) from error
        return sums

    def finish(self, header) -> None:
        """Write the header: from now on it is a store. The journal is no longer needed."""
        try:
            write_atomically(self.path / HEADER, header_text(header).encode())
        except OSError as error:
            raise self._disk_error(error) from error
        for name in (JOURNAL, RECORDS):
            (self.path / name).unlink(missing_ok=True)

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(self, *_) -> None:
        for handle in self._handles.values():
            os.close(handle)
        self._handles = {}
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _lock(path: Path) -> int | None:
    """Hold the folder, until the handle is closed or the process dies; None where there is no such lock."""
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise StoreError("a store that nobody else is writing", "another process that prepares it now",
                         "Wait for it, or choose another --out.", path) from error
    except OSError:  # a file system without locks
        os.close(handle)
        return None
    return handle
