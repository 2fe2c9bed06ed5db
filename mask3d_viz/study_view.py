"""A study in one figure: scores by start and label fraction, every seed a dash, with intervals; and what was tried before."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np

from mask3d_viz import style
from mask3d_viz.curves import figure_image


FEW_STARTS = 5  # up to so many stand side by side; more get a row each, or squares and a legend of their own
LOW_INK = 0.45  # share of the colours' range below which numbers are written in the light ink


def study_figure(values: dict[str, Any], *, theme: str = "light"):
    """The figure of a study.

    Args:
        values: as ``study.analysis.as_values`` gives them.

    Returns:
        A matplotlib figure: left the scores, right the reference minus each other start. Scores stand over the share of labels where
        starts are few, over both ratios where the starts are a grid of them, and otherwise in a row per start.
    """
    from matplotlib.figure import Figure

    colors, series = style.theme(theme), style.SERIES[theme]
    ink, muted, paper = (colors[k] for k in ("ink", "muted", "paper"))
    is_one = len({c["said"] for c in values["cells"]}) == 1
    is_rows = is_one and len({c["start"] for c in values["cells"]}) > FEW_STARTS
    is_grid = is_one and sum(c.get("ratios") is not None for c in values["cells"]) > FEW_STARTS
    height = 5.0 if is_grid else max(5.0, 1.8 + 0.34 * len(values["contrasts"]))
    figure = Figure(figsize=(12.5, height), facecolor=paper, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
    for axis in (left, right):
        _dress(axis, colors)
    if is_grid:
        _grid(figure, left, values, ink, muted)
    elif is_rows:
        _rows(left, values, ink, muted, series)
    else:
        _scores(left, values, ink, muted, series)
    _differences(right, values, muted, series, ink)
    state = "" if values["is_whole"] else f" (so far {values['seeds']} of {values.get('planned_seeds', 'the')} seeds)"
    if values.get("open_trials"):
        state = f" (NOT FINAL: {values['open_trials']} trials have not run)"
    title = f"{values['question']}{' (exploratory)' if values['is_exploratory'] else ''}{state}"
    figure.suptitle(textwrap.fill(title, 95), color=ink, fontsize=14, fontweight="bold")
    return figure


def _grid(figure, axis, values: dict[str, Any], ink: str, muted: str) -> None:
    """Means over both ratios, and where they lie below the start from noise."""
    cells = {tuple(c["ratios"]): c for c in values["cells"] if c.get("ratios") is not None}
    color, depth = (sorted({pair[k] for pair in cells}) for k in (0, 1))
    means = np.array([[cells[a, b]["over_seeds"]["mean"] if (a, b) in cells else np.nan for a in color] for b in depth])
    noise = next((c["over_seeds"]["mean"] for c in values["cells"] if c["start"] == "random"), None)
    image = axis.imshow(means, cmap="viridis", origin="lower", aspect="auto")
    middle = np.nanmin(means) + LOW_INK * (np.nanmax(means) - np.nanmin(means))
    for row, b in enumerate(depth):
        for column, a in enumerate(color):
            if (a, b) not in cells:
                continue
            found = cells[a, b]["over_seeds"]
            half = "" if found["low"] is None else f"\n±{(found['high'] - found['low']) / 2:.3f}"
            is_below = noise is not None and found["mean"] < noise
            axis.text(column, row, f"{found['mean']:.3f}{half}{chr(10) + 'below noise' if is_below else ''}", ha="center", va="center",
                      fontsize=11, color="white" if found["mean"] < middle else "black")
    axis.set_xticks(range(len(color)), [f"{100 * a:g} %" for a in color])
    axis.set_yticks(range(len(depth)), [f"{100 * b:g} %" for b in depth])
    axis.set_xlabel("colour hidden", color=ink, fontsize=13)
    axis.set_ylabel("depth hidden", color=ink, fontsize=13)
    words = f"{values['metric']} on test rooms, " + ("mean ± 95 % over seeds" if values["seeds"] > 1 else "one seed")
    axis.set_title(words if noise is None else f"{words}; from noise {noise:.3f}", color=muted, fontsize=11)
    bar = figure.colorbar(image, ax=axis, shrink=0.7)
    bar.ax.tick_params(colors=ink, labelsize=11)
    bar.outline.set_visible(False)


def _short_labels(values: dict[str, Any]) -> dict[str, str]:
    """Of each start; one that changes a single thing of the reference is called by what it changes."""
    labels = {c["start"]: c["label"] for c in values["cells"]}
    reference = labels.get(values["contrasts"][0]["reference"], "") if values["contrasts"] else ""
    return {start: label.removeprefix(f"{reference}, ") for start, label in labels.items()}


def _rows(axis, values: dict[str, Any], ink: str, muted: str, series: tuple[str, ...]) -> None:
    """A row per start: its mean, interval and seeds."""
    cells = list(reversed(values["cells"]))
    for y, cell in enumerate(cells):
        found = cell["over_seeds"]
        color = muted if cell["start"] == "random" else series[0] if cell["start"].startswith("mask3d") else series[1]
        if found["low"] is not None:
            axis.plot([found["low"], found["high"]], [y, y], color=color, linewidth=3)
        axis.plot(cell["values"], [y] * len(cell["values"]), "|", color=color, markersize=10, alpha=0.75)
        axis.plot(found["mean"], y, "o", color=color, markersize=8)
        if cell["start"] == "random":
            axis.axvline(found["mean"], color=muted, linestyle="--", linewidth=1.2, zorder=0)
    trivial = [c["trivial"] for c in cells if np.isfinite(c["trivial"])]
    if trivial:
        axis.axvline(float(np.mean(trivial)), color=muted, linestyle=":", linewidth=1.8)
        axis.text(float(np.mean(trivial)), len(cells) - 0.4, " trivial answer", color=muted, fontsize=11, va="bottom")
    short = _short_labels(values)
    axis.set_yticks(range(len(cells)), [short[c["start"]] for c in cells])
    is_share = cells[0]["said"].endswith("%")
    axis.set_xlabel(f"{values['metric']} on test {'rooms, labels of ' + cells[0]['said'] if is_share else 'frames'}", color=ink, fontsize=13)


def _dress(axis, colors: dict[str, str]) -> None:
    """The theme's paper and ink, and no lines but the two axes."""
    axis.set_facecolor(colors["paper"])
    axis.tick_params(colors=colors["ink"], labelsize=12)
    for name, spine in axis.spines.items():
        spine.set_visible(name in ("left", "bottom"))
        spine.set_color(colors["muted"])


