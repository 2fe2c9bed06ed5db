"""Training configuration: frozen dataclasses that the command line, notebooks and tests build alike."""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import dataclass, field
from typing import Any

from mask3d_core.batches import AugmentConfig
from mask3d_core.errors import ConfigError
from mask3d_core.losses import LossConfig
from mask3d_core.masking import MaskConfig
from mask3d_core.models.config import CONTROLS, ModelConfig, preset

ANYWHERE = MaskConfig(
    ratios=((0.8, 0.8), (0.8, 0.95), (0.8, 1.0), (0.0, 1.0), (1.0, 0.8), (1.0, 0.95), (0.95, 0.8), (0.5, 0.5),
            (0.0, 0.8), (0.95, 0.95), (0.5, 1.0), (0.0, 0.0), (1.0, 0.5), (1.0, 0.0)),
    weights=(8.0, 7.0, 3.0, 2.0, 1.0, 1.0, 0.5, 1.0, 1.0, 1.0, 1.0, 0.1, 0.5, 0.1))
"""The set the shipped checkpoint draws from, so that it works wherever a slider can stand. Ours."""

CONTROL_RATIOS = {
    "mae": ((0.75, 1.0),),  # MAE's own best ratio (He et al., CVPR 2022)
    "multimae": ((0.8, 0.8),),
    "rgb-to-depth": ((0.0, 1.0),),
    "depth-only": ((1.0, 0.8),),
}


@dataclass(frozen=True)
class FitConfig:
    """How any task is trained. MAE's recipe is the start; the paper's optimiser, batch and rates are not known.

    Args:
        steps: optimiser steps.
        batch_size: frames per step on one process and micro-batch.
        accumulate: micro-batches per step.
        learning_rate: peak rate for 256 frames per step; scaled linearly with the frames per step.
        warmup: share of the steps that warm up.
        final_rate: rate at the end as a share of the peak.
        weight_decay, beta1, beta2: of AdamW; biases, norms, tokens and position codes do not decay.
        clip: largest gradient norm; 0 = no clipping.
        ema: decay of the averaged weights; 0 = none. With it, the averaged weights are evaluated and published.
        compile: torch.compile the model.
        precision: "auto" (bf16 only where the device has it), "bf16" or "float32".
        log_every, eval_every, save_every: in steps; 0 = only at the end.
        seed: of the weights, the order, the masks and the augmentation.
        keep: how many training states are kept.
        max_skipped: steps with non-finite gradients in a row before the run stops.
    """

    steps: int = 1000
    batch_size: int = 32
    accumulate: int = 1
    learning_rate: float = 1.5e-4
    warmup: float = 0.05
    final_rate: float = 0.01
    weight_decay: float = 0.05
    beta1: float = 0.9
    beta2: float = 0.95
    clip: float = 1.0
    ema: float = 0.0
    compile: bool = False
    precision: str = "auto"
    log_every: int = 10
    eval_every: int = 0
    save_every: int = 0
    seed: int = 0
    keep: int = 2
    max_skipped: int = 20

    def problems(self) -> list[str]:
        """Everything that is wrong, one line each."""
        found = [f"fit.{name} must be at least {least}; got {getattr(self, name)}" for name, least in
                 (("steps", 1), ("batch_size", 1), ("accumulate", 1), ("log_every", 0), ("eval_every", 0),
                  ("save_every", 0), ("keep", 1), ("clip", 0), ("max_skipped", 1)) if getattr(self, name) < least]
        if self.learning_rate <= 0:
            found.append(f"fit.learning_rate must be positive; got {self.learning_rate}")
        if self.precision not in ("auto", "bf16", "float32"):
            found.append(f"fit.precision must be auto, bf16 or float32; got {self.precision!r}")
        if not 0 <= self.ema < 1:
            found.append(f"fit.ema must lie in 0..1 (below 1); got {self.ema}")
        if not 0 <= self.warmup < 1:
            found.append(f"fit.warmup is a share of the steps in 0..1; got {self.warmup}")
        return found


