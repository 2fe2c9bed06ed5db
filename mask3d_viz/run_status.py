"""How a run stands, and its log read while it grows."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mask3d_core.training.process import FAILED, RUNNING, STOPPED, Owner

NOT_STARTED, STARTING, STOPPING = "not started", "starting", "stopping"
ALIVE = (STARTING, RUNNING, STOPPING)


class LogTail:
    """A growing log of JSON lines; each reading takes only what is new.

    A last line without its end waits for it; a log that was written anew (a resumed run's) is read anew.

    Args:
        path: the log; need not be there yet.
        leave_out: keys that are not kept.
    """

    def __init__(self, path: str | Path, leave_out: Sequence[str] = ("losses", "first")):
        self.path, self.leave_out = Path(path), leave_out
        self.records: list[dict[str, Any]] = []
        self.broken = 0  # lines that no reader could parse
        self.version = 0  # grows with every change of ``records``
        self.written = 0.0  # when the log last grew, seconds since 1970
        self._file, self._rest = (0, 0), b""
        self._offset = 0

    def read(self) -> bool:
        """Take what is new; True when there was something."""
        try:
            with open(self.path, "rb") as file:
                now = os.fstat(file.fileno())
                if (now.st_dev, now.st_ino) != self._file or now.st_size < self._offset:
                    self._file, self._offset, self._rest = (now.st_dev, now.st_ino), 0, b""
                    self.records, self.broken, self.version = [], 0, self.version + 1
                file.seek(self._offset)
                new = file.read()
        except FileNotFoundError:
            gone = bool(self.records)
            self.records, self._file, self._offset, self._rest = [], (0, 0), 0, b""
            self.version += gone
            return gone
        self.written = now.st_mtime
        if not new:
            return False
        self._offset += len(new)
        *lines, self._rest = (self._rest + new).split(b"\n")
        for line in filter(bytes.strip, lines):
            try:
                record = json.loads(line)
                self.records.append({k: v for k, v in record.items() if k not in self.leave_out})
            except (ValueError, AttributeError):
                self.broken += 1
        self.version += bool(lines)
        return bool(lines)


@dataclass(frozen=True)
class RunStatus:
    """How a run stands.

    Args:
        state: "not started", "starting", "running", "stopping", "stopped", "finished" or "failed".
        step, total: steps done and in all; total is 0 where no configuration is there yet.
        reason: why it failed, or what else a reader should know.
        frames_per_second: 0 while it is not known.
        seconds_left: None where it is not known.
        metrics: of the last evaluation.
        owner: the process that trains or trained last; None: not known.
    """

    state: str
    step: int = 0
    total: int = 0
    reason: str = ""
    frames_per_second: float = 0.0
    seconds_left: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    owner: Owner | None = None

    @property
    def is_alive(self) -> bool:
        """Whether somebody trains."""
        return self.state in ALIVE

    @property
    def can_start(self) -> bool:
        """Whether Start or Resume means anything."""
        return self.state in (NOT_STARTED, STOPPED, FAILED)

    @property
    def can_stop(self) -> bool:
        """Whether this machine can ask the process to save and stop."""
        return self.state in (STARTING, RUNNING) and self.owner is not None and self.owner.is_here and self.owner.can_stop

    def words(self) -> str:
        """ "running: step 120 of 300, 85 frames/s, 2 min left" """
        parts = [f"step {self.step}{f' of {self.total}' if self.total else ''}"] if self.state != NOT_STARTED else []
        if self.state in ALIVE and self.frames_per_second:
            parts.append(f"{self.frames_per_second:.0f} frames/s")
        if self.state == RUNNING and self.seconds_left is not None:
            parts.append(f"{duration(self.seconds_left)} left")
        return f"{self.state}: {', '.join(parts)}" if parts else self.state


def duration(seconds: float) -> str:
    """Seconds in the unit that a reader wants: "40 s", "12 min", "3 h 20 min"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


__all__ = ["ALIVE", "NOT_STARTED", "STARTING", "STOPPING", "LogTail", "RunStatus", "duration"]
