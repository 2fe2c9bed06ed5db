"""Commands about pre-training: pretrain, plan, evaluate, reconstruct, export."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from mask3d_core.cli.options import Positional, change_config, frame_named, store_of
from mask3d_core.errors import ConfigError
from mask3d_core.models.config import CONTROLS, PRESETS
from mask3d_core.training.config import pretrain_config


@dataclass(frozen=True)
class Pretrain:
    """Pre-train. Ctrl-C saves and stops; the same command resumes. Put torchrun in front for several GPUs."""

    run_folder: Positional[Path]
    """The run folder: log.jsonl, latest.safetensors, previews/, state/."""
    preset: Literal[tuple(PRESETS)] = "tiny"  # type: ignore[valid-type]
    """Size and recipe; "tiny" is the shipped one, "base" the faithful one."""
    control: Literal[tuple(CONTROLS)] = "mask3d"  # type: ignore[valid-type]
    """Mask3D or one of its controls; all are configs of the one model."""
    data: str = "rooms"
    """A prepared store, a recording's folder (prepared into the run folder first), or "rooms" to render live."""
    init: str = "random"
    """"random", "timm:<name>" (ImageNet weights, needs a network once), "timm:<name>@<file>" (weights in a file) or a checkpoint to
    continue."""
    probe: bool = True
    """With --init: at the end, probe the encoder before and after, on your store's frames and on the bench (some ten CPU minutes)."""
    steps: int | None = None
    """Optimiser steps; none: the recipe's."""
    batch_size: int | None = None
    """Frames per step and process; none: the recipe's."""
    overfit: int = 0
    """Train on this many frames without augmentation, as a sanity check."""
    device: str | None = None
    """"cpu" or "cuda"; none: the GPU if there is one."""
    set: tuple[str, ...] = ()
    """Any other key of the configuration as path=json, e.g. loss.kind='"l1"' fit.learning_rate=0.001 fit.compile=true; `mask3d keys
    pretrain` lists all with their meaning."""
    dry_run: bool = False
    """Print the whole configuration and stop."""

    def config(self):
        """The configuration that these flags mean."""
        base = pretrain_config(self.preset, self.control, data=self.data, init=self.init, overfit=self.overfit)
        changes = {k: v for k, v in (("steps", self.steps), ("batch_size", self.batch_size)) if v is not None}
        base = replace(base, fit=replace(base.fit, **changes))
        return change_config(base, self.set).validate()

    def run(self) -> int:
        """0 finished, 130 stopped and saved."""
        from mask3d_core.training.config import to_dict
        from mask3d_core.training.pretraining import pretrain

        config = self.config()
        print(json.dumps(to_dict(config)))
        if self.dry_run:
            return 0
        if config.data != "rooms":
            config = replace(config, data=str(store_of(config.data, config.model.image_size, self.run_folder)))
        result = pretrain(config, self.run_folder, self.device, on_preview=_draw_preview)
        words = ", ".join(f"{k} {v:.4f}" for k, v in result.metrics.items())
        print(f"{'finished' if result.is_finished else 'stopped'} at step {result.step}{words and f': {words}'}; "
              f"{result.frames_per_second:.0f} frames/s; weights in {self.run_folder}/latest.safetensors")
        if result.is_finished and self.probe and config.init != "random":
            _probe(config, self.run_folder, self.device)
        return 0 if result.is_finished else 130


@dataclass(frozen=True)
class Plan(Pretrain):
    """Measure a few steps of a run and say what it will cost, before it costs anything. Same flags as pretrain."""

    run_folder: Positional[Path] = Path("-")
    """Not used; may be left out."""
    measure: int = 20
    """Steps to measure."""

    def run(self) -> int:
        """Print the plan."""
        from mask3d_core.plan import make_plan

        print(make_plan(self.config(), self.measure, self.device).text())
        return 0


