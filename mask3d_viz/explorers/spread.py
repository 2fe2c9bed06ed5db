"""How far predictions spread over masks, beside how wrong they are: a panel of the ratio explorer, on a button."""

from __future__ import annotations

from collections import OrderedDict
from html import escape
from typing import NamedTuple

import ipywidgets as widgets
import numpy as np

from mask3d_core.errors import Mask3DError
from mask3d_core.evaluation.uncertainty import NOT_A_POSTERIOR, MaskSpread, Sparsification, measure_mask_spread
from mask3d_viz import style
from mask3d_viz.drawing import blank, contact_sheet, paste, text_block
from mask3d_viz.explorers.studio import in_words
from mask3d_viz.pixels import hatching, patch_means
from mask3d_viz.predictions import model_token
from mask3d_viz.ratio_book import be_modest
from mask3d_viz.ratio_pictures import sparsification_image, sparsification_svg
from mask3d_viz.ratio_view import percent
from mask3d_viz.session import HIDDEN
from mask3d_viz.widgets.patch_image import PatchImage
from mask3d_viz.worker import Worker

DRAWS = 16
CACHED = 8
COLORMAP = "viridis"


class Wanted(NamedTuple):
    """What a spread is of: the loaded model's number and values of the session's state."""

    model: int
    frame: int
    rgb_ratio: float
    depth_ratio: float
    seed: int
    painted_rgb: tuple[tuple[int, int], ...]
    painted_depth: tuple[tuple[int, int], ...]
    color_source: str


class Stopped(Exception):
    """The reader has stopped it."""


