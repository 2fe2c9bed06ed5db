"""Error over two masking ratios: how a model and its opponents do for every share of RGB and of depth hidden.

A map holds one number per (cell, predictor, metric, frame, mask draw), so that any band, any comparison and the map of
any one of its frames follow from it. Scores are over hidden valid pixels in metres, without scale alignment, on the masks
that a session shows at the same seed. :mod:`ratio_cells` measures.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from mask3d_core.batches import Batch
from mask3d_core.errors import ConfigError, Mask3DError
from mask3d_core.evaluation.metrics import METRICS
from mask3d_core.evaluation.statistics import Estimate, interval, paired_interval
from mask3d_core.files import write_atomically
from mask3d_core.models.mask3d import Mask3D

FORMAT = 1
KIND = "ratio map"
MODEL = "Mask3D"
MEAN_MAP = "mean map"
MAP_METRICS = ("abs_rel", "mae", "rmse", "delta1")
RATIOS = (0.0, 0.2, 0.4, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)  # finer where models are trained and where they begin to fail
SCORED, NOTHING_VISIBLE, NOTHING_HIDDEN, UNKNOWN = "scored", "nothing visible", "nothing to score", "not measured yet"
DIGITS = 5  # of every number in a file
_DEPENDS_ON_RGB = frozenset({MODEL, "color_guided"})

Place = tuple[int, int]  # (row: number of the depth ratio, column: number of the RGB ratio)
Scores = Mapping[str, np.ndarray]  # predictor to float64 (metrics, frames, draws), NaN = nothing to count


@dataclass(frozen=True)
class MapFrame:
    """A frame of a map, and how it is known again.

    Args:
        name: as its source calls it. number: its id, which the masks are drawn from.
        signature: mean valid depth (metres), share of valid pixels, mean colour: told apart to a thousandth, so that
            another machine's rounding does not matter.
    """

    name: str
    number: int
    signature: tuple[float, float, float]

    @property
    def sequence(self) -> str:
        """The room or recording it belongs to: its name without the last part."""
        return self.name.rpartition("/")[0] or self.name

    def is_like(self, other: MapFrame) -> bool:
        """Whether both are the same frame under the same masks."""
        return (self.name, self.number) == (other.name, other.number) and all(
            math.isclose(a, b, rel_tol=1e-3, abs_tol=1e-4) for a, b in zip(self.signature, other.signature))


def map_frames(batch: Batch, names: Sequence[str]) -> tuple[MapFrame, ...]:
    """The frames of a batch, as a map knows them."""
    count = batch.is_valid.flatten(1).sum(dim=1)
    depth = (batch.depth * batch.is_valid).flatten(1).sum(dim=1) / count.clamp(min=1)
    share, color = count / batch.is_valid[0].numel(), batch.color.flatten(1).mean(dim=1)
    return tuple(MapFrame(name, int(batch.frame_ids[k]), tuple(float(f"{float(v[k]):.{DIGITS}g}") for v in (depth, share, color)))
                 for k, name in enumerate(names))


def checkpoint_digest(model: Mask3D) -> str:
    """16 hexadecimal digits that change with any weight: SHA-256 over names, shapes and values."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def coarse_to_fine(rows: int, columns: int) -> list[Place]:
    """All cells of a grid, the corners first, then the halves between what is there, and so on.

    Each stage is a whole coarser grid, so a picture of it is complete at any time, only less sharp.
    """
    def levels(count: int) -> list[int]:
        level = {0: 0, count - 1: 0}
        gaps, step = [(0, count - 1)], 0
        while gaps:
            step, gaps, before = step + 1, [], gaps
            for low, high in before:
                if high - low > 1:
                    middle = (low + high) // 2
                    level[middle] = step
                    gaps += [(low, middle), (middle, high)]
        return [level[k] for k in range(count)]

    if rows < 1 or columns < 1:
        raise ConfigError(f"a map needs at least one ratio of each; got {rows} and {columns}")
    down, across = levels(rows), levels(columns)
    return sorted(((r, c) for r in range(rows) for c in range(columns)),
                  key=lambda place: (max(down[place[0]], across[place[1]]), *place))


