"""Asking a patch: influence is measured once per mask, in a worker, and remembered for all views of the session."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from html import escape
from typing import NamedTuple

import numpy as np

from mask3d_core.attention import ModelAttention, record_attention
from mask3d_core.evaluation.influence import Influence, measure_influence
from mask3d_viz.explorers.readout import patch_words
from mask3d_viz.explorers.studio import Arrow, Studio
from mask3d_viz.style import MODALITY_COLORS
from mask3d_viz.worker import Worker

CACHED = 8  # masks whose influence is remembered
TOP = 10  # arrows
LEAST = 0.02  # of the largest influence: what moves the patch less is no arrow and no line of the table
SMALLEST, MINUS = 5e-5, "\N{MINUS SIGN}"  # metres: below, a movement is written without a number
ARROW_COLORS = MODALITY_COLORS
Answer = tuple[Influence, ModelAttention]
Done = Callable[[tuple, Answer | None, BaseException | None], None]


class Overtaken(Exception):
    """A newer question was asked; this one's answer is not wanted any more."""


class Earlier(NamedTuple):
    """An answer about the masks that are shown, by the same run's weights of an earlier step.

    answer: as ``Questions.known`` gives it. step: of the weights, or None where their record has none.
    """

    answer: Answer
    step: int | None

    @property
    def words(self) -> str:
        """ "as of step 300"."""
        return "as of earlier weights" if self.step is None else f"as of step {self.step:,}"


class _Open(NamedTuple):
    """The question that is being answered: the prediction's key, the checkpoint's name, the step of its weights."""

    key: tuple
    name: str
    step: int | None


class Questions:
    """Asks in the background; the answers lie in the studio, so that two views of one session ask once.

    A question that is asked again while it is being answered goes on. So does one whose checkpoint gets newer weights
    meanwhile (a run that is followed): its answer is of the weights it was asked with, see :meth:`earlier`; whoever
    wants that of the newest asks again in ``done``. Any other question overtakes it.

    Args:
        studio: whose newest prediction is asked about.
        progress: called with (done, total) from the worker's thread.
    """

    def __init__(self, studio: Studio, progress: Callable[[int, int], None]):
        self.studio, self.worker, self._progress = studio, Worker(), progress
        self._number = 0
        self._open: _Open | None = None
        self._done: Done | None = None
        self._asked: dict[tuple, _Open] = {}
        self._each, self._left = 0.0, 0.0  # seconds a patch taken away, and to the end of the open question

    def known(self) -> Answer | None:
        """What is known of the shown prediction."""
        shown = self.studio.shown
        return None if shown is None else self.studio.answers.get(shown.key)

    def earlier(self) -> Earlier | None:
        """The last answer about the shown frame and masks by earlier weights of the same checkpoint, or None."""
        shown, name = self.studio.shown, self.studio.session.state.checkpoint
        if shown is None:
            return None
        for key, asked in reversed(self._asked.items()):
            if key != shown.key and key[1:] == shown.key[1:] and asked.name == name and key in self.studio.answers:
                return Earlier(self.studio.answers[key], asked.step)
        return None

    @property
    def is_open(self) -> bool:
        """Whether a question about the shown frame and masks is being answered."""
        return self._open is not None and self._is_same_but_weights(self._open)

    def _is_same_but_weights(self, asked: _Open) -> bool:
        shown = self.studio.shown
        return shown is not None and asked.name == self.studio.session.state.checkpoint and asked.key[1:] == shown.key[1:]

    def time_words(self) -> str:
        """How long it still takes on this machine, "about 5 s"; "" before that is known."""
        seconds = self._left if self._open is not None else self._each * self._count()
        return f"about {max(1, round(seconds))} s" if seconds > 0 else ""

    def _count(self) -> int:
        """How many patches would be taken away now."""
        shown = self.studio.shown
        return 0 if shown is None else int((~shown.seen.masks.rgb).sum() + (~shown.seen.masks.depth).sum())

    def ask(self, done: Done) -> None:
        """Measure the shown prediction's influences; ``done(key, answer, problem)`` is called unless a newer one overtakes."""
        self._done = done
        if self.is_open:
            return  # it goes on
        shown, session = self.studio.shown, self.studio.session
        key, seen, name = shown.key, shown.seen, session.state.checkpoint
        model, record = session.model(name)
        step = record.get("step") if model is seen.model else None  # else newer weights were loaded since
        asked = self._open = _Open(key, name, None if step is None else int(step))
        self._number += 1
        number, began = self._number, time.perf_counter()
        self._left = self._each * self._count()

        def progress(finished: int, total: int) -> None:
            if number != self._number:
                raise Overtaken
            self._each = (time.perf_counter() - began) / max(1, finished)
            self._left = self._each * (total - finished)
            self._progress(finished, total)

        def work() -> Answer:
            nonlocal began
            began = time.perf_counter()
            return (measure_influence(seen.model, seen.batch, seen.masks, progress=progress),
                    record_attention(seen.model, seen.batch, seen.masks))

        def arrived(answer: Answer | None, problem: BaseException | None) -> None:
            if isinstance(problem, Overtaken):
                return
            self._open = None
            if problem is None:
                self.studio.answers[key], self._asked[key] = answer, asked
                while len(self.studio.answers) > CACHED:
                    self.studio.answers.popitem(last=False)
                self._asked = {k: a for k, a in self._asked.items() if k in self.studio.answers}
            self._done(key, answer, problem)

        self.worker.ask(work, arrived)

    def close(self) -> None:
        """Ask no more."""
        self._number += 1
        self._open = None
        self.worker.close()


