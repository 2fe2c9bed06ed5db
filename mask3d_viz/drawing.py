"""What pictures are put together with: text, colour bars, sheets."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mask3d_viz import style
from mask3d_viz.pixels import PictureError, as_picture, resize_smooth


def blank(size: tuple[int, int], theme: str = "light") -> np.ndarray:
    """An empty sheet (height, width) in the theme's paper colour."""
    return np.full((*size, 3), style.rgb(style.theme(theme)["paper"]), np.uint8)


def paste(sheet: np.ndarray, picture: np.ndarray, top: int, left: int) -> None:
    """Put a picture on a sheet that is still being drawn, in place."""
    sheet[top:top + picture.shape[0], left:left + picture.shape[1]] = picture


def wrap(text: str, width: int, size: int, bold: bool = False) -> list[str]:
    """Break text into lines of at most ``width`` pixels; a single longer word stays whole."""
    font, lines = style.font(size, bold), []
    for paragraph in text.split("\n"):
        line = ""
        for word in paragraph.split():
            longer = f"{line} {word}" if line else word
            if line and font.getlength(longer) > width:
                lines.append(line)
                longer = word
            line = longer
        lines.append(line)
    return lines


def text_block(text: str, width: int, size: int, *, bold: bool = False, role: str = "ink",
               theme: str = "light") -> np.ndarray:
    """Wrapped text as a picture.

    Args:
        text: any text; line breaks are kept.
        width: of the picture, pixels.
        size: of the letters, pixels.
        role: which colour of the theme.

    Returns:
        uint8 (as many lines as needed, width, 3); no rows for empty text.
    """
    from PIL import Image, ImageDraw

    if not text:
        return blank((0, width), theme)
    size = max(size, style.SMALLEST_FONT)
    lines, step = wrap(text, width, size, bold), math.ceil(size * 1.32)
    sheet = Image.fromarray(blank((step * len(lines), width), theme))
    draw = ImageDraw.Draw(sheet)
    for number, line in enumerate(lines):
        draw.text((0, number * step + step - round(0.32 * size)), line, font=style.font(size, bold), anchor="ls",
                  fill=style.rgb(style.theme(theme)[role]))
    return np.asarray(sheet)


def ticks_between(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers in [low, high], about ``count`` of them, steps of 1, 2 or 5 times a power of ten."""
    raw = (high - low) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = power * next(factor for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    return [k * step for k in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def scale_ticks(low: float, high: float, count: int = 5) -> tuple[list[float], int]:
    """What stands at a colour bar: at least two numbers, since one alone is no scale.

    Args:
        low, high: the numbers at its ends, low < high. count: aimed at, 2 or more.

    Returns:
        Round numbers in [low, high], of finer steps where fewer than two fit, else the two ends; digits behind the point.
    """
    for more in (1, 2, 4):
        ticks = ticks_between(low, high, more * count)
        if 1 < len(ticks) <= count + 1:
            return ticks, max(0, -math.floor(math.log10(ticks[1] - ticks[0]) + 1e-9))
    return [low, high], max(0, 1 - math.floor(math.log10(high - low) + 1e-9))


def number(value: float, digits: int) -> str:
    """A number with a proper minus sign."""
    return f"{value:.{digits}f}".replace("-", "\N{MINUS SIGN}")


def color_bar(limits: tuple[float, float], colormap: str, width: int, *, label: str = "",
              ends: tuple[str, str] = ("", ""), font_size: int = 16, theme: str = "light") -> np.ndarray:
    """A horizontal colour bar with ticks in metres.

    Args:
        limits: the metres at its two ends, low < high.
        colormap: name in :mod:`style`.
        width: of the picture, pixels.
        label: above the bar, at the left.
        ends: what the two ends mean, below the bar ("too near", "too far").
        font_size: pixels.

    Returns:
        uint8 (H, width, 3); the height follows from the font.
    """
    from PIL import Image, ImageDraw

    low, high = limits
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise PictureError("limits (low, high) in metres with low < high", str(limits), "Pass depth_range's answer.")
    size = max(font_size, style.SMALLEST_FONT)
    font, ink = style.font(size), style.rgb(style.theme(theme)["ink"])
    margin, thick = round(1.6 * size), round(1.1 * size)
    ticks, digits = scale_ticks(low, high, max(2, min(6, width // (5 * size))))
    top = math.ceil(1.5 * size) if label else 2
    bar = style.apply_colormap(np.linspace(low, high, width - 2 * margin), low, high, colormap)
    sheet = blank((top + thick + round(1.9 * size), width), theme)
    paste(sheet, np.broadcast_to(bar, (thick, *bar.shape)), top, margin)
    drawn = Image.fromarray(sheet)
    draw = ImageDraw.Draw(drawn)
    draw.rectangle((margin - 1, top - 1, width - margin, top + thick), outline=ink)
    if label:
        draw.text((margin - 1, top - round(0.45 * size)), label, font=font, fill=ink, anchor="ls")
    for value in ticks:
        x = margin + round((value - low) / (high - low) * (width - 2 * margin - 1))
        draw.line((x, top + thick, x, top + thick + size // 3), fill=ink)
        draw.text((x, top + thick + round(1.5 * size)), number(value, digits), font=font, fill=ink, anchor="ms")
    for text, x, anchor in zip(ends, (margin, width - margin), ("ls", "rs")):
        if text:
            y = top + round(0.5 * thick + 0.36 * size)
            pale = style.colormap(colormap)[0 if anchor == "ls" else -1].mean() > 140
            draw.text((x + (6 if anchor == "ls" else -6), y), text, font=font, anchor=anchor,
                      fill=(20, 20, 20) if pale else (255, 255, 255))
    return np.asarray(drawn)


def contact_sheet(images: Sequence[np.ndarray], captions: Sequence[str], columns: int, *, cell_width: int | None = None,
                  font_size: int = 16, gap: int = 12, theme: str = "light") -> np.ndarray:
    """Pictures in rows, each with its caption below.

    Args:
        images: uint8 (H, W, 3) each; scaled to one width.
        captions: one per picture; "" for none.
        columns: pictures in a row.
        cell_width: pixels; by default the widest picture's.

    Returns:
        uint8 (H, W, 3).

    Raises:
        PictureError: no pictures, or not one caption each.
    """
    if not images or len(images) != len(captions) or columns < 1:
        raise PictureError("at least one picture, one caption each, at least one column",
                           f"{len(images)} pictures, {len(captions)} captions, {columns} columns",
                           "Pass an empty caption where there is nothing to say.")
    width = cell_width or max(image.shape[1] for image in images)
    cells = []
    for image, caption in zip(images, captions):
        image = resize_smooth(as_picture(image), (max(1, round(image.shape[0] * width / image.shape[1])), width))
        cells.append((image, text_block(caption, width, font_size, theme=theme)))
    strips = []
    for start in range(0, len(cells), columns):
        row = cells[start:start + columns]
        tall = max(image.shape[0] for image, _ in row)
        strip = blank((tall + max(text.shape[0] for _, text in row) + 2 * gap,
                       len(cells[:columns]) * (width + gap) + gap), theme)
        for place, (image, text) in enumerate(row):
            paste(strip, image, gap, gap + place * (width + gap))
            paste(strip, text, gap + tall + gap // 3, gap + place * (width + gap))
        strips.append(strip)
    return np.concatenate(strips)
