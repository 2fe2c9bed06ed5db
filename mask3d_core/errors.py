"""The errors a person can act on: what was expected, what came, what to do, and where."""

from __future__ import annotations


class Mask3DError(ValueError):
    """One clear line about a wrong input. The command line prints it and exits with 2.

    Args:
        expected: what should have come.
        got: what came.
        remedy: what the person can do about it.
        where: the file, frame or config key at fault (anything that prints).
    """

    def __init__(self, expected: str, got: str, remedy: str, where: object = None):
        self.expected, self.got, self.remedy = expected, got, remedy
        self.where = None if where is None else str(where)
        place = "" if where is None else f"{where}: "
        super().__init__(f"{place}expected {expected}; got {got}. {remedy}")

    def __reduce__(self):
        return type(self), (self.expected, self.got, self.remedy, self.where)


class FrameError(Mask3DError):
    """One frame cannot be read or is not what it claims to be."""


class StoreError(Mask3DError):
    """A prepared store is incomplete, damaged, or from another version."""


class CheckpointError(Mask3DError):
    """A checkpoint is incomplete, damaged, of the wrong shape, or from a newer version."""


class DivergedError(Mask3DError):
    """A training whose losses or gradients stopped being finite; the same run would do the same again."""


class ConfigError(Mask3DError):
    """A configuration asks for something impossible. ``problems`` lists all of them at once."""

    def __init__(self, problems: list[str] | str, where: object = None):
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__(
            "a valid configuration", f"{len(self.problems)} problem(s): " + "; ".join(self.problems),
            "Change the named keys.", where)

    def __reduce__(self):
        return type(self), (self.problems, self.where)