# ---- what is worth an arrow ------------------------------------------------------------------------------------------


def movers(patch: int, influence: Influence, count: int = TOP) -> tuple[list[tuple[str, int, float]], str]:
    """The strongest influences on a patch that can be told from nothing, and a sentence on the others.

    Args:
        patch: the asked one.
        influence: of all.
        count: at most so many.

    Returns:
        (modality, patch taken away, signed metres), strongest first, none below 2 % of the first; and "The 112 others move
        it by less than 0.9 mm each.", or "" where ``count`` alone has cut the list.
    """
    everything = influence.top(patch, influence.rgb_moves.shape[1] * 2)
    least = LEAST * max((abs(moved) for *_, moved in everything), default=0.0)
    felt = [one for one in everything if abs(one[2]) >= least and one[2]]
    left = len(everything) - len(felt)
    if not felt or not left or len(felt) > count:
        return felt[:count], ""
    bound = _magnitude(math.ceil(least * 1e4) / 1e4)
    return felt, (f"The {left} others move it by less than {bound} each." if left > 1 else
                  f"The other one moves it by less than {bound}.")


def move_words(metres: float) -> str:
    """A movement with its sign, in centimetres, or in millimetres below 1 cm: "+4.0 cm", "−3.2 mm"."""
    sign = "" if abs(metres) < SMALLEST else "+" if metres > 0 else MINUS
    return sign + _magnitude(metres)


def _magnitude(metres: float) -> str:
    size = abs(float(metres))
    if size < SMALLEST:
        return "less than 0.1 mm" if size else "0 mm"
    return f"{100 * size:.1f} cm" if size >= 0.00995 else f"{1000 * size:.1f} mm"


def arrows_of(patch: int, influence: Influence) -> list[Arrow]:
    """Up to ten that move the patch most, the strongest with weight 1, none below 2 % of it; its own is no arrow."""
    top, _ = movers(patch, influence)
    end = max((abs(moved) for _, _, moved in top), default=0.0) or 1.0
    return [Arrow(k, patch, abs(moved) / end, ARROW_COLORS[name], name) for name, k, moved in top if k != patch]


def picture_arrows(arrows: Iterable[Arrow], modality: str) -> list[dict]:
    """The arrows of one modality as ``PatchImage`` draws them."""
    return [{"from": a.start, "to": a.end, "weight": a.weight, "color": a.color} for a in arrows if a.modality == modality]


# ---- words -----------------------------------------------------------------------------------------------------------


def words(text: str, is_html: bool = False) -> str:
    """A paragraph of an answer."""
    return f"<div style='font-size:13px;max-width:420px' aria-live='polite'>{text if is_html else escape(text)}</div>"


def source_words(name: str) -> str:
    """A modality as a reader calls it: "RGB", "depth"."""
    return "RGB" if name == "rgb" else "depth"


def answer_html(patch: int, grid: tuple[int, int], influence: Influence, rows: int = TOP, mark: str = "") -> str:
    """Where the patch's depth comes from, in a sentence and a table.

    Args:
        patch: the asked one. grid: (rows, columns) of patches.
        influence: of all.
        rows: of the table, at most.
        mark: said first, "as of step 300".
    """
    shares, place = influence.shares(patch), patch_words(patch, grid)
    top, others = movers(patch, influence, rows)
    lines = "".join(
        f"<tr><td style='padding-right:12px'>{source_words(name)}</td><td style='padding-right:12px'>{patch_words(k, grid)}"
        f"</td><td style='text-align:right'>{move_words(moved)}</td></tr>" for name, k, moved in top)
    said = (f"{shares['depth']:.0%} from depth, {shares['rgb']:.0%} from colour" if sum(shares.values())
            else "nothing that is visible moves it")
    table = f"<div>Taken away, these move it most:</div><table>{lines}</table>" if lines else ""
    note = f"<div>{escape(others)}</div>" if others else ""
    head = f"<div>{escape(mark[:1].upper() + mark[1:])}:</div>" if mark else ""
    return words(f"{head}<b>{place[:1].upper()}{place[1:]}: {float(influence.base[patch]):.2f} m predicted; {said}.</b>"
                 f"{table}{note}", is_html=True)


def largest_move(moves: dict[str, np.ndarray]) -> float:
    """The end of a scale for these centimetres; 1 where nothing moves."""
    return max((float(np.nanmax(np.abs(m))) for m in moves.values() if np.isfinite(m).any()), default=1.0) or 1.0


__all__ = ["ARROW_COLORS", "LEAST", "Earlier", "Overtaken", "Questions", "answer_html", "arrows_of", "largest_move",
           "move_words", "movers", "picture_arrows", "source_words", "words"]
