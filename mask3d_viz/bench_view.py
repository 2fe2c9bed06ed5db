"""The bench in one figure: a column per task, a row per encoder, 95 % intervals, opponents dashed."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mask3d_core.evaluation.bench.config import FAVOURED, LINEAR, METRICS, NEAREST, READOUTS, TASKS, UNTRAINED, main_metric
from mask3d_core.evaluation.bench.entries import OPPONENT
from mask3d_viz import style
from mask3d_viz.curves import PIXELS_PER_INCH, TEXT, figure_image
from mask3d_viz.pixels import PictureError, save_png

__all__ = ["bench_figure", "row_order", "save_bench"]

TITLES = {"depth": "Depth", "normals": "Surface normals", "semantics": "Semantics", "correspondence": "Correspondence"}
OFFSETS = {LINEAR: 0.15, NEAREST: -0.17}  # of the two readouts from the middle of their row
MARKS = {LINEAR: "o", NEAREST: "s", UNTRAINED: "D"}
LABELS = {LINEAR: "linear", NEAREST: "nearest patches", UNTRAINED: "matching, no training"}
WIDTH = 13.0  # inches


def row_order(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Names from top to bottom: encoders, references, opponents."""
    kinds = ("encoder", "reference", OPPONENT)
    return sorted(rows, key=lambda name: kinds.index(rows[name]["kind"]))


def bench_figure(values: Mapping[str, Any], theme: str = "light", title: str = ""):
    """Draw what a bench found.

    Args:
        values: ``BenchResult.as_dict()``, or the JSON that ``mask3d probe`` wrote.
        theme: "light" or "dark".
        title: above the figure; by default what the frames are called.

    Returns:
        ``matplotlib.figure.Figure``.

    Raises:
        PictureError: no rows, or nothing measured.
    """
    from matplotlib.figure import Figure

    rows = values.get("rows") or {}
    tasks = [task for task in TASKS if any(task in row["tasks"] for row in rows.values())]
    if not tasks:
        raise PictureError("a bench with at least one measured row", f"{len(rows)} rows", "Run `mask3d probe` first.")
    names, colors = row_order(rows), style.theme(theme)
    height = 2.6 + 0.5 * len(names)
    figure = Figure(figsize=(WIDTH, height), dpi=PIXELS_PER_INCH, facecolor=colors["paper"])
    axes = figure.subplots(1, len(tasks), squeeze=False, sharey=True)[0]
    figure.subplots_adjust(left=0.21, right=0.985, top=1 - 1.12 / height, bottom=1.36 / height, wspace=0.07)
    for task, axis in zip(tasks, axes):
        _column(axis, task, rows, names, theme)
    axes[0].set_yticks(range(len(names)), names, fontsize=TEXT * 1.08)
    axes[0].set_ylim(len(names) - 0.5, -0.5)
    for label, name in zip(axes[0].get_yticklabels(), names):
        label.set_color(colors["muted"] if rows[name]["kind"] == OPPONENT else colors["ink"])
        label.set_fontweight("bold" if rows[name]["kind"] == "encoder" else "normal")
    frames = values["frames"]
    figure.text(0.012, 1 - 0.33 / height, title or "What a frozen encoder holds of the third dimension", color=colors["ink"],
                fontsize=TEXT * 1.35, fontweight="bold", va="center")
    _legend(figure, colors, height, tasks)
    count = frames["test_sequences"]
    over = f"over {count} rooms or recordings" if count > 1 else "over frames of one recording (too narrow)"
    dagger = "\N{DAGGER} favours encoders that were trained to predict depth, by construction. " if set(tasks) & set(FAVOURED) else ""
    said = (f"{dagger}{frames['words']}. Bars: 95 % intervals {over}. Dashed: opponents "
            "that learnt nothing; the dashed line is the best of them. Layer and strength chosen on validation frames. All rows "
            "share their rooms, so bars that overlap may still differ: the table has the paired differences.")
    figure.text(0.012, 0.36 / height, "\n".join(textwrap.wrap(said, 185)), color=colors["muted"], fontsize=TEXT * 0.86,
                va="center")
    return figure


