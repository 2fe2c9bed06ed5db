"""Starts that a study does not train itself: what identifies them, and which of them can be had."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from mask3d_core.errors import CheckpointError, ConfigError
from mask3d_core.models.config import split_name
from mask3d_core.models.starts import open_start
from mask3d_core.models.weights_file import digest
from mask3d_core.study.config import is_checkpoint, label_of
from mask3d_core.training.checkpoint import stem
from mask3d_core.training.config import pretrain_config

if TYPE_CHECKING:
    from mask3d_core.study.runner import Study


def start_key(start: str) -> str:
    """What identifies a start that the study does not train: of a checkpoint its weights, not its place; of timm the weights' tag,
    or the contents of their file.

    Raises:
        CheckpointError: a checkpoint that is not there any more.
    """
    kind, _, name = start.partition(":")
    if kind == "timm":
        import timm

        model, file = split_name(name)
        if file:
            return f"timm:{model}@{digest(file)[:16]}"
        try:
            found = timm.get_pretrained_cfg(name)
        except Exception:  # unknown to timm: refused in one line when it is opened
            return start
        return f"timm:{name}:{getattr(found, 'tag', '') or ''}"
    place = start.partition(":")[2] if kind == "step-zero" else start
    if not is_checkpoint(place):
        return start
    return f"{kind if kind == 'step-zero' else 'weights'}:{digest(f'{stem(place)}.safetensors')[:16]}"


def with_reachable(study: Study, may_fetch: bool = True) -> tuple[Study, list[str]]:
    """The study with those of ``where_reachable`` that can take part, and a line about each that cannot.

    Args:
        may_fetch: a start takes part where its weights can be had; else where the record has results of it.
    """
    config, taken, lines = study.config, [], []
    for start in config.where_reachable:
        try:
            if may_fetch:
                model = pretrain_config(config.preset).model
                open_start(start, model.image_size, model.patch)
            elif not _has_results(study, start):
                raise ConfigError("no result of it is recorded")
            taken.append(start)
        except ConfigError as problem:
            lines.append(f"{label_of(start)} is left out: {'; '.join(problem.problems)}")
        except CheckpointError as problem:
            lines.append(f"{label_of(start)} is left out: {problem}")
    return study.with_config(replace(config, starts=(*config.starts, *taken), where_reachable=())), lines


def _has_results(study: Study, start: str) -> bool:
    alone = study.with_config(replace(study.config, starts=(start,), reference=start, where_reachable=()))
    alone.locate()
    return any(alone.trials(start, condition) for condition in alone.config.conditions)


__all__ = ["start_key", "with_reachable"]
