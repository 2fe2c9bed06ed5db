"""Charts as matplotlib figures through the object API: nothing global, safe in any thread.

:func:`figure_image` turns one into a picture like all the others.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from mask3d_viz import style
from mask3d_viz.pixels import PictureError
from mask3d_viz.scores import Score, as_score, score_text

__all__ = ["Score", "as_score", "bar_table", "error_by_ratio", "figure_image", "figure_svg", "loss_curve", "running_mean",
           "theme_variables"]

Numbers = Sequence[float] | np.ndarray

PIXELS_PER_INCH = 144  # twice the size on a page, so that it stays crisp on a fine screen
TEXT = 11.0  # points; 11 * 144 / 72 = 22 pixels


def blank_chart(height: float, title: str, theme: str, width: float = 8.0):
    """A figure of so many inches and its one axis in the house's look."""
    from matplotlib.figure import Figure

    colors = style.theme(theme)
    figure = Figure(figsize=(width, height), dpi=PIXELS_PER_INCH, layout="constrained", facecolor=colors["paper"])
    axis = figure.add_subplot(facecolor=colors["paper"])
    for side, spine in axis.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(colors["muted"])
    axis.tick_params(colors=colors["ink"], labelsize=TEXT)
    axis.grid(True, color=colors["line"], linewidth=0.8)
    axis.set_axisbelow(True)
    if title:
        axis.set_title(title, loc="left", color=colors["ink"], fontsize=TEXT * 1.15, fontweight="bold")
    return figure, axis, colors


def spread_out(wanted: Sequence[float], gap: float) -> list[float]:
    """Ascending places as near to the wanted ones as they can be with at least ``gap`` between neighbours, in 0..1.

    Neighbours that would touch form a group around their mean (pool adjacent violators).
    """
    groups: list[list[float]] = []  # [sum of (wanted - offset), count]
    for value in wanted:
        groups.append([value, 1])
        while len(groups) > 1:
            (sum_a, n_a), (sum_b, n_b) = groups[-2:]
            if sum_b / n_b - sum_a / n_a >= gap * n_a:
                break
            groups[-2:] = [[sum_a + sum_b - n_b * n_a * gap, n_a + n_b]]
    places = [total / count + step * gap for total, count in groups for step in range(int(count))]
    for at in range(len(places)):  # keep the lowest above 0, then the highest below 1
        places[at] = max(places[at], at * gap)
    for at in range(len(places)):
        places[-1 - at] = min(places[-1 - at], 1.0 - at * gap)
    return places


def _end_labels(axis, labels: Sequence[tuple[float, str, str, bool]]) -> None:
    """Names right of the ends of their lines, joined to them by a hairline. The axis' limits must be set before."""
    low, high = axis.get_ylim()
    move = math.log if axis.get_yscale() == "log" else float
    ends = sorted(((min(max((move(y) - move(low)) / (move(high) - move(low)), 0.0), 1.0), text, color, bold)
                   for y, text, color, bold in labels), key=lambda item: item[0])
    gap = TEXT * 1.35 / 72 / (axis.figure.get_figheight() * 0.8)
    for place, (end, text, color, bold) in zip(spread_out([end for end, *_ in ends], gap), ends):
        axis.annotate(text, xy=(1.0, end), xytext=(1.045, place), xycoords="axes fraction", textcoords="axes fraction",
                      va="center", color=color, fontsize=TEXT, fontweight="bold" if bold else "normal",
                      annotation_clip=False,
                      arrowprops={"arrowstyle": "-", "color": color, "linewidth": 0.8, "shrinkA": 2, "shrinkB": 0,
                                  "relpos": (0, 0.5)})


def running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Mean over the last ``window`` values (fewer at the start)."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)


def cut_to(x: np.ndarray, y: np.ndarray, low: float, high: float) -> tuple[np.ndarray, np.ndarray] | None:
    """The part of a curve between two places, with interpolated ends; None where there is none.

    Args:
        x: rising, (n,). y: (n,).
    """
    low, high = max(low, float(x[0])), min(high, float(x[-1]))
    if high <= low:
        return None
    inside = x[(x > low) & (x < high)]
    places = np.concatenate([[low], inside, [high]])
    return places, np.interp(places, x, y)


