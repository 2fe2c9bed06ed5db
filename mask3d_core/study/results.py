"""What a study has found so far: ``study_NAME.runs.jsonl``, a line per run, and on which frames they were run.

A record travels without frames or weights. Its line of kind "stores" says what the frames looked like, by which a later machine
tells its own, whose processor may have rounded some pixels otherwise, from other ones.
"""

from __future__ import annotations

import json
import math
import os
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from mask3d_core.errors import Mask3DError
from mask3d_core.store import Store

LOOKED_AT = 32  # frames of each store whose means are compared
CLOSE = 1e-3  # share by which such a mean may differ: rounding gives 1e-5, another renderer more


class Results:
    """The lines of a record, and of the other studies' records beside it: what they hold is not run again.

    Of a run that several records hold, the own record's line counts, else the newest: the weights that lie there are of it.

    Args:
        path: of the own record; it need not be there.
        here: device and precision, as ``jobs.machine`` tells them. Of other records only trials are taken, and what was run on such a
            machine, so that all scores and all weights of this study are of one. None: all of it is taken.

    Raises:
        Mask3DError: a line that is not one of a record. The last line of the own record may be cut short: it is dropped.
    """

    def __init__(self, path: str | Path, here: dict[str, str] | None = None):
        self.path = Path(path)
        self.by_key: dict[str, dict[str, Any]] = {}
        self._own: set[str] = set()
        self._stores: list[dict[str, Any]] = []
        self._has_own = False
        others = [p for p in sorted(self.path.parent.glob("study_*.runs.jsonl")) if p != self.path]
        for file in [*others, self.path]:
            for line in self._lines(file) if file.is_file() else []:
                if line.get("kind") == "stores":
                    self._stores.append(line)
                    self._has_own |= file == self.path
                elif file == self.path:
                    self.by_key[line["key"]] = line
                    self._own.add(line["key"])
                elif (here is None or line.get("split") == "val" or made_on(line, here)) and _is_newer(line, self.by_key.get(line["key"])):
                    self.by_key[line["key"]] = line

    def _lines(self, file: Path) -> list[dict[str, Any]]:
        text, found = file.read_text(), []
        lines = text.splitlines(keepends=True)
        for number, line in enumerate(lines):
            try:
                found.append(json.loads(line))
            except ValueError as problem:
                if number < len(lines) - 1 or line.endswith("\n"):
                    raise Mask3DError("a JSON line per run", f"{problem} in line {number + 1}", "Delete that line; what it held is "
                                      "run again.", file) from problem
                if file == self.path:  # killed while writing; the next line begins where it began
                    os.truncate(file, len("".join(lines[:-1]).encode()))
        return found

    @property
    def has_own_stores(self) -> bool:
        """Whether the own record says on which frames it was taken."""
        return self._has_own

    def keep(self, result: dict[str, Any]) -> None:
        """A result, in memory and on a line of its own."""
        self.by_key[result["key"]] = result
        self._own.add(result["key"])
        self._write(result)

    def adopt(self, keys: Iterable[str]) -> None:
        """Write what other records hold of these into the own one."""
        for key in keys:
            if key in self.by_key and key not in self._own:
                self.keep(self.by_key[key])

    def stores_of(self, described: dict[str, str]) -> list[dict[str, Any]]:
        """The lines about frames of this description, of all records.

        Args:
            described: part ("train", "val", "test", "real") to what identifies its making.
        """
        return [line for line in self._stores if line["described"] == described]

    def keep_stores(self, described: dict[str, str], fingerprints: dict[str, str], looks: dict[str, list[float]]) -> None:
        """Write down what the frames were, once."""
        line = {"kind": "stores", "described": described, "fingerprints": fingerprints, "looks": looks}
        self._stores.append(line)
        self._has_own = True
        self._write(line)

    def _write(self, line: dict[str, Any]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "a") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())


def made_on(line: dict[str, Any], here: dict[str, str]) -> bool:
    """Whether a run was made on this device and in this precision; one that does not say was not."""
    return all(line.get("by", {}).get(name) == here[name] for name in ("device", "precision"))


def _is_newer(line: dict[str, Any], known: dict[str, Any] | None) -> bool:
    """Whether a line replaces the one that is known; one without a date is the oldest."""
    return known is None or str(line.get("by", {}).get("date", "")) >= str(known.get("by", {}).get("date", ""))


def look_of(store: Store) -> list[float]:
    """Number of frames, a checksum of their names, and of some frames, evenly spread, mean depth (metres), mean colour (0..255) and
    mean class id: another renderer changes them, another processor hardly."""
    chosen = np.unique(np.linspace(0, len(store) - 1, min(LOOKED_AT, len(store))).round().astype(int))
    names = "\n".join(f"{store.sequence(i)}/{store.frame_name(i)}" for i in range(len(store)))
    found = [np.mean([store.depth[i].mean(dtype=np.float64) for i in chosen]) / store.header.depth_units_per_metre,
             np.mean([store.color[i].mean(dtype=np.float64) for i in chosen])]
    if store.semantic is not None:
        found.append(np.mean([store.semantic[i].mean(dtype=np.float64) for i in chosen]))
    return [len(store), zlib.crc32(names.encode()), *(round(float(value), 5) for value in found)]


def looks_alike(first: list[float], second: list[float]) -> bool:
    """Whether two such means differ by no more than rounding does."""
    return len(first) == len(second) and first[:2] == second[:2] and all(math.isclose(a, b, rel_tol=CLOSE) for a, b in zip(first, second, strict=True))


__all__ = ["Results", "look_of", "looks_alike", "made_on"]