class SpreadPanel(widgets.VBox):
    """Spread picture, error picture, sparsification curve, rank correlation, and what the spread is not.

    Args:
        explorer: whose session is followed.
    """

    def __init__(self, explorer):
        super().__init__()
        self.explorer, self.session = explorer, explorer.session
        self.worker = Worker(rest=0.0)
        self.shown: MaskSpread | None = None
        self._key: Wanted | None = None
        self._known: OrderedDict[Wanted, MaskSpread] = OrderedDict()
        self._is_stopped = False
        patch, empty = self.session.patch, np.zeros((*self.session.model()[0].config.image_size, 3), np.uint8)
        self.pictures = {name: PatchImage.of(empty, patch, label=label, max_width=380, mask_style="none") for name, label in (
            ("spread", "Spread over masks"), ("error", "Error of the mean prediction"))}
        self.button = widgets.Button(description=f"spread over {DRAWS} masks", layout=widgets.Layout(width="auto"),
                                     tooltip="predict the session's frame under many masks at the session's ratios")
        self.stop = widgets.Button(description="cancel", tooltip="stop", layout=widgets.Layout(width="auto", display="none"))
        self.progress = widgets.IntProgress(max=DRAWS, layout=widgets.Layout(width="160px", display="none"))
        self.status, self.chart, self.words = widgets.HTML(), widgets.HTML(), widgets.HTML()
        row = widgets.Layout(display="flex", flex_flow="row wrap", grid_gap="6px 14px", align_items="center")
        tiles = [widgets.Box([p], layout=widgets.Layout(flex="1 1 240px", max_width="392px")) for p in self.pictures.values()]
        self.evidence = widgets.Box([*tiles, widgets.VBox([self.chart, self.words], layout=widgets.Layout(
            flex="1 1 300px", max_width="460px"))], layout=widgets.Layout(
                display="none", flex_flow="row wrap", grid_gap="14px", align_items="flex-start"))
        self.children = [widgets.Box([self.button, self.stop, self.progress, self.status], layout=row), self.evidence]
        self.button.on_click(lambda _: self.measure())
        self.stop.on_click(lambda _: self._halt())
        for picture in self.pictures.values():
            picture.observe(lambda change: self.explorer.wish(hover=change["new"]), "hover")
            picture.observe(lambda change: self.explorer.wish(selection=tuple(change["new"])), "selection")

    def end(self) -> None:
        """Stop what is running."""
        self._is_stopped = True
        self.worker.close()

    def _halt(self) -> None:
        self._is_stopped = True

    @property
    def wanted(self) -> Wanted:
        """What a spread measured now would be of."""
        state = self.session.state
        return Wanted(model_token(self.session.model()[0]), state.frame, state.rgb_ratio, state.depth_ratio, state.seed,
                      state.painted_rgb, state.painted_depth, state.color_source)

    # ---- measuring --------------------------------------------------------------------------------------------------

    def measure(self) -> None:
        """Measure the spread at the session's frame, ratios, seed, painted patches and colour, unless it is known."""
        key = self.wanted
        if key in self._known:
            return self._draw(key, self._known[key])
        try:
            seen = self.explorer.studio.predictions.now(judge=False).seen  # the frame in the colour that the model sees
        except Mask3DError as problem:
            return self.explorer.say(in_words(problem), warns=True)
        painted = tuple({patch: value == HIDDEN for patch, value in given} for given in (key.painted_rgb, key.painted_depth))
        self._is_stopped = False
        self._running(True)

        def progress(done: int, total: int) -> None:
            if self._is_stopped:
                raise Stopped
            self.progress.max, self.progress.value = total, done

        def work() -> MaskSpread:
            be_modest()
            return measure_mask_spread(seen.model, seen.batch, (key.rgb_ratio, key.depth_ratio), DRAWS, key.seed,
                                       progress=progress, painted=painted)

        def done(found: MaskSpread | None, problem: BaseException | None) -> None:
            self._running(False)
            if isinstance(problem, Stopped):
                self.status.value = _words("stopped")
            elif problem is not None:
                self.explorer.say(in_words(problem), warns=True)
            else:
                self._known[key] = found
                while len(self._known) > CACHED:
                    self._known.popitem(last=False)
                self._draw(key, found)

        self.worker.ask(work, done)

    def _running(self, is_running: bool) -> None:
        self.button.disabled, self.progress.value = is_running, 0
        for part in (self.stop, self.progress):
            part.layout.display = None if is_running else "none"
        self.status.value = ""

    # ---- showing ----------------------------------------------------------------------------------------------------

    def follow(self, changed: frozenset[str]) -> None:
        """Hover and selection are linked; what belongs to another frame, mask or model is dimmed."""
        state = self.session.state
        for picture in self.pictures.values():
            if "hover" in changed:
                picture.hover = state.hover
            if "selection" in changed:
                picture.selection = list(state.selection)
        if self.shown is None:
            return
        wanted = self.wanted
        if wanted != self._key and wanted in self._known:
            return self._draw(wanted, self._known[wanted])
        is_stale = wanted != self._key
        for picture in self.pictures.values():
            picture.stale = is_stale
        self.status.value = _words(f"measured at {self._at()}; press again for what is shown now") if is_stale else ""

    def _at(self) -> str:
        of, said = self._key, []
        if of.painted_rgb or of.painted_depth:
            said.append(f", {len(of.painted_rgb) + len(of.painted_depth)} patches as painted in every mask")
        if of.color_source != "own":
            said.append(f", colour: {of.color_source}")
        return (f"frame {of.frame}, {percent(round(of.rgb_ratio, 4))} of RGB and {percent(round(of.depth_ratio, 4))} of depth "
                f"hidden, seed {of.seed}{''.join(said)}")

    def _draw(self, key: Wanted, found: MaskSpread) -> None:
        self._key, self.shown = key, found
        end = _end(found)
        for name, values in (("spread", found.spread), ("error", found.error)):
            picture = self.pictures[name]
            picture.set_picture(_picture(values, end))
            picture.set_bar(COLORMAP, (0.0, 100 * end), "cm")
            picture.set_values(*self._patch_values(found))
            picture.stale = False
            picture.note = self._at()
        curve = self.curve()
        self.chart.value = sparsification_svg(curve) if curve is not None else ""
        self.words.value = _words("".join(f"<p style='margin:4px 0'>{escape(text)}</p>" for text in self.sentences()), True)
        self.evidence.layout.display = "flex"
        self.status.value = ""

    def _patch_values(self, found: MaskSpread) -> tuple[dict, dict]:
        def mean(values: np.ndarray) -> np.ndarray:
            return patch_means(values, ~np.isnan(values), self.session.grid)

        return ({"spread": 100 * mean(found.spread), "error": 100 * mean(found.error)}, {"spread": "cm", "error": "cm"})

    def curve(self) -> Sparsification | None:
        """The sparsification curve of what is shown; None with fewer than two scored pixels."""
        return self.shown.sparsification() if self.shown is not None and self.shown.is_scored.sum() > 1 else None

    def sentences(self) -> list[str]:
        """What the spread is worth here, and what it is not."""
        curve = self.curve()
        if curve is None:
            return ["No hidden pixel was measured, so the spread cannot be compared with an error.", NOT_A_POSTERIOR]
        correlation = self.shown.correlation
        said = [f"Rank correlation of spread with error: {correlation:+.2f}." if np.isfinite(correlation) else
                "Every mask shows the same patches, so nothing spreads: there is no rank correlation."]
        half = int(np.argmin(np.abs(curve.removed - 0.5)))
        said.append(f"Leaving out the half with the most spread takes the mean error from {100 * curve.random[0]:.1f} to "
                    f"{100 * curve.by_spread[half]:.1f} cm; knowing the errors, to {100 * curve.oracle[half]:.1f} cm. Area between "
                    f"the two curves (AUSE): {curve.ause:.3f}; at random {curve.ause_random:.3f}.")
        return [*said, NOT_A_POSTERIOR]

    def still(self, width: int, theme: str) -> np.ndarray:
        """The panel as a picture; no rows where nothing was measured."""
        if self.shown is None:
            return blank((0, width), theme)
        curve, end, wide = self.curve(), _end(self.shown), 264
        said = [f"{p.label}: dark 0, bright {100 * end:.3g} cm and more" for p in self.pictures.values()]
        sheet = contact_sheet([_picture(self.shown.spread, end), _picture(self.shown.error, end)], said, 2, cell_width=wide,
                              font_size=15, gap=8, theme=theme)
        if curve is not None:  # the chart's letters need the width
            chart = sparsification_image(curve, width - sheet.shape[1], theme)
            row = blank((max(sheet.shape[0], chart.shape[0]), width), theme)
            paste(row, sheet, 0, 0)
            paste(row, chart, 0, sheet.shape[1])
            sheet = row
        words = text_block(f"At {self._at()}, {self.shown.count} masks. " + " ".join(self.sentences()), width, 16, theme=theme)
        whole = blank((sheet.shape[0] + words.shape[0] + 12, width), theme)
        paste(whole, sheet, 0, 0)
        paste(whole, words, sheet.shape[0], 0)
        return whole


def _end(found: MaskSpread) -> float:
    """Metres at the bright end of both pictures, so that equal colours mean equal metres."""
    known = np.concatenate([found.spread[~np.isnan(found.spread)], found.error[found.is_scored]])
    return max(float(np.percentile(known, 97)), 0.001) if known.size else 1.0


def _picture(values: np.ndarray, end: float) -> np.ndarray:
    """Numbers in colour, hatched where there is none."""
    image = style.apply_colormap(np.nan_to_num(values), 0.0, end, COLORMAP)
    return np.where(np.isnan(values)[..., None], hatching(values.shape, style.HOLE_COLORS), image)


def _words(text: str, is_html: bool = False) -> str:
    return f"<div style='font-size:13px;line-height:1.45'>{text if is_html else escape(text)}</div>"


__all__ = ["DRAWS", "SpreadPanel"]
