"""A picture with its patch grid, live in a notebook: masks, painting, selection, values per patch, arrows.

The front end (``patch_image.js``) holds each patch's rank and draws the mask itself, so a slider moves it without a
trip to the kernel. Everything is a trait; nothing here knows of models, depth or sessions. Patches are numbered row by
row from 0; what a reader is shown counts rows and columns from 1.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from pathlib import Path

import anywidget
import numpy as np
import traitlets as t

from mask3d_viz import style
from mask3d_viz.drawing import blank, color_bar, text_block
from mask3d_viz.images import MARKS, marks_legend, masked_color_image
from mask3d_viz.pixels import (PictureError, Pixels, as_picture, cell_edges, grid_to_pixels, hatching, resize_nearest,
                               to_numpy, to_png, with_grid)

NOTHING_MEASURED = 65535  # rank of a patch that holds no measured pixel
SELECTION_COLORS = ((17, 19, 22), (25, 227, 255))  # around and on the line: seen on any colour map
DIM_OPACITY = 0.72
HERE = Path(__file__).parent


class PatchImageError(PictureError, t.TraitError):
    """A trait that does not fit the picture. As a ``TraitError`` it makes traitlets put the old values back."""


def _bytes() -> t.Bytes:
    """Bytes that travel both ways; from the browser they come as a memoryview."""
    return t.Bytes(b"").tag(sync=True, from_json=lambda value, _: bytes(value))


def palette_bytes(palette: str | Pixels) -> bytes:
    """The 256 x 3 bytes of a colour map, given by its name in :mod:`mask3d_viz.style` or as uint8 (256, 3)."""
    table = style.colormap(palette) if isinstance(palette, str) else to_numpy(palette)
    if table.shape != (256, 3) or table.dtype != np.uint8:
        raise PatchImageError("a palette as uint8 (256, 3) or the name of a colour map",
                              f"{table.dtype} {table.shape}", "Pass for example style.colormap('viridis').")
    return table.tobytes()


class PatchImage(anywidget.AnyWidget):
    """A picture whose patches can be hidden, painted, pointed at, selected and coloured.

    Make one with :meth:`of`. A patch is hidden where ``rank < hidden_count``; ``painted`` overrides that by hand.
    """

    _esm = HERE / "patch_image.js"
    _css = HERE / "patch_image.css"

    pixels, size = _bytes(), t.Tuple(t.Int(), t.Int(), default_value=(0, 0)).tag(sync=True)  # RGB; (height, width)
    patch = t.Int(16, min=1).tag(sync=True)  # side of a patch in pixels
    max_width = t.Int(640, min=80).tag(sync=True)  # CSS pixels
    label, note = t.Unicode().tag(sync=True), t.Unicode().tag(sync=True)
    stale = t.Bool(False, help="what is shown is not the newest").tag(sync=True)
    marks = t.List(t.Enum(list(MARKS)), help="hatchings in the picture that the legend explains").tag(sync=True)

    rank = _bytes()  # uint16 per patch, little-endian; the lowest are hidden first
    hidden_count = t.Int(0, min=0).tag(sync=True)
    painted = _bytes()  # uint8 per patch: 0 not painted, 1 hidden by hand, 2 shown by hand
    mask_style = t.Enum(["hatched", "dim", "none"], "hatched").tag(sync=True)
    show_grid = t.Bool(False).tag(sync=True)
    ratio_control = t.Bool(False, help="a slider of its own under the picture").tag(sync=True)
    is_dragging = t.Bool(False, help="the hand is on that slider").tag(sync=True)

    selection = t.List(t.Int()).tag(sync=True)
    hover = t.Int(-1, min=-1).tag(sync=True)
    can_paint = t.Bool(False, help="shows the toolbar").tag(sync=True)
    tool = t.Enum(["select", "hide", "show"], "select").tag(sync=True)
    shape = t.Enum(["brush", "lasso"], "brush").tag(sync=True)
    brush = t.Int(1, min=1, max=5).tag(sync=True)  # side in patches
    stroke = t.Dict(help='the last one: {"number", "patches", "value"}, saved together with painted').tag(sync=True)
    request = t.Dict(help='what a button asks the kernel for: {"number", "what": "undo" | "clear"}').tag(sync=True)

    columns = t.List(t.Dict()).tag(sync=True)  # {"name", "unit", "digits", "signed"} of each row of values
    values = _bytes()  # float32 (columns, patches), NaN = not known
    heat, palette = _bytes(), _bytes()  # float32 per patch, NaN = none; uint8 (256, 3)
    heat_range = t.Tuple(t.Float(), t.Float(), default_value=(0.0, 1.0)).tag(sync=True)
    heat_opacity = t.Float(0.75, min=0.0, max=1.0).tag(sync=True)
    arrows = t.List(t.Dict()).tag(sync=True)  # {"from", "to": patches, "weight": 0..1, "color": CSS}
    bar_palette, bar_unit = _bytes(), t.Unicode("m").tag(sync=True)  # uint8 (256, 3), or empty: no colour bar
    bar_range = t.Tuple(t.Float(), t.Float(), default_value=(0.0, 1.0)).tag(sync=True)

    @classmethod
    def of(cls, picture: Pixels, patch: int, **traits) -> PatchImage:
        """A widget for one picture.

        Args:
            picture: uint8 or float 0..1, (H, W, 3).
            patch: side of a patch in pixels; divides height and width.
            traits: any other trait.
        """
        traits = {"marks": list(getattr(picture, "marks", ())), **traits}
        picture = as_picture(picture)
        return cls(pixels=picture.tobytes(), size=picture.shape[:2], patch=patch, **traits)

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of patches."""
        return self.size[0] // self.patch, self.size[1] // self.patch

    @property
    def count(self) -> int:
        """How many patches there are."""
        return self.grid[0] * self.grid[1]

    @property
    def measured(self) -> np.ndarray:
        """bool (rows, columns): the patches that hold a measured pixel; all of them where there are no ranks."""
        return (self._ranks() != NOTHING_MEASURED).reshape(self.grid)

    @property
    def hidden(self) -> np.ndarray:
        """bool (rows, columns): drawn as hidden. Where nothing was measured, a patch is neither hidden nor visible."""
        painted = np.frombuffer(self.painted or bytes(self.count), np.uint8).reshape(self.grid)
        by_rank = self._ranks().reshape(self.grid) < (self.hidden_count if self.rank else 0)
        return ((painted == 1) | (by_rank & (painted == 0))) & self.measured

    @property
    def explained(self) -> tuple[str, ...]:
        """The hatchings that are there, of :data:`~mask3d_viz.images.MARKS`: the picture's own and the mask's."""
        is_there = {"hidden": self.mask_style == "hatched" and self.hidden.any(), "hole": not self.measured.all()}
        return tuple(name for name in MARKS if name in self.marks or is_there.get(name))

    @property
    def visible(self) -> np.ndarray:
        """bool (rows, columns): measured and not hidden."""
        return self.measured & ~self.hidden

    def _ranks(self) -> np.ndarray:
        return np.frombuffer(self.rank, "<u2") if self.rank else np.zeros(self.count, np.uint16)

    @t.validate("pixels", "rank", "painted", "values", "heat", "palette", "bar_palette")
    def _fits(self, proposal):
        name, value, n = proposal["trait"].name, proposal["value"], self.count
        needed, what = {"pixels": (self.size[0] * self.size[1] * 3, "RGB uint8, row by row"),
                        "rank": (2 * n, "a little-endian uint16 per patch"), "painted": (n, "a uint8 per patch"),
                        "values": (4 * n * len(self.columns), "a little-endian float32 per column and patch"),
                        "heat": (4 * n, "a little-endian float32 per patch"), "palette": (768, "uint8 (256, 3)"),
                        "bar_palette": (768, "uint8 (256, 3)")}[name]
        if len(value) != needed and (value or name == "pixels"):
            raise PatchImageError(f"{name} as {needed} bytes ({what}; {self._described()})", f"{len(value)} bytes",
                                  "Use of(), set_picture(), set_ranks(), set_values() or set_heat(), which count.")
        if name == "painted" and value and max(value) > 2:
            raise PatchImageError("painted as 0 (not), 1 (hidden) or 2 (visible)", str(max(value)), "Correct it.")
        return value

    @t.validate("size", "patch")
    def _divides(self, proposal):
        given = {"size": self.size, "patch": self.patch, proposal["trait"].name: proposal["value"]}
        (height, width), patch = given["size"], given["patch"]
        if min(height, width) < 0 or height % patch or width % patch:
            raise PatchImageError(f"a height and a width that {patch} pixels of a patch divide", f"{height} x {width}",
                                  "Crop or resize the picture, or pass another patch.")
        if len(self.pixels) != height * width * 3:
            raise PatchImageError(f"{height * width * 3} bytes of pixels for {height} x {width}", str(len(self.pixels)),
                                  "Change the picture and its size together with set_picture().")
        return proposal["value"]

    @t.validate("selection", "hover", "arrows")
    def _exists(self, proposal):
        value = proposal["value"]
        found = {"selection": lambda: value, "hover": lambda: [value] if value >= 0 else [],
                 "arrows": lambda: [arrow.get(end, -1) for arrow in value for end in ("from", "to")],
                 }[proposal["trait"].name]()
        wrong = [number for number in found if not 0 <= number < self.count]
        if wrong:
            raise PatchImageError(f"patch numbers in 0..{self.count - 1}", str(wrong[0]), "Number them row by row.")
        return value

    @t.validate("heat_range", "bar_range")
    def _in_order(self, proposal):
        low, high = proposal["value"]
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise PatchImageError(f"{proposal['trait'].name} as (low, high) with low < high", f"({low:g}, {high:g})",
                                  "Pass two finite numbers in order.")
        return proposal["value"]

    @t.observe("size", "patch")
    def _forget_the_old_grid(self, _):
        n = self.count
        with self.hold_sync():
            for name, each in (("rank", 2), ("painted", 1), ("heat", 4), ("values", 4 * len(self.columns))):
                if len(getattr(self, name)) != each * n:
                    setattr(self, name, b"")
            self.hover = self.hover if self.hover < n else -1
            self.selection = [number for number in self.selection if number < n]
            self.arrows = [arrow for arrow in self.arrows if max(arrow["from"], arrow["to"]) < n]

    def _described(self) -> str:
        return f"{self.size[0]} x {self.size[1]} pixels, {self.grid[0]} x {self.grid[1]} patches"

    def _change(self, **traits) -> None:
        """Several traits at once: checked together, sent in one message."""
        with self.hold_sync(), self.hold_trait_notifications():
            for name, value in traits.items():
                setattr(self, name, value)

    def _per_patch(self, values: Pixels, name: str) -> np.ndarray:
        """Values as (patches,), from (rows, columns) or (patches,)."""
        values = to_numpy(values)
        if values.shape not in (self.grid, (self.count,)):
            raise PatchImageError(f"{name} as {self.grid} or ({self.count},), a number per patch", str(values.shape),
                                  "Reduce pixels to patches first.")
        return values.reshape(-1)

    def set_picture(self, picture: Pixels, patch: int | None = None) -> None:
        """Another picture, uint8 or float 0..1, (H, W, 3). What was said of patches stays if their number does.

        The hatchings that a :class:`~mask3d_viz.images.Marked` picture knows of are explained under it.
        """
        marks = list(getattr(picture, "marks", ()))
        picture = as_picture(picture)
        self._change(pixels=picture.tobytes(), size=picture.shape[:2], patch=patch or self.patch, marks=marks)

    def set_ranks(self, ranks: Pixels, *, lowest: str = "hidden first") -> None:
        """Each patch's place in the permutation.

        Args:
            ranks: int (rows, columns) or (patches,), >= 0; from 65535 on: nothing was measured there.
            lowest: what happens to the lowest rank, "hidden first" or, as in :mod:`mask3d_core.masking`, "shown first".
        """
        ranks = self._per_patch(ranks, "ranks")
        if not np.issubdtype(ranks.dtype, np.integer) or (ranks.size and ranks.min() < 0):
            raise PatchImageError("ranks as integers >= 0", str(ranks.dtype), "Pass what patch_ranks() gives.")
        if lowest not in ("hidden first", "shown first"):
            raise PatchImageError("lowest as 'hidden first' or 'shown first'", repr(lowest), "Choose one.")
        is_measured = ranks < NOTHING_MEASURED
        if lowest == "shown first":
            ranks = ranks[is_measured].max(initial=0) - ranks
        self.rank = np.where(is_measured, ranks, NOTHING_MEASURED).astype("<u2").tobytes()

    def set_values(self, values: Mapping[str, Pixels], units: Mapping[str, str] = {}, *,
                   digits: Mapping[str, int] = {}, signed: tuple[str, ...] = ()) -> None:
        """What the readout says about a patch.

        Args:
            values: by name, float (rows, columns) or (patches,); NaN where not known, which is left out.
            units, digits: by name; by default none and 2.
            signed: the names whose numbers always carry their sign.
        """
        table = [self._per_patch(array, name).astype("<f4") for name, array in values.items()]
        self._change(columns=[{"name": name, "unit": units.get(name, ""), "digits": digits.get(name, 2),
                               "signed": name in signed} for name in values],
                     values=b"".join(row.tobytes() for row in table))

    def set_heat(self, heat: Pixels | None, palette: str | Pixels = "viridis",
                 limits: tuple[float, float] = (0.0, 1.0)) -> None:
        """Colour the patches by a number each.

        Args:
            heat: float (rows, columns) or (patches,), NaN = no colour; None takes the overlay away.
            palette: name of a colour map, or uint8 (256, 3).
            limits: the numbers at its two ends.
        """
        given = b"" if heat is None else self._per_patch(heat, "heat").astype("<f4").tobytes()
        self._change(heat=given, palette=palette_bytes(palette), heat_range=limits)

    def set_bar(self, palette: str | Pixels, limits: tuple[float, float], unit: str = "m") -> None:
        """A colour bar under the picture."""
        self._change(bar_palette=palette_bytes(palette), bar_range=limits, bar_unit=unit)

    def still(self, width: int = 640, theme: str = "light", has_heading: bool = True) -> np.ndarray:
        """What is drawn, without a browser.

        Args:
            width: aimed at, in pixels; the picture is enlarged by a whole number.
            theme: "light" or "dark".
            has_heading: with label and note over it.

        Returns:
            uint8 (H, W, 3), on the theme's paper.
        """
        if not self.count:
            raise PatchImageError("a picture", "none yet", "Call set_picture() first.")
        height, across = self.size
        scale = max(1, round(width / across))
        image = np.frombuffer(self.pixels, np.uint8).reshape(height, across, 3)
        image = self._marked(self._covered(resize_nearest(image, (height * scale, across * scale))))
        said = " · ".join(part for part in (self.label, self.note, "stale" if self.stale else "") if part) if has_heading else ""
        parts = [text_block(said, image.shape[1], 16, bold=True, theme=theme), blank((6 if said else 0, image.shape[1]), theme),
                 image]
        name = next((known for known in (*style.DEPTH_COLORMAPS, style.ERROR_COLORMAP)
                     if self.bar_palette and palette_bytes(known) == self.bar_palette), None)
        if name:
            parts += [blank((8, image.shape[1]), theme), color_bar(self.bar_range, name, image.shape[1], label=self.bar_unit,
                                                                   theme=theme)]
        if self.explained:
            parts += [blank((8, image.shape[1]), theme), marks_legend(self.explained, image.shape[1], theme=theme)]
        return np.concatenate(parts)

    def _covered(self, image: np.ndarray) -> np.ndarray:
        """The picture under its mask, its holes, its grid and its heat."""
        size, hidden = image.shape[:2], self.hidden
        if self.mask_style == "hatched":
            image = masked_color_image(image, hidden)
        elif self.mask_style == "dim":
            dim = np.rint(image * (1 - DIM_OPACITY) + np.array(style.HIDDEN_COLORS[0]) * DIM_OPACITY).astype(np.uint8)
            image = np.where(grid_to_pixels(hidden, size)[..., None], dim, image)
        image = np.where(grid_to_pixels(self.measured, size)[..., None], image, hatching(size, style.HOLE_COLORS))
        image = with_grid(image, self.grid) if self.show_grid else image
        if not (self.heat and self.palette):
            return image
        heat = np.frombuffer(self.heat, "<f4").reshape(self.grid)
        low, high = self.heat_range
        index = np.rint(np.clip(np.nan_to_num((heat - low) / (high - low)), 0, 1) * 255).astype(np.uint8)
        colors = grid_to_pixels(np.arange(self.count).reshape(self.grid), size)
        colors = np.frombuffer(self.palette, np.uint8).reshape(256, 3)[index].reshape(-1, 3)[colors]
        mixed = np.rint(image * (1 - self.heat_opacity) + colors * self.heat_opacity).astype(np.uint8)
        return np.where(grid_to_pixels(np.isfinite(heat), size)[..., None], mixed, image)

    def _marked(self, image: np.ndarray) -> np.ndarray:
        """Selection and arrows over the picture."""
        from PIL import Image, ImageDraw

        drawn = Image.fromarray(np.ascontiguousarray(image))
        draw = ImageDraw.Draw(drawn)
        ys, xs = (cell_edges(length, cells) for length, cells in zip(image.shape[:2], self.grid))
        for number in self.selection:
            row, column = divmod(number, self.grid[1])
            box = xs[column], ys[row], xs[column + 1] - 1, ys[row + 1] - 1
            draw.rectangle([box[0] - 1, box[1] - 1, box[2] + 1, box[3] + 1], outline=SELECTION_COLORS[0], width=4)
            draw.rectangle(box, outline=SELECTION_COLORS[1], width=2)
        for arrow in sorted(self.arrows, key=lambda arrow: arrow.get("weight", 1)):
            places = [divmod(arrow[end], self.grid[1]) for end in ("from", "to")]
            start, target = np.array([(xs[c] + xs[c + 1], ys[r] + ys[r + 1]) for r, c in places]) / 2
            _draw_arrow(draw, start, target, xs[1], 1.5 + 4.5 * arrow.get("weight", 1), arrow.get("color", "#ffb000"))
        return np.asarray(drawn)

    def __repr__(self) -> str:
        name = f"{self.label}: " if self.label else ""
        seen = f", {int(self.visible.sum())} of {int(self.measured.sum())} visible" if self.rank or self.painted else ""
        return f"PatchImage({name}{self._described()}{seen})"

    def _repr_mimebundle_(self, **kwargs):
        """The live view, and a picture for where no kernel is."""
        found = super()._repr_mimebundle_(**kwargs)
        if found is None or not self.count:
            return found
        return {**found[0], "image/png": base64.b64encode(to_png(self.still())).decode()}, found[1]


