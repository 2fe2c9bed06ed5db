"""A ladder of masking ratios, computed: what a page without Python moves along.

For a frame, every rung of RGB ratios times every rung of depth ratios is predicted once, with the session's seed, painted
patches, colour and checkpoint. Masks are nested by their ranks, so the page draws them itself. Nothing here is HTML.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from mask3d_core.errors import ConfigError
from mask3d_core.evaluation.influence import Influence, measure_influence
from mask3d_core.frames import Intrinsics
from mask3d_core.masking import NEVER, visible_count
from mask3d_viz.images import error_end
from mask3d_viz.packing import pack, pack_bytes, to_steps
from mask3d_viz.predictions import Predictions, Shown
from mask3d_viz.session import Session
from mask3d_viz.widgets.patch_image import NOTHING_MEASURED

RGB_RATIOS = (0.0, 0.25, 0.5, 0.8, 0.95, 1.0)
DEPTH_RATIOS = (0.0, 0.5, 0.8, 0.9, 0.95, 0.98, 1.0)
STEP = 0.001  # metres of the page's depth, up to 65 m: off by at most half of it
TOP = 10  # influences kept for each patch
MOVE_STEP = 1e-4  # metres of a kept influence
NOBODY = -1  # no influence in this place, or no share
COST = 10  # of one measured influence, in predictions with their opponents; for the time left
AHEAD = 2  # rungs with more depth hidden than the session's whose influence is measured by default


@dataclass(frozen=True)
class Ladder:
    """The ratios of the two sliders.

    Args:
        rgb, depth: shares hidden, rising, 0..1.
        start: (place in rgb, place in depth) where the page begins.
        asked: places whose influence is measured.
    """

    rgb: tuple[float, ...]
    depth: tuple[float, ...]
    start: tuple[int, int]
    asked: tuple[tuple[int, int], ...] = ()

    @property
    def places(self) -> list[tuple[int, int]]:
        """Every (rgb, depth) place, row by row."""
        return [(i, j) for i in range(len(self.rgb)) for j in range(len(self.depth))]

    @classmethod
    def of(cls, session: Session, rgb: Any = None, depth: Any = None, influence: Any = None) -> Ladder:
        """The ladder for a session.

        Args:
            rgb, depth: ratios; None: the usual ones and the session's own.
            influence: pairs of ratios of the ladder; None: the session's and the two with more depth hidden after it.

        Raises:
            ConfigError: ratios outside of 0..1, fewer than two rungs of each, or influence off the ladder; all at once.
        """
        state, problems, rungs = session.state, [], {}
        for name, given, usual, own in (("rgb_ratios", rgb, RGB_RATIOS, state.rgb_ratio),
                                        ("depth_ratios", depth, DEPTH_RATIOS, state.depth_ratio)):
            found = tuple(sorted({round(float(v), 6) for v in (given if given is not None else (*usual, own))}))
            if len(found) < 2 or not all(0 <= v <= 1 for v in found):
                problems.append(f"{name} must be two or more shares hidden, each 0..1; got {given}")
            rungs[name] = found
        if problems:
            raise ConfigError(problems)
        rows, columns = rungs["rgb_ratios"], rungs["depth_ratios"]
        start = _nearest(rows, state.rgb_ratio), _nearest(columns, state.depth_ratio)
        if influence is None:
            later = [j for j in range(start[1] + 1, len(columns)) if columns[j] < 1][:AHEAD]
            return cls(rows, columns, start, tuple((start[0], j) for j in (start[1], *later)))
        places = [(_nearest(rows, a), _nearest(columns, b)) for a, b in influence]
        off = [pair for pair, (i, j) in zip(influence, places)
               if max(abs(rows[i] - pair[0]), abs(columns[j] - pair[1])) > 1e-6]
        if off:
            raise ConfigError(f"influence must be pairs of ratios of the ladder ({rows} and {columns}); got {off}")
        return cls(rows, columns, start, tuple(dict.fromkeys(places)))


def _nearest(values: tuple[float, ...], wanted: float) -> int:
    return min(range(len(values)), key=lambda k: abs(values[k] - wanted))


def silent_copy(session: Session) -> Session:
    """A session with the same frames, state and model, on which the ladder is climbed: the reader's own stays still."""
    state = session.state
    values = {f.name: getattr(state, f.name) for f in dataclasses.fields(state)}
    return Session(session.frames, {state.checkpoint: session.model()[0]}, **{**values, "compare": ""})


@dataclass(frozen=True)
class LadderFrame:
    """One frame's ladder.

    Args:
        data: what goes into the page, JSON values.
        shown: the prediction where the page begins.
        off_by: largest error in metres that rounding to steps made.
    """

    data: dict[str, Any]
    shown: Shown
    off_by: float


