"""From numbers of many frames to words that a person can act on. One function per check."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mask3d_core.doctor.alignment import best_shift
from mask3d_core.doctor.frame_statistics import FrameStatistics
from mask3d_core.doctor.report import Finding
from mask3d_core.frames import IGNORE_LABEL
from mask3d_core.sources.patterns import name_some

NEAREST_MEDIAN, FARTHEST_MEDIAN = 0.4, 4.5  # metres; whole indoor recordings lie between
STREET = (4.0, 80.0)  # metres; the median of driving recordings
PLAUSIBLE = (0.6, 5.0)  # metres; the median of nearly every indoor set
NEAR_COPY = 2.5  # grey levels between two thumbnails
_WRONG_SCALES = ((1000.0, "metres are read as millimetres: depth is stored in metres, or divided twice"),
                 (0.001, "millimetres are read as metres: set the scale to 1000 units per metre"),
                 (0.2, "the scale is 1000 where it should be 5000 units per metre (TUM, ICL-NUIM)"),
                 (5.0, "the scale is 5000 where it should be 1000 units per metre"),
                 (4.0, "the scale is 4000 where it should be 1000 units per metre"))
_COARSE_STEP = 0.006
_LEAST_GAIN = 0.1  # of the best shift over one at random; with less, the edges agree nowhere


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.01 or share == 0 else f"{100 * share:.2g} %"


def _named(stats: Sequence[FrameStatistics], keep) -> list[str]:
    return [s.name for s in stats if keep(s)]


def check_color(stats: Sequence[FrameStatistics]) -> Finding:
    """Constant and black frames."""
    flat = _named(stats, lambda s: s.color_spread < 2)
    dark = _named(stats, lambda s: s.color_mean < 8 and s.color_spread >= 2)
    numbers = {"constant": len(flat), "nearly_black": len(dark),
               "mean_grey": round(float(np.mean([s.color_mean for s in stats])), 1)}
    if flat or dark:
        return Finding("colour", "warn", f"{len(flat)} of {len(stats)} frames have one constant colour and {len(dark)} "
                       f"are nearly black: {name_some(flat + dark)}. Leave them out; they teach nothing.", numbers)
    return Finding("colour", "ok", f"no constant or black frame among {len(stats)}", numbers)


def check_depth_range(stats: Sequence[FrameStatistics], is_outdoors: bool = False) -> Finding:
    """Units: is the depth that of a room, or of a street where the source says so?"""
    with_depth = [s for s in stats if s.valid_share > 0]
    if not with_depth:
        return Finding("depth", "warn", "no frame has any depth: good for prediction and RGB fine-tuning only; "
                       "if there should be depth, check its file pattern, encoding and missing values")
    low, median, high = np.median([s.depth_percentiles for s in with_depth], axis=0)
    numbers = {"percentile_1": round(float(low), 3), "median": round(float(median), 3),
               "percentile_99": round(float(high), 3), "frames_without_depth": len(stats) - len(with_depth)}
    said = f"median {median:.2f} m, 98 % between {low:.2f} and {high:.2f} m"
    if is_outdoors and not STREET[0] <= median <= STREET[1]:
        return Finding("depth", "error", f"{said}: unusual for a street. Check cameras and disparity, or max_depth.", numbers)
    if not is_outdoors and not NEAREST_MEDIAN <= median <= FARTHEST_MEDIAN:
        guess = next((f"It looks as if {words}; the median would be {median * factor:.2f} m."
                      for factor, words in _WRONG_SCALES if PLAUSIBLE[0] <= median * factor <= PLAUSIBLE[1]),
                     "Check the scale of the depth files.")
        severity = "warn" if 0.2 < median < 20 else "error"
        return Finding("depth", severity, f"{said}: unusual for a room. {guess}", numbers)
    if len(with_depth) < len(stats):
        empty = _named(stats, lambda s: s.valid_share == 0)
        return Finding("depth", "warn", f"{said}; {len(empty)} of {len(stats)} frames have no depth at all: "
                       f"{name_some(empty)}", numbers)
    return Finding("depth", "ok", said, numbers)


def check_depth_values(stats: Sequence[FrameStatistics]) -> Finding:
    """Depth cut to 8 bits, and a forgotten marker for "missing"."""
    with_depth = [s for s in stats if s.valid_share > 0.05]
    if not with_depth:
        return Finding("depth values", "ok", "too little depth to judge")
    distinct = float(np.median([s.distinct_depths for s in with_depth]))
    top = float(np.median([s.top_share for s in with_depth]))
    step = float(np.median([s.smallest_step for s in with_depth]))
    numbers = {"distinct_per_frame": int(distinct), "share_at_largest": round(top, 4)}
    if top > 0.02:
        largest = float(np.median([s.depth_percentiles[2] for s in with_depth]))
        said = (f"{_percent(top)} of the valid pixels hold exactly the largest value (about {largest:.2f} m): probably "
                "a marker for \"missing\" or a range limit; add its stored value to the missing values")
        return Finding("depth values", "warn", said, numbers)
    if 8 < distinct <= 256 and step > _COARSE_STEP:  # a Kinect has as few values, but they lie close together up close
        said = (f"only {distinct:.0f} different depths in a frame, in even steps: a converter may have cut depth to "
                "8 bits; export it again with 16")
        return Finding("depth values", "warn", said, numbers)
    return Finding("depth values", "ok", f"about {distinct:.0f} different depths in a frame", numbers)


def check_holes(stats: Sequence[FrameStatistics]) -> Finding:
    """Missing depth and wholly empty patches."""
    missing = 1 - float(np.mean([s.valid_share for s in stats]))
    empty = float(np.mean([s.empty_patches for s in stats]))
    numbers = {"missing_share": round(missing, 4), "empty_patch_share": round(empty, 4)}
    said = f"{_percent(missing)} of the pixels and {_percent(empty)} of the 16x16 patches (at 240x320) have no depth"
    if missing > 0.6 and any(s.valid_share > 0 for s in stats):
        return Finding("holes", "warn", f"{said}: little is left to learn from. Check the missing values and the range "
                       "of the sensor", numbers)
    return Finding("holes", "ok", said + "; such patches are neither shown nor scored", numbers)


def check_alignment(stats: Sequence[FrameStatistics]) -> Finding:
    """Depth shifted against colour."""
    scores = [s.shift_scores for s in stats if s.shift_scores is not None]
    if not scores:
        return Finding("alignment", "ok", "too few depth edges to compare colour and depth")
    dy, dx, gain = best_shift(scores)
    mean = np.mean(scores, axis=0)
    reach = mean.shape[0] // 2
    loss = float((mean.max() - mean[reach, reach]) / max(mean.max() - mean.mean(), 1e-9))
    numbers = {"shift_rows": dy, "shift_columns": dx, "gain": round(gain, 3), "loss_at_0": round(loss, 3),
               "frames": len(scores)}
    limit = max(2.0, 5.0 * stats[0].size[1] / 640)
    if gain < _LEAST_GAIN:
        return Finding("alignment", "ok", "edges of depth and colour agree nowhere clearly; cannot tell", numbers)
    if np.hypot(dy, dx) >= limit and loss > 0.3:
        edge = " or more" if max(abs(dy), abs(dx)) == reach else ""
        said = (f"depth fits colour best when moved by {dy} rows and {dx} columns{edge}: it is not registered to the "
                "colour camera. Register it first; edges will be learned in the wrong place")
        return Finding("alignment", "warn", said, numbers)
    return Finding("alignment", "ok", f"depth lies on colour (best shift {dy} rows, {dx} columns)", numbers)


def check_camera(stats: Sequence[FrameStatistics]) -> Finding:
    """Intrinsics against the image."""
    problems = sorted({problem for s in stats for problem in s.camera_problems})
    fx, _, cx, cy = np.median([s.intrinsics for s in stats], axis=0)
    view = float(2 * np.degrees(np.arctan(0.5 / fx)))
    sizes = sorted({s.size for s in stats})
    numbers = {"field_of_view": round(view, 1), "principal_point": [round(float(cx), 3), round(float(cy), 3)],
               "sizes": [list(size) for size in sizes]}
    if problems:
        cure = "Give the intrinsics of this image, or the size they refer to"
        return Finding("camera", "error", f"{name_some(problems, 3)}. {cure}", numbers)
    if max(abs(cx - 0.5), abs(cy - 0.5)) > 0.08:
        said = (f"the principal point lies at {_percent(float(cx))} of the width and {_percent(float(cy))} of the "
                "height: are these the intrinsics of another size or crop?")
        return Finding("camera", "warn", said, numbers)
    if not 40 <= view <= 110:
        return Finding("camera", "warn", f"a horizontal field of view of {view:.0f} degrees is unusual: are these the "
                       "intrinsics of another size?", numbers)
    said = f"field of view {view:.0f} degrees, images {', '.join(f'{h}x{w}' for h, w in sizes[:3])}"
    return Finding("camera", "ok", said, numbers)


def check_labels(stats: Sequence[FrameStatistics], class_names: Sequence[str]) -> Finding | None:
    """Label ids against the class names; None where there are no labels."""
    labelled = [s for s in stats if s.labels is not None]
    if not labelled and not class_names:
        return None
    if not labelled:
        return Finding("labels", "warn", f"{len(class_names)} class names, but no labelled frame among {len(stats)}")
    counts = np.sum([s.labels for s in labelled], axis=0)
    used, total = counts[:IGNORE_LABEL], int(counts.sum())
    beyond = [k for k in np.flatnonzero(used).tolist() if k >= len(class_names)]
    shares = {name: round(float(used[k] / max(1, used.sum())), 4) for k, name in enumerate(class_names)}
    ignored = round(float(counts[IGNORE_LABEL] / total), 4)
    numbers: dict[str, Any] = {"labelled_frames": len(labelled), "ignored_share": ignored, "class_shares": shares}
    if beyond:
        said = (f"label ids {name_some([str(k) for k in beyond])} have no name (ids run from 0 to "
                f"{len(class_names) - 1}, {IGNORE_LABEL} is ignored). Map them, or add class names")
        return Finding("labels", "error", said, numbers)
    if not used.sum():
        return Finding("labels", "warn", "every labelled pixel is ignored: check the semantic map", numbers)
    absent = [name for k, name in enumerate(class_names) if not used[k]]
    largest = sorted(shares.items(), key=lambda item: -item[1])[:4]
    said = ", ".join(f"{name} {_percent(share)}" for name, share in largest if share)
    if absent:
        return Finding("labels", "warn", f"never seen: {name_some(absent)}; otherwise {said}", numbers)
    return Finding("labels", "ok", f"{said}; {_percent(ignored)} ignored", numbers)


def check_copies(train: np.ndarray, held_out: np.ndarray, names: Sequence[str], split_kind: str) -> Finding:
    """Held-out frames that are nearly training frames.

    Args:
        train, held_out: float32 (n, k) and (m, k) thumbnails.
        names: of the held-out frames.
        split_kind: as in the store's header.
    """
    if not len(train) or not len(held_out):
        return Finding("copies", "ok", "nothing to compare across splits")
    nearest = np.array([np.abs(train - one).mean(axis=1).min() for one in held_out])
    copies = [name for name, distance in zip(names, nearest) if distance < NEAR_COPY]
    numbers = {"held_out": len(held_out), "train": len(train), "near_copies": len(copies),
               "nearest": round(float(nearest.min()), 2)}
    if copies:
        cure = "widen the gap" if "time" in split_kind else "put these sequences into one split"
        said = (f"{len(copies)} of {len(held_out)} held-out frames looked at are near copies of training frames, such as "
                f"{name_some(copies, 2)}: scores will be too good; {cure}")
        return Finding("copies", "warn", said, numbers)
    said = f"no near copy among {len(held_out)} held-out and {len(train)} training frames"
    return Finding("copies", "ok", said, numbers)
