"""Which frames train and which measure: by sequence, never at random, as neighbouring video frames are near copies."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

TRAIN, VAL, TEST, UNUSED = 0, 1, 2, 255
SPLITS = {"train": TRAIN, "val": VAL, "test": TEST}
BY_SEQUENCE = "sequences"
BY_TIME = "time blocks (same room)"
ONE_SPLIT = "all frames in one split"
OFFICIAL = "official"
_FEWEST = 5  # frames that one sequence needs before it can be cut into blocks


def assign_splits(sequence_index: np.ndarray, names: Sequence[str], val_share: float = 0.1, test_share: float = 0.1,
                  gap: int | None = None, has_labels: np.ndarray | None = None) -> tuple[np.ndarray, str, str]:
    """Assign every frame to a split.

    Several sequences: each goes as a whole to one split, in an order that depends on its name alone, always to the
    split that lacks most; from two on there is a validation sequence, from three on a test sequence. Where only some
    sequences have labels, those go first and every split gets its share of labelled frames. One sequence:
    blocks of time with unused frames between them, because both ends of a cut show the same view.

    Args:
        sequence_index: int (n,), the sequence of each frame, in recording order.
        names: the sequences' names.
        val_share, test_share: wanted shares of frames, 0 for none.
        gap: unused frames between blocks of one sequence; None: 2.5 % of it, at least 1.
        has_labels: bool (n,), the frames that have labels; None: all alike.

    Returns:
        split uint8 (n,) (0 train, 1 val, 2 test, 255 unused), the kind of split, and the rule in words.
    """
    present = np.unique(sequence_index)
    if len(present) > 1:
        return _by_sequence(sequence_index, present, names, val_share, test_share, has_labels)
    return _by_time(len(sequence_index), val_share, test_share, gap)


def auto_splits(given: Sequence[str | None], sequence_index: np.ndarray, names: Sequence[str], val_share: float = 0.1,
                test_share: float = 0.1, gap: int | None = None, official_val_share: float = 0.0,
                has_labels: np.ndarray | None = None) -> tuple[np.ndarray, str, str]:
    """The official split where every frame has one, else :func:`assign_splits`.

    Args:
        given: "train", "val", "test" or None for each frame, as the data set's authors published it.
        sequence_index, names, val_share, test_share, gap, has_labels: as for :func:`assign_splits`.
        official_val_share: as ``val_share`` of :func:`official_splits`.

    Returns:
        As :func:`assign_splits`; the rule says where an official split was left aside.
    """
    if None not in given:
        return official_splits(given, sequence_index, names, official_val_share)
    split, kind, rule = assign_splits(sequence_index, names, val_share, test_share, gap, has_labels)
    if any(given):
        rule += f"; the official split was left aside, as {given.count(None)} of {len(given)} frames have none"
    return split, kind, rule


def official_splits(given: Sequence[str], sequence_index: np.ndarray, names: Sequence[str], val_share: float = 0.0
                    ) -> tuple[np.ndarray, str, str]:
    """The split that a data set's authors published.

    Args:
        given: "train", "val" or "test" for each frame.
        sequence_index: int (n,), the sequence of each frame.
        names: the sequences' names.
        val_share: where the official split has no validation frames: share of its training frames that become so, in
            whole sequences chosen by a hash of their names. 0 leaves the official split as it is.

    Returns:
        As :func:`assign_splits`; the rule says what was changed, and whether a sequence lies in several parts.
    """
    split = np.array([SPLITS[word] for word in given], np.uint8)
    counts = {word: int((split == value).sum()) for word, value in SPLITS.items()}
    rule = "official split: " + ", ".join(f"{count} {word}" for word, count in counts.items()) + " frames"
    train = np.flatnonzero(split == TRAIN)
    if val_share > 0 and not counts["val"]:
        inner = np.full(len(train), TRAIN, np.uint8)
        if len(np.unique(sequence_index[train])) > 1:
            inner, _, _ = assign_splits(sequence_index[train], names, val_share, 0.0)
        split[train[inner == VAL]] = VAL
        rule += (f"; it has no validation frames, so {int((inner == VAL).sum())} of the training frames (whole sequences) were "
                 "made such, as asked for")
    parts_of = np.unique(np.unique(np.stack([sequence_index, split]), axis=1)[0], return_counts=True)[1]
    torn = int((parts_of > 1).sum())
    if torn:
        rule += f"; {torn} sequence{'s lie' if torn > 1 else ' lies'} in several parts of it"
    return split, OFFICIAL, rule


def _by_sequence(sequence_index: np.ndarray, present: np.ndarray, names: Sequence[str], val_share: float,
                 test_share: float, has_labels: np.ndarray | None) -> tuple[np.ndarray, str, str]:
    counts = np.bincount(sequence_index, minlength=len(names))
    shares = np.array([max(0.0, 1 - val_share - test_share), val_share, test_share])
    order = sorted(present.tolist(), key=lambda k: hashlib.sha256(names[k].encode()).digest())
    members: list[list[int]] = [[], [], []]
    how = ""
    if has_labels is not None and has_labels.any() and not has_labels.all():
        labels = np.bincount(sequence_index[has_labels], minlength=len(names))
        _deal([k for k in order if labels[k]], labels, shares, members)
        train, val, test = (labels[chosen].sum() for chosen in members)
        how = f", the labelled ones first ({train} labelled frames train, {val} val, {test} test)"
        order = [k for k in order if not labels[k]]
    _deal(order, counts, shares, members)
    split_of = np.full(len(names), UNUSED, np.uint8)
    for choice, chosen in enumerate(members):
        split_of[chosen] = choice
    rule = (f"whole sequences: {len(members[0])} train, {len(members[1])} val, {len(members[2])} test, "
            f"chosen by a hash of their names{how}")
    return split_of[sequence_index], BY_SEQUENCE, rule


def _deal(order: list[int], weights: np.ndarray, shares: np.ndarray, members: list[list[int]]) -> None:
    """Add each sequence to the split that lacks most of its share of all weight; no split stays empty that need not."""
    filled = np.array([weights[chosen].sum() for chosen in members], float)
    targets = shares * (filled.sum() + weights[order].sum())
    for k in order:
        lacking = np.where(targets > 0, (targets - filled - weights[k] / 2) / np.maximum(targets, 1e-9), -np.inf)
        choice = int(np.argmax(lacking))
        members[choice].append(k)
        filled[choice] += weights[k]
    for choice, wanted, needed in ((VAL, shares[VAL], 2), (TEST, shares[TEST], 3), (TRAIN, 1.0, 1)):
        if wanted > 0 and not members[choice] and sum(map(len, members)) >= needed:
            donor = max(range(3), key=lambda c: (len(members[c]), filled[c]))
            smallest = min(members[donor], key=lambda k: (weights[k], k))
            members[donor].remove(smallest)
            members[choice].append(smallest)


def _by_time(count: int, val_share: float, test_share: float, gap: int | None) -> tuple[np.ndarray, str, str]:
    split = np.zeros(count, np.uint8)
    gap = max(1, round(0.025 * count)) if gap is None else gap
    held_out = [(value, max(1, round(share * count))) for value, share in ((TEST, test_share), (VAL, val_share))
                if share > 0]
    if count < max(_FEWEST, 1 + sum(size + gap for _, size in held_out)):
        return split, ONE_SPLIT, f"one sequence of {count} frames is too short to split; all train"
    end = count
    for value, size in held_out:  # from the end: test, gap, val, gap
        split[end - size:end] = value
        split[end - size - gap:end - size] = UNUSED
        end -= size + gap
    return split, BY_TIME, f"same room: time blocks of one sequence with a gap of {gap} frame{'' if gap == 1 else 's'} between them"
