"""What a run says: JSON lines for other tools, one progress bar for a person."""

from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path
from typing import Any

from mask3d_core.progress import Bar
from mask3d_core.shipped import shipped


def read_log(path: str | Path) -> list[dict[str, Any]]:
    """The records of a log; a last line cut short by a kill is dropped."""
    records = []
    path = Path(path)
    if path.is_file():
        for line in path.read_text().splitlines():
            try:
                records.append(json.loads(line))
            except ValueError:
                continue
    return records


class JsonLog:
    """Append-only JSON lines; on resume the records after the resumed step are dropped."""

    def __init__(self, path: Path, resume_step: int = 0):
        kept = [r for r in read_log(path) if r.get("step", 0) <= resume_step] if resume_step else []
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text("".join(json.dumps(r) + "\n" for r in kept))
        os.replace(temporary, path)
        self.file = open(path, "a", buffering=1)

    def write(self, **record: Any) -> None:
        """One record. NaN and infinity are written as null, which every reader can parse."""
        self.file.write(json.dumps({k: _finite(v) for k, v in record.items()}) + "\n")

    def close(self) -> None:
        """Flush and close."""
        self.file.close()


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    return value


class Progress:
    """A training run's bar. The rate leaves the first steps out (compilation, first touches of the disk).

    Args:
        total, start: steps in all, and already done.
        frames_per_step: for the rate.
        warmup: steps not counted in the rate.
    """

    def __init__(self, total: int, start: int, frames_per_step: int, description: str, show: bool, warmup: int = 3):
        self.start, self.frames, self.warmup = start, frames_per_step, warmup
        self.counted_from, self.counted_at = time.perf_counter(), start
        self.bar = Bar(description, total, start, "step", show)
        self.say, self.note, self.close = self.bar.say, self.bar.note, self.bar.close

    def rate(self, step: int) -> float:
        """Frames per second since the warm-up; 0 while warming up."""
        if step - self.start <= self.warmup:
            return 0.0
        return (step - self.counted_at) * self.frames / max(1e-9, time.perf_counter() - self.counted_from)

    def advance(self, step: int) -> None:
        """One step done; ``step`` is how many are done in all."""
        if step - self.start == self.warmup:
            self.counted_from, self.counted_at = time.perf_counter(), step
        self.bar.advance()


REFERENCE_CURVES = shipped("data", "curves")


def reference_curve(name: str) -> list[dict[str, Any]]:
    """The shipped log of a preset and control ("tiny/mask3d"), or [] where none ships."""
    return read_log(REFERENCE_CURVES / f"{name.replace('/', '_')}.jsonl")


def expected_band(records: list[dict[str, Any]], key: str = "loss", window: int = 15, spread: float = 2.0
                  ) -> tuple[list[float], list[float], list[float]] | None:
    """Where a run like this one is expected to lie: running mean plus and minus ``spread`` standard deviations.

    Args:
        records: a log's records.
        key: which number.
        window: records on either side that enter the mean.

    Returns:
        Steps, low, high; None with fewer than three records that hold the key.
    """
    rows = [(r["step"], r[key]) for r in records if isinstance(r.get(key), (int, float)) and math.isfinite(r[key])]
    if len(rows) < 3:
        return None
    steps, low, high = [], [], []
    for i, (step, _) in enumerate(rows):
        near = [value for _, value in rows[max(0, i - window):i + window + 1]]
        mean = sum(near) / len(near)
        deviation = (sum((v - mean) ** 2 for v in near) / len(near)) ** 0.5
        steps.append(step)
        low.append(mean - spread * deviation)
        high.append(mean + spread * deviation)
    return steps, low, high
