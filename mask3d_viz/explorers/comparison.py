"""Checkpoint B beside checkpoint A: the same frame, masks and colour through a second model, scored on A's pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch

from mask3d_core.errors import ConfigError
from mask3d_core.evaluation import depth_metrics
from mask3d_core.masking import to_pixels
from mask3d_viz.explorers.studio import Studio, in_words
from mask3d_viz.predictions import METRICS, Shown
from mask3d_viz.worker import Worker


@dataclass(frozen=True)
class Compared:
    """B's prediction beside the one of A that is shown.

    Args:
        names: of A and of B.
        first, second: their predictions, of the same frame, masks and colour.
        scores: of B, over the very pixels that A is scored on; empty where there is none.
        peeked: how many of these pixels B was shown (a B that sees depth beside an A that sees none).
    """

    names: tuple[str, str]
    first: Shown
    second: Shown
    scores: dict[str, float]
    peeked: int

    @property
    def note(self) -> str:
        """What a reader must know before he believes the numbers, or ""."""
        return (f"B was shown the depth of {self.peeked:,} of the scored pixels, A of none of them: their numbers cannot be "
                "compared." if self.peeked else "")


class Comparison:
    """B's newest prediction; get it with :func:`comparison_of`. Nothing is computed before somebody listens.

    A comes first: B is asked for when A's prediction is there, in a worker of its own.

    Attributes:
        shown: the newest comparison, or None.
        is_stale: a newer one is on its way, or ``shown`` is of another state.
        error: why there is none, in one line, or "".
    """

    def __init__(self, studio: Studio):
        self.studio, self.worker = studio, Worker()
        self.shown: Compared | None = None
        self.is_stale, self.error = False, ""
        self._of: tuple = ()
        self._listeners: list[Callable[[], None]] = []

    def on(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Be told when anything of it changed; returns how to be told no more."""
        if not self._listeners:
            self._ends = [self.studio.on(self._follow), self.studio.session.on(self._changed, "compare", "checkpoint")]
            self._follow()
        self._listeners.append(callback)
        return lambda: self._leave(callback)

    def _leave(self, callback: Callable[[], None]) -> None:
        if callback in self._listeners:
            self._listeners.remove(callback)
            if not self._listeners:
                for end in self._ends:
                    end()

    def _tell(self) -> None:
        for callback in list(self._listeners):
            callback()

    @property
    def is_wanted(self) -> bool:
        """Whether a B is chosen."""
        return bool(self.studio.session.state.compare)

    def _changed(self, changed: frozenset[str]) -> None:
        """Another B, or newer weights under an old name."""
        self._of = ()
        self._follow()

    def _wanted(self) -> tuple:
        state, first = self.studio.session.state, self.studio.shown
        return state.checkpoint, state.compare, None if first is None else first.key

    def _follow(self) -> None:
        """The studio has something new."""
        studio = self.studio
        if not self.is_wanted:
            was, self.shown, self.error, self.is_stale, self._of = self.shown or self.error, None, "", False, ()
            return self._tell() if was else None
        of = self._wanted()
        if of == self._of and not studio.is_stale and not studio.error:
            return None
        self.is_stale, self._of = True, of
        self._tell()
        if not studio.is_stale and not studio.error and studio.shown is not None:
            self.worker.ask(lambda: self._made(studio.shown, of[:2]), lambda found, problem: self._done(of, found, problem))
        else:
            self._of = ()
        return None

    def _made(self, first: Shown, names: tuple[str, str]) -> Compared | None:
        """B's prediction beside A's; None where the state has moved on since A's."""
        session = self.studio.session
        with session.lock:
            own, other = (session.model(name)[0].config for name in names)
        if (own.image_size, own.patch) != (other.image_size, other.patch):
            raise ConfigError(f"{names[1]} sees {other.image_size[0]}x{other.image_size[1]} pixels in patches of {other.patch}, "
                              f"{names[0]} {own.image_size[0]}x{own.image_size[1]} in patches of {own.patch}: they cannot stand "
                              "side by side")
        second = self.studio.predictions.now(checkpoint=names[1], judge=False)
        if second.key[1:] != first.key[1:]:  # all but the model
            return None
        counted = first.seen.counted
        prediction = torch.from_numpy(second.reconstruction.prediction)[None]
        scores = {}
        if counted.any():
            values = depth_metrics(prediction, first.seen.frame.depth, counted)
            scores = {name: float(values[name]) for name in METRICS}
        visible = ~to_pixels(second.seen.masks.depth, other.grid, other.patch)
        return Compared(names, first, second, scores, int((counted & visible).sum()))

    def _done(self, of: tuple, found: Compared | None, problem: BaseException | None) -> None:
        if of != self._wanted() or self.studio.is_stale or (found is None and problem is None):
            self._of = ()  # the state has moved on; A's next prediction asks again
            return
        self.shown, self.is_stale = found, False
        self.error = "" if problem is None else f"B: {in_words(problem)}"
        self._tell()

    def wait(self, timeout: float = 60.0) -> bool:
        """Until A, its opponents and B are there; False when the time ran out."""
        return self.studio.wait(timeout) and self.worker.wait(timeout)

    def newest(self) -> Compared | None:
        """The comparison of the state as it is, waited for; None where no B is chosen.

        Raises:
            Mask3DError: A's or B's prediction cannot be made.
        """
        if not self.is_wanted:
            return None
        first, of = self.studio.newest(), self._wanted()
        if self.shown is not None and not self.is_stale and self.shown.first.key == first.key and self.shown.names == of[:2]:
            return self.shown
        return self._made(first, of[:2])


_comparisons: WeakKeyDictionary[Studio, Comparison] = WeakKeyDictionary()


def comparison_of(studio: Studio) -> Comparison:
    """The studio's comparison, made at the first call."""
    if studio not in _comparisons:
        _comparisons[studio] = Comparison(studio)
    return _comparisons[studio]


__all__ = ["Compared", "Comparison", "comparison_of"]
