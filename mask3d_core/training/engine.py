"""The parts of one run and its step, the same for every task: model, optimiser, average, generators, and what resumes them exactly.

The loss is a sum over frames and a count of frames. Gradients of the sum are added over micro-batches and ranks, then
divided once by the count, so any way of cutting a batch into pieces gives the same step; but for batch normalisation, which only
the linear head of fine-tuning has.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from mask3d_core.errors import ConfigError
from mask3d_core.tasks import Task
from mask3d_core.training.checkpoint import (
    latest_state, load_optimizer, load_weights, optimizer_tensors, read_tensors, save_state)
from mask3d_core.training.compilation import compiled
from mask3d_core.training.config import FitConfig
from mask3d_core.training.precision import autocast, choose_precision
from mask3d_core.training.schedule import learning_rate, parameter_groups


class Engine:
    """The parts of one run; :func:`mask3d_core.training.loop.fit` drives it."""

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


__all__ = ["Engine", "plain_attention"]
