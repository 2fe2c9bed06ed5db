"""The loop around the engine's steps: from a notebook, a test or a command, on one process or several."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from mask3d_core.errors import DivergedError
from mask3d_core.files import write_json
from mask3d_core.tasks import Task
from mask3d_core.training.checkpoint import save_model
from mask3d_core.training.compilation import explain_failure
from mask3d_core.training.config import FitConfig
from mask3d_core.training.engine import Engine
from mask3d_core.training.log import JsonLog, Progress
from mask3d_core.training.precision import parse_device


@dataclass(frozen=True)
class FitResult:
    """How a run ended.

    Args:
        step: steps done in all.
        is_finished: False when it was stopped (Ctrl-C, SIGTERM); run the same command again to go on.
        metrics: of the last evaluation.
        frames_per_second: without the warm-up steps.
        run: the run folder.
    """

    step: int
    is_finished: bool
    metrics: dict[str, float]
    frames_per_second: float
    run: Path


class StopSignal:
    """Ctrl-C and SIGTERM ask for a clean stop that saves; a second one ends at once."""

    def __init__(self):
        self.is_set, self._old = False, {}

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._old[number] = signal.signal(number, self._handle)
        return self

    def _handle(self, number, frame) -> None:
        if self.is_set:
            signal.signal(number, self._old.get(number, signal.SIG_DFL))
            os.kill(os.getpid(), number)
        self.is_set = True

    def __exit__(self, *exc) -> None:
        for number, old in self._old.items():
            signal.signal(number, old)


def fit(task: Task, batches, config: FitConfig, run: str | Path, device: torch.device | str | None = None,
        show: bool = True, on_preview: Callable[[Path, int], None] | None = None,
        on_step: Callable[[int, dict], None] | None = None) -> FitResult:
    """Train a task; resume where the run folder says; stop cleanly on Ctrl-C or SIGTERM.

    The run folder holds ``config.json`` (written by the caller), ``log.jsonl``, ``latest.safetensors`` + ``.json`` (the
    weights to look at), where the task selects on validation ``best.safetensors`` + ``.json``, ``previews/step-*.npz`` (fixed
    frames) and ``state/`` (for resuming). Others may watch it live;
    ``process.json`` (:mod:`mask3d_core.training.process`) tells them who trains.

    Args:
        task: what is trained.
        batches: has ``iterate(number)``, giving micro-batches from that number on.
        config: how.
        run: the run folder.
        device: by default the GPU if there is one.
        show: a progress bar (rank 0 only).
        on_preview: called with (run folder, step) after previews were written, to draw them.
        on_step: called with (step, record) whenever a record is logged.

    Raises:
        DivergedError: the loss stayed non-finite.
        Mask3DError: the disk is full.
    """
    run, device = Path(run), parse_device(device)
    run.mkdir(parents=True, exist_ok=True)
    world = dist.get_world_size() if dist.is_initialized() else 1
    frames_per_step = config.batch_size * config.accumulate * world
    engine = Engine(task, config, run, device, frames_per_step)
    engine.draw_apart()
    resumed = engine.resume()
    loop = _Loop(engine, run, show and engine.rank == 0, on_preview, on_step)
    loop.progress.say(f"precision {engine.precision} on {device} ({config.precision}), {frames_per_step} frames per step")
    if resumed:
        loop.progress.say(f"resumed at step {engine.step} from {run / 'state'}")
    return loop.drive(batches)


class _Loop:
    """The bookkeeping around the steps: log, progress, evaluation, saving."""

    def __init__(self, engine: Engine, run: Path, show: bool, on_preview, on_step):
        self.engine, self.run, self.on_preview, self.on_step = engine, run, on_preview, on_step
        self.config, self.is_main = engine.config, engine.rank == 0
        self.log = JsonLog(run / "log.jsonl", engine.step) if self.is_main else None
        self.progress = Progress(self.config.steps, engine.step, engine.frames_per_step, engine.task.name, show)
        self.pending: list[dict[str, Tensor]] = []
        self.metrics: dict[str, float] = engine.resumed_metrics
        self.best = engine.resumed_best
        self.began = time.perf_counter()

    def drive(self, batches) -> FitResult:
        engine, config = self.engine, self.config
        engine.model.train()
        source = batches.iterate(engine.step * config.accumulate)
        with StopSignal() as stop:
            try:
                if engine.step == 0:
                    self._evaluate()
                while engine.step < config.steps and not self._should_stop(stop):
                    self.pending.append(self._step(source))
                    self.progress.advance(engine.step)
                    is_end = engine.step == config.steps
                    if is_end or (config.log_every and engine.step % config.log_every == 0):
                        self._flush()
                    if is_end or (config.eval_every and engine.step % config.eval_every == 0):
                        self._evaluate()
                    if is_end or (config.save_every and engine.step % config.save_every == 0):
                        self._flush()  # so that no loss before the save is lost with a kill after it
                        engine.save(self._record())
                if engine.step < config.steps:
                    self._flush()
                    engine.save(self._record())
                    self._publish()
                    self.progress.say(f"stopped at step {engine.step}; saved. Run the same command again to go on.")
            finally:
                source.close()
                self.progress.close()
                if self.log:
                    self.log.close()
        return FitResult(engine.step, engine.step >= config.steps, self.metrics, self.progress.rate(engine.step), self.run)

    def _step(self, source) -> dict[str, Tensor]:
        """A training step; where torch.compile does not work, the first one says so in one line."""
        try:
            return self.engine.train_step(source)
        except Exception as problem:
            explain_failure(problem, self.config.compile)
            raise

    def _should_stop(self, stop: StopSignal) -> bool:
        """All ranks stop at the same step. One process knows at once; several on GPUs, where asking waits, when they log."""
        if self.engine.world == 1:
            return stop.is_set
        if self.engine.device.type == "cuda" and self.engine.step % max(1, self.config.log_every):
            return False
        flag = torch.tensor(float(stop.is_set), device=self.engine.device)
        dist.all_reduce(flag)
        return bool(flag > 0)

    def _flush(self) -> None:
        """Fetch the pending numbers: the only place in the loop that waits for the device."""
        if not self.pending:
            return
        names = list(self.pending[-1])
        first = self.engine.step - len(self.pending) + 1
        values = {n: torch.stack([r[n].float() for r in self.pending if n in r]).tolist() for n in names}
        skipped = int(self.engine.skipped)
        self.pending = []
        rate = self.progress.rate(self.engine.step)
        if self.is_main:
            record = {"step": self.engine.step, **{n: float(np.mean(v)) for n, v in values.items()},
                      "losses": values["loss"], "first": first, "frames": self.engine.step * self.engine.frames_per_step,
                      "frames_per_second": rate, "seconds": time.perf_counter() - self.began, "skipped": skipped}
            self.log.write(**record)
            self.progress.note(f"loss {record['loss']:.4f} {rate:.0f} frames/s")
            if self.on_step:
                self.on_step(self.engine.step, record)
        if skipped and self.engine.step == self.config.steps:
            self.progress.say(f"the last {skipped} step(s) had a non-finite gradient and changed nothing: lower fit.learning_rate")
        if skipped >= self.config.max_skipped:
            raise DivergedError("finite losses", f"{skipped} steps in a row with a non-finite gradient",
                              "Lower fit.learning_rate or use fit.precision=float32; the last saved state is whole.",
                              self.run)

    def _evaluate(self) -> None:
        """Scores, pictures of the fixed frames, and the latest weights, for whoever watches the run folder."""
        if self.is_main:
            self.metrics = self.engine.with_weights(self.engine.task.evaluate)
            self.log.write(step=self.engine.step, eval=self.metrics)
            words = ", ".join(f"{k} {v:.4f}" for k, v in list(self.metrics.items())[:4])
            self.progress.say(f"step {self.engine.step}: {words or 'nothing to score on'}")
            self._select()
            arrays = self.engine.with_weights(self.engine.task.preview)
            if arrays:
                folder = self.run / "previews"
                folder.mkdir(exist_ok=True)
                temporary = folder / f".{self.engine.step}.npz"
                np.savez_compressed(temporary, **arrays)
                os.replace(temporary, folder / f"step-{self.engine.step:09d}.npz")
                if self.on_preview:
                    self.on_preview(self.run, self.engine.step)
            self._publish()
        if self.engine.world > 1:
            dist.barrier()

    def _select(self) -> None:
        """Keep the weights that are best on validation as ``best.safetensors``, where the task is selected so."""
        rule = getattr(self.engine.task, "selection", None)
        value = self.metrics.get(rule[0]) if rule else None
        if value is None or (self.best is not None and not (value - self.best["value"]) * (1 if rule[1] else -1) > 0):
            return
        self.best = {"metric": rule[0], "value": value, "step": self.engine.step}
        save_model(self.run / "best", self.engine.task.model, self._record(), weights=self.engine.weights(),
                   extras=self.engine.task.extras())

    def _publish(self) -> None:
        if self.is_main:
            save_model(self.run / "latest", self.engine.task.model, self._record(), weights=self.engine.weights(),
                       extras=self.engine.task.extras())

    def _record(self) -> dict[str, Any]:
        """What the JSON beside the weights says."""
        engine = self.engine
        return {"step": engine.step, "frames_seen": engine.step * engine.frames_per_step,
                "frames_per_step": engine.frames_per_step, "precision": engine.precision,
                "device": torch.cuda.get_device_name() if engine.device.type == "cuda" else "cpu",
                "threads": torch.get_num_threads(), "world": engine.world,
                "sampler": {"seed": self.config.seed, "next_micro_batch": engine.step * self.config.accumulate},
                "metrics": self.metrics, **({"best": self.best} if self.best else {}), **engine.task.record()}


def write_config(run: Path, values: dict[str, Any]) -> None:
    """Save the whole configuration at the start of a run."""
    run.mkdir(parents=True, exist_ok=True)
    write_json(run / "config.json", values)


def start_processes(device: str | None = None) -> torch.device:
    """Under ``torchrun``: join the process group and pick this process's device. Alone: the default device."""
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return parse_device(device)
    use_gpu = torch.cuda.is_available() and device != "cpu"
    if use_gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    if not dist.is_initialized():
        dist.init_process_group("nccl" if use_gpu else "gloo")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if use_gpu else torch.device("cpu")


__all__ = ["FitResult", "fit", "start_processes", "write_config"]