class Climber:
    """Computes ladders of one session, frame by frame.

    Args:
        session: a :func:`silent_copy`, which is moved about.
        ladder: which ratios.
        step: metres of the page's depth.
    """

    def __init__(self, session: Session, ladder: Ladder, step: float = STEP):
        self.session, self.ladder, self.step, self.predictions = session, ladder, step, Predictions(session)

    def climb(self, frame: int, advance: Any = lambda number: None) -> LadderFrame:
        """Every rung of one frame. Rungs that show the same patches (of a frame without depth, say) are computed once.

        Args:
            frame: its number.
            advance: told 1 for every place of the ladder, and ``COST`` for every influence that is asked for.

        Raises:
            ConfigError: nothing is visible where the page begins.
        """
        session, ladder = self.session, self.ladder
        session.change(frame=frame, rgb_ratio=ladder.rgb[ladder.start[0]], depth_ratio=ladder.depth[ladder.start[1]])
        if not self._sees():
            raise ConfigError("nothing is visible where the page begins; change the session's ratios before report()")
        first = self.predictions.now()
        cells: list[list[dict[str, Any] | None]] = [[None] * len(ladder.depth) for _ in ladder.rgb]
        off_by, made, moves = 0.0, {}, {}  # by what a prediction is of
        for i, j in ladder.places:
            session.change(rgb_ratio=ladder.rgb[i], depth_ratio=ladder.depth[j])
            if self._sees():
                shown = self.predictions.now()
                if shown.key not in made:
                    made[shown.key], off = self._cell(shown)
                    off_by = max(off_by, off)
                cells[i][j] = dict(made[shown.key])
            advance(1)
            if (i, j) in ladder.asked:
                if cells[i][j] is not None and self._visible_patches() > 1:
                    if shown.key not in moves:
                        moves[shown.key] = pack_influence(measure_influence(shown.seen.model, shown.seen.batch, shown.seen.masks))
                    cells[i][j]["influence"] = moves[shown.key]
                advance(COST)
        return LadderFrame({**self._frame(first), "cells": cells}, first, off_by)

    def _cell(self, shown: Shown) -> tuple[dict[str, Any], float]:
        """A prediction as the page has it, and the metres by which rounding to steps moved it at most."""
        prediction = shown.reconstruction.prediction
        steps, step = to_steps(prediction, self.step)
        return {"prediction": pack(steps), "step": step, "scores": _plain(shown.reconstruction.scores),
                "opponents": {name: _plain(s) for name, s in shown.opponents.items()},
                "is_scale_assumed": shown.reconstruction.is_scale_assumed}, float(np.abs(steps * step - prediction).max())

    def _visible_patches(self) -> int:
        return sum(int((~self.session.is_masked(name)).sum()) for name in self.session.model()[0].config.inputs)

    def _sees(self) -> bool:
        return self._visible_patches() > 0

    def _frame(self, shown: Shown) -> dict[str, Any]:
        """What does not change along the ladder."""
        session, r = self.session, shown.reconstruction
        state = session.state
        limits = session.limits()
        ranks, hidden, painted = {}, {}, {}
        for name, ratios in (("rgb", self.ladder.rgb), ("depth", self.ladder.depth)):
            order = session.ranks(name)
            is_measured = order < NEVER
            count = int(is_measured.sum())
            last_hidden = np.where(is_measured, count - 1 - order, NOTHING_MEASURED)  # PatchImage hides the lowest first
            ranks[name] = pack_bytes(last_hidden.astype("<u2").tobytes())
            hidden[name] = [count - visible_count(ratio, count) for ratio in ratios]
            by_hand = np.zeros(order.size, np.uint8)
            for patch, value in getattr(state, f"painted_{name}"):
                by_hand[patch] = value
            painted[name] = pack_bytes(by_hand.tobytes())
        truth, step = to_steps(np.where(r.is_valid, r.depth, 0), self.step)
        return {"name": session.frames.name(state.frame), "limits": list(limits),
                "error_end": error_end(limits),
                "color": pack(np.moveaxis(r.color, -1, 0)), "truth": pack(np.stack([truth, r.is_valid])), "step": step,
                "intrinsics": [float(v) for v in r.intrinsics], "ranks": ranks, "hidden": hidden, "painted": painted}

    @staticmethod
    def camera(shown: Shown) -> Intrinsics:
        """The frame's camera."""
        return Intrinsics.from_array(shown.reconstruction.intrinsics)


def pack_influence(influence: Influence) -> str:
    """Each patch's share from depth and its ten strongest influences, as text.

    Returns:
        Packed int16 (n, 1 + 2 * 10): the share in thousandths (-1: nothing moves it), then pairs: the patch taken away
        (RGB patches as they are, depth patches plus n; -1: no more) and the signed move in tenths of a millimetre.
    """
    moves = np.concatenate([influence.rgb_moves.numpy(), influence.depth_moves.numpy()], axis=1)  # (n, 2 n), NaN = hidden
    strength = np.nan_to_num(np.abs(moves), nan=-1.0)
    taken = np.argsort(-strength, axis=1, kind="stable")[:, :TOP]
    move = np.take_along_axis(np.nan_to_num(moves), taken, axis=1)
    is_there = np.take_along_axis(strength, taken, axis=1) >= 0
    felt = np.nansum(np.abs(moves), axis=1)
    from_depth = np.nansum(np.abs(influence.depth_moves.numpy()), axis=1)
    table = np.full((len(moves), 1 + 2 * TOP), NOBODY, np.int16)
    table[:, 0] = np.where(felt > 0, np.rint(1000 * from_depth / np.where(felt > 0, felt, 1)), NOBODY)
    table[:, 1::2][:, :taken.shape[1]] = np.where(is_there, taken, NOBODY)
    table[:, 2::2][:, :taken.shape[1]] = np.clip(np.rint(move / MOVE_STEP), -32768, 32767)
    return pack_bytes(table.astype("<i2").tobytes())


def _plain(scores: dict[str, float]) -> dict[str, float]:
    """Scores as JSON has them; what is not finite is left out."""
    return {name: round(float(value), 6) for name, value in scores.items() if math.isfinite(value)}


__all__ = ["COST", "DEPTH_RATIOS", "MOVE_STEP", "RGB_RATIOS", "STEP", "TOP", "Climber", "Ladder", "LadderFrame",
           "pack_influence", "silent_copy"]
