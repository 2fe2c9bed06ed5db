"""Explorers that follow a run: its newest weights become a checkpoint of the session, again and again."""

from __future__ import annotations

import asyncio
import os
import time
import traceback
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mask3d_core.errors import CheckpointError, ConfigError, Mask3DError
from mask3d_core.models.mask3d import Mask3D
from mask3d_core.training.checkpoint import load_model
from mask3d_viz.explorers.studio import studio_of
from mask3d_viz.runs import Run
from mask3d_viz.session import Session
from mask3d_viz.worker import Worker

TRIES = 5  # readings of weights that do not change and cannot be read, before that is said


class Beat:
    """Does something every few seconds on the kernel's event loop, between the hand's messages; no thread waits for it.

    Without a running loop (a test, a script) nothing beats: whoever made it calls for each step.

    Args:
        action: a method; a beat ends when its object is gone.
        every: seconds.
    """

    def __init__(self, action: Callable[[], Any], every: float):
        self.every, self._action, self._timer = every, weakref.WeakMethod(action), None
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            self._loop = None
        self._again()

    @property
    def is_beating(self) -> bool:
        """Whether there is a loop to beat on."""
        return self._timer is not None

    def _again(self) -> None:
        self._timer = None if self._loop is None else self._loop.call_later(self.every, self._beat)

    def _beat(self) -> None:
        action = self._action()
        if action is None or self._timer is None:
            return
        try:
            action()
        except Exception:  # one bad look is no reason to look no more
            traceback.print_exc()
        if self._timer is not None:
            self._again()

    def stop(self) -> None:
        """Beat no more."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._loop = None, None


class Following:
    """A session that follows a run; made by :func:`follow_run`.

    Attributes:
        step: of the weights that are shown; -1 before the first.
        error: why nothing newer is shown, in one line, or "".
        seconds: that the last loading took, beside the kernel.
    """

    def __init__(self, session: Session, run: Run, every: float, name: str, show: bool):
        self.session, self.run, self.name, self.is_shown = session, run, name, show
        self.step, self.error, self.seconds = -1, "", 0.0
        self.record: dict[str, Any] = {}
        self._seen: tuple[int, ...] = ()
        self._failed = 0
        self.worker = Worker(rest=0.0)
        self._listeners: list[Callable[[], None]] = []
        self._beat = Beat(self._look, every)
        run.watchers.append(self._held)
        self._look()

    def on(self, callback: Callable[[], None]) -> None:
        """Be told when newer weights are shown, or why not."""
        self._listeners.append(callback)

    def poll(self, timeout: float = 60.0) -> bool:
        """One look, waited for; True when newer weights are shown now."""
        before = self.step, self._seen
        self._look()
        self.worker.wait(timeout)
        return (self.step, self._seen) != before and not self.error

    def _held(self) -> None:
        """A look while a cell holds the kernel, so that nothing arrives by itself."""
        self._look()
        for worker in (self.worker, studio_of(self.session).worker):
            worker.wait(0.0)

    def stop(self) -> None:
        """Follow no more; the session keeps what it shows."""
        self._beat.stop()
        if self._held in self.run.watchers:
            self.run.watchers.remove(self._held)
        self.worker.close()

    def _signature(self) -> tuple[int, ...] | None:
        """What changes whenever newer weights were written; None before both files are there."""
        try:
            weights, record = (os.stat(self.run.weights.with_suffix(s)) for s in (".safetensors", ".json"))
        except OSError:
            return None
        return weights.st_mtime_ns, weights.st_size, weights.st_ino, record.st_mtime_ns, record.st_ino

    def _look(self) -> None:
        now = self._signature()
        if now is not None and now != self._seen and not self.worker.is_busy:
            self.worker.ask(lambda: self._load(now), lambda found, problem: self._take(now, found, problem))

    def _load(self, signature: tuple[int, ...]) -> tuple[Mask3D, dict[str, Any]]:
        """Beside the kernel: the weights with the record that was written with them.

        Raises:
            CheckpointError: they cannot be read now. ConfigError: the session cannot show such a model.
        """
        began = time.perf_counter()
        model, record = load_model(self.run.folder)
        if self._signature() != signature:
            raise CheckpointError("weights that hold still", "newer ones", "They are read at the next look.", self.run.folder)
        wanted, got = self.session.model()[0].config, model.config
        if (got.image_size, got.patch) != (wanted.image_size, wanted.patch):
            raise ConfigError(f"{self.run.folder} trains on {_size(got)} and this session shows {_size(wanted)}; open a "
                              f"session on the run itself: open_session(checkpoint={str(self.run.folder)!r})")
        if "depth" not in got.targets:
            raise ConfigError(f"{self.run.folder} predicts {' and '.join(got.targets)}, no depth, so there is nothing to show")
        self.seconds = time.perf_counter() - began
        return model, record

    def _take(self, signature: tuple[int, ...], found: Any, problem: BaseException | None) -> None:
        if isinstance(problem, CheckpointError) and self._failed < TRIES:
            self._failed += 1  # half written, or newer ones came meanwhile: the next look reads them
            return
        self._seen, self._failed = signature, 0
        self.error = "" if problem is None else str(problem) if isinstance(problem, Mask3DError) else f"{problem!r}"
        if problem is None:
            self.record = found[1]
            self.step = int(self.record.get("step", 0))
            self.session.checkpoints[self.name] = self.run.folder
            self.session.refresh(self.name, found)
            if self.is_shown:
                self.is_shown = False  # once: after that the reader chooses
                self.session.change(checkpoint=self.name)
        for callback in list(self._listeners):
            callback()


def _size(config: Any) -> str:
    return f"{config.image_size[0]}x{config.image_size[1]} pixels in patches of {config.patch}"


def follow_run(session: Session, run: Run | str | Path, every: float = 3.0, name: str = "", show: bool = True) -> Following:
    """Let all explorers of a session follow a run: whenever it writes newer weights, they show what these predict.

    Weights are read beside the kernel; a file that is not there yet, or half written, is waited for.

    Args:
        session: whose explorers follow.
        run: the run, or its folder; whoever started it.
        every: seconds between two looks.
        name: of the checkpoint in the session; "": the run folder's.
        show: choose it as soon as its first weights are there.

    Raises:
        ConfigError: the session has another checkpoint of that name.
    """
    run = run if isinstance(run, Run) else Run(run)
    name = name or run.folder.resolve().name
    known = session.checkpoints.get(name)
    is_other = isinstance(known, (str, Path)) and Path(known).resolve() not in (run.folder.resolve(),
                                                                               (run.folder / "latest").resolve())
    if is_other:
        raise ConfigError(f"the session's checkpoint {name!r} is another one, {known}; pass name=")
    return Following(session, run, every, name, show)


__all__ = ["Beat", "Following", "follow_run"]
