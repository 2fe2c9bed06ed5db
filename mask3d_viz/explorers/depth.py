"""Depth in space: truth and prediction as linked clouds, by provenance, colour, depth or signed error."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from html import escape
from pathlib import Path

import ipywidgets as widgets
import numpy as np

from mask3d_core.frames import Intrinsics, RGBDFrame
from mask3d_core.reconstruct import Reconstruction
from mask3d_viz import style
from mask3d_viz.depth_clouds import (MODES, MOST, SAME_PIXELS, both_clouds, fine_frame, patch_middles,
                                     two_predictions)
from mask3d_viz.drawing import blank, contact_sheet, paste, text_block
from mask3d_viz.explorers.base import STILL_WIDTH, Explorer, opened
from mask3d_viz.explorers.comparison import Compared
from mask3d_viz.explorers.evidence import sentence
from mask3d_viz.images import error_end
from mask3d_viz.open3d_view import Open3DWindow, Rendered, open_window, render_offscreen
from mask3d_viz.predictions import Shown
from mask3d_viz.session import BESIDE, Session
from mask3d_viz.widgets.point_cloud import PALETTES, PointCloud
from mask3d_viz.worker import Worker

TRUTH, SECOND = BESIDE
PANES = ["truth", "prediction"]


PICTURES_FIRST = 0.08  # seconds that a cloud waits where pictures stand beside it: it keeps the browser's renderer busy for longer


class DepthExplorer(Explorer):
    """Truth and prediction of the session's frame as clouds under one camera, side by side, under a curtain or blinking;
    or the predictions of checkpoints A and B.

    Args:
        session: what it shows and changes.
        height: of the clouds, CSS pixels.
        waits: pictures of the same prediction stand beside the clouds and are drawn first.
    """

    function, here, compares = "explore_depth", "prediction", True

    def __init__(self, session: Session, height: int = 460, waits: bool = False):
        super().__init__(session)
        self.waits, self.says_why = waits, not waits
        self._later: asyncio.TimerHandle | None = None
        size = session.model()[0].config.image_size
        self.cloud = PointCloud(panes=PANES, size=size, patch=session.patch, height=height,
                                label="Truth and prediction in space", channels=self._channels(None),
                                edge_note=SAME_PIXELS, pane_shape=4 / 3)
        self.native = widgets.Checkbox(description="truth at the frame's own resolution", indent=False,
                                       tooltip=f"up to {MOST:,} points", layout=widgets.Layout(width="auto"))
        self.open3d = widgets.Button(description="open in Open3D", layout=widgets.Layout(width="auto"),
                                     tooltip="both clouds, as they are here, in a desktop window of its own")
        self.beside = widgets.Dropdown(options=BESIDE, description="beside it", tooltip="what stands beside A's prediction",
                                       layout=widgets.Layout(width="220px"))
        self.numbers = widgets.HTML(layout=widgets.Layout(margin="0"))
        self.window: Open3DWindow | None = None
        self.worker, self._window_worker = Worker(), Worker()
        self._fine: tuple[int, RGBDFrame | None] | None = None  # number of a frame and the frame, none where it is coarse
        row = widgets.Layout(display="flex", flex_flow="row wrap", grid_gap="4px 18px", align_items="center")
        self.extras = widgets.Box([self.beside, self.native, self.open3d], layout=row)
        self.whole = widgets.VBox([self.cloud, self.numbers, self.extras])
        self.children = [self.whole, self.message]
        self._listen()
        self.begin()
        self._ends.append(self.studio.on_arrows(self._point))

    def _listen(self) -> None:
        cloud = self.cloud
        cloud.observe(lambda change: self.wish(hover=change["new"]), "hover")
        cloud.observe(lambda change: self.wish(selection=tuple(change["new"])), "selection")
        cloud.observe(lambda change: self._colored(change["new"]), "mode")
        cloud.observe(lambda _: self._stood(), ["camera", "view"])
        cloud.observe(lambda change: self.wish("flying pixels", edge_limit=min(90.0, change["new"])), "edge_limit")
        cloud.observe(lambda change: self.wish(layout=change["new"]), "layout_mode")
        cloud.observe(lambda change: self.wish("curtain", curtain=change["new"]), "wipe")
        self.beside.observe(lambda change: self.wish(beside=change["new"]), "value")
        self.native.observe(lambda change: self.wish(is_native=change["new"]), "value")
        self.open3d.on_click(lambda _: self._open())

    def _show(self) -> None:
        """Where pictures stand beside the clouds, in a live kernel, let the browser draw those first."""
        if self._later is not None:
            self._later.cancel()
            self._later = None
        try:
            loop = asyncio.get_running_loop() if self.waits and not self.studio.is_stale else None
        except RuntimeError:  # driven from Python
            loop = None
        if loop is None:
            super()._show()
        else:
            self._later = loop.call_later(PICTURES_FIRST, super()._show)

    def close(self) -> None:
        """End the workers too; a desktop window stays open."""
        if self._later is not None:
            self._later.cancel()
        self.worker.close()
        self._window_worker.close()
        super().close()

    # ---- the reader's hand ------------------------------------------------------------------------------------------

    def _colored(self, mode: str) -> None:
        self.wish(color_mode={widget: name for name, widget in MODES.items()}[mode])

    def _stood(self) -> None:
        """The camera was moved: to a preset, or by hand."""
        view, camera = self.cloud.view, dict(self.cloud.camera)
        if view and camera == self.cloud.views.get(view):
            self.wish(camera=None, view=view)
        else:
            self.wish("camera", camera=camera or None)

    def _open(self) -> None:
        window = self.open_in_open3d()
        self.say(window.words(), warns=bool(window.reason))
        if not window.reason:
            self._window_worker.ask(window.wait_ready, lambda *_: self.say(window.words(), warns=bool(window.reason)))

    # ---- following --------------------------------------------------------------------------------------------------

    def follow(self, changed: frozenset[str]) -> None:
        """Move the cloud to the state."""
        state, cloud = self.session.state, self.cloud
        if "hover" in changed:
            cloud.hover = state.hover
        if "selection" in changed:
            cloud.selection = list(state.selection)
        if "color_mode" in changed:
            cloud.mode = MODES[state.color_mode]
        if "edge_limit" in changed:
            cloud.edge_limit = state.edge_limit
        if "layout" in changed:
            cloud.layout_mode = state.layout
        if "curtain" in changed:
            cloud.wipe = state.curtain
        if "is_native" in changed:
            self.native.value = state.is_native
        if changed & {"camera", "view"}:
            self._stand()
        if changed & {"compare", "beside"}:
            self.beside.value = state.beside
            self.beside.layout.display = None if state.compare else "none"
            self.native.disabled = self.is_two
        if changed & {"depth_range", "colormap", "is_pasted", "is_native", "beside"} and self.studio.shown is not None:
            self.show()

    def _stand(self) -> None:
        """Put the camera where the state has it."""
        state, cloud = self.session.state, self.cloud
        camera = state.camera or cloud.views.get(state.view, cloud.camera)
        with cloud.hold_sync():
            cloud.view = "" if state.camera else state.view
            if camera and camera != cloud.camera:
                cloud.camera = dict(camera)

    def show(self) -> None:
        """The newest prediction's points; the old ones dimmed while a newer one is on its way, or none can be made."""
        shown, state = self.studio.shown, self.session.state
        self.whole.layout.display = None if self.predicts_depth else "none"
        if self.cannot_show:
            with self.cloud.hold_sync():
                self.cloud.stale, self.cloud.problem = False, self.studio.error
                self.cloud.note = "" if shown is None else "These points are of what was shown before."
            self.numbers.value = ""
            return
        self.cloud.problem = ""
        if shown is None or self.studio.is_stale or self.studio.error:
            self.cloud.stale = self.studio.is_stale
            return
        if self.is_two:
            compared = self.comparison.shown
            self.cloud.stale = self.comparison.is_stale or compared is None or compared.first.key != shown.key
            return None if self.cloud.stale else self._show_two(compared)
        r = shown.reconstruction
        number = state.frame  # what is shown is no older than the state
        if state.is_native and (self._fine is None or self._fine[0] != number):
            self._load_fine(number)
        fine = self._fine[1] if state.is_native and self._fine is not None and self._fine[0] == number else None
        truth, prediction = both_clouds(r, r.pasted if state.is_pasted else r.prediction, fine)
        with self.cloud.hold_sync():  # one message, one drawing
            self.cloud.stale, self.cloud.panes, self.cloud.label = False, PANES, "Truth and prediction in space"
            self.cloud.channels = self._channels(shown)
            self.cloud.set_pane(0, **truth, intrinsics=Intrinsics.from_array(r.intrinsics))
            self.cloud.set_pane(1, **prediction)
            self.cloud.note = self._note(r)
        self.judged()
        self._point()

    @property
    def is_two(self) -> bool:
        """Whether the panes are A's and B's predictions: that is asked for, a B is chosen, and it can be shown."""
        return self.session.state.beside == SECOND and self.comparison.is_wanted and not self.comparison.error

    def _show_two(self, compared: Compared) -> None:
        """A's points and B's."""
        state, first, second = self.session.state, compared.first.reconstruction, compared.second.reconstruction
        left, right = two_predictions(first, *(r.pasted if state.is_pasted else r.prediction for r in (first, second)))
        with self.cloud.hold_sync():
            self.cloud.panes = [f"{letter}: {name}" for letter, name in zip("AB", compared.names)]
            self.cloud.label = "Two predictions in space"
            self.cloud.channels = self._channels(compared.first)
            self.cloud.set_pane(0, **left, intrinsics=Intrinsics.from_array(first.intrinsics))
            self.cloud.set_pane(1, **right)
            self.cloud.note = self._note(first)
        self.judged()
        self._point()

    def _note(self, result: Reconstruction) -> str:
        """The line over the clouds: what was visible, where no picture beside them says so."""
        return ("scale assumed: no depth was visible" if result.is_scale_assumed else "" if self.waits
                else self.session.words())

    def show_second(self) -> None:
        """B is there, on its way, or gone: the panes follow."""
        self.native.disabled = self.is_two
        if self.session.state.beside == SECOND:
            self.show()
        elif self.studio.shown is not None:
            self.judged()

    def second_problem(self) -> str:
        """Why B's cloud is not there, where it was asked for."""
        return self.comparison.error if self.session.state.beside == SECOND else ""

    def evidence_texts(self) -> list[widgets.Widget]:
        """The line of numbers."""
        return [self.numbers]

    def judged(self) -> None:
        """The best opponent's numbers."""
        if self.cannot_show:
            return
        shown, found = self.studio.shown, self.comparison.shown
        is_there = found is not None and not self.comparison.is_stale and found.first.key == shown.key
        self.numbers.value = f"<div style='font-size:13px'>{escape(sentence(shown, found if is_there else None))}</div>"

    def _point(self) -> None:
        """The arrows of an asked patch, between the places that its patches have in space."""
        shown, arrows = self.studio.shown, self.studio.arrows
        if shown is None or not arrows:
            self.cloud.arrows = []
            return
        middles = patch_middles(shown.reconstruction)
        self.cloud.arrows = [{"from": middles[a.start].tolist(), "to": middles[a.end].tolist(), "weight": a.weight,
                              "color": a.color} for a in arrows]

    def _channels(self, shown: Shown | None) -> list[dict]:
        limits, end = (0.5, 4.0), 0.5
        if shown is not None:
            limits = self.session.limits()
            end = error_end(limits)
        return [{"name": "depth", "unit": "m", "digits": 2, "palette": PALETTES.index(self.session.state.colormap),
                 "range": list(limits), "is_diverging": False},
                {"name": "error", "unit": "mm", "digits": 0, "palette": PALETTES.index(style.ERROR_COLORMAP),
                 "range": [-1000 * end, 1000 * end], "is_diverging": True}]

    def _load_fine(self, number: int) -> None:
        """Ask for the frame at its own resolution."""
        size = self.cloud.size

        def done(frame: RGBDFrame | None, problem: BaseException | None) -> None:
            if problem is not None:
                return self.say(str(problem), warns=True)
            self._fine = number, frame
            if frame is None:
                self.say(f"This frame is no finer than what the model sees ({size[1]} x {size[0]}).")
            with self.following():
                self.show()

        self.worker.ask(lambda: fine_frame(self.session.frames[number], size), done)

    # ---- taking along -----------------------------------------------------------------------------------------------

    def removed(self) -> tuple[int, int]:
        """How many of the picture's pixels are flying and left out of both clouds, and how many there are."""
        is_drawn = self.cloud.is_drawn(1)  # the prediction has a point at every pixel
        return int((~is_drawn).sum()), len(is_drawn)

    def drawn(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """The clouds as they are drawn: name to (points float32 (n, 3) metres, colours uint8 (n, 3))."""
        found = {}
        for index, name in enumerate(self.cloud.panes):
            keep = self.cloud.is_drawn(index)
            found[name] = self.cloud.points(index).positions[keep], self.cloud.colors(index)[keep]
        return found

    def open_in_open3d(self, size: tuple[int, int] = (720, 1280), theme: str = "dark") -> Open3DWindow:
        """Both clouds, as they are drawn here, in Open3D's desktop window; see :func:`open3d_view.open_window`."""
        self._ready()
        self.window = open_window(self.drawn(), title=self.session.frames.name(self.session.state.frame), size=size,
                                  camera=self.cloud.house_camera(size), theme=theme)
        return self.window

    def still_by_open3d(self, size: tuple[int, int] = (440, 594), theme: str = "light") -> Rendered:
        """Both clouds drawn off-screen by Open3D, from the same camera; by the splat where that cannot be, and why.

        Args:
            size: (height, width) of each of the two pictures.
            theme: "light" or "dark".
        """
        self._ready()
        camera = self.cloud.house_camera(size)
        made = {name: render_offscreen({name: cloud}, camera, size, theme=theme) for name, cloud in self.drawn().items()}
        reason = next((one.reason for one in made.values() if one.reason), "")
        sheet = contact_sheet([one.picture for one in made.values()], list(made), 2, theme=theme)
        return Rendered(sheet, "splat" if reason else "open3d", reason)

    def save_ply(self, folder: str | Path) -> list[Path]:
        """Write ``truth.ply`` and ``prediction.ply`` (or A's and B's, :meth:`titles`) in the colours that are shown."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self._ready()
        return [self.cloud.save_ply(folder / f"{title}.ply", index) for index, title in enumerate(self.titles())]

    def titles(self) -> list[str]:
        """What the two clouds are called outside of this view, as a file may be."""
        return ["prediction-A", "prediction-B"] if self.is_two else PANES

    def files(self) -> dict[str, Callable[[], tuple[str, bytes]]]:
        """Also both clouds as PLY."""
        def ply(index: int, title: str) -> tuple[str, bytes]:
            self._ready()
            with tempfile.TemporaryDirectory() as folder:
                return f"{title}.ply", self.cloud.save_ply(Path(folder) / "cloud.ply", index).read_bytes()

        own = {f"PLY {title}": (lambda index=index, title=title: ply(index, title))
               for index, title in enumerate(self.titles())}
        return {**super().files(), **own}

    def _ready(self) -> None:
        self.studio.newest()
        if self.is_two:
            compared = self.compared()
            if compared is not None and (self.cloud.stale or self.cloud.panes == PANES):
                self.cloud.stale = False
                self._show_two(compared)

    def still(self, theme: str = "light") -> np.ndarray:
        """Both clouds from the same camera, the numbers under them."""
        self._ready()
        picture = self.cloud.still(STILL_WIDTH, round(0.42 * STILL_WIDTH), theme)
        words = text_block(sentence(self.studio.shown, self.compared()), STILL_WIDTH - 16, 16, theme=theme)
        sheet = blank((picture.shape[0] + words.shape[0] + 8, STILL_WIDTH), theme)
        paste(sheet, picture, 0, 0)
        paste(sheet, words, picture.shape[0] + 2, 8)
        return sheet


def explore_depth(session: Session, present: bool = False, **options) -> DepthExplorer:
    """Truth and prediction as linked clouds; see :class:`DepthExplorer`."""
    return opened(DepthExplorer(session, **options), present)


def open_in_open3d(session: Session) -> Open3DWindow:
    """Truth and prediction of a session in Open3D's desktop window, in the session's colours and from its camera.

    Returns:
        At once; the window itself says how it stands, and why there is none.
    """
    with Explorer.parts():
        explorer = DepthExplorer(session)
    try:
        if session.state.is_native:
            explorer.worker.wait()
        return explorer.open_in_open3d()
    finally:
        explorer.close()


__all__ = ["DepthExplorer", "explore_depth", "open_in_open3d", "sentence"]
