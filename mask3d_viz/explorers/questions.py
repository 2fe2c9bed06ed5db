"""Asking a patch: influence is measured once per mask, in a worker, and remembered for all views of the session."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from html import escape

import numpy as np

from mask3d_core.attention import ModelAttention, record_attention
from mask3d_core.evaluation.influence import Influence, measure_influence
from mask3d_viz.explorers.studio import Arrow, Studio
from mask3d_viz.style import MODALITY_COLORS
from mask3d_viz.worker import Worker

CACHED = 8  # masks whose influence is remembered
TOP = 10  # arrows
ARROW_COLORS = MODALITY_COLORS
Answer = tuple[Influence, ModelAttention]


class Overtaken(Exception):
    """A newer question was asked; this one's answer is not wanted any more."""


class Questions:
    """Asks in the background; the answers lie in the studio, so that two views of one session ask once.

    Args:
        studio: whose newest prediction is asked about.
        progress: called with (done, total) from the worker's thread.
    """

    def __init__(self, studio: Studio, progress: Callable[[int, int], None]):
        self.studio, self.worker, self._progress = studio, Worker(), progress
        self._number = 0

    def known(self) -> Answer | None:
        """What is known of the shown prediction."""
        shown = self.studio.shown
        return None if shown is None else self.studio.answers.get(shown.key)

    def ask(self, done: Callable[[tuple, Answer | None, BaseException | None], None]) -> None:
        """Measure the shown prediction's influences; ``done(key, answer, problem)`` is called unless a newer one overtakes."""
        key, seen = self.studio.shown.key, self.studio.shown.seen
        self._number += 1
        number = self._number

        def progress(finished: int, total: int) -> None:
            if number != self._number:
                raise Overtaken
            self._progress(finished, total)

        def work() -> Answer:
            return (measure_influence(seen.model, seen.batch, seen.masks, progress=progress),
                    record_attention(seen.model, seen.batch, seen.masks))

        def arrived(answer: Answer | None, problem: BaseException | None) -> None:
            if isinstance(problem, Overtaken):
                return
            if problem is None:
                self.studio.answers[key] = answer
                while len(self.studio.answers) > CACHED:
                    self.studio.answers.popitem(last=False)
            done(key, answer, problem)

        self.worker.ask(work, arrived)

    def close(self) -> None:
        """Ask no more."""
        self._number += 1
        self.worker.close()


def arrows_of(patch: int, influence: Influence) -> list[Arrow]:
    """The ten that move the patch most, the strongest with weight 1; the patch's own is no arrow."""
    top = influence.top(patch, TOP)
    end = max((abs(moved) for _, _, moved in top), default=0.0) or 1.0
    return [Arrow(k, patch, abs(moved) / end, ARROW_COLORS[name], name) for name, k, moved in top if k != patch and moved]


def picture_arrows(arrows: Iterable[Arrow], modality: str) -> list[dict]:
    """The arrows of one modality as ``PatchImage`` draws them."""
    return [{"from": a.start, "to": a.end, "weight": a.weight, "color": a.color} for a in arrows if a.modality == modality]


def words(text: str, is_html: bool = False) -> str:
    """A paragraph of an answer."""
    return f"<div style='font-size:13px;max-width:420px' aria-live='polite'>{text if is_html else escape(text)}</div>"


def answer_html(patch: int, grid: tuple[int, int], influence: Influence, rows: int = TOP) -> str:
    """Where the patch's depth comes from, in a sentence and a table."""
    shares, (row, column) = influence.shares(patch), divmod(patch, grid[1])
    lines = "".join(
        f"<tr><td style='padding-right:12px'>{'RGB' if name == 'rgb' else 'depth'}</td><td style='padding-right:12px'>row "
        f"{k // grid[1] + 1}, column {k % grid[1] + 1}</td><td style='text-align:right'>{100 * moved:+.1f} cm</td></tr>"
        for name, k, moved in influence.top(patch, rows))
    said = (f"{shares['depth']:.0%} from depth, {shares['rgb']:.0%} from colour" if sum(shares.values())
            else "nothing that is visible moves it")
    return words(f"<b>Row {row + 1}, column {column + 1}: {float(influence.base[patch]):.2f} m predicted; {said}.</b>"
                 f"<div>Taken away, these move it most:</div><table>{lines}</table>", is_html=True)


def largest_move(moves: dict[str, np.ndarray]) -> float:
    """The end of a scale for these centimetres; 1 where nothing moves."""
    return max((float(np.nanmax(np.abs(m))) for m in moves.values() if np.isfinite(m).any()), default=1.0) or 1.0


__all__ = ["ARROW_COLORS", "Overtaken", "Questions", "answer_html", "arrows_of", "largest_move", "picture_arrows", "words"]
