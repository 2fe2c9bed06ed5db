"""Who trains into a run folder: ``RUN/process.json``, by which others tell a run that goes on from one that died.

A process number alone does not say it, since numbers are given again: beside it stands when that process began.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import platform
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from mask3d_core.errors import ConfigError
from mask3d_core.files import write_json

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

FILE, LOCK = "process.json", ".lock"
SILENCE = 60.0  # seconds without a word after which a run that another machine trains counts as ended, at least
RUNNING, FINISHED, STOPPED, FAILED = "running", "finished", "stopped", "failed"


@dataclass(frozen=True)
class Owner:
    """The last process that trained, or trains, into a run folder.

    Args:
        pid: its number on ``host``.
        identity: when it began, see :func:`identity_of`; two processes with one number differ in it.
        host: the machine's name.
        folder: its working directory, from which relative paths of its configuration are meant.
        device: what it was told to train on; "": its own choice.
        state: "running", "finished", "stopped" (saved, goes on with the same command) or "failed".
        reason: of a failure, in one line.
        began, ended: seconds since 1970; ended is 0 while it runs.
        can_stop: SIGINT makes it save and stop.
    """

    pid: int
    identity: str
    host: str
    folder: str
    device: str = ""
    state: str = RUNNING
    reason: str = ""
    began: float = 0.0
    ended: float = 0.0
    can_stop: bool = True

    @property
    def is_here(self) -> bool:
        """Whether it runs, or ran, on this machine."""
        return self.host == platform.node()

    @property
    def is_alive(self) -> bool:
        """Whether that very process is there, on this machine."""
        return self.is_here and identity_of(self.pid) == self.identity


def identity_of(pid: int) -> str | None:
    """When a process began, as text that no later process with the same number shares.

    Returns:
        None where there is no such process, or it has ended and only waits to be counted; "" where the machine does not
        tell (Windows).
    """
    if os.name == "nt":
        return ""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return None if fields[0] in "ZX" else f"{boot}:{fields[19]}"
    except OSError:
        if Path("/proc/self/stat").exists():
            return None
    done = subprocess.run(["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True)
    state, _, began = done.stdout.strip().partition(" ")
    return began.strip() if began and not state.startswith("Z") else None


def this_process(pid: int | None = None, device: str | None = None, folder: str | Path | None = None) -> Owner:
    """An owner record of this process, or of one on this machine that has just been started.

    Args:
        pid: the other process.
        device: what it trains on.
        folder: its working directory.
    """
    return Owner(os.getpid() if pid is None else pid, identity_of(os.getpid() if pid is None else pid) or "",
                 platform.node(), str(Path.cwd() if folder is None else folder), device or "", began=time.time(),
                 can_stop=pid is not None or threading.current_thread() is threading.main_thread())


def read_owner(run: str | Path) -> Owner | None:
    """Who trains, or trained last, into a run folder; None where nobody wrote that down."""
    try:
        values = json.loads((Path(run) / FILE).read_text())
        names = {field.name for field in dataclasses.fields(Owner)}
        return Owner(**{name: value for name, value in values.items() if name in names})
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, TypeError, AttributeError):  # not ours, or of another version: as if it were not there
        return None


def write_owner(run: str | Path, owner: Owner) -> None:
    """Write ``process.json`` so that a reader sees the old one or the new one."""
    write_json(Path(run) / FILE, dataclasses.asdict(owner))


def living_owner(run: str | Path) -> Owner | None:
    """Who trains into a run folder now: a living process of this machine, or one of another machine that was heard of."""
    owner = read_owner(run)
    if owner is None or owner.state != RUNNING:
        return None
    if owner.is_here:
        return owner if owner.is_alive else None
    heard = owner.began
    with suppress(OSError):
        heard = max(heard, (Path(run) / "log.jsonl").stat().st_mtime)
    return owner if time.time() - heard < SILENCE else None


class Claim:
    """A run folder that this process trains into; ``state`` is how it ends."""

    state = FINISHED


@contextmanager
def _locked(run: Path) -> Iterator[None]:
    """Hold ``RUN/.lock``: of two that ask at once, one gets it. It is given back with the process, however that ends.

    Raises:
        ConfigError: another process holds it.
    """
    if fcntl is None:
        yield
        return
    while True:
        place = os.open(run / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as problem:
            if problem.errno in (errno.EWOULDBLOCK, errno.EACCES):
                os.close(place)
                raise ConfigError(_occupied(run, living_owner(run))) from None
            if problem.errno not in (errno.ENOTSUP, errno.ENOLCK, errno.ENOSYS):  # a folder over a network may know no locks
                os.close(place)
                raise
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(place), os.stat(run / LOCK)):
                break
        os.close(place)  # it was taken away meanwhile: nobody else would see this one
    try:
        yield
    finally:
        with suppress(OSError):  # given back even where a forked process still holds it
            fcntl.flock(place, fcntl.LOCK_UN)
        os.close(place)


def _occupied(run: Path, owner: Owner | None) -> str:
    who = "another process" if owner is None else f"process {owner.pid}{'' if owner.is_here else f' on {owner.host}'}"
    return f"{who} is training into {run}; stop it first, or choose another run folder"


@contextmanager
def claimed(run: Path, is_main: bool = True, device: str | None = None) -> Iterator[Claim]:
    """Hold a run folder: two processes that trained into one would spoil each other's log and states.

    Args:
        run: the run folder; made where it is not there.
        is_main: False on all ranks but the first, which do nothing.
        device: for the record.

    Raises:
        ConfigError: another process trains into it.
    """
    claim = Claim()
    if not is_main:
        yield claim
        return
    run.mkdir(parents=True, exist_ok=True)
    with _locked(run):
        other = living_owner(run)
        if other is not None and not (other.is_here and other.pid == os.getpid()):
            raise ConfigError(_occupied(run, other))
        owner = this_process(device=device)
        write_owner(run, owner)
        state, reason = FAILED, ""
        try:
            yield claim
            state = claim.state
        except KeyboardInterrupt:
            state = STOPPED
            raise
        except BaseException as problem:
            text = str(problem) if isinstance(problem, ValueError) and str(problem) else f"{type(problem).__name__}: {problem}"
            reason = " ".join(text.split())[:500]
            raise
        finally:
            with suppress(OSError):  # a full disk: what went wrong has been raised, and the dead process tells the rest
                write_owner(run, dataclasses.replace(owner, state=state, reason=reason, ended=time.time()))


__all__ = ["FAILED", "FINISHED", "LOCK", "RUNNING", "SILENCE", "STOPPED", "Owner", "claimed", "identity_of", "living_owner",
           "read_owner", "this_process", "write_owner"]
