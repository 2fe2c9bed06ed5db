"""MATLAB files: version 5 with a reader of our own, version 7.3 (which is HDF5) through h5py, imported when asked for.

SciPy reads version 5 too, but trusts what it reads: a flipped byte can end the process. Here every length is compared with
what is there before it is used, and of a structure only the wanted fields are read. Source: MATLAB's MAT-File Format
(MathWorks), level 5.
"""

from __future__ import annotations

import math
import os
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from mask3d_core.errors import FrameError

_HDF5 = b"\x89HDF\r\n\x1a\n"
_LARGEST = 2_000_000_000  # bytes of a version 5 file or variable, which is read whole
_MATRIX, _COMPRESSED = 14, 15
_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}  # element types
_NUMBERS = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}  # array classes
_CELL, _STRUCTURE, _TEXT, _OPAQUE = 1, 2, 4, 17
_DEEPEST = 30


def mat_version(path: str | os.PathLike) -> str:
    """Which kind of MATLAB file it is, from its first bytes.

    Args:
        path: the file.

    Returns:
        "5" or "7.3".

    Raises:
        FrameError: missing, or neither.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(520)
    except OSError as error:
        raise FrameError("a MATLAB file", error.strerror or str(error), "Check the path and its permissions.", path) from error
    if start.startswith(_HDF5) or start[512:520] == _HDF5:
        return "7.3"
    if start.startswith(b"MATLAB 5.0"):
        return "5"
    raise FrameError("a MATLAB file of version 5 or 7.3", f"{len(start)} bytes that begin with {start[:10]!r}",
                     "The file is damaged or something else; download it again.", path)


def read_mat(path: str | os.PathLike, names: Sequence[str], fields: Sequence[str] | None = None) -> dict[str, Any]:
    """Variables of a version 5 file.

    Args:
        path: the file.
        names: which variables; all of them must be there.
        fields: of structures, which fields to read; None: all.

    Returns:
        By name. Numbers are arrays without dimensions of 1; text is str (a list of them for several rows); cells are object
        arrays (n,) in MATLAB's order; a structure has attributes, and an array of structures is an object array (n,).

    Raises:
        FrameError: the file is damaged, of version 7.3, or lacks a variable.
    """
    if mat_version(path) != "5":
        raise FrameError("a MATLAB file of version 5", "version 7.3 (HDF5)",
                         "Take the original file, or save it again in MATLAB with -v7.", path)
    if Path(path).stat().st_size > _LARGEST:
        raise FrameError(f"at most {_LARGEST / 1e9:.0f} GB", f"{Path(path).stat().st_size / 1e9:.1f} GB",
                         "A file of version 5 cannot be larger; download it again.", path)
    try:
        values = _Reader(Path(path).read_bytes(), fields).variables(set(names))
    except (ValueError, OverflowError, zlib.error, struct.error, UnicodeDecodeError) as error:
        raise FrameError("a readable MATLAB file", f"{type(error).__name__}: {error}".strip(": "),
                         "The file is damaged or cut short; download it again.", path) from error
    missing = [name for name in names if name not in values]
    if missing:
        raise FrameError(f"the variables {', '.join(names)}", f"no {', '.join(missing)}",
                         "This is another file of that name, or a damaged one; download it again.", path)
    return {name: values[name] for name in names}


class _Reader:
    """The elements of a version 5 file: each a tag (type, bytes) and its content.

    Args:
        content: the whole file.
        fields: of structures, which to read; None: all.

    Raises:
        ValueError: neither byte order.
    """

    def __init__(self, content: bytes, fields: Sequence[str] | None):
        mark = content[126:128]
        if mark not in (b"IM", b"MI"):
            raise ValueError(f"no byte order in the header ({mark!r})")
        self.content, self.order = content, "<" if mark == b"IM" else ">"
        self.fields = None if fields is None else set(fields)

    def variables(self, names: set[str]) -> dict[str, Any]:
        """The wanted variables by name; every compressed one is compared with its checksum, also if it is not wanted."""
        found, at = {}, 128
        while at < len(self.content) and len(found) < len(names):
            kind, part, at = self._element(memoryview(self.content), at)
            if kind == _COMPRESSED:
                unpacker = zlib.decompressobj()
                whole = memoryview(unpacker.decompress(part, _LARGEST))
                if not unpacker.eof:
                    raise ValueError("a compressed variable that is cut short or too large")
                kind, part, _ = self._element(whole, 0)
            if kind != _MATRIX:
                raise ValueError(f"an element of type {kind} where a variable begins")
            name = self._header(part)[2] if len(part) else ""
            if name in names:
                found[name] = self._array(part, 0)
        return found

    def _element(self, view: memoryview, at: int) -> tuple[int, memoryview, int]:
        """Type and content of the element at a place, and where the next one begins."""
        if at + 8 > len(view):
            raise ValueError("it ends within an element")
        kind, size = struct.unpack_from(self.order + "II", view, at)
        if kind >> 16:  # up to four bytes, packed into the tag
            kind, size, begin, end = kind & 0xFFFF, kind >> 16, at + 4, at + 8
            if size > 4:
                raise ValueError(f"{size} bytes in a tag that holds 4")
        else:
            begin = at + 8
            end = begin + size + (0 if kind == _COMPRESSED else -size % 8)
        if begin + size > len(view):
            raise ValueError(f"{size:,} bytes announced where {max(0, len(view) - begin):,} are left")
        return kind, view[begin:begin + size], end

    def _header(self, part: memoryview) -> tuple[int, list[int], str, int]:
        """Class, dimensions and name of an array, and where its content begins."""
        _, flags, at = self._element(part, 0)
        if len(flags) >= 4 and struct.unpack_from(self.order + "I", flags)[0] & 0xFF == _OPAQUE:
            return _OPAQUE, [], "", at
        kind, dimensions, at = self._element(part, at)
        _, name, at = self._element(part, at)
        if len(flags) < 4 or kind not in (5, 6) or not 2 <= len(dimensions) // 4 <= 32 or len(dimensions) % 4:
            raise ValueError("an array without dimensions")
        size = [int(number) for number in np.frombuffer(dimensions, self.order + "i4")]
        if min(size) < 0:
            raise ValueError(f"an array of size {size}")
        return struct.unpack_from(self.order + "I", flags)[0] & 0xFF, size, bytes(name).decode("latin-1"), at

    def _array(self, part: memoryview, depth: int) -> Any:
        """The value of one array, with all that is in it."""
        if depth > _DEEPEST:
            raise ValueError(f"arrays within arrays, {depth} deep")
        if not len(part):
            return np.zeros(0)
        kind, size, _, at = self._header(part)
        count = math.prod(size)
        if kind in _NUMBERS:
            values = self._numbers(part, at, count).astype(_NUMBERS[kind])
            return values.reshape(size, order="F").squeeze()
        if kind == _TEXT:
            return self._text(part, at, size)
        if kind not in (_CELL, _STRUCTURE):
            raise ValueError(f"an array of class {kind}, which holds no numbers, text, cells or structures")
        if count > len(part) // 8:
            raise ValueError(f"{count:,} items announced in {len(part):,} bytes")
        if kind == _CELL:
            items = np.empty(count, object)
            for i in range(count):
                items[i], at = self._inner(part, at, depth)
            return items
        return self._structures(part, at, count, depth)

    def _inner(self, part: memoryview, at: int, depth: int, wanted: bool = True) -> tuple[Any, int]:
        """The array at a place within another one, and where the next begins."""
        kind, inner, at = self._element(part, at)
        if kind != _MATRIX:
            raise ValueError(f"an element of type {kind} where an array belongs")
        return (self._array(inner, depth + 1) if wanted else None), at

    def _numbers(self, part: memoryview, at: int, count: int) -> np.ndarray:
        kind, stored, _ = self._element(part, at)
        if kind not in _STORED:
            raise ValueError(f"numbers of type {kind}")
        type_ = np.dtype(self.order + _STORED[kind])
        if len(stored) != count * type_.itemsize:
            raise ValueError(f"{len(stored):,} bytes for {count:,} numbers of {type_.itemsize}")
        return np.frombuffer(stored, type_)

    def _text(self, part: memoryview, at: int, size: list[int]) -> str | list[str]:
        kind, stored, _ = self._element(part, at)
        wide = "utf-16-le" if self.order == "<" else "utf-16-be"
        code = {1: "latin-1", 2: "latin-1", 4: wide, 16: "utf-8", 17: wide}.get(kind)
        if code is None:
            raise ValueError(f"text of type {kind}")
        text = bytes(stored).decode(code)
        rows = size[0]
        if rows > 1 and len(text) != math.prod(size):
            raise ValueError(f"{len(text)} letters for {math.prod(size)}")
        return text if rows <= 1 else [text[row::rows].rstrip() for row in range(rows)]

    def _structures(self, part: memoryview, at: int, count: int, depth: int) -> Any:
        _, length, at = self._element(part, at)
        _, letters, at = self._element(part, at)
        width = struct.unpack_from(self.order + "i", length)[0] if len(length) >= 4 else 0
        if width < 1 or len(letters) % width:
            raise ValueError("field names of no length")
        names = [bytes(letters[i:i + width]).partition(b"\0")[0].decode("latin-1") for i in range(0, len(letters), width)]
        found = np.empty(count, object)
        for i in range(count):
            values = {}
            for name in names:
                wanted = self.fields is None or name in self.fields
                value, at = self._inner(part, at, depth, wanted)
                if wanted:
                    values[name] = value
            found[i] = SimpleNamespace(**values)
        return found[0] if count == 1 else found


def open_hdf5(path: str | os.PathLike):
    """A version 7.3 file, open for reading.

    Args:
        path: the file.

    Returns:
        An ``h5py.File``; arrays in it are transposed, text is uint16.

    Raises:
        FrameError: h5py is missing, the file is damaged, or of version 5.
    """
    if mat_version(path) != "7.3":
        raise FrameError("a MATLAB file of version 7.3 (HDF5)", "version 5", "Take the original file, or save it again in "
                         "MATLAB with -v7.3.", path)
    try:
        import h5py
    except ImportError as error:
        raise FrameError("h5py to read MATLAB files of version 7.3", str(error), "pip install h5py", path) from error
    try:
        return h5py.File(path, "r")
    except Exception as error:
        raise FrameError("a readable HDF5 file", f"{type(error).__name__}: {error}",
                         "The file is damaged or cut short; download it again.", path) from error
