"""From a PretrainConfig to a finished run: data, statistics, model, task, engine. Used by the command and by notebooks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mask3d_core.batches import AugmentConfig, Batch, RoomsBatches, StoreBatches
from mask3d_core.errors import ConfigError
from mask3d_core.models.config import split_name
from mask3d_core.models.mask3d import Mask3D
from mask3d_core.models.starts import open_start
from mask3d_core.tasks.pretrain import Pretrain
from mask3d_core.training.checkpoint import load_model, load_weights, read_tensors, save_model
from mask3d_core.training.config import PretrainConfig, from_dict, to_dict
from mask3d_core.training.log import read_log
from mask3d_core.training.loop import FitResult, fit, write_config
from mask3d_core.training.running import check_same_run, run_claimed
from mask3d_core.training.statistics import DataStatistics, gather_statistics

STATISTICS_FRAMES = 512  # frames looked at for the data's mean and spread


@dataclasses.dataclass(frozen=True)
class TrainingData:
    """Training batches, fixed validation frames, and what the record says about both."""

    batches: Any
    validation: Batch | None
    record: dict[str, Any]
    sample: list[Batch]


def _from_store(config: PretrainConfig, device: torch.device, rank: int, world: int) -> TrainingData:
    from mask3d_core.store import Store

    store = Store(config.data)
    indices = store.indices("train")
    augment = config.augment
    if config.overfit:
        indices, augment = indices[:config.overfit], AugmentConfig.none()
    size, fit_config = config.model.image_size, config.fit
    batches = StoreBatches(store, indices, fit_config.batch_size, size, augment, fit_config.seed, device, rank, world)
    held_out = store.indices("val") if not config.overfit else indices
    validation = None
    if len(held_out):
        chosen = held_out[np.linspace(0, len(held_out) - 1, min(config.eval_frames, len(held_out))).astype(int)]
        validation = fixed_batch(store, chosen, size, device)
    sample_size = min(32, len(indices))
    sampler = StoreBatches(store, indices, sample_size, size, AugmentConfig.none(), fit_config.seed)
    count = max(1, min(STATISTICS_FRAMES, len(indices)) // sample_size)
    record = {"kind": "store", "fingerprint": store.fingerprint, "frames": int(len(indices)),
              "split": "train", "rooms": [], "source": store.header.source, "sequences": store.sequence_keys(indices),
              "validation_frames": 0 if validation is None else len(validation)}
    return TrainingData(batches, validation, record, [sampler.batch(step) for step in range(count)])


def fixed_batch(store, indices: np.ndarray, size: tuple[int, int], device: torch.device | str = "cpu") -> Batch:
    """Frames of a store without augmentation, in the order given, keyed by their index."""
    return StoreBatches(store, indices, len(indices), size, AugmentConfig.none(), 0, device).frames(indices)


def _from_rooms(config: PretrainConfig, device: torch.device, rank: int, world: int) -> TrainingData:
    from mask3d_core.sources.rooms import RoomsConfig

    height, width = config.model.image_size
    rooms = RoomsConfig(seed=config.rooms_seed, height=height + 16, width=width + 16, sensor=config.rooms_sensor)
    fit_config = config.fit
    batches = RoomsBatches(rooms, fit_config.batch_size, (height, width), config.augment, fit_config.seed, device,
                           rank, world)
    fixed = RoomsBatches(dataclasses.replace(rooms, seed=rooms.seed + 1, pool="test", sensor=False), config.eval_frames,
                         (height, width), AugmentConfig.none(), fit_config.seed, device)
    record = {"kind": "rooms", "rooms": [dataclasses.asdict(rooms)], "sequences": [],
              "validation_frames": config.eval_frames}
    sampler = RoomsBatches(rooms, 32, (height, width), AugmentConfig.none(), fit_config.seed, device)
    return TrainingData(batches, fixed.batch(0), record, [sampler.batch(step).to("cpu") for step in range(4)])


def build_model(config: PretrainConfig, statistics: DataStatistics | None = None) -> Mask3D:
    """A model with its start (random from the seed, timm's weights, or a checkpoint) and the data's statistics.

    Raises:
        ConfigError: timm's weights are out of reach, or the start does not fit.
        CheckpointError: the checkpoint is damaged or of another shape.
    """
    torch.manual_seed(config.fit.seed)
    model = Mask3D(config.model)
    if statistics is not None:
        model.set_depth_statistics(statistics.mean, statistics.std)
    if config.init.startswith("timm:"):
        if "rgb" not in config.model.inputs:
            raise ConfigError("init timm: needs an RGB encoder; model.inputs has none")
        loaded = open_start(config.init, config.model.image_size, config.model.patch).vit
        own = model.rgb_encoder.state_dict()
        if {k: v.shape for k, v in loaded.state_dict().items()} != {k: v.shape for k, v in own.items()}:
            raise ConfigError(f"init {config.init} does not fit the RGB encoder {config.model.rgb}; "
                              f"set model.rgb.timm={split_name(config.init[5:])[0]} as well")
        model.rgb_encoder.load_state_dict(loaded.state_dict())
    elif config.init != "random":
        start, _ = load_model(config.init)
        # the statistics belong to the weights: a continued run keeps the space its weights were trained in
        load_weights(model, start.state_dict(), config.init)
    return model


def training_model_config(config: PretrainConfig) -> PretrainConfig:
    """Continue a checkpoint with *its* architecture; take colour statistics from the named timm model."""
    if config.init.startswith("timm:"):
        import timm

        name = split_name(config.init[5:])[0]
        try:
            data = timm.data.resolve_model_data_config(timm.create_model(name, pretrained=False))
        except Exception as problem:
            raise ConfigError(f"init timm:{name}: timm does not know this model: {str(problem)[:160]}") from problem
        model = dataclasses.replace(config.model, color_mean=tuple(data["mean"]), color_std=tuple(data["std"]),
                                    rgb=dataclasses.replace(config.model.rgb, timm=name))
        return dataclasses.replace(config, model=model)
    if config.init != "random":
        model, _ = load_model(config.init)
        return dataclasses.replace(config, model=model.config)
    return config


def pretrain(config: PretrainConfig, run: str | Path, device: str | None = None, show: bool = True,
             on_preview: Callable | None = None, on_step: Callable | None = None) -> FitResult:
    """Pre-train: set up, then hand over to the engine. The same call resumes an interrupted run.

    Args:
        config: everything.
        run: the run folder.
        device: "cpu" or "cuda"; by default the GPU if there is one.
        show: progress bar and lines.
        on_preview, on_step: see :func:`mask3d_core.training.loop.fit`.

    Raises:
        ConfigError: an impossible configuration, all problems at once; the run folder holds another run, or another
            process trains into it.
    """
    config = training_model_config(config.validate()).validate()
    return run_claimed(config, run, device, lambda place, rank, world: _train(config, Path(run), place, rank, world, show,
                                                                             on_preview, on_step))


def _train(config: PretrainConfig, run: Path, place: torch.device, rank: int, world: int, show: bool,
           on_preview: Callable | None, on_step: Callable | None) -> FitResult:
    make = _from_rooms if config.data == "rooms" else _from_store
    data = make(config, place, rank, world)
    statistics = gather_statistics(data.sample, config.model.target)
    model = build_model(config, statistics)
    record = {**_with_parents(data.record, config.init), "depth_mean": float(model.depth_mean), "depth_std": float(model.depth_std)}
    if rank == 0:
        write_config(run, to_dict(config))
    task = Pretrain(config, model, data.validation, record, statistics.mean_map)
    return fit(task, data.batches, config.fit, run, place, show, on_preview, on_step)


def _with_parents(record: dict[str, Any], init: str) -> dict[str, Any]:
    """The record of a run's data with what its starting checkpoint had already seen."""
    if init == "random" or init.startswith("timm:"):
        return record
    _, parent = load_model(init)
    seen = parent.get("data", {})
    return {**record, "continued_from": {k: parent.get(k) for k in ("step", "frames_seen", "code_version")},
            "sequences": sorted(set(record["sequences"]) | set(seen.get("sequences", []))),
            "rooms": record["rooms"] + [r for r in seen.get("rooms", []) if r not in record["rooms"]]}


def step_zero(record: dict[str, Any]) -> Mask3D:
    """The step-0 twin of a checkpoint: the same architecture with the weights its training began from, from its seed.

    Args:
        record: the checkpoint's, as ``load_model`` gave it.

    Raises:
        ConfigError: the record holds no training configuration, or the run began from other weights than random ones.
    """
    if "training" not in record:
        raise ConfigError("this checkpoint's record holds no training configuration, so its start cannot be remade")
    config = from_dict(PretrainConfig, record["training"])
    if config.init != "random":
        raise ConfigError(f"this run began from {config.init}; its start is that checkpoint, not a seed")
    model = build_model(config)
    model.set_depth_statistics(record["data"]["depth_mean"], record["data"]["depth_std"])
    return model.eval()


def package(checkpoint: str | Path, out: str | Path, **record: Any) -> Path:
    """Copy a checkpoint in half precision, for shipping.

    Args:
        checkpoint: a run folder or a checkpoint.
        out: NAME of the copy.
        record: further entries of its JSON: the command, the scores.

    Returns:
        The name without suffix.
    """
    model, known = load_model(checkpoint)
    extras = known.pop("extras")
    if "mean_map" in extras:  # a smooth picture: a quarter of its size says as much
        extras["mean_map"] = torch.nn.functional.avg_pool2d(extras["mean_map"][None], 4)[0].half()
    return save_model(out, model, {**known, **record}, half=True, extras=extras)


__all__ = ["TrainingData", "build_model", "check_same_run", "fixed_batch", "pretrain", "read_log", "read_tensors"]
