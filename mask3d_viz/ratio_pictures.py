"""A ratio map as a picture without a browser, and the chart that says what the spread over masks is worth."""

from __future__ import annotations

import numpy as np

from mask3d_core.evaluation.ratio_map import NOTHING_HIDDEN, NOTHING_VISIBLE, UNKNOWN
from mask3d_core.evaluation.uncertainty import Sparsification
from mask3d_viz import style
from mask3d_viz.curves import figure_image, loss_curve, spread_out
from mask3d_viz.drawing import blank, paste, text_block, ticks_between
from mask3d_viz.pixels import hatching, resize_smooth
from mask3d_viz.ratio_view import KINDS, LOSES, MapView, hatch_words, ink_on


def map_image(view: MapView, here: tuple[float, float] | None = None, width: int = 640, theme: str = "light") -> np.ndarray:
    """The map as a picture.

    Args:
        view: what is drawn.
        here: (RGB, depth) place of a ring, in cells as :func:`place_of` gives them.
        width: pixels.
        theme: "light" or "dark".

    Returns:
        uint8 (H, width, 3).
    """
    from PIL import Image, ImageDraw

    rows, columns = view.kinds.shape
    left, gap = 88, 2
    cell = ((width - left - 24) // columns, max(46, round(0.62 * (width - left) / columns)))
    top = text_block(view.title, width, 17, bold=True, theme=theme)
    head = top.shape[0] + 10
    under = head + rows * cell[1]
    colors, paper = style.theme(theme), style.rgb(style.theme(theme)["paper"])
    legend = " ".join(part for part in (view.legend, hatch_words(view)) if part)
    said = text_block(legend, width, 14, role="muted", theme=theme)
    sheet = blank((under + 132 + said.shape[0], width), theme)
    paste(sheet, top, 0, 0)
    for row, column in np.ndindex(rows, columns):
        y, x = head + (rows - 1 - row) * cell[1], left + column * cell[0]
        color = view.colors[row, column].astype(float)
        size = (cell[1] - gap, cell[0] - gap)
        kind, hatch = KINDS[view.kinds[row, column]], view.hatches[row, column]
        if kind == UNKNOWN:
            color = 0.4 * color + 0.6 * np.array(paper)
        block = np.broadcast_to(np.rint(color).astype(np.uint8), (*size, 3))
        ink = ink_on(color)
        if kind in (NOTHING_VISIBLE, NOTHING_HIDDEN):
            block = hatching(size, style.HOLE_COLORS if theme == "light" else ((52, 56, 62), (74, 79, 86)))
        elif hatch:
            stripe = tuple(int(v) for v in (0.55 * np.array(ink) + 0.45 * color)) if hatch == LOSES else tuple(
                int(v) for v in (0.25 * np.array(ink) + 0.75 * color))
            block = hatching(size, (tuple(int(v) for v in color), stripe), rising=False, period=8 if hatch == LOSES else 14)
        paste(sheet, block, y, x)
    image = Image.fromarray(sheet)
    draw, font, small = ImageDraw.Draw(image), style.font(13), style.font(12)
    for row, column in np.ndindex(rows, columns):
        at = row * columns + column
        middle = (left + column * cell[0] + (cell[0] - gap) / 2, head + (rows - 1 - row) * cell[1] + (cell[1] - gap) / 2)
        text = "\n".join(part for part in (view.texts[at], view.marks[at]) if part)
        if text:
            color = tuple(int(v) for v in view.colors[row, column])
            draw.text(middle, text, fill=ink_on(color), font=font, anchor="mm", align="center", spacing=2, stroke_fill=color,
                      stroke_width=2 if view.hatches[row, column] else 0)
    ink, muted = style.rgb(colors["ink"]), style.rgb(colors["muted"])
    for row, text in enumerate(view.rows):
        draw.text((left - 8, head + (rows - 0.5 - row) * cell[1]), text, font=font, anchor="rm", fill=ink)
    for column, text in enumerate(view.columns):
        draw.text((left + (column + 0.5) * cell[0], under + 14), text, font=font, anchor="mm", fill=ink)
    draw.text((left + columns * cell[0] / 2, under + 36), "RGB hidden, %", font=style.font(15, True), anchor="mm", fill=ink)
    upright = Image.fromarray(text_block("depth hidden, %", 140, 15, bold=True, theme=theme)).rotate(90, expand=True)
    image.paste(upright, (4, head + rows * cell[1] // 2 - 70))
    if here is not None:
        x, y = left + (here[0] + 0.5) * cell[0] - 1, head + (rows - 0.5 - here[1]) * cell[1] - 1
        for grown, color in ((2, (17, 19, 22)), (0, (25, 227, 255)), (-3, (17, 19, 22))):
            draw.rounded_rectangle((x - cell[0] / 2 - grown, y - cell[1] / 2 - grown, x + cell[0] / 2 + grown,
                                    y + cell[1] / 2 + grown), 10, outline=color, width=3 if grown == 0 else 2)
    bar = np.broadcast_to(view.palette[np.linspace(0, 255, columns * cell[0] - gap).astype(int)], (14, columns * cell[0] - gap, 3))
    image.paste(Image.fromarray(np.ascontiguousarray(bar)), (left, under + 58))
    for at, text in view.ticks:
        x = left + at * (columns * cell[0] - gap - 1)
        draw.line((x, under + 72, x, under + 77), fill=muted)
        draw.text((x, under + 87), text, font=small, anchor="mm", fill=ink)
    for text, x, anchor in zip(view.ends, (left, left + columns * cell[0] - gap), ("lm", "rm")):
        draw.text((x, under + 106), text, font=small, anchor=anchor, fill=ink)
    sheet = np.array(image)
    paste(sheet, said, under + 124, 0)
    return sheet


CURVES = {"by_spread": "most spread first", "oracle": "most wrong first", "random": "in any order"}


def sparsification_image(curve: Sparsification, width: int = 560, theme: str = "light") -> np.ndarray:
    """Mean error of the rest, in centimetres, over the share of pixels left out. uint8 (H, width, 3)."""
    x = "per cent of the pixels left out"
    records = [{x: 100 * share, **{name: 100 * float(getattr(curve, name)[k]) for name in CURVES}}
               for k, share in enumerate(curve.removed)]
    figure = loss_curve(records, CURVES, x=x, y_label="mean error of the rest, cm", theme=theme)
    image = figure_image(figure)
    return resize_smooth(image, (round(image.shape[0] * width / image.shape[1]), width))


def sparsification_svg(curve: Sparsification) -> str:
    """The same for a page: lines with their names, in the page's own ink."""
    width, height, left, bottom, right, top = 440, 240, 46, 40, 132, 10
    most = 100 * max(float(curve.random.max()), float(curve.by_spread.max())) * 1.05 or 1.0
    x = lambda share: left + share * (width - left - right)  # noqa: E731
    y = lambda value: height - bottom - value / most * (height - bottom - top)  # noqa: E731
    ink, line = "var(--jp-ui-font-color1, currentColor)", "var(--jp-border-color1, #8888)"
    parts = [f'<svg viewBox="0 0 {width} {height}" width="{width}" style="max-width:100%;height:auto" role="img" '
             f'font-size="12" font-family="sans-serif" fill="{ink}"><title>Sparsification: mean error of the rest as pixels are '
             'left out</title>']
    for value in ticks_between(0, most, 4):
        parts.append(f'<path d="M{left} {y(value):.1f}H{width - right}" stroke="{line}" stroke-width="1"/><text x="{left - 6}" '
                     f'y="{y(value) + 4:.1f}" text-anchor="end">{value:g}</text>')
    for share in (0, 0.25, 0.5, 0.75, 1):
        parts.append(f'<text x="{x(share):.1f}" y="{height - bottom + 16}" text-anchor="middle">{100 * share:.0f}</text>')
    parts.append(f'<text x="{x(0.5):.1f}" y="{height - 6}" text-anchor="middle">per cent of the pixels left out</text>'
                 f'<text transform="translate(12 {y(most / 2):.0f}) rotate(-90)" text-anchor="middle">mean error, cm</text>')
    names, dashes = sorted(CURVES, key=lambda n: -getattr(curve, n)[-1]), {"by_spread": "", "oracle": "6 3", "random": "2 3"}
    ends = [max(0.0, 100 * float(getattr(curve, name)[-1]) / most) for name in reversed(names)]
    places = spread_out(ends, 16 / (height - bottom - top))
    for name, place in zip(names, reversed(places), strict=True):
        values = 100 * getattr(curve, name)
        points = " ".join(f"{x(a):.1f},{y(v):.1f}" for a, v in zip(curve.removed, values))
        color = {"by_spread": "#d55e00", "oracle": "#2b7fc4", "random": ink}[name]
        at = y(place * most) + 4
        parts.append(f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="2.2" '
                     f'stroke-dasharray="{dashes[name]}"/><text x="{width - right + 6}" y="{at:.1f}" fill="{color}">'
                     f'{CURVES[name]}</text>')
    return "".join(parts) + "</svg>"


__all__ = ["CURVES", "map_image", "sparsification_image", "sparsification_svg"]
