"""The frames that a bench measures on: three parts that share no sequence, read batch by batch and never held."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mask3d_core.batches import Batch, from_frames
from mask3d_core.errors import ConfigError
from mask3d_core.evaluation.bench.config import DEPTH, MATCHING, NORMALS, PARTS, SEMANTICS, TEST, TRAIN, VAL, BenchConfig
from mask3d_core.evaluation.probes import ProbeFrames
from mask3d_core.frames import IGNORE_LABEL
from mask3d_core.shapes import Int
from mask3d_core.splits import BY_TIME, SPLITS

MOST_FRAMES = {TRAIN: 280, VAL: 60, TEST: 160}  # of a store of the user's, evenly spaced; as many as the bench's rooms


@dataclass(frozen=True)
class BenchFrames:
    """Frames in three parts.

    Args:
        name: "rooms-bench-1", or the store's folder name.
        words: what the frames are and how they were split.
        fingerprint: of all of them.
        read: (part, numbers int (k,)) to a :class:`Batch` in that order and its poses, Float (k, 4, 4), NaN where unknown.
        sequences: by part, the sequence of each frame.
        is_probed: by part, bool (n,): frames that depth, normals and semantics are read from; the others only make pairs of
            views.
        class_names: semantic classes by id; () where there are no labels.
        has_pairs: whether a sequence holds several views with poses, so that correspondence can be measured.
        seen: (record of a start) to how many test frames its weights were trained on.
        is_by_time: the parts are blocks of time of one recording.

    Raises:
        ConfigError: an empty part, or a sequence in two parts.
    """

    name: str
    words: str
    fingerprint: str
    read: Callable[[str, np.ndarray], tuple[Batch, Tensor]]
    sequences: dict[str, tuple[str, ...]]
    is_probed: dict[str, np.ndarray]
    class_names: tuple[str, ...]
    has_pairs: bool
    seen: Callable[[dict[str, Any]], int]
    is_by_time: bool = False

    def __post_init__(self) -> None:
        problems = [f"no frame in the {part} part" for part in PARTS if not self.is_probed[part].any()]
        for first, second in ((TRAIN, VAL), (TRAIN, TEST), (VAL, TEST)):
            shared = sorted(set(self.sequences[first]) & set(self.sequences[second]))
            if shared and not self.is_by_time:
                problems.append(f"{len(shared)} sequence(s) lie in {first} and in {second}, {shared[0]!r} for one")
        if problems:
            raise ConfigError(problems, self.name)

    @property
    def tasks(self) -> tuple[str, ...]:
        """What can be measured on these frames."""
        return (DEPTH, NORMALS, *([SEMANTICS] if self.class_names else []), *([MATCHING] if self.has_pairs else []))

    def count(self, part: str) -> int:
        """How many frames."""
        return len(self.sequences[part])

    def chunks(self, part: str, batch_size: int) -> Iterator[np.ndarray]:
        """Frame numbers, batch by batch: whole sequences where views are paired, else so many at a time."""
        names = self.sequences[part]
        if self.has_pairs and part != TRAIN:
            for name in dict.fromkeys(names):
                yield np.array([i for i, other in enumerate(names) if other == name])
            return
        numbers = np.flatnonzero(self.is_probed[part])
        for start in range(0, len(numbers), batch_size):
            yield numbers[start:start + batch_size]


def read_store(store, indices: np.ndarray, size: tuple[int, int]) -> tuple[Batch, Tensor]:
    """Frames of a store, fitted to ``size``, with their labels and poses.

    Returns:
        The batch, keyed by the frames' numbers in the store, and Float (b, 4, 4) camera-to-world, NaN where unknown.
    """
    frames = [store.read(int(i)) for i in indices]
    unknown = np.full((4, 4), np.nan)
    poses = np.stack([unknown if frame.pose is None else frame.pose for frame in frames])
    return from_frames(frames, size, [int(i) for i in indices]), torch.from_numpy(poses).float()


def seen_count(store, indices: np.ndarray, record: dict[str, Any]) -> int:
    """How many of these frames a start was trained on, by its record."""
    from mask3d_core.training.finetuning import seen_frames

    return int(seen_frames(store, indices, record).sum())


def rows_of(batch: Batch, rows: Int[Tensor, "k"]) -> Batch:
    """Some frames of a batch, in that order."""
    return replace(batch, **{f.name: getattr(batch, f.name)[rows] for f in fields(batch)
                             if isinstance(getattr(batch, f.name), Tensor)})


def store_frames(path: str | Path, config: BenchConfig = BenchConfig(), most: dict[str, int] | None = None) -> BenchFrames:
    """A prepared store of the user's: depth and normals, and semantics where it is labelled.

    Args:
        path: the store's folder; it must hold train, val and test frames.
        most: frames of each part at most, evenly spaced; labelled ones first, as recordings are often labelled here and there only.

    Raises:
        StoreError: no finished store.
        ConfigError: an empty split, or labels beyond the store's classes.
    """
    from mask3d_core.store import Store
    from mask3d_core.training.held_out import with_truth

    store, most = Store(path), most or MOST_FRAMES
    has_label = with_truth(store, "segment") if store.semantic is not None else np.zeros(len(store), bool)
    counts = store.header.split_counts
    if not all(counts[part] for part in PARTS):
        raise ConfigError([f"the store has {', '.join(f'{n} {counts[n]}' for n in PARTS)} frames and a probe needs all three; "
                           "prepare it with --split auto, or give more recordings"], path)
    names = tuple(store.sequence(i) for i in range(len(store)))
    is_by_time = store.header.split_kind == BY_TIME
    ProbeFrames(lambda numbers: None, store.split, names, is_by_time=is_by_time)  # refuses frames on both sides of a cut
    chosen = {}
    for part in PARTS:
        numbers = np.flatnonzero(store.split == SPLITS[part])
        labelled = _spread(numbers[has_label[numbers]], most[part])
        chosen[part] = np.sort(np.concatenate([labelled, _spread(numbers[~has_label[numbers]], most[part] - len(labelled))]))
    labels = {part: int(has_label[numbers].sum()) for part, numbers in chosen.items()}
    is_labelled = all(labels.values())  # what is fitted must be chosen and tested too
    classes = _classes(store, np.concatenate(list(chosen.values())), path) if is_labelled else ()
    counts = ", ".join(str(labels[part]) for part in PARTS)
    some = f" ({counts} of them labelled)" if any(0 < labels[part] < len(chosen[part]) for part in PARTS) or (
        any(labels.values()) and not is_labelled) else ""
    words = f"store {Path(path).name} {'with' if classes else 'without'} labels ({store.header.split_rule}); {_counts(chosen)}{some}"

    return BenchFrames(
        Path(path).name, words, store.fingerprint,
        lambda part, numbers: read_store(store, chosen[part][numbers], config.size),
        {part: tuple(names[i] for i in numbers) for part, numbers in chosen.items()},
        {part: np.ones(len(numbers), bool) for part, numbers in chosen.items()}, classes, False,
        lambda record: seen_count(store, chosen[TEST], record), is_by_time)


def _spread(numbers: np.ndarray, most: int) -> np.ndarray:
    """At most so many of them, evenly spaced."""
    count = min(len(numbers), most)
    return numbers[np.linspace(0, len(numbers) - 1, count).round().astype(int)] if count else numbers[:0]


def _counts(chosen: dict[str, np.ndarray]) -> str:
    return f"{len(chosen[TRAIN])} frames to fit, {len(chosen[VAL])} to choose, {len(chosen[TEST])} to test"


def _classes(store, indices: np.ndarray, path: str | Path) -> tuple[str, ...]:
    """Names of the classes; () where nothing is labelled. Reads the labels of the chosen frames, one at a time."""
    if store.semantic is None:
        return ()
    largest = -1
    for i in indices:
        labels = store.semantic[i]
        known = labels[labels != IGNORE_LABEL]
        largest = max(largest, int(known.max()) if known.size else -1)
    names = tuple(store.header.class_names) or tuple(f"class {k}" for k in range(largest + 1))
    if largest >= len(names):
        raise ConfigError(f"labels go up to {largest} and the store names {len(names)} classes; prepare it with the right "
                          "class map", path)
    return names if largest >= 0 and len(names) > 1 else ()
