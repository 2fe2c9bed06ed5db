"""Commands about what pre-training is for: finetune, predict, probe."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from mask3d_core.cli.options import Positional, change_config, store_of


@dataclass(frozen=True)
class Finetune:
    """Fine-tune an RGB encoder on a labelled store and score it. Ctrl-C saves and stops; the same command resumes."""

    run_folder: Positional[Path]
    """The run folder: log.jsonl, latest.safetensors, previews/, state/, scores.json."""
    task: Literal["segment", "depth", "detect"] = "segment"
    """Semantic segmentation, monocular depth, or instance segmentation and detection."""
    data: str = "stores/new"
    """A prepared store with labels, or a labelled recording or data set (prepared into the run folder first); frames without any label
    are left out."""
    start: str = "random"
    """Where the encoder comes from: "random", "timm:<name>", "timm:<name>@<file>" (weights of anybody's: MAE, DINO, ...),
    "random:<timm name>", "step-zero:CKPT" or a checkpoint."""
    steps: int | None = None
    """Optimiser steps; none: the recipe's."""
    label_fraction: float = 1.0
    """Share of the training sequences whose labels are used."""
    freeze: int = 0
    """Blocks that do not learn; -1: the whole encoder."""
    select: Literal["last", "best"] = "last"
    """Which weights are scored: the last, or the best on validation."""
    split: Literal["test", "val"] = "test"
    """What is scored at the end."""
    device: str | None = None
    """"cpu" or "cuda"; none: the GPU if there is one."""
    set: tuple[str, ...] = ()
    """Any other key of the configuration as path=json, e.g. head.kind='"dpt"' layer_decay=0.65 fit.ema=0.99; `mask3d keys
    finetune` lists all with their meaning."""
    dry_run: bool = False
    """Print the whole configuration and stop."""
    check: bool = False
    """Look at labels, scenes, holes, head, start, memory, time and disk, print what was found and stop."""

    def config(self):
        """The configuration that these flags mean."""
        from mask3d_core.training.finetune_config import finetune_config

        base = finetune_config(self.task, data=self.data, start=self.start, label_fraction=self.label_fraction,
                               freeze=self.freeze, select=self.select)
        if self.steps is not None:
            base = replace(base, fit=replace(base.fit, steps=self.steps))
        return change_config(base, self.set).validate()

    def run(self) -> int:
        """0 finished (or nothing against it), 1 the pre-flight found errors, 130 stopped and saved.

        The configuration is printed with the first sign of training, so that a wrong input is one line.
        """
        from mask3d_core.evaluation.downstream import score_run
        from mask3d_core.training.config import to_dict
        from mask3d_core.training.finetuning import LABELS, finetune

        config = self.config()
        if self.dry_run:
            print(json.dumps(to_dict(config)))
            return 0
        config = replace(config, data=str(store_of(config.data, config.image_size, self.run_folder, LABELS[config.task])))
        words = [json.dumps(to_dict(config))]
        if self.check:
            return self._check(config)
        if config.select == "best" and self.split == "val":
            words.append("the weights are chosen on the very frames that are scored (--select best --split val): that flatters them")

        def begun(*_) -> None:
            while words:
                print(words.pop(0), flush=True)

        def on_preview(run: Path, step: int) -> None:
            begun()
            _draw_finetuning(run, step)

        result = finetune(config, self.run_folder, self.device, on_preview=on_preview, on_step=begun, scored=self.split)
        if not result.is_finished:
            print(f"stopped at step {result.step}; weights in {self.run_folder}/latest.safetensors")
            return 130
        print(score_run(self.run_folder, self.split, self.device, show=True))
        return 0

    def _check(self, config) -> int:
        from mask3d_core.doctor.report import Report
        from mask3d_core.training.preflight import preflight

        report = Report(f"pre-flight of {self.run_folder}", preflight(config, self.device, run=self.run_folder))
        print(report.text())
        return int(report.severity == "error")


@dataclass(frozen=True)
class Predict:
    """A fine-tuned model on a picture or a folder: pictures, class ids as PNG, depth as PNG and NPZ, objects as COCO JSON and PNG.

    Photographs are turned as their EXIF orientation says. Pictures of a folder that cannot be read are named and left out.
    """

    checkpoint: Positional[str]
    """NAME, NAME.safetensors or a run folder of `mask3d finetune`."""
    pictures: Positional[Path]
    """A picture, or a folder of pictures."""
    out: Path = Path("out/predictions")
    """Folder for the results. a.jpg becomes a_picture.png, and a_classes.png (ids; classes.json names them), a_depth_mm.png (a_depth_cm.png
    where the model's range goes beyond 65 m) and a_depth.npz, or a_objects.png (0 nothing, k the picture's k-th object in objects.json); beside an a.png it becomes a_jpg_..."""
    camera: tuple[float, float, float, float] | None = None
    """fx fy cx cy in pixels of the pictures, as they are shown upright; only depth wants it."""

    def run(self) -> int:
        """0 everything is written, 1 all but the pictures of the folder that cannot be read."""
        from mask3d_core.errors import FrameError
        from mask3d_core.evaluation.downstream import selection_rule
        from mask3d_core.frames import Intrinsics
        from mask3d_core.predict import (
            find_pictures,
            output_names,
            predict_picture,
            read_picture,
            write_classes,
            write_objects,
            write_prediction,
        )
        from mask3d_core.progress import Bar
        from mask3d_core.training.config import from_dict
        from mask3d_core.training.finetune_config import FinetuneConfig
        from mask3d_core.training.finetuned import load_finetuned
        from mask3d_viz.downstream_view import save_prediction

        model, record = load_finetuned(self.checkpoint)
        camera = Intrinsics(*self.camera) if self.camera else None
        files, written, kept, notes, left_out = find_pictures(self.pictures), [], [], [], 0
        with Bar("predict", len(files), unit="picture") as bar:
            for file, name in zip(files, output_names(files)):
                try:
                    color = read_picture(file)
                except FrameError as problem:
                    if self.pictures.is_file():
                        raise
                    left_out += 1
                    bar.say(f"left out: {problem}")
                    bar.advance()
                    continue
                made = replace(predict_picture(model, record, color, name, camera), file_name=file.name)
                written += [*write_prediction(made, self.out), save_prediction(made, self.out)]
                notes = list(made.notes)
                if made.objects is not None:
                    kept.append(made.without_picture())
                bar.advance()
        if kept:
            written.append(write_objects(kept, self.out))
        if written and record["task"] == "segment":
            written.append(write_classes(record.get("class_names", ()), self.out))
        rule = selection_rule(record, from_dict(FinetuneConfig, record["training"], self.checkpoint))
        print("\n".join([*notes, f"weights: {rule}", f"{len(files) - left_out} picture(s): {len(written)} files in {self.out}"]))
        if left_out:
            print(f"{left_out} of {len(files)} picture(s) could not be read and were left out", file=sys.stderr)
        return int(left_out > 0)


@dataclass(frozen=True)
class Probe:
    """What a frozen encoder holds of the third dimension: depth, normals, semantics, correspondence.

    Eleven minutes of one CPU core for a small encoder with all reference rows, half of it for them.
    """

    start: Positional[str]
    """"timm:<name>" (any plain VisionTransformer; its weights need a network once), "timm:<name>@<file>" (weights of anybody's in a
    file: MAE, DINO, ...), "random:<name>", or a checkpoint."""
    out: Path = Path("out/probe")
    """Folder for the table, the JSON and the figure."""
    data: str = ""
    """A prepared store of yours with train, val and test frames, to measure on beside the bench's rooms."""
    cache: Path | None = None
    """Where the bench's rooms are kept (300 MB, rendered once); none: ~/.cache/mask3d-lab."""
    references: bool = True
    """Rows of the shipped checkpoints."""
    device: str | None = None
    """"cpu" or "cuda", for the encoders."""

    def run(self) -> int:
        """Print the tables; write them, the JSON and the figures."""
        import shlex
        import time

        from mask3d_core.evaluation.bench import rooms_frames, store_frames
        from mask3d_core.evaluation.bench.report import open_bench, record_of, run_bench
        from mask3d_core.files import write_json
        from mask3d_core.progress import Bar
        from mask3d_core.training.precision import parse_device
        from mask3d_viz.bench_view import save_bench

        device, bench = parse_device(self.device), open_bench(self.start, references=self.references)
        mine = store_frames(self.data) if self.data else None  # a wrong store is known before anything is rendered
        if bench.missing:
            print(f"rows left out, their checkpoints are not here: {', '.join(bench.missing)}")
        for name, frames in (("bench", rooms_frames(self.cache)), *([(f"store-{mine.name}", mine)] if mine else [])):
            began, began_cpu = time.perf_counter(), time.process_time()
            with Bar(f"probe on {name}", 0) as bar:
                def progress(row: str, done: int, total: int, bar: Bar = bar) -> None:
                    bar.note(row)
                    bar.set(done, total)

                result = run_bench(bench, frames, device=device, progress=progress)
            record = record_of(result, shlex.join(["mask3d", *sys.argv[1:]]), bench.start, time.perf_counter() - began,
                               time.process_time() - began_cpu)
            self.out.mkdir(parents=True, exist_ok=True)
            write_json(self.out / f"{name}.json", record)
            (self.out / f"{name}.txt").write_text(result.text() + "\n", encoding="utf-8")
            drawn = save_bench(record, self.out / name)
            print(f"{result.text()}\n\n{record['seconds']:.0f} s (of one core {record['cpu_seconds']:.0f}); written: "
                  f"{self.out / name}.json, .txt, {', '.join(str(path) for path in drawn)}\n")
        return 0


def _draw_finetuning(run: Path, step: int) -> None:
    """Draw the fixed validation frames of a fine-tuning run."""
    from mask3d_viz.downstream_view import draw_finetuning

    draw_finetuning(run, step)