def _scores(axis, values: dict[str, Any], ink: str, muted: str, series: tuple[str, ...]) -> None:
    conditions = list(dict.fromkeys(c["said"] for c in values["cells"]))
    starts = list(dict.fromkeys(c["start"] for c in values["cells"]))
    places = {c: k for k, c in enumerate(conditions)}
    for number, start in enumerate(starts):
        color, shift = series[number % len(series)], min(0.16, 0.8 / len(starts)) * (number - (len(starts) - 1) / 2)
        cells = {c["said"]: c for c in values["cells"] if c["start"] == start}
        xs = [places[f] + shift for f in conditions]
        means = [cells[f]["over_seeds"]["mean"] for f in conditions]
        low = [cells[f]["over_seeds"]["low"] for f in conditions]
        high = [cells[f]["over_seeds"]["high"] for f in conditions]
        axis.plot(xs, means, "o" if number < FEW_STARTS else "s", color=color, markersize=9, label=cells[conditions[0]]["label"], zorder=3)
        for x, a, b, f in zip(xs, low, high, conditions):
            if a is not None:
                axis.plot([x, x], [a, b], color=color, linewidth=2.5, zorder=2)
            seeds = cells[f]["values"]
            axis.plot(np.full(len(seeds), x), seeds, "_", color=color, markersize=9, alpha=0.75, zorder=2)
    trivial = [c["trivial"] for c in values["cells"] if np.isfinite(c["trivial"])]
    if trivial:
        axis.axhline(float(np.mean(trivial)), color=muted, linestyle=":", linewidth=1.8)
        axis.text(len(conditions) - 0.5, float(np.mean(trivial)), "trivial answer ", color=muted, fontsize=11, va="bottom",
                  ha="right")
    is_share = all(f.endswith("%") for f in conditions)
    are_many = len(starts) > FEW_STARTS
    gap = "\n" if are_many else " "
    axis.set_xticks(range(len(conditions)), [f"labels of{gap}{f} of the rooms" if is_share else f for f in conditions])
    axis.set_xlim(-0.5, len(conditions) - 0.5)
    axis.set_ylabel(f"{values['metric']} on test {'rooms' if is_share else 'frames'}", color=ink, fontsize=13)
    legend = axis.figure.legend(*axis.get_legend_handles_labels(), frameon=False, fontsize=12, loc="outside lower left", ncols=4)  # covers no score
    for text in legend.get_texts():
        text.set_color(ink)


