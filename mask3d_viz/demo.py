"""``mask3d demo``: the main job end to end, and one self-contained page that shows what came of it.

Frames, a tiny Mask3D from scratch, the shipped checkpoint continued on the same frames, both measured beside trivial
opponents on frames that nobody trained on, reconstructions, the exported encoder.
"""

from __future__ import annotations

import dataclasses
import hashlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mask3d_core.errors import Mask3DError
from mask3d_core.evaluation.evaluate import MODEL, EvaluateConfig, evaluate, table_text
from mask3d_core.losses import LossConfig
from mask3d_core.masking import MaskConfig
from mask3d_core.models.config import EncoderConfig
from mask3d_core.models.export import export_timm
from mask3d_core.prepare import PrepareConfig, prepare
from mask3d_core.reconstruct import Reconstruction, reconstruct, write_reconstruction
from mask3d_core.shipped import shipped
from mask3d_core.sources import open_source
from mask3d_core.sources.opening import open_path
from mask3d_core.store import Store
from mask3d_core.files import write_json
from mask3d_core.training.checkpoint import load_model
from mask3d_core.training.config import PretrainConfig, pretrain_config
from mask3d_core.training.pretraining import pretrain
from mask3d_viz.demo_page import write_page
from mask3d_viz.reconstruction import draw_run

SHIPPED = shipped("data", "checkpoints") / "tiny"


@dataclass(frozen=True)
class DemoSettings:
    """How much the demo does. The defaults take about three minutes on two CPU cores.

    Args:
        train_frames, test_frames: rooms rendered (two views of a training room, one of a test room).
        scratch_steps, continue_steps: optimiser steps of 16 frames.
        test_limit: frames scored.
        pictures: frames reconstructed.
    """

    train_frames: int = 192
    test_frames: int = 24
    scratch_steps: int = 480
    continue_steps: int = 70
    test_limit: int = 24
    pictures: int = 3


QUICK = DemoSettings(16, 4, 4, 2, 4, 1)


@dataclass(frozen=True)
class DemoResults:
    """Everything the page shows."""

    frames: str
    train: Store
    test: Store
    test_split: str
    runs: dict[str, Path]
    scores: dict[str, dict[str, Any]]
    reconstructions: dict[str, list[Reconstruction]]
    encoder: Path
    seconds: dict[str, float]


