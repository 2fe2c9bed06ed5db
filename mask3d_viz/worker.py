"""Torch work beside a live view: one thread, the newest wish wins, nothing queues up behind a slider."""

from __future__ import annotations

import asyncio
import atexit
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from weakref import WeakSet

REST = 0.15  # seconds that the hand must rest before slow work begins
SLOW = 0.1  # seconds from which work is slow
PATIENCE = 10.0  # seconds that an ending program waits at most for work that cannot be broken off

_workers: WeakSet[Worker] = WeakSet()


@dataclass(frozen=True)
class Wish:
    """What a view wants, whom to tell, and on which event loop (None: in ``wait``)."""

    number: int
    work: Callable[[], Any]
    done: Callable[[Any, BaseException | None], None]
    asked: float
    loop: asyncio.AbstractEventLoop | None


class Worker:
    """One thread that does the newest wish the moment it is free and forgets those that were overtaken.

    Results are handed over on the event loop that the wish came from (a kernel's: there the hand's own messages arrive
    too, so that a view is never moved by two threads at once); without a running loop, in :meth:`wait`.

    Args:
        rest: seconds without a newer wish that slow work waits for.
        slow: work whose last run took longer than this many seconds is slow.
    """

    def __init__(self, rest: float = REST, slow: float = SLOW):
        self.rest, self.slow = rest, slow
        self.seconds = 0.0  # of the last run
        self._wish: Wish | None = None
        self._number, self._finished, self._is_closed = 0, 0, False
        self._arrived: deque[tuple[Wish, Any, BaseException | None]] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        _workers.add(self)

    def ask(self, work: Callable[[], Any], done: Callable[[Any, BaseException | None], None]) -> int:
        """Wish for ``work()``; ``done(result, error)`` is called with what came of it, unless a newer wish overtakes.

        Returns:
            The wish's number; they grow.
        """
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            loop = None
        with self._changed:
            if self._is_closed:
                raise RuntimeError("this worker is closed")
            self._number += 1
            self._wish = Wish(self._number, work, done, time.perf_counter(), loop)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="mask3d-worker", daemon=True)
                self._thread.start()
            self._changed.notify_all()
            return self._number

    @property
    def is_busy(self) -> bool:
        """Whether a wish is open."""
        return self._finished < self._number

    def wait(self, timeout: float = 60.0) -> bool:
        """Until no wish is open; False when the time ran out. What has arrived is handed over here."""
        end = time.monotonic() + timeout
        while True:
            with self._changed:
                if not self._changed.wait_for(lambda: self._arrived or not self.is_busy, max(0.0, end - time.monotonic())):
                    return False
                if not self.is_busy:
                    return True
            self._hand_over()

    def close(self) -> None:
        """End the thread after what it is doing."""
        with self._changed:
            self._is_closed, self._wish, self._finished = True, None, self._number
            self._arrived.clear()
            self._changed.notify_all()

    def _join(self, seconds: float) -> None:
        """Wait until the thread has ended, at most so long."""
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(seconds)

    def _next(self) -> Wish | None:
        """The newest wish, once there is one and the hand rests."""
        with self._changed:
            while not self._is_closed:
                if self._wish is None:
                    self._changed.wait()
                    continue
                left = self._wish.asked + self.rest - time.perf_counter() if self.seconds > self.slow else 0.0
                if left <= 0:
                    wish, self._wish = self._wish, None
                    return wish
                self._changed.wait(left)
            return None

    def _run(self) -> None:
        while (wish := self._next()) is not None:
            began, result, error = time.perf_counter(), None, None
            try:
                result = wish.work()
            except Exception as problem:  # a view shows it; the thread lives on
                error = problem
            self.seconds = time.perf_counter() - began
            with self._changed:
                self._arrived.append((wish, result, error))
                self._changed.notify_all()
            if wish.loop is not None:
                with suppress(RuntimeError):  # the loop was closed meanwhile: as without one
                    wish.loop.call_soon_threadsafe(self._hand_over)

    def _hand_over(self) -> None:
        while True:
            try:
                arrived = self._arrived.popleft()
            except IndexError:
                return
            self._tell(*arrived)

    def _tell(self, wish: Wish, result: Any, error: BaseException | None) -> None:
        if wish.number == self._number and not self._is_closed:
            try:
                wish.done(result, error)
            except Exception:  # a listener's fault is no reason to stop listening to the hand
                traceback.print_exc()
        with self._changed:
            self._finished = max(self._finished, wish.number)
            self._changed.notify_all()


@atexit.register
def _end_all() -> None:
    """A program that ends while torch works in another thread is aborted: let that work come to its end first."""
    workers, end = list(_workers), time.monotonic() + PATIENCE
    for worker in workers:
        worker.close()
    for worker in workers:
        worker._join(max(0.0, end - time.monotonic()))


__all__ = ["REST", "SLOW", "Worker"]