@dataclass(frozen=True)
class Evaluate:
    """Errors in metres over hidden pixels, beside trivial opponents on the same masks, with intervals."""

    checkpoint: Positional[str]
    """NAME, NAME.safetensors or a run folder."""
    data: str = "stores/new"
    """A prepared store."""
    split: Literal["test", "val", "train", "all"] = "test"
    """Which frames."""
    ratios: tuple[tuple[float, float], ...] = ((0.8, 0.8), (0.8, 0.95), (0.8, 1.0))
    """Pairs: share of RGB hidden, share of depth hidden."""
    draws: int = 3
    """Mask draws per frame."""
    max_depth: float = 10.0
    """Truth beyond this many metres is not scored."""
    limit: int = 0
    """At most this many frames, evenly spaced; 0 = all."""
    allow_seen: bool = False
    """Score frames of the training data too, marked."""
    opponents: bool = True
    """Measure the opponents as well."""
    out: Path | None = None
    """Write the results as JSON."""
    device: str | None = None
    """"cpu" or "cuda"."""

    def run(self) -> int:
        """Print the table; write the JSON."""
        from mask3d_core.evaluation.evaluate import EvaluateConfig, evaluate, table_text
        from mask3d_core.store import Store
        from mask3d_core.files import write_json
        from mask3d_core.progress import Bar
        from mask3d_core.training.checkpoint import load_model
        from mask3d_core.training.precision import parse_device

        model, record = load_model(self.checkpoint)
        config = EvaluateConfig(self.ratios, self.draws, self.split, self.limit, allow_seen=self.allow_seen,
                                max_depth=self.max_depth, opponents=self.opponents)
        with Bar("evaluate", 0) as bar:
            result = evaluate(model, record, Store(self.data), config, parse_device(self.device), bar.set)
        result["checkpoint"]["path"] = str(self.checkpoint)
        print(table_text(result))
        if self.out:
            self.out.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.out, result)
            print(f"written to {self.out}")
        return 0


@dataclass(frozen=True)
class Reconstruct:
    """Hide, predict and write one frame: picture panel, depth as PNG and NPZ, truth and prediction as PLY."""

    checkpoint: Positional[str]
    """NAME, NAME.safetensors or a run folder."""
    frame: Positional[str]
    """FOLDER or STORE with #NUMBER (e.g. recording#12, default #0), or rooms#NUMBER."""
    out: Path = Path("out/reconstruction")
    """Folder for the results."""
    ratios: tuple[float, float] = (0.8, 0.8)
    """Share of RGB and of depth hidden."""
    seed: int = 0
    """Of the masks."""

    def run(self) -> int:
        """Write everything; print the scores."""
        from mask3d_core.reconstruct import reconstruct, write_reconstruction
        from mask3d_core.training.checkpoint import load_model

        model, _ = load_model(self.checkpoint)
        result = reconstruct(model, frame_named(self.frame), self.ratios, self.seed)
        written = write_reconstruction(result, self.out)
        from mask3d_viz.reconstruction import save_pictures

        written += save_pictures(result, self.out)
        words = ", ".join(f"{k} {v:.4f}" for k, v in result.scores.items()) or "no hidden pixel was measured"
        print(f"{result.name}: {words}{' (scale assumed: no depth was visible)' if result.is_scale_assumed else ''}")
        print("written: " + ", ".join(str(path) for path in written))
        return 0


@dataclass(frozen=True)
class Export:
    """The RGB encoder as timm weights, and the create_model arguments that load them strictly."""

    checkpoint: Positional[str]
    """NAME, NAME.safetensors or a run folder."""
    timm: Path = Path("out/encoder")
    """OUT.safetensors and OUT.json are written."""

    def run(self) -> int:
        """Export and check."""
        from mask3d_core.models.export import export_timm
        from mask3d_core.training.checkpoint import load_model

        model, record = load_model(self.checkpoint)
        stem = export_timm(model, self.timm, record)
        print(f"{stem}.safetensors loads strictly with timm.create_model(**json['create_model']) from {stem}.json")
        return 0


def _probe(config, run: Path, device: str | None) -> None:
    """Before and after, on the run's own frames where it has a store, and on the bench; written beside the run."""
    from mask3d_core.evaluation.bench import rooms_frames, store_frames
    from mask3d_core.evaluation.bench.continued import before_and_after, difference_text
    from mask3d_core.evaluation.bench.report import record_of
    from mask3d_core.files import write_json
    from mask3d_core.progress import Bar
    from mask3d_core.training.precision import parse_device
    from mask3d_viz.bench_view import save_bench

    names = {"bench": rooms_frames} if config.data == "rooms" else {"store": lambda: store_frames(config.data), "bench": rooms_frames}
    for name, frames in names.items():
        try:
            opened = frames()
        except ConfigError as problem:  # too few frames to fit and test a probe: the run itself is whole
            print(f"no probe on {name}: {'; '.join(problem.problems)}")
            continue
        with Bar(f"probe on {name}", 0) as bar:
            result = before_and_after(config.init, run, opened, device=parse_device(device),
                                      progress=lambda row, done, total, bar=bar: bar.set(done, total))
        folder = run / "probe"
        folder.mkdir(exist_ok=True)
        record = record_of(result, f"mask3d pretrain {run} --init {config.init}")
        write_json(folder / f"{name}.json", record)
        save_bench(record, folder / name)
        print(f"{result.text()}\n{difference_text(result)}\nwritten to {folder / name}.json and .png")


def _draw_preview(run: Path, step: int) -> None:
    """Draw the fixed frames of a run beside their arrays, and its curve so far."""
    from mask3d_viz.reconstruction import draw_run

    draw_run(run, step)
