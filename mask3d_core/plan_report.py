"""A plan as plain numbers, and in words."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass


@dataclass(frozen=True)
class ReferenceRun:
    """Another run, to compare the frames seen with.

    Args:
        name: in words.
        frames_seen: repeats counted.
        source: file or paper.
    """

    name: str
    frames_seen: int
    source: str


@dataclass(frozen=True)
class Plan:
    """What a run will take, and what speaks against it.

    Args:
        name, data: of the configuration.
        device: in words.
        threads, cores: of the CPU.
        load_average: running processes over the last minute as the measuring began, or None.
        precision: "bf16" or "float32".
        steps, frames_per_step, batch_size, accumulate: of the run.
        measured_steps, measured_batch: what was run for this plan; fewer frames where the whole batch was too much.
        step_seconds, step_error: mean of a whole step and half of its 95 % interval.
        waited: share of a step spent waiting for batches (on a CPU also augmenting).
        start_seconds: data, statistics, model, compilation and the first evaluation.
        evaluations, evaluation_seconds: how often scored, with previews and published weights, and seconds each.
        saves, save_seconds: how often the training state is saved, and seconds each.
        memory_bytes: peak; on a CPU the resident set. None where the system does not tell.
        memory_limit: what this process could hold at most, or None.
        parameters, kept_parameters: trainable numbers in all, and of the RGB encoder that is kept.
        flops_per_frame: forward and backward, matrix products and attention only, mean over the run's ratios.
        disk: bytes by part of the run folder at its end.
        disk_peak: bytes while a state replaces another.
        disk_free: on the run's disk.
        distinct_frames: in the training split, or None where every frame is new.
        recordings: sequences that they come from, or None.
        store_bytes: that an epoch reads, or None.
        references: other runs to compare with.
        warnings: what speaks against this run, each with what to do.
    """

    name: str
    data: str
    device: str
    threads: int
    cores: int
    load_average: float | None
    precision: str
    steps: int
    frames_per_step: int
    batch_size: int
    accumulate: int
    measured_steps: int
    measured_batch: int
    step_seconds: float
    step_error: float
    waited: float
    start_seconds: float
    evaluations: int
    evaluation_seconds: float
    saves: int
    save_seconds: float
    memory_bytes: int | None
    memory_limit: int | None
    parameters: int
    kept_parameters: int
    flops_per_frame: float
    disk: dict[str, int]
    disk_peak: int
    disk_free: int
    distinct_frames: int | None
    recordings: int | None
    store_bytes: int | None
    references: tuple[ReferenceRun, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def frames_seen(self) -> int:
        """Frames of the whole run, repeats counted."""
        return self.steps * self.frames_per_step

    @property
    def epochs(self) -> float | None:
        """How often each distinct frame is seen; None where every frame is new."""
        return self.frames_seen / self.distinct_frames if self.distinct_frames else None

    @property
    def total_seconds(self) -> float:
        """The whole run: start, steps, evaluation and saving."""
        return (self.start_seconds + self.steps * self.step_seconds + self.evaluations * self.evaluation_seconds
                + self.saves * self.save_seconds)

    @property
    def frames_per_second(self) -> float:
        """While training, evaluation and saving apart."""
        return self.frames_per_step / self.step_seconds

    def text(self) -> str:
        """For a terminal: one line per thing, warnings last."""
        lines = [f"plan for {self.name} on {self.device}"]
        lines += [f"  {label:<10} {words}" for label, words in _lines(self)]
        lines += [f"  {'warning':<10} {words}" for words in self.warnings]
        return "\n".join(lines)

    def to_json(self) -> str:
        """The same as indented JSON, with what follows from the measurements."""
        derived = {name: getattr(self, name) for name in ("frames_seen", "epochs", "total_seconds", "frames_per_second")}
        return json.dumps({**dataclasses.asdict(self), **derived}, indent=1)


def duration(seconds: float) -> str:
    """Seconds in the two units that matter."""
    for size, name, small, small_name in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if seconds >= size:
            whole, rest = divmod(round(seconds / small), size // small)
            return f"{whole} {name} {rest} {small_name}" if rest else f"{whole} {name}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"


def size(count: float) -> str:
    """Bytes in decimal units."""
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if count >= unit:
            return f"{count / unit:.3g} {name}"
    return f"{count / 1e3:.0f} kB"


def share(part: float) -> str:
    """A share in per cent with two digits that matter."""
    return f"{100 * part:.0f} %" if part >= 0.1 else f"{100 * part:.2g} %"


def flops(count: float) -> str:
    """Floating-point operations in the unit that fits."""
    for unit, name in ((1e18, "EFLOP"), (1e15, "PFLOP"), (1e12, "TFLOP")):
        if count >= unit:
            return f"{count / unit:.3g} {name}"
    return f"{count / 1e9:.3g} GFLOP"


def _compared(plan: Plan, run: ReferenceRun) -> str:
    part = plan.frames_seen / run.frames_seen
    how = f"{part:,.3g} times the frames" if part > 1 else f"{share(part)} of the frames"
    return f"{how} of {run.name}: {run.frames_seen:,} ({run.source})"


def _lines(plan: Plan) -> list[tuple[str, str]]:
    busy = "" if plan.load_average is None else f"; load {plan.load_average:.1f} on {plan.cores} cores"
    steps, saves = plan.steps * plan.step_seconds, plan.saves * plan.save_seconds
    evaluation = plan.evaluations * plan.evaluation_seconds
    memory = "this system does not tell" if plan.memory_bytes is None else size(plan.memory_bytes)
    if plan.measured_batch < plan.batch_size and plan.memory_bytes is not None:
        memory = f"about {memory}, worked out from batches of {plan.measured_batch}"
    if plan.memory_limit is not None:
        memory += f"; {size(plan.memory_limit)} are there"
    seen = f"{plan.frames_seen:,} seen, each a new one"
    if plan.distinct_frames is not None:
        seen = (f"{plan.frames_seen:,} seen; {plan.distinct_frames:,} in the training split, each seen "
                f"{plan.epochs:,.{0 if plan.epochs >= 10 else 1}f} times")
    accumulated = f" in {plan.accumulate} parts" if plan.accumulate > 1 else ""
    lines = [
        ("run", f"{plan.steps:,} steps of {plan.frames_per_step:,} frames{accumulated} from {plan.data}; {plan.precision}, "
                f"{plan.threads} CPU thread(s)"),
        ("measured", f"{plan.measured_steps} steps with batches of {plan.measured_batch}{busy}"),
        ("time", f"{duration(plan.total_seconds)} = steps {duration(steps)} + {plan.evaluations} evaluations "
                 f"{duration(evaluation)} + {plan.saves} saves {duration(saves)} + start {duration(plan.start_seconds)}"),
        ("speed", f"{plan.frames_per_second:,.3g} frames/s; a step takes {plan.step_seconds:.3g} s, give or take "
                  f"{plan.step_error:.2g} s; {share(plan.waited)} of it waits for its batch"),
        ("work", f"{flops(plan.flops_per_frame)} per frame (matrix products and attention, forward and backward), "
                 f"{flops(plan.flops_per_frame * plan.frames_per_second)}/s, {flops(plan.flops_per_frame * plan.frames_seen)} "
                 "in all"),
        ("memory", memory),
        ("model", f"{plan.parameters / 1e6:.1f} M parameters, {plan.kept_parameters / 1e6:.1f} M of them in the RGB "
                  "encoder that is kept"),
        ("disk", f"{size(sum(plan.disk.values()))} = {', '.join(f'{k} {size(v)}' for k, v in plan.disk.items())}; at times "
                 f"{size(plan.disk_peak)}; {size(plan.disk_free)} free"),
        ("frames", seen)]
    lines += [("reference", _compared(plan, run)) for run in plan.references]
    return lines