def _differences(axis, values: dict[str, Any], muted: str, series: tuple[str, ...], ink: str) -> None:
    label_of, short = {c["start"]: c["label"] for c in values["cells"]}, _short_labels(values)
    rows = list(reversed(values["contrasts"]))
    for y, row in enumerate(rows):
        seeds, rooms = row["over_seeds"], row["over_rooms"]
        color = {"better": series[0], "worse": series[1]}.get(row["verdict"], muted)
        if seeds["low"] is not None:
            axis.plot([seeds["low"], seeds["high"]], [y + 0.12] * 2, color=color, linewidth=3)
        axis.plot([rooms["low"], rooms["high"]], [y - 0.12] * 2, color=color, linewidth=3, alpha=0.5)
        axis.plot(seeds["mean"], y, "o", color=color, markersize=9)
    axis.axvline(0, color=muted, linewidth=1.2)
    is_one = len({r["said"] for r in rows}) == 1
    axis.set_yticks(range(len(rows)), [short[r["other"]] + ("" if is_one else f", {r['said']}") for r in rows])
    reference = label_of[rows[0]["reference"]] if rows else ""
    pair = f"the other minus {reference}" if values["metric"] == "AbsRel" else f"{reference} minus the other"  # right: it is better
    axis.set_xlabel(f"{pair}, {values['metric']}", color=ink, fontsize=13)
    drawn_again = "frames" if any(isinstance(row["condition"], str) for row in rows) else "rooms"  # folds of real frames, or rooms
    axis.set_title(f"95 %: strong over seeds, pale over {drawn_again}", color=muted, fontsize=11)


def study_image(values: dict[str, Any], *, theme: str = "light") -> np.ndarray:
    """:func:`study_figure` as uint8 (H, W, 3)."""
    return figure_image(study_figure(values, theme=theme))


def trials_figure(values: dict[str, Any], *, theme: str = "light"):
    """What was tried on validation frames: a row per start, a dash per choice, a dot for the best.

    Args:
        values: as ``study.analysis.trials_values`` gives them.

    Returns:
        A matplotlib figure, a panel per condition.
    """
    from matplotlib.figure import Figure

    colors, series = style.theme(theme), style.SERIES[theme]
    ink, muted, paper = (colors[k] for k in ("ink", "muted", "paper"))
    conditions = list(dict.fromkeys(row["said"] for row in values["rows"]))
    count = len(values["rows"]) // len(conditions)
    figure = Figure(figsize=(5.5 + 4.5 * len(conditions), 1.6 + 0.36 * count), facecolor=paper, layout="constrained")
    for axis, said in zip(figure.subplots(1, len(conditions), sharey=True, squeeze=False)[0], conditions, strict=True):
        rows = [row for row in reversed(values["rows"]) if row["said"] == said]
        _dress(axis, colors)
        for y, row in enumerate(rows):
            scores = [entry["score"] for entry in row["tried"] if entry["score"] is not None]  # the others diverged
            if scores:
                color = muted if row["start"] == "random" else series[0] if row["start"].startswith("mask3d") else series[1]
                axis.plot(scores, [y] * len(scores), "|", color=color, markersize=11, alpha=0.7)
                axis.plot(max(scores), y, "o", color=color, markersize=9)
                axis.text(max(scores), y, f"   {max(scores):.3f}", color=ink, fontsize=11, va="center")
        axis.set_yticks(range(len(rows)), [row["label"] for row in rows])
        axis.margins(x=0.18)
        where = f"on validation rooms, labels of {said}" if said.endswith("%") else f"on validation frames, {said} left out"
        axis.set_xlabel(f"{values['metric']} {where}", color=ink, fontsize=13)
    return figure


def trials_image(values: dict[str, Any], *, theme: str = "light") -> np.ndarray:
    """:func:`trials_figure` as uint8 (H, W, 3)."""
    return figure_image(trials_figure(values, theme=theme))
