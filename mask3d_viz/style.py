"""One look for every picture, chart and page: colours, themes, colour maps and fonts."""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from pathlib import Path

import numpy as np

from mask3d_core.errors import Mask3DError

SMALLEST_FONT = 12  # pixels; smaller text is not readable on a projector

# Light and dark as CSS variables; "ground" is what clouds stand before. Text on paper and on card keeps a contrast of
# at least 4.5 (WCAG 2.1, AA).
THEMES: dict[str, dict[str, str]] = {
    "light": {"paper": "#fdfdfb", "card": "#f3f4f2", "ink": "#1c1e22", "muted": "#595e66", "line": "#d8dbd9",
              "accent": "#0b5394", "best": "#0c6137", "best-card": "#e2f1e7", "warn": "#8a4b00", "ground": "#dde1e6"},
    "dark": {"paper": "#15171a", "card": "#1f2226", "ink": "#e9eaec", "muted": "#a9aeb6", "line": "#363a40",
             "accent": "#8cc2f7", "best": "#7fd6a3", "best-card": "#17342a", "warn": "#f0b35c", "ground": "#262a2f"},
}

# Lines, dots and their names: the hues of Okabe and Ito's palette ("Color Universal Design", 2008), told apart with any
# colour vision, darkened or lightened until text in them can be read on the paper.
SERIES = {"light": ("#0068a3", "#c04a00", "#00744f", "#a3457b", "#8a6000", "#22759f", "#666a70"),
          "dark": ("#56abe6", "#f28444", "#35c79d", "#e3a1c8", "#eab642", "#93d4f7", "#a6a9ae")}

DEPTH_COLORMAPS = ("inferno_r", "viridis", "cividis", "gray", "turbo")  # never jet: its steps are not in the data
ERROR_COLORMAP = "RdBu_r"  # blue: predicted too near; red: predicted too far

HOLE_COLORS = ((226, 227, 229), (168, 171, 176))  # ground and stripe where the sensor measured nothing
HIDDEN_COLORS = ((118, 121, 127), (88, 91, 97))  # ground and stripe of a patch hidden from the encoder
GUESSED_COLORS = ((255, 190, 230), (150, 20, 100))  # ground and stripe over a prediction where nothing was measured
GUESSED_SHARE = 0.72  # of these colours there; the prediction shines through with the rest
NO_ERROR_COLOR = (168, 171, 176)  # a point whose truth was never measured

SEEN, PREDICTED, NEVER_MEASURED = 0, 1, 2
PROVENANCE_NAMES = ("seen", "hidden and predicted", "never measured")
PROVENANCE_COLORS = np.array([(0, 114, 178), (230, 159, 0), (204, 121, 167)], np.uint8)

MODALITY_COLORS = {"rgb": "#d55e00", "depth": "#0072b2"}  # of arrows and shares, by what they start from

# NYUv2's 13 classes in their usual (alphabetical) order.
CLASS_COLORS: dict[str, tuple[int, int, int]] = {
    "bed": (78, 121, 167), "books": (241, 206, 99), "ceiling": (222, 226, 232), "chair": (225, 87, 89),
    "floor": (148, 108, 84), "furniture": (140, 86, 160), "objects": (255, 157, 190), "picture": (59, 145, 70),
    "sofa": (242, 142, 43), "table": (64, 176, 166), "tv": (44, 48, 66), "wall": (166, 180, 190),
    "window": (108, 200, 250),
}


def theme(name: str) -> dict[str, str]:
    """The colours of a theme, as ``#rrggbb`` by role.

    Raises:
        Mask3DError: unknown theme.
    """
    if name not in THEMES:
        raise Mask3DError(f"a theme among {', '.join(THEMES)}", repr(name), "Choose one of them.")
    return THEMES[name]


def rgb(hexadecimal: str) -> tuple[int, int, int]:
    """``#rrggbb`` as three integers 0..255."""
    return tuple(int(hexadecimal[i:i + 2], 16) for i in (1, 3, 5))


def theme_css() -> str:
    """Both themes as CSS variables: light by default, dark where the reader's system asks for it."""
    def block(name: str) -> str:
        return "".join(f"--{role}:{value};" for role, value in THEMES[name].items())

    return (f":root{{color-scheme:light dark;{block('light')}}}"
            f"@media (prefers-color-scheme:dark){{:root{{{block('dark')}}}}}")


@lru_cache(maxsize=None)
def colormap(name: str) -> np.ndarray:
    """The 256 colours of a colour map.

    Args:
        name: one of ``DEPTH_COLORMAPS`` or ``ERROR_COLORMAP``.

    Returns:
        uint8 (256, 3), not writable.

    Raises:
        Mask3DError: another name.
    """
    known = (*DEPTH_COLORMAPS, ERROR_COLORMAP)
    if name not in known:
        raise Mask3DError(f"a colour map among {', '.join(known)}", repr(name), "Choose one of them.")
    from matplotlib import colormaps

    table = np.rint(colormaps[name](np.arange(256))[:, :3] * 255).astype(np.uint8)
    table.setflags(write=False)
    return table


def apply_colormap(values: np.ndarray, low: float, high: float, name: str) -> np.ndarray:
    """Numbers to colours, saturating outside [low, high].

    Args:
        values: finite numbers of any shape.
        low, high: the numbers at the two ends of the map, low < high.

    Returns:
        uint8 (..., 3).
    """
    share = (np.asarray(values, np.float32) - np.float32(low)) * np.float32(255 / (high - low))
    return colormap(name)[np.clip(np.rint(share), 0, 255).astype(np.uint8)]


def label_colors(count: int) -> np.ndarray:
    """Colours of ``count`` classes: the 13 of NYUv2 first, then hues a golden angle apart.

    Returns:
        uint8 (count, 3).
    """
    import colorsys

    colors = list(CLASS_COLORS.values())[:count]
    for index in range(len(colors), count):
        hue = (index * 0.618033988749895) % 1
        colors.append(tuple(round(255 * v) for v in colorsys.hsv_to_rgb(hue, 0.55 + 0.3 * (index % 2), 0.85)))
    return np.array(colors, np.uint8).reshape(count, 3)


@lru_cache(maxsize=None)
def font(size: int, bold: bool = False):
    """DejaVu Sans as shipped with matplotlib: the same letters on every machine.

    Args:
        size: pixels; raised to ``SMALLEST_FONT``.

    Returns:
        ``PIL.ImageFont.FreeTypeFont``.

    Raises:
        Mask3DError: matplotlib is not installed.
    """
    from PIL import ImageFont

    found = importlib.util.find_spec("matplotlib")
    if found is None or not found.submodule_search_locations:
        raise Mask3DError("matplotlib, whose fonts and colour maps the pictures use", "no matplotlib",
                          "Install it: pip install matplotlib.")
    folder = Path(found.submodule_search_locations[0]) / "mpl-data" / "fonts" / "ttf"
    return ImageFont.truetype(str(folder / ("DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf")),
                              max(SMALLEST_FONT, size))
