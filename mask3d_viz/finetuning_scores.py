"""The final scores of fine-tuning runs side by side, from the ``scores.json`` that each leaves behind when it has finished."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mask3d_core.errors import Mask3DError
from mask3d_core.evaluation.segmentation import SegmentationScores
from mask3d_core.evaluation.statistics import Estimate, paired_interval
from mask3d_viz.finetuning_charts import METRICS


@dataclass(frozen=True)
class FinalScore:
    """A row of the table.

    Args:
        name: of the run, or of the trivial answer.
        mean, low, high: of the task's number; low and high None where there is no interval.
        words: why there is none.
        is_trivial: no network.
    """

    name: str
    mean: float | None
    low: float | None
    high: float | None
    words: str = ""
    is_trivial: bool = False

    def __str__(self) -> str:
        mean = "-" if self.mean is None else f"{self.mean:.3f}"
        if self.low is not None:
            return f"{mean} [{self.low:.3f}, {self.high:.3f}]"
        return f"{mean} ({self.words})" if self.words else mean


@dataclass(frozen=True)
class FinalScores:
    """Final scores of the runs that have any.

    Args:
        metric: what the number is called.
        rows: the runs, then the trivial answer.
        protocol: what the numbers must be read with, a line.
        difference: the first run minus the second on the same frames, a line; "" where there are not two.
    """

    metric: str
    rows: tuple[FinalScore, ...]
    protocol: str
    difference: str = ""


def read_scores(run: str | Path) -> dict[str, Any] | None:
    """What ``mask3d finetune`` wrote into a finished run; None where it has not (yet)."""
    with suppress(OSError, ValueError):
        found = json.loads((Path(run) / "scores.json").read_text())
        if isinstance(found, dict) and "scores" in found and "protocol" in found:
            return found
    return None


def final_scores(runs: Mapping[str, dict[str, Any] | None], task: str) -> FinalScores | None:
    """A table of the runs that are scored.

    Args:
        runs: name to :func:`read_scores`.
        task: "segment", "depth" or "detect".

    Returns:
        None while none is.
    """
    metric, called = METRICS[task]
    scored = {name: found for name, found in runs.items() if found is not None}
    if not scored:
        return None
    rows = [_row(name, found["scores"]["model"], metric, task) for name, found in scored.items()]
    last = next(reversed(scored.values()))
    rows += [_row(name, score, metric, task, True) for name, score in last["scores"].items() if name != "model"]
    p = last["protocol"]
    said = (f"{p['frames']} frames of split {p['split']} ({p['split_rule']}), labels at {p['labels_at']}; "
            f"scored: {p.get('view_words', 'the centre crop')}; {p['training_frames']} labelled frames learned from; {p['selection']}")
    return FinalScores(called, tuple(rows), said, _difference(scored, task) if len(scored) == 2 else "")


def _row(name: str, score: dict[str, Any], metric: str, task: str, is_trivial: bool = False) -> FinalScore:
    if task == "depth":
        mean, interval = score[metric]["mean"], score[metric]["interval"]
    else:
        mean, interval = score[metric], score[f"{metric}_interval"]
    return FinalScore(name, mean, interval["low"], interval["high"], interval["words"], is_trivial)


def _difference(scored: dict[str, dict[str, Any]], task: str) -> str:
    """The first run minus the second, rooms drawn again for both together."""
    (first, a), (second, b) = scored.items()
    metric, called = METRICS[task]
    try:
        found = _paired(a, b, task)
    except Mask3DError:  # other frames: nothing to pair
        return f"{first} and {second} were scored on other frames: not to be compared"
    if found is None:
        return ""
    zero = "0 lies outside" if found.excludes_zero else "0 lies inside, so this does not tell them apart"
    interval = found.words if found.low is None else f"95 % over scenes [{found.low:+.3f}, {found.high:+.3f}]; {zero}"
    return (f"{first} minus {second}: {called} {found.mean:+.3f}, {interval}. One training each: another seed may say otherwise "
            "(notebook 11 repeats)")


def _paired(a: dict[str, Any], b: dict[str, Any], task: str) -> Estimate | None:
    if task == "segment":
        classes = a["protocol"]["classes"]
        one, two = (SegmentationScores(classes, {k: np.asarray(m, np.int64) for k, m in s["matrices"].items()}) for s in (a, b))
        return one.difference(two)
    if task == "depth":
        if a["sequences"] != b["sequences"]:
            raise Mask3DError("the same frames twice", "other ones", "Score both on the same split.")
        return paired_interval(a["frames"]["abs_rel"], b["frames"]["abs_rel"], a["sequences"])
    return None


__all__ = ["FinalScore", "FinalScores", "final_scores", "read_scores"]
