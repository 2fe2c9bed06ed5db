"""How much to hide: error over RGB ratio x depth ratio as a clickable map, where the model loses, and what spread is worth."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import numpy as np

from mask3d_core.errors import ConfigError, Mask3DError
from mask3d_core.evaluation.ratio_map import MAP_METRICS, NOTHING_VISIBLE, RatioMap
from mask3d_viz.drawing import blank, paste, text_block
from mask3d_viz.explorers.base import STILL_WIDTH, Explorer, opened
from mask3d_viz.explorers.ratios_words import ratio_rows, ratio_sentences
from mask3d_viz.explorers.spread import SpreadPanel
from mask3d_viz.ratio_book import FRAMES, be_modest, book_of, read_maps
from mask3d_viz.ratio_pictures import map_image
from mask3d_viz.ratio_view import ERROR, METRIC_WORDS, MODES, MapView, map_view, percent, place_of, readout
from mask3d_viz.session import Session
from mask3d_viz.widgets.ratio_grid import RatioGrid
from mask3d_viz.worker import Worker

ONE, SEVERAL = "this frame", "several frames"
PATIENCE = 2.0  # seconds that a cell waits at most for a prediction on its way


class RatioExplorer(Explorer):
    """A map of the error over both ratios, with the session's place in it; a click goes there.

    Args:
        session: what it shows and changes.
        metric: one of ``MAP_METRICS``. mode: one of ``MODES``.
        seeds: of the map's masks; None: those of a map that is known, else (0, 1).
        ratios: its rows and columns, ascending in 0..1; None: as for the seeds. What is asked for and not known is measured.
        maps: files of further maps, besides those that ship.
        live: begin to measure what is not known as soon as the view is displayed; else on the button.
    """

    function, here = "explore_ratios", "error"

    def __init__(self, session: Session, metric: str = "abs_rel", mode: str = ERROR, seeds: Sequence[int] | None = None,
                 ratios: Sequence[float] | None = None, maps: Sequence[str | Path] = (), live: bool = True):
        super().__init__(session)
        if metric not in MAP_METRICS or mode not in MODES:
            raise ConfigError(f"metric must be one of {', '.join(MAP_METRICS)} and mode one of {', '.join(MODES)}; got "
                              f"{metric!r} and {mode!r}")
        self.seeds, self.ratios = (None if given is None else tuple(given) for given in (seeds, ratios))
        self._problem = ""
        try:
            self.files_known = read_maps(maps)
        except Mask3DError as problem:
            self.files_known, self._problem = [], str(problem)
        self.book, self.worker = book_of(session), Worker(rest=0.02)
        self.is_live, self._is_closed = False, False
        self._begins_when_displayed = live
        self._key: tuple = ()
        self.map: RatioMap | None = None
        self._cells, self._began, self._done_before = None, 0.0, 0  # the run that is measuring, or None
        self._is_patient = True
        self._drawn: tuple[tuple, MapView] | None = None
        self._build(metric, mode)
        self.begin()
        if self._is_known(several=True):
            self.scope.value = SEVERAL

    def _build(self, metric: str, mode: str) -> None:
        def button(words: str, tip: str) -> widgets.Button:
            return widgets.Button(description=words, tooltip=tip, layout=widgets.Layout(width="auto"))

        count = len(self.session.frames)
        options = [(ONE, ONE)] + ([(f"{min(FRAMES, count)} frames", SEVERAL)] if count > 1 else [])
        self.scope = widgets.ToggleButtons(options=options, tooltips=["the session's frame", "with bands over frames"],
                                           style={"button_width": "auto"})
        self.metric = widgets.Dropdown(options=[(METRIC_WORDS[m], m) for m in MAP_METRICS], value=metric, description="score",
                                       layout=widgets.Layout(width="240px"))
        self.mode = widgets.ToggleButtons(options=list(MODES), value=mode, style={"button_width": "auto"}, tooltips=[
            "the model's own score", "blue: the model is better; red and hatched: an opponent is"])
        self.measure = button("measure", "measure the cells that are missing")
        self.cancel = button("cancel", "stop measuring; what is there stays")
        self.progress = widgets.IntProgress(layout=widgets.Layout(width="160px"))
        self.status, self.words = widgets.HTML(), widgets.HTML()
        self.grid = RatioGrid()
        self.spread = SpreadPanel(self)
        row = widgets.Layout(display="flex", flex_flow="row wrap", grid_gap="6px 12px", align_items="center")
        self.controls = widgets.Box([self.scope, self.mode, self.metric], layout=row)
        self.running = widgets.Box([self.measure, self.cancel, self.progress, self.status], layout=row)
        self._map_panel = widgets.Box([self.grid], layout=widgets.Layout(flex="3 1 420px", max_width="660px", min_width="280px"))
        self._words_panel = widgets.Box([self.words], layout=widgets.Layout(flex="1 1 260px", max_width="440px"))
        both = widgets.Box([self._map_panel, self._words_panel], layout=widgets.Layout(
            display="flex", flex_flow="row wrap", grid_gap="6px 24px", align_items="flex-start"))
        self.children = [self.controls, self.running, both, self.spread, self.message]
        self.scope.observe(lambda _: self._choose(), "value")
        for control in (self.metric, self.mode):
            control.observe(lambda _: self._draw(), "value")
        self.measure.on_click(lambda _: self.start())
        self.cancel.on_click(lambda _: self.stop())
        self.grid.observe(lambda change: self._go(), "chosen")

    def _repr_mimebundle_(self, **kwargs: Any):
        """Displayed: now it is worth measuring."""
        if self._begins_when_displayed:
            self._begins_when_displayed, self.is_live = False, True
            self._go_on()
        return super()._repr_mimebundle_(**kwargs)

    def close(self) -> None:
        """End the workers too."""
        self._is_closed, self._cells = True, None
        self.worker.close()
        self.spread.end()
        super().close()

    def panels(self) -> Sequence[widgets.Widget]:
        """The map, its words, and the spread."""
        return (self._map_panel, self._words_panel, self.spread)

    def projected(self) -> Sequence[widgets.Widget]:
        """The map and its words."""
        return (self._map_panel, self._words_panel)

    # ---- following --------------------------------------------------------------------------------------------------

    def follow(self, changed: frozenset[str]) -> None:
        """Move the ring, and take the map of another frame or checkpoint."""
        if changed & {"checkpoint"} or self.map is None or ("frame" in changed and self.scope.value == ONE):
            self._choose()
        self._ring()
        self.spread.follow(changed)

    def show(self) -> None:
        """What the newest prediction scores stands beside the map."""
        if self._problem and not self.studio.error:
            self.say(self._problem, warns=True)
        self._say_words()
        self.spread.follow(frozenset())

    def judged(self) -> None:
        """The best opponent of the newest prediction."""
        self._say_words()

    def _go(self) -> None:
        """To the ratios of the cell that was chosen."""
        cell = self.grid.cell
        if cell is None or self.is_following or self.map is None:
            return
        rgb, depth = self.map.ratios(cell)
        if self.map.state(cell) == NOTHING_VISIBLE:
            return self.say(f"{percent(rgb)} of RGB and {percent(depth)} of depth hidden: nothing is visible there.", warns=True)
        self.say("")
        self.wish(rgb_ratio=rgb, depth_ratio=depth)

    # ---- which map --------------------------------------------------------------------------------------------------

    def _is_known(self, several: bool) -> bool:
        """Whether a whole map over several frames needs no measuring."""
        if len(self.session.frames) < 2 or self.map is None:
            return False
        return not self.book.find(self.book.numbers(not several), self.seeds, self.ratios, self.files_known)[1].missing

    def _choose(self) -> None:
        """The map of the session's checkpoint and frames; what is missing is measured if that is wanted."""
        try:
            key, found = self.book.find(self.book.numbers(self.scope.value == ONE), self.seeds, self.ratios, self.files_known)
        except Mask3DError as problem:
            self._problem = str(problem)
            return self.say(self._problem, warns=True)
        if key == self._key:
            return
        self._key, self.map, self._cells = key, found, None
        self._draw()
        self._report()
        if self.is_live:
            self._go_on()

    def _go_on(self) -> None:
        """Measure what is missing by itself, unless the weights will be others before it is done."""
        if self.map is not None and self.map.missing and not self.book.is_training:
            self.start()

    def start(self) -> None:
        """Measure what is missing, coarse to fine, whenever nothing else is to be done."""
        self.is_live = True  # another frame's or checkpoint's map goes on by itself
        if self.map is None or not self.map.missing or self._cells is not None:
            return
        self._problem, self._cells = "", self.book.fill(self.map)
        self._began, self._done_before = time.perf_counter(), len(self.map.cells)
        self._ask()
        self._report()

    def stop(self) -> None:
        """Measure no more; the cell that is being measured is still kept."""
        self._cells, self.is_live, self._begins_when_displayed = None, False, False
        self._report()

    @property
    def is_measuring(self) -> bool:
        """Whether cells are on their way."""
        return self._cells is not None

    def _ask(self) -> None:
        """The next cell, when the hand rests."""
        cells, key, studio, spread = self._cells, self._key, self.studio.worker, self.spread.worker

        def work() -> RatioMap | None:
            be_modest()
            until = time.monotonic() + (PATIENCE if self._is_patient else 0.0)
            while (studio.is_busy or spread.is_busy) and time.monotonic() < until and self._cells is cells:
                time.sleep(0.02)
            self._is_patient = not (studio.is_busy or spread.is_busy)  # waited in vain: once is enough
            return next(cells, None) if self._cells is cells else None

        def done(found: RatioMap | None, problem: BaseException | None) -> None:
            if found is not None:
                self.book.keep(key, found)
            if self._is_closed or key != self._key:
                return
            if found is not None:
                self.map = found
                self._draw()
            if problem is not None:
                self._problem = str(problem) if isinstance(problem, Mask3DError) else f"{type(problem).__name__}: {problem}"
                self.say(self._problem, warns=True)
            if problem is not None or (self._cells is cells and (found is None or not found.missing)):
                self._cells = None
            self._report()
            if self._cells is cells and cells is not None:
                self._ask()

        self.worker.ask(work, done)

    # ---- drawing ----------------------------------------------------------------------------------------------------

    @property
    def view(self) -> MapView:
        """What is drawn."""
        key = (id(self.map), self.metric.value, self.mode.value)
        if self._drawn is None or self._drawn[0] != key:
            self._drawn = key, map_view(self.map, self.metric.value, self.mode.value)
        return self._drawn[1]

    @property
    def place(self) -> tuple[float, float]:
        """Where the session stands in the map, (across, up) in cells."""
        state = self.session.state
        return place_of(state.rgb_ratio, self.map.rgb_ratios), place_of(state.depth_ratio, self.map.depth_ratios)

    @property
    def cell(self) -> tuple[int, int]:
        """The cell nearest to where the session stands, (row, column)."""
        across, up = self.place
        return round(up), round(across)

    def _draw(self) -> None:
        if self.map is None:
            return
        self.grid.draw(self.view)
        self._ring()
        self._say_words()

    def _ring(self) -> None:
        if self.map is not None:
            self.grid.here = self.place

    def _report(self) -> None:
        """Buttons, progress and where the numbers come from."""
        found = self.map
        if found is None:
            return
        missing, total, is_measuring = len(found.missing), len(found.places), self.is_measuring
        self.measure.disabled, self.cancel.disabled = is_measuring or not missing, not is_measuring
        self.progress.max, self.progress.value = total, total - missing
        for part, is_there in ((self.measure, missing > 0), (self.cancel, is_measuring), (self.progress, missing > 0)):
            part.layout.display = None if is_there else "none"
        text = f"{total - missing} of {total} cells"
        done = total - missing - self._done_before
        if is_measuring and done > 0:
            text += f", about {(time.perf_counter() - self._began) / done * missing:.0f} s left"
        elif missing:
            text += "" if is_measuring else ", stopped" if total > missing else ", not measured yet"
            if not is_measuring and self.book.is_training:
                text += "; this run still trains, so nothing is measured by itself until it has ended"
        self.status.value = _html(text) if missing else ""
        count = len(found.frames)
        over = f"{count} frames" if count > 1 else f"frame {found.frames[0].number}"
        masks = f"{len(found.seeds)} mask{'s' if len(found.seeds) > 1 else ''}"
        self.grid.note = f"{over}, {masks} each" + (", measured beforehand" if found.provenance else "")

    def _say_words(self) -> None:
        if self.map is not None:
            paragraphs = "".join(f"<p style='margin:0 0 8px'>{escape(text)}</p>" for text in self.sentences())
            self.words.value = _html(paragraphs, is_html=True)

    def sentences(self) -> list[str]:
        """What the map says, and the newest prediction beside it."""
        shown = None if self.studio.is_stale else self.studio.shown
        return ratio_sentences(self.map, self.metric.value, shown, self.session.state)

    def still(self, theme: str = "light") -> np.ndarray:
        """The map with its words, and the spread under it where it was measured."""
        if self.map is None:
            return text_block(self._problem, STILL_WIDTH, 17, theme=theme)
        width = 700
        picture = map_image(self.view, self.place, width, theme)
        room = STILL_WIDTH - width - 60
        words = text_block("\n\n".join([readout(self.map, self.cell, self.metric.value), *self.sentences()]), room, 17, theme=theme)
        below = self.spread.still(STILL_WIDTH - 24, theme)
        top = max(picture.shape[0], words.shape[0]) + 24
        sheet = blank((top + below.shape[0] + (12 if below.size else 0), STILL_WIDTH), theme)
        paste(sheet, picture, 12, 12)
        paste(sheet, words, 12, width + 48)
        paste(sheet, below, top, 12)
        return sheet

    # ---- taking along -----------------------------------------------------------------------------------------------

    def table(self) -> list[dict[str, Any]]:
        """One row per cell: ratios, score, band, best opponent and the paired difference, in metres where it has a unit."""
        return ratio_rows(self.map, self.metric.value)

    def files(self) -> dict[str, Callable[[], tuple[str, bytes]]]:
        """The map with every number besides the usual ones; ``explore_ratios(session, maps=[...])`` reads it again."""
        return {**super().files(),
                "MAP": lambda: ("ratio_map.json", json.dumps(self.map.as_dict(), separators=(",", ":")).encode())}


def _html(text: str, is_html: bool = False) -> str:
    return f"<div style='font-size:13px;line-height:1.45'>{text if is_html else escape(text)}</div>"


def explore_ratios(session: Session, present: bool = False, **options) -> RatioExplorer:
    """The error over both ratios as a clickable map; see :class:`RatioExplorer`."""
    return opened(RatioExplorer(session, **options), present)


__all__ = ["ONE", "SEVERAL", "RatioExplorer", "explore_ratios"]