def loss_curve(records: Sequence[Mapping[str, Any]], keys: Sequence[str] | Mapping[str, str] = ("loss",), *,
               x: str = "step", opponents: Mapping[str, float] | None = None,
               band: tuple[Numbers, Numbers, Numbers] | None = None, ghosts: Mapping[str, tuple[Numbers, Numbers]] | None = None,
               title: str = "",
               y_label: str = "loss", log_scale: bool = False, theme: str = "light",
               size: tuple[float, float] = (8.0, 4.2)):
    """A run's curve, over the band where such runs lie and the lines it has to pass.

    Args:
        records: the lines of a JSONL log; a record without a key leaves that curve alone.
        keys: which numbers to draw, or {key: name in the chart}.
        x: what to draw them over.
        opponents: name to height of a horizontal dashed line, in the curve's unit.
        band: (x, low, high) of recorded reference runs.
        ghosts: name to (x, y) of another run's curve, pale and dashed, cut to where this one's are.
        title, y_label: text. log_scale: of the vertical axis.
        theme: "light" or "dark".
        size: (width, height) in inches; letters keep theirs, so that a small chart stays readable.

    Returns:
        ``matplotlib.figure.Figure``.

    Raises:
        PictureError: none of the keys is in any record.
    """
    names = dict(keys) if isinstance(keys, Mapping) else {key: key for key in keys}
    figure, axis, colors = blank_chart(size[1], title, theme, size[0])
    labels, seen = [], False
    if band is not None:
        axis.fill_between(*(np.asarray(part, float) for part in band), color=colors["line"], linewidth=0,
                          label="earlier runs")
    for place, (key, name) in enumerate(names.items()):
        rows = [(record[x], record[key]) for record in records if x in record and key in record]
        finite = np.array([(a, b) for a, b in rows if b is not None and math.isfinite(b)], float).reshape(-1, 2)
        broken = [a for a, b in rows if b is None or not math.isfinite(b)]
        color = style.SERIES[theme][place % 7]
        if broken:
            axis.plot(broken, [0.03] * len(broken), "x", color=colors["warn"], clip_on=False,
                      transform=axis.get_xaxis_transform(), label=f"{name}: not finite ({len(broken)})")
        if not len(finite):
            continue
        seen, window = True, max(1, len(finite) // 50)
        if window > 1:
            axis.plot(*finite.T, color=color, alpha=0.25, linewidth=0.8)
        smooth = running_mean(finite[:, 1], window)
        axis.plot(finite[:, 0], smooth, color=color, linewidth=2.2, marker="o" if len(finite) <= 30 else None,
                  markersize=4)
        labels.append((smooth[-1], name, color, True))
    if not seen:
        found = sorted({key for record in records for key in record})
        raise PictureError(f"records with {' or '.join(names)} over {x}", f"keys {', '.join(found) or 'none'}",
                           "Name a key that the log holds.")
    reached = [record[x] for record in records if x in record and any(key in record for key in names)]
    for name, (places, heights) in (ghosts or {}).items():
        line = cut_to(np.asarray(places, float), np.asarray(heights, float), min(reached), max(reached))
        if line is not None:
            axis.plot(*line, color=colors["muted"], alpha=0.6, linewidth=1.6, linestyle=(0, (2, 2)), label="_ghost")
            labels.append((line[1][-1], name, colors["muted"], False))
    for name, height in (opponents or {}).items():
        axis.axhline(height, color=colors["muted"], linestyle=(0, (5, 3)), linewidth=1.3)
        labels.append((height, name, colors["muted"], False))
    if log_scale:
        from matplotlib.ticker import LogLocator

        axis.set_yscale("log")
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.yaxis.set_minor_formatter(lambda value, _: "")
    axis.margins(x=0.01)
    axis.set_ylim(*axis.get_ylim())
    axis.set_xlabel(x, color=colors["ink"], fontsize=TEXT)
    axis.set_ylabel(y_label, color=colors["ink"], fontsize=TEXT)
    _end_labels(axis, labels)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(frameon=False, labelcolor=colors["ink"], fontsize=TEXT)
    return figure


def bar_table(scores: Mapping[str, Any], *, highlight: Sequence[str] = (), metric: str = "AbsRel", unit: str = "",
              digits: int = 3, title: str = "", lower_is_better: bool = True, log_scale: bool = False,
              theme: str = "light"):
    """Model and opponents one below the other: a dot, its 95 % interval, and the numbers (a forest plot).

    Args:
        scores: name to whatever :func:`as_score` understands, from top to bottom.
        highlight: names drawn in colour, the model's; a thin line carries the first one's value past the others.
        metric, unit, digits: of the numbers.
        title: above the chart.
        lower_is_better: said on the axis.
        log_scale: of the numbers, where one opponent is many times worse than the others.
        theme: "light" or "dark".

    Returns:
        ``matplotlib.figure.Figure``.
    """
    from matplotlib.ticker import LogLocator

    known = {name: as_score(given) for name, given in scores.items()}
    if not known or not set(highlight) <= set(known):
        raise PictureError("at least one score, and highlighted names among them",
                           f"scores {', '.join(known) or 'none'}; highlight {', '.join(highlight)}", "Check the names.")
    figure, axis, colors = blank_chart(1.25 + 0.36 * len(known), title, theme)
    axis.grid(False, axis="y")
    for row, (name, score) in enumerate(known.items()):
        color = style.SERIES[theme][1] if name in highlight else colors["muted"]
        if score.low is not None:
            axis.plot((score.low, score.high), (row, row), color=color, linewidth=7, alpha=0.4,
                      solid_capstyle="butt")
        axis.plot(score.value, row, "o", color=color, markersize=6.5)
        axis.annotate(score_text(score, digits), (1.02, row), xycoords=("axes fraction", "data"), va="center",
                      color=colors["ink"], fontsize=TEXT, fontweight="bold" if name in highlight else "normal",
                      annotation_clip=False)
    if highlight:
        axis.axvline(known[highlight[0]].value, color=style.SERIES[theme][1], linewidth=1, alpha=0.6)
    axis.set_yticks(range(len(known)), list(known))
    for label in axis.get_yticklabels():
        label.set_fontweight("bold" if label.get_text() in highlight else "normal")
    axis.set_ylim(len(known) - 0.4, -0.6)
    axis.tick_params(axis="y", length=0)
    axis.spines["left"].set_visible(False)
    ends = [end for score in known.values() for end in score if end is not None]
    if log_scale:
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.xaxis.set_minor_formatter(lambda value, _: "")
    else:
        left, right = min(0.0, *ends, 0.0), max(0.0, *ends, 0.0)
        axis.set_xlim(left, left + (right - left or 1.0) * 1.04)
    has_interval = any(score.low is not None for score in known.values())
    axis.set_xlabel(f"{metric}{f' ({unit})' if unit else ''}, {'lower' if lower_is_better else 'higher'} is better"
                    f"{'; bars: 95 % interval' if has_interval else '; no interval'}",
                    color=colors["ink"], fontsize=TEXT)
    return figure


def error_by_ratio(ratios: Numbers, series: Mapping[str, Sequence[Any]], *, highlight: Sequence[str] = (),
                   metric: str = "AbsRel", x_label: str = "share of depth patches hidden", title: str = "",
                   theme: str = "light"):
    """How the error grows as more is hidden, one line per model or opponent.

    Args:
        ratios: hidden shares 0..1, ascending.
        series: name to one score per ratio (see :func:`as_score`); None where it was not measured.
        highlight: names drawn thick.
        metric, x_label, title: text.
        theme: "light" or "dark".

    Returns:
        ``matplotlib.figure.Figure``.

    Raises:
        PictureError: a series of another length than the ratios.
    """
    figure, axis, colors = blank_chart(4.2, title, theme)
    labels = []
    for place, (name, scores) in enumerate(series.items()):
        if len(scores) != len(ratios):
            raise PictureError(f"one score per ratio, {len(ratios)}", f"{len(scores)} for {name!r}",
                               "Pass None where a ratio was not measured.")
        known = [(ratio, as_score(score)) for ratio, score in zip(ratios, scores) if score is not None]
        if not known:
            continue
        color = style.SERIES[theme][(place + 1) % 7]
        at = [ratio for ratio, _ in known]
        axis.plot(at, [score.value for _, score in known], "o-", color=color, markersize=6,
                  linewidth=3 if name in highlight else 1.6)
        spread = [(ratio, s.low, s.high) for ratio, s in known if s.low is not None]
        if spread:
            axis.fill_between(*np.array(spread, float).T, color=color, alpha=0.18, linewidth=0)
        labels.append((known[-1][1].value, name, color, name in highlight))
    axis.set_ylim(0, axis.get_ylim()[1])
    axis.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    axis.set_xlabel(x_label, color=colors["ink"], fontsize=TEXT)
    axis.set_ylabel(metric, color=colors["ink"], fontsize=TEXT)
    _end_labels(axis, labels)
    return figure


def figure_image(figure) -> np.ndarray:
    """A matplotlib figure as a picture, uint8 (H, W, 3)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def figure_svg(figure, label: str, theme: str = "light") -> str:
    """A chart for a page that may turn dark: its colours are CSS variables, see :func:`theme_variables`.

    Args:
        figure: drawn in ``theme``.
        label: what it shows, for whoever cannot see it.

    Returns:
        An ``<svg>`` that takes the width it is given.
    """
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    buffer = io.StringIO()
    FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    head, _, body = text[text.index("<svg"):].partition(">")
    box = re.search(r'viewBox="[^"]*"', head).group()
    for name, color in _named_colors(theme):
        body = body.replace(color, f"var(--m3d-{name},{color})")
    return (f'<svg {box} role="img" aria-label="{escape(label)}" style="display:block;width:100%;height:auto" '
            f'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">{body}')


def _named_colors(theme: str) -> list[tuple[str, str]]:
    """(variable, colour) of all that charts are drawn with."""
    return [*style.theme(theme).items(), *((f"series-{i}", color) for i, color in enumerate(style.SERIES[theme]))]


def theme_variables(selector: str) -> str:
    """The colours of :func:`figure_svg` in JupyterLab's light theme and in its dark one, as a style sheet.

    Args:
        selector: of the element that holds the charts.
    """
    def block(theme: str) -> str:
        return "".join(f"--m3d-{name}:{color};" for name, color in _named_colors(theme) if name != "paper")

    dark = f"body[data-jp-theme-light='false'] {selector},body.dark {selector}"
    return f"{selector}{{{block('light')}--m3d-paper:transparent}}{dark}{{{block('dark')}--m3d-paper:transparent}}"
