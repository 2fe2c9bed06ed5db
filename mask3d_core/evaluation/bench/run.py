"""The bench itself: for every row, fit on the training frames, choose on the validation frames, score the test frames once."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from mask3d_core.errors import ConfigError
from mask3d_core.evaluation.bench.config import (LINEAR, MATCHING, METRICS, NEAREST, SEMANTICS, TEST, TRAIN, UNTRAINED, VAL,
                                                 BenchConfig, main_metric)
from mask3d_core.evaluation.bench.correspondence import chance_scores, match_scores, view_pairs
from mask3d_core.evaluation.bench.entries import (ENCODER, OPPONENT, REFERENCE, TRIVIAL, Entry, check_names, encoder_entry,
                                                  opponent_entries)
from mask3d_core.evaluation.bench.frames import BenchFrames, rows_of
from mask3d_core.evaluation.bench.readouts import Linear, Nearest, Standard
from mask3d_core.evaluation.bench.result import BenchResult, Choice, RowScores
from mask3d_core.evaluation.bench.targets import Target, Truth
from mask3d_core.evaluation.features import RGBEncoder
from mask3d_core.evaluation.segmentation import scores_of
from mask3d_core.randomness import random_bits, stream

READERS = {LINEAR: Linear, NEAREST: Nearest}
Key = tuple[str, str]  # task, readout
Progress = Callable[[str, int, int], None]


@torch.inference_mode()
def bench_encoders(encoders: Mapping[str, RGBEncoder], frames: BenchFrames, config: BenchConfig = BenchConfig(), *,
                   opponents: Mapping[str, RGBEncoder] | None = None, references: Mapping[str, RGBEncoder] | None = None,
                   records: Mapping[str, dict] | None = None, progress: Progress | None = None) -> BenchResult:
    """Measure frozen encoders on the same frames, beside opponents that are always there.

    Args:
        encoders: name to encoder; the first rows of the table.
        frames: ``rooms_frames()`` or ``store_frames(path)``.
        config: protocol.
        opponents: encoders that are no achievement, the untrained twin above all (``untrained_twin``). The trivial answer,
            position alone and raw pixels are added in any case.
        references: encoders to compare with by eye.
        records: name to the record of where its weights come from, so that rows which saw test frames are marked.
        progress: called with (name of the row, frames done, frames in all).

    Returns:
        Scores per test frame or pair of views, with what was chosen on the validation frames.

    Raises:
        ConfigError: two rows of one name, frames that cannot be fitted on, or an encoder of the wrong architecture.
    """
    groups = [(ENCODER, encoders), (REFERENCE, references or {}), (OPPONENT, opponents or {})]
    entries = [encoder_entry(name, encoder, kind, config) for kind, group in groups for name, encoder in group.items()]
    entries += opponent_entries(config)
    return bench_entries(entries, frames, config, records, progress)


@torch.inference_mode()
def bench_entries(entries: list[Entry], frames: BenchFrames, config: BenchConfig = BenchConfig(),
                  records: Mapping[str, dict] | None = None, progress: Progress | None = None) -> BenchResult:
    """As :func:`bench_encoders`, for any functions from pictures to features (``function_entry``); no opponents are added.

    Rows that take part in nothing that these frames can measure are left out.
    """
    check_names([[entry.name for entry in entries]])
    entries = [entry for entry in entries if set(entry.tasks) & set(frames.tasks)]
    if not entries:
        raise ConfigError(f"the bench needs at least one row for {', '.join(frames.tasks)}")
    rows, pairs = {}, _Pairs()
    total, done = len(entries) * sum(frames.count(part) for part in (TRAIN, VAL, TEST)), 0

    def advance(name: str, count: int) -> None:
        nonlocal done
        done += count
        if progress:
            progress(name, done, total)

    for entry in entries:
        began = time.perf_counter()
        row = _Row(entry, frames, config, lambda count, name=entry.name: advance(name, count))
        scores = row.measured(pairs)
        seen = frames.seen(records[entry.name]) if records and entry.name in records else 0
        rows[entry.name] = RowScores(entry.name, entry.kind, scores, row.choices, entry.width, row.patches, row.megabytes,
                                     time.perf_counter() - began, seen)
    if TRIVIAL in rows and pairs.chance:
        rows[TRIVIAL].scores[MATCHING, UNTRAINED] = _stacked(pairs.chance)
    tested = np.flatnonzero(frames.is_probed[TEST])
    return BenchResult(rows, frames.tasks, tuple(frames.sequences[TEST][i] for i in tested), tuple(pairs.sequences),
                       tuple(pairs.angles), frames.class_names, frames.words, frames.fingerprint, config)


class _Pairs:
    """What the test pairs of views are, gathered with the first row."""

    def __init__(self) -> None:
        self.sequences: list[str] = []
        self.angles: list[float] = []
        self.chance: list[dict[str, float]] = []


def _stacked(found: list[dict[str, float]]) -> dict[str, np.ndarray]:
    return {metric: np.array([scores[metric] for scores in found]) for metric in found[0]}


class _Row:
    """One row's way through the three parts."""

    def __init__(self, entry: Entry, frames: BenchFrames, config: BenchConfig, advance: Callable[[int], None]):
        self.entry, self.frames, self.config, self.advance = entry, frames, config, advance
        self.tasks = [task for task in frames.tasks if task in entry.tasks]
        self.probes = [task for task in self.tasks if task != MATCHING]
        per_patch = 4 * max(1, entry.width) * len(entry.layers) / 1e6
        wanted = min(config.patches_per_frame, config.grid[0] * config.grid[1])
        self.patches = max(1, min(wanted, int(config.max_megabytes / (per_patch * frames.count(TRAIN)))))
        self.megabytes = per_patch * self.patches * frames.count(TRAIN) if entry.width else 0.0
        self.choices: dict[Key, Choice] = {}
        self.standards: list[Standard] = []
        self.readers: list[list] = []

    def measured(self, pairs: _Pairs) -> dict[Key, dict[str, np.ndarray]]:
        """Fit, choose, test."""
        self._fit()
        self._choose()
        return self._test(pairs)

    def _fit(self) -> None:
        kept: list[list[Tensor]] = [[] for _ in self.entry.layers]
        targets: dict[str, list[Target]] = {task: [] for task in self.probes}
        cells = self.config.grid[0] * self.config.grid[1]
        for numbers in self.frames.chunks(TRAIN, self.config.batch_size):
            batch, _ = self.frames.read(TRAIN, numbers)
            keys = random_bits(stream("bench"), self.config.seed, torch.as_tensor(numbers)[:, None], torch.arange(cells)[None])
            rows = (keys.argsort(dim=1)[:, :self.patches] + cells * torch.arange(len(numbers))[:, None]).flatten()
            truth = Truth(batch, self.config, len(self.frames.class_names))
            for task, found in targets.items():
                found.append(truth.target(task).at(rows))
            for found, features in zip(kept, self.entry.features(batch.color, self.entry.layers)):
                self._check(features, len(numbers), cells)
                found.append(features.flatten(0, 1)[rows])
            self.advance(len(numbers))
        joined = {task: Target.joined(found) for task, found in targets.items()}
        for place in range(len(kept)):
            features = torch.cat(kept[place])
            kept[place] = []
            standard = Standard(features)
            self.standards.append(standard)
            made = [kind(standard(features), joined, self.config) for name, kind in READERS.items()
                    if joined and name in self.entry.readouts]
            self.readers.append(made)

    def _check(self, features: Tensor, frames: int, cells: int) -> None:
        if features.shape[:2] != (frames, cells):
            raise ConfigError(f"{self.entry.name} gives {tuple(features.shape[:2])} feature vectors; the bench's grid of "
                              f"{self.config.grid[0]} x {self.config.grid[1]} wants {(frames, cells)}")
        if not torch.isfinite(features).all():
            raise ConfigError(f"{self.entry.name} gives features that are not finite; look at its weights")

    def _chunk(self, part: str, numbers: np.ndarray):
        """Batch, poses, and the rows that probes are read from."""
        batch, poses = self.frames.read(part, numbers)
        return batch, poses, torch.as_tensor(np.flatnonzero(self.frames.is_probed[part][numbers]))

    def _choose(self) -> None:
        tally: dict[tuple[Key, int, int], list] = {}
        for numbers in self.frames.chunks(VAL, self.config.batch_size):
            batch, poses, probed = self._chunk(VAL, numbers)
            pairs = view_pairs(batch, poses, self.config) if MATCHING in self.tasks else []
            truth = Truth(rows_of(batch, probed), self.config, len(self.frames.class_names)) if len(probed) else None
            for place, features in enumerate(self.entry.features(batch.color, self.entry.layers)):
                features = self.standards[place](features)
                found = [match_scores(features, pair)[main_metric(MATCHING)] for pair in pairs]
                tally.setdefault(((MATCHING, UNTRAINED), place, 0), []).extend(found)
                for reader in self.readers[place] if truth else ():
                    prepared = reader.prepared(features[probed].flatten(0, 1))
                    for task in self.probes:
                        for setting in range(len(reader.settings[task])):
                            found = truth.score(task, reader.answer(prepared, task, setting))
                            value = found["confusion"] if task == SEMANTICS else found[main_metric(task)]
                            tally.setdefault(((task, reader.name), place, setting), []).append(value)
            self.advance(len(numbers))
        values = {key: _validation(key[0][0], found) for key, found in tally.items() if found}
        for key in dict.fromkeys(found for found, _, _ in values):
            self.choices[key] = self._best(key, {(p, s): v for (k, p, s), v in values.items() if k == key})

    def _best(self, key: Key, values: dict[tuple[int, int], float]) -> Choice:
        """The best on validation; of equal ones the first layer and setting."""
        finite = {place: v for place, v in values.items() if math.isfinite(v)}
        if not finite:
            raise ConfigError(f"no validation frame has anything to score in {key[0]}, so nothing can be chosen")
        lower = METRICS[key[0]][main_metric(key[0])].lower_is_better
        place, setting = min(finite, key=lambda k: finite[k] if lower else -finite[k])
        layer, value = self.entry.layers[place], finite[place, setting]
        if key[0] == MATCHING or not self.entry.width:
            return Choice(layer, None if key[0] == MATCHING else self._settings(key, place)[setting], False, value)
        grid = self._settings(key, place)
        return Choice(layer, float(grid[setting]), setting in (0, len(grid) - 1), value)

    def _settings(self, key: Key, place: int) -> tuple[float, ...]:
        return next(reader for reader in self.readers[place] if reader.name == key[1]).settings[key[0]]

    def _test(self, pairs: _Pairs) -> dict[Key, dict[str, np.ndarray]]:
        found: dict[Key, dict[str, list[Tensor]]] = {}
        matches: list[dict[str, float]] = []
        layers = sorted({choice.layer for choice in self.choices.values()})
        is_first = not pairs.sequences
        for numbers in self.frames.chunks(TEST, self.config.batch_size):
            batch, poses, probed = self._chunk(TEST, numbers)
            truth = Truth(rows_of(batch, probed), self.config, len(self.frames.class_names)) if len(probed) else None
            view = view_pairs(batch, poses, self.config) if self.frames.has_pairs else []
            if is_first:
                pairs.sequences += [self.frames.sequences[TEST][numbers[p.first]] for p in view]
                pairs.angles += [p.angle for p in view]
                pairs.chance += [chance_scores(p) for p in view]
            for layer, features in zip(layers, self.entry.features(batch.color, layers)):
                place = self.entry.layers.index(layer)
                features = self.standards[place](features)
                matching = self.choices.get((MATCHING, UNTRAINED))
                if matching is not None and matching.layer == layer:
                    matches += [match_scores(features, p) for p in view]
                for reader in self.readers[place] if truth else ():
                    chosen = [(task, self.choices[task, reader.name]) for task in self.probes
                              if self.choices[task, reader.name].layer == layer]
                    prepared = reader.prepared(features[probed].flatten(0, 1)) if chosen else None
                    for task, choice in chosen:
                        answer = reader.answer(prepared, task, reader.settings[task].index(choice.setting))
                        for metric, value in truth.score(task, answer).items():
                            found.setdefault((task, reader.name), {}).setdefault(metric, []).append(value)
            self.advance(len(numbers))
        scores = {key: {metric: _plain(torch.cat(values)) for metric, values in by.items()} for key, by in found.items()}
        if matches:
            scores[MATCHING, UNTRAINED] = _stacked(matches)
        return scores


def _validation(task: str, found: list) -> float:
    """The main number over all validation frames or pairs."""
    if task == SEMANTICS:
        return float(scores_of(torch.cat(found).sum(dim=0).numpy())[main_metric(SEMANTICS)])
    if task == MATCHING:
        return float(np.mean(found))
    return float(torch.cat(found).nanmean())


def _plain(values: Tensor) -> np.ndarray:
    return values.numpy() if values.dtype == torch.int64 else values.double().numpy()
