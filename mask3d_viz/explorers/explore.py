"""Everything in one view: pictures and masks, the clouds and the evidence."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import anywidget
import ipywidgets as widgets
import numpy as np
import traitlets

from mask3d_viz.drawing import blank
from mask3d_viz.explorers.base import Explorer, opened
from mask3d_viz.explorers.depth import DepthExplorer
from mask3d_viz.explorers.masks import MaskExplorer
from mask3d_viz.explorers.questions import Questions, answer_html, arrows_of, words
from mask3d_viz.session import Session


WIDEST = 900  # pixels of a picture; the grid's column says how wide it is
HINT = "Select a patch and ask: what does its depth come from?"


class FullScreen(anywidget.AnyWidget):
    """A button that gives the explorer around it the whole screen."""

    _esm = """
    export default {
      render({ model, el }) {
        const button = document.createElement("button");
        el.classList.add("mask3d-full");
        button.textContent = "full screen";
        button.className = "jupyter-button widget-button";
        button.title = "show this explorer alone; Escape brings the notebook back";
        const press = () => {
          const whole = el.closest(".mask3d-explore") ?? el.parentElement;
          if (document.fullscreenElement) document.exitFullscreen();
          else whole.requestFullscreen?.().catch(() => {});
        };
        const follow = () => { button.setAttribute("aria-pressed", String(Boolean(document.fullscreenElement))); };
        button.addEventListener("click", press);
        document.addEventListener("fullscreenchange", follow);
        follow();
        el.append(button);
        return () => document.removeEventListener("fullscreenchange", follow);
      },
    };
    """
    _css = """
    .mask3d-explore:fullscreen { background: var(--jp-layout-color0, #fff); overflow: auto; padding: 12px 16px; }
    .mask3d-explore:fullscreen > * { flex-shrink: 0; } /* the screen scrolls, nothing is cut */
    .mask3d-explore:fullscreen > .widget-html:has(svg) { display: none; } /* the map: the notebook has it */
    .mask3d-full { margin-left: auto; }
    .mask3d-full button { width: auto; }
    """
    label = traitlets.Unicode("full screen").tag(sync=True)


class Grid(anywidget.AnyWidget):
    """Where the parts stand: a grid of four columns that follows the width of the view, not that of the window.

    The order on the page is that of reading: RGB and depth seen, prediction, error; then the clouds with truth and numbers
    beside them. It holds nothing to see.
    """

    _esm = "export default { render({ el }) { el.style.display = 'none'; } };"
    _css = """
    .mask3d-explore { container-type: inline-size; }
    .mask3d-explore .mask3d-grid {
      display: grid; grid-template-columns: repeat(4, minmax(0, 1fr)); grid-auto-flow: row dense; gap: 4px 14px;
      align-items: start; overflow: visible; margin: 0; width: 100%;
    }
    .mask3d-explore .mask3d-grid::before { display: none; } /* the sign of a lost kernel is no tile */
    .mask3d-grid > * { margin: 0; min-width: 0; max-width: 100%; overflow: visible; }
    .mask3d-grid > .mask3d-clouds { grid-column: span 3; grid-row: span 2; order: 1; }
    .mask3d-grid > .mask3d-after { order: 2; }
    .mask3d-grid > .mask3d-wide { grid-column: span 2; }
    .mask3d-grid:has(> .mask3d-wide) > .mask3d-clouds { grid-row: span 1; }
    /* The four pictures stand in line: what is painted with comes under its picture. */
    .mask3d-grid .patch-image { display: flex; flex-direction: column; }
    .mask3d-grid .pi-bar { order: 1; }
    .mask3d-grid .pi-tools { order: 2; padding: 6px 0 0; }
    .mask3d-grid :is(.pi-legend, .pi-readout) { order: 3; }
    .mask3d-grid > .mask3d-after table { width: 100%; font-size: 12px !important; line-height: 1.35; }
    .mask3d-grid > .mask3d-after :is(th, td) { padding-right: 6px !important; }
    .mask3d-grid > .mask3d-after :is(th, td):not(:first-child) { width: 1%; } /* the names get what is left */
    .mask3d-explore:not(.mask3d-present) .mask3d-numbers { display: none; } /* the table says it too */
    @container (max-width: 900px) {
      .mask3d-explore .mask3d-grid { grid-template-columns: repeat(2, minmax(0, 1fr)); }
      .mask3d-grid > .mask3d-clouds { grid-column: span 2; grid-row: span 1; }
    }
    @container (max-width: 480px) {
      .mask3d-explore .mask3d-grid { grid-template-columns: minmax(0, 1fr); }
      .mask3d-grid > * { grid-column: span 1 !important; }
    }
    .mask3d-explore.mask3d-present .mask3d-grid { grid-template-columns: minmax(0, 5fr) minmax(0, 8fr); }
    .mask3d-explore.mask3d-present .mask3d-grid > * { grid-column: span 1; }
    @container (max-width: 640px) {
      .mask3d-explore.mask3d-present .mask3d-grid { grid-template-columns: minmax(0, 1fr); }
    }
    """


class Explore(Explorer):
    """Pictures over clouds and numbers on a wide screen, one above the other on a narrow one.

    Args:
        session: what it shows and changes.
    """

    function, here, compares = "explore", "all", True

    def __init__(self, session: Session):
        super().__init__(session)
        self.add_class("mask3d-explore")
        with self.parts():
            self.masks, self.depth = MaskExplorer(session, width=WIDEST), DepthExplorer(session, waits=True)
        self.ask = widgets.Button(description="ask this patch", layout=widgets.Layout(width="auto"), tooltip="what does the "
                                  "selected patch's depth come from? Every visible patch is taken away once")
        self.progress = widgets.IntProgress(description="asking", style={"description_width": "initial"},
                                            layout=widgets.Layout(width="320px", visibility="hidden"))
        self.answer = widgets.HTML(words(HINT))
        self.questions = Questions(self.studio, self._count)
        self.ask.on_click(lambda _: self.ask_patch())
        asking = widgets.Box([self.ask, self.progress, self.answer], layout=widgets.Layout(
            display="flex", flex_flow="row wrap", grid_gap="8px", align_items="center"))
        self._arrange(asking)
        self.begin()

    def _arrange(self, asking: widgets.Box) -> None:
        """Take the parts apart: one row of controls, one grid of pictures, clouds and numbers."""
        masks, depth = self.masks, self.depth
        masks.controls.children = [*masks.controls.children, FullScreen()]
        masks.more_controls.children = [*masks.more_controls.children, depth.native, depth.open3d]
        depth.extras.children = [depth.beside]
        depth.children = [depth.whole, asking, depth.message]
        depth.numbers.add_class("mask3d-numbers")
        depth.add_class("mask3d-clouds")
        for panel in masks.panels():
            panel.layout = widgets.Layout(display=panel.layout.display)
        for part in (*masks.after(), masks.evidence):
            part.add_class("mask3d-after")
        grid = widgets.Box([*masks.panels(), masks.evidence, depth])
        grid.add_class("mask3d-grid")
        self.children = [Grid(), masks.controls, masks.more_controls, masks.message, masks.of_object, grid, self.message]

    def ask_patch(self) -> None:
        """What the selected patch's depth comes from: a sentence, and arrows in pictures and clouds."""
        if not self.session.state.selection:
            return self._say_answer("Click a patch first, in a picture or in a cloud.")
        if self.studio.shown is None or self.studio.is_stale:
            return self._say_answer("A prediction is on its way: ask again in a moment.")
        if self.questions.known() is not None:
            return self._answer()
        self._say_answer("Taking every visible patch away once ...")

        def done(of: tuple, answer: object, problem: BaseException | None) -> None:
            self.progress.layout.visibility = "hidden"
            if problem is not None:
                return self._say_answer(str(problem))
            if self.studio.shown is not None and self.studio.shown.key[1:] == of[1:]:  # of these masks, if by earlier weights
                self._answer()

        self.questions.ask(done)

    def _say_answer(self, text: str) -> None:
        self.answer.value = words(text)

    def _count(self, done: int, total: int) -> None:
        self.progress.max, self.progress.value, self.progress.layout.visibility = total, done, "visible"
        left = self.questions.time_words()
        self.progress.description = f"asking, {left}" if left else "asking"

    def _answer(self) -> None:
        """Answer for the selected patch from what is known of this mask, at least by earlier weights of a run."""
        selection, known, mark = self.session.state.selection, self.questions.known(), ""
        if known is None and (earlier := self.questions.earlier()) is not None:
            known, mark = earlier.answer, earlier.words
        if selection and known is not None:
            self.answer.value = answer_html(selection[-1], self.session.grid, known[0], rows=3, mark=mark)
            self.studio.point(arrows_of(selection[-1], known[0]))

    def follow(self, changed: frozenset[str]) -> None:
        """Once this mask was asked about, every further patch answers at once."""
        if "selection" in changed and self.studio.shown is not None and not self.studio.is_stale:
            if self.session.state.selection and self.questions.known() is not None:
                self._answer()
            else:
                self.studio.point(())
                self._say_answer(HINT)

    def _show(self) -> None:
        """The parts show; what went wrong is said by the masks alone."""
        self.depth.layout.display = None if self.predicts_depth else "none"
        self.ask.disabled = self.cannot_show
        if self.studio.is_stale and not self.questions.is_open:
            self._say_answer(HINT)

    def close(self) -> None:
        """Close the parts too."""
        if hasattr(self, "questions"):  # else it was never finished
            self.questions.close()
            self.masks.close()
            self.depth.close()
        super().close()

    def files(self) -> dict[str, Callable[[], tuple[str, bytes]]]:
        """What the parts have to offer too."""
        return {**self.masks.files(), **self.depth.files(), **super().files()}

    def panels(self) -> Sequence[widgets.Widget]:
        """The pictures' tiles, the evidence and the clouds."""
        return [*self.masks.panels(), self.masks.evidence, self.depth]

    def projected(self) -> Sequence[widgets.Widget]:
        """The depth that was seen, with its slider, and the clouds."""
        return [self.masks.projected()[0], self.depth]

    def still(self, theme: str = "light") -> np.ndarray:
        """Both parts, one above the other."""
        parts = [self.masks.still(theme), self.depth.still(theme)]
        width = max(part.shape[1] for part in parts)
        sheet = blank((sum(part.shape[0] for part in parts), width), theme)
        top = 0
        for part in parts:
            sheet[top:top + part.shape[0], :part.shape[1]] = part
            top += part.shape[0]
        return sheet


def explore(session: Session, present: bool = False) -> Explore:
    """Pictures, clouds and evidence in one view; see :class:`Explore`."""
    return opened(Explore(session), present)


__all__ = ["Explore", "explore"]
