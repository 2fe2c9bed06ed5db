"""What the explorers of one session share: the predictions, the worker, and the newest result."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from mask3d_core.errors import ConfigError, Mask3DError
from mask3d_viz.predictions import Predictions, Shown
from mask3d_viz.session import Session
from mask3d_viz.worker import Worker

PREDICTS = ("frame", "rgb_ratio", "depth_ratio", "seed", "painted_rgb", "painted_depth", "checkpoint", "color_source")
"""Changes of these need a new prediction; all others only another view of the one that is there."""
MOVES = frozenset({"rgb_ratio", "depth_ratio", "seed", "painted_rgb", "painted_depth"})  # under the hand, step by step
STALE_AFTER = 0.25  # seconds: a result that is overtaken sooner is not called stale; the flicker would cost more than it says
JUDGE_REST = 0.5  # seconds of rest before opponents are measured: they take longer than the prediction, and the browser draws it first


class Arrow(NamedTuple):
    """From one patch to another: which of what modality moves which.

    start, end: patches. weight: 0..1. color: CSS. modality: "rgb" or "depth", of the start.
    """

    start: int
    end: int
    weight: float
    color: str
    modality: str


def in_words(problem: BaseException) -> str:
    """A problem as a panel says it: what is wrong, without the frame around it that a command line wants."""
    if isinstance(problem, ConfigError):
        return "; ".join(problem.problems)
    return str(problem) if isinstance(problem, Mask3DError) else f"{type(problem).__name__}: {problem}"


class Studio:
    """One per session; get it with :func:`studio_of`.

    Attributes:
        shown: the newest finished prediction, or None.
        is_stale: a newer one is on its way.
        arrows: between patches, drawn in every view that can; set by :meth:`point`.
        error: why the newest cannot be shown, in words, or ""; without ``is_stale`` nothing newer is on its way.
    """

    def __init__(self, session: Session):
        self.session, self.predictions, self.worker = session, Predictions(session), Worker()
        self._judge, self._judged_listeners = Worker(rest=JUDGE_REST, slow=-1.0), []  # the opponents: only for a hand at rest
        self.shown: Shown | None = None
        self.is_stale, self.error = False, ""
        self.arrows: tuple[Arrow, ...] = ()
        self.answers: OrderedDict[tuple, Any] = OrderedDict()  # influence and attention by a prediction's key
        self._arrow_listeners: list[Callable[[], None]] = []
        self._listeners: list[Callable[[], None]] = []
        session.on(self._wanted, *PREDICTS)

    def on(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Be told when ``shown``, ``is_stale`` or ``error`` changed; returns how to be told no more."""
        self._listeners.append(callback)
        return lambda: self._listeners.remove(callback) if callback in self._listeners else None

    def point(self, arrows: Iterable[Arrow]) -> None:
        """Draw arrows between patches in every view that can; those that were there go."""
        arrows = tuple(arrows)
        if arrows != self.arrows:
            self.arrows = arrows
            for callback in list(self._arrow_listeners):
                callback()

    def on_arrows(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Be told when ``arrows`` changed; returns how to be told no more."""
        self._arrow_listeners.append(callback)
        return lambda: self._arrow_listeners.remove(callback) if callback in self._arrow_listeners else None

    def _tell(self) -> None:
        for callback in list(self._listeners):
            callback()

    def _wanted(self, changed: frozenset[str]) -> None:
        """Another prediction is wanted. While a hand moves masks in a live kernel, what is there counts as stale only once
        the new one has let itself be waited for."""
        try:
            loop = asyncio.get_running_loop() if changed <= MOVES | {"hover"} and not self.is_stale else None
        except RuntimeError:  # driven from Python
            loop = None
        self.refresh(tell=loop is None)
        if loop is not None:
            loop.call_later(STALE_AFTER, lambda: self._tell() if self.is_stale else None)

    def refresh(self, tell: bool = True) -> None:
        """Ask for a prediction of the state as it is; whoever listens is told when it is there, and that one is wanted."""
        self.is_stale = True
        self.point(())  # they were the old masks'
        if tell:
            self._tell()
        self.worker.ask(lambda: self.predictions.now(judge=False), self._done)

    def _done(self, shown: Shown | None, problem: BaseException | None) -> None:
        if problem is None:
            self.shown, self.error = shown, ""
            if shown.opponents is None:
                self._judge.ask(lambda: self.predictions.judge(shown), self._judged)
        else:
            self.error = in_words(problem)
        self.is_stale = False
        self._tell()

    def _judged(self, shown: Shown | None, problem: BaseException | None) -> None:
        """The opponents of a prediction are there: the prediction is shown already, only words change."""
        if problem is not None:
            self.error = in_words(problem)
            return self._tell()
        if self.shown is not None and self.shown.key == shown.key:
            self.shown = shown
            for callback in list(self._judged_listeners):
                callback()

    def on_judged(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Be told when ``shown`` got its opponents; returns how to be told no more."""
        self._judged_listeners.append(callback)
        return lambda: self._judged_listeners.remove(callback) if callback in self._judged_listeners else None

    def wait(self, timeout: float = 60.0) -> bool:
        """Until prediction and opponents are there; False when the time ran out."""
        return self.worker.wait(timeout) and self._judge.wait(timeout)

    def newest(self) -> Shown:
        """What is shown if it is of the state as it is; else the prediction of that, waited for.

        Whatever leaves the house (a file, a kept picture, a score) is of this.

        Raises:
            Mask3DError: it cannot be made (nothing is visible, say).
        """
        is_shown = self.shown is not None and not self.is_stale and not self.error and self.shown.opponents is not None
        return self.shown if is_shown else self.now()

    def now(self) -> Shown:
        """The prediction of the state as it is, waited for.

        Raises:
            Mask3DError: it cannot be made (nothing is visible, say).
        """
        shown = self.predictions.now()
        was_new = self.shown is None or self.shown.key != shown.key or self.is_stale or bool(self.error)
        self.shown, self.is_stale, self.error = shown, False, ""
        if was_new:
            self._tell()
        return shown


_studios: WeakKeyDictionary[Session, Studio] = WeakKeyDictionary()


def studio_of(session: Session) -> Studio:
    """The session's studio, made at the first call."""
    if session not in _studios:
        _studios[session] = Studio(session)
    return _studios[session]
