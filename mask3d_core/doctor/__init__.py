"""The doctor: looks at frames before they cost GPU time, and says in words what is wrong with them."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np

from mask3d_core.doctor.checks import (
    check_alignment,
    check_camera,
    check_color,
    check_copies,
    check_depth_range,
    check_depth_values,
    check_holes,
    check_labels,
)
from mask3d_core.doctor.machine import environment
from mask3d_core.doctor.frame_statistics import FrameStatistics, measure_frame, thumbnail
from mask3d_core.doctor.report import Finding, Report, many
from mask3d_core.errors import FrameError, Mask3DError
from mask3d_core.frames import IGNORE_LABEL
from mask3d_core.sources import Source
from mask3d_core.sources.images import unmapped_words
from mask3d_core.sources.opening import open_path
from mask3d_core.sources.patterns import name_some
from mask3d_core.splits import BY_TIME, TRAIN, UNUSED, auto_splits
from mask3d_core.store import Store

__all__ = ["Finding", "Report", "environment", "examine"]

_VERIFY_LIMIT = 4e9  # bytes of a store that are read for their checksums without being asked
_BAD_SHARE = 0.01
_COPIES_TRAIN, _COPIES_HELD_OUT = 1000, 300


def examine(source: Source | str | os.PathLike, sample: int = 64, verify: bool | None = None) -> Report:
    """Look at a recording or a store.

    Args:
        source: an open source, or the path of a store, a TUM sequence or any folder of frames.
        sample: frames to look at, spread evenly.
        verify: read a whole store and compare its checksums; None: if it is smaller than 4 GB.

    Returns:
        The report; a path that cannot be opened gives a report with one error.
    """
    if isinstance(source, (str, os.PathLike)):
        what = str(source)
        try:
            source = open_path(source)
        except Mask3DError as error:
            return Report(what, (Finding("opening", "error", str(error)),))
    else:
        what = str(source.describe().get("path", source.name))
    if not len(source):
        return Report(what, (Finding("opening", "error", "no frames; check the path"),))
    findings = [_opening(source), *_assumptions(source)]
    if isinstance(source, Store):
        findings += _store(source, verify)
    stats, tiny, reading = _read(source, sample)
    findings.append(reading)
    if stats:
        findings += [check_color(stats), check_depth_range(stats, _is_outdoors(source)), check_depth_values(stats), check_holes(stats),
                     check_alignment(stats), check_camera(stats)]
        labels = check_labels(stats, source.class_names)
        findings += [labels] if labels else []
        findings += _class_map(source)
    findings += _splits(source, tiny)
    return Report(what, tuple(findings))


def _opening(source: Source) -> Finding:
    described = source.describe()
    sequences = described.get("sequences") or len({source.sequence(i) for i in range(len(source))})
    kind = f"{source.name} (from {described['prepared_from'].get('source')})" if source.name == "store" else source.name
    numbers = {"frames": len(source), "sequences": sequences}
    return Finding("opening", "ok", f"{many(len(source), 'frame')} in {many(sequences, 'sequence')}, opened as {kind}", numbers)


def _is_outdoors(source: Source) -> bool:
    """Whether the source, or what a store was prepared from, says that its frames are no rooms."""
    described = source.describe()
    return bool(described.get("prepared_from", described).get("outdoors", False))


def _assumptions(source: Source) -> list[Finding]:
    """What the source had to guess."""
    described = source.describe()
    notes = [*described.get("notes", ()), *(str(described[key]) for key in ("intrinsics_from", "pairs_from")
                                            if key in described)]
    cure = ". If that is wrong, say so in mask3d_folder.json or with flags"
    return [Finding("source", "warn", note + cure) if "assumed" in note else Finding("source", "ok", note)
            for note in notes]


def _read(source: Source, sample: int) -> tuple[list[FrameStatistics], dict[int, np.ndarray], Finding]:
    """Statistics of some frames, their thumbnails by index, and what could not be read."""
    chosen = sorted({int(k) for k in np.linspace(0, len(source) - 1, min(sample, len(source)))})
    stats, tiny, bad, seconds = [], {}, [], 0.0
    for index in chosen:
        start = time.perf_counter()
        try:
            frame = source.read(index)
        except FrameError as error:
            bad.append(str(error))
            continue
        seconds += time.perf_counter() - start
        stats.append(measure_frame(frame))
        tiny[index] = stats[-1].thumbnail
    each = seconds / max(1, len(stats))
    numbers = {"looked_at": len(chosen), "unreadable": len(bad), "milliseconds_per_frame": round(1000 * each, 2)}
    if bad:
        severity = "error" if len(bad) > _BAD_SHARE * len(chosen) + 1 or not stats else "warn"
        said = f"{len(bad)} of {len(chosen)} frames cannot be read: {name_some(bad, 3)}"
        return stats, tiny, Finding("reading", severity, said, numbers)
    said = (f"all {len(chosen)} frames looked at can be read, {1000 * each:.0f} ms each "
            f"({each * len(source):.0f} s for all on one core)")
    return stats, tiny, Finding("reading", "ok", said, numbers)


def _class_map(source: Source) -> list[Finding]:
    """Label ids that the source's class map leaves out; 0 and ``IGNORE_LABEL`` mean "not labelled" in many data sets."""
    ask = getattr(source, "unmapped_labels", None)
    counts, pixels, pictures = ask() if ask else ({}, 0, 0)
    if not counts:
        return []
    severity = "ok" if set(counts) <= {0, IGNORE_LABEL} else "warn"
    numbers = {"unmapped_ids": list(counts), "unmapped_share": round(sum(counts.values()) / pixels, 4)}
    return [Finding("class map", severity, unmapped_words(counts, pixels, pictures), numbers)]


