"""The history of a session: every change told to whoever asked, undone and redone; states kept as scenes to come back to."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from mask3d_core.errors import ConfigError
from mask3d_viz.session_state import PASSING, Scene, SessionState

HISTORY = 200  # changes that can be undone


class Past(NamedTuple):
    """A state that was, with what is known of the change that led away from it.

    Args:
        state: as it was.
        gesture: changes in a row of one gesture are undone together.
        back: the value that this change alone stepped back, see :meth:`History.step_back`; "": it was no such step.
    """

    state: SessionState
    gesture: str = ""
    back: str = ""


class History:
    """A state that changes, with all that it was before. A session is one; it says what a possible state is.

    Args:
        state: the first one.
    """

    def __init__(self, state: SessionState):
        self.lock = threading.RLock()
        self._listeners: list[tuple[Callable, frozenset[str] | None]] = []
        self._undo: list[Past] = []
        self._redo: list[Past] = []
        self.scenes: list[Scene] = []
        self.state = state

    # ---- what a subclass says ---------------------------------------------------------------------------------------

    def _checked(self, state: SessionState) -> SessionState:
        """The state itself, or a ConfigError that lists all that is impossible in it."""
        raise NotImplementedError

    def _made(self, values: dict[str, Any]) -> SessionState:
        """The state with other values, checked."""
        raise NotImplementedError

    def words(self) -> str:
        """The state in a line, for a scene that was given none."""
        raise NotImplementedError

    # ---- the state ----------------------------------------------------------------------------------------------

    def change(self, gesture: str = "", **values: Any) -> SessionState:
        """Change values of the state.

        Args:
            gesture: changes in a row with the same name here are undone together (a slider on its way); ``""``: each
                on its own.
            values: of :class:`SessionState`.

        Raises:
            ConfigError: unknown names or impossible values, all at once; nothing has changed then.
        """
        with self.lock:
            return self._become(self._made(values), gesture)

    def _become(self, state: SessionState, gesture: str, back: str = "") -> SessionState:
        changed = frozenset(f.name for f in dataclasses.fields(state)
                            if getattr(state, f.name) != getattr(self.state, f.name))
        if not changed:
            return self.state
        if changed - PASSING:
            if not (gesture and self._undo and self._undo[-1].gesture == gesture):
                self._undo = [*self._undo[1 - HISTORY:], Past(self.state, gesture, back)]
            self._redo.clear()
        self.state = state
        self._tell(changed)
        return state

    def end_gesture(self) -> None:
        """The hand has let go: the next change is undone on its own."""
        with self.lock:
            if self._undo:
                self._undo[-1] = self._undo[-1]._replace(gesture="")

    def undo(self) -> bool:
        """Take the last change back; False when there is none."""
        with self.lock:
            return bool(self._undo) and self._step(self._undo.pop(), self._redo)

    def redo(self) -> bool:
        """Do the last undone change again; False when there is none."""
        with self.lock:
            return bool(self._redo) and self._step(self._redo.pop(), self._undo)

    def _step(self, past: Past, other: list[Past]) -> bool:
        other.append(Past(self.state, "", past.back))
        before, self.state = self.state, dataclasses.replace(past.state, hover=self.state.hover)
        self._tell(frozenset(f.name for f in dataclasses.fields(past.state)
                             if getattr(self.state, f.name) != getattr(before, f.name)))
        return True

    @property
    def can_undo(self) -> bool:
        """Whether there is a change to take back."""
        return bool(self._undo)

    @property
    def can_redo(self) -> bool:
        """Whether there is an undone change to do again."""
        return bool(self._redo)

    def step_back(self, name: str) -> bool:
        """Take the last change of one value back, whatever came after it; all other values stay as they are.

        Again and again it goes further back. Each step is a change like any other: :meth:`undo` takes it back.

        Args:
            name: of a value of :class:`SessionState`.

        Returns:
            False where no change of it is left to take back.
        """
        with self.lock:
            later, stepped = self.state, 0
            for past in reversed(self._undo):
                if getattr(past.state, name) != getattr(later, name):
                    if past.back == name:
                        stepped += 1  # it has taken back one of the earlier ones
                    elif stepped:
                        stepped -= 1
                    else:
                        state = dataclasses.replace(self.state, **{name: getattr(past.state, name)})
                        self._become(self._checked(state), "", back=name)
                        return True
                later = past.state
            return False

    def on(self, callback: Callable[[frozenset[str]], None], *names: str) -> Callable[[], None]:
        """Be told of changes: ``callback(names that changed)``.

        Args:
            names: only when one of these changed; none: always.

        Returns:
            Call it to be told no more.
        """
        entry = (callback, frozenset(names) or None)
        self._listeners.append(entry)
        return lambda: self._listeners.remove(entry) if entry in self._listeners else None

    def _tell(self, changed: frozenset[str]) -> None:
        for callback, names in list(self._listeners):
            if names is None or names & changed:
                callback(changed)

    # ---- scenes --------------------------------------------------------------------------------------------------

    def keep(self, name: str = "", words: str = "", picture: bytes = b"") -> Scene:
        """Keep the state as it is as a scene; without a name it gets a number's."""
        with self.lock:
            scene = Scene(name or f"scene {len(self.scenes) + 1}", dataclasses.replace(self.state, hover=-1),
                          words or self.words(), picture)
            self.scenes.append(scene)
            self._tell(frozenset({"scenes"}))
            return scene

    def forget(self, number: int) -> None:
        """Drop a scene.

        Raises:
            ConfigError: there is no such scene.
        """
        with self.lock:
            self._scene(number)
            del self.scenes[number]
            self._tell(frozenset({"scenes"}))

    def show_scene(self, number: int) -> SessionState:
        """Go back to a scene, counted from 0; one change that can be undone.

        Raises:
            ConfigError: there is no such scene, or it does not fit these frames or checkpoints.
        """
        with self.lock:
            state = dataclasses.replace(self._scene(number).state, hover=self.state.hover)
            return self._become(self._checked(state), "")

    @property
    def scene(self) -> int:
        """The scene whose state is shown, or -1."""
        now = dataclasses.replace(self.state, hover=-1)
        return next((number for number, scene in enumerate(self.scenes) if scene.state == now), -1)

    def _scene(self, number: int) -> Scene:
        if not 0 <= number < len(self.scenes):
            raise ConfigError(f"scene must be 0..{len(self.scenes) - 1}; got {number}" if self.scenes
                              else "no scene was kept yet: session.keep()")
        return self.scenes[number]


__all__ = ["HISTORY", "History", "Past"]
