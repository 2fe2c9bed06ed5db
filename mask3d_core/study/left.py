"""How many runs a study has, and what of it has still to be run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mask3d_core.study.config import StudyConfig, is_pretrained_here

if TYPE_CHECKING:
    from mask3d_core.study.runner import Study


@dataclass(frozen=True)
class Left:
    """What of a study has still to be run.

    Args:
        pretrainings: start to how many.
        finetunings: how many; lengths: their lengths together, in units of ``finetune_steps``.
    """

    pretrainings: dict[str, int]
    finetunings: int
    lengths: float


def everything(config: StudyConfig) -> Left:
    """All of a study, with the longest schedules."""
    tune, cells = config.tune, len(config.conditions)
    count = sum(cells * (tune.trials_of(start) + config.seeds) for start in config.starts)
    lengths = sum(cells * (len(tune.grid) + sum(tune.longer_for(start)) + config.seeds * max(tune.lengths_of(start)))
                  for start in config.starts)
    return Left({start: config.seeds for start in config.starts if is_pretrained_here(start)}, count, lengths)


def planned_runs(config: StudyConfig) -> int:
    """How many runs a study has."""
    pretrained = sum(is_pretrained_here(start) for start in config.starts)
    trials = sum(config.tune.trials_of(start) for start in config.starts) * len(config.conditions)
    return pretrained * config.seeds + trials + len(config.starts) * len(config.conditions) * config.seeds


def left_of(study: Study) -> Left:
    """What of a study has still to be run, weights that must be made again included."""
    study.locate()
    tune, seeds = study.config.tune, {start: set() for start in study.pretrained}
    count, lengths = 0, 0.0
    for start, condition in study.cells:
        runs = _open_trials(study, start, condition)
        choice = None if runs else study.choice(start, condition)
        finals = [seed for seed in range(study.config.seeds)
                  if choice is None or study.finetuning(start, condition, seed, choice).key not in study.results]
        if start in seeds:
            seeds[start] |= {*finals, *([0] if runs else [])}  # trials start from the weights of seed 0
        runs += [choice["length"] if choice else max(tune.lengths_of(start))] * len(finals)
        count += len(runs)
        lengths += sum(runs)
    return Left({start: sum(not study.has_weights(study.pretraining(start, seed)) for seed in wanted) for start, wanted in seeds.items()},
                count, lengths)


def _open_trials(study: Study, start: str, condition: float | str) -> list[float]:
    """The lengths of the trials without a result; of a choice that is not made yet, of all that will follow from it."""
    tune = study.config.tune
    first = [1.0] * (len(tune.grid) - len(study.trials(start, condition, False)))
    if first:
        return [*first, *tune.longer_for(start)]
    best = study.choice(start, condition, False)
    return [length for length in tune.longer_for(start)
            if study.finetuning(start, condition, 0, {**best, "length": length}, True).key not in study.results]


def all_open_trials(study: Study) -> dict[tuple[str, float | str], int]:
    """(start, condition) to how many of its trials have no result, where there are any."""
    study.locate()
    found = {(start, condition): len(_open_trials(study, start, condition)) for start, condition in study.cells}
    return {cell: count for cell, count in found.items() if count}


__all__ = ["Left", "all_open_trials", "everything", "left_of", "planned_runs"]
