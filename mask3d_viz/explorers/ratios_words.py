"""A ratio map in sentences and as rows of a table."""

from __future__ import annotations

from typing import Any

import numpy as np

from mask3d_core.evaluation.metrics import METRICS
from mask3d_core.evaluation.ratio_map import MODEL, SCORED, RatioMap
from mask3d_viz.predictions import Shown
from mask3d_viz.ratio_view import METRIC_WORDS, OPPONENT_WORDS, percent, summary
from mask3d_viz.session import SessionState


def ratio_sentences(found: RatioMap, metric: str, shown: Shown | None, state: SessionState) -> list[str]:
    """What a map says, and the newest prediction beside it.

    Args:
        found: the map. metric: one of its scores.
        shown: the newest prediction, or None. state: whose it is.
    """
    said = [summary(found, metric)]
    if shown is not None and shown.reconstruction.scores:
        factor = 100 if metric in ("mae", "rmse") else 1
        digits = 1 if factor == 100 else 3
        rgb, depth = shown.reconstruction.ratios
        text = (f"Now shown, {percent(round(rgb, 4))} of RGB and {percent(round(depth, 4))} of depth hidden, frame "
                f"{state.frame}, this one mask: {METRIC_WORDS[metric]} "
                f"{factor * shown.reconstruction.scores[metric]:.{digits}f}")
        order = (min if METRICS[metric].lower_is_better else max)
        scored = {name: scores[metric] for name, scores in (shown.opponents or {}).items() if scores}
        best = order(scored, key=scored.get, default="")
        text += f"; {OPPONENT_WORDS[best]} {factor * scored[best]:.{digits}f}." if best else "."
        said.append(text)
    if state.painted_rgb or state.painted_depth or state.color_source != "own":
        said.append("The map is of random masks and the frame's own colours: painted patches and other colours are not "
                    "in it.")
    if found.cells:
        said.append("Best of all opponents, chosen after the fact: whoever beats it beats them all.")
    return said


def ratio_rows(found: RatioMap, metric: str) -> list[dict[str, Any]]:
    """One row per cell: ratios, score, band, best opponent and the paired difference, in metres where it has a unit."""
    rows = []
    for place in np.ndindex(len(found.depth_ratios), len(found.rgb_ratios)):
        rgb, depth = found.ratios(place)
        line = {"rgb_hidden": rgb, "depth_hidden": depth, "state": found.state(place), "metric": metric, "mask3d": "",
                "low": "", "high": "", "best_opponent": "", "opponent": "", "difference": "", "difference_low": "",
                "difference_high": "", "verdict": "", "frames": len(found.frames), "masks": len(found.seeds)}
        if line["state"] == SCORED:
            own, against = found.estimate(place, MODEL, metric), found.compare(place, metric)
            line |= {"mask3d": own.mean, "low": _or_empty(own.low), "high": _or_empty(own.high)}
            if against is not None:
                gap = against.difference
                line |= {"best_opponent": against.best, "opponent": against.opponent.mean, "difference": gap.mean,
                         "difference_low": _or_empty(gap.low), "difference_high": _or_empty(gap.high),
                         "verdict": against.words}
        rows.append(line)
    return rows


def _or_empty(value: float | None) -> float | str:
    return "" if value is None else value


__all__ = ["ratio_rows", "ratio_sentences"]
