"""What a study's runs say together: means over seeds, paired differences, intervals over seeds and over rooms, corrected looks."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from mask3d_core.errors import Mask3DError
from mask3d_core.evaluation.statistics import Estimate, resampled, student_cdf, student_interval
from mask3d_core.study.budget import gflops_of
from mask3d_core.study.config import StudyConfig, is_pretrained_here, label_of, ratios_of, said_of
from mask3d_core.study.jobs import has_diverged, unpack
from mask3d_core.study.left import all_open_trials, planned_runs
from mask3d_core.study.runner import Study

ALL = "all"  # folds together
METRIC = {"segment": "mIoU", "depth": "AbsRel"}


@dataclass(frozen=True)
class Cell:
    """One start under one condition.

    Args:
        start, condition: which; a label fraction, a fold of real frames, or :data:`ALL` folds together.
        values: score per seed, NaN where that seed has not run.
        rooms: float64 (seeds, rooms, ...), what each room adds; see :func:`_score`.
        trivial: the trivial answer's score, mean over seeds.
        choice: learning rate, layer decay and length chosen on validation.
        trials: how many runs that choice was among.
        strata: int (rooms,), within which rooms are drawn again; None: all are one.
    """

    start: str
    condition: float | str
    values: np.ndarray
    rooms: np.ndarray
    trivial: float
    choice: dict[str, float]
    trials: int
    strata: np.ndarray | None = None

    @property
    def over_seeds(self) -> Estimate:
        """Mean with Student's t interval over seeds."""
        return student_interval(self.values)


@dataclass(frozen=True)
class Contrast:
    """The reference minus another start, on the same seeds, labels and rooms.

    Args:
        other, condition: against whom, where.
        over_seeds: mean paired difference, Student t over seeds.
        over_rooms: the same mean, rooms drawn again with all seeds kept.
        p: two-sided, of no difference over seeds; NaN with fewer than two seeds.
        p_holm: the same, corrected for all contrasts of the study (Holm 1979).
    """

    other: str
    condition: float | str
    over_seeds: Estimate
    over_rooms: Estimate
    p: float
    p_holm: float

    @property
    def verdict(self) -> str:
        """Better, worse, or not told apart: both intervals must agree, and the corrected p must be below 0.05."""
        low = [e.low for e in (self.over_seeds, self.over_rooms)]
        high = [e.high for e in (self.over_seeds, self.over_rooms)]
        if None in low or not self.p_holm < 0.05:
            return "not told apart"
        return "better" if min(low) > 0 else "worse" if max(high) < 0 else "not told apart"


@dataclass(frozen=True)
class Findings:
    """All of it.

    Args:
        config: the study.
        cells: by (start, condition).
        contrasts: the reference against each other start under each condition.
        seeds: how many are complete, for all starts and conditions.
        is_whole: whether every planned run is there.
        diverged: names of the study's own runs that went astray; their seeds are left out.
        open_trials: (start, condition) to how many of its trials have not run, where there are any: its choice is not final.
        tflops: start to TFLOP of one pre-training, forwards and backwards, counted by torch.
    """

    config: StudyConfig
    cells: dict[tuple[str, float], Cell]
    contrasts: tuple[Contrast, ...]
    seeds: int
    is_whole: bool
    diverged: tuple[str, ...] = ()
    open_trials: dict[tuple[str, float | str], int] = field(default_factory=dict)
    tflops: dict[str, float] = field(default_factory=dict)


