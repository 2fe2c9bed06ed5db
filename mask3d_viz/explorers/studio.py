"""What the explorers of one session share: the predictions, the worker, and the newest result."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from mask3d_core.errors import Mask3DError
from mask3d_viz.predictions import Predictions, Shown
from mask3d_viz.session import Session
from mask3d_viz.worker import Worker

PREDICTS = ("frame", "rgb_ratio", "depth_ratio", "seed", "painted_rgb", "painted_depth", "checkpoint", "color_source")
"""Changes of these need a new prediction; all others only another view of the one that is there."""


class Arrow(NamedTuple):
    """From one patch to another: which of what modality moves which.

    start, end: patches. weight: 0..1. color: CSS. modality: "rgb" or "depth", of the start.
    """

    start: int
    end: int
    weight: float
    color: str
    modality: str


class Studio:
    """One per session; get it with :func:`studio_of`.

    Attributes:
        shown: the newest finished prediction, or None.
        is_stale: a newer one is on its way.
        arrows: between patches, drawn in every view that can; set by :meth:`point`.
        error: what went wrong with the newest, in words, or "".
    """

    def __init__(self, session: Session):
        self.session, self.predictions, self.worker = session, Predictions(session), Worker()
        self.shown: Shown | None = None
        self.is_stale, self.error = False, ""
        self.arrows: tuple[Arrow, ...] = ()
        self.answers: OrderedDict[tuple, Any] = OrderedDict()  # influence and attention by a prediction's key
        self._arrow_listeners: list[Callable[[], None]] = []
        self._listeners: list[Callable[[], None]] = []
        session.on(lambda _: self.refresh(), *PREDICTS)

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

    def refresh(self) -> None:
        """Ask for a prediction of the state as it is; whoever listens is told when it is there."""
        self.is_stale = True
        self.point(())  # they were the old masks'
        self._tell()
        self.worker.ask(self.predictions.now, self._done)

    def _done(self, shown: Shown | None, problem: BaseException | None) -> None:
        if problem is None:
            self.shown, self.error = shown, ""
        else:
            self.error = str(problem) if isinstance(problem, Mask3DError) else f"{type(problem).__name__}: {problem}"
        self.is_stale = False
        self._tell()

    def now(self) -> Shown:
        """The prediction of the state as it is, waited for.

        Raises:
            Mask3DError: it cannot be made (nothing is visible, say).
        """
        shown = self.predictions.now()
        self.shown, self.is_stale, self.error = shown, False, ""
        return shown


_studios: WeakKeyDictionary[Session, Studio] = WeakKeyDictionary()


def studio_of(session: Session) -> Studio:
    """The session's studio, made at the first call."""
    if session not in _studios:
        _studios[session] = Studio(session)
    return _studios[session]
