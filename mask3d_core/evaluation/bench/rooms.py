"""The fixed rooms of the bench: versioned, rendered once into a cache, checked by a fingerprint.

Training and validation rooms come from the pool "train", test rooms from the pool "test": furniture models, materials and
patterns that nobody has fitted on. No recipe of ours pre-trains on these seeds.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mask3d_core.errors import ConfigError, StoreError
from mask3d_core.evaluation.bench.config import PARTS, TEST, TRAIN, VAL, BenchConfig
from mask3d_core.evaluation.bench.frames import BenchFrames, read_store, seen_count
from mask3d_core.frames import RGBDFrame
from mask3d_core.prepare import PrepareConfig, prepare
from mask3d_core.sources.rooms import CLASS_NAMES, Rooms
from mask3d_core.store import HEADER, Store

VERSION = "rooms-bench-1"
CLOSE = 2e-3  # relative; another processor may round a pixel differently, another renderer changes far more than this


@dataclass(frozen=True)
class RoomsBench:
    """Which rooms. Another value, another version.

    Args:
        version: printed with every number.
        rooms: how many in train, val and test.
        views: of each room.
        probed: how many of a room's views depth, normals and semantics are read from; all views are paired for correspondence.
        seeds: of the three parts.
        height, width: pixels.
    """

    version: str = VERSION
    rooms: tuple[int, int, int] = (280, 30, 80)
    views: tuple[int, int, int] = (1, 4, 4)
    probed: int = 2
    seeds: tuple[int, int, int] = (910_001, 910_002, 910_003)
    height: int = 240
    width: int = 320

    def __post_init__(self) -> None:
        problems = [f"{name} must be at least 1; got {getattr(self, name)}" for name in ("rooms", "views")
                    if min(getattr(self, name)) < 1]
        if self.probed < 1:
            problems.append(f"probed must be at least 1; got {self.probed}")
        if len(set(self.seeds)) < 3:
            problems.append(f"seeds must differ, or parts would share rooms; got {self.seeds}")
        if problems:
            raise ConfigError(problems, "RoomsBench")

    def source(self, part: str) -> LabelledRooms:
        """The rooms of a part."""
        at = PARTS.index(part)
        return LabelledRooms(count=self.rooms[at] * self.views[at], seed=self.seeds[at], views_per_room=self.views[at],
                             pool="test" if part == TEST else "train", height=self.height, width=self.width)


@dataclass(frozen=True)
class Signature:
    """What rooms of a version look like, so that another renderer is noticed.

    Args:
        fingerprints: of the three stores on the machine of record.
        depth: mean depth of each part, metres. color: mean colour, 0..255.
    """

    fingerprints: tuple[str, str, str]
    depth: tuple[float, float, float]
    color: tuple[float, float, float]


SIGNATURES = {VERSION: Signature(("a172be7299aae56d", "c08f2490785a72de", "ff6ad8bcd9f910b0"), (1.83143, 1.74785, 1.76640),
                                 (121.837, 121.572, 121.312))}


class LabelledRooms(Rooms):
    """Rooms without instance ids, which the bench has no use for."""

    labels = frozenset({"semantic"})

    def read_batch(self, indices: Sequence[int]) -> list[RGBDFrame]:
        """Render several frames at once."""
        return [replace(frame, instance=None) for frame in super().read_batch(indices)]


def default_cache() -> Path:
    """Where rendered rooms are kept: ``$XDG_CACHE_HOME/mask3d-lab``, else ``~/.cache/mask3d-lab``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mask3d-lab"


def rooms_stores(cache: str | Path | None = None, bench: RoomsBench = RoomsBench(), progress: bool = True) -> dict[str, Store]:
    """The three stores, rendered at the first call (about a minute, 300 MB) and only opened afterwards.

    Raises:
        StoreError: a damaged cache, or rooms that are not those of this version.
    """
    folder = Path(cache) if cache is not None else default_cache()
    stores = {}
    for part in PARTS:
        path, source = folder / bench.version / part, bench.source(part)
        options = PrepareConfig(height=bench.height, width=bench.width, split=part, chunk_frames=16)
        # a finished store is opened as it is, whatever options later versions of `prepare` may have
        stores[part] = Store(path) if (path / HEADER).is_file() else prepare(source, path, options, progress)
        if stores[part].first_source != json.loads(json.dumps(source.describe())):
            raise StoreError(f"rooms as {source.describe()}", f"{stores[part].first_source}",
                             "Choose another cache folder, or delete that one.", path)
    check_signature(stores, bench)
    return stores