def findings(study: Study) -> Findings:
    """Read a study's results; only seeds that all starts have are compared.

    Raises:
        Mask3DError: not one complete seed.
    """
    config = study.config
    study.locate()
    rows: dict[tuple[str, float | str, int], dict[str, Any]] = {}
    astray: list[str] = []
    for start in config.starts:
        for condition in config.conditions:
            if not study.trials(start, condition):
                continue
            choice = study.choice(start, condition)
            for seed in range(config.seeds):
                result = study.results.get(study.finetuning(start, condition, seed, choice).key)
                if has_diverged(result):
                    astray.append(f"{label_of(start)} {said_of(condition)} seed {seed}")
                elif result is not None:
                    rows[start, condition, seed] = result
    complete = [seed for seed in range(config.seeds)
                if all((start, condition, seed) in rows for start in config.starts for condition in config.conditions)]
    if not complete:
        raise Mask3DError("at least one seed that all starts have run", f"none{'; diverged: ' if astray else ''}{', '.join(astray)}",
                          "Let the study go on.", study.record)
    cells = {(start, condition): _cell(study, start, condition, [rows[start, condition, seed] for seed in complete])
             for start in config.starts for condition in config.conditions}
    conditions: tuple[float | str, ...] = config.conditions
    if config.folds:
        cells |= {(start, ALL): _joined(config, [cells[start, fold] for fold in config.folds]) for start in config.starts}
        conditions = (ALL,)  # a single fold has too few frames to be looked at alone
    others = [(other, condition) for condition in conditions for other in config.starts if other != config.reference]
    made = [_contrast(config, cells[config.reference, condition], cells[other, condition]) for other, condition in others]
    corrected = holm([c.p for c in made])
    contrasts = tuple(replace(c, p_holm=p) for c, p in zip(made, corrected))
    still_open = all_open_trials(study)
    return Findings(config, cells, contrasts, len(complete), len(complete) == config.seeds and not still_open, tuple(astray), still_open,
                    {start: value * config.pretrain_steps * config.pretrain_batch / 1e3 for start, value in gflops_of(config).items()})


def _joined(config: StudyConfig, folds: list[Cell]) -> Cell:
    """All folds as one set of frames: confusion matrices are added first and divided last."""
    rooms = np.concatenate([cell.rooms for cell in folds], axis=1)
    strata = np.concatenate([np.full(cell.rooms.shape[1], k) for k, cell in enumerate(folds)])
    values = np.array([float(score(config.task, summed)) for summed in _stacked(config.task, rooms).sum(axis=0)])
    trivial = (float(constant_answer(rooms[0].sum(axis=0)[:, 1])) if config.task == "segment"
               else float(np.mean([cell.trivial for cell in folds])))
    return Cell(folds[0].start, ALL, values, rooms, trivial, {}, folds[0].trials, strata)


def constant_answer(true: np.ndarray) -> np.ndarray:
    """mIoU of calling everything the most frequent class.

    Args:
        true: (classes,) how many pixels each class has.
    """
    most, counts = int(true.argmax()), np.stack([np.zeros_like(true), true, np.zeros_like(true)], axis=-1)
    counts[most] = true[most], true[most], true.sum()
    return score("segment", counts)


def _cell(study: Study, start: str, condition: float | str, results: list[dict[str, Any]]) -> Cell:
    task = study.config.task
    rooms, values, trivial = [], [], []
    for result in results:
        scores = result["scores"]["scores"]
        other = next((v for k, v in scores.items() if k != "model"), None)
        names = sorted(result["rooms"]["names"])
        if names != result["rooms"]["names"] or (rooms and len(rooms[0]) != len(names)):
            raise Mask3DError("the same rooms in every run", f"{len(names)} rooms", "The test store has changed; begin anew.", study.record)
        if task == "segment":
            classes = len(scores["model"]["iou"])
            rooms.append(unpack(result["rooms"]["counts"], "<i4", -1, classes, 3).astype(np.float64))
            values.append(scores["model"]["miou"])
            trivial.append(other["miou"] if other else math.nan)
        else:
            rooms.append(unpack(result["rooms"]["values"], "<f4", -1, 3)[:, :1].astype(np.float64))
            values.append(scores["model"]["abs_rel"]["mean"])
            trivial.append(other["abs_rel"]["mean"] if other else math.nan)
    return Cell(start, condition, np.array(values), np.stack(rooms), float(np.mean(trivial)), study.choice(start, condition),
                len(study.trials(start, condition)))