@dataclass(frozen=True)
class Comparison:
    """The model against the best of its opponents in one cell.

    Args:
        best: name of the opponent with the best mean. Chosen after the fact, so its mean flatters it a little: whoever
            beats it has beaten them all.
        opponent: its mean over frames with its interval.
        difference: model minus opponent, paired over frames; no interval with fewer than two sequences.
        is_ahead: the model's mean is better.
        is_sure: the difference's interval excludes 0; None without an interval.
    """

    best: str
    opponent: Estimate
    difference: Estimate
    is_ahead: bool
    is_sure: bool | None

    @property
    def words(self) -> str:
        """ "wins", "loses", or which way it leans."""
        if self.is_sure:
            return "wins" if self.is_ahead else "loses"
        why = "interval includes 0" if self.is_sure is False else "no interval"
        return f"{'ahead' if self.is_ahead else 'behind'}, {why}"


@dataclass(frozen=True)
class RatioMap:
    """Errors of a model and its opponents over RGB ratio x depth ratio.

    Args:
        rgb_ratios, depth_ratios: shares hidden, 0..1, ascending: columns and rows.
        frames: what was scored. seeds: of the masks, one draw each.
        inputs: of the model ("rgb", "depth").
        digest: of the checkpoint, :func:`checkpoint_digest`.
        max_depth: truth beyond this many metres is not scored.
        cells: what is measured so far.
        provenance: plain JSON values: which command, code version, checkpoint and frames.
    """

    rgb_ratios: tuple[float, ...]
    depth_ratios: tuple[float, ...]
    frames: tuple[MapFrame, ...]
    seeds: tuple[int, ...]
    inputs: tuple[str, ...]
    digest: str
    max_depth: float = 10.0
    cells: Mapping[Place, Scores] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    _found: dict[tuple, Any] = field(default_factory=dict, init=False, repr=False, compare=False)  # intervals, made once

    def __post_init__(self) -> None:
        problems = []
        for name in ("rgb_ratios", "depth_ratios"):
            ratios = getattr(self, name)
            if not ratios or list(ratios) != sorted(set(ratios)) or not all(0 <= r <= 1 for r in ratios):
                problems.append(f"{name} must be ascending numbers in 0..1 (shares hidden); got {ratios}")
        if not self.frames or not self.seeds or len(set(self.seeds)) != len(self.seeds):
            problems.append(f"a map needs frames and different seeds; got {len(self.frames)} frames, seeds {self.seeds}")
        if self.max_depth <= 0:
            problems.append(f"max_depth must be positive; got {self.max_depth}")
        if problems:
            raise ConfigError(problems)

    # ---- cells ------------------------------------------------------------------------------------------------------

    @property
    def places(self) -> list[Place]:
        """Every cell that can be scored, coarse to fine."""
        return [p for p in coarse_to_fine(len(self.depth_ratios), len(self.rgb_ratios)) if not self._why_not(p)]

    @property
    def missing(self) -> list[Place]:
        """The cells still to be measured, coarse to fine."""
        return [place for place in self.places if place not in self.cells]

    def ratios(self, place: Place) -> tuple[float, float]:
        """(share of RGB hidden, share of depth hidden) of a cell."""
        return self.rgb_ratios[place[1]], self.depth_ratios[place[0]]

    def _why_not(self, place: Place) -> str:
        rgb, depth = self.ratios(place)
        if ("rgb" not in self.inputs or rgb == 1) and ("depth" not in self.inputs or depth == 1):
            return NOTHING_VISIBLE
        return NOTHING_HIDDEN if "depth" in self.inputs and depth == 0 else ""

    def state(self, place: Place) -> str:
        """``SCORED``, or why there is no score: nothing was visible, nothing measured was hidden, or not yet."""
        why = self._why_not(place)
        if why or place not in self.cells:
            return why or UNKNOWN
        return NOTHING_HIDDEN if np.isnan(self.cells[place][MODEL]).all() else SCORED

    def with_cell(self, place: Place, scores: Scores) -> RatioMap:
        """This map with one more cell."""
        larger = replace(self, cells={**self.cells, place: dict(scores)})
        larger._found.update({key: value for key, value in self._found.items() if key[0] != place})
        return larger

    def without_rgb(self, row: int) -> Scores | None:
        """The scores of those opponents that do not look at colour, from any measured cell of this depth ratio."""
        for (r, _), scores in self.cells.items():
            if r == row:
                return {name: values for name, values in scores.items() if name not in _DEPENDS_ON_RGB}
        return None

    def of_frames(self, chosen: Sequence[int]) -> RatioMap:
        """The map of some of its frames, by their place in ``frames``."""
        chosen = list(chosen)
        cells = {place: {name: values[:, chosen] for name, values in scores.items()} for place, scores in self.cells.items()}
        return replace(self, frames=tuple(self.frames[k] for k in chosen), cells=cells)

    # ---- numbers ----------------------------------------------------------------------------------------------------

    def opponents(self, place: Place) -> list[str]:
        """Who was measured beside the model in a cell; nobody where no depth is visible and no mean map is known."""
        return [name for name in self.cells[place] if name != MODEL]

    def frame_values(self, place: Place, predictor: str, metric: str) -> np.ndarray:
        """float64 (frames,): each frame's mean over the mask draws; NaN where no draw had anything to count."""
        values = self.cells[place][predictor][_metric_number(metric)]
        return _mean(values, axis=1)

    def estimate(self, place: Place, predictor: str, metric: str, level: float = 0.95) -> Estimate:
        """The mean over frames with its interval from resampling sequences (none for a single sequence)."""
        key = (place, predictor, metric, level)
        if key not in self._found:
            names = [frame.sequence for frame in self.frames]
            self._found[key] = interval(self.frame_values(place, predictor, metric), names, level)
        return self._found[key]

    def mask_range(self, place: Place, predictor: str, metric: str) -> tuple[float, float]:
        """Lowest and highest mean over frames of the single mask draws: how far the masks alone move the number."""
        draws = _mean(self.cells[place][predictor][_metric_number(metric)], axis=0)
        return (float(np.nanmin(draws)), float(np.nanmax(draws))) if np.isfinite(draws).any() else (math.nan, math.nan)

    def table(self, metric: str, predictor: str = MODEL) -> np.ndarray:
        """float64 (depth ratios, RGB ratios): means over frames; NaN where there is none."""
        table = np.full((len(self.depth_ratios), len(self.rgb_ratios)), np.nan)
        for place, scores in self.cells.items():
            if predictor in scores:
                table[place] = _mean(self.frame_values(place, predictor, metric), axis=0)
        return table

    def compare(self, place: Place, metric: str) -> Comparison | None:
        """The model against its best opponent; None where there is no opponent or nothing to score."""
        if (place, metric) not in self._found:
            self._found[place, metric] = self._compare(place, metric) if self.state(place) == SCORED else None
        return self._found[place, metric]

    def _compare(self, place: Place, metric: str) -> Comparison | None:
        lower, found = METRICS[metric].lower_is_better, {}
        for name in self.opponents(place):
            mean = float(_mean(self.frame_values(place, name, metric), axis=0))
            if math.isfinite(mean):
                found[name] = mean if lower else -mean
        if not found:
            return None
        best, names = min(found, key=found.get), [f.sequence for f in self.frames]
        difference = paired_interval(self.frame_values(place, MODEL, metric), self.frame_values(place, best, metric), names)
        is_ahead = difference.mean < 0 if lower else difference.mean > 0
        return Comparison(best, self.estimate(place, best, metric), difference, is_ahead, difference.excludes_zero)

    # ---- files ------------------------------------------------------------------------------------------------------

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values. What does not depend on the RGB ratio is written once per depth ratio."""
        rows = {row: self.without_rgb(row) for row in range(len(self.depth_ratios))}
        return {"kind": KIND, "format": FORMAT, "provenance": dict(self.provenance), "digest": self.digest,
                "inputs": list(self.inputs), "max_depth": self.max_depth, "metrics": list(MAP_METRICS),
                "seeds": list(self.seeds), "rgb_ratios": list(self.rgb_ratios), "depth_ratios": list(self.depth_ratios),
                "frames": [{"name": f.name, "number": f.number, "signature": list(f.signature)} for f in self.frames],
                "rows": {str(row): _plain(scores) for row, scores in rows.items() if scores},
                "cells": [[row, column, _plain({k: v for k, v in scores.items() if k in _DEPENDS_ON_RGB})]
                          for (row, column), scores in sorted(self.cells.items())]}

    def save(self, path: str | Path) -> Path:
        """Write as JSON, whole or not at all; makes the folder."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.as_dict(), separators=(",", ":"), allow_nan=False)
        write_atomically(path, (text.replace("]}],[", "]}],\n[") + "\n").encode())
        return path

    @staticmethod
    def from_dict(saved: Any, where: object = None) -> RatioMap:
        """From what :meth:`as_dict` gave.

        Raises:
            Mask3DError: something else, another format, or numbers that do not fit together.
        """
        if not isinstance(saved, Mapping) or saved.get("kind") != KIND or saved.get("format") != FORMAT:
            got = f"kind {saved.get('kind')!r}, format {saved.get('format')!r}" if isinstance(saved, Mapping) else "no object"
            raise Mask3DError(f"a {KIND} in format {FORMAT}", got, "Measure the map again with this version.", where)
        try:
            frames = tuple(MapFrame(f["name"], f["number"], tuple(f["signature"])) for f in saved["frames"])
            rows = {int(row): _arrays(scores) for row, scores in saved["rows"].items()}
            cells = {(row, column): {**_arrays(scores), **rows.get(row, {})} for row, column, scores in saved["cells"]}
            found = RatioMap(tuple(saved["rgb_ratios"]), tuple(saved["depth_ratios"]), frames, tuple(saved["seeds"]),
                             tuple(saved["inputs"]), saved["digest"], saved["max_depth"], cells, saved["provenance"])
            size = (len(MAP_METRICS), len(frames), len(found.seeds))
            is_wrong = tuple(saved["metrics"]) != MAP_METRICS or any(
                values.shape != size for scores in cells.values() for values in scores.values()) or any(
                MODEL not in scores or place not in found.places for place, scores in cells.items())
        except (KeyError, TypeError, ValueError) as problem:
            raise Mask3DError(f"a whole {KIND}", f"{type(problem).__name__}: {problem}", "Copy the file again.",
                              where) from problem
        if is_wrong:
            raise Mask3DError(f"{size} numbers (metrics, frames, draws) in every cell", "others", "Copy the file again.", where)
        return found

    @staticmethod
    def load(path: str | Path) -> RatioMap:
        """Read what :meth:`save` wrote.

        Raises:
            Mask3DError: missing, damaged, or another format.
        """
        path = Path(path)
        try:
            saved = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as problem:
            raise Mask3DError(f"a {KIND} as JSON", str(problem), "Check the path, or copy the file again.", path) from problem
        return RatioMap.from_dict(saved, path)