def _store(store: Store, verify: bool | None) -> list[Finding]:
    """What a store knows about itself."""
    header, findings = store.header, []
    size = sum(file.stat().st_size for file in Path(store.path).iterdir() if file.is_file())
    if verify or (verify is None and size < _VERIFY_LIMIT):
        problems = store.verify()
        findings += [Finding("checksums", "error", problem) for problem in problems]
        if not problems:
            findings.append(Finding("checksums", "ok", f"all {size / 1e6:.0f} MB are as they were written"))
    else:
        findings.append(Finding("checksums", "ok", f"not compared ({size / 1e9:.0f} GB); ask for verify to do so"))
    if header.bad_frames:
        names = [bad["frame"] for bad in header.bad_frames]
        findings.append(Finding("left out", "warn", f"{len(names)} unreadable frames were left out: {name_some(names)}",
                                {"bad_frames": len(names)}))
    if header.clipped_share > 0.01:
        said = (f"{100 * header.clipped_share:.1f} % of the pixels lay beyond the store's range and became holes; "
                "prepare again with fewer depth units per metre and a larger max_depth")
        findings.append(Finding("range", "warn", said, {"clipped_share": header.clipped_share}))
    return findings


def _official(source: Source) -> list[str | None]:
    """The split that the data set's authors published, frame by frame."""
    ask = getattr(source, "official_split", None)
    return [ask(i) if ask is not None else None for i in range(len(source))]


def _splits(source: Source, tiny: dict[int, np.ndarray]) -> list[Finding]:
    """Who trains and who measures, and whether they see the same."""
    if isinstance(source, Store):
        split, kind, rule = np.asarray(source.split), source.header.split_kind, source.header.split_rule
    else:
        numbers: dict[str, int] = {}
        index = np.array([numbers.setdefault(source.sequence(i), len(numbers)) for i in range(len(source))])
        split, kind, rule = auto_splits(_official(source), index, list(numbers))
        rule = f"as `mask3d prepare` would split it{', were every frame labelled' if source.labels else ''}: {rule}"
    counts = {name: int((split == value).sum()) for name, value in (("train", 0), ("val", 1), ("test", 2),
                                                                    ("unused", UNUSED))}
    said = ", ".join(f"{count} {name}" for name, count in counts.items()) + f" frames; {rule}"
    if kind == BY_TIME:
        said += ". Scores will be of a room seen in training; record a second one to measure more"
        finding = Finding("splits", "warn", said, counts)
    else:
        lacks = len(source) > 1 and not counts["train"] or not counts["val"] + counts["test"]
        finding = Finding("splits", "warn" if lacks else "ok", said + (
            ". Nothing is left to train on, or to measure with" if lacks else ""), counts)
    return [finding, _copies(source, split, kind, tiny)]


def _copies(source: Source, split: np.ndarray, kind: str, tiny: dict[int, np.ndarray]) -> Finding:
    """Training and held-out frames as thumbnails: of a store many, of other sources those read already and both sides
    of every cut, where copies are likeliest."""
    chosen = []
    cuts = np.flatnonzero(np.diff(split.astype(int)) != 0)
    cuts = np.union1d(cuts, cuts + 1) if kind == BY_TIME else cuts[:0]
    for frames, limit in ((np.flatnonzero(split == TRAIN), _COPIES_TRAIN),
                          (np.flatnonzero((split != TRAIN) & (split != UNUSED)), _COPIES_HELD_OUT)):
        if isinstance(source, Store):
            some = frames[np.unique(np.linspace(0, len(frames) - 1, min(limit, len(frames))).astype(int))]
        else:
            some = np.intersect1d(frames, list(tiny))
        chosen.append(np.union1d(some, np.intersect1d(frames, cuts)).astype(int))
    (train, _), (held_out, names) = (_thumbnails(source, frames, tiny) for frames in chosen)
    return check_copies(train, held_out, names, kind)


def _thumbnails(source: Source, frames: np.ndarray, tiny: dict[int, np.ndarray]) -> tuple[np.ndarray, list[str]]:
    found, names = [], []
    for index in (int(k) for k in frames):
        if index not in tiny:
            try:
                tiny[index] = thumbnail(source.color[index] if isinstance(source, Store) else source.read(index).color)
            except FrameError:
                continue
        found.append(tiny[index])
        names.append(f"{source.sequence(index)}/{source.frame_name(index)}")
    return np.array(found), names
