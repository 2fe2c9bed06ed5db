"""What every explorer is: widgets over a session, a still for where no kernel is, the code that brings it back."""

from __future__ import annotations

import base64
import threading
from contextlib import contextmanager
from typing import Any

import ipywidgets as widgets
import numpy as np

from mask3d_core.errors import Mask3DError
from mask3d_viz.explorers.studio import studio_of
from mask3d_viz.pixels import to_png
from mask3d_viz.session import Session, SessionState

CALL = "session"  # how an explorer is called in copied code
STILL_WIDTH = 1200  # pixels of a picture for where no kernel is


class Explorer(widgets.VBox):
    """A live view of a session.

    Subclasses fill :attr:`children` and implement :meth:`follow` (the state changed), :meth:`show` (a prediction came,
    or went stale) and :meth:`still`.

    Args:
        session: what it shows and changes.
    """

    function = "explore"  # the call that makes it

    def __init__(self, session: Session):
        super().__init__()
        self.add_class("mask3d-explorer")
        self.session, self.studio = session, studio_of(session)
        self.message = widgets.HTML(layout=widgets.Layout(margin="0"))
        self._moved_by = threading.local()
        self._ends: list = []

    def begin(self) -> None:
        """Call at the end of ``__init__``: show what is there and listen from now on."""
        try:
            self.studio.now()
        except Mask3DError as problem:
            self.studio.error = str(problem)
        self._follow(frozenset(SessionState.__dataclass_fields__))
        self._show()
        self._ends = [self.session.on(self._follow), self.studio.on(self._show)]

    def close(self) -> None:
        """Listen no more and take the view away."""
        for end in self._ends:
            end()
        self._ends = []
        super().close()

    @property
    def is_following(self) -> bool:
        """True while the explorer itself moves its widgets, on this thread: what they say then is no reader's wish."""
        return getattr(self._moved_by, "explorer", False)

    @contextmanager
    def following(self):
        """Move own widgets without taking that for the reader's hand."""
        before, self._moved_by.explorer = self.is_following, True
        try:
            yield
        finally:
            self._moved_by.explorer = before

    def wish(self, gesture: str = "", **values: Any) -> None:
        """Change the session as the reader asked; what cannot be is said in the panel."""
        if self.is_following:
            return
        try:
            self.session.change(gesture, **values)
        except Mask3DError as problem:
            self.say(str(problem), warns=True)
            self._follow(frozenset(values))

    def say(self, text: str, warns: bool = False) -> None:
        """One line in the panel; "" takes it away."""
        from html import escape

        role, color = ("alert", "var(--jp-error-color1, #b00020)") if warns else ("status", "inherit")
        self.message.value = f'<div role="{role}" style="font-size:13px;color:{color}">{escape(text)}</div>' if text else ""

    def _follow(self, changed: frozenset[str]) -> None:
        with self.following():
            self.follow(changed)

    def _show(self) -> None:
        with self.following():
            self.say(self.studio.error, warns=True)
            self.show()

    def follow(self, changed: frozenset[str]) -> None:
        """The state's ``changed`` values are new."""

    def show(self) -> None:
        """``studio.shown`` is new, or ``studio.is_stale`` is."""

    def still(self, theme: str = "light") -> np.ndarray:
        """What is shown, as uint8 (H, W, 3), without a browser."""
        raise NotImplementedError

    def code(self) -> str:
        """The call that brings back what is on the screen."""
        state, start = self.session.state, SessionState(checkpoint=next(iter(self.session.checkpoints)))
        changed = {name: getattr(state, name) for name in SessionState.__dataclass_fields__
                   if name != "hover" and getattr(state, name) != getattr(start, name)}
        words = ", ".join(f"{name}={value!r}" for name, value in changed.items())
        return (f"session.change({words})\n" if words else "") + f"{self.function}({CALL})"

    def __repr__(self) -> str:
        return f"{type(self).__name__}: frame {self.session.state.frame}, {self.session.words()}"

    def _repr_mimebundle_(self, **kwargs: Any):
        """The live view, a picture for where no kernel is, and a line of text."""
        found = super()._repr_mimebundle_(**kwargs)
        data = found[0] if isinstance(found, tuple) else (found or {})
        data = {**data, "text/plain": repr(self)}
        if self.studio.shown is not None:
            data["image/png"] = base64.b64encode(to_png(self.still())).decode()
        return (data, found[1]) if isinstance(found, tuple) else data