def score(task: str, counts: np.ndarray) -> np.ndarray:
    """The score of added-up rooms.

    Args:
        counts: (..., classes, 3) pixels right, true and predicted; or (..., 2): sum of AbsRel and number of rooms.
    """
    if task == "depth":
        return np.asarray(counts[..., 0] / counts[..., 1])
    right, true, predicted = np.moveaxis(counts, -1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        iou = np.where(true > 0, right / (true + predicted - right), np.nan)
    present = (true > 0).sum(-1)
    return np.asarray(np.nansum(iou, axis=-1) / np.where(present, present, np.nan))


def _stacked(task: str, rooms: np.ndarray) -> np.ndarray:
    """(seeds, rooms, ...) to (rooms, seeds, ...): rooms first, as they are drawn; for depth with a count beside."""
    if task == "depth":
        rooms = np.concatenate([rooms, np.ones_like(rooms)], axis=-1)
    return np.moveaxis(rooms, 0, 1)


def _contrast(config: StudyConfig, reference: Cell, other: Cell) -> Contrast:
    """Positive: the reference is better (AbsRel is turned round)."""
    sign = -1.0 if config.task == "depth" else 1.0
    differences = sign * (reference.values - other.values)
    both = np.stack([_stacked(config.task, cell.rooms) for cell in (reference, other)], axis=1)  # (rooms, 2, seeds, ...)

    def difference(summed: np.ndarray) -> np.ndarray:
        found = score(config.task, summed).mean(axis=-1)  # over seeds
        return sign * (found[:, 0] - found[:, 1])

    return Contrast(other.start, other.condition, student_interval(differences), resampled(both, difference, strata=reference.strata),
                    two_sided(differences), math.nan)


def two_sided(differences: np.ndarray) -> float:
    """Student's t test of a mean of 0; NaN with fewer than two numbers."""
    count = len(differences)
    if count < 2:
        return math.nan
    spread = float(differences.std(ddof=1))
    if spread == 0:
        return 0.0 if differences.mean() else 1.0
    return 2 * (1 - student_cdf(abs(float(differences.mean())) / (spread / math.sqrt(count)), count - 1))


def holm(p: list[float]) -> list[float]:
    """Holm's step-down correction; NaN stays."""
    known = sorted((value, k) for k, value in enumerate(p) if math.isfinite(value))
    corrected, most = [math.nan] * len(p), 0.0
    for rank, (value, k) in enumerate(known):
        most = max(most, min(1.0, value * (len(known) - rank)))
        corrected[k] = most
    return corrected


def text_of(found: Findings) -> str:
    """The findings as a table, with what was decided before and after."""
    config, metric = found.config, METRIC[found.config.task]
    lines = [f"{config.name}: {config.question}",
             "exploratory: no endpoint was named before it ran" if config.is_exploratory else f"primary endpoint: {config.endpoint}",
             *_protocol(found)]
    width = max(len(label_of(start)) for start in config.starts)
    for condition in (*config.conditions, *((ALL,) if config.folds else ())):
        lines.append(f"\n{_headline(config, condition)}")
        lines.append(f"  {'':{width}}  {metric + ', mean [95 % over seeds]':>32}  {'rate':>7} {'decay':>5} {'length':>6}")
        for start in config.starts:
            cell = found.cells[start, condition]
            choice = "".join(f" {cell.choice[key]:{wide}.3g}" for key, wide in (
                ("learning_rate", 8), ("layer_decay", 5), ("length", 6))) if cell.choice else ""
            lines.append(f"  {label_of(start):{width}}  {said(cell.over_seeds):>32} {choice}")
        name = "most frequent class" if config.task == "segment" else "mean per pixel"
        lines.append(f"  {name:{width}}  {found.cells[config.reference, condition].trivial:>32.3f}")
    what = "frames" if config.folds else "rooms"
    lines.append(f"\n{label_of(config.reference)} minus ...{' (turned round: positive is better)' if config.task == 'depth' else ''}")
    for c in found.contrasts:
        p = "" if not math.isfinite(c.p) else f", p {c.p:.3f}, Holm {c.p_holm:.3f}"
        lines.append(f"  {label_of(c.other):{width}} at {said_of(c.condition):>4}: {said(c.over_seeds, '+')} over seeds, "
                     f"[{c.over_rooms.low:+.3f}, {c.over_rooms.high:+.3f}] over {what}{p}: {c.verdict}")
    lines += [f"{name} diverged: that seed is left out of every start" for name in found.diverged]
    if found.seeds < config.seeds:
        lines.append(f"not whole: {found.seeds} of {config.seeds} seeds")
    return "\n".join(lines)


def trials_values(study: Study) -> dict[str, Any]:
    """What was tried on validation frames, as plain JSON values; of each start and condition every choice and its score."""
    config = study.config
    rows = [{"start": start, "label": label_of(start), "condition": condition, "said": said_of(condition),
             "tried": [{**choice, "score": _finite(value)} for choice, value in study.trials(start, condition)]}
            for condition in config.conditions for start in config.starts]
    return {"name": config.name, "question": config.question, "metric": METRIC[config.task], "is_frozen": config.freeze == -1,
            "open": [f"{label_of(start)} at {said_of(condition)}: {count}" for (start, condition), count in all_open_trials(study).items()],
            "pretrain_frames": config.pretrain_steps * config.pretrain_batch, "rows": rows}


def trials_text(values: dict[str, Any]) -> str:
    """:func:`trials_values` as a table, the best choice of each start marked."""
    lines = [f"{values['name']}: {values['question']}",
             f"{values['metric']}{'' if values['metric'] == 'mIoU' else ' with its sign turned'} on validation frames"
             f"{', the encoder frozen' if values['is_frozen'] else ''}; one seed; no test frame was looked at"]
    width = max(len(row["label"]) for row in values["rows"])
    for said_ in dict.fromkeys(row["said"] for row in values["rows"]):
        lines.append(f"\n{said_}: rate/decay/length and score")
        for row in values["rows"]:
            if row["said"] == said_:
                best = max((entry["score"] for entry in row["tried"] if entry["score"] is not None), default=math.nan)
                words = "  ".join(f"{e['learning_rate']:g}/{e['layer_decay']:g}/{e['length']:g} "
                                  f"{'diverged' if e['score'] is None else format(e['score'], '.3f')}"
                                  f"{'*' if e['score'] == best else ' '}" for e in row["tried"])
                lines.append(f"  {row['label']:{width}}  {words or 'not run yet'}")
    if values["open"]:
        lines.append(f"\nnot all have run; still to run: {', '.join(values['open'])}")
    return "\n".join(lines)


def _protocol(found: Findings) -> list[str]:
    """How it was done."""
    config = found.config
    tests = (f"{len(config.folds)} types of real scenes, each left out in turn; rates chosen with the next type as validation" if config.folds
             else f"{config.rooms.test_rooms} test rooms with furniture models and materials that nobody trained on; rate, layer decay and "
             "length chosen per start on validation rooms")
    lines = [f"{tests}, out of {config.tune.trials_words(config.starts)}; {found.seeds} of {config.seeds} seeds, each with its own "
             f"pre-training, labels and order; {config.pretrain_steps * config.pretrain_batch:,} frames of pre-training for all; the last "
             f"step is scored{'; the encoder is frozen' if config.freeze == -1 else ''}"]
    if found.open_trials:
        words = ", ".join(f"{label_of(start)} at {said_of(condition)}: {count}" for (start, condition), count in found.open_trials.items())
        lines.append(f"NOT FINAL: {sum(found.open_trials.values())} of these trials have not run yet ({words}); they may choose otherwise, "
                     "and change everything below")
    lines += at_the_ends(found)
    if any(is_pretrained_here(start) for start in config.starts):
        lines.append("the pre-training of seed 0 is also the one whose weights the trials used")
        work = ", ".join(f"{label_of(start)} {value:,.1f}" for start, value in found.tflops.items())
        lines.append(f"pre-training of a seed, TFLOP forwards and backwards: {work}")
    return lines + (["favours depth targets by construction"] if config.task == "depth" else [])


def at_the_ends(found: Findings) -> list[str]:
    """How many choices lie at an end of what was tried: beyond it something might be better, for every start."""
    config, tune = found.config, found.config.tune
    cells = [cell for cell in found.cells.values() if cell.choice]
    said = []
    for key, words, value, values in (
            ("learning_rate", "the highest rate", max, lambda start: tune.learning_rates),
            ("learning_rate", "the lowest rate", min, lambda start: tune.learning_rates),
            ("layer_decay", "the strongest layer decay", min, lambda start: tune.layer_decays),
            ("length", "the longest schedule", max, tune.lengths_of)):
        count = sum(len(values(c.start)) > 1 and c.choice[key] == value(values(c.start)) for c in cells)
        if count:
            said.append(f"{count} {words}")
    lines = []
    if said:
        lines.append(f"of {len(cells)} choices {', '.join(said)} that was tried: beyond it they might do better")
    if config.freeze != -1 and any(len(tune.lengths_of(start)) == 1 for start in config.starts):
        lines.append("one length was tried: no start is shown to have reached its plateau")
    return lines


def _headline(config: StudyConfig, condition: float | str) -> str:
    """A condition in words."""
    if isinstance(condition, str):
        return "all folds together" if condition == ALL else f"{said_of(condition)} left out"
    rooms = math.ceil(condition * config.rooms.train_rooms - 1e-9)
    return f"labels of {rooms} rooms ({condition:.0%}), {rooms * config.rooms.train_views} frames"


def said(estimate: Estimate, sign: str = "") -> str:
    """A mean and its interval."""
    if estimate.low is None:
        return f"{estimate.mean:{sign}.3f} ({estimate.words})"
    return f"{estimate.mean:{sign}.3f} [{estimate.low:{sign}.3f}, {estimate.high:{sign}.3f}]"


def as_values(found: Findings) -> dict[str, Any]:
    """Plain JSON values of the findings."""
    config = found.config
    return {"name": config.name, "question": config.question, "endpoint": config.endpoint, "is_exploratory": config.is_exploratory,
            "is_frozen": config.freeze == -1, "diverged": list(found.diverged), "tflops": found.tflops,
            "seeds": found.seeds, "planned_seeds": config.seeds, "is_whole": found.is_whole,
            "open_trials": sum(found.open_trials.values()), "planned_runs": planned_runs(config),
            "metric": METRIC[config.task],
            "cells": [{"start": c.start, "label": label_of(c.start), "is_pretrained_here": is_pretrained_here(c.start),
                       "ratios": ratios_of(c.start), "condition": c.condition, "said": said_of(c.condition), "values": c.values.tolist(),
                       "over_seeds": c.over_seeds.as_dict(), "trivial": c.trivial, "choice": c.choice, "trials": c.trials}
                      for c in found.cells.values()],
            "contrasts": [{"reference": config.reference, "other": c.other, "condition": c.condition, "said": said_of(c.condition),
                           "over_seeds": c.over_seeds.as_dict(), "over_rooms": c.over_rooms.as_dict(), "p": _finite(c.p),
                           "p_holm": _finite(c.p_holm), "verdict": c.verdict} for c in found.contrasts]}


def _finite(value: float) -> float | None:
    """For JSON, which knows no NaN."""
    return value if math.isfinite(value) else None


__all__ = ["Cell", "Contrast", "Findings", "as_values", "findings", "holm", "text_of", "trials_text", "trials_values"]
