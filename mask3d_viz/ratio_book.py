"""Which ratio map belongs to a session: those that ship, those that were measured before, or a new one."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from weakref import WeakKeyDictionary

import numpy as np

from mask3d_core.batches import from_frames
from mask3d_core.evaluation.ratio_cells import fill_ratio_map
from mask3d_core.evaluation.ratio_map import RATIOS, MapFrame, RatioMap, checkpoint_digest, empty_map, map_frames
from mask3d_core.models.mask3d import Mask3D
from mask3d_core.shipped import shipped
from mask3d_viz.predictions import model_token
from mask3d_viz.runs import Run
from mask3d_viz.session import Session

FRAMES = 8  # at most, in a map over several frames
SEEDS = (0, 1)  # of the masks of a new map
CACHED = 8  # maps that are remembered

_digests: WeakKeyDictionary[Mask3D, str] = WeakKeyDictionary()


def digest_of(model: Mask3D) -> str:
    """:func:`checkpoint_digest`, once per model."""
    if model not in _digests:
        _digests[model] = checkpoint_digest(model)
    return _digests[model]


@lru_cache(maxsize=16)
def _read(path: Path, changed: int) -> RatioMap:
    return RatioMap.load(path)


def read_maps(paths: Sequence[str | Path] = ()) -> list[RatioMap]:
    """The maps that ship and those at ``paths``.

    Raises:
        Mask3DError: a file that is no map.
    """
    found = [*(Path(path) for path in paths), *sorted(shipped("data", "ratio_maps").glob("*.json"))]
    return [_read(path, path.stat().st_mtime_ns if path.is_file() else 0) for path in found]


class RatioBook:
    """The ratio maps of one session, by checkpoint, frames and masks; get it with :func:`book_of`.

    Args:
        session: whose frames and checkpoints are measured.
    """

    def __init__(self, session: Session):
        self.session = session
        self._maps: OrderedDict[tuple, RatioMap] = OrderedDict()  # those that hold a cell at least
        self._runs: dict[Path, Run] = {}

    @property
    def is_training(self) -> bool:
        """Whether the session's checkpoint is a run that goes on, so that its weights are others every few seconds."""
        place = self.session.checkpoints[self.session.state.checkpoint]
        if not isinstance(place, (str, Path)) or not Path(place).is_dir():
            return False
        return self._runs.setdefault(Path(place), Run(place)).look().is_alive

    def numbers(self, is_one: bool) -> tuple[int, ...]:
        """Numbers of the frames of a map: the session's own, or at most ``FRAMES`` spread evenly."""
        count = len(self.session.frames)
        if is_one:
            return (self.session.state.frame,)
        return tuple(np.linspace(0, count - 1, min(FRAMES, count)).round().astype(int).tolist())

    def find(self, numbers: tuple[int, ...], seeds: tuple[int, ...] | None = None, ratios: tuple[float, ...] | None = None,
             files: Sequence[RatioMap] = ()) -> tuple[tuple, RatioMap]:
        """The fullest map that is known for the session's checkpoint and these frames.

        Args:
            numbers: of frames.
            seeds, ratios: that the map must have; None: those of whatever is known, else ``SEEDS`` and ``RATIOS``.
            files: maps that were read, :func:`read_maps`.

        Returns:
            A key for :meth:`keep`, and the map; nothing is measured in it where nothing was known. The weights of a run
            that goes on are told apart by their loading: reading all of them for a digest would hold the reader up.
        """
        with self.session.lock:
            model, _ = self.session.model()
            digest = f"loaded {model_token(model)}" if self.is_training else digest_of(model)
            own = self.session.state.frame
            here = map_frames(self.session.batch(own), [self.session.frames.name(own)])[0]

        def is_wanted(known: RatioMap) -> bool:
            return seeds in (None, known.seeds) and (ratios is None or known.rgb_ratios == known.depth_ratios == ratios)

        found = {key: known for key, known in self._maps.items() if key[:2] == (digest, numbers) and is_wanted(known)}
        for known in files:
            chosen = self._places(known, numbers, here) if known.digest == digest and is_wanted(known) else None
            key = _key(digest, numbers, known)
            if chosen is not None and key not in found:
                found[key] = known.of_frames(chosen)
                self.keep(key, found[key])
        if found:
            key = max(found, key=lambda k: len(found[k].cells))
            if key in self._maps:
                self._maps.move_to_end(key)
            return key, found[key]
        # signatures of the other frames are known only once they were read: see fill
        frames = [here if n == own else MapFrame(self.session.frames.name(n), n, (0.0, 0.0, 0.0)) for n in numbers]
        new = empty_map(model, frames, SEEDS if seeds is None else seeds, RATIOS if ratios is None else ratios, digest=digest)
        return _key(digest, numbers, new), new

    def _places(self, known: RatioMap, numbers: tuple[int, ...], here: MapFrame) -> list[int] | None:
        """Where the frames stand in a known map; None where one is not in it."""
        by_number = {frame.number: k for k, frame in enumerate(known.frames)}
        if any(n not in by_number or known.frames[by_number[n]].name != self.session.frames.name(n) for n in numbers):
            return None
        if here.number in by_number and not known.frames[by_number[here.number]].is_like(here):
            return None
        return [by_number[n] for n in numbers]

    def keep(self, key: tuple, found: RatioMap) -> None:
        """Remember what was measured; a fuller map is never replaced by an emptier one, the oldest go."""
        if found.cells and (key not in self._maps or len(found.cells) >= len(self._maps[key].cells)):
            self._maps[key] = found
            self._maps.move_to_end(key)
            while len(self._maps) > CACHED:
                self._maps.popitem(last=False)

    def fill(self, start: RatioMap) -> Iterator[RatioMap]:
        """Measure what is missing, cell by cell; the frames are read when the first cell is asked for.

        The session's checkpoint is taken now: a generator goes on with it, whatever the session shows meanwhile.
        """
        model, record = self.session.model()
        numbers, session = [frame.number for frame in start.frames], self.session

        def cells() -> Iterator[RatioMap]:
            if not start.missing:
                return
            batch = from_frames([session.frames[n] for n in numbers], model.config.image_size, numbers)
            frames = map_frames(batch, [frame.name for frame in start.frames])
            mean_map = record.get("extras", {}).get("mean_map")
            yield from fill_ratio_map(replace(start, frames=frames, digest=digest_of(model)), model, batch, mean_map)

        return cells()


def _key(digest: str, numbers: tuple[int, ...], known: RatioMap) -> tuple:
    return digest, numbers, known.seeds, known.rgb_ratios, known.depth_ratios


_books: WeakKeyDictionary[Session, RatioBook] = WeakKeyDictionary()


def book_of(session: Session) -> RatioBook:
    """The session's book, made at the first call."""
    if session not in _books:
        _books[session] = RatioBook(session)
    return _books[session]


def be_modest() -> None:
    """Give this thread's share of the processor to whoever wants it (Linux; elsewhere nothing happens)."""
    with suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)


__all__ = ["FRAMES", "RatioBook", "be_modest", "book_of", "digest_of", "read_maps"]
