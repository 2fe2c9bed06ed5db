"""Charts of fine-tuning runs: the loss, and the score on validation frames over the line of the trivial answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mask3d_core.evaluation.trivial import TrivialAnswer
from mask3d_viz.curves import loss_curve

CHART = (6.4, 3.5)  # inches
POINTS = 1500  # in a curve at most
METRICS = {"segment": ("miou", "mIoU"), "depth": ("abs_rel", "AbsRel"), "detect": ("mask_ap", "mask AP")}
"""Of each task the number that is watched: its key in the log, and what it is called."""

Records = Sequence[Mapping[str, Any]]


def scores_over_steps(records: Records, metric: str) -> list[tuple[int, float]]:
    """(step, score) of every evaluation that has one."""
    found = [(r["step"], r["eval"].get(metric)) for r in records if isinstance(r.get("eval"), dict)]
    return [(step, value) for step, value in found if isinstance(value, (int, float))]


def finetuning_figures(runs: Mapping[str, Records], task: str, theme: str = "light", trivial: TrivialAnswer | None = None
                       ) -> list[tuple[str, Any]]:
    """(what it shows, matplotlib figure) of runs on the same labels and frames.

    Args:
        runs: name to its log's records.
        task: "segment", "depth" or "detect".
        theme: "light" or "dark".
        trivial: what needs no network, as a dashed line.

    Returns:
        The loss, and the score where one was measured; a chart that has nothing to show is left out.
    """
    found, (metric, name) = [], METRICS[task]
    rows: list[dict[str, Any]] = []
    for run, records in runs.items():
        losses = [r for r in records if isinstance(r.get("loss"), (int, float))]
        rows += [{"step": r["step"], run: r["loss"]} for r in losses[::max(1, len(losses) // POINTS)]]
    shown = [run for run in runs if any(run in row for row in rows)]
    if shown:
        found.append(("Training loss over the steps", loss_curve(rows, shown, theme=theme, title="Training loss", size=CHART)))
    rows = [{"step": step, run: score} for run, records in runs.items() for step, score in scores_over_steps(records, metric)]
    shown = [run for run in runs if any(run in row for row in rows)]
    if shown:
        lines = {} if trivial is None else {_short(trivial.name): trivial.score}
        better = "lower is better" if task == "depth" else "higher is better"
        figure = loss_curve(rows, shown, opponents=lines, y_label=f"{name} ({better})", theme=theme, size=CHART,
                            title="Frames that it never trains on")
        found.append((f"{name} on validation frames, over the steps", figure))
    return found


def _short(name: str) -> str:
    """Beside a chart there is room for two words."""
    inside = name.partition("(")[2].rstrip(")")
    return f"all \"{inside}\"" if inside else "mean per pixel"


__all__ = ["METRICS", "finetuning_figures", "scores_over_steps"]
