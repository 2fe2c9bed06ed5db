"""A run folder as others see it while it is written, and the ordinary ``mask3d pretrain`` or ``mask3d finetune`` in a process
of its own.

Nothing here trains. :class:`Run` reads what a run leaves behind (only what is new of its log), says how it stands, and
starts, stops and resumes it; whoever started it, a terminal or a cluster, is followed alike.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from mask3d_core.errors import ConfigError, Mask3DError
from mask3d_core.training.config import PretrainConfig, pretrain_config, to_dict
from mask3d_core.training.finetune_config import FinetuneConfig
from mask3d_core.training.process import (
    FAILED, FINISHED, LOCK, RUNNING, SILENCE, STOPPED, Owner, living_owner, read_owner, this_process, write_owner)
from mask3d_viz.run_plans import command_of, config_of, data_of, flat, lesson_config
from mask3d_viz.run_status import ALIVE, NOT_STARTED, STARTING, STOPPING, LogTail, RunStatus, duration

OUTPUT = "output.log"  # what a process started here printed
NICENESS = 10  # a prediction beside a training process takes 35 ms at this, 152 ms without it
WRITTEN = ("config.json", "log.jsonl", "latest.safetensors", "latest.json", "best.safetensors", "best.json", "scores.json",
           "curve.png",
           "process.json", LOCK, OUTPUT, "previews", "state")
_children: dict[int, subprocess.Popen] = {}  # asked after, so that none stays a zombie


class Run:
    """A run folder: how it stands, and its process.

    Args:
        folder: the run folder; need not be there yet.
        config: what to start in it; None: what its ``config.json`` says.
        device: "cpu" or "cuda"; "": the run's own choice.
        threads: of its process on a CPU; 0: torch's own choice.
    """

    def __init__(self, folder: str | Path, config: PretrainConfig | FinetuneConfig | None = None, device: str = "",
                 threads: int = 0):
        self.folder, self.device, self.threads = Path(folder), device, threads
        self.log = LogTail(self.folder / "log.jsonl")
        self._config, self._config_seen = config, 0
        self._stopping: tuple[int, str] | None = None  # the process that was asked to stop
        self.watchers: list[Callable[[], Any]] = []  # told in wait(), while a cell holds the kernel

    def __repr__(self) -> str:
        return f"{self.folder}: {self.look().words()}"

    @property
    def config(self) -> PretrainConfig | FinetuneConfig | None:
        """What is trained: the folder's ``config.json``, else what it was made with."""
        path = self.folder / "config.json"
        with suppress(FileNotFoundError, ValueError):  # a file of another version counts as none
            seen = path.stat().st_mtime_ns
            if seen != self._config_seen:
                self._config, self._config_seen = config_of(json.loads(path.read_text()), str(path)), seen
        return self._config

    def command(self) -> str:
        """The command line, as one would type it; "" where nothing says what to train."""
        config = self.config
        return "" if config is None else shlex.join(["mask3d", *command_of(self.folder, config, self._device())])

    def _device(self) -> str:
        owner = read_owner(self.folder)
        return self.device or (owner.device if owner is not None else "")

    # ---- how it stands -----------------------------------------------------------------------------------------------

    def look(self) -> RunStatus:
        """How the run stands now; cheap enough for every second."""
        self.log.read()
        records, config, owner = self.log.records, self.config, read_owner(self.folder)
        step = max((r.get("step", 0) for r in records[-3:]), default=0)
        total = config.fit.steps if config is not None else 0
        rate, speed = self._speed()
        metrics = next((r["eval"] for r in reversed(records) if isinstance(r.get("eval"), dict)), {})
        state, reason = self._state(owner, step, total, bool(records))
        if self.log.broken:
            reason = " ".join(filter(None, (reason, f"{self.log.broken} unreadable line(s) of the log were left out.")))
        left = (total - step) / speed if total and speed else None
        return RunStatus(state, step, total, reason, rate if state in ALIVE else 0.0, left, metrics, owner)

    def _state(self, owner: Owner | None, step: int, total: int, has_log: bool) -> tuple[str, str]:
        is_done = bool(total) and step >= total
        if owner is None or (owner.state == RUNNING and not owner.is_here):
            if is_done:
                return FINISHED, ""
            if not has_log:
                return (NOT_STARTED, "") if owner is None else (STARTING, f"It was started on {owner.host}.")
            silent = time.time() - self.log.written
            where = "a process that is not known here" if owner is None else f"the machine {owner.host}"
            if silent < max(SILENCE, 5 * self._interval()):
                return RUNNING, f"It is trained by {where}: stop it where it was started."
            return STOPPED, f"No word for {duration(silent)} from {where}."
        child = _children.get(owner.pid)
        code = child.poll() if child is not None else None
        if owner.state == RUNNING and owner.is_alive:
            if self._stopping == (owner.pid, owner.identity):
                return STOPPING, "It finishes its step and saves."
            return (RUNNING, "") if has_log and self.log.written >= owner.began else (STARTING, "")
        if owner.state != RUNNING:
            return owner.state, owner.reason
        said = self._last_error(owner)
        if not said and code is not None and code < 0:
            said = f"Its process was ended by {signal.Signals(-code).name}" + (
                " (by hand, or because the memory was full)." if -code == signal.SIGKILL else ".")
        if not said and code == 130:
            return STOPPED, "It was stopped before its first step."
        return FAILED, said or "Its process ended without a word (killed, or the machine went down)."

    def _last_error(self, owner: Owner) -> str:
        """What the process printed last where that is an error: our one line, or the last line of a traceback."""
        path = self.folder / OUTPUT
        if not path.is_file() or path.stat().st_mtime < owner.began - 1:
            return ""
        lines = [line.strip() for line in path.read_text(errors="replace")[-8000:].splitlines() if line.strip()]
        for line in reversed(lines):
            if line.startswith("error: "):
                return line[7:][:500]
        return lines[-1][:500] if any(line.startswith("Traceback") for line in lines) else ""

    def _interval(self) -> float:
        """Seconds between the last records."""
        times = [r["seconds"] for r in self.log.records[-6:] if isinstance(r.get("seconds"), (int, float))]
        return max((b - a for a, b in zip(times, times[1:])), default=0.0)

    def _speed(self) -> tuple[float, float]:
        """(frames, steps) per second over the last records of this start, evaluations included; 0 while not known."""
        rows = [r for r in self.log.records[-14:] if isinstance(r.get("seconds"), (int, float)) and "loss" in r]
        rows = [r for i, r in enumerate(rows) if all(r["seconds"] <= later["seconds"] for later in rows[i + 1:])]
        if len(rows) < 2 or rows[-1]["seconds"] <= rows[0]["seconds"]:
            return 0.0, 0.0
        first, last = rows[0], rows[-1]
        speed = (last["step"] - first["step"]) / (last["seconds"] - first["seconds"])
        return speed * last.get("frames", 0) / max(1, last["step"]), speed

    @property
    def weights(self) -> Path:
        """The newest weights, to look at."""
        return self.folder / "latest.safetensors"

    def previews(self) -> list[tuple[int, Path]]:
        """(step, file) of the fixed frames, oldest first; none of a part of the run that was taken back."""
        last = max((r.get("step", 0) for r in self.log.records[-3:]), default=0)
        found = []
        for path in sorted((self.folder / "previews").glob("step-*.npz")):
            with suppress(ValueError):
                found.append((int(path.stem[5:]), path))
        return [(step, path) for step, path in found if step <= last]

    # ---- its process -------------------------------------------------------------------------------------------------

    def start(self) -> Run:
        """Train, from the start or from the last save, in a process of its own that outlives this one.

        A run that goes on, or is finished, is left alone, so that the call may be made again after a reload.

        Raises:
            Mask3DError: nothing says what to train, or this machine cannot start it.
        """
        status, config = self.look(), self.config
        if not status.can_start:
            return self
        if config is None:
            raise Mask3DError("a configuration to train", "neither a config.json nor options",
                              "Say what to train, e.g. start_run('runs/mine', preset='tiny').", self.folder)
        if os.name == "nt":
            raise Mask3DError("Linux or macOS for training from a panel", "Windows",
                              f"Start it in a terminal, the panel follows it: {self.command()}", self.folder)
        owner = status.owner
        place = owner.folder if owner is not None and owner.is_here and Path(owner.folder).is_dir() else str(Path.cwd())
        arguments = command_of(self.folder.resolve(), config, self._device())
        self.folder.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "MPLBACKEND": "Agg", "PYTHONUNBUFFERED": "1", "TQDM_DISABLE": "1",
                       **({"OMP_NUM_THREADS": str(self.threads)} if self.threads else {})}
        with open(self.folder / OUTPUT, "ab") as output:
            output.write(f"$ {shlex.join(['mask3d', *arguments])}\n".encode())
            output.flush()
            process = subprocess.Popen([sys.executable, "-m", "mask3d_core.cli", *arguments], cwd=place, env=environment,
                                       stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                                       start_new_session=True)
        _children[process.pid] = process
        with suppress(OSError):  # it has ended already; look() says why
            os.setpriority(os.PRIO_PROCESS, process.pid, NICENESS)
        if living_owner(self.folder) is None:  # else it has claimed the folder itself by now, or somebody came before it
            write_owner(self.folder, this_process(process.pid, self._device(), place))
        return self

    def stop(self) -> Run:
        """Ask the process to finish its step, save and end: Ctrl-C, in effect. Start goes on from there.

        Raises:
            Mask3DError: nothing runs, or its process is not one of this machine.
        """
        status = self.look()
        if status.state == STOPPING:
            return self
        if not status.can_stop:
            raise Mask3DError("a run of this machine that goes on", status.words(),
                              status.reason or "There is nothing to stop.", self.folder)
        with suppress(ProcessLookupError):  # it ended this very moment
            os.kill(status.owner.pid, signal.SIGINT)
        self._stopping = (status.owner.pid, status.owner.identity)
        return self

    def wait(self, seconds: float = 60.0, until: Callable[[RunStatus], bool] | None = None, every: float = 0.5) -> RunStatus:
        """Hold the cell while the run goes on; panels that watch it stay live. The run itself does not mind.

        Args:
            seconds: at most; Ctrl-C (the notebook's stop button) ends the waiting, not the run.
            until: end when this says so.
            every: seconds between two looks.
        """
        end = time.monotonic() + seconds
        while True:
            status = self.look()
            for tell in list(self.watchers):
                tell()
            left = end - time.monotonic()
            if not status.is_alive or left <= 0 or (until is not None and until(status)):
                return status
            time.sleep(min(every, max(0.0, left)))

    def wait_for_weights(self, seconds: float = 120.0) -> Path:
        """Hold the cell until there are weights to look at (a run writes its first ones before its first step).

        Returns:
            The run folder, which opens as a checkpoint.

        Raises:
            Mask3DError: the run ended without any, or none came in time; says why.
        """
        both = [self.weights, self.weights.with_suffix(".json")]
        status = self.wait(seconds, lambda _: all(path.is_file() for path in both))
        if not all(path.is_file() for path in both):
            raise Mask3DError("the run's first weights", status.words(), status.reason or "Wait longer.", self.folder)
        return self.folder

    def clear(self) -> Run:
        """Remove what a run wrote into its folder, to begin again.

        Raises:
            Mask3DError: the run goes on.
        """
        status = self.look()
        if status.is_alive:
            raise Mask3DError("a run that has ended", status.words(), "Stop it first.", self.folder)
        config = self.config
        for name in WRITTEN:
            path = self.folder / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        self._config, self._config_seen, self._stopping = config, 0, None
        self.log.read()
        return self


