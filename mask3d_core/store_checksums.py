"""Checksums of a store's files: CRC-32 per chunk of frames and per column, and the fingerprint over all of them."""

from __future__ import annotations

import hashlib
import json
import zlib
from pathlib import Path

import numpy as np

from mask3d_core.errors import StoreError
from mask3d_core.store import CHECKSUMS, COLUMNS, NAMES, PICTURES, canonical

_BLOCK = 1 << 24


def crc_of_bytes(content) -> str:
    """CRC-32 of bytes or a contiguous array, as 8 hexadecimal digits."""
    return f"{zlib.crc32(content):08x}"


def crc_of_range(file, start: int, stop: int) -> str:
    """CRC-32 of a part of an open binary file."""
    file.seek(start)
    crc, left = 0, stop - start
    while left > 0:
        block = file.read(min(_BLOCK, left))
        if not block:
            break
        crc, left = zlib.crc32(block, crc), left - len(block)
    return f"{crc:08x}"


def fingerprint_of(shape: dict, checksums: dict) -> str:
    """16 hexadecimal digits over the shape of a store and the checksums of all that is in it."""
    return hashlib.sha256(canonical([shape, checksums])).hexdigest()[:16]


def header_shape(header) -> dict:
    """The part of the header that gives stored numbers their meaning, hence part of the fingerprint."""
    return {"height": header.height, "width": header.width, "count": header.count,
            "depth_units_per_metre": header.depth_units_per_metre, "class_names": list(header.class_names)}


def read_checksums(path: Path) -> dict:
    """``checksums.json``: {"pictures": {name: [[first, stop, crc], ...]}, "columns": {name: crc}}.

    Raises:
        StoreError: unreadable.
    """
    file = path / CHECKSUMS
    try:
        values = json.loads(file.read_bytes().decode("utf-8"))
        return {"pictures": {str(name): [(int(a), int(b), str(crc)) for a, b, crc in rows]
                             for name, rows in values["pictures"].items()},
                "columns": {str(name): str(crc) for name, crc in values["columns"].items()}}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise StoreError("readable checksums", f"{type(error).__name__}: {error}",
                         "The store is damaged; copy it again or prepare it again.", file) from error


def verify_files(store) -> list[str]:
    """One line per damaged or missing file of a store; empty when all is well.

    Args:
        store: an open ``mask3d_core.store.Store``.
    """
    try:
        checksums = read_checksums(store.path)
    except StoreError as error:
        return [str(error)]
    plain = {"pictures": {name: [list(row) for row in rows] for name, rows in checksums["pictures"].items()},
             "columns": checksums["columns"]}
    if fingerprint_of(header_shape(store.header), plain) != store.header.fingerprint:
        return [f"{store.path / CHECKSUMS}: expected the checksums that the header's fingerprint was made from; "
                "got others. The store is damaged; copy it again or prepare it again."]
    found = []
    for name in store.header.pictures:
        file, kind, channels = PICTURES[name]
        frame = int(np.prod((store.header.height, store.header.width, *channels))) * kind.itemsize
        with open(store.path / file, "rb") as opened:
            bad = [(a, b) for a, b, crc in checksums["pictures"].get(name, ())
                   if crc_of_range(opened, a * frame, b * frame) != crc]
        if bad:
            places = ", ".join(f"{a}..{b - 1}" for a, b in bad[:5]) + (" and more" if len(bad) > 5 else "")
            found.append(f"{store.path / file}: expected the bytes that were written; got others in frames {places}. "
                         "Copy the file again or prepare the store again.")
    for name in (*COLUMNS, *NAMES):
        path = store.path / f"{name}.npy"
        with open(path, "rb") as opened:
            if crc_of_range(opened, 0, path.stat().st_size) != checksums["columns"].get(name):
                found.append(f"{path}: expected the bytes that were written; got others. "
                             "Copy the file again or prepare the store again.")
    return found
