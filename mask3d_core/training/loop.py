"""One engine for every task: from a notebook, a test or a command, on one process or several.

The loss is a sum over frames and a count of frames. Gradients of the sum are added over micro-batches and ranks, then
divided once by the count, so any way of cutting a batch into pieces gives the same step; but for batch normalisation, which only
the linear head of fine-tuning has.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from mask3d_core.errors import ConfigError, DivergedError
from mask3d_core.files import write_json
from mask3d_core.tasks import Task
from mask3d_core.training.checkpoint import (
    latest_state, load_optimizer, load_weights, optimizer_tensors, read_tensors, save_model, save_state)
from mask3d_core.training.compilation import compiled, explain_failure
from mask3d_core.training.config import FitConfig
from mask3d_core.training.log import JsonLog, Progress
from mask3d_core.training.precision import autocast, choose_precision, parse_device
from mask3d_core.training.schedule import learning_rate, parameter_groups


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


class Engine:
    """The parts of one run; :func:`fit` drives it."""

    def __init__(self, task: Task, config: FitConfig, run: Path, device: torch.device, frames_per_step: int):
        self.task, self.config, self.run, self.device = task, config, run, device
        self.world = dist.get_world_size() if dist.is_initialized() else 1
        self.rank = dist.get_rank() if dist.is_initialized() else 0
        self.frames_per_step = frames_per_step
        self.precision = choose_precision(config.precision, device)
        self.model = task.model.to(device)
        if device.type == "cpu" and self.precision == "bf16":
            plain_attention(self.model)
        self.is_fused = device.type in ("cpu", "cuda")
        groups = parameter_groups(self.model, config.weight_decay, getattr(task, "layer_scale", None))
        self.optimizer = torch.optim.AdamW(groups, lr=0.0,
                                           betas=(config.beta1, config.beta2), fused=self.is_fused)
        self.ema = {k: v.detach().clone() for k, v in self.model.state_dict().items()} if config.ema else None
        self.step = 0
        self.resumed_metrics: dict[str, float] = {}
        self.resumed_best: dict[str, Any] | None = None
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.skipped = torch.zeros((), device=device)  # non-finite steps in a row, counted on the device
        self.runner = self._wrap()

    def _wrap(self) -> nn.Module:
        model = compiled(self.model) if self.config.compile else self.model
        if self.world == 1:
            return model
        ids = [self.device.index] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(model, device_ids=ids,
                                                   find_unused_parameters=self.task.may_leave_unused())

    def train_step(self, batches) -> dict[str, Tensor]:
        """One optimiser step over ``accumulate`` micro-batches. Nothing here waits for the device."""
        rate = learning_rate(self.config, self.step, self.frames_per_step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["lr_scale"]
        self.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.device)
        count = torch.zeros((), device=self.device)
        parts: dict[str, Tensor] = {}
        for micro in range(self.config.accumulate):
            batch = next(batches)
            is_last = micro == self.config.accumulate - 1
            together = nullcontext() if is_last or self.world == 1 else self.runner.no_sync()
            with together:
                with autocast(self.precision, self.device):
                    loss = self.task.loss(self.runner, batch, self.step)
                loss.total.backward()
            total, count = total + loss.total.detach(), count + loss.count
            for name, value in loss.parts.items():
                parts[name] = parts.get(name, 0) + value.detach()
        return self._update(total, count, parts, rate)

    def _update(self, total: Tensor, count: Tensor, parts: dict[str, Tensor], rate: float) -> dict[str, Tensor]:
        names = list(parts)
        sums = torch.stack([total, count, *[parts[n].to(total) for n in names]])
        if self.world > 1:
            dist.all_reduce(sums)
        divisor = sums[1].clamp(min=1)
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        torch._foreach_mul_(gradients, self.world / divisor)  # DDP averaged over ranks; we want the sum over frames
        norm = torch.nn.utils.get_total_norm(gradients) if gradients else total * 0
        is_bad = ~torch.isfinite(norm) | ~torch.isfinite(sums[0])
        if self.config.clip:
            torch._foreach_mul_(gradients, (self.config.clip / (norm + 1e-6)).clamp(max=1.0).nan_to_num(0.0))
        # the fused kernel leaves weights and moments alone where found_inf is set: the NaN guard without a sync
        self.optimizer.grad_scale, self.optimizer.found_inf = None, is_bad.float()
        if self.is_fused or not bool(is_bad):  # devices without the fused kernel are asked
            self.optimizer.step()
        self.skipped = torch.where(is_bad, self.skipped + 1, 0.0)
        if self.ema is not None:
            self._average()
        self.step += 1
        means = sums / divisor
        return {"loss": means[0], "grad_norm": norm, "learning_rate": torch.tensor(rate),
                **{n: means[2 + i] for i, n in enumerate(names)}}

    @torch.no_grad()
    def _average(self) -> None:
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))  # short memory while young
        own = self.model.state_dict()
        averaged = [(k, v) for k, v in self.ema.items() if v.is_floating_point()]
        torch._foreach_lerp_([v for _, v in averaged], [own[k] for k, _ in averaged], 1 - decay)

    def weights(self) -> dict[str, Tensor]:
        """The weights to evaluate and publish: the averaged ones where there are any."""
        return self.ema if self.ema is not None else self.model.state_dict()

    def with_weights(self, action: Callable[[nn.Module], Any]) -> Any:
        """Run ``action(model)`` in evaluation mode with the published weights, then put the others back."""
        own = {k: v.detach().clone() for k, v in self.model.state_dict().items()} if self.ema is not None else None
        if own is not None:
            self.model.load_state_dict(self.ema)
        self.model.eval()
        try:
            with torch.inference_mode(), autocast(self.precision, self.device):
                return action(self.model)
        finally:
            self.model.train()
            if own is not None:
                self.model.load_state_dict(own)

    def save(self, record: dict[str, Any]) -> None:
        """Write the training state; every process must come here, rank 0 writes."""
        random = self._random_states()
        if self.rank == 0:
            parts = {"model": self.model.state_dict(), "optimizer": optimizer_tensors(self.optimizer),
                     "ema": self.ema or {}, "random": random}
            save_state(self.run / "state", self.step, parts, {"step": self.step, **record}, self.config.keep)

    def draw_apart(self) -> None:
        """Several processes draw differently: with one state all of them would leave the same blocks out and sample alike. One process
        goes on with the state that it has."""
        if self.world > 1:
            torch.manual_seed(int(np.random.SeedSequence([self.config.seed, self.rank]).generate_state(1, np.uint32)[0]))

    def _random_states(self) -> dict[str, Tensor]:
        """Of torch's own generators, which stochastic depth and the samplers of a detector draw from: "cpu" and "cuda" of rank 0,
        "cpu.1", "cuda.1" and so on of the others."""
        own = {"cpu": torch.get_rng_state()}
        own |= {"cuda": torch.cuda.get_rng_state(self.device)} if self.device.type == "cuda" else {}
        if self.world == 1:
            return own
        gathered: list[Any] = [None] * self.world
        dist.all_gather_object(gathered, own)
        return {_of_rank(name, rank): state for rank, states in enumerate(gathered) for name, state in states.items()}

    def resume(self) -> bool:
        """Load the newest whole training state of the run folder. False when there is none."""
        found = latest_state(self.run / "state")
        if found is None:
            return False
        folder, state = found
        if state.get("frames_per_step", self.frames_per_step) != self.frames_per_step:
            raise ConfigError(
                f"this run was trained with {state['frames_per_step']} frames per step and would go on with "
                f"{self.frames_per_step}; change fit.batch_size or fit.accumulate so that frames x processes agree")
        load_weights(self.model, read_tensors(folder / "model.safetensors"), folder / "model.safetensors")
        load_optimizer(self.optimizer, read_tensors(folder / "optimizer.safetensors"))
        if self.ema is not None:
            self.ema = {k: v.to(self.device) for k, v in read_tensors(folder / "ema.safetensors").items()}
        random = read_tensors(folder / "random.safetensors")  # of a state from fewer processes the others' are not there: they stay as begun
        cpu, cuda = (random.get(_of_rank(name, self.rank)) for name in ("cpu", "cuda"))
        if cpu is not None:
            torch.set_rng_state(cpu)
        if cuda is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(cuda, self.device)
        self.step, self.resumed_metrics = state["step"], state.get("metrics", {})
        self.resumed_best = state.get("best")
        return True


def _of_rank(name: str, rank: int) -> str:
    """What a generator of a process is called in a saved state."""
    return f"{name}.{rank}" if rank else name


def plain_attention(model: nn.Module) -> None:
    """On a CPU with bf16 in hardware the fused attention's backward pass is the slow one: a tiny step takes 0.73 of the time
    without it (16 frames, one thread; ``benchmarks/training.py``). In float32 it is the faster one where sequences are long: a
    micro step of Mask3D 0/80 takes 1.23 times as long without it, one of 80/80 0.91."""
    for module in model.modules():
        if isinstance(getattr(module, "fused_attn", None), bool):
            module.fused_attn = False


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
            self.progress.say(f"step {self.engine.step}: {words}")
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


__all__ = ["Engine", "FitResult", "fit", "plain_attention", "start_processes", "write_config"]