def _draw_arrow(draw, start: np.ndarray, target: np.ndarray, cell: float, width: float, color: str) -> None:
    """A curved arrow from a dot in one patch to the border of another; the same curve as in the browser."""
    along = target - start
    if not along.any():
        return
    bend = (start + target) / 2 + 0.18 * np.array([along[1], -along[0]])
    far = float(np.hypot(*(target - bend)))
    heading = (target - bend) / far
    side, end = np.array([-heading[1], heading[0]]), target - heading * min(0.55 * cell, far / 2)
    fits = min(1.0, 0.42 * float(np.hypot(*(end - start))) / (4 + 2.2 * width))  # a short one's head leaves it a shaft
    head, width = (4 + 2.2 * width) * fits, width * fits
    neck = end - heading * head
    share = np.linspace(0, 1, 24)[:, None]
    curve = (1 - share) ** 2 * start + 2 * (1 - share) * share * bend + share ** 2 * neck
    tip = [tuple(p) for p in (end, neck + side * head * 0.5, neck - side * head * 0.5)]
    for ink, extra in ((SELECTION_COLORS[0], 1), (color, 0)):
        draw.line([tuple(p) for p in curve], fill=ink, width=max(1, round(width)) + 2 * extra, joint="curve")
        draw.ellipse([*(start - width - extra), *(start + width + extra)], fill=ink)
        draw.polygon(tip, fill=ink, outline=SELECTION_COLORS[0])