def signature_of(stores: dict[str, Store]) -> Signature:
    """Fingerprints, mean depth and mean colour of what was rendered; reads one frame at a time."""
    depth, color = [], []
    for part in PARTS:
        store = stores[part]
        depth.append(float(np.mean([store.depth[i].mean(dtype=np.float64) for i in range(len(store))]))
                     / store.header.depth_units_per_metre)
        color.append(float(np.mean([store.color[i].mean(dtype=np.float64) for i in range(len(store))])))
    return Signature(tuple(stores[part].fingerprint for part in PARTS), tuple(depth), tuple(color))


def check_signature(stores: dict[str, Store], bench: RoomsBench) -> bool:
    """Compare what was rendered with the version's own record.

    Returns:
        True where every bit is the same; False where pixels differ by rounding (another processor), or where the rooms have no
        record because somebody chose their own.

    Raises:
        StoreError: these rooms are not those of the version.
    """
    if bench != RoomsBench() or bench.version not in SIGNATURES:
        return False
    wanted = SIGNATURES[bench.version]
    if tuple(stores[part].fingerprint for part in PARTS) == wanted.fingerprints:
        return True
    found = signature_of(stores)
    pairs = list(zip((*wanted.depth, *wanted.color), (*found.depth, *found.color)))
    if any(abs(a - b) > CLOSE * abs(a) for a, b in pairs):
        raise StoreError(f"the rooms of {bench.version}", "others (their mean depth or colour differs: the renderer has "
                         "changed, or the cache was)", "Delete that folder; if it comes again, numbers cannot be compared with "
                         "this version's.", stores[TRAIN].path.parent)
    return False


def rooms_frames(cache: str | Path | None = None, config: BenchConfig = BenchConfig(), bench: RoomsBench = RoomsBench(),
                 progress: bool = True) -> BenchFrames:
    """The bench's rooms as frames to measure on.

    Args:
        cache: folder for the rendered rooms; None: :func:`default_cache`.
        config: protocol; its size should be the rooms'.
        bench: which rooms; anything but the default is not the versioned bench.
        progress: show a bar while rendering.

    Raises:
        StoreError: as :func:`rooms_stores`.
    """
    stores = rooms_stores(cache, bench, progress)
    fingerprints = tuple(stores[part].fingerprint for part in PARTS)
    is_exact = bench.version in SIGNATURES and fingerprints == SIGNATURES[bench.version].fingerprints
    sequences = {part: tuple(f"{part}/{stores[part].sequence(i)}" for i in range(len(stores[part]))) for part in PARTS}
    view = {part: np.arange(len(stores[part])) % bench.views[at] for at, part in enumerate(PARTS)}
    is_standard = bench == RoomsBench()
    version = bench.version if is_standard else f"{bench.version}, changed by hand"
    words = (f"{version}: {bench.rooms[0]} rooms to fit, {bench.rooms[1]} to choose, {bench.rooms[2]} with held-out furniture "
             f"and materials to test ({bench.probed} views each, {bench.views[2]} for correspondence)"
             f"{'' if is_exact or not is_standard else '; bits differ from the machine of record by rounding'}")

    return BenchFrames(version, words, "-".join(fingerprints),
                       lambda part, numbers: read_store(stores[part], np.asarray(numbers), config.size), sequences,
                       {TRAIN: view[TRAIN] >= 0, VAL: view[VAL] < bench.probed, TEST: view[TEST] < bench.probed},
                       tuple(CLASS_NAMES), min(bench.views[1:]) > 1,
                       lambda record: seen_count(stores[TEST], np.arange(len(stores[TEST])), record))