def empty_map(model: Mask3D, frames: Sequence[MapFrame], seeds: Sequence[int] = (0, 1), ratios: Sequence[float] = RATIOS,
              max_depth: float = 10.0, digest: str = "") -> RatioMap:
    """A map with nothing measured yet.

    Args:
        model: whose it will be. digest: its :func:`checkpoint_digest` where that is known already.
        frames: what will be scored. seeds: of the masks.
        ratios: of both modalities. max_depth: truth beyond this many metres is not scored.

    Raises:
        ConfigError: impossible ratios, no frame or seed, or a model that predicts no depth.
    """
    if "depth" not in model.config.targets:
        raise ConfigError("this model predicts no depth (model.targets has no depth); a map has nothing to score")
    return RatioMap(tuple(ratios), tuple(ratios), tuple(frames), tuple(seeds), tuple(model.config.inputs),
                    digest or checkpoint_digest(model), max_depth)


def _metric_number(metric: str) -> int:
    if metric not in MAP_METRICS:
        raise ConfigError(f"metric must be one of {', '.join(MAP_METRICS)}; got {metric!r}")
    return MAP_METRICS.index(metric)


def _mean(values: np.ndarray, axis: int) -> np.ndarray:
    """Mean of what is a number; NaN where nothing is."""
    count = (~np.isnan(values)).sum(axis=axis)
    return np.where(count > 0, np.nansum(values, axis=axis) / np.maximum(count, 1), np.nan)


def _plain(scores: Scores) -> dict[str, list]:
    return {name: [[[None if math.isnan(v) else float(f"{v:.{DIGITS}g}") for v in draws] for draws in frames]
                   for frames in values.tolist()] for name, values in scores.items()}


def _arrays(scores: Mapping[str, list]) -> dict[str, np.ndarray]:
    return {name: np.array(values, dtype=np.float64) for name, values in scores.items()}


__all__ = ["MAP_METRICS", "MEAN_MAP", "MODEL", "NOTHING_HIDDEN", "NOTHING_VISIBLE", "RATIOS", "SCORED", "UNKNOWN",
           "Comparison", "MapFrame", "RatioMap", "checkpoint_digest", "coarse_to_fine", "empty_map", "map_frames"]
