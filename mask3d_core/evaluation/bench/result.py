"""What a bench found: means with intervals over rooms, paired differences to the opponents, a table, plain JSON."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from mask3d_core.errors import ConfigError
from mask3d_core.evaluation.bench.config import (FAVOURED_WORDS, LINEAR, MATCHING, METRICS, NEAREST, NO_INSTANCES, READOUTS,
                                                 SELECTION, SEMANTICS, BenchConfig, main_metric)
from mask3d_core.evaluation.bench.correspondence import ANGLE_BINS
from mask3d_core.evaluation.bench.entries import OPPONENT, TRIVIAL_WORDS
from mask3d_core.evaluation.probes import ONE_RECORDING
from mask3d_core.evaluation.segmentation import scores_of
from mask3d_core.evaluation.statistics import Estimate, interval, paired_interval, resampled, resampled_difference


SEEDS = ("Intervals are over rooms, not over seeds: another seed of a training, or of the untrained network, is not in them, "
         "so two untrained networks may differ too.")


@dataclass(frozen=True)
class Choice:
    """What the validation frames chose for a task and a readout.

    Args:
        layer: counted from 0. setting: strength, or number of neighbours; None without training.
        is_at_edge: the setting is the grid's first or last, so a wider grid might do better.
        validation: the main number on the validation frames.
    """

    layer: int
    setting: float | None
    is_at_edge: bool
    validation: float


@dataclass(frozen=True)
class RowScores:
    """One row of the table.

    Args:
        name, kind: of the row: "encoder", "reference" or "opponent".
        scores: (task, readout) to metric to float64, one number per test frame (or pair of views); "confusion" int64 (n, c, c).
        choices: (task, readout) to what validation chose.
        width: of its features.
        patches_per_frame, megabytes: training patches kept of each frame, and what their features took.
        seconds: that it took, of wall clock.
        seen: test frames that its weights were trained on.
    """

    name: str
    kind: str
    scores: dict[tuple[str, str], dict[str, np.ndarray]] = field(repr=False)
    choices: dict[tuple[str, str], Choice]
    width: int = 0
    patches_per_frame: int = 0
    megabytes: float = 0.0
    seconds: float = 0.0
    seen: int = 0


@dataclass(frozen=True)
class BenchResult:
    """All rows on the same frames.

    Args:
        rows: by name, opponents last.
        tasks: that were measured.
        sequences: of each probed test frame. pair_sequences, pair_angles: of each pair of views.
        class_names: semantic classes.
        words: what the frames are. fingerprint: of them. config: the protocol.
    """

    rows: dict[str, RowScores]
    tasks: tuple[str, ...]
    sequences: tuple[str, ...]
    pair_sequences: tuple[str, ...]
    pair_angles: tuple[float, ...]
    class_names: tuple[str, ...]
    words: str
    fingerprint: str
    config: BenchConfig
    _found: dict[tuple, Estimate] = field(default_factory=dict, repr=False, compare=False)  # each is asked for several times

    @property
    def opponents(self) -> list[str]:
        """Names of the opponents."""
        return [name for name, row in self.rows.items() if row.kind == OPPONENT]

    def has(self, name: str, task: str, readout: str) -> bool:
        """Whether that row was measured in this task by this readout."""
        return (task, readout) in self._row(name).scores

    def _row(self, name: str) -> RowScores:
        if name not in self.rows:
            raise ConfigError(f"the bench has no row {name!r}; it has {', '.join(self.rows)}")
        return self.rows[name]

    def _values(self, name: str, task: str, readout: str) -> dict[str, np.ndarray]:
        if not self.has(name, task, readout):
            raise ConfigError(f"{name!r} was not measured in {task} by {readout}")
        return self.rows[name].scores[task, readout]

    def _units(self, task: str) -> tuple[list[str], bool]:
        """What is resampled, and whether those are only frames of one recording."""
        names = list(self.pair_sequences if task == MATCHING else self.sequences)
        is_one = len(set(names)) == 1
        return ([str(i) for i in range(len(names))] if is_one else names), is_one

    def estimate(self, name: str, task: str, readout: str, metric: str | None = None,
                 turn: tuple[float, float] | None = None) -> Estimate:
        """A number with its interval over rooms (over frames where there is one recording, and then it says so).

        Args:
            name: of the row.
            metric: of the task; None: its main number.
            turn: degrees (low, high) between the two views, for correspondence.
        """
        return self._of(task, metric, turn, readout, name)

    def difference(self, first: str, second: str, task: str, readout: str, metric: str | None = None) -> Estimate:
        """First minus second on the same frames, with its paired interval."""
        return self._of(task, metric, None, readout, first, second)

    def _of(self, task: str, metric: str | None, turn: tuple[float, float] | None, readout: str, *names: str) -> Estimate:
        key = (task, metric or main_metric(task), turn, readout, *names)
        if key not in self._found:
            self._found[key] = self._computed(task, key[1], turn, *(self._values(name, task, readout) for name in names))
        return self._found[key]

    def _computed(self, task: str, metric: str, turn: tuple[float, float] | None, *values: dict[str, np.ndarray]) -> Estimate:
        if metric not in METRICS.get(task, {}):
            raise ConfigError(f"{task} has no metric {metric!r}; it has {', '.join(METRICS.get(task, {}))}")
        units, is_one = self._units(task)
        if task == SEMANTICS:
            tables = [_by_unit(v["confusion"], units) for v in values]
            score = lambda matrices: scores_of(matrices)[metric]  # noqa: E731
            found = resampled(*tables, score) if len(tables) == 1 else resampled_difference(*tables, score)
            found = replace(found, frames=len(units))
        else:
            numbers = [v[metric] for v in values]
            if turn is not None:
                angles = np.asarray(self.pair_angles)
                numbers = [np.where((angles >= turn[0]) & (angles < turn[1]), v, np.nan) for v in numbers]
            found = interval(numbers[0], units) if len(numbers) == 1 else paired_interval(*numbers, units)
        return replace(found, words=ONE_RECORDING) if is_one and found.low is not None else found

    def verdict(self, name: str, opponent: str, task: str, readout: str) -> str:
        """"better", "worse" or "no difference that could be told" than an opponent in the task's main number."""
        found = self.difference(name, opponent, task, readout)
        if not found.excludes_zero:
            return "no difference that could be told"
        return "better" if (found.mean < 0) == METRICS[task][main_metric(task)].lower_is_better else "worse"

    def verdicts(self) -> list[str]:
        """One line per encoder and task: how its readouts stand against every opponent."""
        lines = []
        for name, row in self.rows.items():
            if row.kind == OPPONENT:
                continue
            for task in self.tasks:
                for readout in READOUTS[task]:
                    if not self.has(name, task, readout):
                        continue
                    said: dict[str, list[str]] = {}
                    for other in self.opponents:
                        if self.has(other, task, readout):
                            said.setdefault(self.verdict(name, other, task, readout), []).append(other)
                    words = "; ".join(f"{word}{' than' if word in ('better', 'worse') else ' from'} {', '.join(said[word])}"
                                      for word in ("better", "worse", "no difference that could be told") if word in said)
                    lines.append(f"{name}, {task}, {readout}: {words or 'no opponent'}")
        return lines

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        rows = {}
        for name, row in self.rows.items():
            found: dict[str, Any] = {"kind": row.kind, "width": row.width, "patches_per_frame": row.patches_per_frame,
                                     "kept_megabytes": round(row.megabytes, 1), "seconds": round(row.seconds, 1),
                                     "test_frames_seen_in_training": row.seen, "tasks": {}}
            for (task, readout), values in row.scores.items():
                entry: dict[str, Any] = {m: _brief(self.estimate(name, task, readout, m)) for m in METRICS[task]}
                if (task, readout) in row.choices:
                    entry["chosen"] = _finite(asdict(row.choices[task, readout]))
                if task == MATCHING:
                    entry["by_angle"] = {f"{low:g}-{high:g}": _brief(self.estimate(name, task, readout, None, (low, high)))
                                         for low, high in ANGLE_BINS}
                if task == SEMANTICS:
                    iou = scores_of(values["confusion"].sum(axis=0))["iou"]
                    entry["class_iou"] = _finite({c: round(float(v), 4) for c, v in zip(self.class_names, iou)})
                if row.kind != OPPONENT:
                    entry["minus"] = {other: _brief(self.difference(name, other, task, readout)) for other in self.opponents
                                      if self.has(other, task, readout)}
                found["tasks"].setdefault(task, {})[readout] = entry
            rows[name] = found
        return {"frames": {"words": self.words, "fingerprint": self.fingerprint, "test_frames": len(self.sequences),
                           "test_sequences": len(set(self.sequences)), "pairs_of_views": len(self.pair_sequences)},
                "protocol": self.config.words(), "selection": SELECTION, "intervals": SEEDS, "config": asdict(self.config),
                "rows": rows,
                "verdicts": self.verdicts()}

    def text(self) -> str:
        """The table for a terminal, one block per task; the best number of each column is marked."""
        sure = f"95 % intervals resample {_resampled(self)}. {SEEDS}"
        lines = [self.words, self.config.words(), SELECTION, sure, TRIVIAL_WORDS, FAVOURED_WORDS, NO_INSTANCES]
        wide = max(len(name) for name in self.rows) + 2
        for task in self.tasks:
            for readout in READOUTS[task]:
                lines += ["", *self._block(task, readout, wide)]
            if task == MATCHING:
                lines += ["", *self._angles(wide)]
        lines += ["", "Against the opponents (paired 95 % interval of the main number excludes 0):", *self.verdicts()]
        for name, row in self.rows.items():
            if row.seen:
                lines.append(f"WARNING: {name} was trained on {row.seen} of the test frames")
        return "\n".join(lines)

    def _block(self, task: str, readout: str, wide: int) -> list[str]:
        metrics = METRICS[task]
        names = [name for name in self.rows if self.has(name, task, readout)]
        found = {name: {metric: self.estimate(name, task, readout, metric) for metric in metrics} for name in names}
        best = {}
        for metric, what in metrics.items():
            means = [found[name][metric].mean for name in names if math.isfinite(found[name][metric].mean)]
            best[metric] = (min if what.lower_is_better else max)(means, default=math.nan)
        first = next(iter(metrics))
        heads = [f"{m.label}{f' {m.unit}' if m.unit else ''}" for m in metrics.values()]
        way = "lower" if metrics[first].lower_is_better else "higher"
        lines = [f"{task}, {readout} ({metrics[first].label}: {way} is better)",
                 f"{'':{wide}}{heads[0]:>26}" + "".join(f"{head:>18}" for head in heads[1:]) + "   chosen on validation"]
        for name in names:
            cells = []
            for metric in metrics:
                value = found[name][metric]
                mark = "*" if value.mean == best[metric] else ""
                band = f" [{value.low:.3f}, {value.high:.3f}]" if metric == first and value.low is not None else ""
                cells.append(f"{mark}{value.mean:.3f}{band}")
            chosen = self.rows[name].choices.get((task, readout))
            others = "".join(f"{cell:>18}" for cell in cells[1:])
            lines.append(f"{name:{wide}}{cells[0]:>26}{others}   {_chosen(chosen, readout)}")
        return lines

    def _angles(self, wide: int) -> list[str]:
        readout = READOUTS[MATCHING][0]
        counts = [int(sum(low <= angle < high for angle in self.pair_angles)) for low, high in ANGLE_BINS]
        lines = ["correspondence, recall within 1 patch, by how far the camera turned",
                 " " * wide + "".join(f"{f'{low:g}-{high:g} deg, {count} pairs':>26}"
                                      for (low, high), count in zip(ANGLE_BINS, counts))]
        for name in self.rows:
            if self.has(name, MATCHING, readout):
                values = [self.estimate(name, MATCHING, readout, None, turn) for turn in ANGLE_BINS]
                lines.append(f"{name:{wide}}" + "".join(f"{_short(value):>26}" for value in values))
        return lines


