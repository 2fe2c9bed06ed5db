"""One progress bar for everything: tqdm's where it is installed, plain lines where it is not."""

from __future__ import annotations

import sys
import time

LINE_EVERY = 5.0  # seconds between plain lines


class Bar:
    """Progress with rate and time left, on standard error. Use as a context manager or close it.

    Args:
        words: what is going on.
        total: how many in all.
        done: how many were done before.
        unit: of what.
        show: False: silent.
    """

    def __init__(self, words: str, total: int, done: int = 0, unit: str = "frame", show: bool = True):
        self.words, self.total, self.done, self.unit, self.show = words, total, done, unit, show
        self._first, self._began, self._printed, self._note = done, time.perf_counter(), 0.0, ""
        self._tqdm = None
        if show:
            try:
                from tqdm.auto import tqdm

                self._tqdm = tqdm(total=total, initial=done, desc=words, unit=unit, mininterval=0.5)
            except ImportError:
                pass

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *exc) -> None:
        self.close()

    def advance(self, number: int = 1) -> None:
        """So many more are done."""
        self.done += number
        now = time.perf_counter()
        if self._tqdm is not None:
            self._tqdm.update(number)
        elif self.show and (now - self._printed > LINE_EVERY or self.done == self.total):
            self._printed = now
            rate = (self.done - self._first) / max(1e-9, now - self._began)
            print(f"{self.words}: {self.done}/{self.total} {self.unit}s, {rate:.1f} {self.unit}s/s, "
                  f"{(self.total - self.done) / max(rate, 1e-9):.0f} s left {self._note}".rstrip(), file=sys.stderr,
                  flush=True)

    def set(self, done: int, total: int) -> None:
        """So many of so many are done."""
        self.total = total
        if self._tqdm is not None:
            self._tqdm.total = total
        self.advance(done - self.done)

    def note(self, text: str) -> None:
        """Words beside the bar."""
        self._note = text
        if self._tqdm is not None:
            self._tqdm.set_postfix_str(text, refresh=False)

    def say(self, text: str) -> None:
        """A line that stays."""
        if self._tqdm is not None:
            self._tqdm.write(text, file=sys.stderr)
        elif self.show:
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Finish the bar."""
        if self._tqdm is not None:
            self._tqdm.close()
