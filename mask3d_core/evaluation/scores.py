"""Scores of many frames, by who predicted: means with intervals, comparisons, tables, JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from mask3d_core.errors import Mask3DError
from mask3d_core.evaluation.metrics import METRICS
from mask3d_core.evaluation.statistics import Estimate, interval, paired_interval

FORMAT = 1


class FrameScores:
    """One number per (predictor, frame, mask draw, metric), gathered batch by batch.

    A frame's several mask draws are averaged before anything else: draws are no new frames.
    """

    def __init__(self) -> None:
        self._values: dict[str, dict[str, dict[str, dict[int, float]]]] = {}  # predictor, metric, frame, draw
        self._sequences: dict[str, str] = {}
        self._fallbacks: dict[str, set[str]] = {}

    def add(self, predictor: str, scores: Mapping[str, Tensor], frames: Sequence[str], sequences: Sequence[str],
            draw: int = 0, is_fallback: Tensor | None = None) -> None:
        """Add one batch.

        Args:
            predictor: who predicted ("model", "nearest", "model, grey colour", ...).
            scores: metric name to (b,), as :mod:`metrics` gives them; NaN = nothing to count.
            frames: id of each frame, unique over the whole evaluation.
            sequences: the sequence of each frame.
            draw: number of the mask draw.
            is_fallback: Bool (b,), frames for which a fallback stood in.

        Raises:
            Mask3DError: lengths that differ, an infinite score, or a frame scored twice in one draw.
        """
        if len(frames) != len(sequences) or any(len(values) != len(frames) for values in scores.values()):
            raise Mask3DError(f"{len(frames)} scores and sequences for {len(frames)} frames",
                              f"{len(sequences)} sequences and scores of {[len(v) for v in scores.values()]}",
                              "Pass one of each per frame.", predictor)
        columns = {metric: values.detach().double().cpu().tolist() for metric, values in scores.items()}
        for place, (frame, sequence) in enumerate(zip(frames, sequences, strict=True)):
            if self._sequences.setdefault(frame, sequence) != sequence:
                raise Mask3DError(f"frame {frame} in sequence {self._sequences[frame]}", f"sequence {sequence}",
                                  "Give every frame an id of its own.", predictor)
            for metric, column in columns.items():
                draws = self._values.setdefault(predictor, {}).setdefault(metric, {}).setdefault(frame, {})
                if draw in draws:
                    raise Mask3DError("every frame once per draw", f"frame {frame} twice in draw {draw}",
                                      "Give every frame an id of its own.", predictor)
                if math.isinf(column[place]):
                    raise Mask3DError("finite predictions", f"{metric} is infinite for frame {frame}",
                                      "The prediction is not finite there; look at the model.", predictor)
                draws[draw] = column[place]
        if is_fallback is not None:
            fallen = [frame for frame, fell in zip(frames, is_fallback.tolist(), strict=True) if fell]
            self._fallbacks.setdefault(predictor, set()).update(fallen)

    @property
    def predictors(self) -> list[str]:
        """In the order in which they came."""
        return list(self._values)

    def metrics(self, predictor: str) -> list[str]:
        """The metrics of one predictor."""
        return list(self._of(predictor))

    def _of(self, predictor: str) -> dict[str, dict[str, dict[int, float]]]:
        if predictor not in self._values:
            raise Mask3DError(f"one of {', '.join(self._values) or 'no predictors yet'}", repr(predictor),
                              "Add its scores first.")
        return self._values[predictor]

    def frame_values(self, predictor: str, metric: str) -> dict[str, float]:
        """Frame id to its mean over the mask draws; NaN where no draw had anything to count."""
        found = self._of(predictor)
        if metric not in found:
            raise Mask3DError(f"one of the metrics {', '.join(found)}", repr(metric), "Add it first.", predictor)
        means = {}
        for frame, draws in found[metric].items():
            counted = [value for value in draws.values() if not math.isnan(value)]
            means[frame] = math.fsum(counted) / len(counted) if counted else math.nan
        return means

    def estimate(self, predictor: str, metric: str, level: float = 0.95, resamples: int = 2000,
                 seed: int = 0) -> Estimate:
        """The mean over frames with its interval over sequences."""
        means = self.frame_values(predictor, metric)
        return interval(list(means.values()), [self._sequences[frame] for frame in means], level, resamples, seed)

    def difference(self, first: str, second: str, metric: str, level: float = 0.95, resamples: int = 2000,
                   seed: int = 0) -> Estimate:
        """Mean of first minus second over the frames that both have, with its paired interval."""
        a, b = self.frame_values(first, metric), self.frame_values(second, metric)
        both = [frame for frame in a if frame in b]
        return paired_interval([a[frame] for frame in both], [b[frame] for frame in both],
                               [self._sequences[frame] for frame in both], level, resamples, seed)

    def beats(self, first: str, second: str, metric: str = "abs_rel", **options: Any) -> bool | None:
        """Whether first is better than second with an interval that excludes 0; None where there is no interval."""
        estimate = self.difference(first, second, metric, **options)
        if estimate.low is None:
            return None
        lower = METRICS[metric].lower_is_better
        return estimate.high < 0 if lower else estimate.low > 0

    def fallbacks(self, predictor: str) -> int:
        """For how many frames a fallback stood in, in any draw."""
        return len(self._fallbacks.get(predictor, ()))

    def table(self, metrics: Sequence[str] = ("abs_rel", "rmse", "mae", "delta1"), labels: Mapping[str, str] | None = None,
              **options: Any) -> str:
        """Aligned text, one predictor a line: mean and interval of each metric."""
        labels = labels or {}
        rows, words = [["", *(_heading(metric) for metric in metrics)]], set()
        for predictor, found in self._values.items():
            cells = []
            for metric in metrics:
                estimate = self.estimate(predictor, metric, **options) if metric in found else None
                words |= {estimate.words} - {""} if estimate else set()
                cells.append(_cell(estimate) if estimate else "-")
            fallen = self.fallbacks(predictor)
            note = f" (fallback on {fallen} frames)" if fallen else ""
            rows.append([labels.get(predictor, predictor) + note, *cells])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join(lines + [f"({'; '.join(sorted(words))})"] * bool(words))

    def as_dict(self, **options: Any) -> dict[str, Any]:
        """Plain JSON values: the summary of every predictor and metric, and every frame's numbers.

        Args:
            options: level, resamples and seed of the intervals.
        """
        summary = {p: {m: self.estimate(p, m, **options).as_dict() for m in found} for p, found in self._values.items()}
        frames = {p: {m: {frame: _plain(draws) for frame, draws in by_frame.items()} for m, by_frame in found.items()}
                  for p, found in self._values.items()}
        return {"format": FORMAT, "summary": summary, "sequences": dict(self._sequences),
                "fallback": {p: sorted(fallen) for p, fallen in self._fallbacks.items() if fallen}, "frames": frames}

    def save(self, path: str | Path, **options: Any) -> Path:
        """Write :meth:`as_dict` as JSON."""
        path = Path(path)
        path.write_text(json.dumps(self.as_dict(**options), indent=1, allow_nan=False) + "\n", encoding="utf-8")
        return path

    @staticmethod
    def from_dict(saved: Mapping[str, Any]) -> FrameScores:
        """From what :meth:`as_dict` gave.

        Raises:
            Mask3DError: another format.
        """
        if saved.get("format") != FORMAT:
            raise Mask3DError(f"scores in format {FORMAT}", f"format {saved.get('format')!r}",
                              "Evaluate again with this version.")
        scores = FrameScores()
        scores._sequences = dict(saved["sequences"])
        scores._fallbacks = {p: set(fallen) for p, fallen in saved["fallback"].items()}
        scores._values = {p: {m: {frame: {int(d): math.nan if v is None else v for d, v in draws.items()}
                                  for frame, draws in by_frame.items()} for m, by_frame in found.items()}
                          for p, found in saved["frames"].items()}
        return scores


def _plain(draws: Mapping[int, float]) -> dict[str, float | None]:
    return {str(draw): None if math.isnan(value) else value for draw, value in draws.items()}


def _heading(metric: str) -> str:
    known = METRICS.get(metric)
    if known is None:
        return metric
    return f"{known.label} ({known.unit})" if known.unit else known.label


def _cell(estimate: Estimate) -> str:
    if not math.isfinite(estimate.mean):
        return "-"
    text = f"{estimate.mean:.4f}" if abs(estimate.mean) < 100 else f"{estimate.mean:.0f}"
    return text if estimate.low is None else f"{text} [{estimate.low:.4f}, {estimate.high:.4f}]"
