"""Kept pictures of a view that has no session: where it stood, to come back to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from mask3d_core.errors import ConfigError


@dataclass(frozen=True)
class Moment:
    """Where a view stood.

    Args:
        name: what it is called.
        place: where, as the view says it.
        words: what was seen there, in a line.
        picture: a small PNG of it.
    """

    name: str
    place: Any
    words: str
    picture: bytes = field(default=b"", compare=False, repr=False)


class Moments:
    """What a session is to the toolbar of an explorer, for a view without one.

    Args:
        here: says where the view stands. go: takes it there.
        told: called when a moment was kept or forgotten.
    """

    def __init__(self, here: Callable[[], Any], go: Callable[[Any], None], told: Callable[[], None]):
        self._here, self._go, self._told = here, go, told
        self.scenes: list[Moment] = []

    @property
    def scene(self) -> int:
        """The moment that is shown, or -1."""
        here = self._here()
        return next((number for number, moment in enumerate(self.scenes) if moment.place == here), -1)

    def keep(self, name: str = "", words: str = "", picture: bytes = b"") -> Moment:
        """Keep where the view stands; without a name it gets a number's."""
        moment = Moment(name or f"scene {len(self.scenes) + 1}", self._here(), words, picture)
        self.scenes.append(moment)
        self._told()
        return moment

    def forget(self, number: int) -> None:
        """Drop a moment.

        Raises:
            ConfigError: there is no such moment.
        """
        self._at(number)
        del self.scenes[number]
        self._told()

    def show_scene(self, number: int) -> None:
        """Go back to a moment, counted from 0.

        Raises:
            ConfigError: there is no such moment.
        """
        self._go(self._at(number).place)

    def _at(self, number: int) -> Moment:
        if not 0 <= number < len(self.scenes):
            raise ConfigError(f"scene must be 0..{len(self.scenes) - 1}; got {number}" if self.scenes
                              else "no picture was kept yet: keep()")
        return self.scenes[number]


__all__ = ["Moment", "Moments"]
