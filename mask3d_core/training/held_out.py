"""Frames that nobody trains on, read batch by batch in a fixed order, so that scoring never holds a data set in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from mask3d_core.batches import AugmentConfig, Batch, StoreBatches, crop_scale
from mask3d_core.errors import ConfigError
from mask3d_core.frames import frames_with_class
from mask3d_core.splits import OFFICIAL, SPLITS
from mask3d_core.store import Store


@dataclass(frozen=True)
class HeldOut:
    """Some frames of a store, without augmentation.

    Args:
        store: a prepared store.
        indices: int64 (k,), which frames, in this order.
        size: (height, width) they are fitted to.
        labels: which of "semantic" and "instance" are read too.
        batch_size: frames at a time.
        device: where batches live.
        view: "whole", all of the stored frame brought to ``size``, each side by its own factor; or "centre", a crop of its middle.
    """

    store: Store
    indices: np.ndarray
    size: tuple[int, int]
    labels: tuple[str, ...] = ()
    batch_size: int = 8
    device: torch.device | str = "cpu"
    view: str = "whole"

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def window(self) -> tuple[float, float, float, float]:
        """Top, bottom, left and right edge of what is shown, as shares of the stored frame."""
        if self.view == "whole":
            return 0.0, 1.0, 0.0, 1.0
        stored = self.store.header.height, self.store.header.width
        high, wide = (crop_scale(stored, self.size) * side / full for side, full in zip(self.size, stored, strict=True))
        return (1 - high) / 2, (1 + high) / 2, (1 - wide) / 2, (1 + wide) / 2

    @property
    def share(self) -> float:
        """Area of what is shown, as a share of the stored frame."""
        top, bottom, left, right = self.window
        return (bottom - top) * (right - left)

    @property
    def words(self) -> str:
        """What is shown, in words."""
        stored = f"{self.store.header.height}x{self.store.header.width}"
        if self.view == "whole":
            return f"the whole stored frame ({stored})"
        return f"the centre crop, {self.share:.0%} of the stored frame ({stored})"

    def _reader(self, batch_size: int) -> StoreBatches:
        return StoreBatches(self.store, self.indices, batch_size, self.size, AugmentConfig.none(), 0, self.device,
                            labels=self.labels, is_whole=self.view == "whole")

    def __iter__(self) -> Iterator[tuple[Batch, list[str]]]:
        """Batches with the sequence of each frame."""
        reader = self._reader(self.batch_size)
        for start in range(0, len(self.indices), self.batch_size):
            part = self.indices[start:start + self.batch_size]
            yield reader.frames(part), [self.store.sequence(int(i)) for i in part]

    def first(self, count: int) -> Batch | None:
        """The first frames as one batch; None without any."""
        count = min(count, len(self.indices))
        if not count:
            return None
        return self._reader(count).frames(self.indices[:count])


def truth_words(task: str) -> str:
    """What a pixel that a task can learn from or be scored on is: "no pixel ..." is said where there is none."""
    return "was measured" if task == "depth" else "has a class"


def with_truth(store: Store, task: str) -> np.ndarray:
    """Which frames a task can learn from or be scored on: bool (n,), those with a pixel that has a class (of a store without
    classes: all), or for "depth" one that was measured. Recordings are often labelled here and there only."""
    if task == "depth":
        return store.missing_pixels < store.header.height * store.header.width
    return np.ones(len(store), bool) if store.semantic is None else _with_class(store.path, store.fingerprint)


@lru_cache(maxsize=8)
def _with_class(path: Path, fingerprint: str) -> np.ndarray:
    found = frames_with_class(Store(path).semantic)
    found.flags.writeable = False
    return found


def part_of(config, split: str, only_with_truth: bool = True) -> tuple[Store, np.ndarray]:
    """The store and the frames of a part of a fine-tuning run's data.

    Args:
        config: a ``FinetuneConfig``.
        split: "train", "val" or "test".
        only_with_truth: only the frames that the task can learn from or be scored on (:func:`with_truth`); False: all.

    Returns:
        The store and int64 indices, ascending; none where the data has no such part.

    Raises:
        ConfigError: ``hold_out`` fits no sequence, or every one; a pattern of ``leave_out`` fits none; another store that has a split, but no such part.
        StoreError: a store that is missing or damaged.
    """
    store, indices = _part_of(config, split)
    if config.leave_out:
        indices = indices[~_fitting(store, config.leave_out)[store.sequence_index[indices]]]
        _refuse_idle(config)
    return store, indices[with_truth(store, config.task)[indices]] if only_with_truth else indices


def _part_of(config, split: str) -> tuple[Store, np.ndarray]:
    store = Store(config.data)
    if config.hold_out:
        tests = _fitting(store, config.hold_out)
        if tests.all() or not tests.any():
            raise ConfigError(f"hold_out {list(config.hold_out)} fits {'every' if tests.all() else 'no'} sequence of {store.path} "
                              f"({', '.join(store.sequence_names[:3])}, ...)")
        is_test = tests[store.sequence_index]
        chosen = {"train": ~is_test, "test": is_test}.get(split, np.zeros(len(store), bool))
        return store, np.flatnonzero(chosen).astype(np.int64)
    other = {"val": config.validation_data, "test": config.test_data}.get(split, "")
    if not other:
        return store, store.indices(split)
    store = Store(other)
    indices = store.indices(split)
    if len(indices):
        return store, indices
    parts = {name: count for name, count in store.header.split_counts.items() if name in SPLITS and count}
    if len(parts) > 1:  # it was split, so the rest has another purpose
        key = {"val": "validation_data", "test": "test_data"}[split]
        raise ConfigError(f"{key} {store.path} has no {split} frames ({', '.join(f'{k} {v}' for k, v in parts.items())}), and its other "
                          f"frames are not taken for them: prepare it again with such a part (official_val_share, or split \"{split}\" for "
                          "all of it), or name another store")
    return store, store.indices("all")


def _fitting(store: Store, patterns: tuple[str, ...]) -> np.ndarray:
    """Which sequences of a store fit one of the patterns; bool (sequences,)."""
    return np.array([any(fnmatchcase(name, pattern) for pattern in patterns) for name in store.sequence_names], bool)


def _refuse_idle(config) -> None:
    """A pattern of what is to be left out that fits nothing is most likely misspelled."""
    stores = [Store(path) for path in dict.fromkeys((config.data, config.validation_data, config.test_data)) if path]
    idle = [pattern for pattern in config.leave_out if not any(_fitting(store, (pattern,)).any() for store in stores)]
    if idle:
        raise ConfigError(f"leave_out {', '.join(idle)} fits no sequence of {', '.join(str(store.path) for store in stores)} "
                          f"({', '.join(stores[0].sequence_names[:3])}, ...)")


def shared_sequences(first: tuple[Store, np.ndarray], second: tuple[Store, np.ndarray]) -> int:
    """How many sequences of the second frames the first ones have too, as :meth:`Store.is_seen` recognises them: of a recording that
    is cut by time only where the ranges overlap.

    Args:
        first, second: a store and int (k,) indices.
    """
    (store, indices), (other, frames) = first, second
    if not len(indices) or not len(frames):
        return 0
    seen = other.is_seen(frames, store.sequence_keys(indices))
    return len(np.unique(other.sequence_index[frames][seen]))


def is_torn_officially(first: tuple[Store, np.ndarray], second: tuple[Store, np.ndarray]) -> bool:
    """Whether both are parts of one store whose authors split it so."""
    return first[0].fingerprint == second[0].fingerprint and first[0].header.split_kind == OFFICIAL


def overlaps(frames: dict[str, tuple[Store, np.ndarray]]) -> dict[tuple[str, str], int]:
    """Pairs of parts that share sequences, and how many.

    Args:
        frames: part ("train", "val", "test") to its store and indices.
    """
    found = {pair: shared_sequences(frames[pair[0]], frames[pair[1]]) for pair in (("train", "val"), ("train", "test"), ("val", "test"))}
    return {pair: count for pair, count in found.items() if count}


def held_out(config, split: str, labels: tuple[str, ...], limit: int = 0, batch_size: int = 8,
             device: torch.device | str = "cpu") -> HeldOut:
    """The frames of a part of a fine-tuning run's data, evenly thinned to ``limit`` (0 = all).

    Raises:
        ConfigError: there are none, or none with truth.
    """
    store, indices = part_of(config, split)
    if not len(indices):
        frames = len(part_of(config, split, only_with_truth=False)[1])
        if frames:
            raise ConfigError(nothing_to_score(store, frames, truth_words(config.task)))
        counts = ", ".join(f"{k} {v}" for k, v in store.header.split_counts.items())
        raise ConfigError(f"the store {store.path} has no frames in split {split!r} ({counts})")
    if limit and len(indices) > limit:
        indices = indices[np.linspace(0, len(indices) - 1, limit).round().astype(int)]
    return HeldOut(store, indices, config.image_size, labels, batch_size, device, config.view)


def nothing_to_score(store: Store, frames: int, what: str) -> str:
    """Said of frames without truth."""
    return (f"no pixel of these {frames} frames of {store.path} {what}, so they cannot be scored; many data sets keep the labels of "
            "their test part: score another one (--split val)")


def marked(arrays: dict[str, np.ndarray], shown: HeldOut | None, validation: HeldOut | None) -> dict[str, np.ndarray]:
    """Previews with "is_training" where no frame validates and training frames are shown instead."""
    return arrays if shown is validation else {**arrays, "is_training": np.array(True)}
