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


HINT = "Select a patch and ask: what does its depth come from?"


class FullScreen(anywidget.AnyWidget):
    """A button that gives the explorer around it the whole screen."""

    _esm = """
    export default {
      render({ model, el }) {
        const button = document.createElement("button");
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
    .mask3d-explore:fullscreen { background: var(--jp-layout-color0, #fff); overflow: auto; padding: 16px; }
    """
    label = traitlets.Unicode("full screen").tag(sync=True)


class Explore(Explorer):
    """Masks on the left, clouds on the right, one above the other where the screen is narrow.

    Args:
        session: what it shows and changes.
    """

    function, here, compares = "explore", "all", True

    def __init__(self, session: Session):
        super().__init__(session)
        self.add_class("mask3d-explore")
        with self.parts():
            self.masks, self.depth = MaskExplorer(session, width=300), DepthExplorer(session, waits=True)
        for part, least in ((self.masks, "480px"), (self.depth, "420px")):
            part.layout = widgets.Layout(flex=f"1 1 {least}", min_width="300px")
        self.ask = widgets.Button(description="ask this patch", layout=widgets.Layout(width="auto"), tooltip="what does the "
                                  "selected patch's depth come from? Every visible patch is taken away once")
        self.progress = widgets.IntProgress(description="asking", layout=widgets.Layout(width="260px", visibility="hidden"))
        self.answer = widgets.HTML(words(HINT))
        self.questions = Questions(self.studio, self._count)
        self.ask.on_click(lambda _: self.ask_patch())
        asking = widgets.Box([self.ask, self.progress, self.answer], layout=widgets.Layout(
            display="flex", flex_flow="row wrap", grid_gap="8px", align_items="center"))
        self.depth.children = [*self.depth.children, asking]
        self.children = [FullScreen(), widgets.Box([self.masks, self.depth], layout=widgets.Layout(
            display="flex", flex_flow="row wrap", grid_gap="20px", align_items="flex-start")), self.message]
        self.begin()

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
            if self.studio.shown is not None and self.studio.shown.key == of:
                self._answer()

        self.questions.ask(done)

    def _say_answer(self, text: str) -> None:
        self.answer.value = words(text)

    def _count(self, done: int, total: int) -> None:
        self.progress.max, self.progress.value, self.progress.layout.visibility = total, done, "visible"

    def _answer(self) -> None:
        """Answer for the selected patch from what is known of this mask."""
        selection, known = self.session.state.selection, self.questions.known()
        if selection and known is not None:
            self.answer.value = answer_html(selection[-1], self.session.grid, known[0], rows=3)
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
        if self.studio.is_stale:
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
