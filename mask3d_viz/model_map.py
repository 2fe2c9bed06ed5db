"""The small map at the head of notebooks and explorers: what is there, where one is, what is thrown away afterwards."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from html import escape

import numpy as np

from mask3d_core.errors import ConfigError
from mask3d_viz import style
from mask3d_viz.drawing import blank
from mask3d_viz.pixels import to_png

WIDTH, HEIGHT = 800, 112
LETTERS = 12.5  # of WIDTH; where there is less room than LEAST the map is moved sideways, not made smaller
LEAST = round(WIDTH * style.SMALLEST_FONT / LETTERS)


@dataclass(frozen=True)
class Part:
    """A box of the map.

    Args:
        words: what stands in it; "\\n" breaks the line.
        box: left, top, width, height.
        is_kept: stays after pre-training; what does not is dashed.
    """

    words: str
    box: tuple[int, int, int, int]
    is_kept: bool = False


PARTS: dict[str, Part] = {
    "frames": Part("RGB-D frame", (4, 40, 92, 32), True),
    "rgb masks": Part("RGB patches,\nmost hidden", (114, 12, 116, 38), True),
    "depth masks": Part("depth patches,\nmost hidden", (114, 62, 116, 38)),
    "rgb encoder": Part("RGB encoder", (252, 14, 104, 34), True),
    "depth encoder": Part("depth encoder", (252, 64, 104, 34)),
    "fusion": Part("fusion", (376, 40, 66, 32)),
    "decoder": Part("decoder", (466, 40, 78, 32)),
    "prediction": Part("dense depth", (568, 40, 92, 32)),
    "error": Part("error against\nthe truth", (684, 37, 108, 38)),
}
ARROWS = (("frames", "rgb masks"), ("frames", "depth masks"), ("rgb masks", "rgb encoder"), ("depth masks", "depth encoder"),
          ("rgb encoder", "fusion"), ("depth encoder", "fusion"), ("fusion", "decoder"), ("decoder", "prediction"),
          ("prediction", "error"))
GROUPS = {"masks": ("rgb masks", "depth masks"), "encoders": ("rgb encoder", "depth encoder"),
          "model": ("rgb encoder", "depth encoder", "fusion", "decoder"), "clouds": ("prediction", "error"),
          "training": ("rgb encoder", "depth encoder", "fusion", "decoder", "prediction", "error"), "all": tuple(PARTS)}
SAID = "Mask3D pre-training; dashed: thrown away afterwards"


def _lit(here: str) -> tuple[str, ...]:
    lit = GROUPS.get(here, (here,) if here in PARTS else ())
    if here and not lit:
        raise ConfigError(f"here must be one of {', '.join([*PARTS, *GROUPS])}; got {here!r}")
    return lit


def _ends(start: Part, end: Part) -> tuple[float, float, float, float]:
    (x, y, w, h), (u, v, _, k) = start.box, end.box
    return x + w, y + h / 2, u, v + k / 2


def architecture_svg(here: str = "") -> str:
    """The map as SVG in the reader's theme (JupyterLab's colours, or a page's own), in a box that scrolls sideways.

    Its letters are never smaller than ``style.SMALLEST_FONT`` pixels.

    Args:
        here: a part of ``PARTS`` or a group of ``GROUPS`` to light; "": none.

    Raises:
        ConfigError: no such part.
    """
    lit = _lit(here)
    ink, paper = "var(--jp-ui-font-color1,var(--ink,#1c1e22))", "var(--jp-layout-color1,var(--paper,#fdfdfb))"
    parts = []
    for first, second in ARROWS:
        x, y, u, v = _ends(PARTS[first], PARTS[second])
        middle = (x + u) / 2
        parts.append(f'<path d="M{x} {y}C{middle} {y} {middle} {v} {u - 5} {v}" fill="none" stroke="{ink}" stroke-opacity=".55"/>'
                     f'<path d="M{u - 6} {v - 3.5}L{u} {v}L{u - 6} {v + 3.5}z" fill="{ink}" fill-opacity=".7"/>')
    for name, part in PARTS.items():
        x, y, w, h = part.box
        is_lit = name in lit
        dash = "" if part.is_kept or name in ("prediction", "error") else ' stroke-dasharray="5 4"'
        fill, color = ("#0b5394", "#fff") if is_lit else (paper, ink)
        lines = part.words.split("\n")
        first = y + h / 2 + 4.2 - 7 * (len(lines) - 1)
        words = "".join(f'<text x="{x + w / 2}" y="{first + 14 * k}">{escape(line)}</text>' for k, line in enumerate(lines))
        parts.append(f'<rect x="{x}" y="{y}" width="{w}" height="{h}" rx="6" fill="{fill}" stroke="{color if is_lit else ink}"'
                     f' stroke-width="{2.2 if part.is_kept and name == "rgb encoder" else 1.2}"{dash}/>'
                     f'<g fill="{color}" font-weight="400">{words}</g>')
    said = f"{SAID}. You are here: {', '.join(lit)}." if lit else f"{SAID}."
    return (f'<div style="overflow-x:auto;width:100%;contain:inline-size"><svg role="img" aria-label="{escape(said)}" '
            f'viewBox="0 0 {WIDTH} {HEIGHT}" style="max-width:{WIDTH}px;min-width:{LEAST}px;width:100%;height:auto;display:block" '
            f'font-size="{LETTERS}" text-anchor="middle" font-family="system-ui, Noto Sans, DejaVu Sans, sans-serif">'
            f'{"".join(parts)}<text x="376" y="107" fill="{ink}" fill-opacity=".8" text-anchor="start">dashed: thrown away after '
            'pre-training</text></svg></div>')


def architecture_image(here: str = "", theme: str = "light", scale: int = 2) -> np.ndarray:
    """The same map as a picture, uint8 (112 * scale, 800 * scale, 3)."""
    from PIL import Image, ImageDraw

    lit, colors = _lit(here), style.theme(theme)
    ink, paper, accent = (style.rgb(colors[role]) for role in ("ink", "paper", "accent"))
    sheet = Image.fromarray(blank((HEIGHT * scale, WIDTH * scale), theme))
    draw = ImageDraw.Draw(sheet)
    muted = style.rgb(colors["muted"])
    for first, second in ARROWS:
        x, y, u, v = (scale * value for value in _ends(PARTS[first], PARTS[second]))
        share = np.linspace(0, 1, 24)
        ease = 3 * share ** 2 - 2 * share ** 3  # the same curve as the cubic with level ends
        draw.line([(x + (u - 5 * scale - x) * t, y + (v - y) * e) for t, e in zip(share, ease)], fill=muted, width=scale)
        draw.polygon([(u - 6 * scale, v - 3.5 * scale), (u, v), (u - 6 * scale, v + 3.5 * scale)], fill=muted)
    for name, part in PARTS.items():
        x, y, w, h = (scale * value for value in part.box)
        is_lit = name in lit
        draw.rounded_rectangle((x, y, x + w, y + h), 6 * scale, fill=accent if is_lit else paper)
        is_dashed = not part.is_kept and name not in ("prediction", "error")
        _outline(draw, (x, y, x + w, y + h), ink, (2 if name == "rgb encoder" else 1) * scale, scale if is_dashed else 0)
        lines, font = part.words.split("\n"), style.font(round(12.5 * scale))
        for k, line in enumerate(lines):
            draw.text((x + w / 2, y + h / 2 + 14 * scale * (k - (len(lines) - 1) / 2)), line, font=font, anchor="mm",
                      fill=paper if is_lit else ink)
    draw.text((376 * scale, 107 * scale), "dashed: thrown away after pre-training", font=style.font(12 * scale), fill=muted,
              anchor="ls")
    return np.asarray(sheet)


def _outline(draw, box: tuple[float, float, float, float], color, width: int, dash: int) -> None:
    """A box's border, dashed where ``dash`` (pixels per unit) is not 0."""
    left, top, right, bottom = box
    for (x, y), (u, v) in (((left, top), (right, top)), ((right, top), (right, bottom)), ((right, bottom), (left, bottom)),
                           ((left, bottom), (left, top))):
        length = max(abs(u - x), abs(v - y))
        step, on = (9 * dash, 5 * dash) if dash else (length, length)
        at = 0.0
        while at < length:
            a, b = at / length, min(at + on, length) / length
            draw.line((x + (u - x) * a, y + (v - y) * a, x + (u - x) * b, y + (v - y) * b), fill=color, width=width)
            at += step


class Architecture:
    """The map for a notebook: SVG where the page is live, a picture where it is stored."""

    def __init__(self, here: str = ""):
        self.here = here
        _lit(here)

    def __repr__(self) -> str:
        return f"{SAID}. You are here: {', '.join(_lit(self.here)) or 'nowhere yet'}."

    def _repr_mimebundle_(self, **_):
        return {"text/plain": repr(self), "text/html": architecture_svg(self.here),
                "image/png": base64.b64encode(to_png(architecture_image(self.here))).decode()}


def architecture(here: str = "") -> Architecture:
    """The map of Mask3D with a part lit, as the last line of a notebook's cell; see ``PARTS`` and ``GROUPS``."""
    return Architecture(here)


__all__ = ["GROUPS", "PARTS", "architecture", "architecture_image", "architecture_svg"]
