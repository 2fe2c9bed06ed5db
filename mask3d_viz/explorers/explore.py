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
from mask3d_viz.session import Session


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

    function, here = "explore", "all"

    def __init__(self, session: Session):
        super().__init__(session)
        self.add_class("mask3d-explore")
        with self.parts():
            self.masks, self.depth = MaskExplorer(session, width=300), DepthExplorer(session)
        for part, least in ((self.masks, "480px"), (self.depth, "420px")):
            part.layout = widgets.Layout(flex=f"1 1 {least}", min_width="300px")
        self.children = [FullScreen(), widgets.Box([self.masks, self.depth], layout=widgets.Layout(
            display="flex", flex_flow="row wrap", grid_gap="20px", align_items="flex-start")), self.message]
        self.begin()

    def _show(self) -> None:
        """The parts show; what went wrong is said by the masks alone."""

    def close(self) -> None:
        """Close the parts too."""
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