def scratch_config(data: str, settings: DemoSettings) -> PretrainConfig:
    """A Mask3D small enough to learn something in a minute: no anchor, one pair of ratios, from random weights."""
    base = pretrain_config("tiny", data=data)
    model = dataclasses.replace(base.model, anchor="none", rgb=EncoderConfig(width=128, depth=4, heads=4),
                                depth=EncoderConfig(width=96, depth=2, heads=3), decoder_width=128, decoder_depth=2,
                                decoder_heads=4)
    every = max(1, settings.scratch_steps // 4)
    fit = dataclasses.replace(base.fit, steps=settings.scratch_steps, batch_size=16, learning_rate=3.2e-2, ema=0.95,
                              eval_every=every, save_every=0, log_every=max(1, settings.scratch_steps // 40))
    loss = LossConfig(kind="huber", counted="all")
    return dataclasses.replace(base, name="demo/scratch", model=model, mask=MaskConfig(((0.8, 0.8),)), loss=loss, fit=fit,
                               eval_frames=16, preview=2).validate()


def continue_config(data: str, settings: DemoSettings) -> PretrainConfig:
    """The shipped checkpoint, a little further on the demo's own frames, at a small learning rate."""
    base = pretrain_config("tiny", data=data, init=str(SHIPPED))
    fit = dataclasses.replace(base.fit, steps=settings.continue_steps, batch_size=16, learning_rate=1.6e-3, ema=0.9,
                              eval_every=0, save_every=0, log_every=max(1, settings.continue_steps // 10))
    return dataclasses.replace(base, name="demo/continued", mask=MaskConfig(((0.8, 0.8), (0.8, 0.95), (0.8, 1.0))),
                               fit=fit, eval_frames=16, preview=2).validate()


def run_demo(frames: str | None, out: str | Path, quick: bool = False) -> Path:
    """Run everything; finished parts of an interrupted demo are kept and not done again.

    Args:
        frames: a recording's folder; None: rendered rooms.
        out: where everything goes.
        quick: a few frames and steps, for tests.

    Returns:
        The page.

    Raises:
        Mask3DError: the recording cannot be read, or the shipped checkpoint is missing.
    """
    settings, out = QUICK if quick else DemoSettings(), Path(out)
    if not SHIPPED.with_suffix(".safetensors").is_file():
        raise Mask3DError("the shipped checkpoint", "no such file",
                          "It comes with the repository, not with the wheel: run the demo in a checkout.",
                          SHIPPED.with_suffix(".safetensors"))
    seconds: dict[str, float] = {}

    def timed(name: str, words: str, action):
        print(f"\n== {words}", flush=True)
        began = time.perf_counter()
        result = action()
        seconds[name] = time.perf_counter() - began
        return result

    place = out / ("rooms" if frames is None else f"frames-{Path(frames).resolve().name}") / ("quick" if quick else "full")
    train, test, split = timed("frames", f"Frames: {frames or 'rendering rooms'}",
                               lambda: _prepare(frames, place, settings))
    store = str(train.path)
    runs = {"scratch": place / "run-scratch", "continued": place / f"run-continued-{_digest(SHIPPED)}"}
    timed("scratch", "A tiny Mask3D from scratch (it starts knowing nothing)",
          lambda: _finish(scratch_config(store, settings), runs["scratch"]))
    timed("continue", "The shipped checkpoint, continued on these frames",
          lambda: _finish(continue_config(store, settings), runs["continued"]))
    models = {"from scratch": load_model(runs["scratch"]), "shipped": load_model(SHIPPED),
              "shipped, continued": load_model(runs["continued"])}
    scores = timed("evaluate", "Measuring beside trivial opponents, on frames that nobody trained on",
                   lambda: _measure(models, test, split, settings))
    write_json(place / "scores.json", scores)
    indices = test.indices(split)
    chosen = indices[[round((k + 0.5) / settings.pictures * len(indices) - 0.5) for k in range(settings.pictures)]]
    made = timed("reconstruct", "Reconstructing some of them", lambda: {
        name: [reconstruct(model, test.read(int(i)), (0.8, 0.8), seed=int(i)) for i in chosen]
        for name, (model, _) in models.items()})
    for i, result in enumerate(made["shipped, continued"]):
        write_reconstruction(result, place / f"reconstruction-{i}")
    model, record = models["shipped, continued"]
    encoder = timed("export", "Exporting the encoder to timm", lambda: export_timm(model, place / "encoder", record))
    results = DemoResults(frames or "rendered rooms", train, test, split, runs, scores, made, encoder, seconds)
    page = timed("page", "Writing the page", lambda: write_page(place / "report.html", results))
    print(f"\n{sum(seconds.values()):.0f} s in all: " + ", ".join(f"{k} {v:.0f} s" for k, v in seconds.items()))
    return page


def _digest(checkpoint: Path) -> str:
    """Eight letters that change with the weights: a run that continued other weights is another run."""
    return hashlib.sha256(checkpoint.with_suffix(".safetensors").read_bytes()).hexdigest()[:8]


def _finish(config: PretrainConfig, run: Path) -> None:
    """Train to the end; Ctrl-C ends the demo too, and the same command goes on."""
    if not pretrain(config, run, "cpu", on_preview=draw_run).is_finished:
        raise KeyboardInterrupt


def _prepare(frames: str | None, place: Path, settings: DemoSettings) -> tuple[Store, Store, str]:
    """Training store, test store and the split of the latter."""
    if frames is None:
        options = {"height": 256, "width": 336}
        train = prepare(open_source("rooms", count=settings.train_frames, seed=811, views_per_room=2, sensor=0.35, **options),
                        place / "train", PrepareConfig(val_share=0.1, test_share=0.0, chunk_frames=16))
        test = prepare(open_source("rooms", count=settings.test_frames, seed=812, views_per_room=1, pool="test", **options),
                       place / "test", PrepareConfig(split="test", chunk_frames=16))
        return train, test, "test"
    store = prepare(open_path(frames), place / "store", PrepareConfig(val_share=0.12, test_share=0.2))
    split = next((name for name in ("test", "val") if len(store.indices(name))), None)
    if split is None or not len(store.indices("train")):
        counts = ", ".join(f"{k} {v}" for k, v in store.header.split_counts.items())
        raise Mask3DError("enough frames to train on some and hold others out (about ten)", counts,
                          "Give a longer recording, or run the demo without frames.", frames)
    return store, store, split


def _measure(models: dict, test: Store, split: str, settings: DemoSettings) -> dict[str, dict[str, Any]]:
    """Every model on the same frames and masks; the opponents once."""
    scores = {}
    for name, (model, record) in models.items():
        config = EvaluateConfig(((0.8, 0.8), (0.8, 0.95), (0.8, 1.0)) if name != "from scratch" else ((0.8, 0.8),),
                                draws=1, split=split, limit=settings.test_limit, opponents=name == "shipped, continued")
        scores[name] = evaluate(model, record, test, config)
        block = scores[name]["results"][0]["scores"][MODEL]["abs_rel"]
        print(f"{name}: AbsRel {block['mean']:.4f} at 80/80")
    print(table_text(scores["shipped, continued"]))
    return scores


__all__ = ["SHIPPED", "DemoResults", "DemoSettings", "run_demo"]