@dataclass(frozen=True)
class PretrainConfig:
    """A whole pre-training run.

    Args:
        data: a prepared store, or "rooms" to render live.
        rooms_seed: seed of live rooms.
        rooms_sensor: share of live rooms whose depth passes through a Kinect-like sensor.
        init: "random", "timm:<name>" or "timm:<name>@<file>" (RGB encoder from timm's weights, or a file's) or a checkpoint to
            continue from.
        overfit: train on this many frames without augmentation, as a sanity check; 0 = off.
        preview: how many fixed validation frames are predicted at every evaluation.
        eval_frames: how many validation frames are scored at every evaluation.
        name: preset and control, for the record.
        model, mask, loss, augment, fit: the parts.
    """

    data: str = "rooms"
    rooms_seed: int = 0
    rooms_sensor: float = 0.35
    init: str = "random"
    overfit: int = 0
    preview: int = 4
    eval_frames: int = 64
    name: str = "tiny/mask3d"
    model: ModelConfig = field(default_factory=ModelConfig)
    mask: MaskConfig = field(default_factory=MaskConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    fit: FitConfig = field(default_factory=FitConfig)

    def problems(self) -> list[str]:
        """Everything that is wrong, one line each."""
        found = (self.model.problems() + self.mask.problems(self.model.inputs) + self.loss.problems()
                 + self.augment.problems() + self.fit.problems())
        if self.loss.relative and (self.model.anchor == "none" or "depth" not in self.model.targets):
            found.append("loss.relative measures against the model's anchor: it needs model.anchor=spline and a depth target")
        if not self.init:
            found.append("init must be random, timm:<name> or a checkpoint")
        if self.overfit < 0 or (self.overfit and self.data == "rooms"):
            found.append(f"overfit wants a number of frames of a prepared store; got {self.overfit} with data={self.data}")
        if self.eval_frames < 1 or self.preview < 0:
            found.append(f"eval_frames must be at least 1 and preview at least 0; got {self.eval_frames}, {self.preview}")
        if not 0 <= self.rooms_sensor <= 1:
            found.append(f"rooms_sensor is a share in 0..1; got {self.rooms_sensor}")
        return found

    def validate(self) -> PretrainConfig:
        """Itself, or a ConfigError that lists all problems at once."""
        found = self.problems()
        if found:
            raise ConfigError(found)
        return self


def pretrain_config(name: str = "tiny", control: str = "mask3d", **changes: Any) -> PretrainConfig:
    """The recipe of a preset and control; ``changes`` replace whole fields of :class:`PretrainConfig`.

    "tiny" is the shipped recipe (works at any ratio, huber in log depth); "micro" is the study's, small enough that a CPU
    trains dozens of them (80/80, l1 in log depth on hidden pixels, no anchor); the others are the faithful one
    (80/80, l2 on hidden pixels, metric depth), whose values are ours where the paper is silent.
    """
    model = preset(name, control)
    if name == "tiny":
        mask, loss = ANYWHERE, LossConfig(kind="huber", visible=0.1, relative=True)
        fit = FitConfig(steps=9000, batch_size=16, learning_rate=1.1e-2, ema=0.999, eval_every=500, save_every=500)
    elif name == "micro":
        mask, loss = MaskConfig(), LossConfig(kind="l1")
        fit = FitConfig(steps=800, batch_size=32, learning_rate=8e-3, log_every=20, eval_every=200, save_every=200)
    else:
        mask, loss = MaskConfig(), LossConfig()
        fit = FitConfig(steps=100_000, batch_size=256, compile=True, eval_every=2000, save_every=1000, log_every=50)
    if control != "mask3d":
        mask = MaskConfig(ratios=CONTROL_RATIOS[control])
    loss = dataclasses.replace(loss, relative=loss.relative and "depth" in model.targets)
    return dataclasses.replace(PretrainConfig(name=f"{name}/{control}", model=model, mask=mask, loss=loss, fit=fit),
                               **changes).validate()


def to_dict(config: Any) -> dict[str, Any]:
    """A configuration as plain JSON values."""
    return dataclasses.asdict(config)


def from_dict(kind: type, values: Any, where: str = "") -> Any:
    """Rebuild a configuration from JSON values, strictly.

    Raises:
        ConfigError: unknown keys or values of the wrong type; all of them at once.
    """
    problems: list[str] = []
    made = _build(kind, values, kind.__name__, problems)
    if problems:
        raise ConfigError(problems, where or None)
    return made


def _build(kind: Any, value: Any, path: str, problems: list[str]) -> Any:
    origin = typing.get_origin(kind)
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, dict):
            problems.append(f"{path} must be a mapping; got {value!r}")
            return None
        hints = typing.get_type_hints(kind)
        names = {f.name for f in dataclasses.fields(kind)}
        problems += [f"unknown key {path}.{key}" for key in value if key not in names]
        before = len(problems)
        parts = {key: _build(hints[key], item, f"{path}.{key}", problems) for key, item in value.items() if key in names}
        return kind(**parts) if len(problems) == before else None
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            problems.append(f"{path} must be a list; got {value!r}")
            return None
        kinds = typing.get_args(kind)
        if len(kinds) == 2 and kinds[1] is Ellipsis:
            kinds = (kinds[0],) * len(value)
        if len(kinds) != len(value):
            problems.append(f"{path} must have {len(kinds)} entries; got {len(value)}")
            return None
        return tuple(_build(k, v, f"{path}[{i}]", problems) for i, (k, v) in enumerate(zip(kinds, value, strict=True)))
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        return _build(next(k for k in typing.get_args(kind) if k is not type(None)), value, path, problems)
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if kind in (int, str, bool) and type(value) is kind:
        return value
    problems.append(f"{path} must be {getattr(kind, '__name__', kind)}; got {value!r}")
    return None


__all__ = ["ANYWHERE", "CONTROLS", "FitConfig", "PretrainConfig", "from_dict", "pretrain_config", "to_dict"]