def plan_run(folder: str | Path, frames: Any = "", preset: str = "tiny", control: str = "mask3d", steps: int | None = None,
             batch_size: int | None = None, init: str = "random", changes: Sequence[str] = (),
             config: PretrainConfig | None = None, device: str = "") -> Run:
    """A run that could be started; nothing is written yet.

    Args:
        folder: the run folder.
        frames: a prepared store (or its folder); "" or "rooms": rooms rendered while it trains.
        preset, control, steps, batch_size, init, changes: as the flags of ``mask3d pretrain`` (``changes`` are ``--set``'s).
        config: a whole configuration instead of all these.
        device: "cpu" or "cuda"; "": the GPU if there is one.

    Raises:
        ConfigError: an impossible configuration, all problems at once. Mask3DError: the frames are no store.
    """
    if config is None:
        from mask3d_core.cli import change_config

        config = pretrain_config(preset, control, data=data_of(frames), init=init)
        sizes = {k: v for k, v in (("steps", steps), ("batch_size", batch_size)) if v is not None}
        config = change_config(replace(config, fit=replace(config.fit, **sizes)), tuple(changes))
    elif frames not in ("", config.data):
        config = replace(config, data=data_of(frames))
    return Run(folder, config.validate(), device)


def start_run(folder: str | Path, *arguments: Any, fresh: bool = False, **options: Any) -> Run:
    """Plan a run (see :func:`plan_run` for the options) and start it; what goes on or is finished there is only followed.

    Args:
        folder: the run folder.
        fresh: take away what an ended run has left in the folder, and begin again.

    Raises:
        ConfigError: another run lies in the folder, or the configuration is impossible.
    """
    run = plan_run(folder, *arguments, **options)
    wanted = run._config
    if fresh and not run.look().is_alive:
        run.clear()
        run._config = wanted
    elif run.config != wanted:
        keys = [k for k, v in flat(to_dict(wanted)).items() if flat(to_dict(run.config)).get(k) != v]
        raise ConfigError([f"{run.folder} holds a run with another {', '.join(keys)}; choose another folder, or fresh=True "
                           "once it has ended"])
    return run.start()


__all__ = ["LogTail", "Run", "RunStatus", "command_of", "duration", "lesson_config", "plan_run", "start_run"]