def _by_unit(matrices: np.ndarray, units: list[str]) -> np.ndarray:
    """Confusion matrices of frames, added up by what is resampled, in the order of its names."""
    names, group = np.unique(np.asarray(units, str), return_inverse=True)
    found = np.zeros((len(names), *matrices.shape[1:]), np.int64)
    np.add.at(found, group, matrices)
    return found


def _brief(value: Estimate) -> dict[str, Any]:
    """Mean and interval, five digits; the words only where there are any. How many rooms there were stands once, above."""
    rounded = {key: None if number is None or not math.isfinite(number) else round(number, 5)
               for key, number in (("mean", value.mean), ("low", value.low), ("high", value.high))}
    return {**rounded, **({"words": value.words} if value.words else {})}


def _short(value: Estimate) -> str:
    if not math.isfinite(value.mean):
        return "-"
    return f"{value.mean:.3f}" + ("" if value.low is None else f" [{value.low:.3f}, {value.high:.3f}]")


def _chosen(choice: Choice | None, readout: str) -> str:
    if choice is None:
        return "nothing to choose"
    words = f"layer {choice.layer}"
    if readout == LINEAR:
        words += f", strength {choice.setting:g}"
    elif readout == NEAREST:
        words += f", {choice.setting:g} neighbours"
    return words + (" (edge of the grid)" if choice.is_at_edge else "")


def _resampled(result: BenchResult) -> str:
    if len(set(result.sequences)) == 1:
        return "frames of one recording (too narrow: neighbours are near copies)"
    return f"{len(set(result.sequences))} rooms or recordings, never frames"


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    return {key: None if isinstance(v, float) and not math.isfinite(v) else v for key, v in values.items()}