def _column(axis, task: str, rows: Mapping[str, Any], names: Sequence[str], theme: str) -> None:
    """One task: a dot and a bar for each row and readout."""
    colors, metric = style.theme(theme), main_metric(task)
    what, found = METRICS[task][metric], []
    axis.set_facecolor(colors["paper"])
    for place, name in enumerate(names):
        is_opponent = rows[name]["kind"] == OPPONENT
        if place % 2 == 0:
            axis.axhspan(place - 0.5, place + 0.5, color=colors["card"], zorder=0, linewidth=0)
        for readout in READOUTS[task]:
            value = rows[name]["tasks"].get(task, {}).get(readout, {}).get(metric)
            if value is None or value["mean"] is None:
                continue
            color = _color(theme, rows[name]["kind"], readout)
            y = place - OFFSETS.get(readout, 0.0)
            if value["low"] is not None:
                axis.plot([value["low"], value["high"]], [y, y], color=color, linewidth=2.6, solid_capstyle="butt", zorder=3,
                          linestyle=(0, (2, 1.2)) if is_opponent else "-")
            axis.plot([value["mean"]], [y], MARKS[readout], color=color, markersize=7, zorder=4, markeredgewidth=1.8,
                      markerfacecolor=colors["paper"] if readout == NEAREST else color)
            found.append((value["mean"], is_opponent))
    best = [mean for mean, is_opponent in found if is_opponent]
    if best:
        axis.axvline(min(best) if what.lower_is_better else max(best), color=colors["muted"], linewidth=1.3,
                     linestyle=(0, (5, 3)), zorder=2)
    title = TITLES[task] + (" \N{DAGGER}" if task in FAVOURED else "")
    axis.set_title(title, color=colors["ink"], fontsize=TEXT * 1.12, fontweight="bold", loc="left")
    way = "\N{LEFTWARDS ARROW} better" if what.lower_is_better else "better \N{RIGHTWARDS ARROW}"
    unit = f" ({what.unit})" if what.unit else ""
    axis.set_xlabel(f"{what.label}{unit}   {way}", color=colors["ink"], fontsize=TEXT)
    axis.tick_params(axis="x", colors=colors["ink"], labelsize=TEXT * 0.95)
    axis.tick_params(axis="y", length=0, pad=8)
    axis.locator_params(axis="x", nbins=4)
    axis.grid(True, axis="x", color=colors["line"], linewidth=0.8)
    axis.set_axisbelow(True)
    axis.margins(x=0.08)
    for side, spine in axis.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(colors["muted"])


def _color(theme: str, kind: str, readout: str) -> str:
    """Opponents grey; encoders and references in the two hues of the readouts."""
    if kind == OPPONENT:
        return style.SERIES[theme][6]
    return style.SERIES[theme][1 if readout == NEAREST else 0]


def _legend(figure, colors: Mapping[str, str], height: float, tasks: Sequence[str]) -> None:
    """What the marks mean, on the title's line at the right."""
    from matplotlib.lines import Line2D

    theme = next(name for name, found in style.THEMES.items() if found is colors)
    marks = [(readout, label) for readout, label in LABELS.items() if any(readout in READOUTS[task] for task in tasks)]
    handles = [Line2D([], [], color=_color(theme, "encoder", readout), marker=MARKS[readout], linewidth=2.6, markersize=7,
                      markeredgewidth=1.8, label=label,
                      markerfacecolor=colors["paper"] if readout == NEAREST else _color(theme, "encoder", readout))
               for readout, label in marks]
    figure.legend(handles=handles, loc="center right", bbox_to_anchor=(0.988, 1 - 0.33 / height), ncols=3, frameon=False,
                  labelcolor=colors["ink"], fontsize=TEXT)


def save_bench(values: Mapping[str, Any], out: str | Path, title: str = "") -> list[Path]:
    """Write OUT.png and OUT_dark.png; see :func:`bench_figure`.

    Returns:
        The files written.
    """
    out = Path(out)
    return [save_png(figure_image(bench_figure(values, theme, title)), out.with_name(f"{out.name}{suffix}.png"))
            for theme, suffix in (("light", ""), ("dark", "_dark"))]
